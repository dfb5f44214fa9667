"""Integers of one to ten bytes: unsigned LEB128 of at most 64 bits, each in its one shortest form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stt_core.errors import FrameError, LocalError

if TYPE_CHECKING:
    from stt_core.interfaces.transport import Buffer

MAX_VARINT: Final = (1 << 64) - 1
"""The largest value that a varint holds."""

MAX_VARINT_SIZE: Final = 10
"""Bytes of the longest varint."""

# Ready-made bytes: every DATA frame has a varint, and joining these is faster than building bytes from integers.
_LAST: Final = tuple(bytes((group,)) for group in range(0x80))
_MORE: Final = tuple(bytes((group | 0x80,)) for group in range(0x80))


def encode_varint(value: int) -> bytes:
    """Return the shortest encoding of an integer: seven bits a byte, the lowest first, bit 7 set on all but the last.

    Args:
        value: From 0 to ``MAX_VARINT``.

    Raises:
        LocalError: The value is out of that range.
    """
    if value < 0x80:
        if value < 0:
            raise LocalError("a varint is unsigned, the value negative")
        return _LAST[value]
    if value < 1 << 14:
        return _MORE[value & 0x7F] + _LAST[value >> 7]
    if value < 1 << 21:
        return _MORE[value & 0x7F] + _MORE[value >> 7 & 0x7F] + _LAST[value >> 14]
    if value < 1 << 28:
        return _MORE[value & 0x7F] + _MORE[value >> 7 & 0x7F] + _MORE[value >> 14 & 0x7F] + _LAST[value >> 21]
    if value > MAX_VARINT:
        raise LocalError("the value has more than the 64 bits of a varint")
    low = _MORE[value & 0x7F] + _MORE[value >> 7 & 0x7F] + _MORE[value >> 14 & 0x7F] + _MORE[value >> 21 & 0x7F]
    return low + encode_varint(value >> 28)


def decode_varint(data: Buffer, offset: int = 0) -> tuple[int, int]:  # noqa: C901  unrolled, being in every DATA frame
    """Return the integer that starts at an offset, and the offset behind it; what follows is not looked at.

    Args:
        data: Any bytes.
        offset: Where to start, from 0 up.

    Raises:
        FrameError: The bytes end within the integer, it is not in its shortest form, or it has more than 64 bits.
    """
    # Unrolled up to four bytes, the stream offsets below 256 MiB. Subtracting 1 from each further byte takes away the
    # continuation bit of the byte before it.
    try:
        value = data[offset]
        if value < 0x80:
            return value, offset + 1
        byte = data[offset + 1]
        value += (byte - 1) << 7
        if 0 < byte < 0x80:
            return value, offset + 2
        if byte:
            byte = data[offset + 2]
            value += (byte - 1) << 14
            if 0 < byte < 0x80:
                return value, offset + 3
        if byte:
            byte = data[offset + 3]
            value += (byte - 1) << 21
            if 0 < byte < 0x80:
                return value, offset + 4
        position = 4
        while byte >= 0x80 and position < MAX_VARINT_SIZE:
            byte = data[offset + position]
            value += (byte - 1) << 7 * position
            position += 1
    except IndexError:
        raise FrameError("truncated varint") from None
    if byte == 0:
        raise FrameError("varint not in its shortest form")
    if value > MAX_VARINT:
        raise FrameError("varint of more than 64 bits")
    return value, offset + position


def varint_size(value: int) -> int:
    """Return how many bytes :func:`encode_varint` needs for an integer.

    Raises:
        LocalError: The value is negative or has more than 64 bits.
    """
    if not 0 <= value <= MAX_VARINT:
        raise LocalError("the value is negative or has more than the 64 bits of a varint")
    return (value.bit_length() + 6) // 7 or 1
