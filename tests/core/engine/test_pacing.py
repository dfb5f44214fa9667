from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_core.engine.pacing import Pacer

SIZE = 1472
TRAIN = 64 * 1024


def pacer(rate: float | None, size: int = SIZE, now: float = 100.0) -> Pacer:
    made = Pacer(size)
    made.set_rate(rate, size)
    made.budget(now)
    return made


def drained(rate: float, size: int = SIZE, now: float = 100.0) -> Pacer:
    made = pacer(rate, size, now)
    budget = made.budget(now)
    assert budget is not None
    made.sent(budget)
    return made


def test_without_a_rate_nothing_is_held_back() -> None:
    made = pacer(None)

    made.sent(1_000_000)

    assert made.budget(100.0) is None
    assert made.next_time(100.0) is None


@pytest.mark.parametrize(
    ("rate", "size", "burst"),
    [
        (10_000, SIZE, 10 * SIZE),
        (2_000_000, SIZE, 20_000),
        (6_553_600, SIZE, TRAIN),
        (20_000_000, SIZE, TRAIN),
        (100_000_000, SIZE, 200_000),
        (10_000, 65_507, 65_507),
        (10_000, 1200, 12_000),
    ],
)
def test_a_burst_is_ten_datagrams_or_a_train_or_two_milliseconds(rate: float, size: int, burst: int) -> None:
    assert pacer(rate, size).budget(200.0) == burst


def test_what_left_is_taken_away_and_comes_back_at_the_rate() -> None:
    made = drained(1_000_000.0)
    assert made.budget(100.0) == 0

    assert made.budget(100.005) == pytest.approx(5_000, abs=1)
    made.sent(6_000)
    assert made.budget(100.005) == pytest.approx(-1_000, abs=1)
    assert made.budget(100.007) == pytest.approx(1_000, abs=1)


def test_a_clock_that_stands_or_goes_back_gives_nothing() -> None:
    made = drained(1_000_000.0)

    assert made.budget(100.0) == 0
    assert made.budget(99.0) == 0
    assert made.budget(100.001) == pytest.approx(1_000, abs=1)


@pytest.mark.parametrize(
    ("rate", "wait"),
    [(147_200.0, 0.01), (1_472_000.0, 0.001), (100_000_000.0, 0.001)],
    ids=["a datagram", "still a datagram", "a train's worth"],
)
def test_the_next_part_that_is_worth_a_call_tells_the_time(rate: float, wait: float) -> None:
    assert drained(rate).next_time(100.0) == pytest.approx(100.0 + wait)


def test_who_has_budget_need_not_wait() -> None:
    assert pacer(1_000_000.0).next_time(100.0) == 100.0


def test_a_new_rate_holds_from_then_on() -> None:
    made = drained(1_000_000.0)

    made.set_rate(10_000_000.0, 1200)

    assert made.next_time(100.0) == pytest.approx(100.001)
    assert made.budget(100.001) == pytest.approx(10_000, abs=1)


@given(
    st.floats(1_000.0, 1e9),
    st.sampled_from([1200, 1472, 8952, 65_507]),
    st.lists(st.floats(0.0, 0.05), min_size=1, max_size=60),
)
def test_no_more_leaves_than_the_rate_and_a_burst(rate: float, size: int, waits: list[float]) -> None:
    made = pacer(rate, size)
    burst = made.budget(100.0)
    assert burst is not None
    now, left = 100.0, 0

    for wait in waits:
        now += wait
        while (budget := made.budget(now)) is not None and budget > 0:
            made.sent(size)
            left += size
        assert left <= burst + (now - 100.0) * rate + size + 1


@given(st.floats(1_000.0, 1e9), st.sampled_from([1200, 1472, 65_507]), st.floats(0.0, 1e6))
def test_waiting_until_the_time_told_lets_a_datagram_leave(rate: float, size: int, start: float) -> None:
    made = drained(rate, size, start)
    now = start

    for _ in range(20):
        at = made.next_time(now)
        assert at is not None
        assert at >= now
        now = at
        budget = made.budget(now)
        assert budget is not None
        assert budget > 0
        made.sent(size)
