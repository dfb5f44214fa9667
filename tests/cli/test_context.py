"""Does what commands share behave the same in all of them?"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import pytest

from stt_cli.context import Context, log_to_stderr
from stt_cli.main import stt
from stt_core.errors import ConfigError, ConnectError, ConnectReason
from stt_core.interfaces import CommandContext, ExitStatus

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from click.testing import CliRunner


@pytest.fixture
def logging_restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_it_is_what_plugins_are_promised() -> None:
    context: CommandContext = Context()

    assert context.json is False


def test_a_result_is_text_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    Context().report("file", "stored a\x1b.txt", name="a\x1b.txt", size=3)
    Context(json=True).report("file", "stored a\x1b.txt", name="a\x1b.txt", size=3)

    text, line = capsys.readouterr().out.splitlines()
    assert text == "stored a\\x1b.txt"
    assert json.loads(line) == {"event": "file", "name": "a\x1b.txt", "size": 3}
    assert line.isascii()


def test_notes_go_to_standard_error_and_cannot_steer_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Context(json=True).note("the peer says \x1b[2J")

    assert capsys.readouterr() == ("", "the peer says \\x1b[2J\n")


def test_where_standard_error_is_no_terminal_no_bar_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with Context().progress("a", 10) as advance:
        advance(10)

    assert capsys.readouterr() == ("", "")


def test_a_command_that_is_done_just_ends() -> None:
    async def done() -> ExitStatus:
        return ExitStatus.DONE

    Context().run(done())


def test_a_command_that_fails_leaves_with_its_status(capsys: pytest.CaptureFixture[str]) -> None:
    async def fail() -> ExitStatus:
        raise ConnectError(ConnectReason.UNREACHABLE, "nobody listens")

    with pytest.raises(SystemExit) as caught:
        Context().run(fail())

    assert caught.value.code == 4
    assert capsys.readouterr() == ("", "stt: nobody listens\n")


def test_without_a_shared_seed_it_is_said_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STT_SEED", raising=False)
    monkeypatch.delenv("STT_SEED_FILE", raising=False)

    with pytest.raises(ConfigError, match="stt keygen"):
        Context().shared_seeds()


@pytest.mark.parametrize(("verbosity", "levels"), [(0, "W"), (1, "IW"), (2, "DIW"), (5, "DIW")])
@pytest.mark.usefixtures("logging_restored")
def test_the_log_goes_to_standard_error(capsys: pytest.CaptureFixture[str], verbosity: int, levels: str) -> None:
    log_to_stderr(verbosity)

    logger = logging.getLogger("stt_core.node")
    logger.debug("D\x1b")
    logger.info("I\x1b")
    logger.warning("W\x1b")

    lines = capsys.readouterr().err.splitlines()
    assert [line.rpartition(": ")[2] for line in lines] == [f"{level}\\x1b" for level in levels]


# The commands' usage, before anything is sent.


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["send", "udp://127.0.0.1:1", "--seed", "SEED"], "Missing argument 'PATH"),
        (["send", "udp://127.0.0.1:1", "missing.txt", "--seed", "SEED"], "does not exist"),
        (["send", "udp://127.0.0.1:1", "SEED", "--seed", "missing.seed"], "cannot be read"),
        (["send", "udp://127.0.0.1:1", "SEED"], "no shared seed is given"),
        (["send", "127.0.0.1:1", "SEED", "--seed", "SEED"], "scheme"),
        (["send", "gopher://127.0.0.1:1", "SEED", "--seed", "SEED"], "udp"),
        (["send", "udp://127.0.0.1:1", "SEED", "--seed", "SEED", "--expect", "abc"], "no node id"),
        (["receive", "--seed", "SEED"], "Missing argument 'URL"),
        (["receive", "udp://127.0.0.1:0", "--seed", "SEED", "--dir", "missing"], "does not exist"),
        (["receive", "udp://127.0.0.1:0", "--seed", "SEED", "--allow", "00" * 31], "no node id"),
        (["receive", "gopher://127.0.0.1:1", "--seed", "SEED"], "udp"),
        (["ping", "udp://127.0.0.1:1", "--seed", "SEED", "-c", "0"], "'-c'"),
    ],
)
@pytest.mark.usefixtures("every_plugin", "logging_restored")
def test_what_cannot_work_is_a_usage_error_that_says_why(
    runner: CliRunner, seed_file: Path, arguments: list[str], reason: str
) -> None:
    places = {"SEED": str(seed_file)}

    result = runner.invoke(stt, [places.get(argument, argument) for argument in arguments])

    assert result.exit_code == 2
    assert reason in result.stderr
    assert result.stdout == ""
