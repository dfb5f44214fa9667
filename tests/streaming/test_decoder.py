"""Does the decoder give back exactly the stream, or an error, whatever happens to the segments on their way?"""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from stt_core import LocalError, StreamClosed, STTNode
from stt_streaming.decoder import BinaryStreamDecoder
from stt_streaming.encoder import BinaryStreamEncoder
from stt_streaming.segments import SegmentCipher, SegmentError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from stt_core import STTSession

IDS: dict[str, Any] = {"key": bytes(range(32)), "session_id": b"12345678", "stream_id": 1}
PARTS = [b"%d" % number for number in range(8)]
CIPHER = SegmentCipher(**IDS)
SEALED = [CIPHER.seal(number, part, final=number == len(PARTS) - 1) for number, part in enumerate(PARTS)]


async def iterate(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def decode(chunks: Iterable[bytes], **options: Any) -> bytes:
    sink = bytearray()
    await BinaryStreamDecoder(**IDS, **options).write(sink, iterate(chunks))
    return bytes(sink)


# What arrives


@given(st.permutations(SEALED))
def test_any_order_within_the_window_gives_the_stream(segments: list[bytes]) -> None:
    assert asyncio.run(decode(segments)) == b"".join(PARTS)


@given(st.lists(st.integers(0, sum(map(len, SEALED))), max_size=20).map(sorted))
def test_segments_may_be_cut_and_joined_in_any_way(cuts: list[int]) -> None:
    whole = b"".join(SEALED)
    bounds = [0, *cuts, len(whole)]

    chunks = [whole[start:end] for start, end in itertools.pairwise(bounds)]

    assert asyncio.run(decode(chunks)) == b"".join(PARTS)


@given(st.data())
def test_whatever_happens_on_the_way_no_byte_is_another(data: st.DataObject) -> None:
    """Left out, repeated, moved, changed in a bit, or taken from another stream: what comes out is a prefix, or all."""
    other = SegmentCipher(IDS["key"], session_id=IDS["session_id"], stream_id=2)
    strangers = [other.seal(number, b"x", final=False) for number in range(3)]
    sent: list[bytes] = data.draw(st.lists(st.sampled_from([*SEALED, *strangers]), max_size=12))
    if sent:
        place = data.draw(st.integers(0, len(sent) - 1))
        bit = data.draw(st.integers(0, 8 * len(sent[place]) - 1))
        changed = bytearray(sent[place])
        changed[bit // 8] ^= 1 << bit % 8
        sent[place] = bytes(changed)
    decoder = BinaryStreamDecoder(**IDS, window=data.draw(st.integers(1, 10)))
    had = b""

    for segment in sent:
        try:
            had += b"".join(decoder.feed(segment))
        except SegmentError:
            continue

    assert b"".join(PARTS).startswith(had)
    assert decoder.complete is (had == b"".join(PARTS))


def test_what_came_before_a_bad_segment_is_had_however_they_are_joined() -> None:
    sink = bytearray()

    with pytest.raises(SegmentError, match="came before"):
        asyncio.run(BinaryStreamDecoder(**IDS).write(sink, iterate([b"".join((*SEALED[:3], SEALED[0]))])))

    assert sink == b"".join(PARTS[:3])


# What is refused


@pytest.mark.parametrize("count", range(len(SEALED)))
def test_a_stream_that_is_cut_off_is_an_error(count: int) -> None:
    with pytest.raises(SegmentError, match=f"cut off: segment {count} is missing"):
        asyncio.run(decode(SEALED[:count]))


def test_a_stream_that_is_cut_off_within_a_segment_is_an_error() -> None:
    with pytest.raises(SegmentError, match="cut off"):
        asyncio.run(decode([b"".join(SEALED)[:-1]]))


def test_bytes_behind_the_last_segment_are_an_error() -> None:
    with pytest.raises(SegmentError, match="follow"):
        asyncio.run(decode([b"".join(SEALED) + b"\0"]))


@pytest.mark.parametrize("place", range(1, len(SEALED)))
def test_a_repeated_segment_is_an_error(place: int) -> None:
    with pytest.raises(SegmentError, match="came before"):
        asyncio.run(decode([*SEALED[:place], SEALED[place - 1]]))


def test_a_segment_that_waits_for_others_may_not_come_twice_either() -> None:
    with pytest.raises(SegmentError, match="came before"):
        asyncio.run(decode([SEALED[2], SEALED[2]]))


def test_what_is_further_ahead_than_the_window_is_an_error() -> None:
    decoder = BinaryStreamDecoder(**IDS, window=3)

    with pytest.raises(SegmentError, match="too far ahead"):
        decoder.feed(SEALED[3])

    assert decoder.feed(SEALED[2]) == []
    assert decoder.credit == 3
    assert decoder.feed(SEALED[0]) == [b"0"]
    assert decoder.credit == 4
    assert decoder.feed(SEALED[1]) == [b"1", b"2"]
    assert decoder.credit == 6


def test_nothing_comes_behind_the_last_segment() -> None:
    decoder = BinaryStreamDecoder(**IDS)
    decoder.feed(CIPHER.seal(2, b"last", final=True))

    for segment in (CIPHER.seal(3, b"more", final=False), CIPHER.seal(1, b"last", final=True)):
        with pytest.raises(SegmentError, match="behind the last one"):
            decoder.feed(segment)


def test_the_last_segment_is_not_before_one_that_is_there() -> None:
    decoder = BinaryStreamDecoder(**IDS)
    decoder.feed(CIPHER.seal(2, b"more", final=False))

    with pytest.raises(SegmentError, match="claims to be the last"):
        decoder.feed(CIPHER.seal(1, b"last", final=True))


def test_a_window_that_holds_nothing_is_refused() -> None:
    with pytest.raises(LocalError, match="at least one"):
        BinaryStreamDecoder(**IDS, window=0)


def test_a_decoder_over_no_stream_is_told_where_segments_come_from() -> None:
    with pytest.raises(LocalError, match="name what brings"):
        asyncio.run(BinaryStreamDecoder(**IDS).write(bytearray()))


# Live


@given(st.lists(st.sampled_from(range(len(SEALED)))))
def test_live_segments_come_at_once_in_rising_order_and_the_rest_is_counted(order: list[int]) -> None:
    decoder = BinaryStreamDecoder(**IDS, live=True)
    had: list[int] = []

    for number in order:
        had += map(int, decoder.feed(SEALED[number]))

    assert had == [number for place, number in enumerate(order) if number > max(order[:place], default=-1)]
    assert decoder.late == len(order) - len(had)
    assert decoder.lost == max(order, default=-1) + 1 - len(had)
    assert decoder.complete is (len(PARTS) - 1 in order)


# Over a session's stream


@pytest_asyncio.fixture
async def sessions() -> AsyncIterator[tuple[STTSession, STTSession]]:
    nodes = [STTNode(node_seed=bytes([number]) * 32, shared_seed=bytes(32)) for number in (1, 2)]
    async with nodes[0], nodes[1]:
        [url] = await nodes[1].listen("memory://decoder")
        here = await nodes[0].connect(url)
        there = await anext(nodes[1].sessions())
        yield here, there


@pytest.mark.asyncio
@pytest.mark.parametrize("live", [False, True])
async def test_over_a_session_segments_are_not_sealed_twice(
    sessions: tuple[STTSession, STTSession], *, live: bool
) -> None:
    data = bytes(range(256)) * 4096
    stream = await sessions[0].open_stream()
    sending = asyncio.create_task(BinaryStreamEncoder(stream=stream, live=live).transmit(data))
    received = await sessions[1].accept_stream()
    sink = bytearray()

    size = await BinaryStreamDecoder(stream=received).write(sink)

    assert (await sending, size, bytes(sink)) == (len(data), len(data), data)


@pytest.mark.asyncio
async def test_a_session_stream_that_ends_early_is_an_error(sessions: tuple[STTSession, STTSession]) -> None:
    stream = await sessions[0].open_stream()
    async for segment in BinaryStreamEncoder(stream=stream, segment_size=1).send(b"ab"):
        await stream.send(segment.data)
        break
    stream.end()
    received = await sessions[1].accept_stream()

    with pytest.raises(SegmentError, match="cut off"):
        await BinaryStreamDecoder(stream=received).write(bytearray())


@pytest.mark.asyncio
async def test_a_source_that_fails_resets_the_stream(sessions: tuple[STTSession, STTSession]) -> None:
    async def source() -> AsyncIterator[bytes]:
        yield bytes(100_000)
        raise OSError("unplugged")

    stream = await sessions[0].open_stream()
    sending = asyncio.create_task(BinaryStreamEncoder(stream=stream).transmit(source()))
    received = await sessions[1].accept_stream()

    with pytest.raises(StreamClosed):
        await BinaryStreamDecoder(stream=received).write(bytearray())
    with pytest.raises(OSError, match="unplugged"):
        await sending


@pytest.mark.asyncio
async def test_a_sealed_segment_over_a_session_is_refused_and_a_plain_one_elsewhere(
    sessions: tuple[STTSession, STTSession],
) -> None:
    stream = await sessions[0].open_stream()
    plain = [segment.data async for segment in BinaryStreamEncoder(stream=stream).send(b"a")]

    with pytest.raises(SegmentError, match="is sealed"):
        BinaryStreamDecoder(stream=stream).feed(SEALED[0])
    with pytest.raises(SegmentError, match="is not sealed"):
        BinaryStreamDecoder(**IDS).feed(plain[0])
