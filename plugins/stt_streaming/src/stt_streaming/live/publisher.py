"""Sends each segment of a live stream to every subscriber, until its deadline.

A segment is a stream of its own: what is lost of it is sent again while there is time, and no segment waits for
another.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Final

import attrs

from stt_core.errors import LocalError, SessionClosed, StreamClosed
from stt_streaming.live.messages import (
    MAX_DEADLINE,
    MAX_SEGMENT_SIZE,
    SEGMENT_LABEL,
    SUBSCRIBE_LABEL,
    Farewell,
    LiveCode,
    Welcome,
)

if TYPE_CHECKING:
    from stt_core import STTSession, STTStream
    from stt_core.interfaces.transport import Buffer

DEFAULT_DEADLINE: Final = 0.5
"""Seconds: two repetitions at 100 ms of round trip, and what people still take for live."""

SEGMENTS_AT_ONCE: Final = 128
"""Segments that may be on their way to one subscriber, and as many that may wait; beyond it the oldest is dropped."""


@attrs.frozen(kw_only=True)
class SubscriberStatistics:
    """What became of the segments for one subscriber; the three sum up to those that were published meanwhile."""

    delivered: int = 0
    """It has confirmed them."""
    late: int = 0
    """Given up: not confirmed at the deadline, or when the subscriber went."""
    dropped: int = 0
    """Not sent, because the link had no room for them in time."""


class LivePublisher:
    """A live stream, as its source has it.

    Args:
        deadline: Seconds, 0.001 to 60, after which a segment that a subscriber has not confirmed is given up.

    Raises:
        LocalError: The deadline is out of its range.
    """

    def __init__(self, deadline: float = DEFAULT_DEADLINE) -> None:
        if not 0.001 <= deadline <= MAX_DEADLINE:
            raise LocalError(f"the deadline is {deadline} s, but must be from 0.001 to {MAX_DEADLINE:g}")
        self._deadline = deadline
        self._sequence = 0
        self._subscribers: set[_Subscriber] = set()
        self._ended = asyncio.Event()

    @property
    def subscribers(self) -> int:
        """How many there are now."""
        return len(self._subscribers)

    def publish(self, data: Buffer) -> int:
        """Send a segment to all who subscribe now, and wait for none of them; return its sequence.

        Raises:
            LocalError: It is empty or longer than 1 MiB, or the stream has ended.
        """
        if not 0 < len(data) <= MAX_SEGMENT_SIZE:
            raise LocalError(f"a segment has 1 to {MAX_SEGMENT_SIZE} bytes, not {len(data)}")
        if self._ended.is_set():
            raise LocalError("the stream has ended")
        segment = bytes(data)
        sequence = self._sequence
        self._sequence += 1
        for subscriber in self._subscribers:
            subscriber.send(sequence, segment)
        return sequence

    def end(self) -> None:
        """Publish no more; each subscriber is told once it has what it can have."""
        self._ended.set()

    async def serve(self, session: STTSession) -> SubscriberStatistics | None:
        """Serve one session until the stream ends or the subscriber goes; return None if it did not subscribe.

        What it is sent begins with the segment that is published next.

        Raises:
            LocalError: Another task accepts streams of the session.
        """
        try:
            stream = await self._accept(session)
        except SessionClosed:
            return None
        subscriber = _Subscriber(session, self._deadline)
        welcome = Welcome(self._deadline, self._sequence)
        # From here on it is sent what is published, the segment that the welcome names first.
        self._subscribers.add(subscriber)
        ending = asyncio.create_task(self._ended.wait())
        leaving = asyncio.create_task(_wait_left(stream))
        try:
            await self._say(stream, welcome)
            await asyncio.wait((ending, leaving), return_when=asyncio.FIRST_COMPLETED)
            self._subscribers.discard(subscriber)
            if not leaving.done():
                await subscriber.flush()
                await self._say(stream, Farewell(self._sequence))
                stream.end()
                await self._wait_delivered(stream)
        finally:
            self._subscribers.discard(subscriber)
            for task in (ending, leaving):
                task.cancel()
            await asyncio.gather(ending, leaving, return_exceptions=True)
            await subscriber.cancel()
        return subscriber.statistics()

    # Internals

    async def _accept(self, session: STTSession) -> STTStream:
        while True:
            stream = await session.accept_stream()
            if stream.label == SUBSCRIBE_LABEL:
                return stream
            stream.reset(LiveCode.MALFORMED)
            stream.stop(LiveCode.MALFORMED)

    async def _say(self, stream: STTStream, message: Welcome | Farewell) -> None:
        # A subscriber that is gone is noticed by who waits for it to leave.
        with contextlib.suppress(StreamClosed, SessionClosed):
            await stream.send(message.encode())

    async def _wait_delivered(self, stream: STTStream) -> None:
        with contextlib.suppress(StreamClosed, SessionClosed):
            await stream.wait_delivered()


@attrs.frozen
class _Waiting:
    sequence: int
    segment: bytes
    published_at: float


class _Subscriber:
    """The segments on their way to one subscriber.

    A session shares its link fairly between streams. On a link that is too slow, all segments would be late together.
    Therefore only what fills its congestion window is handed over, in order, and what had to wait too long is left out.
    """

    def __init__(self, session: STTSession, deadline: float) -> None:
        self._session = session
        self._deadline = deadline
        self._waiting: deque[_Waiting] = deque()
        self._sending: dict[asyncio.Task[None], int] = {}
        self._changed = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._previous = -1
        self._delivered = 0
        self._late = 0
        self._dropped = 0
        self._handing_over = asyncio.create_task(self._hand_over_all())

    def send(self, sequence: int, segment: bytes) -> None:
        if len(self._waiting) == SEGMENTS_AT_ONCE:
            self._waiting.popleft()
            self._dropped += 1
        self._waiting.append(_Waiting(sequence, segment, asyncio.get_running_loop().time()))
        self._idle.clear()
        self._changed.set()

    async def flush(self) -> None:
        """Wait until no segment is on its way: no longer than the deadline."""
        await self._idle.wait()

    async def cancel(self) -> None:
        tasks = (self._handing_over, *self._sending)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._dropped += len(self._waiting)
        self._waiting.clear()

    def statistics(self) -> SubscriberStatistics:
        return SubscriberStatistics(delivered=self._delivered, late=self._late, dropped=self._dropped)

    async def _hand_over_all(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            # Half of the time is left for the way: what starts later would take the room of a newer one in vain.
            oldest = loop.time() - self._deadline / 2
            while self._waiting and self._waiting[0].published_at <= oldest:
                self._waiting.popleft()
                self._dropped += 1
            while self._waiting and self._has_room():
                self._hand_over(self._waiting.popleft())
            if not self._waiting and not self._sending:
                self._idle.set()
            with contextlib.suppress(TimeoutError):
                give_up_at = self._waiting[0].published_at + self._deadline / 2 if self._waiting else None
                async with asyncio.timeout_at(give_up_at):
                    await self._changed.wait()

    def _has_room(self) -> bool:
        if len(self._sending) >= SEGMENTS_AT_ONCE:
            return False
        window = self._session.get_statistics().congestion_window
        return window is None or sum(self._sending.values()) < window

    def _hand_over(self, waiting: _Waiting) -> None:
        task = asyncio.create_task(self._send(waiting, self._previous))
        self._previous = waiting.sequence
        self._sending[task] = len(waiting.segment)
        task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[None]) -> None:
        del self._sending[task]
        self._changed.set()

    async def _send(self, waiting: _Waiting, previous: int) -> None:
        stream: STTStream | None = None
        try:
            async with asyncio.timeout_at(waiting.published_at + self._deadline):
                stream = await self._session.open_stream(SEGMENT_LABEL, metadata=[waiting.sequence, previous])
                await stream.send(waiting.segment)
                stream.end()
                await stream.wait_delivered()
            self._delivered += 1
        except TimeoutError:
            self._late += 1
            _reset(stream, LiveCode.LATE)
        except (StreamClosed, SessionClosed):
            # It wants no more of this one, or is gone.
            self._late += 1
        except asyncio.CancelledError:
            self._late += 1
            _reset(stream, LiveCode.CANCELLED)
            raise


def _reset(stream: STTStream | None, code: LiveCode) -> None:
    if stream is not None:
        stream.reset(code)


async def _wait_left(stream: STTStream) -> None:
    """Wait until the subscriber wants no more."""
    try:
        while await stream.receive():
            continue  # it has nothing to say
    except (StreamClosed, SessionClosed):
        return
