"""Whose turn is it to send? Fair within a priority, and no priority starves another.

Stride scheduling: each priority has a share twice that of the next one, and streams of one priority take turns.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from typing import TYPE_CHECKING, Final

from stt_core.engine.streams import PRIORITIES

if TYPE_CHECKING:
    from collections.abc import Callable

    from stt_core.engine.streams import Stream

_TURN: Final = 16 * 1024  # bytes that a stream may send before the next one's turn


class Scheduler:
    """Streams that have something to send, by priority.

    A stream keeps the priority with which it was added until it has nothing more to send.
    """

    __slots__ = ("_busy", "_left", "_members", "_now", "_passes", "_priority", "_queues")

    def __init__(self) -> None:
        self._queues: dict[int, deque[Stream]] = {}  # by priority, none of them empty
        self._busy: list[int] = []  # their priorities, ascending
        self._passes = [0] * len(PRIORITIES)
        self._left = [_TURN] * len(PRIORITIES)
        self._members: set[int] = set()
        self._now = 0  # the pass of the stream whose turn it is
        self._priority = 0  # its priority

    def __bool__(self) -> bool:
        return bool(self._members)

    def add(self, stream: Stream) -> None:
        """Let a stream take turns, if it does not yet."""
        if stream.stream_id in self._members:
            return
        self._members.add(stream.stream_id)
        priority = stream.priority
        queue = self._queues.get(priority)
        if queue is None:
            queue = self._queues[priority] = deque()
            insort(self._busy, priority)
            # Who was idle does not make up for it: it begins where the busy ones are.
            self._passes[priority] = max(self._passes[priority], self._now)
        queue.append(stream)

    def next(self, sendable: Callable[[Stream], bool]) -> Stream | None:
        """Return the stream whose turn it is; those that turn out to have nothing leave."""
        busy = self._busy
        while busy:
            priority = busy[0] if len(busy) == 1 else min(busy, key=self._passes.__getitem__)
            queue = self._queues[priority]
            stream = queue[0]
            if sendable(stream):
                self._now = self._passes[priority]
                self._priority = priority
                return stream
            queue.popleft()
            self._members.discard(stream.stream_id)
            self._left[priority] = _TURN
            if not queue:
                busy.remove(priority)
                del self._queues[priority]
        return None

    @property
    def allowance(self) -> int | None:
        """Bytes that the stream that :meth:`next` returned may send before others; None while there are no others."""
        return None if len(self._members) == 1 else self._left[self._priority]

    def used(self, size: int) -> None:
        """Charge the stream that :meth:`next` returned with the bytes that it sent."""
        priority = self._priority
        self._passes[priority] += size << priority
        self._left[priority] -= size
        if self._left[priority] <= 0:
            self._left[priority] = _TURN
            self._queues[priority].rotate(-1)
