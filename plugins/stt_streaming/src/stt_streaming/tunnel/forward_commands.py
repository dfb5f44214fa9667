"""The commands ``stt forward`` and ``stt forward-server``: TCP ports of one machine on another."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from stt_core.errors import ConfigError
from stt_core.interfaces import ExitStatus
from stt_streaming.options import allow_option, expect_option, make_node
from stt_streaming.tunnel.connections import HostPort
from stt_streaming.tunnel.forwarding import CONNECTIONS_IN_ALL, Forwarder
from stt_streaming.tunnel.limits import LimitedNotes, Places

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stt_core import STTSession
    from stt_core.interfaces import CommandContext


def _parse(text: str) -> HostPort:
    try:
        return HostPort.parse(text)
    except ConfigError as error:
        raise click.BadParameter(str(error)) from None


# forward


@click.command()
@click.argument("local", metavar="LOCAL:PORT", type=_parse)
@click.argument("urls", metavar="URL[,URL...]")
@click.argument("remote", metavar="REMOTE:PORT", type=_parse)
@click.option("--reverse", is_flag=True, help="Listen at REMOTE:PORT there, and connect to LOCAL:PORT here.")
@expect_option
@click.pass_obj
def forward(
    context: CommandContext, *, local: HostPort, urls: str, remote: HostPort, reverse: bool, expect: bytes | None
) -> None:
    """Listen at LOCAL:PORT, and have the peer at URL connect to REMOTE:PORT.

    The peer runs 'stt forward-server' and allows REMOTE:PORT. With port 0 the listening side chooses one.
    """
    context.run(_forward(context, local, urls.split(","), remote, reverse=reverse, expect=expect))


async def _forward(
    context: CommandContext,
    local: HostPort,
    urls: Sequence[str],
    remote: HostPort,
    *,
    reverse: bool,
    expect: bytes | None,
) -> ExitStatus:
    async with make_node(context) as node:
        session = await node.connect(urls, expect=expect)
        forwarder = Forwarder(session, broken=_note_broken(LimitedNotes(context.note)))
        if reverse:
            await _forward_reverse(context, forwarder, remote, local)
        else:
            async with forwarder.forward(local, remote) as bound:
                _report(context, bound, remote)
                raise await session.wait_closed()
    return ExitStatus.DONE


async def _forward_reverse(context: CommandContext, forwarder: Forwarder, remote: HostPort, local: HostPort) -> None:
    serving = asyncio.create_task(forwarder.serve())
    try:
        await forwarder.forward_reverse(remote, local, lambda bound: _report(context, bound, local))
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


def _report(context: CommandContext, at: HostPort, to: HostPort) -> None:
    context.report("forwarding", f"forwarding {at} to {to}", at=str(at), to=str(to))


# forward-server


@click.command()
@click.argument("urls", metavar="URL...", nargs=-1, required=True)
@click.option(
    "--target", "targets", metavar="HOST:PORT", type=_parse, multiple=True, help="Let peers connect to this, or these."
)
@click.option(
    "--bind", "binds", metavar="HOST:PORT", type=_parse, multiple=True, help="Let peers listen here, for --reverse."
)
@allow_option
@click.pass_obj
def forward_server(
    context: CommandContext,
    *,
    urls: tuple[str, ...],
    targets: tuple[HostPort, ...],
    binds: tuple[HostPort, ...],
    allow: tuple[bytes, ...],
) -> None:
    """Serve 'stt forward' of peers at URLs: connect to what --target names, listen where --bind says, nothing else."""
    if not (targets or binds):
        raise click.UsageError("peers may do nothing here: name a --target or a --bind")
    context.run(_serve(context, urls, targets, binds, allow))


async def _serve(
    context: CommandContext,
    urls: Sequence[str],
    targets: Sequence[HostPort],
    binds: Sequence[HostPort],
    allow: Sequence[bytes],
) -> ExitStatus:
    async with make_node(context, allow) as node:
        for url in await node.listen(*urls):
            context.listening(url)
        context.note(f"node id {node.node_id.hex()}")
        notes, places = LimitedNotes(context.note), Places(CONNECTIONS_IN_ALL)
        async with asyncio.TaskGroup() as group:
            async for session in node.sessions():
                broken = _note_broken(notes, session)
                forwarder = Forwarder(session, targets=targets, listens=binds, broken=broken, shared=places)
                group.create_task(forwarder.serve())
    return ExitStatus.DONE


# Both


def _note_broken(notes: LimitedNotes, session: STTSession | None = None) -> Callable[[HostPort, str], None]:
    peer = "" if session is None else f" for {session.peer_node_id.hex()}"
    return lambda target, reason: notes.note(f"{target}{peer}: {reason}")
