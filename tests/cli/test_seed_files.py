"""Do seeds come from where they should, and stay secret on the way?"""

from __future__ import annotations

import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from stt_cli.seed_files import MAX_SEED_FILE_SIZE, load_seeds, own_node_seed, read_seed_file, write_seed_file
from stt_core.errors import ConfigError
from stt_core.seeds import encode_seed

if TYPE_CHECKING:
    from pathlib import Path

ONE, TWO = bytes(range(32)), bytes(range(1, 33))


def silent(text: str) -> None:
    pytest.fail(f"unexpected warning: {text}")


def seed_file(path: Path, *seeds: bytes) -> Path:
    path.write_text("".join(f"{encode_seed(seed)}\n" for seed in seeds))
    path.chmod(0o600)
    return path


# Reading


def test_a_written_seed_is_read_again_and_its_file_is_private(tmp_path: Path) -> None:
    path = tmp_path / "a.seed"

    write_seed_file(path, ONE)

    assert read_seed_file(path, silent) == (ONE,)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_seed_file_is_never_overwritten(tmp_path: Path) -> None:
    path = seed_file(tmp_path / "a.seed", ONE)

    with pytest.raises(FileExistsError):
        write_seed_file(path, TWO)

    assert read_seed_file(path, silent) == (ONE,)
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_can_hold_several_seeds_and_comments(tmp_path: Path) -> None:
    path = seed_file(tmp_path / "a.seed")
    path.write_text(f"# ours, since May\n{encode_seed(ONE)}\n\n  {encode_seed(TWO)}\r\n")

    assert read_seed_file(path, silent) == (ONE, TWO)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_file_that_others_can_use_is_warned_of(tmp_path: Path, mode: int) -> None:
    path = seed_file(tmp_path / "a.seed", ONE)
    path.chmod(mode)
    warnings: list[str] = []

    assert read_seed_file(path, warnings.append) == (ONE,)
    assert len(warnings) == 1
    assert f"chmod 600 {path}" in warnings[0]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no seed"),
        (b"# only a comment\n", "no seed"),
        (b"hello\n", "stt-seed-1:"),
        (encode_seed(ONE)[:-1].encode(), "checksum|cut short"),
        (bytes(range(128, 160)), "no seed file"),
        (b"x" * (MAX_SEED_FILE_SIZE + 1), "too large"),
    ],
)
def test_a_file_that_is_none_is_refused_with_the_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.seed"
    path.write_bytes(content)
    path.chmod(0o600)

    with pytest.raises(ConfigError, match=reason) as caught:
        read_seed_file(path, silent)

    assert str(path) in str(caught.value)


def test_no_part_of_a_mistyped_seed_is_told(tmp_path: Path) -> None:
    text = encode_seed(ONE)
    path = tmp_path / "a.seed"
    path.write_text(text[:20] + ("a" if text[20] != "a" else "b") + text[21:])
    path.chmod(0o600)

    with pytest.raises(ConfigError) as caught:
        read_seed_file(path, silent)

    letters = text.partition(":")[2].split("-")
    assert not [group for group in letters if group in str(caught.value)]


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_seed_file(path, silent)


# Where they come from


def test_files_go_before_the_environment(tmp_path: Path) -> None:
    files = [seed_file(tmp_path / "1", ONE), seed_file(tmp_path / "2", TWO)]

    assert load_seeds(files, "STT_SEED", {"STT_SEED": encode_seed(bytes(32))}, silent) == (ONE, TWO)


def test_the_environment_holds_a_text_or_a_path(tmp_path: Path) -> None:
    path = seed_file(tmp_path / "1", ONE)

    assert load_seeds([], "STT_SEED", {"STT_SEED": f"{encode_seed(TWO)}\n"}, silent) == (TWO,)
    assert load_seeds([], "STT_SEED", {"STT_SEED_FILE": str(path)}, silent) == (ONE,)
    assert load_seeds([], "STT_SEED", {"STT_SEED": "", "STT_SEED_FILE": ""}, silent) == ()


def test_an_environment_that_says_two_things_is_refused(tmp_path: Path) -> None:
    environment = {"STT_SEED": encode_seed(TWO), "STT_SEED_FILE": str(tmp_path)}

    with pytest.raises(ConfigError, match="both"):
        load_seeds([], "STT_SEED", environment, silent)


# The node's own


@pytest.fixture
def data_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def find_node_seed(folder: Path) -> Path:
    (path,) = folder.rglob("node.seed")
    return path


def test_the_seed_of_a_node_is_made_once_and_kept_private(data_home: Path) -> None:
    seed = own_node_seed(silent)

    assert own_node_seed(silent) == seed
    path = find_node_seed(data_home)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_processes_that_start_at_once_have_the_same_seed(data_home: Path) -> None:
    script = (
        "from stt_cli.seed_files import own_node_seed; import sys; sys.stdin.read(); print(own_node_seed(print).hex())"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]

    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
    seeds = set()
    for process in processes:
        with process:
            assert process.stdout is not None
            seeds.add(process.stdout.read())

    assert len(seeds) == 1
    assert find_node_seed(data_home).parent.exists()


def test_a_data_folder_that_cannot_be_made_is_an_error_that_says_what_to_do(data_home: Path) -> None:
    for name in ("stt", "Library"):  # Linux, macOS
        (data_home / name).write_text("not a folder")

    with pytest.raises(ConfigError, match="--node-seed"):
        own_node_seed(silent)
