"""Do peers take no more of a serving side than it gives?"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stt_streaming.tunnel.limits import NOTE_INTERVAL, NOTES_AT_ONCE, LimitedNotes, Places


@given(st.lists(st.tuples(st.sampled_from([0, 1]), st.booleans()), max_size=60))
def test_no_more_places_are_taken_than_there_are(steps: list[tuple[int, bool]]) -> None:
    shared = Places(5)
    sessions = [Places(3, within=shared), Places(4, within=shared)]
    taken = [0, 0]
    for which, take in steps:
        if take:
            expected = taken[which] < (3, 4)[which] and sum(taken) < 5
            assert sessions[which].take() is expected
            taken[which] += expected
        elif taken[which]:
            sessions[which].give_back()
            taken[which] -= 1


def test_notes_beyond_the_limit_are_counted_and_not_written() -> None:
    written: list[str] = []
    now = 0.0
    notes = LimitedNotes(written.append, clock=lambda: now)

    for number in range(NOTES_AT_ONCE + 1000):
        notes.note(str(number))
    now = NOTE_INTERVAL
    notes.note("later")
    notes.note("last")

    assert written == [*map(str, range(NOTES_AT_ONCE)), "later (1000 more since the last)", "last"]
