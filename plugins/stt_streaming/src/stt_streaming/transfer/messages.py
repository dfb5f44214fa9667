"""The messages of the file transfer as bytes and values: what is offered, and what becomes of it.

    sender -> receiver   OFFER, manifest, records, end of stream
    receiver -> sender   ANSWER (accepted), PLAN, plan, ANSWER (stored), end of stream; or an ANSWER with a refusal

A sender that has the very item that the receiver says it has stored before sends no records.

A message is its length as two bytes, big-endian, and that many bytes of a dict in STT serialization. Keys that are not
known are ignored, so that a later version may add some; one that must break the rules takes another label. Manifest,
plan and records have modules of their own.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, Self

import attrs

from stt_core.errors import APPLICATION_CODES, FrameError, SerializationError
from stt_core.wire.serialization import deserialize_stt, serialize_stt

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stt_core.interfaces import Buffer

STREAM_LABEL: Final = "stt-transfer/1"
"""The label of a stream that carries one file or folder; the number is the protocol's version."""

LENGTH: Final = struct.Struct(">H")
"""What precedes each message."""

MAX_MESSAGE_SIZE: Final = 1024
"""Bytes of the longest message, its length not counted."""

MAX_TEXT_SIZE: Final = 256
"""Bytes of UTF-8 of the longest text in an answer."""

MAX_ENTRIES: Final = 1 << 18
"""Files, folders and links of one item; what either side keeps of each is some 900 bytes."""

MAX_MANIFEST_SIZE: Final = 64 * 1024 * 1024
"""Bytes of the longest manifest."""

MAX_PLAN_SIZE: Final = 64 * 1024 * 1024
"""Bytes of the longest plan."""

MAX_SIZE: Final = (1 << 63) - 1
"""Bytes of the largest item: what file systems count to."""

MAX_ITEM_COUNT: Final = (1 << 32) - 1
"""Items that one sender can announce for a session."""

DIGEST_SIZE: Final = 32
"""Bytes of a SHA3-256."""

ITEM_ID_SIZE: Final = 16
"""Bytes of what a sender calls an item, to find it again after an interruption."""


class TransferStatus(IntEnum):
    """What a receiver answers, and why a stream of a transfer was reset."""

    ACCEPTED = 0  #: the item is wanted; the plan says which parts of it
    STORED = 1  #: the item is whole, checked and under its name on disk
    BUSY = 2  #: the receiver takes items of another sender only, too many at a time, or has this one on its way
    NO_SPACE = 3  #: the disk or the quota is full, or would be
    NOT_WRITABLE = 4  #: something cannot be created or written
    MISMATCH = 5  #: the bytes that came do not have the SHA3-256 that was announced
    MALFORMED = 6  #: what came is not this protocol
    UNSUPPORTED = 7  #: the receiver does not know this version of the protocol
    CHANGED = 8  #: the file changed, or could not be read on, while it was sent
    CANCELLED = 9  #: whoever runs this side ended it
    EXISTS = 10  #: something of that name is there, and is to be kept
    UNWANTED = 11  #: the receiver does not want it

    @property
    def stream_code(self) -> int:
        """The code with which a stream is reset, or its other side asked to stop."""
        return APPLICATION_CODES.start + self


@attrs.frozen(kw_only=True)
class Offer:
    """The file or folder that a stream is about to carry; its manifest follows."""

    entries: int
    """Files, folders and links that the manifest lists."""

    manifest_size: int
    """Bytes of the manifest."""

    size: int
    """Bytes of all files together."""

    disk_size: int
    """Bytes that they take on the sender's disk: less than ``size`` if they have holes. For advice only."""

    item_id: bytes = b""
    """The same when the same item is offered again; empty if nothing is to be kept of an interrupted transfer."""

    index: int = 0
    """Which one of ``count`` it is, from 0."""

    count: int = 1
    """Items that the sender means to send in this session, so that the receiver knows when all are there."""

    def encode(self) -> bytes:
        """Return the message, its length in front."""
        return _encoded(attrs.asdict(self))

    @classmethod
    def decode(cls, body: Buffer) -> Self:
        """Return the value of a message without its length.

        Raises:
            FrameError: The bytes are no offer.
        """
        fields = _fields(body)
        count = _integer(fields, "count", 1, MAX_ITEM_COUNT)
        return cls(
            entries=_integer(fields, "entries", 1, MAX_ENTRIES),
            manifest_size=_integer(fields, "manifest_size", 1, MAX_MANIFEST_SIZE),
            size=_integer(fields, "size", 0, MAX_SIZE),
            disk_size=_integer(fields, "disk_size", 0, MAX_SIZE),
            item_id=_bytes(fields, "item_id", (0, ITEM_ID_SIZE)),
            index=_integer(fields, "index", 0, count - 1),
            count=count,
        )


@attrs.frozen
class PlanSize:
    """How many bytes of the plan follow; it comes after ``ACCEPTED``, once the receiver knows what it has."""

    size: int

    sha3_256: bytes = b""
    """The digest of the item, if the receiver has stored it before; empty otherwise."""

    def encode(self) -> bytes:
        """Return the message, its length in front."""
        fields: dict[str, Any] = {"size": self.size}
        if self.sha3_256:
            fields["sha3_256"] = self.sha3_256
        return _encoded(fields)

    @classmethod
    def decode(cls, body: Buffer) -> Self:
        """Return the value of a message without its length.

        Raises:
            FrameError: The bytes are no such message.
        """
        fields = _fields(body)
        return cls(
            size=_integer(fields, "size", 0, MAX_PLAN_SIZE),
            sha3_256=_bytes(fields, "sha3_256", (DIGEST_SIZE,)) if "sha3_256" in fields else b"",
        )


@attrs.frozen(kw_only=True)
class Answer:
    """What the receiver says to an offer, and in the end to the item."""

    status: TransferStatus
    text: str = ""
    """The reason of a refusal, for people."""

    sha3_256: bytes = b""
    """With ``STORED``: the digest of the item as the receiver found it."""

    def encode(self) -> bytes:
        """Return the message, its length in front."""
        fields: dict[str, Any] = {"status": int(self.status)}
        if self.text:
            fields["text"] = self.text
        if self.sha3_256:
            fields["sha3_256"] = self.sha3_256
        return _encoded(fields)

    @classmethod
    def decode(cls, body: Buffer) -> Self:
        """Return the value of a message without its length.

        Raises:
            FrameError: The bytes are no answer.
        """
        fields = _fields(body)
        number = _integer(fields, "status", 0, 0xFFFF)
        try:
            status = TransferStatus(number)
        except ValueError:
            raise FrameError(f"an answer has the unknown status {number}") from None
        return cls(
            status=status,
            text=_text(fields, "text", MAX_TEXT_SIZE) if "text" in fields else "",
            sha3_256=_bytes(fields, "sha3_256", (DIGEST_SIZE,)) if status is TransferStatus.STORED else b"",
        )


def decode_plan_size(body: Buffer) -> PlanSize | Answer:
    """Return the value of the message that follows ``ACCEPTED``, or the refusal that comes instead of it.

    Raises:
        FrameError: The bytes are neither.
    """
    if "status" not in _fields(body):
        return PlanSize.decode(body)
    answer = Answer.decode(body)
    if answer.status in (TransferStatus.ACCEPTED, TransferStatus.STORED):
        raise FrameError(f"the answer {answer.status.name} comes where a plan was to come")
    return answer


def message_size(length: Buffer) -> int:
    """Return the bytes that follow a length as it stands in front of a message.

    Raises:
        FrameError: No message is that long.
    """
    size: int = LENGTH.unpack(length)[0]
    if not 0 < size <= MAX_MESSAGE_SIZE:
        raise FrameError(f"a message of {size} bytes where at most {MAX_MESSAGE_SIZE} are allowed")
    return size


def cut(text: str, size: int) -> str:
    """Return the beginning of a text that takes at most ``size`` bytes of UTF-8, without characters that it lacks."""
    return text.encode(errors="replace")[:size].decode(errors="ignore")


def _encoded(fields: Mapping[str, Any]) -> bytes:
    body = serialize_stt(fields)
    return LENGTH.pack(len(body)) + body


def _fields(body: Buffer) -> dict[str, Any]:
    try:
        value = deserialize_stt(body, max_depth=4, max_items=64, max_size=MAX_MESSAGE_SIZE)
    except SerializationError as error:
        raise FrameError(f"a message cannot be decoded: {error}") from None
    if not isinstance(value, dict):
        raise FrameError("a message is no dict")
    return value


def _integer(fields: Mapping[str, Any], key: str, minimum: int, maximum: int) -> int:
    value = fields.get(key)
    # bool is an int in Python, but not on the wire.
    if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= maximum:
        raise FrameError(f"{key} is no integer from {minimum} to {maximum}")
    return value


def _text(fields: Mapping[str, Any], key: str, max_size: int) -> str:
    value = fields.get(key)
    if not isinstance(value, str) or len(value.encode()) > max_size:
        raise FrameError(f"{key} is no text of at most {max_size} bytes")
    return value


def _bytes(fields: Mapping[str, Any], key: str, sizes: tuple[int, ...]) -> bytes:
    value = fields.get(key)
    if not isinstance(value, bytes) or len(value) not in sizes:
        raise FrameError(f"{key} is not {' or '.join(map(str, sizes))} bytes")
    return value
