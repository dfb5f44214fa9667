"""The command `stt note`."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import click

from stt_core import STTNode
from stt_core.interfaces.command import ExitStatus
from stt_framed.notes import DIGEST_ENDPOINT, NOTE_TYPE

if TYPE_CHECKING:
    from stt_core.interfaces.command import CommandContext


@click.command()
@click.argument("url")
@click.argument("text")
@click.pass_obj
def note(context: CommandContext, url: str, text: str) -> None:
    """Send a note of TEXT to the peer at URL, who has this plugin too."""
    context.run(_note(context, url, text.encode()))


async def _note(context: CommandContext, url: str, text: bytes) -> ExitStatus:
    async with STTNode(node_seed=context.node_seed(), shared_seed=context.shared_seeds()) as node:
        session = await node.connect(url)
        await session.send_message(NOTE_TYPE, text)
        seen = await session.request(DIGEST_ENDPOINT, text)
    context.report("noted", f"sent a note of {len(text)} bytes", sha3_256=seen.decode())
    return ExitStatus.DONE if seen.decode() == hashlib.sha3_256(text).hexdigest() else ExitStatus.FAILED
