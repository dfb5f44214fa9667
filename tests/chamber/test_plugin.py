"""Is the command offered, and is it where it is said to be?"""

from __future__ import annotations

import importlib

import click

from stt_core import load_plugins


def test_the_command_is_offered_and_has_its_sub_commands() -> None:
    offered = load_plugins().commands["chamber"]
    module, _, attribute = offered.target.partition(":")
    command = getattr(importlib.import_module(module), attribute)

    assert offered.help_text
    assert isinstance(command, click.Group)
    assert {*command.commands} == {
        *("init", "put", "get", "list", "delete", "info"),
        *("check", "repair", "rekey", "export", "import", "serve", "sync"),
    }
    for each in command.commands.values():
        assert each.help
        assert "--store" in {option for parameter in each.params for option in parameter.opts}
