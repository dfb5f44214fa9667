"""Is the last state of a chamber remembered, privately, and forgotten when asked?"""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from stt_chamber import Position
from stt_chamber.seen import SeenPosition
from stt_core.errors import ConfigError

POSITION = Position(bytes(16), 7, bytes(range(32)))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    return tmp_path


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_position_is_kept_for_its_chamber_alone(folder: Path) -> None:
    SeenPosition(bytes(16)).save(POSITION)

    assert SeenPosition(bytes(16)).load() == POSITION
    assert SeenPosition(b"x" * 16).load() is None
    [file] = files(folder)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_forgotten_position_is_gone(folder: Path) -> None:
    seen = SeenPosition(bytes(16))
    seen.save(POSITION)
    seen.forget()
    seen.forget()

    assert seen.load() is None
    assert files(folder) == []


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"sequence": "x", "digest": ""}', b"\xff"])
def test_a_broken_file_is_an_error_and_no_trust(folder: Path, content: bytes) -> None:
    seen = SeenPosition(bytes(16))
    seen.save(POSITION)
    files(folder)[0].write_bytes(content)

    with pytest.raises(ConfigError, match="cannot be read"):
        seen.load()
