from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stt_websocket.incomplete import IncompleteMessages

updates = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 50)))


@given(updates=updates)
def test_who_holds_most_gives_up_exactly_when_all_hold_too_much(updates: list[tuple[int, int]]) -> None:
    incomplete: IncompleteMessages[int] = IncompleteMessages(100)
    sizes: dict[int, int] = {}
    for holder, size in updates:
        sizes[holder] = size

        largest = incomplete.update(holder, size)

        assert (largest is not None) is (sum(sizes.values()) > 100)
        if largest is not None:
            assert sizes[largest] == max(sizes.values())
