"""What the peers of a serving side can take of it: connections, and lines of its log."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

NOTES_AT_ONCE: Final = 10
"""Lines that peers can cause in one interval."""

NOTE_INTERVAL: Final = 60.0
"""Seconds of that interval: some 2 MB of lines in a day at the most."""


class Places:
    """A bounded number of places for connections.

    Args:
        limit: How many there are.
        within: Places that are shared with others; each that is taken here is taken there as well.
    """

    def __init__(self, limit: int, within: Places | None = None) -> None:
        self._free = limit
        self._within = within

    def take(self) -> bool:
        """Take a place; say whether there was one."""
        if not self._free or not (self._within is None or self._within.take()):
            return False
        self._free -= 1
        return True

    def give_back(self) -> None:
        """Give a place back that was taken."""
        self._free += 1
        if self._within is not None:
            self._within.give_back()


class LimitedNotes:
    """Writes lines that peers can cause, so many in a while; of more, it says how many there were.

    Args:
        write: Writes a line.
        clock: Returns seconds.
    """

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._next_at = float("-inf")
        self._room = 0
        self._left_out = 0

    def note(self, text: str) -> None:
        """Write a line, or count it."""
        now = self._clock()
        if now >= self._next_at:
            self._next_at, self._room = now + NOTE_INTERVAL, NOTES_AT_ONCE
        if not self._room:
            self._left_out += 1
            return
        self._room -= 1
        self._write(f"{text} ({self._left_out} more since the last)" if self._left_out else text)
        self._left_out = 0
