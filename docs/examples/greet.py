"""A sub-command of a plugin, offered as `greet` by the hook `stt_register_commands`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from stt_core import STTNode
from stt_core.interfaces.command import ExitStatus

if TYPE_CHECKING:
    from stt_core.interfaces.command import CommandContext


@click.command()
@click.argument("url")
@click.pass_obj
def greet(context: CommandContext, url: str) -> None:
    """Say hello to the peer at URL."""
    context.run(_greet(context, url))


async def _greet(context: CommandContext, url: str) -> ExitStatus:
    async with STTNode(node_seed=context.node_seed(), shared_seed=context.shared_seeds()) as node:
        session = await node.connect(url)
        context.report("greeted", f"said hello to {url}", peer=session.peer_node_id.hex())
    return ExitStatus.DONE


if __name__ == "__main__":
    print(greet.get_help(click.Context(greet, info_name="stt greet")))
