from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_core.defaults.controllers import NewReno
from stt_core.engine.acks import AckTracker
from stt_core.engine.paths import Link, Path, PathKey
from stt_core.interfaces.transport import TransportCapabilities
from stt_core.wire.messages import MAX_ACK_RANGES, Ack, decode_ack

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_DELAY = 0.025


def make_path(*, reliable: bool = False) -> Path:
    capabilities = TransportCapabilities(reliable=reliable, max_message_size=65_507)
    return Path(
        PathKey(Link("sim://", capabilities), ("host", 1)),
        validated=True,
        controller=NewReno,
        max_datagram_size=1200,
        max_ack_delay=MAX_DELAY,
    )


DATAGRAMS = make_path()
MESSAGES = make_path(reliable=True)


def tracker(numbers: Iterable[int] = (), now: float = 0.0) -> AckTracker:
    acks = AckTracker(MAX_DELAY)
    for number in numbers:
        acks.received(number, number, now)
    return acks


# What is acknowledged


@given(st.lists(st.integers(0, 300), unique=True, min_size=1))
def test_an_ack_names_the_numbers_that_came(numbers: list[int]) -> None:
    ranges = tracker(numbers).ack(0.0).ranges

    named = [number for first, last in ranges for number in range(first, last + 1)]
    runs = sum(number + 1 not in numbers for number in numbers)
    assert len(ranges) == min(runs, MAX_ACK_RANGES)
    assert set(named) <= set(numbers)
    assert len(named) == len(set(named))
    if runs <= MAX_ACK_RANGES:
        assert set(named) == set(numbers)


@given(st.lists(st.integers(0, 1 << 62), unique=True, min_size=1))
def test_every_ack_can_be_encoded(numbers: list[int]) -> None:
    ack = tracker(numbers).ack(1.0)

    assert decode_ack(ack.encode()) == ack


def test_ranges_are_newest_first() -> None:
    assert tracker([0, 1, 5, 3, 9]).ack(0.0).ranges == ((9, 9), (5, 5), (3, 3), (0, 1))


def test_what_was_acknowledged_is_repeated() -> None:
    acks = tracker([0, 1, 5])
    acks.ack(0.0)

    acks.received(6, 6, 0.0)

    assert acks.ack(0.0).ranges == ((5, 6), (0, 1))


def test_what_the_peer_has_heard_is_repeated_no_more() -> None:
    acks = tracker([0, 1, 5, 8, 9])

    acks.forget_below(8)

    assert acks.ack(0.0).ranges == ((8, 9),)


def test_only_the_newest_ranges_are_acknowledged() -> None:
    acks = tracker(range(0, 400, 2))

    ranges = acks.ack(0.0).ranges

    assert ranges == tuple((number, number) for number in range(398, 398 - 2 * MAX_ACK_RANGES, -2))


def test_a_peer_that_leaves_gaps_and_asks_for_no_ack_fills_no_memory() -> None:
    acks = tracker()

    tracemalloc.start()
    for number in range(0, 50_000, 2):
        acks.received(number, number, 0.0)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert held < 64 * 1024
    assert acks.ack(0.0).ranges[0] == (49_998, 49_998)


def test_the_delay_is_the_time_since_the_newest_number_came() -> None:
    acks = tracker([0, 1, 2], now=1.0)
    acks.received(5, 5, 2.0)
    acks.received(3, 3, 2.5)

    assert acks.ack(2.75).delay_us == 750_000


def test_a_delay_is_rounded_down() -> None:
    assert tracker([0], now=1.0).ack(1.0000019).delay_us == 1


def test_a_delay_is_never_negative() -> None:
    assert tracker([0], now=5.0).ack(4.0) == Ack(0, ((0, 0),))


def test_the_largest_number_is_known() -> None:
    assert tracker().largest == -1
    assert tracker([3, 9, 4]).largest == 9


# When


@pytest.mark.parametrize(
    ("number", "is_gap"),
    [(5, False), (6, True), (100, True), (3, True)],
    ids=["in order", "one missing", "many missing", "late"],
)
def test_a_gap_and_what_fills_one_are_noticed(number: int, *, is_gap: bool) -> None:
    acks = tracker([0, 1, 2, 4])

    assert acks.received(number, number, 0.0) is is_gap


def test_nothing_is_due_before_anything_asks_for_it() -> None:
    assert tracker([0, 1, 2]).due is None


def test_one_datagram_is_acknowledged_after_a_while_and_two_at_once() -> None:
    acks = tracker([0])
    acks.asked(1, 1200, DATAGRAMS, 1.0, urgent=False)
    assert acks.due == 1.0 + MAX_DELAY

    acks.asked(1, 1200, DATAGRAMS, 1.01, urgent=False)

    assert acks.due == 1.01


def test_a_burst_of_two_is_acknowledged_at_once() -> None:
    acks = tracker([0, 1])

    acks.asked(2, 2400, DATAGRAMS, 1.0, urgent=False)

    assert acks.due == 1.0


def test_small_datagrams_count_by_what_would_fill_one() -> None:
    acks = tracker([0])
    acks.asked(8, 1199, DATAGRAMS, 1.0, urgent=False)
    assert acks.due == 1.0 + MAX_DELAY

    acks.asked(1, 1, DATAGRAMS, 1.01, urgent=False)

    assert acks.due == 1.01


def test_nothing_rides_before_anything_asks_for_it() -> None:
    assert not tracker([0]).rides(0.0)


def test_an_ack_rides_with_the_first_frames() -> None:
    acks = tracker([0])
    acks.asked(1, 100, DATAGRAMS, 1.0, urgent=False)

    assert acks.rides(1.0)


@pytest.mark.parametrize("interval", [0.001, 0.004, 0.01, 0.0135, 0.02, 0.024, 0.026, 0.04], ids=str)
def test_of_frames_that_leave_steadily_one_always_takes_the_ack_along(interval: float) -> None:
    acks = tracker([0])
    acks.rides(0.0)

    for turn in range(1, 101):
        now = turn * interval
        assert acks.due is None or now <= acks.due
        acks.asked(1, 10, DATAGRAMS, now, urgent=False)
        if acks.rides(now):
            acks.ack(now)


def test_of_frames_that_leave_often_few_take_an_ack_along() -> None:
    acks = tracker([0])
    acks.rides(0.0)
    rode = 0

    for turn in range(1, 101):
        acks.asked(1, 10, DATAGRAMS, turn / 1000, urgent=False)
        if acks.rides(turn / 1000):
            acks.ack(turn / 1000)
            rode += 1

    assert rode == pytest.approx(0.1 / MAX_DELAY, abs=1)


@pytest.mark.parametrize("path", [DATAGRAMS, MESSAGES], ids=["unreliable", "reliable"])
def test_what_is_urgent_is_acknowledged_at_once(path: Path) -> None:
    acks = tracker([0])

    acks.asked(1, 10, path, 1.0, urgent=True)

    assert acks.due == 1.0


def test_a_later_frame_does_not_put_the_ack_off() -> None:
    acks = tracker([0])
    acks.asked(1, 10, MESSAGES, 1.0, urgent=False)

    acks.asked(1, 10, MESSAGES, 1.05, urgent=False)

    assert acks.due == 1.1


def test_on_a_reliable_path_acks_are_rare() -> None:
    acks = tracker([0])
    acks.asked(3, 255 * 1024, MESSAGES, 1.0, urgent=False)
    assert acks.due == 1.1

    acks.asked(1, 1024, MESSAGES, 1.02, urgent=False)

    assert acks.due == 1.02


def test_an_ack_that_was_sent_is_not_due_again() -> None:
    acks = tracker([0, 1])
    acks.asked(1, 256 * 1024 - 1, MESSAGES, 1.0, urgent=True)

    acks.ack(1.0)
    assert acks.due is None

    acks.received(2, 2, 2.0)
    acks.asked(1, 1, MESSAGES, 2.0, urgent=False)
    assert acks.due == 2.1
    acks.ack(2.1)
    acks.asked(1, 1, DATAGRAMS, 3.0, urgent=False)
    assert acks.due == 3.0 + MAX_DELAY


# Who only receives


def test_who_only_acknowledges_asks_to_be_heard_from_time_to_time() -> None:
    acks = tracker([0, 2])

    asked = [acks.should_elicit(alone=True) for _ in range(48)]

    assert [index for index, each in enumerate(asked) if each] == [15, 31, 47]


def test_who_sends_anyway_does_not_ask() -> None:
    acks = tracker([0, 2])

    assert not any(acks.should_elicit(alone=index % 15 != 0) for index in range(100))


def test_who_has_one_range_to_tell_does_not_ask() -> None:
    acks = tracker([0, 1, 2])

    assert not any(acks.should_elicit(alone=True) for _ in range(100))
