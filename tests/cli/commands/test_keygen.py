"""Does ``stt keygen`` make seeds that are new, whole and private?"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from stt_cli.main import stt
from stt_core import decode_seed

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import CliRunner


def test_a_seed_is_printed_and_another_one_each_time(runner: CliRunner) -> None:
    seeds = {decode_seed(runner.invoke(stt, ["keygen"]).stdout) for _ in range(3)}

    assert len(seeds) == 3
    assert {len(seed) for seed in seeds} == {32}


def test_a_seed_goes_to_a_private_file_and_not_to_the_terminal(runner: CliRunner, tmp_path: Path) -> None:
    path = tmp_path / "our.seed"

    result = runner.invoke(stt, ["keygen", "--out", str(path)])

    assert result.exit_code == 0
    assert len(decode_seed(path.read_text())) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "stt-seed" not in result.output


def test_a_file_that_is_there_is_kept(runner: CliRunner, tmp_path: Path) -> None:
    path = tmp_path / "our.seed"
    path.write_text("precious")

    result = runner.invoke(stt, ["keygen", "--out", str(path)])

    assert result.exit_code == 1
    assert "is there already" in result.stderr
    assert path.read_text() == "precious"


def test_a_folder_that_is_missing_is_named(runner: CliRunner, tmp_path: Path) -> None:
    result = runner.invoke(stt, ["keygen", "--out", str(tmp_path / "missing" / "our.seed")])

    assert result.exit_code == 1
    assert "cannot be written: No such file" in result.stderr
