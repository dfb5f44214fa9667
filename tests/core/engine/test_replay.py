from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_core.engine.replay import ReplayWindow

SIZE = 1024
SLACK = 7  # the window moves on by whole bytes

# Mostly near the front, at times across the window, at times far beyond it.
STEPS = st.one_of(st.integers(-40, 40), st.integers(-2 * SIZE, 2 * SIZE), st.integers(0, 1 << 40))


@given(st.integers(0, 100_000), st.lists(STEPS, max_size=80))
def test_a_number_is_fresh_once_and_only_within_the_window(first: int, steps: list[int]) -> None:
    window = ReplayWindow(SIZE)
    seen: set[int] = set()
    highest = -1

    for step in [first, *steps]:
        number = max(0, highest + step)
        fresh = window.is_fresh(number)

        if number in seen or number <= highest - SIZE:
            assert not fresh
        elif number > highest - SIZE + SLACK:
            assert fresh
        if fresh:
            window.add(number)
            seen.add(number)
            highest = max(highest, number)
        assert window.highest == highest


@given(st.integers(0, 1 << 40), st.lists(st.integers(1, 3 * SIZE), max_size=8))
def test_moving_on_brings_nothing_back_and_forgets_nothing_within_the_window(start: int, jumps: list[int]) -> None:
    window = ReplayWindow(SIZE)
    seen = {start}
    window.add(start)
    highest = start

    for jump in jumps:
        highest += jump
        window.add(highest)
        seen.add(highest)

    for number in range(max(0, highest - SIZE - 20), highest + 1):
        if number in seen or number <= highest - SIZE:
            assert not window.is_fresh(number)
        elif number > highest - SIZE + SLACK:
            assert window.is_fresh(number)


def test_before_the_first_frame_every_number_is_fresh() -> None:
    window = ReplayWindow(SIZE)

    assert window.highest == -1
    assert window.is_fresh(0)
    assert window.is_fresh(1 << 60)


def test_a_replayed_frame_is_refused_wherever_it_lies_in_a_full_window() -> None:
    window = ReplayWindow(65_536)
    for number in range(70_000):
        window.add(number)

    assert not any(window.is_fresh(number) for number in range(70_000))
    assert window.is_fresh(70_000)


@pytest.mark.parametrize("size", [1, 255, 1024, 65_536])
def test_the_window_is_bounded_whatever_numbers_come(size: int) -> None:
    tracemalloc.start()
    window = ReplayWindow(size)
    number = 0
    for jump in [1, 7, 250, 5_000, 100_000, 1 << 33, 3, size, size + 1, size - 1]:
        number += jump
        window.add(number)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert not window.is_fresh(number - max(256, 1 << (size - 1).bit_length()))
    assert held < size // 8 + 1000


def test_an_idle_session_holds_little() -> None:
    tracemalloc.start()
    window = ReplayWindow(65_536)
    for number in range(200):
        window.add(number)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert held < 1000
    assert not any(window.is_fresh(number) for number in range(200))
