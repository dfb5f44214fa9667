from __future__ import annotations

import os
import random
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from stt_core.engine.streams import ReceiveHalf, SendHalf, Stream, Streams
from stt_core.errors import ErrorCode, LocalError, RemoteError, StreamClosed
from stt_core.wire.messages import CloseKind

if TYPE_CHECKING:
    from collections.abc import Iterable

ANY = 1 << 40  # more credit than anything here needs
MIB = 1024 * 1024
NOISE = random.Random(1).randbytes(MIB)


def send_half(*writes: bytes | memoryview, limit: int = ANY, buffer_size: int = ANY) -> SendHalf:
    half = SendHalf(limit, buffer_size)
    for data in writes:
        assert half.write(data)
    return half


def take(half: SendHalf, size: int = ANY, session_left: int = ANY) -> tuple[int, bytes]:
    offset, data = take_view(half, size, session_left)
    return offset, bytes(data)


def take_view(half: SendHalf, size: int = ANY, session_left: int = ANY) -> tuple[int, bytes | memoryview]:
    offset, run, _ = half.peek(size, session_left)
    data = run[:size]
    half.take(offset, offset + len(data))
    return offset, data


def receive_half(*segments: tuple[int, bytes], window: int = ANY) -> ReceiveHalf:
    half = ReceiveHalf(window)
    for offset, data in segments:
        half.receive(offset, memoryview(data))
    return half


# Both halves together


class Pipe(RuleBasedStateMachine):
    """What is written is read, whatever the network does to the segments between."""

    WINDOW = 120_000
    BUFFER = 70_000

    def __init__(self) -> None:
        super().__init__()
        self.sending = SendHalf(self.WINDOW, self.BUFFER)
        self.receiving = ReceiveHalf(self.WINDOW)
        self.written = bytearray()
        self.read_back = bytearray()
        self.under_way: list[tuple[int, int]] = []
        self.arrived: list[tuple[int, int]] = []
        self.grown = 0
        self.refused = False

    @precondition(lambda self: not self.sending.ended)
    @rule(size=st.one_of(st.integers(0, 200), st.integers(1, 40_000)), count=st.integers(1, 20))
    def write(self, size: int, count: int) -> None:
        for _ in range(count):
            data = NOISE[len(self.written) : len(self.written) + size]
            if not self.sending.write(data):
                self.refused = True
                break
            self.written += data

    @precondition(lambda self: self.sending.sendable(ANY))
    @rule(size=st.one_of(st.integers(1, 2_000), st.integers(1, 30_000)), count=st.integers(1, 10))
    def send(self, size: int, count: int) -> None:
        for _ in range(count):
            if not self.sending.sendable(ANY):
                break
            start, data = take(self.sending, size)
            assert 0 < len(data) <= size
            assert data == self.written[start : start + len(data)]
            self.under_way.append((start, start + len(data)))

    @precondition(lambda self: self.under_way)
    @rule(choice=st.integers(0, 1_000), duplicates=st.booleans())
    def deliver(self, choice: int, *, duplicates: bool) -> None:
        segment = self.under_way[choice % len(self.under_way)]
        if not duplicates:
            self.under_way.remove(segment)
        self.arrived.append(segment)
        self._receive(*segment)

    @precondition(lambda self: self.sending.sent)
    @rule(first=st.integers(0, 1 << 30), second=st.integers(0, 1 << 30))
    def deliver_cut_anew(self, first: int, second: int) -> None:
        first, second = first % (self.sending.sent + 1), second % (self.sending.sent + 1)
        self._receive(min(first, second), max(first, second))

    @precondition(lambda self: self.arrived)
    @rule(choice=st.integers(0, 1_000))
    def acknowledge(self, choice: int) -> None:
        self.sending.acknowledged(*self.arrived.pop(choice % len(self.arrived)))

    @precondition(lambda self: self.under_way or self.arrived)
    @rule(choice=st.integers(0, 1_000), spurious=st.booleans())
    def lose(self, choice: int, *, spurious: bool) -> None:
        segments = self.under_way or self.arrived
        segment = segments[choice % len(segments)]
        if not spurious:
            segments.remove(segment)
        self.sending.lost(*segment)

    @rule(size=st.integers(0, 50_000))
    def read(self, size: int) -> None:
        data = self.receiving.read(size)
        assert len(data) <= size
        self.read_back += data
        if self.receiving.credit.update_due:
            self.sending.credit.raise_to(self.receiving.credit.renew())

    @precondition(lambda self: self.refused)
    @rule()
    def learn_of_room(self) -> None:
        if self.sending.became_writable():
            self.refused = False
            assert not self.sending.became_writable()

    @invariant()
    def is_consistent(self) -> None:
        assert self.read_back == self.written[: len(self.read_back)]
        assert self.grown == self.receiving.credit.received
        assert self.receiving.credit.consumed == len(self.read_back)
        assert len(self.read_back) <= self.receiving.next <= self.sending.sent <= len(self.written)

    def teardown(self) -> None:
        """Let a network that loses nothing more do the rest."""
        assert self.sending.end()
        assert self.sending.became_writable() == self.refused
        assert self.sending.final_size == len(self.written)
        for segment in self.under_way + self.arrived:
            self.sending.lost(*segment)
        while self.sending.sendable(ANY):
            start, data = take(self.sending, 30_000)
            assert data == self.written[start : start + len(data)]
            self._receive(start, start + len(data))
            self.sending.acknowledged(start, start + len(data))
            self.read(1 << 20)
        self.read(1 << 20)

        assert self.sending.all_sent
        self.receiving.end(len(self.written))
        self.sending.end_acknowledged = True
        assert self.read_back == self.written
        assert self.sending.delivered
        assert self.receiving.at_end
        assert self.receiving.finished

    def _receive(self, start: int, stop: int) -> None:
        self.grown += self.receiving.receive(start, memoryview(bytes(self.written[start:stop])))


TestPipe = Pipe.TestCase
TestPipe.settings = settings(max_examples=80, stateful_step_count=60)


# Sending


def test_small_writes_leave_as_one_segment() -> None:
    half = send_half(b"ab", b"", b"cd", b"e")

    assert take(half) == (0, b"abcde")


def test_a_single_small_write_is_sent_as_it_is() -> None:
    data = b"whole"

    _, taken = take_view(send_half(data), 100)

    assert isinstance(taken, memoryview)
    assert taken.obj is data


def test_a_large_write_is_never_copied() -> None:
    half = send_half(NOISE)

    _, first = take_view(half, 1000)
    _, second = take_view(half, 1000)

    for taken in (first, second):
        assert isinstance(taken, memoryview)
        assert taken.obj is NOISE


def test_a_segment_may_span_writes() -> None:
    large = NOISE[:20_000]
    half = send_half(b"small", large, b"more", large, b"last")
    whole = b"small" + large + b"more" + large + b"last"

    taken = b""
    while half.sendable(ANY):
        offset, data = take(half, 7_001)
        assert offset == len(taken)
        taken += data

    assert taken == whole
    assert half.all_sent
    assert half.sent == len(whole)


def test_a_view_can_be_written_too() -> None:
    half = send_half(memoryview(b"abcdef")[2:4], memoryview(b"xyz"))

    assert take(half) == (0, b"cdxyz")


@pytest.mark.parametrize(
    ("size", "limit", "session_left", "sent"),
    [(10, ANY, ANY, 10), (ANY, 7, ANY, 7), (ANY, ANY, 5, 5), (ANY, ANY, ANY, 100)],
    ids=["room", "stream credit", "session credit", "what is written"],
)
def test_a_segment_is_as_long_as_everything_allows(size: int, limit: int, session_left: int, sent: int) -> None:
    half = send_half(bytes(100), limit=limit)

    assert take(half, size, session_left) == (0, bytes(sent))
    assert half.sent == half.credit.used == sent


def test_without_credit_nothing_new_is_sent() -> None:
    half = send_half(bytes(100), limit=10)
    assert half.sendable(1)
    assert not half.sendable(0)
    assert half.starved(0)
    take(half)

    assert not half.sendable(ANY)
    assert half.starved(ANY)
    assert half.credit.raise_to(20)
    assert half.sendable(ANY)
    assert not half.starved(ANY)


def test_who_has_sent_everything_does_not_wait_for_credit() -> None:
    half = send_half(bytes(10))
    take(half)

    assert not half.sendable(ANY)
    assert not half.starved(0)


def test_lost_bytes_are_sent_first_and_without_credit() -> None:
    half = send_half(NOISE[:1000], limit=600)
    take(half, 300)
    take(half, 300)

    half.lost(100, 200)

    assert half.sendable(0)
    assert take(half, 60, 0) == (100, NOISE[100:160])
    assert take(half, 60, 0) == (160, NOISE[160:200])
    assert not half.sendable(ANY)


def test_what_arrived_after_all_is_not_sent_again() -> None:
    half = send_half(NOISE[:1000])
    take(half)
    half.lost(0, 1000)

    half.acknowledged(0, 200)
    half.acknowledged(500, 600)
    half.lost(550, 700)

    segments = []
    while half.sendable(ANY):
        offset, data = take(half)
        segments.append((offset, offset + len(data)))
    assert segments == [(200, 500), (600, 1000)]


def test_acknowledged_bytes_are_let_go_in_whatever_order() -> None:
    tracemalloc.start()
    half = SendHalf(ANY, ANY)
    for _ in range(16):
        half.write(os.urandom(64 * 1024))
    segments = []
    while half.sendable(ANY):
        offset, data = take_view(half, 10_000)
        segments.append((offset, offset + len(data)))
    del data
    full, _ = tracemalloc.get_traced_memory()
    random.Random(2).shuffle(segments)

    for segment in segments:
        half.acknowledged(*segment)
        half.acknowledged(*segment)

    emptied, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert full > MIB
    assert emptied < 32 * 1024
    half.write(b"more")
    assert take(half) == (MIB, b"more")


def test_a_full_buffer_takes_nothing_until_bytes_arrived() -> None:
    half = send_half(bytes(60), bytes(60), buffer_size=100)
    take(half)

    assert not half.write(b"x")
    assert not half.became_writable()
    half.acknowledged(50, 120)
    assert not half.became_writable()
    half.acknowledged(0, 21)

    assert half.became_writable()
    assert not half.became_writable()
    assert half.write(b"x")


def test_who_was_not_refused_is_not_told_of_room() -> None:
    half = send_half(bytes(100), buffer_size=100)
    take(half)

    half.acknowledged(0, 100)

    assert not half.became_writable()


def test_after_the_end_nothing_is_written() -> None:
    half = send_half(b"data")

    assert half.end()
    assert not half.end()

    assert half.ended
    assert half.final_size == 4
    with pytest.raises(StreamClosed) as caught:
        half.write(b"more")
    assert (caught.value.code, caught.value.by_peer) == (ErrorCode.NO_ERROR, False)


def test_a_half_is_delivered_once_its_bytes_and_its_end_arrived() -> None:
    half = send_half(b"data")
    half.end()
    take(half)

    half.end_acknowledged = True
    assert not half.delivered
    half.acknowledged(0, 4)
    assert half.delivered


@pytest.mark.parametrize("by_peer", [True, False])
def test_a_reset_gives_everything_up(*, by_peer: bool) -> None:
    half = send_half(bytes(20_000), b"small", buffer_size=20_001)
    take(half, 1000)
    take(half, 1000)
    half.acknowledged(1500, 2000)
    half.lost(0, 500)
    assert not half.write(b"refused")

    assert half.reset(300, by_peer=by_peer)

    assert half.became_writable()
    assert (half.reset_code, half.reset_by_peer, half.ended) == (300, by_peer, True)
    assert half.final_size == 2000
    assert half.all_sent
    assert not half.sendable(ANY)
    with pytest.raises(StreamClosed) as caught:
        half.write(b"more")
    assert (caught.value.code, caught.value.by_peer) == (300, by_peer)
    assert not half.reset(400, by_peer=not by_peer)
    assert half.reset_code == 300
    half.lost(0, 1000)
    half.acknowledged(0, 1000)
    assert not half.sendable(ANY)
    assert not half.delivered
    half.end_acknowledged = True
    assert half.delivered


def test_a_half_whose_end_arrived_before_its_bytes_can_still_be_reset() -> None:
    half = send_half(b"data")
    half.end()
    take(half)
    half.end_acknowledged = True
    half.lost(0, 4)

    assert half.reset(300, by_peer=False)

    assert not half.end_acknowledged  # the reset has to arrive, too
    assert not half.delivered
    assert not half.sendable(ANY)


def test_what_was_delivered_cannot_be_reset() -> None:
    half = send_half(b"data")
    half.end()
    take(half)
    half.acknowledged(0, 4)
    half.end_acknowledged = True

    assert not half.reset(300, by_peer=False)
    assert half.reset_code is None


# Receiving


def test_segments_in_order_are_read_in_order() -> None:
    half = receive_half((0, b"ab"), (2, NOISE[:2000]), (2002, b"c"), (2003, b"d"))

    assert half.readable
    assert half.next == 2004
    assert half.read(ANY) == b"ab" + NOISE[:2000] + b"cd"
    assert not half.readable
    assert half.read(ANY) == b""


def test_no_more_is_read_than_asked_for() -> None:
    half = receive_half((0, NOISE[:1000]), (1000, NOISE[1000:2500]), (2500, b"end"))
    sizes = [0, 1, 998, 700, 10, 10_000, 5]

    parts = [half.read(size) for size in sizes]

    assert [len(part) for part in parts] == [0, 1, 998, 700, 10, 794, 0]
    assert b"".join(parts) == NOISE[:2500] + b"end"
    assert half.credit.consumed == 2503


def test_bytes_behind_a_gap_wait_for_it() -> None:
    half = receive_half((5, b"fgh"), (10, b"klm"))
    assert not half.readable

    half.receive(0, memoryview(b"abcde"))
    assert half.read(ANY) == b"abcdefgh"

    half.receive(8, memoryview(b"ij"))
    assert half.read(ANY) == b"ijklm"


def test_segments_may_overlap_in_any_way() -> None:
    text = NOISE[:100]
    half = receive_half(
        (40, text[40:60]),
        (45, text[45:50]),  # within
        (30, text[30:45]),  # before and into
        (55, text[55:70]),  # in and behind
        (80, text[80:90]),
        (35, text[35:95]),  # over all of it
        (10, text[10:20]),
        (0, text[0:15]),
        (5, text[5:12]),  # old
        (12, text[12:40]),
    )

    assert half.next == 95
    assert half.read(ANY) == text[:95]


@settings(max_examples=60)
@given(
    st.integers(1, 6_000),
    st.lists(st.tuples(st.integers(0, 6_000), st.integers(0, 3_000)), max_size=60),
    st.integers(1, 5_000),
)
def test_any_cutting_gives_the_same_bytes(size: int, cuts: list[tuple[int, int]], read_size: int) -> None:
    half = ReceiveHalf(ANY)
    came: set[int] = set()
    read_back = b""

    for offset, length in [*cuts, (0, size)]:
        stop = min(offset + length, size)
        segment = NOISE[offset:stop]
        half.receive(min(offset, size), memoryview(segment))
        came.update(range(offset, stop))
        contiguous = next(number for number in range(size + 1) if number not in came)
        assert half.next == contiguous
        read_back += half.read(read_size)

    assert read_back + half.read(ANY) == NOISE[:size]


def test_a_segment_of_no_bytes_is_nothing_to_read() -> None:
    half = receive_half((0, b""))

    assert not half.readable
    assert half.next == 0


def test_each_byte_counts_once_against_credit() -> None:
    half = ReceiveHalf(1000)

    grown = [half.receive(offset, memoryview(bytes(size))) for offset, size in [(0, 10), (5, 10), (100, 50), (20, 30)]]

    assert grown == [10, 5, 135, 0]
    assert half.credit.received == 150


def test_bytes_beyond_the_credit_of_a_stream_are_refused() -> None:
    half = receive_half((0, bytes(600)), window=1000)

    with pytest.raises(RemoteError) as caught:
        half.receive(600, memoryview(bytes(401)))
    assert caught.value.code is ErrorCode.FLOW_CONTROL
    with pytest.raises(RemoteError) as caught:
        half.receive(1 << 63, memoryview(b""))
    assert caught.value.code is ErrorCode.FLOW_CONTROL

    assert half.receive(600, memoryview(bytes(400))) == 400


def test_the_end_is_told_once_everything_was_read() -> None:
    half = receive_half((0, b"abc"))

    assert half.end(5) == 2
    assert not half.at_end
    half.receive(3, memoryview(b"de"))
    assert half.readable
    assert not half.at_end
    assert not half.finished
    assert half.read(ANY) == b"abcde"

    assert half.at_end
    assert half.readable
    assert half.finished
    assert half.end(5) == 0


def test_an_empty_stream_ends() -> None:
    half = ReceiveHalf(1000)

    assert half.end(0) == 0

    assert half.at_end
    assert half.read(10) == b""


@pytest.mark.parametrize("final_size", [0, 9, 11])
def test_another_end_than_before_is_refused(final_size: int) -> None:
    half = receive_half((0, bytes(10)))
    half.end(10)

    with pytest.raises(RemoteError) as caught:
        half.end(final_size)
    assert caught.value.code is ErrorCode.STREAM


def test_an_end_before_bytes_that_came_is_refused() -> None:
    with pytest.raises(RemoteError) as caught:
        receive_half((5, b"x")).end(5)
    assert caught.value.code is ErrorCode.STREAM


def test_bytes_behind_the_end_are_refused() -> None:
    half = ReceiveHalf(1000)
    half.end(10)

    with pytest.raises(RemoteError) as caught:
        half.receive(5, memoryview(bytes(6)))
    assert caught.value.code is ErrorCode.STREAM
    assert half.receive(5, memoryview(bytes(5))) == 0


def test_an_end_beyond_the_credit_is_refused() -> None:
    with pytest.raises(RemoteError) as caught:
        ReceiveHalf(1000).end(1001)
    assert caught.value.code is ErrorCode.FLOW_CONTROL


def test_a_reset_drops_what_was_not_read_and_gives_its_credit_back() -> None:
    half = receive_half((0, bytes(100)), (200, bytes(100)))
    half.read(10)

    assert half.reset(300, 500) == 200

    assert half.reset_code == 300
    assert half.readable
    assert half.finished
    assert not half.at_end
    assert half.read(ANY) == b""
    assert half.credit.consumed == half.credit.received == 500
    assert half.receive(100, memoryview(bytes(100))) == 0
    assert half.read(ANY) == b""
    assert half.reset(400, 500) == 0
    assert half.reset_code == 300


def test_a_reset_of_unread_bytes_is_no_end() -> None:
    half = receive_half((0, b"all"))

    half.reset(300, 3)

    assert not half.at_end
    assert half.reset_code == 300


def test_a_reset_after_everything_was_read_changes_nothing() -> None:
    half = receive_half((0, b"all"))
    half.end(3)
    half.read(ANY)

    half.reset(300, 3)

    assert half.reset_code is None
    assert half.at_end


def test_a_reset_that_contradicts_what_came_is_refused() -> None:
    half = receive_half((0, bytes(100)))

    with pytest.raises(RemoteError) as caught:
        half.reset(300, 99)
    assert caught.value.code is ErrorCode.STREAM
    assert half.reset_code is None


def test_who_wants_no_more_drops_what_is_kept_and_what_comes() -> None:
    half = receive_half((0, bytes(100)), (200, bytes(100)))
    half.read(10)

    half.stop()

    assert half.stopped
    assert half.read(ANY) == b""
    assert not half.finished  # how much more comes is not known
    assert half.credit.consumed == 300
    assert half.receive(300, memoryview(bytes(50))) == 50
    assert half.credit.consumed == half.credit.received == 350
    assert half.end(400) == 50
    assert half.finished


# Bounds


def test_empty_segments_fill_no_memory() -> None:
    half = ReceiveHalf(MIB)
    empty = memoryview(b"")
    half.receive(MIB, empty)

    tracemalloc.start()
    for offset in range(1, 100_000, 2):
        half.receive(offset, empty)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert held < 1024
    assert half.receive(0, memoryview(NOISE)) == 0
    assert half.read(ANY) == NOISE


def held_by(segments: Iterable[tuple[int, memoryview]], window: int = ANY) -> int:
    """Return the bytes of memory that a half holds for segments of which it got its only copies."""
    half = ReceiveHalf(window)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for offset, data in segments:
        half.receive(offset, data)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return held - before


@pytest.mark.parametrize("first", [0, 1], ids=["in order", "behind a gap"])
def test_segments_that_bring_little_news_do_not_stay_in_memory(first: int) -> None:
    size, news = 64 * 1024, 600
    segments = ((first + index * news, memoryview(bytes(size))) for index in range(100))

    assert held_by(segments) < 3 * (size + 100 * news)


@pytest.mark.parametrize("first", [0, 1], ids=["in order", "behind a gap"])
def test_padding_does_not_stay_in_memory(first: int) -> None:
    segments = ((first + index * 600, memoryview(bytes(64 * 1024))[:600]) for index in range(100))

    assert held_by(segments) < 3 * 100 * 600


@pytest.mark.parametrize("first", [0, 1], ids=["in order", "behind a gap"])
def test_small_segments_cost_about_their_size(first: int) -> None:
    segments = ((first + index, memoryview(b"x")) for index in range(20_000))

    assert held_by(segments) < 3 * 20_000


def fill(half: ReceiveHalf, offsets: Iterable[int]) -> None:
    """Let a byte come at each of some offsets."""
    for offset in offsets:
        half.receive(offset, memoryview(b"x"))


def test_a_stream_cannot_be_cut_into_more_pieces_than_its_credit_is_worth() -> None:
    half = ReceiveHalf(8 * MIB)

    with pytest.raises(RemoteError, match="too many pieces") as caught:
        fill(half, range(1, 100_000, 2))

    assert caught.value.code is ErrorCode.LIMIT
    assert 1024 <= half.credit.received // 2 < 1100


def test_pieces_in_descending_order_are_bounded_too() -> None:
    with pytest.raises(RemoteError, match="too many pieces"):
        fill(ReceiveHalf(8 * MIB), range(100_000, 1, -1))


@pytest.mark.parametrize(("size", "step"), [(1428, 2), (600, 2), (128, 2), (64, 1), (1, 1)])
def test_what_an_honest_sender_leaves_behind_a_gap_is_kept(size: int, step: int) -> None:
    window = min(64 * MIB, 60_000 * size)
    half = ReceiveHalf(window)
    data = memoryview(bytes(size))

    for offset in range(size, window - size, step * size):
        half.receive(offset, data)

    assert not half.readable


# The table


def make_streams(*, is_initiator: bool = True, **changes: Any) -> Streams:
    settings: dict[str, Any] = {
        "stream_window": 1000,
        "session_window": 3000,
        "max_streams": 8,
        "buffer_size": 5000,
    } | changes
    streams = Streams(is_initiator=is_initiator, **settings)
    streams.allow(2000, 700, 4)
    return streams


def finish(streams: Streams, stream: Stream) -> None:
    """Bring both halves of a stream to their end and forget it."""
    stream.opened = True
    stream.sending.end()
    stream.sending.end_acknowledged = True
    stream.receiving.end(0)
    assert streams.forget_if_done(stream)


def test_initiators_open_odd_ids_and_responders_even_ones() -> None:
    for is_initiator, ids in ((True, [1, 3, 5, 7]), (False, [2, 4, 6, 8])):
        streams = make_streams(is_initiator=is_initiator)

        opened = [streams.open("", 3, None) for _ in range(4)]

        assert [stream and stream.stream_id for stream in opened] == ids
        assert all(streams.is_local(stream_id) for stream_id in ids)
        assert not any(streams.is_local(stream_id + 1) for stream_id in ids)
        assert len(streams) == 4
        assert [stream.stream_id for stream in streams] == ids


def test_a_stream_has_what_its_opener_said_and_what_the_peer_allows() -> None:
    streams = make_streams()

    stream = streams.open("video", 5, {"a": 1})

    assert stream is not None
    assert (stream.label, stream.priority, stream.metadata) == ("video", 5, {"a": 1})
    assert stream.sending.credit.limit == 700
    assert stream.receiving.credit.limit == 1000
    assert streams.send_credit.left == 2000
    assert streams.find(1) is stream
    assert streams.find(3) is None


@pytest.mark.parametrize("priority", [-1, 8])
def test_a_priority_that_is_none_is_refused(priority: int) -> None:
    with pytest.raises(LocalError, match="priority"):
        make_streams().open("", priority, None)


def test_no_more_streams_are_opened_than_the_peer_allows() -> None:
    streams = make_streams()
    for _ in range(4):
        assert streams.open("", 3, None) is not None

    assert streams.open("", 3, None) is None
    assert not streams.allow_streams(4)
    assert not streams.allow_streams(2)
    assert streams.allow_streams(5)
    assert streams.open("", 3, None) is not None
    assert streams.open("", 3, None) is None


def test_credit_that_comes_late_reaches_streams_that_are_open() -> None:
    streams = make_streams()
    stream = streams.open("", 3, None)
    assert stream is not None

    streams.allow(9000, 900, 9)

    assert stream.sending.credit.limit == 900


def test_a_frame_on_an_id_makes_all_lower_ones_of_its_side_exist() -> None:
    streams = make_streams()

    stream = streams.receive_id(6)

    assert stream is not None
    assert stream.stream_id == 6
    assert [each.stream_id for each in streams] == [2, 4, 6]
    assert streams.receive_id(6) is stream
    lower = streams.receive_id(2)
    assert lower is streams.find(2)
    assert not stream.opened


def test_the_responder_sees_odd_ids() -> None:
    streams = make_streams(is_initiator=False)

    streams.receive_id(5)

    assert [each.stream_id for each in streams] == [1, 3, 5]


def test_an_id_that_was_seen_and_has_no_state_is_closed() -> None:
    streams = make_streams()
    for stream in (streams.open("", 3, None), streams.receive_id(2)):
        assert stream is not None
        finish(streams, stream)
        assert not streams.forget_if_done(stream)

    assert streams.receive_id(1) is None
    assert streams.receive_id(2) is None
    assert len(streams) == 0


@pytest.mark.parametrize(
    ("stream_id", "code"),
    [
        (0, ErrorCode.PROTOCOL),
        (3, ErrorCode.STREAM),
        (18, ErrorCode.FLOW_CONTROL),
        ((1 << 32) - 2, ErrorCode.FLOW_CONTROL),
    ],
    ids=["none", "never opened here", "one too many", "far too many"],
)
def test_an_id_that_cannot_be_is_refused(stream_id: int, code: ErrorCode) -> None:
    streams = make_streams()
    streams.open("", 3, None)

    with pytest.raises(RemoteError) as caught:
        streams.receive_id(stream_id)

    assert caught.value.code is code
    assert len(streams) == 1


def test_a_peer_has_no_more_streams_open_than_allowed() -> None:
    streams = make_streams(max_streams=8)
    streams.receive_id(16)
    assert len(streams) == 8

    for stream_id in (2, 4):
        stream = streams.find(stream_id)
        assert stream is not None
        assert not streams.limit_update_due
        finish(streams, stream)

    assert streams.limit_update_due
    with pytest.raises(RemoteError):
        streams.receive_id(18)  # as long as the peer was not told
    assert streams.renew_stream_limit() == streams.remote_limit == 10
    assert not streams.limit_update_due
    streams.receive_id(20)
    assert len(streams) == 8
    with pytest.raises(RemoteError):
        streams.receive_id(22)


@pytest.mark.parametrize("max_streams", [1, 2, 3])
def test_the_smallest_limits_are_renewed_by_the_stream(max_streams: int) -> None:
    streams = make_streams(max_streams=max_streams)
    stream = streams.receive_id(2)
    assert stream is not None
    assert not streams.limit_update_due

    finish(streams, stream)

    assert streams.limit_update_due
    assert streams.renew_stream_limit() == max_streams + 1


def test_local_streams_do_not_count_against_the_peer() -> None:
    streams = make_streams(max_streams=1)
    stream = streams.open("", 3, None)
    assert stream is not None

    finish(streams, stream)

    assert not streams.limit_update_due


def test_the_credit_of_a_session_is_over_all_streams() -> None:
    streams = make_streams(session_window=3000)
    streams.count_received(1000)
    streams.count_received(2000)

    with pytest.raises(RemoteError) as caught:
        streams.count_received(1)

    assert caught.value.code is ErrorCode.FLOW_CONTROL


# When a stream is over


def test_a_stream_is_done_when_both_halves_are_and_its_opening_is_known() -> None:
    stream = Stream(1, send_half(b"data"), receive_half((0, b"data")))
    stream.sending.end()
    take(stream.sending)
    stream.receiving.end(4)

    steps = []
    for step in (
        lambda: stream.receiving.read(ANY),
        lambda: setattr(stream.sending, "end_acknowledged", True),
        lambda: stream.sending.acknowledged(0, 4),
        lambda: setattr(stream, "opened", True),
    ):
        step()
        steps.append(stream.done)

    assert steps == [False, False, False, True]


def test_how_a_stream_closes() -> None:
    ended, reset = (Stream(stream_id, send_half(b"data"), ReceiveHalf(100)) for stream_id in (1, 3))

    reset.sending.reset(300, by_peer=False)

    assert ended.closing_kind is CloseKind.END
    assert reset.closing_kind is CloseKind.RESET
