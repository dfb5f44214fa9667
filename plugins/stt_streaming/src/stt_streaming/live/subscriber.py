"""Receives a live stream: its segments in order, each as soon as it can be had, the late ones left out."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

import attrs

from stt_core.errors import FrameError, LocalError, SessionClosed, StreamClosed
from stt_streaming.live.messages import (
    MAX_SEGMENT_SIZE,
    MAX_SEQUENCE,
    SEGMENT_LABEL,
    SUBSCRIBE_LABEL,
    Farewell,
    LiveCode,
    Welcome,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from stt_core import STTSession, STTStream

HELD_SEGMENTS: Final = 256
"""Segments that wait for an older one, or to be read; beyond it the oldest is dropped."""

HELD_SIZE: Final = 32 * 1024 * 1024
"""Bytes of them, likewise; and of those that are arriving, of which the one that goes beyond is refused."""

WELCOME_TIMEOUT: Final = 10.0
"""Seconds until a peer that does not answer is taken for one that publishes nothing."""


@attrs.frozen
class LiveSegment:
    """A segment of a live stream."""

    sequence: int
    """From 0 at the publisher's first; a gap is what was lost."""
    data: bytes = attrs.field(repr=lambda data: f"<{len(data)} bytes>")


@attrs.frozen
class _Held:
    data: bytes
    previous: int
    """The sequence of the segment that was sent before it."""
    came_at: float


class LiveSubscriber:
    """A live stream, as one of those has it who take it.

    Args:
        session: A session whose peer publishes. Nobody else may accept streams of it.
    """

    def __init__(self, session: STTSession) -> None:
        self._session = session
        self._started = False
        self._held: dict[int, _Held] = {}
        self._held_size = 0
        self._arriving_size = 0
        self._given_up: set[int] = set()  # sequences whose stream was reset before it was whole
        self._next = 0
        self._end: int | None = None
        self._ended_at = 0.0
        self._received = 0
        self._lost = 0
        self._late = 0
        self._failure: FrameError | SessionClosed | None = None
        self._changed = asyncio.Event()

    @property
    def received(self) -> int:
        """Segments that were had."""
        return self._received

    @property
    def lost(self) -> int:
        """Segments that were left out since the subscription, whatever the reason."""
        return self._lost

    @property
    def late(self) -> int:
        """Those of the lost ones that came whole, but after a newer one was had."""
        return self._late

    async def segments(self) -> AsyncGenerator[LiveSegment, None]:
        """Subscribe, and iterate over the segments from the next one on, until the publisher ends the stream.

        A segment is had when those before it were, or when it has waited for them as long as the publisher's deadline.

        Raises:
            FrameError: The peer publishes nothing, or in another way.
            SessionClosed: The session ended before the stream.
            LocalError: This subscriber was iterated over before.
        """
        if self._started:
            raise LocalError("a subscriber is for one iteration: make another")
        self._started = True
        stream = await self._session.open_stream(SUBSCRIBE_LABEL)
        tasks: list[asyncio.Task[None]] = []
        try:
            welcome = await self._welcome(stream)
            self._next = welcome.sequence
            tasks += [asyncio.create_task(self._accept()), asyncio.create_task(self._wait_end(stream))]
            while (segment := await self._next_segment(welcome.deadline)) is not None:
                yield segment
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            stream.reset(LiveCode.CANCELLED)
            stream.stop(LiveCode.CANCELLED)

    # Internals: what comes

    async def _welcome(self, stream: STTStream) -> Welcome:
        try:
            async with asyncio.timeout(WELCOME_TIMEOUT):
                return Welcome.decode(await stream.receive_exactly(Welcome.SIZE))
        except (TimeoutError, EOFError, StreamClosed):
            raise FrameError("the peer publishes no live stream") from None

    async def _wait_end(self, stream: STTStream) -> None:
        try:
            farewell = Farewell.decode(await stream.receive_exactly(Farewell.SIZE))
        except SessionClosed as error:
            self._failure = error
        except (EOFError, StreamClosed):
            self._failure = FrameError("the publisher broke off")
        else:
            self._end = farewell.sequence
            self._ended_at = asyncio.get_running_loop().time()
        self._changed.set()

    async def _accept(self) -> None:
        async with asyncio.TaskGroup() as group:
            async for stream in self._session.streams():
                group.create_task(self._receive(stream))

    async def _receive(self, stream: STTStream) -> None:
        stream.end()
        match stream.label, stream.metadata:
            case str(label), [int(sequence), int(previous)] if (
                label == SEGMENT_LABEL and -1 <= previous < sequence <= MAX_SEQUENCE
            ):
                pass
            case _:
                stream.stop(LiveCode.MALFORMED)
                return
        data = bytearray()
        try:
            async for chunk in stream:
                data += chunk
                self._arriving_size += len(chunk)
                # The publisher may begin many segments, and end none.
                if len(data) > MAX_SEGMENT_SIZE or self._arriving_size > HELD_SIZE:
                    stream.stop(LiveCode.MALFORMED)
                    self._give_up(sequence)
                    return
        except StreamClosed:
            self._give_up(sequence)
            return
        except SessionClosed:
            return
        finally:
            self._arriving_size -= len(data)
        self._hold(sequence, _Held(bytes(data), previous, asyncio.get_running_loop().time()))

    def _hold(self, sequence: int, held: _Held) -> None:
        if sequence < self._next:
            self._late += 1
            return
        if sequence in self._held:
            return
        self._held[sequence] = held
        self._held_size += len(held.data)
        while len(self._held) > HELD_SEGMENTS or self._held_size > HELD_SIZE:
            self._pop_oldest()
        self._changed.set()

    def _give_up(self, sequence: int) -> None:
        # A publisher that gave up what is far ahead would fill the memory.
        if self._next <= sequence < self._next + HELD_SEGMENTS:
            self._given_up.add(sequence)
            self._changed.set()

    # Internals: what is due next

    async def _next_segment(self, deadline: float) -> LiveSegment | None:
        """Wait for the segment that is due next; return None at the end."""
        while True:
            self._changed.clear()
            while self._next in self._given_up and self._next not in self._held:
                self._skip(self._next + 1)
            due_at = self._due_at(deadline)
            if due_at is not None and due_at <= asyncio.get_running_loop().time():
                return self._take_oldest()
            if self._failure is not None and not self._held:
                raise self._failure
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due_at):
                    await self._changed.wait()

    def _due_at(self, deadline: float) -> float | None:
        """Return when the oldest segment that is held is to be had, or the end to be taken for it; None if unknown."""
        if self._held:
            oldest = self._held[min(self._held)]
            return oldest.came_at if oldest.previous < self._next else oldest.came_at + deadline
        if self._end is None:
            return None
        return self._ended_at if self._next >= self._end else self._ended_at + deadline

    def _take_oldest(self) -> LiveSegment | None:
        if not self._held:
            assert self._end is not None
            self._skip(max(self._next, self._end))
            return None
        segment = self._pop_oldest()
        self._skip(segment.sequence)
        self._next = segment.sequence + 1
        self._received += 1
        return segment

    def _pop_oldest(self) -> LiveSegment:
        sequence = min(self._held)
        data = self._held.pop(sequence).data
        self._held_size -= len(data)
        return LiveSegment(sequence, data)

    def _skip(self, sequence: int) -> None:
        """Leave out what is before a segment."""
        self._lost += sequence - self._next
        self._next = sequence
        self._given_up = {given_up for given_up in self._given_up if given_up >= sequence}
