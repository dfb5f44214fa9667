"""From the figures of all repetitions to tables: medians, ranges, ratios, and the goals beside them."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from benchmarks.peers import PEERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from benchmarks.runs import Run

NOISE_CORE: Final = 356  # MB/s of Noise NNpsk0 over TCP, measured once; no maintained library does it
MISSING: Final = "–"  # noqa: RUF001  a dash


@dataclass(frozen=True)
class Column:
    """A figure of a measure, as the tables show it."""

    title: str
    measure: str
    figure: str
    scale: float = 1.0
    digits: int = 0
    less_is_better: bool = False

    def text(self, value: float) -> str:
        return f"{value * self.scale:,.{self.digits}f}"


COLUMNS: Final = (
    Column("bulk, MB/s a core", "bulk", "core"),
    Column("bulk, MB/s", "bulk", "wall"),
    Column("round trip of 64 B, µs of CPU", "round-trip", "cpu", less_is_better=True),
    Column("p50, µs", "round-trip", "p50", less_is_better=True),
    Column("messages of 64 B, 1,000/s", "messages", "wall", scale=1e-3),
    Column("handshakes/s", "handshakes", "rate"),
    Column("50 at once", "handshakes-50", "rate"),
    Column("short streams/s", "streams", "rate"),
    Column("idle, KiB", "idle", "accepting", less_is_better=True),
)
COST_COLUMNS: Final = (
    Column("sender, CPU s/GB", "bulk", "sender_cpu", digits=2, less_is_better=True),
    Column("receiver, CPU s/GB", "bulk", "receiver_cpu", digits=2, less_is_better=True),
    Column("handshake, CPU ms of both", "handshakes", "cpu", scale=1e-3, digits=2, less_is_better=True),
    Column("short stream, CPU µs of both", "streams", "cpu", less_is_better=True),
    Column("messages, 1,000/s a core", "messages", "core", scale=1e-3),
    Column("datagram there and back, p50 µs", "datagrams", "p50", less_is_better=True),
    Column("beside bulk", "datagrams-beside-bulk", "p50", less_is_better=True),
    Column("p99", "datagrams-beside-bulk", "p99", less_is_better=True),
    Column("idle where it connects, KiB", "idle", "connecting", less_is_better=True),
)
_LOSS: Final = Column("1 % loss, 25 ms each way, 200 Mbit/s: MB/s", "link-loss", "wall", digits=2)
_HOSTILE: Final = Column("2 % loss and more, 3 rebindings, 3 MB: Mbit/s", "link-hostile", "rate", digits=1)


class Results:
    """What a run of the suite came to.

    Args:
        document: As it is kept as JSON: ``machine``, ``versions``, ``runs``, ...
    """

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self._figures: dict[tuple[str, str], dict[int, dict[str, float]]] = {}
        self._errors: dict[tuple[str, str], str] = {}
        self.names: dict[str, str] = {}
        for each in document["runs"]:
            key = (each["measure"], each["name"])
            self.names[each["name"]] = each["title"]
            if "figures" in each:
                self._figures.setdefault(key, {})[each["repetition"]] = each["figures"]
            else:
                self._errors[key] = each["error"]

    @property
    def errors(self) -> dict[tuple[str, str], str]:
        """The last error of each measure and name that had one."""
        return self._errors

    def values(self, name: str, column: Column) -> dict[int, float]:
        """Return a figure by repetition."""
        repetitions = self._figures.get((column.measure, name), {})
        return {number: figures[column.figure] for number, figures in repetitions.items() if column.figure in figures}

    def median(self, name: str, column: Column) -> float | None:
        values = self.values(name, column).values()
        return statistics.median(values) if values else None

    def ratio(self, ours: str, theirs: str, column: Column) -> float | None:
        """Return how many times as good ours is: the median over pairs of one repetition, which share its noise."""
        mine, other = self.values(ours, column), self.values(theirs, column)
        pairs = [
            (mine[number], other[number]) for number in mine.keys() & other.keys() if other[number] and mine[number]
        ]
        if not pairs:
            return None
        ratios = [b / a if column.less_is_better else a / b for a, b in pairs]
        return statistics.median(ratios)

    def cell(self, name: str, column: Column) -> str:
        """Return the median with its range."""
        values = self.values(name, column).values()
        if not values:
            return "failed" if (column.measure, name) in self._errors else MISSING
        middle = column.text(statistics.median(values))
        low, high = column.text(min(values)), column.text(max(values))
        return middle if low == high else f"{middle} ({low}–{high})"  # noqa: RUF001  the dash of a range


# Tables


def machine_text(results: Results) -> str:
    document = results.document
    machine = document["machine"]
    libraries = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    return (
        f"{machine['date']}: {machine['cores']} cores of {machine['processor']}, {machine['memory']}, "
        f"{machine['system']}, socket buffers of {machine['receive buffer']}; Python {machine['python']}, "
        f"{machine['tls']}; {libraries}. Load average {document['load_before']} before and {document['load_after']} "
        f"after the run, {document['repetitions']} repetitions of {document['seconds']:g} s each."
    )


def main_table(results: Results) -> str:
    return _peer_table(results, COLUMNS)


def cost_table(results: Results) -> str:
    return _peer_table(results, COST_COLUMNS)


def ratio_table(results: Results) -> str:
    """Return how STT over UDP compares: more than 1 is in its favour."""
    rows = []
    like_for_like = COLUMNS[0]
    for name in (name for name in PEERS if not name.startswith("stt-")):
        ratios = [results.ratio("stt-udp-1472", name, like_for_like)]
        ratios += [results.ratio("stt-ws", name, like_for_like)]
        ratios += [results.ratio("stt-udp", name, column) for column in COLUMNS]
        if any(ratio is not None for ratio in ratios):
            rows.append([PEERS[name].title, *(MISSING if each is None else f"{each:.2f}" for each in ratios)])
    titles = ["1472-byte datagrams: bulk a core", "ws://: bulk a core", *(column.title for column in COLUMNS)]
    return _table(["STT udp:// is times as good as", *titles], rows)


def link_table(results: Results) -> str:
    names = [name for name in results.names if any(results.cell(name, each) != MISSING for each in (_LOSS, _HOSTILE))]
    return _table(
        ["", _LOSS.title, _HOSTILE.title],
        [[results.names[name], results.cell(name, _LOSS), results.cell(name, _HOSTILE)] for name in names],
    )


def failure_text(results: Results) -> str:
    if not results.errors:
        return "Nothing failed."
    lines = [f"- {results.names[name]}, {measure}: {error}" for (measure, name), error in results.errors.items()]
    return "\n".join(lines)


def goal_table(results: Results) -> str:
    rows = []
    for goal in _goals():
        value = results.median(goal.name, goal.column)
        bound = goal.bound(results)
        if value is None or bound is None:
            verdict = "not measured"
        else:
            is_met = value <= bound if goal.column.less_is_better else value >= bound
            verdict = "met" if is_met else f"**missed**, {goal.column.text(bound)} wanted"
        rows.append([goal.text, results.cell(goal.name, goal.column), verdict])
    return _table(["goal", "measured", ""], rows)


SECTIONS: Final[dict[str, Callable[[Results], str]]] = {
    "machine": machine_text,
    "table": main_table,
    "ratios": ratio_table,
    "costs": cost_table,
    "links": link_table,
    "goals": goal_table,
    "failures": failure_text,
}


# Internals


@dataclass(frozen=True)
class _Goal:
    text: str
    name: str
    column: Column
    bound: Callable[[Results], float | None]


def _goals() -> list[_Goal]:
    core, _, cpu, p50, messages, handshakes, at_once, streams, idle = COLUMNS

    def at(value: float) -> Callable[[Results], float]:
        return lambda _: value

    def level_with(name: str, column: Column) -> Callable[[Results], float | None]:
        return lambda results: results.median(name, column)

    idle_10000 = Column("", "idle-10000", "accepting", less_is_better=True)
    answer = Column("", "idle-10000", "p99", scale=1e-3, digits=1, less_is_better=True)
    start = Column("", "startup", "over_dependencies", less_is_better=True)
    return [
        _Goal("UDP bulk, 1472-byte datagrams: 200 MB/s a core", "stt-udp-1472", core, at(200)),
        _Goal("UDP bulk, MTU by probing: ahead of TLS on uvloop", "stt-udp", core, level_with("tls-uvloop", core)),
        _Goal("WebSocket bulk: ahead of websockets over TLS", "stt-ws", core, level_with("websockets", core)),
        _Goal(f"WebSocket bulk: ahead of Noise over TCP ({NOISE_CORE} MB/s)", "stt-ws", core, at(NOISE_CORE)),
        _Goal("round trip of 64 B: under 160 µs of CPU", "stt-udp", cpu, at(160)),
        _Goal("round trip of 64 B: p50 no worse than ZeroMQ CURVE, µs", "stt-udp", p50, level_with("zmq", p50)),
        _Goal("messages of 64 B on one stream: 200,000/s", "stt-udp", messages, at(200_000)),
        _Goal("handshakes one by one: 500/s", "stt-udp", handshakes, at(500)),
        _Goal("handshakes, 50 at once: 800/s", "stt-udp", at_once, at(800)),
        _Goal("short streams: 6,000/s", "stt-udp", streams, at(6000)),
        _Goal("an idle session: 16 KiB", "stt-udp", idle, at(16)),
        _Goal("an idle session of 10,000: 16 KiB", "stt-udp", idle_10000, at(16)),
        _Goal("10,000 sessions: still responsive, p99 of a round trip under 10 ms", "stt-udp", answer, at(0.010e6)),
        _Goal("1 % loss, 25 ms each way, 200 Mbit/s: 13 MB/s", "stt-udp+bbr", _LOSS, at(13)),
        _Goal("2 % loss and more, 3 rebindings: whole, at 18 Mbit/s", "stt-udp", _HOSTILE, at(18)),
        _Goal("`import stt_core`: 50 ms over its dependencies", "startup", start, at(50)),
    ]


def _peer_table(results: Results, columns: Iterable[Column]) -> str:
    columns = tuple(columns)
    rows = []
    for name in PEERS:
        cells = [results.cell(name, column) for column in columns]
        if any(cell != MISSING for cell in cells):
            rows.append([PEERS[name].title, *cells])
    return _table(["", *(column.title for column in columns)], rows)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def run_record(run: Run, repetition: int) -> dict[str, Any]:
    """Return what identifies a run in the document."""
    return {"measure": run.measure, "name": run.name, "title": run.title, "repetition": repetition}
