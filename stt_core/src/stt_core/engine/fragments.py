"""Handshake messages as datagrams that any path carries, and back.

wire-format.md, section 3, "Framing": the payload of a handshake frame is u16 total length, u16 offset, bytes; the
session id field holds the label of the handshake, which is the beginning of its nonce_I.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from stt_core.errors import HandshakeError
from stt_core.wire.frame import FRAME_OVERHEAD, SESSION_ID_SIZE, encode_frame

if TYPE_CHECKING:
    from stt_core.wire.frame import FrameType, RawFrame

DATAGRAM_SIZE: Final = 1200
"""Bytes of the largest datagram of a handshake: what any path carries (RFC 9000 section 14)."""

_FRAGMENT: Final = struct.Struct(">HH")
_DATA_SIZE: Final = DATAGRAM_SIZE - FRAME_OVERHEAD - _FRAGMENT.size


def to_datagrams(frame_type: FrameType, nonce_i: bytes, message: bytes) -> tuple[bytes, ...]:
    """Return the datagrams of a message, at most ``DATAGRAM_SIZE`` bytes each."""
    label = nonce_i[:SESSION_ID_SIZE]
    return tuple(
        encode_frame(
            frame_type, label, 0, 0, 0, _FRAGMENT.pack(len(message), offset) + message[offset : offset + _DATA_SIZE]
        )
        for offset in range(0, len(message), _DATA_SIZE)
    )


def split_fragment(frame: RawFrame, max_size: int) -> tuple[int, int, memoryview]:
    """Return total length, offset and bytes of a handshake frame: at least one byte, within the total.

    Args:
        frame: Any frame.
        max_size: Bytes that the whole message may have.

    Raises:
        HandshakeError: It is no fragment of such a message.
    """
    if frame.stream_id or frame.sequence or frame.flags or frame.metadata:
        raise HandshakeError("a handshake frame with fields that are not zero")
    if len(frame.payload) <= _FRAGMENT.size:
        raise HandshakeError("a handshake frame without data")
    total, offset = _FRAGMENT.unpack_from(frame.payload)
    data = frame.payload[_FRAGMENT.size :]
    if total > max_size or offset + len(data) > total:
        raise HandshakeError(f"{len(data)} bytes at {offset} of a message of {total}, where {max_size} are possible")
    return total, offset, data


class Reassembly:
    """One message from its fragments, in any order and cut.

    The newest byte at a place counts, and a new total length begins anew: a forged fragment spoils one repetition of
    the message and no more.
    """

    __slots__ = ("_data", "_known")

    def __init__(self) -> None:
        self._clear(0)

    def add(self, total: int, offset: int, data: memoryview) -> bytes | None:
        """Take what :func:`split_fragment` returned; return the message once it is whole, and begin anew."""
        if len(data) == total:
            self._clear(0)
            return bytes(data)
        if len(self._data) != total:
            self._clear(total)
        end = offset + len(data)
        self._data[offset:end] = data
        self._known[offset:end] = b"\x01" * len(data)
        if 0 in self._known:
            return None
        message = bytes(self._data)
        self._clear(0)
        return message

    def _clear(self, total: int) -> None:
        self._data = bytearray(total)
        self._known = bytearray(total)
