"""The command ``stt pipe``: standard input goes to a peer, and what the peer sends to standard output."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Final

import click

from stt_core.errors import ErrorCode, SessionClosed, StreamClosed
from stt_core.interfaces import ExitStatus
from stt_streaming.options import WORD_TIMEOUT, allow_option, expect_option, make_node
from stt_streaming.sinks import writer
from stt_streaming.sources import READ_SIZE, read_chunks
from stt_streaming.tunnel.relay import TunnelCode, break_off, relay

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stt_core import STTNode, STTSession, STTStream
    from stt_core.interfaces import CommandContext

PIPE_LABEL: Final = "stt-pipe/1"
"""Label of the one stream of a pipe."""

_STDIN: Final = 0
_STDOUT: Final = 1


@click.command()
@click.argument("urls", metavar="URL[,URL...]")
@click.option("--listen", is_flag=True, help="Wait at URL for the other end.")
@expect_option
@allow_option
@click.pass_obj
def pipe(context: CommandContext, urls: str, *, listen: bool, expect: bytes | None, allow: tuple[bytes, ...]) -> None:
    """Join standard input and output to those of a peer that runs 'stt pipe' as well.

    One side has --listen; the other connects to it. Each direction ends by itself.
    """
    if (allow and not listen) or (expect and listen):
        raise click.UsageError("--allow is for the side with --listen, --expect for the other")
    context.run(_listen(context, urls.split(","), allow) if listen else _connect(context, urls.split(","), expect))


async def _connect(context: CommandContext, urls: Sequence[str], expect: bytes | None) -> ExitStatus:
    async with make_node(context) as node:
        session = await node.connect(urls, expect=expect)
        stream = await session.open_stream(PIPE_LABEL)
        status = await _join(context, stream)
        session.close()
    return status


async def _listen(context: CommandContext, urls: Sequence[str], allow: Sequence[bytes]) -> ExitStatus:
    async with make_node(context, allow) as node:
        for url in await node.listen(*urls):
            # Standard output is the peer's.
            context.note(f"listening on {url}")
        taken: asyncio.Future[STTStream] = asyncio.get_running_loop().create_future()
        # No task group: what ends the pipe would come out of it in an exception group.
        admitting = asyncio.create_task(_admit_all(node, taken))
        try:
            stream = await taken
            status = await _join(context, stream)
            # The other side closes, once it has all; its last word may be lost.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WORD_TIMEOUT):
                    await stream.session.wait_closed()
        finally:
            admitting.cancel()
            await asyncio.gather(admitting, return_exceptions=True)
    return status


async def _admit_all(node: STTNode, taken: asyncio.Future[STTStream]) -> None:
    """Take the first stream of a pipe that is opened, and refuse the others."""
    async with asyncio.TaskGroup() as group:
        async for session in node.sessions():
            group.create_task(_admit(session, taken))


async def _admit(session: STTSession, taken: asyncio.Future[STTStream]) -> None:
    async for stream in session.streams():
        if stream.label != PIPE_LABEL:
            break_off(stream, TunnelCode.MALFORMED)
        elif taken.done():
            break_off(stream, TunnelCode.BUSY)
        else:
            taken.set_result(stream)


async def _join(context: CommandContext, stream: STTStream) -> ExitStatus:
    """Relay standard input and output, until both directions have ended and the peer has what was sent."""
    try:
        await relay(stream, read_chunks(_STDIN, READ_SIZE), writer(_STDOUT), _end_output)
    except StreamClosed:
        context.note("the peer broke off")
        return ExitStatus.FAILED
    except OSError as error:
        context.note(f"standard input or output: {error}")
        return ExitStatus.FAILED
    try:
        await stream.wait_delivered()
    except SessionClosed as error:
        # The other side closes like this once it has all: then only its acknowledgement was lost.
        if not error.by_peer or error.code != ErrorCode.NO_ERROR:
            raise
    return ExitStatus.DONE


def _end_output() -> None:
    """Let who reads standard output see its end, while standard input goes on."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, _STDOUT)
    os.close(nothing)
