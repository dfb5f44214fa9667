"""Measures STT beside what else a Python program could use, and prints the table.

    python -m benchmarks                                       all peers that are installed, some 25 minutes
    python -m benchmarks --peers stt-udp,tls-uvloop --measures bulk,round-trip
    python -m benchmarks --smoke                               STT alone, in seconds: does the suite work?
    python -m benchmarks --profile sender --peers stt-udp-1472 --measures bulk
    python -m benchmarks --from results.json --update-docs     put earlier figures on the page

Always two processes on 127.0.0.1 (memory:// excepted), measured at the receiver. The runs of all peers take turns
within a repetition, so that their ratios hold on a machine that is busy with something else.
"""

from __future__ import annotations

import argparse
import json
import pstats
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from benchmarks.certificates import make_certificates
from benchmarks.documentation import fill_in
from benchmarks.machine import describe_load, describe_machine, versions
from benchmarks.measures import MEASURES, Limits
from benchmarks.peers import PEERS
from benchmarks.plot import draw
from benchmarks.report import SECTIONS, Results, run_record
from benchmarks.runs import ROOT, Run, RunError, perform, plan
from benchmarks.startup import measure_startup

_PAGE: Final = ROOT / "docs" / "explanation" / "performance.md"
_STARTUP: Final = "startup"
_ONCE: Final = frozenset({"idle-10000"})
_SMOKE_PEERS: Final = ("stt-udp", "stt-memory")
_SMOKE_MEASURES: Final = (
    *("bulk", "round-trip", "messages", "handshakes", "streams", "datagrams", "datagrams-beside-bulk"),
    *("idle", "link-hostile"),
)


def main() -> int:
    arguments = _parse()
    if arguments.source:
        results = Results(json.loads(arguments.source.read_text(encoding="utf-8")))
    elif arguments.profile:
        return _profile(arguments)
    else:
        results = Results(_measure(arguments))
    text = {name: make(results) for name, make in SECTIONS.items()}
    print("", *text.values(), sep="\n\n")
    if not arguments.source:
        arguments.output.mkdir(parents=True, exist_ok=True)
        _write(arguments.output, results, "results")
        print(f"\nwritten: {arguments.output / 'results.json'} and results.svg")
    if arguments.update_docs:
        _PAGE.write_text(fill_in(_PAGE.read_text(encoding="utf-8"), text), encoding="utf-8")
        _write(_PAGE.parent, results, _PAGE.stem)
        print(f"updated: {_PAGE.relative_to(ROOT)}")
    return int(any(name.startswith("stt-") for _, name in results.errors))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", help=f"comma list of {', '.join(PEERS)}")
    parser.add_argument("--measures", help=f"comma list of {', '.join([*MEASURES, _STARTUP])}")
    parser.add_argument("--seconds", type=float, default=1.0, help="that each measured part lasts")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--sessions", type=int, default=1000, help="of the measure idle")
    parser.add_argument("--settle", type=float, default=2.0, help="seconds before the memory of idle sessions is read")
    parser.add_argument("--output", type=Path, default=Path(".benchmarks"), help="folder for JSON and SVG")
    parser.add_argument("--from", dest="source", type=Path, help="show figures of an earlier run")
    parser.add_argument("--update-docs", action="store_true", help="write the tables into docs/explanation")
    parser.add_argument("--profile", choices=["sender", "receiver"], help="profile that side of one run instead")
    parser.add_argument("--smoke", action="store_true", help="STT alone, as short as can be")
    arguments = parser.parse_args()
    arguments.peers = _choose(parser, arguments.peers, list(PEERS))
    arguments.measures = _choose(parser, arguments.measures, [*MEASURES, _STARTUP])
    if arguments.smoke:
        arguments.peers = [name for name in arguments.peers if name in _SMOKE_PEERS]
        arguments.measures = [name for name in arguments.measures if name in _SMOKE_MEASURES]
        arguments.seconds, arguments.repetitions, arguments.sessions, arguments.settle = 0.02, 1, 20, 0.05
    return arguments


def _choose(parser: argparse.ArgumentParser, text: str | None, known: list[str]) -> list[str]:
    chosen = known if text is None else text.split(",")
    if unknown := [name for name in chosen if name not in known]:
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    return chosen


def _measure(arguments: argparse.Namespace) -> dict[str, Any]:
    peers = _installed(arguments.peers)
    document: dict[str, Any] = {
        "machine": describe_machine(),
        "versions": versions({"cryptography"}.union(*(PEERS[name].distributions for name in peers))),
        "seconds": arguments.seconds,
        "repetitions": arguments.repetitions,
        "load_before": describe_load(),
        "runs": [],
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_certificates(folder)
        for repetition in range(arguments.repetitions):
            for measure in arguments.measures:
                if repetition and measure in _ONCE:
                    continue
                if measure == _STARTUP:
                    document["runs"].append(_startup_record(repetition))
                    continue
                sessions = 10_000 if measure == "idle-10000" else arguments.sessions
                limits = Limits(arguments.seconds, sessions, arguments.settle)
                document["runs"] += [_attempt(run, repetition, limits, folder) for run in plan(measure, peers)]
    return document | {"load_after": describe_load()}


def _installed(names: list[str]) -> list[str]:
    present = []
    for name in names:
        missing = PEERS[name].missing()
        if missing:
            print(f"{PEERS[name].title}: left out, {', '.join(missing)} is not installed")
        else:
            present.append(name)
    return present


def _attempt(run: Run, repetition: int, limits: Limits, folder: Path) -> dict[str, Any]:
    record = run_record(run, repetition)
    print(f"{repetition + 1} {run.measure:14} {run.title:34}", end="", flush=True)
    try:
        record["figures"] = perform(run, limits, folder)
        print("  ".join(f"{name} {value:,.2f}" for name, value in list(record["figures"].items())[:4]))
    except RunError as error:
        record["error"] = str(error)
        print(f"FAILED: {error}")
    return record


def _startup_record(repetition: int) -> dict[str, Any]:
    figures = measure_startup()
    return {"measure": _STARTUP, "name": _STARTUP, "title": "start", "repetition": repetition, "figures": figures}


def _profile(arguments: argparse.Namespace) -> int:
    role = {"sender": "connect", "receiver": "accept"}[arguments.profile]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_certificates(folder)
        limits = Limits(arguments.seconds, arguments.sessions, arguments.settle)
        for measure in arguments.measures[:1]:
            for run in plan(measure, arguments.peers[:1]):
                profile = folder / "profile"
                print(run.title, measure, perform(run, limits, folder, {role: profile}))
                pstats.Stats(str(profile)).sort_stats("tottime").print_stats(40)
    return 0


def _write(folder: Path, results: Results, stem: str) -> None:
    document = json.dumps(results.document, indent=1)
    (folder / f"{stem}.json").write_text(f"{document}\n", encoding="utf-8")
    (folder / f"{stem}.svg").write_text(draw(results), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
