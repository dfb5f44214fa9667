"""Does ``stt id`` tell whose seed it is?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stt_cli.main import stt
from stt_core import Identity, encode_seed

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import CliRunner

SEED = bytes(range(32))


def test_the_id_is_that_of_the_seed(runner: CliRunner, seed_file: Path) -> None:
    result = runner.invoke(stt, ["id", "--node-seed", str(seed_file)])

    assert result.exit_code == 0
    assert result.stdout == f"{Identity.from_seed(SEED).node_id.hex()}\n"


@pytest.mark.parametrize("variable", ["STT_NODE_SEED", "STT_NODE_SEED_FILE"])
def test_the_seed_can_come_from_the_environment(runner: CliRunner, seed_file: Path, variable: str) -> None:
    value = encode_seed(SEED) if variable == "STT_NODE_SEED" else str(seed_file)

    result = runner.invoke(stt, ["id"], env={variable: value})

    assert result.stdout == f"{Identity.from_seed(SEED).node_id.hex()}\n"


def test_without_a_seed_one_is_made_and_kept(runner: CliRunner, tmp_path: Path) -> None:
    first = runner.invoke(stt, ["id"])

    assert first.exit_code == 0
    assert runner.invoke(stt, ["id"]).stdout == first.stdout
    assert len(list(tmp_path.rglob("node.seed"))) == 1


def test_two_seeds_are_no_node(runner: CliRunner, seed_file: Path) -> None:
    seed_file.write_text(seed_file.read_text() * 2)

    result = runner.invoke(stt, ["id", "--node-seed", str(seed_file)])

    assert result.exit_code == 2
    assert "one seed of its own" in result.stderr


def test_a_seed_file_that_is_none_is_a_usage_error_without_its_text(runner: CliRunner, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("my password is hunter2")

    result = runner.invoke(stt, ["id", "--node-seed", str(path)])

    assert result.exit_code == 2
    assert "notes.txt" in result.stderr
    assert "hunter2" not in result.output
