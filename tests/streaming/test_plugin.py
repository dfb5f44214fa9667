"""Are the commands offered without being imported?"""

from __future__ import annotations

import importlib
import subprocess
import sys

import click

from stt_core import load_plugins


def test_the_commands_are_offered_and_are_where_they_are_said_to_be() -> None:
    commands = load_plugins().commands

    for name in ("send", "receive", "pipe", "forward", "forward-server", "stream", "watch"):
        assert commands[name].help_text
        module, _, attribute = commands[name].target.partition(":")
        assert isinstance(getattr(importlib.import_module(module), attribute), click.Command)


def test_the_plugin_imports_nothing_but_the_core() -> None:
    script = (
        "import sys, stt_core; before = {*sys.modules}; import stt_streaming.plugin\n"
        "print(*sorted({*sys.modules} - before))"
    )

    imported = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout

    assert imported.split() == ["stt_streaming", "stt_streaming.plugin"]
