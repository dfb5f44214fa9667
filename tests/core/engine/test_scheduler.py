from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_core.engine.scheduler import Scheduler
from stt_core.engine.streams import PRIORITIES, ReceiveHalf, SendHalf, Stream

TURN = 16 * 1024


def make_stream(stream_id: int, priority: int = 3) -> Stream:
    return Stream(stream_id, SendHalf(1 << 30, 1 << 30), ReceiveHalf(1 << 20), priority=priority)


def always(_: Stream) -> bool:
    return True


def serve(scheduler: Scheduler, size: int, frames: int) -> Counter[int]:
    """Let streams send frames; return the bytes of each."""
    sent: Counter[int] = Counter()
    for _ in range(frames):
        stream = scheduler.next(always)
        assert stream is not None
        scheduler.used(size)
        sent[stream.stream_id] += size
    return sent


def busy(*priorities: int) -> Scheduler:
    """Return a scheduler with a stream of each priority that never ends; ids count from 0."""
    scheduler = Scheduler()
    for stream_id, priority in enumerate(priorities):
        scheduler.add(make_stream(stream_id, priority))
    return scheduler


def test_without_streams_nobody_has_a_turn() -> None:
    scheduler = Scheduler()

    assert not scheduler
    assert scheduler.next(always) is None


def test_a_stream_takes_turns_once_however_often_it_is_added() -> None:
    scheduler = Scheduler()
    first, second = make_stream(1), make_stream(3)
    for stream in (first, second, first, first):
        scheduler.add(stream)

    sent = serve(scheduler, 1024, 64)

    assert scheduler
    assert sent == {1: 32 * 1024, 3: 32 * 1024}


def test_a_turn_is_sixteen_kib() -> None:
    scheduler = busy(3, 3)

    order = []
    for _ in range(32):
        stream = scheduler.next(always)
        assert stream is not None
        order.append(stream.stream_id)
        scheduler.used(1024)

    assert order == [0] * 16 + [1] * 16


def test_a_stream_that_has_nothing_leaves_until_it_is_added_again() -> None:
    scheduler = Scheduler()
    idle, other = make_stream(1), make_stream(3)
    scheduler.add(idle)
    scheduler.add(other)

    assert scheduler.next(lambda stream: stream is other) is other
    scheduler.used(1)
    assert scheduler.next(lambda stream: stream is idle) is None
    assert not scheduler

    scheduler.add(idle)
    assert scheduler.next(always) is idle


def test_who_leaves_in_its_turn_passes_no_rest_of_it_on() -> None:
    scheduler = busy(3, 3, 3)
    scheduler.next(always)
    scheduler.used(TURN - 1)
    assert scheduler.next(lambda stream: stream.stream_id != 0) is not None

    assert serve(scheduler, 1024, 16) == {1: TURN}


@pytest.mark.parametrize("size", [100, 1155, 1428, 1472, 4096, 65_000])
@pytest.mark.parametrize("priorities", [(0, 0, 1), (3, 3, 4), (3, 3, 3, 5, 5), (0, 0, 0, 0, 7), (2, 3, 3, 4, 4, 4)])
def test_streams_of_one_priority_share_fairly_whatever_others_do(size: int, priorities: tuple[int, ...]) -> None:
    sent = serve(busy(*priorities), size, 4_000)

    for priority in set(priorities):
        shares = [sent[stream_id] for stream_id, each in enumerate(priorities) if each == priority]
        assert max(shares) - min(shares) <= TURN + size


@pytest.mark.parametrize("frames", range(14))
def test_a_stream_of_another_priority_that_comes_later_starves_nobody(frames: int) -> None:
    scheduler = busy(0, 0)
    serve(scheduler, 1426, frames)
    scheduler.add(make_stream(2, 1))

    sent = serve(scheduler, 1426, 3_000)

    assert max(sent.values()) - min(sent.values()) <= 2 * TURN


def test_each_priority_has_twice_the_share_of_the_next() -> None:
    sent = serve(busy(*PRIORITIES), 1024, 255 * 16)

    for priority in PRIORITIES[:-1]:
        assert sent[priority] / sent[priority + 1] == pytest.approx(2, rel=0.1)


@given(
    st.lists(st.sampled_from(PRIORITIES), min_size=2, max_size=12),
    st.lists(st.integers(1, 2_000), min_size=1, max_size=20),
)
def test_no_stream_starves(priorities: list[int], sizes: list[int]) -> None:
    scheduler = busy(*priorities)
    waited = Counter[int]()
    most = len(priorities) * (TURN + max(sizes)) * 2 * 128  # the lowest priority has a 128th of the highest's share

    for turn in range(1_500):
        stream = scheduler.next(always)
        assert stream is not None
        size = sizes[turn % len(sizes)]
        scheduler.used(size)
        for stream_id in range(len(priorities)):
            waited[stream_id] = 0 if stream_id == stream.stream_id else waited[stream_id] + size
            assert waited[stream_id] <= most


def test_the_lowest_priority_has_its_turn_beside_the_highest() -> None:
    sent = serve(busy(0, 7), 1024, 129 * 8)

    assert sent[1] == 8 * 1024


def test_who_was_idle_does_not_make_up_for_it() -> None:
    scheduler = busy(2)
    serve(scheduler, 1024, 10_000)

    scheduler.add(make_stream(9, 3))

    assert serve(scheduler, 1024, 30) == pytest.approx({0: 20 * 1024, 9: 10 * 1024}, abs=2048)


def test_who_comes_back_does_not_pay_for_having_been_alone() -> None:
    scheduler = busy(2, 7)
    serve(scheduler, 1024, 1_000)
    assert scheduler.next(lambda stream: stream.stream_id == 1) is not None
    serve(scheduler, 1024, 1_000)  # the other has left meanwhile

    scheduler.add(make_stream(0, 2))

    assert serve(scheduler, 1024, 33)[0] >= 31 * 1024


def test_a_priority_that_changes_meanwhile_starves_nobody() -> None:
    scheduler = Scheduler()
    streams = [make_stream(stream_id, 3) for stream_id in range(3)]
    for stream in streams:
        scheduler.add(stream)
    streams[0].priority = 0  # as when STREAM_OPEN comes late

    sent = serve(scheduler, 1024, 480)

    assert sent == {0: 160 * 1024, 1: 160 * 1024, 2: 160 * 1024}
    assert scheduler.next(lambda stream: stream is not streams[0]) is not None
    scheduler.add(streams[0])
    assert serve(scheduler, 1024, 400)[0] > 300 * 1024
