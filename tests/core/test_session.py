"""Does a session open and accept streams, carry datagrams, tell of itself, and end for everybody who waits?"""

from __future__ import annotations

import asyncio
import gc
import secrets
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
import pytest_asyncio

from stt_core import (
    ErrorCode,
    LocalError,
    RequestTimeout,
    SerializationError,
    SessionClosed,
    State,
    STTConfig,
    STTSession,
    STTStream,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from stt_core import STTNode

pytestmark = pytest.mark.asyncio

ENDED = 0x123
STREAMS = 4

Sessions = tuple[STTSession, STTSession]
T = TypeVar("T")


@pytest_asyncio.fixture
async def few_streams(make_node: Callable[..., STTNode]) -> Sessions:
    """Both ends of a session in which each side may open four streams at a time."""
    config = STTConfig(max_streams=STREAMS, datagram_queue_size=3)
    listener = make_node(config=config)
    (url,) = await listener.listen(f"memory://{secrets.token_hex(8)}")
    near = await make_node(config=config).connect(url)
    return near, await anext(listener.sessions())


async def begun(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Return a task that runs and waits for something."""
    task = asyncio.create_task(work)
    for _ in range(3):
        await asyncio.sleep(0)
    assert not task.done()
    return task


# What a session says of itself


async def test_both_ends_know_each_other(make_node: Callable[..., STTNode]) -> None:
    listener = make_node(config=STTConfig(app_parameters=b"listener"))
    (url,) = await listener.listen(f"memory://{secrets.token_hex(8)}")
    dialler = make_node(config=STTConfig(app_parameters=b"dialler"))

    near = await dialler.connect(url)
    far = await anext(listener.sessions())

    assert near.session_id == far.session_id
    assert (near.is_initiator, far.is_initiator) == (True, False)
    assert (near.peer_node_id, far.peer_node_id) == (listener.node_id, dialler.node_id)
    assert (near.peer_app_parameters, far.peer_app_parameters) == (b"listener", b"dialler")
    assert near.state is far.state is State.ACTIVE
    assert near.path == url.replace("//", "")
    assert near.session_id.hex() in repr(near)


async def test_the_figures_of_a_session_add_up(sessions: Sessions) -> None:
    near, far = sessions
    stream = await near.open_stream()
    await stream.send(bytes(1000))
    await near.ping()

    sent, received = near.get_statistics(), far.get_statistics()

    assert sent.bytes_sent > 1000
    assert sent.bytes_sent >= received.bytes_received > 1000
    assert (sent.streams, received.streams) == (1, 1)
    assert sent.round_trip is not None
    assert sent.waiting_for == "application"


# Streams


async def test_streams_are_accepted_in_the_order_in_which_they_were_opened(sessions: Sessions) -> None:
    near, far = sessions
    for number in range(5):
        await near.open_stream(str(number))

    assert [(await far.accept_stream()).label for _ in range(5)] == ["0", "1", "2", "3", "4"]


async def test_both_sides_open_streams(sessions: Sessions) -> None:
    near, far = sessions

    mine, theirs = await near.open_stream("mine"), await far.open_stream("theirs")

    assert (mine.stream_id, theirs.stream_id) == (1, 2)
    assert (await near.accept_stream()).label == "theirs"
    assert (await far.accept_stream()).label == "mine"


async def test_who_waits_for_streams_shares_them(sessions: Sessions) -> None:
    near, far = sessions
    waiting = [asyncio.create_task(far.accept_stream()) for _ in range(3)]
    await asyncio.sleep(0)

    for number in range(3):
        await near.open_stream(str(number))

    assert {(await each).label for each in waiting} == {"0", "1", "2"}


async def test_who_stops_waiting_takes_no_stream_away(sessions: Sessions) -> None:
    near, far = sessions
    waiting = await begun(far.accept_stream())

    waiting.cancel()
    await near.open_stream("kept")
    await asyncio.wait([waiting])

    assert (await far.accept_stream()).label == "kept"


async def test_opening_waits_while_the_peer_has_too_many_streams(few_streams: Sessions) -> None:
    near, far = few_streams
    opened = [await near.open_stream() for _ in range(STREAMS)]
    waiting = [await begun(near.open_stream(str(number))) for number in range(2)]

    for _ in range(2):
        await end_both(opened.pop(0), far)

    assert {(await each).label for each in waiting} == {"0", "1"}


async def end_both(stream: STTStream, far: STTSession) -> None:
    stream.end()
    other = await far.accept_stream()
    assert await other.receive() == b""
    other.end()
    assert await stream.receive() == b""


async def test_opening_that_is_cancelled_opens_nothing(few_streams: Sessions) -> None:
    near, far = few_streams
    opened = [await near.open_stream(str(number)) for number in range(STREAMS)]
    waiting = await begun(near.open_stream("never"))

    waiting.cancel()
    await asyncio.wait([waiting])
    await end_both(opened[0], far)
    await near.open_stream("next")

    labels = [(await far.accept_stream()).label for _ in range(STREAMS)]
    assert labels == ["1", "2", "3", "next"]


async def test_opening_ends_with_the_session(few_streams: Sessions) -> None:
    near, far = few_streams
    for _ in range(STREAMS):
        await near.open_stream()
    waiting = await begun(near.open_stream())

    far.close(ENDED)

    with pytest.raises(SessionClosed) as caught:
        await waiting
    assert caught.value.code == ENDED


@pytest.mark.parametrize("priority", [-1, 8])
async def test_a_priority_is_from_0_to_7(sessions: Sessions, priority: int) -> None:
    with pytest.raises(LocalError):
        await sessions[0].open_stream(priority=priority)


async def test_what_is_said_of_a_stream_has_to_fit_and_be_a_value(sessions: Sessions) -> None:
    near, far = sessions

    with pytest.raises(LocalError):
        await near.open_stream("a" * 1100)
    with pytest.raises(SerializationError):
        await near.open_stream(metadata=object())
    await near.open_stream("good")

    assert (await far.accept_stream()).label == "good"


async def test_streams_that_came_before_the_end_are_still_accepted(sessions: Sessions) -> None:
    near, far = sessions
    stream = await near.open_stream("last")
    await stream.send(b"words")
    await near.ping()
    near.close()
    await far.wait_closed()

    accepted = await far.accept_stream()

    assert accepted.label == "last"
    assert await accepted.receive() == b"words"
    with pytest.raises(SessionClosed):
        await far.accept_stream()


async def test_iterating_over_streams_ends_with_the_session(sessions: Sessions) -> None:
    near, far = sessions
    for number in range(2):
        await near.open_stream(str(number))
    await near.ping()

    near.close()

    assert [stream.label async for stream in far.streams()] == ["0", "1"]


async def test_streams_that_are_over_before_anybody_accepts_them_are_forgotten(few_streams: Sessions) -> None:
    near, far = few_streams
    for _ in range(8 * STREAMS):
        stream = await near.open_stream("gone")
        stream.reset(ENDED)
        stream.stop(ENDED)
    await near.ping()

    stream = await near.open_stream("here")

    assert far.get_statistics().streams <= STREAMS
    accepted = await far.accept_stream()
    while accepted.label == "gone":
        accepted = await far.accept_stream()
    assert accepted.stream_id == stream.stream_id


# Datagrams


async def test_datagrams_come_whole(sessions: Sessions) -> None:
    near, far = sessions
    most = near.max_datagram_payload

    for data in (b"", b"one", bytearray(b"two"), bytes(most)):
        near.send_datagram(data)

    assert [await far.receive_datagram() for _ in range(4)] == [b"", b"one", b"two", bytes(most)]


async def test_a_datagram_has_to_fit(sessions: Sessions) -> None:
    near, _ = sessions

    with pytest.raises(LocalError, match="datagram"):
        near.send_datagram(bytes(near.max_datagram_payload + 1))


async def test_datagrams_that_nobody_receives_give_way_to_newer_ones_and_are_counted(few_streams: Sessions) -> None:
    near, far = few_streams
    for number in range(5):
        near.send_datagram(bytes([number]))
        await near.ping()

    assert [await far.receive_datagram() for _ in range(3)] == [b"\2", b"\3", b"\4"]
    assert far.get_statistics().datagrams_dropped == 2
    assert near.get_statistics().datagrams_dropped == 0


async def test_datagrams_that_came_before_the_end_are_still_received(sessions: Sessions) -> None:
    near, far = sessions
    near.send_datagram(b"last")
    await near.ping()
    near.close()
    await far.wait_closed()

    assert await far.receive_datagram() == b"last"
    with pytest.raises(SessionClosed):
        await far.receive_datagram()
    with pytest.raises(SessionClosed):
        far.send_datagram(b"answer")


async def test_who_waits_for_a_datagram_learns_of_the_end(sessions: Sessions) -> None:
    near, far = sessions
    waiting = [await begun(far.receive_datagram()) for _ in range(2)]

    near.close(ENDED)

    for each in waiting:
        with pytest.raises(SessionClosed):
            await each


# Pings


async def test_a_ping_tells_how_long_the_way_is(sessions: Sessions) -> None:
    near, far = sessions

    times = await asyncio.gather(*(session.ping() for session in (near, far) for _ in range(5)))

    assert all(0 < each < 5 for each in times)


async def test_a_ping_that_is_not_answered_in_time_says_so(sessions: Sessions) -> None:
    with pytest.raises(RequestTimeout, match="no answer to a ping within 0 s"):
        await sessions[0].ping(timeout=0)

    assert await sessions[0].ping() > 0


async def test_a_ping_ends_with_the_session(sessions: Sessions) -> None:
    near, _ = sessions
    waiting = asyncio.create_task(near.ping())
    await asyncio.sleep(0)

    near.close(ENDED)

    with pytest.raises(SessionClosed) as caught:
        await waiting
    assert caught.value.code == ENDED
    with pytest.raises(SessionClosed):
        await near.ping()


async def test_a_ping_that_is_cancelled_as_the_session_ends_leaves_no_error_unseen(sessions: Sessions) -> None:
    near, _ = sessions
    waiting = asyncio.create_task(near.ping())
    await asyncio.sleep(0)

    near.close()
    closed = asyncio.create_task(near.wait_closed())
    await closed
    waiting.cancel()
    await asyncio.wait([waiting])

    # The fixture fails the test if an exception was never retrieved.


# The end


async def test_both_ends_learn_how_a_session_ended(sessions: Sessions) -> None:
    near, far = sessions
    waiting = asyncio.create_task(far.wait_closed())
    assert not near.closed

    near.close(ENDED, "enough")

    here, there = await near.wait_closed(), await waiting
    assert near.closed
    assert far.closed
    assert (here.code, here.reason, here.by_peer) == (ENDED, "enough", False)
    assert (there.code, there.reason, there.by_peer) == (ENDED, "enough", True)
    assert (await near.wait_closed()).code == ENDED


async def test_closing_twice_keeps_the_first_reason(sessions: Sessions) -> None:
    near, far = sessions

    near.close(ENDED, "first")
    near.close(ErrorCode.INTERNAL, "second")

    assert (await near.wait_closed()).reason == "first"
    assert (await far.wait_closed()).reason == "first"


async def test_both_ends_may_close_at_once(sessions: Sessions) -> None:
    near, far = sessions

    near.close(ENDED, "here")
    far.close(ENDED, "there")

    assert (await near.wait_closed()).reason == "here"
    assert (await far.wait_closed()).reason == "there"


@pytest.mark.parametrize(("code", "reason"), [(0, "x" * 257), (-1, ""), (1 << 64, ""), (0, "\ud800")])
async def test_a_reason_that_cannot_be_told_changes_nothing(sessions: Sessions, code: int, reason: str) -> None:
    near, _ = sessions

    with pytest.raises(LocalError):
        near.close(code, reason)

    assert not near.closed
    assert await near.ping() > 0


async def test_nothing_works_behind_the_end(sessions: Sessions) -> None:
    near, _ = sessions
    near.close()
    await near.wait_closed()

    for use in (near.open_stream(), near.accept_stream(), near.ping(), near.receive_datagram()):
        with pytest.raises(SessionClosed):
            await use
    with pytest.raises(SessionClosed):
        near.rotate_keys()
    assert [stream async for stream in near.streams()] == []
    near.get_statistics()


async def test_keys_rotate_while_bytes_flow(sessions: Sessions) -> None:
    near, far = sessions
    stream = await near.open_stream()

    for number in range(5):
        near.rotate_keys()
        await stream.send(bytes([number]))
        await near.ping()
    stream.end()

    assert b"".join([chunk async for chunk in await far.accept_stream()]) == bytes(range(5))
    assert near.get_statistics().send_epoch == far.get_statistics().receive_epoch > 0


# Memory


async def test_a_session_that_ended_is_let_go_while_others_go_on(make_node: Callable[..., STTNode]) -> None:
    listener, dialler = make_node(), make_node()
    (url,) = await listener.listen(f"memory://{secrets.token_hex(8)}")

    async def use() -> list[weakref.ref[STTSession]]:
        near = await dialler.connect(url)
        far = await anext(listener.sessions())
        stream = await near.open_stream()
        await stream.send(b"hello")
        assert await (await far.accept_stream()).receive() == b"hello"
        near.close()
        await far.wait_closed()
        return [weakref.ref(near), weakref.ref(far)]

    other = await dialler.connect(url)
    await anext(listener.sessions())
    ended = await use()
    await other.ping()
    gc.collect()

    assert [reference() for reference in ended] == [None, None]
    assert dialler.get_statistics().sessions == listener.get_statistics().sessions == 1
