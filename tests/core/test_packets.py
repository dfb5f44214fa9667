"""Are packets of many sessions read in turns, and is nothing kept that nobody will read?"""

from __future__ import annotations

import asyncio

import pytest

from stt_core import LocalError, STTSession
from stt_core.packets import PacketReader, ReceivedPacket

pytestmark = pytest.mark.asyncio

Sessions = tuple[STTSession, STTSession]


@pytest.fixture
def packets(sessions: Sessions) -> PacketReader:
    """What comes at the second end of a session."""
    reader = PacketReader()
    sessions[1].tell_packets(reader.readable)
    return reader


async def test_a_packet_says_where_it_is_from(sessions: Sessions, packets: PacketReader) -> None:
    near, _ = sessions
    stream = await near.open_stream()

    await stream.send(b"hello")

    assert await anext(packets) == ReceivedPacket(near.session_id, stream.stream_id, b"hello")


async def test_streams_of_a_session_take_turns(sessions: Sessions, packets: PacketReader) -> None:
    near, _ = sessions
    for byte in (b"a", b"b"):
        stream = await near.open_stream()
        await stream.send(byte * (2 << 20))
    await near.ping()

    first, second = await anext(packets), await anext(packets)

    assert {first.data[:1], second.data[:1]} == {b"a", b"b"}
    assert len(first.data) <= 1 << 20


async def test_a_stream_that_is_accepted_first_is_not_read(sessions: Sessions, packets: PacketReader) -> None:
    near, far = sessions
    stream = await near.open_stream()
    await stream.send(b"hello")
    await near.ping()

    accepted = await far.accept_stream()
    packets.end()

    assert [packet async for packet in packets] == []
    assert await accepted.receive() == b"hello"


async def test_a_stream_that_was_read_is_not_accepted_any_more(sessions: Sessions, packets: PacketReader) -> None:
    near, far = sessions
    await (await near.open_stream("first")).send(b"a packet")
    assert (await anext(packets)).data == b"a packet"

    await near.open_stream("second")

    assert (await far.accept_stream()).label == "second"


async def test_the_iteration_ends_once_all_was_read(sessions: Sessions, packets: PacketReader) -> None:
    near, _ = sessions
    await (await near.open_stream()).send(b"hello")
    await near.ping()

    packets.end()

    assert [packet.data async for packet in packets] == [b"hello"]


async def test_who_waits_learns_of_the_end(packets: PacketReader) -> None:
    waiting = asyncio.create_task(_all(packets))
    await asyncio.sleep(0)

    packets.end()

    assert await waiting == []


async def _all(packets: PacketReader) -> list[ReceivedPacket]:
    return [packet async for packet in packets]


async def test_a_second_reader_is_refused_and_the_first_goes_on(sessions: Sessions, packets: PacketReader) -> None:
    near, _ = sessions
    waiting = asyncio.create_task(_all(packets))
    await asyncio.sleep(0)

    with pytest.raises(LocalError, match="has a reader"):
        await anext(packets)
    await (await near.open_stream()).send(b"hello")
    await near.ping()
    packets.end()

    assert [packet.data for packet in await waiting] == [b"hello"]


async def test_a_reader_that_is_cancelled_loses_nothing(sessions: Sessions, packets: PacketReader) -> None:
    near, _ = sessions
    waiting = asyncio.create_task(_all(packets))
    await asyncio.sleep(0)

    waiting.cancel()
    await asyncio.wait([waiting])
    await (await near.open_stream()).send(b"hello")

    assert (await anext(packets)).data == b"hello"


async def test_a_session_that_is_dropped_is_not_read(sessions: Sessions, packets: PacketReader) -> None:
    near, far = sessions
    await (await near.open_stream()).send(b"hello")
    await near.ping()
    assert packets.has(far)

    packets.drop(far)
    packets.end()

    assert not packets.has(far)
    assert [packet async for packet in packets] == []


async def test_a_stream_that_was_read_to_its_end_is_ended(sessions: Sessions, packets: PacketReader) -> None:
    near, far = sessions
    assert not packets.has(far)

    stream = await near.open_stream()
    await stream.send(b"hello")
    assert (await anext(packets)).data == b"hello"
    stream.end()
    await near.ping()
    packets.end()

    assert [packet async for packet in packets] == []
    assert not packets.has(far)
    assert await stream.receive() == b"", "the stream was ended from the other side"
