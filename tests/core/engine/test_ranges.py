from __future__ import annotations

from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from stt_core.engine.ranges import RangeSet

SPANS = st.tuples(st.integers(0, 60), st.integers(1, 12)).map(lambda span: (span[0], span[0] + span[1]))


def runs(numbers: set[int]) -> list[tuple[int, int]]:
    """Return the runs of neighbouring numbers, the long way."""
    keyed = groupby(enumerate(sorted(numbers)), key=lambda entry: entry[1] - entry[0])
    return [(members[0], members[-1] + 1) for _, group in keyed for members in [[number for _, number in group]]]


def filled(*spans: tuple[int, int]) -> RangeSet:
    ranges = RangeSet()
    for start, stop in spans:
        ranges.add(start, stop)
    return ranges


class RangeSetBesideASet(RuleBasedStateMachine):
    """A RangeSet does what a set of integers does."""

    def __init__(self) -> None:
        super().__init__()
        self.ranges = RangeSet()
        self.numbers: set[int] = set()

    @rule(span=SPANS)
    def add(self, span: tuple[int, int]) -> None:
        self.ranges.add(*span)
        self.numbers.update(range(*span))

    @rule(size=st.integers(1, 5))
    def add_at_the_end(self, size: int) -> None:
        start = max(self.numbers, default=-1) + 1
        self.add((start, start + size))

    @rule(span=SPANS)
    def subtract(self, span: tuple[int, int]) -> None:
        self.ranges.subtract(*span)
        self.numbers.difference_update(range(*span))

    @rule(number=st.integers(0, 80))
    def drop_below(self, number: int) -> None:
        self.ranges.drop_below(number)
        self.numbers = {each for each in self.numbers if each >= number}

    @rule(keep=st.integers(0, 6))
    def drop_oldest(self, keep: int) -> None:
        self.ranges.drop_oldest(keep)
        kept = runs(self.numbers)[-keep:] if keep else []
        self.numbers = {number for run in kept for number in range(*run)}

    @rule(span=SPANS)
    def missing(self, span: tuple[int, int]) -> None:
        assert self.ranges.missing(*span) == runs(set(range(*span)) - self.numbers)

    @rule(number=st.integers(-1, 80))
    def contains(self, number: int) -> None:
        assert (number in self.ranges) == (number in self.numbers)

    @precondition(lambda self: self.numbers)
    @rule()
    def first(self) -> None:
        assert self.ranges.first == runs(self.numbers)[0]

    @invariant()
    def holds_the_same(self) -> None:
        assert list(self.ranges) == runs(self.numbers)
        assert len(self.ranges) == len(runs(self.numbers))


TestRangeSetBesideASet = RangeSetBesideASet.TestCase


def test_what_touches_becomes_one_range() -> None:
    ranges = filled((0, 10), (20, 30), (40, 50))

    ranges.add(10, 20)
    ranges.add(50, 60)

    assert list(ranges) == [(0, 30), (40, 60)]


def test_a_range_that_covers_others_swallows_them() -> None:
    ranges = filled((5, 6), (8, 9), (20, 21))

    ranges.add(0, 10)

    assert list(ranges) == [(0, 10), (20, 21)]


def test_taking_the_middle_out_leaves_both_ends() -> None:
    ranges = filled((0, 10))

    ranges.subtract(3, 5)

    assert list(ranges) == [(0, 3), (5, 10)]


@pytest.mark.parametrize("span", [(-5, 0), (10, 20), (12, 13), (30, 31)])
def test_taking_out_what_is_not_in_changes_nothing(span: tuple[int, int]) -> None:
    ranges = filled((0, 10), (20, 30))

    ranges.subtract(*span)

    assert list(ranges) == [(0, 10), (20, 30)]


@given(st.lists(SPANS))
def test_nothing_is_missing_of_an_empty_span(spans: list[tuple[int, int]]) -> None:
    ranges = filled(*spans)

    assert ranges.missing(7, 7) == []
    assert ranges.missing(9, 7) == []
