"""Does the encoder cut any source into segments, keep to its credit, and never use a nonce twice?"""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_core import LocalError
from stt_streaming.decoder import BinaryStreamDecoder
from stt_streaming.encoder import BinaryStreamEncoder
from stt_streaming.segments import MAX_SEGMENT_SIZE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from stt_streaming.segments import Segment

IDS: dict[str, Any] = {"key": bytes(range(32)), "session_id": b"12345678", "stream_id": 1}


async def iterate(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def segments_of(encoder: BinaryStreamEncoder, source: Any) -> list[Segment]:
    return [segment async for segment in encoder.send(source)]


@given(st.lists(st.binary(max_size=20)), st.integers(1, 25))
def test_segments_are_filled_numbered_and_ended(chunks: list[bytes], segment_size: int) -> None:
    encoder = BinaryStreamEncoder(**IDS, segment_size=segment_size)
    decoder = BinaryStreamDecoder(**IDS)
    size = len(b"".join(chunks))

    segments = asyncio.run(segments_of(encoder, iterate(chunks)))

    assert [segment.sequence for segment in segments] == list(range(len(segments)))
    assert [segment.final for segment in segments] == [False] * (len(segments) - 1) + [True]
    assert [segment.size for segment in segments[:-1]] == [segment_size] * (len(segments) - 1)
    assert len(segments) == max(-(-size // segment_size), 1)
    assert b"".join(itertools.chain(*(decoder.feed(segment.data) for segment in segments))) == b"".join(chunks)


def test_what_is_in_memory_is_not_copied_to_be_cut() -> None:
    # An exported buffer cannot be resized: so the encoder holds the memory itself, and lets go of it.
    memory = bytearray(100)

    async def main() -> None:
        sending = BinaryStreamEncoder(**IDS, segment_size=10).send(memory)
        await anext(sending)
        with pytest.raises(BufferError):
            memory.append(1)
        await sending.aclose()  # type: ignore[attr-defined]  # it is a generator

    asyncio.run(main())


def test_a_bounded_stream_waits_for_credit() -> None:
    async def main() -> None:
        encoder = BinaryStreamEncoder(**IDS, segment_size=1, credit=2)
        sent: list[int] = []

        async def send() -> None:
            async for segment in encoder.send(b"abcde"):
                sent.append(segment.sequence)  # noqa: PERF401  looked at while it grows

        sending = asyncio.create_task(send())
        for _ in range(20):
            await asyncio.sleep(0)
        assert sent == [0, 1]
        encoder.grant(1)  # an older word, which takes nothing back
        encoder.grant(4)
        for _ in range(20):
            await asyncio.sleep(0)
        assert sent == [0, 1, 2, 3]
        encoder.grant(5)
        await sending
        assert sent == [0, 1, 2, 3, 4]
        assert encoder.dropped == 0

    asyncio.run(main())


def test_a_live_stream_sends_each_chunk_at_once_and_drops_what_has_no_credit() -> None:
    async def main() -> None:
        encoder = BinaryStreamEncoder(**IDS, live=True, credit=2)
        decoder = BinaryStreamDecoder(**IDS, live=True)
        had: list[bytes] = []

        async def source() -> AsyncIterator[bytes]:
            for number in range(4):
                yield b"%d" % number
            assert had == [b"0", b"1"]
            assert encoder.dropped == 2
            encoder.grant(10)
            yield b"4"

        async for segment in encoder.send(source()):
            had += decoder.feed(segment.data)
        assert had == [b"0", b"1", b"4"]
        assert decoder.complete
        assert decoder.lost == 0

    asyncio.run(main())


def test_an_encoder_takes_one_source_only() -> None:
    async def main() -> None:
        encoder = BinaryStreamEncoder(**IDS)
        await anext(encoder.send(b"a"))
        with pytest.raises(LocalError, match="one stream"):
            await anext(encoder.send(b"b"))

    asyncio.run(main())


@pytest.mark.parametrize("size", [0, MAX_SEGMENT_SIZE + 1])
def test_a_segment_size_out_of_range_is_refused(size: int) -> None:
    with pytest.raises(LocalError, match="1 to 1048576"):
        BinaryStreamEncoder(**IDS, segment_size=size)


def test_the_largest_segment_goes_through() -> None:
    data = bytes(MAX_SEGMENT_SIZE)
    encoder = BinaryStreamEncoder(**IDS, segment_size=MAX_SEGMENT_SIZE)

    [segment] = asyncio.run(segments_of(encoder, data))

    assert BinaryStreamDecoder(**IDS).feed(segment.data) == [data]


def test_only_an_encoder_over_a_stream_transmits() -> None:
    with pytest.raises(LocalError, match="over no stream"):
        asyncio.run(BinaryStreamEncoder(**IDS).transmit(b"a"))
