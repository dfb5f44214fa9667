"""Do the tables say what the figures say?"""

from __future__ import annotations

from typing import Any

import pytest
from benchmarks.documentation import fill_in
from benchmarks.report import COLUMNS, Results, goal_table, main_table

BULK = COLUMNS[0]
ROUND_TRIP = next(column for column in COLUMNS if column.less_is_better)


def results(*runs: dict[str, Any]) -> Results:
    return Results({"runs": list(runs)})


def figures(name: str, repetition: int, measure: str = "bulk", **values: float) -> dict[str, Any]:
    return {"measure": measure, "name": name, "title": name, "repetition": repetition, "figures": values}


def test_a_cell_has_the_median_and_the_range() -> None:
    found = results(*(figures("stt-udp", number, core=core) for number, core in enumerate((300, 100, 200))))

    assert found.cell("stt-udp", BULK) == "200 (100–300)"  # noqa: RUF001  as the tables have it


def test_ratios_are_between_runs_of_one_repetition() -> None:
    found = results(
        figures("stt-udp", 0, core=100),
        figures("zmq", 0, core=50),
        figures("stt-udp", 1, core=10),
        figures("zmq", 1, core=5),
        figures("stt-udp", 2, core=1000),
    )

    assert found.ratio("stt-udp", "zmq", BULK) == 2


def test_a_ratio_favours_whoever_needs_less_where_less_is_better() -> None:
    found = results(
        figures("stt-udp", 0, measure=ROUND_TRIP.measure, **{ROUND_TRIP.figure: 50}),
        figures("zmq", 0, measure=ROUND_TRIP.measure, **{ROUND_TRIP.figure: 100}),
    )

    assert found.ratio("stt-udp", "zmq", ROUND_TRIP) == 2


def test_a_failure_is_shown_and_has_no_ratio() -> None:
    failed = {"measure": "bulk", "name": "zmq", "title": "zmq", "repetition": 0, "error": "no"}
    found = results(failed, figures("stt-udp", 0, core=1))

    assert found.cell("zmq", BULK) == "failed"
    assert found.ratio("stt-udp", "zmq", BULK) is None
    assert "| failed |" in main_table(found)


@pytest.mark.parametrize(("core", "verdict"), [(200, "met"), (199, "**missed**, 200 wanted")])
def test_a_goal_is_met_from_its_bound_on(core: float, verdict: str) -> None:
    table = goal_table(results(figures("stt-udp-1472", 0, core=core)))

    assert f"| {core} | {verdict} |" in table


def test_text_is_put_between_markers_and_the_rest_is_kept() -> None:
    page = "before\n<!-- benchmarks: table -->\nold\n<!-- end -->\nafter\n"

    filled = fill_in(page, {"table": "new"})

    assert filled == "before\n<!-- benchmarks: table -->\n\nnew\n\n<!-- end -->\nafter\n"
    assert fill_in(filled, {"table": "new"}) == filled


@pytest.mark.parametrize("sections", [{"table": "", "goals": ""}, {}])
def test_a_section_without_markers_and_markers_without_a_section_are_errors(sections: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"no markers|no section"):
        fill_in("<!-- benchmarks: table --><!-- end -->", sections)
