"""A segment: a numbered piece of a stream of bytes, as bytes and as a value, sealed or inside a session.

A sealed stream is the STREAM construction of Hoang, Reyhanitabar, Rogaway and Vizár (CRYPTO 2015), as in age: one key
for each stream, and nonces of the segment's number and of whether it is the last. So nothing can be changed, left out,
repeated, put elsewhere or cut off without being found.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

import attrs
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA3_256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from stt_core.errors import ErrorCode, LocalError, RemoteError

if TYPE_CHECKING:
    from stt_core.interfaces.transport import Buffer

KEY_SIZE: Final = 32
"""Bytes of the key that both ends of sealed streams have."""

SESSION_ID_SIZE: Final = 8
"""Bytes of a session id."""

TAG_SIZE: Final = 16
"""Bytes that sealing adds."""

HEADER: Final = struct.Struct(">IQB")
"""Bytes behind the header, sequence, flags: 13 bytes in front of each segment, authenticated where it is sealed."""

FINAL: Final = 0x01
"""The flag of the last segment."""

SEALED: Final = 0x02
"""The flag of a segment that is sealed."""

DEFAULT_SEGMENT_SIZE: Final = 64 * 1024
"""Bytes of data in a segment unless told otherwise: the overhead is then below 0.05 %."""

MAX_SEGMENT_SIZE: Final = 1024 * 1024
"""Bytes of data in the largest segment."""

MAX_SEQUENCE: Final = (1 << 64) - 1
"""The number of the last segment that a stream can have."""

_SALT: Final = b"stt1 segments"
_NONCE: Final = struct.Struct(">QB")
_NONCE_PREFIX: Final = bytes(3)


class SegmentError(RemoteError):
    """Bytes that are no segment, or a segment that does not belong where it came."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, ErrorCode.FRAME)


def _show_size(data: Buffer) -> str:
    return f"<{len(data)} bytes>"


@attrs.frozen
class Segment:
    """A segment as it travels: over anything that carries bytes, one a message or back to back."""

    sequence: int
    """From 0, without gaps where nothing was dropped."""
    final: bool
    """Whether it is the last."""
    size: int
    """Bytes of the source in it."""
    data: bytes = attrs.field(repr=_show_size)
    """Header and content."""


class Header(NamedTuple):
    """What stands in front of a segment."""

    body_size: int
    """Bytes behind the header."""
    sequence: int
    final: bool
    sealed: bool


class SegmentCipher:
    """Seals and opens the segments of one stream.

    Args:
        key: 32 bytes that both ends have and nobody else.
        session_id: 8 bytes.
        stream_id: 32 bits. Key, session id and stream id together are of one stream, ever: two streams that shared them
            would use the same nonces.

    Raises:
        LocalError: One of them has another size.
    """

    def __init__(self, key: bytes, *, session_id: bytes, stream_id: int) -> None:
        if len(key) != KEY_SIZE:
            raise LocalError(f"the key of a stream has {KEY_SIZE} bytes, not {len(key)}")
        if len(session_id) != SESSION_ID_SIZE:
            raise LocalError(f"a session id has {SESSION_ID_SIZE} bytes, not {len(session_id)}")
        if not 0 <= stream_id < 1 << 32:
            raise LocalError(f"a stream id has 32 bits, unlike {stream_id}")
        info = session_id + stream_id.to_bytes(4, "big")
        self._cipher = ChaCha20Poly1305(HKDF(SHA3_256(), KEY_SIZE, _SALT, info).derive(key))

    def seal(self, sequence: int, data: Buffer, *, final: bool) -> bytes:
        """Return a segment as it travels; no sequence may be sealed twice."""
        header = HEADER.pack(len(data) + TAG_SIZE, sequence, SEALED | final)
        return header + self._cipher.encrypt(_nonce(sequence, final=final), data, header)

    def open(self, header: Header, segment: Buffer) -> bytes:
        """Return the data of a segment that was split off with its header.

        Raises:
            SegmentError: It was not sealed for this stream and place, or any bit of it was changed.
        """
        view = memoryview(segment)
        nonce = _nonce(header.sequence, final=header.final)
        try:
            return self._cipher.decrypt(nonce, view[HEADER.size :], view[: HEADER.size])
        except InvalidTag:
            raise SegmentError(
                f"segment {header.sequence} does not open: it is of another stream or key, or it was changed"
            ) from None


def select_cipher(
    key: bytes | None, session_id: bytes, stream_id: int, *, inside_session: bool
) -> SegmentCipher | None:
    """Return what seals a stream's segments; None inside a session, which does it.

    Raises:
        LocalError: There is a key inside a session or none outside of one, or a size is wrong.
    """
    if inside_session is (key is not None):
        raise LocalError("segments are sealed under a key, or go over a session's stream: name one of the two")
    return None if key is None else SegmentCipher(key, session_id=session_id, stream_id=stream_id)


def encode_plain(sequence: int, data: Buffer, *, final: bool) -> bytes:
    """Return a segment that a session will seal."""
    return b"".join((HEADER.pack(len(data), sequence, final), data))


def decode_header(data: Buffer) -> Header:
    """Return the header that ``data``, at least ``HEADER.size`` bytes, begins with.

    Raises:
        SegmentError: No segment begins like that.
    """
    body_size, sequence, flags = HEADER.unpack_from(data)
    if flags & ~(FINAL | SEALED):
        raise SegmentError(f"no segment: its flags are {flags:#04x}")
    final, sealed = bool(flags & FINAL), bool(flags & SEALED)
    size = body_size - TAG_SIZE if sealed else body_size
    # Only the last one may be empty: else a peer could have a receiver count up for nothing.
    if not (0 if final else 1) <= size <= MAX_SEGMENT_SIZE:
        raise SegmentError(f"no segment: it would hold {size} bytes")
    return Header(body_size, sequence, final, sealed)


def _nonce(sequence: int, *, final: bool) -> bytes:
    return _NONCE_PREFIX + _NONCE.pack(sequence, final)
