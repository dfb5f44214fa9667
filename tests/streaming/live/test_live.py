"""Do subscribers of a live stream get its segments in order and in time, whatever the link and the others do?"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from stt_core import LocalError, SessionClosed, StreamClosed, STTNode, hookimpl
from stt_core.errors import FrameError
from stt_core.interfaces.transport import Address, Buffer, Transport, TransportCapabilities
from stt_streaming.live.messages import (
    MAX_SEGMENT_SIZE,
    MAX_SEQUENCE,
    SEGMENT_LABEL,
    SUBSCRIBE_LABEL,
    Farewell,
    LiveCode,
    Welcome,
)
from stt_streaming.live.publisher import SEGMENTS_AT_ONCE, LivePublisher, SubscriberStatistics
from stt_streaming.live.subscriber import HELD_SEGMENTS, HELD_SIZE, LiveSegment, LiveSubscriber

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from stt_core import STTSession, STTStream
    from stt_core.interfaces.transport import TransportFactory


class CuttableTransport(Transport):
    """Datagrams within the loop; while it is cut, all are lost."""

    capabilities = TransportCapabilities(reliable=False, max_message_size=1472)
    cut: ClassVar[bool] = False
    _inboxes: ClassVar[dict[Address, asyncio.Queue[tuple[Buffer, Address]]]] = {}

    async def open(self) -> None:
        self._address: Address = self.url if self.listening else id(self)
        if not self.listening:
            self.peer = self.url
        self._inboxes[self._address] = asyncio.Queue()

    async def send(self, data: Buffer, address: Address) -> None:
        if not self.cut:
            self._inboxes[address].put_nowait((bytes(data), self._address))

    async def receive(self) -> tuple[Buffer, Address]:
        return await self._inboxes[self._address].get()

    async def close(self) -> None:
        """Inboxes stay until the tests end: who sends to one that is closed is not told."""


class CuttablePlugin:
    @hookimpl
    def stt_register_transports(self, register: Callable[[str, TransportFactory], None]) -> None:
        register("cuttable", CuttableTransport)


@attrs.define
class Network:
    """A publishing node, and nodes that connect to it."""

    nodes: contextlib.AsyncExitStack
    publishing: STTNode
    url: str

    async def connect(self) -> tuple[STTSession, STTSession]:
        """Return both ends of a new session, the publisher's first."""
        node = await self.nodes.enter_async_context(make_node(len(self.publishing.active_sessions()) + 2))
        session = await node.connect(self.url)
        return await anext(self.publishing.sessions()), session


def make_node(number: int) -> STTNode:
    return STTNode(node_seed=bytes([number]) * 32, shared_seed=bytes(32), plugins=[CuttablePlugin()])


@pytest_asyncio.fixture(params=["memory://live", "cuttable://live"])
async def network(request: pytest.FixtureRequest) -> AsyncIterator[Network]:
    async with contextlib.AsyncExitStack() as nodes:
        publishing = await nodes.enter_async_context(make_node(1))
        await publishing.listen(request.param)
        yield Network(nodes, publishing, request.param)


over_datagrams = pytest.mark.parametrize("network", ["cuttable://live"], indirect=True)
over_memory = pytest.mark.parametrize("network", ["memory://live"], indirect=True)


@attrs.define
class Watching:
    """A subscriber at work."""

    subscriber: LiveSubscriber
    serving: asyncio.Task[SubscriberStatistics | None]
    watching: asyncio.Task[None]
    segments: list[LiveSegment]
    came: asyncio.Condition

    async def wait_for(self, count: int) -> None:
        async with self.came:
            await self.came.wait_for(lambda: len(self.segments) >= count)

    async def end(self) -> SubscriberStatistics | None:
        await self.watching
        return await self.serving


async def watch(network: Network, publisher: LivePublisher) -> Watching:
    """Return a subscriber that is served from now on."""
    there, here = await network.connect()
    subscriber = LiveSubscriber(here)
    segments: list[LiveSegment] = []
    came = asyncio.Condition()

    async def take() -> None:
        async for segment in subscriber.segments():
            async with came:
                segments.append(segment)
                came.notify_all()

    before = publisher.subscribers
    serving = asyncio.create_task(publisher.serve(there))
    watching = asyncio.create_task(take())
    while publisher.subscribers == before:  # noqa: ASYNC110  nothing tells but looking
        await asyncio.sleep(0)
    return Watching(subscriber, serving, watching, segments, came)


async def pass_time(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the clock of the loop forward, and let what is due then have its turn."""
    loop = asyncio.get_running_loop()
    clock = loop.time
    await asyncio.sleep(0)
    monkeypatch.setattr(loop, "time", lambda: clock() + seconds)
    for _ in range(10):
        await asyncio.sleep(0)


def content(number: int) -> bytes:
    return b"%d " % number * 1000


# What arrives


@pytest.mark.asyncio
async def test_subscribers_get_what_is_published_from_when_they_came_to_the_end(network: Network) -> None:
    publisher = LivePublisher(deadline=20.0)

    first = await watch(network, publisher)
    for number in range(20):
        assert publisher.publish(content(number)) == number
    second = await watch(network, publisher)
    for number in range(20, 40):
        publisher.publish(content(number))
    publisher.end()

    assert await first.end() == SubscriberStatistics(delivered=40)
    assert await second.end() == SubscriberStatistics(delivered=20)
    assert first.segments == [LiveSegment(number, content(number)) for number in range(40)]
    assert second.segments == first.segments[20:]
    for each in (first, second):
        assert (each.subscriber.received, each.subscriber.lost) == (len(each.segments), 0)
    assert publisher.subscribers == 0


@pytest.mark.asyncio
@pytest.mark.parametrize("size", [1, MAX_SEGMENT_SIZE])
async def test_segments_of_any_size_arrive(network: Network, size: int) -> None:
    publisher = LivePublisher(deadline=20.0)
    watching = await watch(network, publisher)

    publisher.publish(bytes(size))
    publisher.end()
    await watching.end()

    assert [len(segment.data) for segment in watching.segments] == [size]


@pytest.mark.asyncio
@over_datagrams
async def test_what_is_late_is_left_out_and_both_sides_know(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher = LivePublisher(deadline=5.0)
    watching = await watch(network, publisher)
    publisher.publish(b"before")
    await watching.wait_for(1)

    monkeypatch.setattr(CuttableTransport, "cut", True)
    for _ in range(3):
        publisher.publish(b"lost")
    await pass_time(5.0, monkeypatch)
    monkeypatch.setattr(CuttableTransport, "cut", False)
    publisher.publish(b"after")
    await watching.wait_for(2)
    publisher.end()
    statistics = await watching.end()

    assert watching.segments == [LiveSegment(0, b"before"), LiveSegment(4, b"after")]
    assert watching.subscriber.lost == 3
    assert statistics is not None
    assert statistics.delivered == 2
    assert statistics.late + statistics.dropped == 3


@pytest.mark.asyncio
@over_memory
async def test_a_subscriber_that_takes_nothing_holds_up_nobody(network: Network) -> None:
    publisher = LivePublisher(deadline=0.5)
    there, idle = await network.connect()
    await idle.open_stream(SUBSCRIBE_LABEL)
    serving = asyncio.create_task(publisher.serve(there))
    watching = await watch(network, publisher)

    count = 256 + 2 * SEGMENTS_AT_ONCE + 50  # more than the idle one's streams, and than may be sent or wait
    for number in range(count):
        publisher.publish(b"segment")
        await watching.wait_for(number)
    publisher.end()
    await watching.end()

    assert len(watching.segments) == count
    idle.close()
    statistics = await serving
    assert statistics is not None
    assert statistics.delivered <= 256
    assert statistics.late > 0
    assert statistics.dropped > 0
    assert statistics.delivered + statistics.late + statistics.dropped == count


@pytest.mark.asyncio
async def test_who_leaves_is_served_no_more_and_the_others_are(network: Network) -> None:
    publisher = LivePublisher(deadline=20.0)
    leaving, staying = await watch(network, publisher), await watch(network, publisher)
    publisher.publish(b"for both")
    await leaving.wait_for(1)
    await staying.wait_for(1)

    leaving.watching.cancel()
    statistics = await leaving.serving

    assert statistics == SubscriberStatistics(delivered=1)
    assert publisher.subscribers == 1
    publisher.publish(b"for one")
    publisher.end()
    await staying.end()
    assert [segment.data for segment in staying.segments] == [b"for both", b"for one"]


@pytest.mark.asyncio
async def test_a_publisher_that_breaks_off_is_an_error(network: Network) -> None:
    publisher = LivePublisher()
    watching = await watch(network, publisher)
    publisher.publish(b"segment")
    await watching.wait_for(1)

    for session in network.publishing.active_sessions():
        session.close()

    with pytest.raises(SessionClosed):
        await watching.watching
    assert await watching.serving == SubscriberStatistics(delivered=1)


# Peers that do something else


@pytest.mark.asyncio
@over_memory
async def test_a_peer_that_publishes_nothing_is_an_error(network: Network) -> None:
    there, here = await network.connect()
    first = asyncio.ensure_future(anext(LiveSubscriber(here).segments()))

    stream = await there.accept_stream()
    stream.reset()

    with pytest.raises(FrameError, match="publishes no live stream"):
        await first


@pytest.mark.asyncio
@over_memory
async def test_a_session_that_subscribes_to_nothing_is_left(network: Network) -> None:
    there, here = await network.connect()
    serving = asyncio.create_task(LivePublisher().serve(there))
    stream = await here.open_stream("something else")
    with pytest.raises(Exception, match="application code 0x101"):
        await stream.receive()

    here.close()

    assert await serving is None


async def publish_by_hand(
    network: Network, deadline: float = 0.2
) -> tuple[STTSession, STTStream, asyncio.Task[list[LiveSegment]], LiveSubscriber]:
    there, here = await network.connect()
    subscriber = LiveSubscriber(here)

    async def take() -> list[LiveSegment]:
        return [segment async for segment in subscriber.segments()]

    taking = asyncio.create_task(take())
    stream = await there.accept_stream()
    await stream.send(Welcome(deadline, 5).encode())
    return there, stream, taking, subscriber


async def send_segment(session: STTSession, metadata: Any, data: bytes, label: str = SEGMENT_LABEL) -> STTStream:
    stream = await session.open_stream(label, metadata=metadata)
    await stream.send(data)
    stream.end()
    return stream


@pytest.mark.asyncio
@over_memory
async def test_segments_that_are_none_are_refused_and_the_others_taken(network: Network) -> None:
    session, stream, taking, subscriber = await publish_by_hand(network)

    no_sequences: tuple[Any, ...] = (None, 6, [6], [6, 5, 4], [6, 6], [6, -2], ["6", 5], {}, [1 << 63, 5])
    for metadata in no_sequences:
        await send_segment(session, metadata, b"no sequence")
    await send_segment(session, [5, 4], b"no segment", label="other")
    await send_segment(session, [6, 5], b"good")
    with contextlib.suppress(Exception):
        await send_segment(session, [7, 6], bytes(MAX_SEGMENT_SIZE + 1))
    await send_segment(session, [8, 7], b"good, too")
    await send_segment(session, [4, 3], b"from before")
    await stream.send(Farewell(9).encode())

    assert await taking == [LiveSegment(6, b"good"), LiveSegment(8, b"good, too")]
    assert (subscriber.received, subscriber.lost, subscriber.late) == (2, 2, 1)


@pytest.mark.asyncio
@over_memory
async def test_a_segment_that_was_given_up_is_not_waited_for(network: Network) -> None:
    session, stream, taking, subscriber = await publish_by_hand(network, deadline=60.0)

    given_up = await session.open_stream(SEGMENT_LABEL, metadata=[5, 4])
    await given_up.send(b"a part")
    await send_segment(session, [6, 5], b"whole")
    given_up.reset(LiveCode.LATE)
    await stream.send(Farewell(7).encode())

    assert await asyncio.wait_for(taking, 20) == [LiveSegment(6, b"whole")]
    assert subscriber.lost == 1


@pytest.mark.asyncio
@over_memory
async def test_what_was_not_sent_is_not_waited_for(network: Network) -> None:
    session, stream, taking, subscriber = await publish_by_hand(network, deadline=60.0)

    await send_segment(session, [5, 4], b"one")
    await send_segment(session, [9, 5], b"another")
    await stream.send(Farewell(10).encode())

    assert await asyncio.wait_for(taking, 20) == [LiveSegment(5, b"one"), LiveSegment(9, b"another")]
    assert subscriber.lost == 3


@pytest.mark.asyncio
@over_memory
async def test_what_never_came_is_lost_at_the_end(network: Network) -> None:
    _, stream, taking, subscriber = await publish_by_hand(network, deadline=0.01)

    await stream.send(Farewell(15).encode())

    assert await taking == []
    assert subscriber.lost == 10


@pytest.mark.asyncio
@over_memory
async def test_a_reader_that_stops_for_a_while_misses_the_oldest(network: Network) -> None:
    there, here = await network.connect()
    subscriber = LiveSubscriber(here)
    segments = subscriber.segments()
    first = asyncio.ensure_future(anext(segments))
    stream = await there.accept_stream()
    await stream.send(Welcome(0.2, 0).encode())
    await send_segment(there, [0, -1], b"first")
    assert (await first).sequence == 0

    count = HELD_SEGMENTS + 45
    for number in range(1, count):
        sent = await send_segment(there, [number, number - 1], b"more")
        await sent.wait_delivered()
    await stream.send(Farewell(count).encode())
    numbers = [segment.sequence async for segment in segments]

    assert numbers == [*range(count - HELD_SEGMENTS, count)]
    assert subscriber.lost == count - 1 - HELD_SEGMENTS


@pytest.mark.asyncio
@over_memory
async def test_large_segments_that_nobody_reads_are_bounded_by_their_bytes(network: Network) -> None:
    there, here = await network.connect()
    subscriber = LiveSubscriber(here)
    segments = subscriber.segments()
    first = asyncio.ensure_future(anext(segments))
    stream = await there.accept_stream()
    await stream.send(Welcome(0.2, 0).encode())
    await send_segment(there, [0, -1], b"first")
    await first

    fitting = HELD_SIZE // MAX_SEGMENT_SIZE
    for number in range(1, fitting + 5):
        sent = await send_segment(there, [number, number - 1], bytes(MAX_SEGMENT_SIZE))
        await sent.wait_delivered()
    await stream.send(Farewell(fitting + 5).encode())

    assert [segment.sequence async for segment in segments] == [*range(5, fitting + 5)]


@pytest.mark.asyncio
@over_memory
async def test_segments_that_never_end_are_bounded_by_their_bytes(network: Network) -> None:
    session, stream, taking, _ = await publish_by_hand(network)

    fitting = HELD_SIZE // MAX_SEGMENT_SIZE
    endless = [await session.open_stream(SEGMENT_LABEL, metadata=[5 + n, 4 + n]) for n in range(fitting + 1)]
    for each in endless:
        await each.send(bytes(MAX_SEGMENT_SIZE))

    async def wait_refused() -> None:
        while True:
            for each in endless:
                await each.send(b"")  # which tells whether the subscriber wants no more
            await asyncio.sleep(0)

    with pytest.raises(StreamClosed):
        await asyncio.wait_for(wait_refused(), 20)
    await stream.send(Farewell(5).encode())
    await taking


@pytest.mark.asyncio
@over_memory
async def test_a_subscriber_is_for_one_iteration(network: Network) -> None:
    _, stream, taking, subscriber = await publish_by_hand(network)
    await stream.send(Farewell(5).encode())
    await taking

    with pytest.raises(LocalError, match="one iteration"):
        await anext(subscriber.segments())


@pytest.mark.asyncio
@over_memory
async def test_a_stream_without_a_farewell_was_broken_off(network: Network) -> None:
    session, stream, taking, _ = await publish_by_hand(network)

    await send_segment(session, [5, 4], b"good")
    stream.end()

    with pytest.raises(FrameError, match="broke off"):
        await taking


# Bounds and messages


@pytest.mark.asyncio
async def test_what_cannot_be_published_is_refused() -> None:
    publisher = LivePublisher()

    for size in (0, MAX_SEGMENT_SIZE + 1):
        with pytest.raises(LocalError, match="1 to 1048576"):
            publisher.publish(bytes(size))
    publisher.end()
    with pytest.raises(LocalError, match="ended"):
        publisher.publish(b"more")


@pytest.mark.parametrize("deadline", [0.0, -1.0, 61.0, float("nan")])
def test_a_deadline_out_of_range_is_refused(deadline: float) -> None:
    with pytest.raises(LocalError, match="deadline"):
        LivePublisher(deadline)


@given(st.integers(1, 60_000), st.integers(0, MAX_SEQUENCE))
def test_messages_are_what_was_encoded(milliseconds: int, sequence: int) -> None:
    welcome, farewell = Welcome(milliseconds / 1000, sequence), Farewell(sequence)

    assert Welcome.decode(welcome.encode()) == welcome
    assert Farewell.decode(farewell.encode()) == farewell


@pytest.mark.parametrize("data", [bytes(12), b"\0\0\xea\x61" + bytes(8), b"\0\0\0\1" + b"\xff" * 8])
def test_an_impossible_welcome_is_refused(data: bytes) -> None:
    with pytest.raises(FrameError):
        Welcome.decode(data)
