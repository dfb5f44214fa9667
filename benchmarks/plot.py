"""Draws the figures as bars, one panel a column of the main table: an SVG, written by hand."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from benchmarks.peers import PEERS
from benchmarks.report import COLUMNS

if TYPE_CHECKING:
    from benchmarks.report import Column, Results

_PANEL_WIDTH: Final = 460
_LABEL_WIDTH: Final = 180
_BAR_WIDTH: Final = 200
_ROW: Final = 18
_HEAD: Final = 34
_PANELS_ACROSS: Final = 2
_OURS: Final = "#1f6feb"
_THEIRS: Final = "#8b949e"


def draw(results: Results) -> str:
    """Return the picture."""
    panels = [panel for column in COLUMNS if (panel := _panel(results, column))]
    parts = []
    top = 0
    for start in range(0, len(panels), _PANELS_ACROSS):
        row = panels[start : start + _PANELS_ACROSS]
        for index, (_, body) in enumerate(row):
            parts.append(f'<g transform="translate({index * _PANEL_WIDTH},{top})">{body}</g>')
        top += max(height for height, _ in row)
    width = _PANEL_WIDTH * _PANELS_ACROSS
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top}" font-family="sans-serif" font-size="11">'
        f'<rect width="{width}" height="{top}" fill="#ffffff"/>{"".join(parts)}</svg>\n'
    )


def _panel(results: Results, column: Column) -> tuple[int, str] | None:
    rows = [(name, sorted(results.values(name, column).values())) for name in PEERS]
    rows = [(name, values) for name, values in rows if values]
    if not rows:
        return None
    longest = max(values[-1] for _, values in rows) or 1.0
    direction = "less is better" if column.less_is_better else "more is better"
    parts = [
        (
            f'<text x="8" y="20" font-size="13" font-weight="bold" fill="#1f2328">{escape(column.title)}'
            f'<tspan font-weight="normal" fill="#656d76"> - {direction}</tspan></text>'
        )
    ]
    for number, (name, values) in enumerate(rows):
        middle = results.median(name, column)
        assert middle is not None
        y = _HEAD + number * _ROW
        low, center, high = (
            _LABEL_WIDTH + max(0.0, value) / longest * _BAR_WIDTH for value in (values[0], middle, values[-1])
        )
        colour = _OURS if name.startswith("stt-") else _THEIRS
        parts.append(
            f'<text x="{_LABEL_WIDTH - 6}" y="{y + 10}" text-anchor="end" fill="#1f2328">'
            f"{escape(PEERS[name].title)}</text>"
            f'<rect x="{_LABEL_WIDTH}" y="{y}" width="{center - _LABEL_WIDTH:.1f}" height="12" fill="{colour}"/>'
            f'<path d="M{low:.1f} {y + 6}H{high:.1f}" stroke="#1f2328"/>'
            f'<text x="{high + 5:.1f}" y="{y + 10}" fill="#1f2328">{escape(column.text(middle))}</text>'
        )
    return _HEAD + len(rows) * _ROW + 12, "".join(parts)
