"""Has this frame number been seen before? A sliding window over numbers, as in RFC 6479."""

from __future__ import annotations

from typing import Final

_FIRST_SIZE: Final = 32  # bytes: an idle session needs no more


class ReplayWindow:
    """Remembers which of the newest numbers were seen; anything older counts as seen.

    The bitmap is a ring of bytes that grows with the highest number up to the window, so that a session of few frames
    holds little. It moves on by whole bytes, so that up to seven of the oldest numbers are given up early.

    Args:
        size: Numbers in the window; rounded up to a power of two.
    """

    __slots__ = ("_bits", "_limit", "_mask", "highest")

    def __init__(self, size: int) -> None:
        self._limit = max(1 << (size - 1).bit_length() >> 3, _FIRST_SIZE)
        self._bits = bytearray(_FIRST_SIZE)
        self._mask = _FIRST_SIZE - 1
        self.highest = -1
        """The highest number seen; -1 before the first."""

    def is_fresh(self, number: int) -> bool:
        """Return whether a number is inside or ahead of the window and was not seen."""
        if number > self.highest:
            return True
        if (number >> 3) + self._mask < self.highest >> 3:
            return False
        return not self._bits[number >> 3 & self._mask] & 1 << (number & 7)

    def add(self, number: int) -> None:
        """Note a fresh number as seen; call it only once its frame has opened."""
        if number > self.highest:
            if number >> 3 != self.highest >> 3:
                self._advance(self.highest >> 3, number >> 3)
            self.highest = number
        self._bits[number >> 3 & self._mask] |= 1 << (number & 7)

    def _advance(self, old: int, new: int) -> None:
        while new > self._mask and len(self._bits) < self._limit:
            # Until the ring is full size it has never wrapped, so that growing it keeps every position.
            self._bits += bytes(len(self._bits))
            self._mask = len(self._bits) - 1
        bits, mask = self._bits, self._mask
        if new - old > mask:
            bits[:] = bytes(len(bits))
            return
        first, last = (old + 1) & mask, new & mask
        if first <= last:
            bits[first : last + 1] = bytes(last + 1 - first)
        else:
            bits[first:] = bytes(len(bits) - first)
            bits[: last + 1] = bytes(last + 1)
