"""Adds up the tests of a run of tox and prints `N passed, N failed`; exits 1 if anything failed.

    python .ci/summary.py RESULT_JSON REPORTS_FOLDER

RESULT_JSON is what tox says of its environments; REPORTS_FOLDER has the JUnit report of each that ran pytest. An
environment that failed without a failed test, or that ran pytest and left no report, counts as one failure.
"""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path


def main(result_file: Path, reports: Path) -> int:
    passed = failed = 0
    try:
        environments = json.loads(result_file.read_text(encoding="utf-8"))["testenvs"]
    except (OSError, ValueError, KeyError) as error:
        print(f"no result of tox: {error}")
        environments, failed = {}, 1
    for name, environment in sorted(environments.items()):
        result = environment.get("result")
        if result is None:  # known to tox, but not asked for
            continue
        if result["skipped"]:
            print(f"{name:16} skipped: its Python was not found")
            continue
        ran_pytest = any(Path(step["command"][0]).name == "pytest" for step in environment.get("test", ()))
        good, bad, skipped = read_report(reports / f"{name}.xml") if ran_pytest else (0, 0, 0)
        if bad == 0 and (not result["success"] or (ran_pytest and good == 0)):
            bad = 1
        tests = f"{good:5} passed, {bad} failed, {skipped} skipped" if ran_pytest else ""
        print(f"{name:16} {'FAILED' if bad else 'ok':6} {result['duration']:6.1f} s {tests}".rstrip())
        passed += good
        failed += bad
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


def read_report(path: Path) -> tuple[int, int, int]:
    """Return how many tests passed, failed and were skipped; one failure where there is no whole report."""
    try:
        suites = list(ET.parse(path).iter("testsuite"))  # noqa: S314  written by our own pytest
    except (OSError, ET.ParseError) as error:
        print(f"no report: {error}")
        return 0, 1, 0
    tests, failures, errors, skipped = (
        sum(int(suite.get(kind, 0)) for suite in suites) for kind in ("tests", "failures", "errors", "skipped")
    )
    return tests - failures - errors - skipped, failures + errors, skipped


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
