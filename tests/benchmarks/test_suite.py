"""Does the suite of benchmarks work, so that its figures can be had at any time?"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

from benchmarks.documentation import fill_in
from benchmarks.report import SECTIONS, Results

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "explanation" / "performance.md"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
        cwd=ROOT,
    )


def test_smoke_run_measures_stt_alone_and_writes_figures_and_a_picture(tmp_path: Path) -> None:
    done = run("--smoke", "--output", str(tmp_path))

    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert all("error" not in each for each in document["runs"])
    assert {each["name"] for each in document["runs"]} == {"stt-udp", "stt-memory"}
    measures = {"bulk", "round-trip", "messages", "handshakes", "streams", "datagrams", "datagrams-beside-bulk"}
    assert measures | {"idle", "link-hostile"} == {each["measure"] for each in document["runs"]}
    assert ET.parse(tmp_path / "results.svg").getroot().tag.endswith("svg")


def test_an_unknown_peer_is_refused_with_the_known_ones() -> None:
    done = run("--peers", "carrier-pigeon")

    assert done.returncode == 2
    assert "carrier-pigeon" in done.stderr
    assert "tls-uvloop" in done.stderr


def test_page_is_what_the_tool_makes_of_the_figures_beside_it() -> None:
    page = PAGE.read_text(encoding="utf-8")
    results = Results(json.loads(PAGE.with_suffix(".json").read_text(encoding="utf-8")))

    assert fill_in(page, {name: make(results) for name, make in SECTIONS.items()}) == page
