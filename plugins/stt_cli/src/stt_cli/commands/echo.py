"""``stt echo``: a peer to try things against."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from stt_cli.options import shared_options
from stt_core import STTNode
from stt_core.errors import ErrorCode, SessionClosed, StreamClosed
from stt_core.interfaces import ExitStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stt_cli.context import Context
    from stt_core import STTSession, STTStream


@click.command(params=shared_options())
@click.argument("urls", metavar="URL...", nargs=-1, required=True)
@click.pass_obj
def echo(context: Context, urls: tuple[str, ...]) -> None:
    """Listen at URLs, and send back what peers send on streams."""
    context.run(_echo(context, urls))


async def _echo(context: Context, urls: Sequence[str]) -> ExitStatus:
    async with (
        STTNode(node_seed=context.node_seed(), shared_seed=context.shared_seeds()) as node,
        asyncio.TaskGroup() as group,
    ):
        for url in await node.listen(*urls):
            context.listening(url)
        context.note(f"node id {node.node_id.hex()}")
        async for session in node.sessions():
            group.create_task(_echo_session(session))
    return ExitStatus.DONE


async def _echo_session(session: STTSession) -> None:
    async with asyncio.TaskGroup() as group:
        while True:
            try:
                stream = await session.accept_stream()
            except SessionClosed:
                return
            group.create_task(_echo_stream(stream))


async def _echo_stream(stream: STTStream) -> None:
    try:
        async for data in stream:
            await stream.send(data)
        stream.end()
    except StreamClosed:
        # Neither half is of use without the other.
        stream.stop(ErrorCode.NO_ERROR)
        stream.reset(ErrorCode.NO_ERROR)
    except SessionClosed:
        return
