"""The root of a chamber: the one record that changes, and so the whole state of it (reference, "Root")."""

from __future__ import annotations

import hashlib
import secrets
import struct
from collections.abc import Sequence
from typing import Any, Final

import attrs
from cryptography.exceptions import InvalidTag

from stt_chamber.entries import Reference, Run, decode_run, encode_run
from stt_chamber.errors import DamagedError
from stt_chamber.keys import Keyring, open_once, seal_once
from stt_chamber.objects import padded_size
from stt_core import deserialize_stt, serialize_stt
from stt_core.errors import SerializationError

VERSION: Final = 1
"""The version of the format."""

DIGEST_SIZE: Final = 32
"""Bytes of the SHA3-256 of a root."""

MAX_MARKS: Final = 128
"""Marks that a root has at most, some 34 bytes each."""

_FRONT: Final = struct.Struct(">BI16s")
_LENGTH: Final = struct.Struct(">I")


class UnknownEpoch(DamagedError):
    """The root is sealed under a data key that the header did not have when it was read."""


@attrs.frozen
class Position:
    """One state in the history of a chamber; whoever remembers it notices when the store shows an earlier one."""

    chamber_id: bytes
    """16 random bytes: another chamber in its place is noticed, too."""
    sequence: int
    """Counts the states from 1."""
    digest: bytes
    """SHA3-256 of the root as it lies in the store."""

    def leads_to(self, root: Root, data: bytes) -> bool:
        """Return whether a root, which lies in the store as ``data``, is this state or may be a later one."""
        if root.sequence == self.sequence:
            return digest_of(data) == self.digest
        if root.sequence == self.sequence + 1:
            return root.previous == self.digest
        return root.sequence > self.sequence


@attrs.frozen
class Mark:
    """A state that two replicas once had in common; what either changed since has a higher revision."""

    mark_id: bytes
    """16 random bytes, drawn when the replicas were synchronised."""
    revision: int
    """That of the state."""
    generation: int
    """That of the header in that state."""
    quota: int | None
    """That of the state."""

    def encode(self) -> list[Any]:
        """Return the mark as STT serialization takes it."""
        return [self.mark_id, self.revision, self.generation, self.quota]

    @classmethod
    def decode(cls, value: Any) -> Mark:
        """Return the mark of its form in STT serialization.

        Raises:
            DamagedError: It is none.
        """
        match value:
            case [bytes(mark_id), int(revision), int(generation), int() | None as quota] if len(mark_id) == 16:
                return cls(mark_id, revision, generation, quota)
        raise DamagedError("a mark is malformed")


def with_mark(marks: Sequence[Mark], mark: Mark) -> tuple[Mark, ...]:
    """Return marks and a newer one; of too many, every second one of the older half goes.

    The oldest one stays: so two replicas that once had a mark in common always have one, though not the newest then.
    """
    marks = (*marks, mark)
    half = len(marks) // 2
    return marks if len(marks) <= MAX_MARKS else (*marks[:half:2], *marks[half:])


@attrs.frozen
class Root:
    """One state of a chamber."""

    sequence: int
    """Counts the states from 1."""
    previous: bytes
    """The digest of the state before; 32 zero bytes where there was none."""
    generation: int
    """That of the header, at least: an older header is one that was put back."""
    revision: int
    """Changes of values so far."""
    count: int
    """Values that there are, expired ones among them."""
    size: int
    """Bytes of all these values."""
    quota: int | None
    """Bytes that there may be."""
    fence: int
    """The sequence of the last collection of orphans: objects that were begun before it may be gone."""
    directories: tuple[Reference, ...]
    """The list of the pages, twice, or not at all. Pages hold all entries but those of the segments and the tail."""
    segments: tuple[Reference, ...]
    """Runs of changes since the pages were written, oldest first."""
    tail: Run = attrs.field(repr=False)
    """The changes since the last segment."""
    marks: tuple[Mark, ...] = ()
    """States that this one descends from and that other replicas had, too; oldest first."""

    def seal(self, keyring: Keyring) -> bytes:
        """Return the root as it lies in the store."""
        items: list[Any] = [
            self.sequence,
            self.previous,
            self.generation,
            self.revision,
            self.count,
            self.size,
            self.quota,
            self.fence,
            [directory.encode() for directory in self.directories],
            [segment.encode() for segment in self.segments],
        ]
        if self.marks:
            items.append([mark.encode() for mark in self.marks])
        front = serialize_stt(items)
        content = _LENGTH.pack(len(front)) + front + encode_run(self.tail)
        plain = _LENGTH.pack(len(content)) + content
        head = _FRONT.pack(VERSION, keyring.epoch, secrets.token_bytes(16))
        key = keyring.record_key(keyring.epoch, head[-16:])
        return head + seal_once(key, plain + bytes(padded_size(len(plain)) - len(plain)), head)

    @classmethod
    def open(cls, data: bytes, keyring: Keyring) -> Root:
        """Return the root of its bytes.

        Raises:
            UnknownEpoch: It is sealed under a data key that is not in the keyring.
            DamagedError: It was changed, is malformed or of another version.
        """
        try:
            version, epoch, salt = _FRONT.unpack_from(data)
            if version != VERSION:
                raise DamagedError(f"the root is of version {version} of the format, which is not known")
            key = keyring.record_key(epoch, salt)
            plain = open_once(key, data[_FRONT.size :], data[: _FRONT.size])
            (length,) = _LENGTH.unpack_from(plain)
            content = plain[_LENGTH.size : _LENGTH.size + length]
            (length,) = _LENGTH.unpack_from(content)
            front = deserialize_stt(content[_LENGTH.size : _LENGTH.size + length])
            tail = decode_run(content[_LENGTH.size + length :])
        except KeyError:
            raise UnknownEpoch("the root is sealed under an unknown data key") from None
        except InvalidTag:
            raise DamagedError("the root was changed") from None
        except (struct.error, SerializationError):
            raise DamagedError("the root is malformed") from None
        return cls._from_front(front, tail)

    @classmethod
    def _from_front(cls, front: object, tail: Run) -> Root:
        match front:
            case [
                int(sequence),
                bytes(previous),
                int(generation),
                int(revision),
                int(count),
                int(size),
                int() | None as quota,
                int(fence),
                [*directories],
                [*segments],
                *marks,
            ] if len(marks) <= 1:
                return cls(
                    sequence,
                    previous,
                    generation,
                    revision,
                    count,
                    size,
                    quota,
                    fence,
                    tuple(Reference.decode(directory) for directory in directories),
                    tuple(Reference.decode(segment) for segment in segments),
                    tail,
                    _decode_marks(*marks),
                )
        raise DamagedError("the root is malformed")


def _decode_marks(items: object = ()) -> tuple[Mark, ...]:
    if not isinstance(items, Sequence) or len(items) > MAX_MARKS:
        raise DamagedError("the marks are malformed")
    return tuple(Mark.decode(item) for item in items)


def digest_of(data: bytes) -> bytes:
    """Return the digest of a root as it lies in the store."""
    return hashlib.sha3_256(data).digest()
