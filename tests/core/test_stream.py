"""Do streams carry bytes, hold a fast sender back, end, and leave nobody waiting?"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from stt_core import IncompleteRead, LocalError, SessionClosed, StreamClosed, STTConfig, STTSession, STTStream

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from stt_core import STTNode

pytestmark = pytest.mark.asyncio

CREDIT = 64 * 1024
SMALL = STTConfig(stream_credit=CREDIT, session_credit=4 * CREDIT, send_buffer_size=CREDIT, max_streams=4)
ENDED = 0x123

Sessions = tuple[STTSession, STTSession]
Streams = tuple[STTStream, STTStream]


@pytest_asyncio.fixture
async def streams(sessions: Sessions) -> Streams:
    """Both ends of a stream: that of who opened it, and the other."""
    near = await sessions[0].open_stream("toy")
    return near, await sessions[1].accept_stream()


@pytest_asyncio.fixture
async def small_streams(make_node: Callable[..., STTNode]) -> Streams:
    """As above, between nodes that keep 64 KiB on each side."""
    listener = make_node(config=SMALL)
    (url,) = await listener.listen(f"memory://{secrets.token_hex(8)}")
    near = await (await make_node(config=SMALL).connect(url)).open_stream("toy")
    return near, await (await anext(listener.sessions())).accept_stream()


async def read_all(stream: STTStream) -> bytes:
    return b"".join([chunk async for chunk in stream])


async def begun(work: Coroutine[Any, Any, object]) -> asyncio.Task[object]:
    """Return a task that runs and waits for something."""
    task = asyncio.create_task(work)
    for _ in range(3):
        await asyncio.sleep(0)
    assert not task.done()
    return task


async def full(stream: STTStream) -> asyncio.Task[object]:
    """Send until nothing more is taken; return the send that waits."""
    task = await begun(stream.send(bytes(8 * CREDIT)))
    while stream.session.get_statistics().waiting_for != "credit":
        await stream.session.ping()
    return task


# Sending and receiving


async def test_bytes_come_in_order_both_ways(streams: Streams) -> None:
    near, far = streams

    await near.send(b"one ")
    await near.send(bytearray(b"two "))
    await near.send(memoryview(b"three"))
    near.end()
    await far.send(b"answer")
    far.end()

    assert await read_all(far) == b"one two three"
    assert await read_all(near) == b"answer"


async def test_what_its_opener_said_of_a_stream_is_known_to_both(sessions: Sessions) -> None:
    near = await sessions[0].open_stream("video", priority=1, metadata={"width": 640})
    far = await sessions[1].accept_stream()

    for stream in (near, far):
        assert (stream.label, stream.priority, stream.metadata) == ("video", 1, {"width": 640})
    assert near.stream_id == far.stream_id
    assert near.session is sessions[0]
    assert "'video'" in repr(far)


async def test_a_large_send_comes_whole(streams: Streams) -> None:
    near, far = streams
    data = secrets.token_bytes(20 * 1024 * 1024)

    sending = asyncio.create_task(near.send(data))
    digest = hashlib.sha3_256()
    received = 0
    while received < len(data):
        chunk = await far.receive()
        received += len(chunk)
        digest.update(chunk)

    await sending
    assert digest.digest() == hashlib.sha3_256(data).digest()


async def test_sending_nothing_changes_nothing(streams: Streams) -> None:
    near, far = streams

    await near.send(b"")
    near.end()

    assert await read_all(far) == b""


@pytest.mark.parametrize("wrong", [5, "text", None, [1, 2]])
async def test_only_bytes_can_be_sent(streams: Streams, wrong: Any) -> None:
    with pytest.raises(TypeError):
        await streams[0].send(wrong)


async def test_bytes_of_any_memory_can_be_sent(streams: Streams) -> None:
    near, far = streams

    await near.send(memoryview(b"abcdef")[::2])

    assert await far.receive_exactly(3) == b"ace"


async def test_a_reader_gets_at_most_what_it_asks_for(streams: Streams) -> None:
    near, far = streams
    await near.send(b"abcdef")

    assert await far.receive(4) == b"abcd"
    assert await far.receive(4) == b"ef"


async def test_the_end_stays_the_end(streams: Streams) -> None:
    near, far = streams
    near.end()

    assert [await far.receive() for _ in range(3)] == [b"", b"", b""]


@pytest.mark.parametrize("size", [0, -1])
async def test_a_reader_asks_for_something(streams: Streams, size: int) -> None:
    with pytest.raises(LocalError, match="max_bytes"):
        await streams[0].receive(size)


async def test_exactly_what_was_asked_for_is_returned(streams: Streams) -> None:
    near, far = streams
    reading = await begun(far.receive_exactly(6))

    await near.send(b"abc")
    await near.session.ping()
    assert not reading.done()
    await near.send(b"defg")

    assert await reading == b"abcdef"
    assert await far.receive_exactly(0) == b""
    assert await far.receive() == b"g"


async def test_more_can_be_asked_for_than_the_peer_may_send_ahead(small_streams: Streams) -> None:
    near, far = small_streams
    data = secrets.token_bytes(5 * CREDIT)
    sending = asyncio.create_task(near.send(data))

    assert await far.receive_exactly(len(data)) == data

    await sending


async def test_a_stream_that_ends_too_early_says_what_came(streams: Streams) -> None:
    near, far = streams
    await near.send(b"abc")
    near.end()

    with pytest.raises(IncompleteRead, match="ended after 3 of 4 bytes") as caught:
        await far.receive_exactly(4)

    assert (caught.value.received, caught.value.expected) == (b"abc", 4)
    assert "abc" not in repr(caught.value)
    assert isinstance(caught.value, EOFError)
    assert await far.receive() == b""


async def test_a_negative_size_is_an_error(streams: Streams) -> None:
    with pytest.raises(LocalError, match="negative"):
        await streams[0].receive_exactly(-1)


async def test_an_exact_read_that_is_cancelled_loses_nothing(streams: Streams) -> None:
    near, far = streams
    reading = await begun(far.receive_exactly(10))
    await near.send(b"abc")
    await near.session.ping()

    reading.cancel()
    await asyncio.wait([reading])
    await near.send(b"def")
    near.end()

    assert await far.receive(2) == b"ab"
    assert await read_all(far) == b"cdef"


async def test_an_exact_read_that_fails_leaves_what_came(streams: Streams) -> None:
    near, far = streams
    reading = await begun(far.receive_exactly(10))
    await near.send(b"abc")
    await near.session.ping()

    near.session.close(ENDED)

    with pytest.raises(SessionClosed):
        await reading
    assert await far.receive() == b"abc"
    with pytest.raises(SessionClosed):
        await far.receive()


async def test_a_loop_over_a_stream_can_be_taken_up_again(streams: Streams) -> None:
    near, far = streams
    await near.send(b"abc")

    async for chunk in far:
        assert chunk == b"abc"
        break
    await near.send(b"def")
    near.end()

    assert await read_all(far) == b"def"


# Two of everything


async def test_a_stream_has_one_reader(streams: Streams) -> None:
    near, far = streams
    reading = await begun(far.receive())

    for second in (far.receive(), far.receive_exactly(1)):
        with pytest.raises(LocalError, match="has a reader"):
            await second
    await near.send(b"for the first")

    assert await reading == b"for the first"


async def test_a_stream_has_one_sender(small_streams: Streams) -> None:
    near, far = small_streams
    sending = await full(near)

    with pytest.raises(LocalError, match="has a sender"):
        await near.send(b"mixed in")

    assert await far.receive_exactly(8 * CREDIT) == bytes(8 * CREDIT)
    await sending


async def test_a_reader_that_was_cancelled_makes_room_for_another(streams: Streams) -> None:
    near, far = streams
    reading = await begun(far.receive())

    reading.cancel()
    await asyncio.wait([reading])
    await near.send(b"abc")

    assert await far.receive() == b"abc"


async def test_a_sender_that_was_cancelled_makes_room_for_another(small_streams: Streams) -> None:
    near, far = small_streams
    sending = await full(near)

    sending.cancel()
    await asyncio.wait([sending])
    reading = asyncio.create_task(read_all(far))
    await near.send(b"the last words")
    near.end()

    data = await reading
    assert data.endswith(b"the last words")
    assert data.strip(b"\0") == b"the last words"


# Slow readers


async def test_a_sender_is_held_back_by_a_reader_that_does_not_read(small_streams: Streams) -> None:
    near, far = small_streams

    sending = await full(near)

    assert near.session.get_statistics().bytes_sent < 3 * CREDIT
    await far.receive_exactly(8 * CREDIT)
    await sending


async def test_a_reader_that_does_not_read_holds_no_other_stream_back(small_streams: Streams) -> None:
    near, far = small_streams
    sending = await full(near)

    other = await near.session.open_stream("other")
    await other.send(b"hello")

    assert await (await far.session.accept_stream()).receive() == b"hello"
    sending.cancel()


# Ending


async def test_each_direction_ends_by_itself(streams: Streams) -> None:
    near, far = streams

    near.end()
    assert await far.receive() == b""
    await far.send(b"still here")

    assert await near.receive() == b"still here"


async def test_nothing_is_sent_behind_the_end(streams: Streams) -> None:
    near, _ = streams
    near.end()
    near.end()

    with pytest.raises(StreamClosed) as caught:
        await near.send(b"more")

    assert (caught.value.code, caught.value.by_peer) == (0, False)


async def test_a_stream_that_is_over_stays_usable_as_a_handle(streams: Streams) -> None:
    near, far = streams
    near.end()
    far.end()
    assert await near.receive() == await far.receive() == b""
    await near.wait_delivered()
    await far.wait_delivered()

    near.end()
    near.reset()
    near.stop()
    with pytest.raises(StreamClosed):
        await near.send(b"more")
    await near.wait_delivered()

    assert near.label == "toy"
    assert await near.receive() == b""


async def test_a_sender_that_waits_when_its_stream_is_ended_is_told(small_streams: Streams) -> None:
    near, _ = small_streams
    sending = await full(near)

    near.end()

    with pytest.raises(StreamClosed) as caught:
        await sending
    assert not caught.value.by_peer


async def test_delivery_is_awaited(small_streams: Streams) -> None:
    near, far = small_streams
    await near.send(bytes(CREDIT))
    await near.send(bytes(CREDIT // 2))
    near.end()
    waiting = await begun(near.wait_delivered())

    assert await far.receive_exactly(3 * CREDIT // 2) == bytes(3 * CREDIT // 2)
    await waiting

    assert await far.receive() == b""
    await near.wait_delivered()


async def test_delivery_can_be_awaited_by_several(streams: Streams) -> None:
    near, _ = streams
    await near.send(b"abc")
    near.end()

    await asyncio.gather(*(near.wait_delivered() for _ in range(3)))


async def test_delivery_of_what_has_not_ended_cannot_be_awaited(streams: Streams) -> None:
    with pytest.raises(LocalError, match="end"):
        await streams[0].wait_delivered()


# Giving up


async def test_a_reset_reaches_a_reader_that_waits(streams: Streams) -> None:
    near, far = streams
    reading = await begun(far.receive())

    near.reset(ENDED)

    with pytest.raises(StreamClosed) as caught:
        await reading
    assert (caught.value.code, caught.value.by_peer) == (ENDED, True)


async def test_behind_a_reset_nothing_is_sent_or_delivered(streams: Streams) -> None:
    near, _ = streams
    await near.send(b"abc")

    near.reset(ENDED)

    for use in (near.send(b"more"), near.wait_delivered()):
        with pytest.raises(StreamClosed) as caught:
            await use
        assert (caught.value.code, caught.value.by_peer) == (ENDED, False)


async def test_a_reset_wakes_who_sends_and_who_waits_for_delivery(small_streams: Streams) -> None:
    near, _ = small_streams
    sending = await full(near)

    near.reset(ENDED)
    with pytest.raises(StreamClosed):
        await sending

    other = await near.session.open_stream()
    await other.send(bytes(CREDIT))
    await other.send(bytes(CREDIT // 2))
    other.end()
    waiting = await begun(other.wait_delivered())
    other.reset(ENDED)
    with pytest.raises(StreamClosed):
        await waiting


async def test_a_peer_that_wants_no_more_stops_the_sender(small_streams: Streams) -> None:
    near, far = small_streams
    sending = await full(near)

    far.stop(ENDED)

    with pytest.raises(StreamClosed) as caught:
        await sending
    assert (caught.value.code, caught.value.by_peer) == (ENDED, True)
    with pytest.raises(StreamClosed):
        await near.send(b"more")


async def test_a_reader_that_wanted_no_more_gets_no_more(streams: Streams) -> None:
    near, far = streams
    await near.send(b"abcdef")
    assert await far.receive(3) == b"abc"
    reading = await begun(far.receive_exactly(100))

    far.stop(ENDED)

    for each in (reading, far.receive()):
        with pytest.raises(StreamClosed) as caught:
            await each
        assert (caught.value.code, caught.value.by_peer) == (ENDED, False)


async def test_what_a_stopped_stream_held_is_no_loss_for_the_session(small_streams: Streams) -> None:
    near, far = small_streams
    for _ in range(20):  # 20 times 64 KiB is more than the credit of the session
        stream = await near.session.open_stream()
        await stream.send(bytes(CREDIT))
        await near.session.ping()
        accepted = await far.session.accept_stream()
        accepted.stop()
        accepted.end()
        stream.reset()

    await near.send(b"still here")

    assert await far.receive() == b"still here"


# The end of the session


@pytest.mark.parametrize("by", [0, 1], ids=["here", "there"])
async def test_the_end_of_the_session_reaches_whoever_waits(small_streams: Streams, by: int) -> None:
    near, _ = small_streams
    other = await near.session.open_stream()
    other.end()
    waits = [
        await begun(near.receive()),
        await full(near),
        await begun(other.receive_exactly(1)),
    ]

    small_streams[by].session.close(ENDED, "enough")

    for waiting in waits:
        with pytest.raises(SessionClosed) as caught:
            await waiting
        assert (caught.value.code, caught.value.reason) == (ENDED, "enough")
        assert caught.value.by_peer is bool(by)


async def test_delivery_that_cannot_be_known_any_more_is_an_error(small_streams: Streams) -> None:
    near, far = small_streams
    await near.send(bytes(CREDIT))
    await near.send(bytes(CREDIT // 2))
    near.end()
    waiting = await begun(near.wait_delivered())

    far.session.close()

    with pytest.raises(SessionClosed):
        await waiting


async def test_what_had_come_when_the_session_ended_is_still_read(streams: Streams) -> None:
    near, far = streams
    await near.send(b"abc")
    await near.session.ping()

    near.session.close()
    await far.session.wait_closed()

    assert await far.receive(2) == b"ab"
    assert await far.receive() == b"c"
    with pytest.raises(SessionClosed):
        await far.receive()
    with pytest.raises(SessionClosed):
        await far.send(b"answer")


async def test_an_end_that_had_come_when_the_session_ended_is_an_end(streams: Streams) -> None:
    near, far = streams
    await near.send(b"abc")
    near.end()
    await near.wait_delivered()

    near.session.close()
    await far.session.wait_closed()

    assert await read_all(far) == b"abc"


async def test_ending_a_stream_of_a_session_that_is_over_is_no_error(streams: Streams) -> None:
    near, _ = streams
    near.session.close()
    await near.session.wait_closed()

    near.end()
    near.reset()
    near.stop()


# Over time


async def test_many_streams_leave_nothing_behind(sessions: Sessions) -> None:
    near, far = sessions

    async def answer() -> None:
        async for stream in far.streams():
            assert await read_all(stream) == b"question"
            await stream.send(b"answer")
            stream.end()

    answering = asyncio.create_task(answer())
    for _ in range(600):  # more than may be open at a time
        stream = await near.open_stream()
        await stream.send(b"question")
        stream.end()
        assert await read_all(stream) == b"answer"
    await near.ping()

    assert near.get_statistics().streams == 0
    assert far.get_statistics().streams == 0
    near.close()
    await answering
