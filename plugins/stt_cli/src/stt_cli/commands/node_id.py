"""``stt id``: what others know this node by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from stt_cli.options import node_seed_option
from stt_core import Identity
from stt_core.interfaces import ExitStatus

if TYPE_CHECKING:
    from stt_cli.context import Context


@click.command(params=[node_seed_option()])
@click.pass_obj
def node_id(context: Context) -> None:
    """Print the id of this node, for '--expect' and '--allow' of others."""
    context.run(_node_id(context))


async def _node_id(context: Context) -> ExitStatus:
    click.echo(Identity.from_seed(context.node_seed()).node_id.hex())
    return ExitStatus.DONE
