"""Does the example of a plugin install, keep the rules, and carry a session between two nodes?"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "stt_framed"


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the example's folder, so that building it leaves nothing in the tree."""
    folder = tmp_path_factory.mktemp("example") / "stt_framed"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def installed(example: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that the example is installed into, from its own one and without a network."""
    if importlib.util.find_spec("hatchling") is None:
        assert "TOX_ENV_NAME" not in os.environ, "hatchling has to be among the dependencies of this environment"
        pytest.skip("hatchling, which builds the example, is not installed")
    target = tmp_path_factory.mktemp("installed")
    options = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    run("-m", "pip", "install", *options, "--target", target, example)
    return target


def run(*arguments: str | Path, path: Path | None = None, cwd: Path | None = None) -> str:
    """Run Python to its end, with what is installed into ``path``; return what it prints."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STT_")}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
        cwd=cwd,
        env=environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def plugin(path: Path) -> Mapping[str, Any]:
    script = (
        "import json, attrs; from stt_core import load_plugins;"
        "print(json.dumps([attrs.asdict(info) for info in load_plugins().plugins], default=str))"
    )
    (found,) = (info for info in json.loads(run("-c", script, path=path)) if info["name"] == "framed")
    return {str(name): value for name, value in found.items()}


def test_it_is_found_by_its_entry_point(installed: Path) -> None:
    found = plugin(installed)

    assert found["state"] == "PluginState.ACTIVE", found["traceback"]
    assert found["distribution"] == "stt-framed 0.1.0"
    assert sorted(found["offers"]) == [
        "command note",
        "endpoint framed.digest",
        "frame type framed.note",
        "transport tcp",
        "transport unix",
    ]


def test_its_own_tests_run_the_kits_and_pass(example: Path, installed: Path) -> None:
    output = run("-m", "pytest", "-q", "-pno:asyncio", "-pno:cacheprovider", "tests", path=installed, cwd=example)

    assert "passed" in output


@pytest.mark.parametrize("url", ["tcp://127.0.0.1:0", "unix://{folder}/socket"])
def test_two_nodes_have_a_session_over_it(url: str, example: Path, installed: Path, tmp_path: Path) -> None:
    output = run(example / "demo.py", url.format(folder=tmp_path), path=installed)

    assert output.splitlines()[:2] == ["file: True", "endpoint: True"]
    assert url.partition("{")[0].removesuffix(":0") in output.splitlines()[2]


def test_its_command_is_one_of_stt(installed: Path, stt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(installed))
    listener = stt.listen("echo", url="tcp://127.0.0.1:0")

    done = stt.run("note", listener.url, "Hello", "--seed", stt.seed, "--json", node="other")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["event"] == "noted"
    assert "Send a short note to a peer." in stt.run("--help").stdout
