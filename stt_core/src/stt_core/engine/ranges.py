"""Which numbers of a long line are in a set: sorted, disjoint ranges, built for additions at the end."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class RangeSet:
    """Sorted, disjoint, non-adjacent half-open ranges ``[start, stop)`` of integers."""

    __slots__ = ("_starts", "_stops")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []

    def __len__(self) -> int:
        """Return the number of ranges, not of numbers."""
        return len(self._starts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._starts, self._stops, strict=True)

    def __contains__(self, number: int) -> bool:
        index = bisect_right(self._starts, number) - 1
        return index >= 0 and number < self._stops[index]

    @property
    def first(self) -> tuple[int, int]:
        """The lowest range; only when there is one."""
        return self._starts[0], self._stops[0]

    def add(self, start: int, stop: int) -> None:
        """Put ``[start, stop)`` in, which is not empty; what it touches becomes one range with it."""
        starts, stops = self._starts, self._stops
        if stops and start == stops[-1]:
            stops[-1] = stop
            return
        if not stops or start > stops[-1]:
            starts.append(start)
            stops.append(stop)
            return
        # Ranges low..high-1 overlap or touch [start, stop).
        low = bisect_right(starts, start)
        if low and stops[low - 1] >= start:
            low -= 1
        high = bisect_right(starts, stop)
        if low < high:
            start = min(start, starts[low])
            stop = max(stop, stops[high - 1])
        starts[low:high] = [start]
        stops[low:high] = [stop]

    def subtract(self, start: int, stop: int) -> None:
        """Take ``[start, stop)`` out, which is not empty."""
        starts, stops = self._starts, self._stops
        low = bisect_right(starts, start)
        if low and stops[low - 1] > start:
            low -= 1
        high = bisect_right(starts, stop - 1)
        if low >= high:
            return
        kept = []
        if starts[low] < start:
            kept.append((starts[low], start))
        if stops[high - 1] > stop:
            kept.append((stop, stops[high - 1]))
        starts[low:high] = [piece[0] for piece in kept]
        stops[low:high] = [piece[1] for piece in kept]

    def missing(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Return the parts of ``[start, stop)`` that are not in the set, ascending."""
        parts = []
        index = max(bisect_right(self._starts, start) - 1, 0)
        while start < stop:
            if index >= len(self._starts) or self._starts[index] >= stop:
                parts.append((start, stop))
                break
            if self._starts[index] > start:
                parts.append((start, self._starts[index]))
            start = max(start, self._stops[index])
            index += 1
        return parts

    def drop_below(self, number: int) -> None:
        """Take everything below ``number`` out."""
        if self._starts and self._starts[0] < number:
            self.subtract(self._starts[0], number)

    def drop_oldest(self, keep: int) -> None:
        """Keep only the ``keep`` highest ranges."""
        excess = len(self._starts) - keep
        if excess > 0:
            del self._starts[:excess]
            del self._stops[:excess]
