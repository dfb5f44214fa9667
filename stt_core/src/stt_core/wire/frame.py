"""The frame: the unit that is numbered, sealed and acknowledged, as bytes and as values.

What arrives goes through :func:`split_frames`, what leaves through :func:`encode_frame`; :class:`STTFrame` is the same
as one value, for use without a session.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

import attrs
from cryptography.exceptions import InvalidTag

from stt_core.config import MAX_FRAME_SIZE
from stt_core.errors import CryptoError, FrameError, LocalError
from stt_core.interfaces.crypto import NONCE_SIZE, TAG_SIZE

if TYPE_CHECKING:
    from stt_core.interfaces.crypto import FrameCipher
    from stt_core.interfaces.transport import Buffer

MAGIC: Final = 0x5354
"""The first two bytes of each frame: ``ST``."""

SESSION_ID_SIZE: Final = 8
"""Bytes of a session id."""

HEADER: Final = struct.Struct(">HB8sIIBI")
"""Magic, type, session id, stream id, sequence, flags, payload length: 24 bytes, the associated data of the seal."""

TRAILER: Final = struct.Struct(">I")
"""The length of the crypto metadata, behind the payload."""

FRAME_OVERHEAD: Final = HEADER.size + TRAILER.size
"""Bytes of a frame besides its payload and crypto metadata: 28."""

EPOCH_FLAGS: Final = 0x03
"""The bits of the flags that hold the key epoch; a frame with any other bit set is dropped by its session."""


class FrameType(IntEnum):
    """What the payload of a frame holds (wire format, section 2)."""

    HANDSHAKE_INIT = 0x01  #: opens a handshake; the only datagram that a stranger is answered to
    HANDSHAKE_CHALLENGE = 0x02  #: the responder's proof of the seed and its identity
    HANDSHAKE_RESPONSE = 0x03  #: the initiator's proof of the seed and its identity
    HANDSHAKE_CONFIRM = 0x04  #: tells the initiator that its RESPONSE arrived
    DATA = 0x10  #: bytes of a stream at an offset
    STREAM_OPEN = 0x11  #: mode, priority, label and metadata of a new stream
    STREAM_CLOSE = 0x12  #: the end of one direction of a stream, in order or not
    ACK = 0x13  #: the frame numbers that arrived
    KEEPALIVE = 0x14  #: keeps a session from idling out, or asks for an acknowledgement
    DISCONNECT = 0x15  #: the end of the session
    CREDIT = 0x16  #: how much more the peer may send or open
    DATAGRAM = 0x17  #: bytes that are not sent again when lost
    PATH = 0x18  #: asks for, or gives, proof that the peer is reached on a path
    MTU_PROBE = 0x19  #: padding that finds out how large a datagram a path carries
    ENDPOINT_REGISTER = 0x20  #: announces or withdraws a named endpoint
    ENDPOINT_RESOLVE = 0x21  #: asks whether an endpoint is known
    ENDPOINT_ROUTE = 0x22  #: a request or reply between endpoints


CUSTOM_FRAME_TYPES: Final = range(0x80, 0x100)
"""The types that are left to plugins."""


class RawFrame(NamedTuple):
    """One frame as it arrived, still sealed; the views point into the message that held it."""

    type: int
    """From 0x01 to 0xFF; not all are known as :class:`FrameType`."""
    session_id: bytes
    """8 bytes."""
    stream_id: int
    sequence: int
    """The low 32 bits of the frame number."""
    flags: int
    """Bits 0-1 are the key epoch; the session drops a frame that has any other set."""
    header: memoryview
    """The first 24 bytes: the associated data of the seal."""
    payload: memoryview
    """Sealed bytes, tag included; in handshake frames a fragment of the message."""
    metadata: memoryview
    """Crypto metadata; empty for the built-in suites."""


_NO_METADATA: Final = memoryview(b"")

# Bound once: these run for every frame.
_unpack_header = HEADER.unpack_from
_unpack_trailer = TRAILER.unpack_from
_new_raw_frame = tuple.__new__


def split_frames(message: Buffer, max_frame_size: int = MAX_FRAME_SIZE) -> list[RawFrame]:
    """Return the frames of one message of a transport, without copying their payloads.

    Args:
        message: What the transport delivered as one: one or more whole frames, back to back.
        max_frame_size: Bytes that no frame may exceed.

    Raises:
        FrameError: The message is empty, or anything in it is not a whole frame within the limit. None of its frames
            is to be used then.
    """
    view = memoryview(message)
    size = len(view)
    frames: list[RawFrame] = []
    start = 0
    try:
        while True:
            magic, frame_type, session_id, stream_id, sequence, flags, payload_size = _unpack_header(view, start)
            if magic != MAGIC or not frame_type:
                raise FrameError(f"no frame: magic {magic:#06x}, type {frame_type:#04x}")
            payload_start = start + 24
            payload_end = payload_start + payload_size
            (metadata_size,) = _unpack_trailer(view, payload_end)
            end = payload_end + 4 + metadata_size
            if end - start > max_frame_size:
                raise FrameError(f"frame of {end - start} bytes, but at most {max_frame_size} are taken")
            if end > size:
                raise FrameError("truncated frame")
            frames.append(
                _new_raw_frame(
                    RawFrame,
                    (
                        frame_type,
                        session_id,
                        stream_id,
                        sequence,
                        flags,
                        view[start:payload_start],
                        view[payload_start:payload_end],
                        view[payload_end + 4 : end] if metadata_size else _NO_METADATA,
                    ),
                )
            )
            if end == size:
                return frames
            start = end
    except struct.error:
        raise FrameError("truncated frame") from None


def encode_frame(
    frame_type: int,
    session_id: bytes,
    stream_id: int,
    sequence: int,
    flags: int,
    payload: Buffer,
    metadata: Buffer = b"",
) -> bytes:
    """Return a frame as bytes.

    Args:
        frame_type: From 0x01 to 0xFF.
        session_id: 8 bytes.
        stream_id: 32 bits.
        sequence: The low 32 bits of the frame number.
        flags: 8 bits.
        payload: Sealed bytes, or the fragment of a handshake message.
        metadata: Crypto metadata that the suite wrote.

    Raises:
        LocalError: A field is out of its range, or the frame would be larger than ``MAX_FRAME_SIZE``.
    """
    header = _encode_header(frame_type, session_id, stream_id, sequence, flags, len(payload), len(metadata))
    return b"".join((header, payload, TRAILER.pack(len(metadata)), metadata))


def _encode_header(
    frame_type: int,
    session_id: bytes,
    stream_id: int,
    sequence: int,
    flags: int,
    payload_size: int,
    metadata_size: int,
) -> bytes:
    if not frame_type:
        raise LocalError("frame type 0 is invalid")
    # struct would pad or cut it.
    if len(session_id) != SESSION_ID_SIZE:
        raise LocalError(f"a session id has {SESSION_ID_SIZE} bytes, not {len(session_id)}")
    if FRAME_OVERHEAD + payload_size + metadata_size > MAX_FRAME_SIZE:
        raise LocalError(f"payload and metadata of {payload_size + metadata_size} bytes do not fit into a frame")
    try:
        return HEADER.pack(MAGIC, frame_type, session_id, stream_id, sequence, flags, payload_size)
    except struct.error as error:
        raise LocalError(f"a field of the frame is out of its range: {error}") from None


def _show_size(data: bytes) -> str:
    return f"<{len(data)} bytes>"


@attrs.frozen(kw_only=True)
class STTFrame:
    """One frame as a value, for use without a session: it numbers nothing and remembers nothing.

    Whoever seals frames with it keeps the rule that a session keeps: no nonce twice under one key.

    Raises:
        LocalError: A field is out of its range, or the frame is larger than ``MAX_FRAME_SIZE``.
    """

    frame_type: int
    """A :class:`FrameType` or one of ``CUSTOM_FRAME_TYPES``."""

    session_id: bytes
    """8 bytes."""

    stream_id: int
    """32 bits; 0 outside of streams."""

    sequence: int
    """The low 32 bits of the frame number."""

    flags: int = 0
    """Bits 0-1: the key epoch modulo 4; the others are zero."""

    payload: bytes = attrs.field(converter=bytes, repr=_show_size)
    """Plaintext before :meth:`encrypt`, sealed after it; in both cases what :meth:`to_bytes` writes."""

    metadata: bytes = attrs.field(default=b"", converter=bytes, repr=_show_size)
    """Crypto metadata; empty for the built-in suites."""

    def __attrs_post_init__(self) -> None:
        # Building the header checks each field.
        self._header(len(self.payload), len(self.metadata))

    @classmethod
    def create_frame(
        cls,
        *,
        frame_type: int,
        session_id: bytes,
        stream_id: int,
        sequence: int,
        payload: Buffer,
        flags: int = 0,
    ) -> STTFrame:
        """Return a frame with a plaintext payload, ready to be encrypted.

        Raises:
            LocalError: A field is out of its range, or the frame is larger than ``MAX_FRAME_SIZE``.
        """
        return cls(
            frame_type=frame_type,
            session_id=session_id,
            stream_id=stream_id,
            sequence=sequence,
            flags=flags,
            payload=payload,
        )

    @classmethod
    def from_bytes(cls, data: Buffer) -> STTFrame:
        """Return the one frame that fills ``data``.

        Raises:
            FrameError: ``data`` is not exactly one frame of at most ``MAX_FRAME_SIZE`` bytes.
        """
        raw, *others = split_frames(data)
        if others:
            raise FrameError(f"{len(others)} more frames behind the first")
        return cls(
            frame_type=raw.type,
            session_id=raw.session_id,
            stream_id=raw.stream_id,
            sequence=raw.sequence,
            flags=raw.flags,
            payload=raw.payload,
            metadata=raw.metadata,
        )

    def to_bytes(self) -> bytes:
        """Return the frame as it travels."""
        return encode_frame(
            self.frame_type,
            self.session_id,
            self.stream_id,
            self.sequence,
            self.flags,
            self.payload,
            self.metadata,
        )

    def encrypt(self, cipher: FrameCipher, nonce: bytes) -> STTFrame:
        """Return the frame with its payload sealed; the header, the payload's new length included, is authenticated.

        Args:
            cipher: An AEAD under its key, such as ``AESGCM(key)`` of ``cryptography``.
            nonce: 12 bytes, never used before under this key.

        Raises:
            LocalError: The nonce has another size, or the sealed frame would be larger than ``MAX_FRAME_SIZE``.
        """
        _check_nonce(nonce)
        sealed_size = len(self.payload) + TAG_SIZE
        sealed = cipher.encrypt(nonce, self.payload, self._header(sealed_size, 0))
        return attrs.evolve(self, payload=sealed[:sealed_size], metadata=sealed[sealed_size:])

    def decrypt(self, cipher: FrameCipher, nonce: bytes) -> STTFrame:
        """Return the frame that :meth:`encrypt` was called on.

        Raises:
            CryptoError: The frame was not sealed under this key and nonce, or any bit of it was changed.
            LocalError: The nonce is not 12 bytes.
        """
        _check_nonce(nonce)
        header = self._header(len(self.payload), len(self.metadata))
        try:
            plaintext = cipher.decrypt(nonce, self.payload + self.metadata, header)
        except InvalidTag:
            raise CryptoError("the frame does not open: another key or nonce, or it was changed") from None
        return attrs.evolve(self, payload=plaintext, metadata=b"")

    def _header(self, payload_size: int, metadata_size: int) -> bytes:
        return _encode_header(
            self.frame_type,
            self.session_id,
            self.stream_id,
            self.sequence,
            self.flags,
            payload_size,
            metadata_size,
        )


def _check_nonce(nonce: bytes) -> None:
    if len(nonce) != NONCE_SIZE:
        raise LocalError(f"a nonce has {NONCE_SIZE} bytes, not {len(nonce)}")
