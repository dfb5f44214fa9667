"""What the tests of the command line share."""

from __future__ import annotations

import importlib.metadata
import os
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from stt_cli.seed_files import write_seed_file

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    """Return a runner of commands in an environment of their own."""
    for name in ("STT_SEED", "STT_SEED_FILE", "STT_NODE_SEED", "STT_NODE_SEED_FILE", "STT_DISABLE_PLUGINS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return CliRunner()


@pytest.fixture
def seed_file(tmp_path: Path) -> Path:
    path = tmp_path / "shared.seed"
    write_seed_file(path, bytes(range(32)))
    return path


@pytest.fixture
def every_plugin() -> None:
    """Skip a test that needs other distributions of this project as well, where the command line is installed alone."""
    missing = {"streaming", "udp", "websocket"} - importlib.metadata.entry_points(group="stt.v1").names
    if missing:
        assert os.environ.get("TOX_ENV_NAME", "cli").endswith("cli"), f"not installed: {missing}"
        pytest.skip(f"not installed: {', '.join(sorted(missing))}")
