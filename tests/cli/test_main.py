"""Are the commands found, listed without being imported, and missing ones explained?"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from stt_cli.main import OWN_COMMANDS, stt

if TYPE_CHECKING:
    from click.testing import CliRunner

ALL = sorted([*OWN_COMMANDS, "chamber", "forward", "forward-server", "pipe", "receive", "send", "stream", "watch"])
PAGE = Path(__file__).resolve().parents[2].joinpath("docs", "reference", "cli.md").read_text(encoding="utf-8")


def every_command(group: click.Group, path: tuple[str, ...] = ()) -> dict[str, click.Command]:
    context = click.Context(group)
    commands: dict[str, click.Command] = {}
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            commands |= every_command(command, (*path, name))
        else:
            commands[" ".join((*path, name))] = command
    return commands


COMMANDS = every_command(stt)


@pytest.mark.usefixtures("every_plugin")
def test_help_lists_the_commands_of_the_tool_and_of_plugins(runner: CliRunner) -> None:
    result = runner.invoke(stt, ["--help"])

    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.partition("Commands:\n")[2].splitlines()] == ALL


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_stands_on_its_page_with_all_its_options(runner: CliRunner, name: str) -> None:
    result = runner.invoke(stt, [*name.split(), "--help"])

    assert result.exit_code == 0
    assert COMMANDS[name].help
    assert f"`stt {name}" in PAGE
    for parameter in COMMANDS[name].params:
        if isinstance(parameter, click.Option):
            assert parameter.help
            for option in parameter.opts:
                assert f"`{option}" in PAGE, option
        else:
            assert (parameter.metavar or str(parameter.name).upper()) in result.stdout


@pytest.mark.usefixtures("every_plugin")
def test_commands_of_plugins_have_the_shared_options_and_those_of_others_stay_as_they_were() -> None:
    from stt_streaming.commands import send  # noqa: PLC0415  the object that the plugin made

    options = {option for parameter in COMMANDS["send"].params for option in parameter.opts}

    assert {"--seed", "--node-seed", "--json", "--verbose"} <= options
    assert not {"--seed", "--json"} & {option for parameter in send.params for option in parameter.opts}


@pytest.mark.usefixtures("every_plugin")
def test_commands_of_a_plugins_group_have_the_shared_options_and_those_of_others_stay_as_they_were() -> None:
    from stt_chamber.commands import chamber  # noqa: PLC0415  the object that the plugin made

    options = {option for parameter in COMMANDS["chamber put"].params for option in parameter.opts}

    assert {"--seed", "--node-seed", "--json", "--verbose"} <= options
    own = chamber.commands["put"]
    assert not {"--seed", "--json"} & {option for parameter in own.params for option in parameter.opts}


@pytest.mark.usefixtures("every_plugin")
def test_a_command_whose_plugin_is_blocked_is_explained(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", "from stt_cli.main import main; main()", "send"],
        check=False,
        capture_output=True,
        text=True,
        env={"STT_DISABLE_PLUGINS": "streaming", "HOME": str(tmp_path)},
    )

    assert result.returncode == 2
    assert "No such command 'send'" in result.stderr
    assert "stt-streaming" in result.stderr
    assert "streaming is blocked" in result.stderr
