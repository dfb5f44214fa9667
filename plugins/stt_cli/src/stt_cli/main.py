"""The command ``stt``: finds its sub-commands, its own and those of plugins, and imports only the one that runs."""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
import io
import os
import signal
import sys
from typing import TYPE_CHECKING, Final, NoReturn

import click

from stt_cli._version import __version__
from stt_cli.command_cache import DISABLE_VARIABLE, CommandSource, cached_commands, commands_of, disable_plugins

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

    from stt_cli.command_cache import Commands
    from stt_core import Registries


OWN_COMMANDS: Final = {
    "echo": CommandSource("Send back what peers send.", "stt_cli.commands.echo:echo"),
    "id": CommandSource("Print the id of this node.", "stt_cli.commands.node_id:node_id"),
    "keygen": CommandSource("Make a new seed.", "stt_cli.commands.keygen:keygen"),
    "ping": CommandSource("Measure the round trip to a peer.", "stt_cli.commands.ping:ping"),
    "plugins": CommandSource("Show what is installed.", "stt_cli.commands.plugins:plugins"),
}
"""The sub-commands that come with ``stt``, by name; no plugin can replace one."""


_DISTRIBUTIONS: Final = {"chamber": "stt-chamber", "receive": "stt-streaming", "send": "stt-streaming"}


class LazyGroup(click.Group):
    """A group whose commands are imported when one of them runs."""

    def list_commands(self, _: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted(_all_commands())

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Disable plugins before anything else is done, ``--help`` included."""
        options, _, _ = self.make_parser(ctx).parse_args(list(args))
        if names := options.get("disabled_plugins"):
            ctx.with_resource(_disabled(names))
        return super().parse_args(ctx, args)

    def get_command(self, _: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        source = OWN_COMMANDS.get(cmd_name) or _all_commands().get(cmd_name)
        if source is None:
            # A plugin in development may offer it since a moment ago, under its old version.
            source = _offered().get(cmd_name)
        if source is None:
            return None
        try:
            command = _import(source.target)
        except (ImportError, AttributeError):
            fresh = _offered().get(cmd_name) if source.by_plugin else None
            if fresh is None or fresh == source:
                raise
            command = _import(fresh.target)  # what was remembered is of another day
        if source.by_plugin:
            command = _with_shared_options(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command; for one that is not there, say which plugin may be missing."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            raise click.UsageError(" ".join((error.message, *_why_missing(args[0]))), ctx) from None

    def format_commands(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, source.help_text) for name, source in sorted(_all_commands().items())])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="stt")
@click.option(
    "--disable-plugin",
    "disabled_plugins",
    multiple=True,
    metavar="NAME",
    expose_value=False,
    help="Do not import this plugin, as with STT_DISABLE_PLUGINS; '*' for all. Can be given several times.",
)
@click.pass_context
def stt(context: click.Context) -> None:
    """Carry files and streams, encrypted, between peers that share a seed."""
    context.obj = importlib.import_module("stt_cli.context").Context()


def main() -> None:
    """Run the command; the entry point of the distribution."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that lacks a character of a file's name is no reason to fail.
            stream.reconfigure(errors="backslashreplace")
    stt(prog_name="stt")


def _leave(number: int, _: FrameType | None) -> NoReturn:
    # While the event loop runs, it has handlers of its own: see stt_cli.running.
    raise SystemExit(128 + number)


def _all_commands() -> Commands:
    cached = cached_commands()
    return {**(_offered() if cached is None else cached), **OWN_COMMANDS}


def _offered() -> Commands:
    return commands_of(_plugins(os.environ.get(DISABLE_VARIABLE, "")))


def _import(target: str) -> click.Command:
    module, _, name = target.partition(":")
    command: click.Command = getattr(importlib.import_module(module), name)
    return command


def _with_shared_options(command: click.Command) -> click.Command:
    """Return a copy that has the shared options, a group in each of its commands; the plugin's own stays as it is."""
    command = copy.copy(command)
    if isinstance(command, click.Group):
        command.commands = {name: _with_shared_options(each) for name, each in command.commands.items()}
    else:
        command.params = [*command.params, *importlib.import_module("stt_cli.options").shared_options()]
    return command


@functools.cache
def _plugins(_: str) -> Registries:
    """Load the plugins, once with the same ones disabled."""
    registries: Registries = importlib.import_module("stt_core").load_plugins()
    return registries


@contextlib.contextmanager
def _disabled(names: Sequence[str]) -> Iterator[None]:
    """Disable plugins while a command runs."""
    before = os.environ.get(DISABLE_VARIABLE)
    disable_plugins(names)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(DISABLE_VARIABLE, None)
        else:
            os.environ[DISABLE_VARIABLE] = before


def _why_missing(name: str) -> Iterator[str]:
    if name in _DISTRIBUTIONS:
        yield f"It comes with {_DISTRIBUTIONS[name]}."
    for info in _plugins(os.environ.get(DISABLE_VARIABLE, "")).plugins:
        if info.reason:
            yield f"Plugin {info.name} is {info.state.value}: {info.reason}."
