"""Is the last state of a chamber remembered, privately, and forgotten when asked?"""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from stt_chamber import Position
from stt_chamber.seen import SeenPlace, SeenPosition
from stt_core.errors import ConfigError

POSITION = Position(bytes(16), 7, bytes(range(32)))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    return tmp_path


def files(folder: Path) -> list[Path]:
    """Return the files that something is kept in."""
    return [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"]


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


def test_each_replica_has_a_position_of_its_own(folder: Path) -> None:
    ahead = Position(bytes(16), 9, bytes(32))
    SeenPosition(bytes(16), "sqlite:///mine").save_replica(ahead)
    SeenPosition(bytes(16), "stt+udp://host:4433").save_replica(POSITION)

    assert SeenPosition(bytes(16), "sqlite:///mine").load() == ahead
    assert SeenPosition(bytes(16), "stt+udp://host:4433").load() == POSITION
    assert SeenPosition(bytes(16), "sqlite:///copied").load() == ahead

    later = Position(bytes(16), 10, bytes(32))
    SeenPosition(bytes(16), "stt+udp://host:4433").save(later)
    assert SeenPosition(bytes(16), "sqlite:///mine").load() == ahead
    assert SeenPosition(bytes(16), "sqlite:///copied").load() == later
    assert "4433" not in "".join(str(path) + path.read_text() for path in files(folder))


@pytest.mark.parametrize("is_replica", [False, True])
def test_a_command_that_ends_late_does_not_forget_a_later_state(folder: Path, is_replica: bool) -> None:  # noqa: FBT001  a parameter
    reading, writing = (SeenPosition(bytes(16), "sqlite:///mine") for _ in range(2))
    if is_replica:
        reading.save_replica(POSITION)
    later = Position(bytes(16), POSITION.sequence + 10, bytes(32))

    reading.save(POSITION)
    writing.save(later)
    reading.save(POSITION)

    assert reading.load() == later
    assert len(files(folder)) == 1 + is_replica
    reading.forget()
    reading.save(POSITION)
    assert reading.load() == POSITION


def test_a_replica_is_the_same_wherever_a_relative_url_is_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    SeenPosition(bytes(16), "sqlite://mine").save_replica(POSITION)
    SeenPosition(bytes(16)).save(Position(bytes(16), 9, bytes(32)))

    assert SeenPosition(bytes(16), f"sqlite://{folder}/mine").load() == POSITION


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"sequence": "x", "digest": ""}', b"\xff"])
def test_a_broken_file_is_an_error_and_no_trust(folder: Path, content: bytes) -> None:
    seen = SeenPosition(bytes(16))
    seen.save(POSITION)
    files(folder)[0].write_bytes(content)

    with pytest.raises(ConfigError, match="cannot be read"):
        seen.load()


def test_a_place_remembers_its_chamber(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    place = SeenPlace("sqlite://store", "name")
    place.save(b"first chamber id")
    place.save(b"other chamber id")

    assert SeenPlace(f"sqlite://{folder}/store", "name").load() == b"other chamber id"
    assert SeenPlace("sqlite://store", "").load() is None
    assert SeenPlace("sqlite://stor", "ename").load() is None
    [file] = files(folder)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    place.forget()
    assert place.load() is None


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"chamber": "x"}', b'{"chamber": 1}', b"\xff"])
def test_a_broken_file_of_a_place_is_an_error_and_no_trust(folder: Path, content: bytes) -> None:
    place = SeenPlace("redis://host", "")
    place.save(bytes(16))
    files(folder)[0].write_bytes(content)

    with pytest.raises(ConfigError, match="cannot be read"):
        place.load()


def test_no_part_of_a_place_is_kept_readably(folder: Path) -> None:
    SeenPlace("redis://user:password@host", "").save(bytes(16))

    [file] = files(folder)
    assert b"password" not in file.read_bytes() + str(file).encode()
