"""Can the machinery of the tests lie: test a stale wheel, or count a lost run as a good one?"""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CI = Path(__file__).resolve().parents[2] / ".ci"

REPORT = '<testsuites><testsuite tests="{0}" failures="{1}" errors="{2}" skipped="{3}"/></testsuites>'


@pytest.fixture
def install() -> dict[str, Any]:
    return runpy.run_path(str(CI / "install.py"))


def make_distribution(folder: Path) -> Path:
    package = folder / "example" / "src" / "example"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("ONE = 1\n")
    (folder / "example" / "pyproject.toml").write_text("[project]\n")
    return folder / "example"


@pytest.mark.parametrize("change", ["edit", "add", "remove", "rename"])
def test_whatever_changes_in_a_distribution_its_old_wheel_is_not_taken(
    install: dict[str, Any], tmp_path: Path, change: str
) -> None:
    distribution = make_distribution(tmp_path)
    module = distribution / "src" / "example" / "__init__.py"
    before = install["fingerprint"](distribution)

    if change == "edit":
        module.write_text("ONE = 2\n")
    elif change == "add":
        (module.parent / "py.typed").touch()
    elif change == "remove":
        module.unlink()
    else:
        module.rename(module.parent / "other.py")

    assert install["fingerprint"](distribution) != before


def test_what_python_leaves_behind_changes_nothing(install: dict[str, Any], tmp_path: Path) -> None:
    distribution = make_distribution(tmp_path)
    before = install["fingerprint"](distribution)

    cache = distribution / "src" / "example" / "__pycache__"
    cache.mkdir()
    (cache / "__init__.cpython-311.pyc").write_bytes(b"anything")

    assert install["fingerprint"](distribution) == before


def summary(folder: Path, environments: dict[str, Any] | None, reports: dict[str, str]) -> tuple[int, list[str]]:
    """Run summary.py; return its exit status and its lines."""
    if environments is not None:
        (folder / "result.json").write_text(json.dumps({"testenvs": environments}))
    for name, report in reports.items():
        (folder / f"{name}.xml").write_text(report)
    command = [sys.executable, str(CI / "summary.py"), str(folder / "result.json"), str(folder)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return done.returncode, done.stdout.splitlines()


def environment(*, success: bool = True, skipped: bool = False, command: str = "/a/bin/pytest") -> dict[str, Any]:
    result = {"success": success, "exit_code": int(not success), "duration": 1.5, "skipped": skipped}
    return {"result": result, "test": [{"command": [command, "tests"], "retcode": int(not success)}]}


def test_the_last_line_is_the_sum_of_all_runs(tmp_path: Path) -> None:
    environments = {
        "one": environment(),
        "two": environment(),
        "lint": environment(command="/a/bin/ruff"),
        "not-run": {},
    }
    reports = {"one": REPORT.format(10, 0, 0, 2), "two": REPORT.format(5, 0, 0, 0)}

    status, lines = summary(tmp_path, environments, reports)

    assert (status, lines[-1]) == (0, "13 passed, 0 failed")


def test_failures_and_errors_are_both_failed(tmp_path: Path) -> None:
    environments = {"one": environment(success=False)}

    status, lines = summary(tmp_path, environments, {"one": REPORT.format(10, 2, 1, 3)})

    assert (status, lines[-1]) == (1, "4 passed, 3 failed")


def test_an_environment_that_fails_outside_its_tests_is_one_failure(tmp_path: Path) -> None:
    environments = {"one": environment(), "lint": environment(success=False, command="/a/bin/ruff")}

    status, lines = summary(tmp_path, environments, {"one": REPORT.format(3, 0, 0, 0)})

    assert (status, lines[-1]) == (1, "3 passed, 1 failed")


@pytest.mark.parametrize("report", [{}, {"one": "<testsuites><tests"}, {"one": "<testsuites/>"}])
def test_a_run_without_a_whole_report_is_one_failure(tmp_path: Path, report: dict[str, str]) -> None:
    status, lines = summary(tmp_path, {"one": environment()}, report)

    assert (status, lines[-1]) == (1, "0 passed, 1 failed")


def test_a_python_that_was_not_found_is_neither(tmp_path: Path) -> None:
    environments = {"one": environment(), "py399-core": {"result": environment(skipped=True)["result"]}}

    status, lines = summary(tmp_path, environments, {"one": REPORT.format(3, 0, 0, 0)})

    assert (status, lines[-1]) == (0, "3 passed, 0 failed")


@pytest.mark.parametrize("environments", [None, {}])
def test_nothing_run_is_a_failure(tmp_path: Path, environments: dict[str, Any] | None) -> None:
    status, lines = summary(tmp_path, environments, {})

    assert status == 1
    assert lines[-1].startswith("0 passed, ")
