from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stt_core.engine.mtu import BASE_SIZE, MtuSearch

KNOWN = (1200, 1232, 1352, 1392, 1452, 1464, 1472, 2048, 4072, 8152, 8952, 8972, 16_384, 32_768, 65_487, 65_507)
RAISE_INTERVAL = 600.0


def finish(search: MtuSearch, path_size: int, now: float = 0.0) -> tuple[list[int], float]:
    """Search to the end on a path that carries datagrams up to a size; return the probes and the time then."""
    probes: list[int] = []
    while (due := search.search_due) is not None:
        now = max(now, due)
        probe = search.probe(now)
        assert probe is not None
        assert probe > search.size
        assert search.search_due is None  # one at a time
        probes.append(probe)
        now += 0.05
        if probe <= path_size:
            assert search.confirmed(probe, now)
        else:
            search.lost(probe, now)
        assert len(probes) < 60
    return probes, now


@given(st.integers(1200, 70_000), st.integers(1200, 65_507), st.sampled_from([1200, 1232, 1472]))
def test_the_search_ends_at_the_largest_known_size_of_any_path(path_size: int, limit: int, start: int) -> None:
    search = MtuSearch(limit, start)
    base = search.size

    finish(search, path_size)

    assert search.size == max([base, *(size for size in (*KNOWN, limit) if size <= min(path_size, limit))])


@pytest.mark.parametrize(
    ("path_size", "limit", "probes"),
    [
        (1472, 1472, [1472]),
        (65_507, 65_507, [1472, 65_507]),
        (9_000, 9_000, [1472, 9_000]),
        (1200, 1200, []),
        (1300, 1300, [1300]),
        (1452, 1472, [1472, 1472, 1472, 1392, 1464, 1464, 1464, 1452]),
    ],
)
def test_most_paths_are_done_after_two_probes(path_size: int, limit: int, probes: list[int]) -> None:
    assert finish(MtuSearch(limit, BASE_SIZE), path_size)[0] == probes


def test_no_size_is_tried_more_than_three_times() -> None:
    probes, _ = finish(MtuSearch(65_507, BASE_SIZE), 1472)

    assert max(probes.count(size) for size in probes) == 3


def test_a_lost_probe_is_repeated_after_a_moment() -> None:
    search = MtuSearch(1472, BASE_SIZE)
    assert search.probe(1.0) == 1472

    search.lost(1472, 2.0)

    assert search.search_due == pytest.approx(2.05)
    assert search.probe(2.04) is None
    assert search.probe(2.06) == 1472


def test_a_probe_that_is_not_outstanding_cannot_be_lost() -> None:
    search = MtuSearch(1472, BASE_SIZE)
    search.probe(1.0)

    for _ in range(5):
        search.lost(1464, 2.0)

    assert search.probe(3.0) is None
    assert search.confirmed(1472, 3.0)


def test_losses_count_anew_for_each_size() -> None:
    search = MtuSearch(65_507, BASE_SIZE)
    for now in (1.0, 2.0):
        search.probe(now)
        search.lost(1472, now)
    search.probe(3.0)
    search.confirmed(1472, 3.0)

    probes = []
    for now in (4.0, 5.0, 6.0, 7.0):
        probes.append(search.probe(now))
        search.lost(65_507, now)

    assert probes[:3] == [65_507] * 3
    assert probes[3] != 65_507


def test_a_late_confirmation_of_a_smaller_size_changes_nothing() -> None:
    search = MtuSearch(1472, BASE_SIZE)
    search.probe(1.0)
    search.confirmed(1472, 1.0)
    larger = MtuSearch(65_507, BASE_SIZE)
    larger.probe(1.0)
    larger.confirmed(1472, 1.0)
    assert larger.probe(1.0) == 65_507

    assert not search.confirmed(1472, 2.0)
    assert not larger.confirmed(1232, 2.0)

    assert search.probe(3.0) is None
    assert larger.probe(3.0) is None  # the other is still outstanding
    assert larger.confirmed(65_507, 3.0)


def test_a_search_that_is_over_begins_again_after_ten_minutes_and_only_then() -> None:
    search = MtuSearch(1472, BASE_SIZE)
    _, ended_at = finish(search, 1300)
    assert search.size == 1232
    assert search.search_due is None  # an idle session is not woken for it
    assert search.probe(ended_at + RAISE_INTERVAL - 1) is None

    probe = search.probe(ended_at + RAISE_INTERVAL + 1)

    assert probe == 1472
    assert search.confirmed(1472, ended_at + RAISE_INTERVAL + 1)
    assert search.size == 1472
    assert search.probe(ended_at + 10 * RAISE_INTERVAL) is None


def test_a_size_that_the_host_refuses_is_not_tried_again() -> None:
    search = MtuSearch(65_507, BASE_SIZE)
    search.probe(0.0)
    search.confirmed(1472, 0.0)
    assert search.probe(0.0) == 65_507

    assert not search.refused(65_507, 0.0)

    assert search.size == 1472
    probes, _ = finish(search, 1472)
    assert 65_507 not in probes


def test_a_refused_size_that_was_in_use_brings_the_base_back() -> None:
    search = MtuSearch(65_507, BASE_SIZE)
    finish(search, 65_507)

    assert search.refused(65_507, 10.0)

    assert search.size == BASE_SIZE
    assert search.search_due == 10.0
    finish(search, 8972, 10.0)
    assert search.size == 8972


def test_a_late_refusal_does_not_undo_what_was_learned_since() -> None:
    search = MtuSearch(65_507, BASE_SIZE)
    search.probe(0.0)
    search.confirmed(1472, 0.0)
    for size in (65_507, 16_384, 8972):
        search.refused(size, 0.0)

    assert not search.refused(65_507, 1.0)

    probes, _ = finish(search, 65_507, 1.0)
    assert max(probes) < 8972


@pytest.mark.parametrize("size", [1100, 1200])
def test_a_host_that_refuses_the_base_size_leaves_nothing_to_fall_to(size: int) -> None:
    search = MtuSearch(1472, BASE_SIZE)

    assert not search.refused(size, 0.0)

    assert search.size == BASE_SIZE
    assert search.search_due is None


def test_three_timeouts_in_a_row_are_a_black_hole() -> None:
    search = MtuSearch(1472, BASE_SIZE)
    finish(search, 1472)

    assert not search.timed_out(2, 10.0)
    assert search.timed_out(3, 10.0)

    assert search.size == BASE_SIZE
    assert not search.timed_out(4, 11.0)
    probes, _ = finish(search, 1300, 11.0)
    assert 1472 not in probes
    assert search.size == 1232


@settings(max_examples=50)
@given(
    st.integers(1200, 65_507),
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["confirmed", "lost", "refused"]), st.sampled_from(KNOWN)),
            st.tuples(st.just("probe"), st.just(0)),
            st.tuples(st.just("timed out"), st.integers(0, 5)),
        ),
        max_size=40,
    ),
)
def test_whatever_happens_the_size_stays_within_the_limits(limit: int, steps: list[tuple[str, int]]) -> None:
    search = MtuSearch(limit, BASE_SIZE)

    for number, (step, size) in enumerate(steps):
        now = number * 100.0
        before = search.size
        match step:
            case "probe":
                probe = search.probe(now)
                assert probe is None or search.size < probe <= limit
            case "confirmed":
                grew = search.confirmed(min(size, limit), now)
                assert grew == (search.size > before)
            case "lost":
                search.lost(size, now)
                assert search.size == before
            case "refused":
                assert search.refused(size, now) == (search.size < before)
            case _:
                assert search.timed_out(size, now) == (search.size < before)
        assert BASE_SIZE <= search.size <= limit
        assert search.search_due is None or search.size < limit
