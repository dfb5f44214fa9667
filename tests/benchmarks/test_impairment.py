"""Is the bad link as bad as it says, and the same each time?"""

from __future__ import annotations

from dataclasses import replace

import pytest
from benchmarks.impairment import IP_HEADERS, Conditions, Direction

PERFECT = Conditions(rate=1e9, delay=0.0, queue=1e9)
SIZE = 1000 - IP_HEADERS


def fates(conditions: Conditions, count: int = 10_000) -> list[list[float]]:
    direction = Direction(conditions, "forward")
    return [direction.arrivals(SIZE, number / 1000) for number in range(count)]


def test_the_same_datagrams_are_lost_with_the_same_seed_and_others_with_another() -> None:
    lossy = replace(PERFECT, loss=0.1, seed=1)

    assert fates(lossy) == fates(lossy)
    assert fates(lossy) != fates(replace(PERFECT, loss=0.1, seed=2))


def test_the_directions_do_not_share_their_fate() -> None:
    lossy = replace(PERFECT, loss=0.5)
    forward, backward = Direction(lossy, "forward"), Direction(lossy, "backward")

    assert [forward.arrivals(1, 0.0) for _ in range(100)] != [backward.arrivals(1, 0.0) for _ in range(100)]


def test_as_many_are_lost_and_doubled_as_asked_for() -> None:
    arrivals = [len(each) for each in fates(replace(PERFECT, loss=0.1, duplication=0.2))]

    assert arrivals.count(0) == pytest.approx(1000, rel=0.15)
    assert arrivals.count(2) == pytest.approx(1800, rel=0.15)


def test_a_reordered_datagram_arrives_behind_later_ones() -> None:
    direction = Direction(replace(PERFECT, reordering=0.5, reordering_delay=1.0), "forward")
    arrivals = [direction.arrivals(SIZE, number / 1000)[0] for number in range(100)]

    assert arrivals != sorted(arrivals)
    assert direction.counters.reordered == sum(at >= 1.0 for at in arrivals)


def test_rate_and_delay_add_up() -> None:
    direction = Direction(Conditions(rate=1000.0, delay=5.0, queue=1e9), "forward")

    assert [direction.arrivals(SIZE, 0.0) for _ in range(3)] == [[6.0], [7.0], [8.0]]


def test_what_finds_the_queue_full_is_dropped() -> None:
    direction = Direction(Conditions(rate=1000.0, delay=0.0, queue=1500.0), "forward")

    assert [len(direction.arrivals(SIZE, 0.0)) for _ in range(4)] == [1, 1, 0, 0]
    assert direction.arrivals(SIZE, 2.0) == [3.0]
    assert direction.counters.overflowed == 2


def test_what_is_larger_than_the_mtu_is_dropped() -> None:
    direction = Direction(replace(PERFECT, mtu=1500), "forward")

    assert direction.arrivals(1500 - IP_HEADERS, 0.0)
    assert not direction.arrivals(1501 - IP_HEADERS, 0.0)
