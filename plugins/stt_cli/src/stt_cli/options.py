"""The options that commands share; they end up in the command's :class:`~stt_cli.context.Context`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from stt_cli.context import Context, log_to_stderr

_FILE: Final = click.Path(dir_okay=False, path_type=Path)


def seed_option() -> click.Option:
    """Return ``--seed``."""
    return click.Option(
        ["--seed", "seed_files"],
        type=_FILE,
        multiple=True,
        metavar="FILE",
        expose_value=False,
        callback=_keep,
        help="The file with the seed that all peers share; of several, the first is used to connect. "
        "Else STT_SEED (the text) or STT_SEED_FILE (a path) counts.",
    )


def node_seed_option() -> click.Option:
    """Return ``--node-seed``."""
    return click.Option(
        ["--node-seed", "node_seed_file"],
        type=_FILE,
        metavar="FILE",
        expose_value=False,
        callback=_keep,
        help="The file with this node's own seed. Else STT_NODE_SEED or STT_NODE_SEED_FILE counts; "
        "else one is made and kept in the user's data folder.",
    )


def json_option() -> click.Option:
    """Return ``--json``."""
    return click.Option(
        ["--json", "json"],
        is_flag=True,
        expose_value=False,
        callback=_keep,
        help="Write one JSON object a line to standard output.",
    )


def verbose_option() -> click.Option:
    """Return ``-v``."""
    return click.Option(
        ["-v", "--verbose", "verbosity"],
        count=True,
        expose_value=False,
        callback=_set_verbosity,
        help="Log to standard error; twice logs more.",
    )


def shared_options() -> list[click.Option]:
    """Return the options of every command that has a node."""
    return [seed_option(), node_seed_option(), json_option(), verbose_option()]


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    setattr(context.ensure_object(Context), str(parameter.name), value)


def _set_verbosity(_: click.Context, __: click.Parameter, value: int) -> None:
    log_to_stderr(value)
