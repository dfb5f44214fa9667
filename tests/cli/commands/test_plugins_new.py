"""Does ``stt plugins new`` write distributions whose tests pass as written, and overwrite nothing?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING

import pytest

from stt_cli.main import stt
from stt_cli.scaffold import KINDS

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import CliRunner


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_complete_valid_and_passes_its_own_tests(
    runner: CliRunner, tmp_path: Path, kind: str
) -> None:
    created = runner.invoke(stt, ["plugins", "new", kind, f"acme-{kind}-new", "--out", str(tmp_path), "--json"])
    folder = tmp_path / f"acme-{kind}-new"

    assert created.exit_code == 0, created.output
    assert json.loads(created.stdout) == {
        "event": "created",
        "kind": kind,
        "name": f"acme-{kind}-new",
        "path": str(folder),
    }
    assert {path.name for path in folder.iterdir()} == {"pyproject.toml", "README.md", "CHANGELOG.md", "src", "tests"}
    assert "## Licence" in (folder / "README.md").read_text(encoding="utf-8")
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    package = folder.name.replace("-", "_")
    assert project["entry-points"]["stt.v1"] == {f"acme-{kind}-new": f"{package}.plugin"}
    tests = subprocess.run(
        # Other plugins of pytest cost time and are not needed.
        [sys.executable, "-B", "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "tests"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": "src", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert tests.returncode == 0, tests.stdout
    assert "passed" in tests.stdout
    checked = runner.invoke(stt, ["plugins", "validate", str(folder)])
    assert checked.exit_code == 0, checked.stdout
    assert "failed" not in checked.stdout


def test_stt_in_front_is_no_part_of_what_things_are_called(runner: CliRunner, tmp_path: Path) -> None:
    runner.invoke(stt, ["plugins", "new", "endpoint", "stt-acme-clock", "--out", str(tmp_path)])

    folder = tmp_path / "stt-acme-clock"
    assert '"acme.clock"' in (folder / "src" / "stt_acme_clock" / "endpoint.py").read_text(encoding="utf-8")
    assert 'acme-clock = "stt_acme_clock.plugin"' in (folder / "pyproject.toml").read_text(encoding="utf-8")


def test_what_is_there_is_kept(runner: CliRunner, tmp_path: Path) -> None:
    (tmp_path / "acme-clock").mkdir()

    result = runner.invoke(stt, ["plugins", "new", "endpoint", "acme-clock", "--out", str(tmp_path)])

    assert result.exit_code == 1
    assert "is there already, and is kept" in result.stderr
    assert list((tmp_path / "acme-clock").iterdir()) == []


@pytest.mark.parametrize(
    "name",
    [
        # Not written as names are:
        *("", "Acme", "acme_clock", "../up", "a/b", "acme--clock", "-a", "1st", "ä", "acme\n", "a" * 41),
        # The names of something else:
        *("json", "class", "stt", "stt-core", "stt-udp", "stt-1", "stt-class"),
    ],
)
def test_a_name_that_cannot_work_is_refused(runner: CliRunner, tmp_path: Path, name: str) -> None:
    result = runner.invoke(stt, ["plugins", "new", "endpoint", "--out", str(tmp_path), "--", name])

    assert result.exit_code == 2
    assert result.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name not in {"cache", "data"}] == []


def test_a_kind_that_there_is_not_is_refused(runner: CliRunner) -> None:
    result = runner.invoke(stt, ["plugins", "new", "teapot", "acme-clock"])

    assert result.exit_code == 2
    assert "crypto-suite" in result.stderr
