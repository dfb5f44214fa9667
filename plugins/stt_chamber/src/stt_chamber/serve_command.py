"""The command ``stt chamber serve``: a store of this machine, for peers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from stt_chamber.peer_stores import node_id_of
from stt_chamber.serving import StoreServer
from stt_chamber.sizes import parse_size
from stt_chamber.store_messages import MAX_REQUEST_SIZE, Access
from stt_core import STTConfig, STTNode, load_plugins
from stt_core.interfaces import ExitStatus

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stt_core.interfaces import CommandContext

MAX_SESSIONS_PER_PEER: Final = 8
"""Sessions that one peer has at a time: each may have some 25 MB of requests and replies under way."""

_WRITES: Final = ":rw"


def _parse_allowed(text: str) -> tuple[bytes, Access]:
    access = Access.WRITE if text.endswith(_WRITES) else Access.READ
    return node_id_of(text.removesuffix(_WRITES)), access


@click.command()
@click.argument("urls", metavar="URL...", nargs=-1, required=True)
@click.option("--store", required=True, envvar="STT_CHAMBER_STORE", metavar="URL", help="The store to serve.")
@click.option(
    "--allow",
    type=_parse_allowed,
    multiple=True,
    required=True,
    metavar="NODE_ID[:rw]",
    help="Let this node read the store; with ':rw', change it, too. Can be given several times; nobody else is let in.",
)
@click.option(
    "--quota", callback=parse_size, metavar="SIZE", help="What the store may hold, as in 20G; needed where nodes write."
)
@click.pass_obj
def serve(
    context: CommandContext,
    *,
    urls: tuple[str, ...],
    store: str,
    allow: tuple[tuple[bytes, Access], ...],
    quota: int | None,
) -> None:
    """Serve a store at URLs such as udp://0.0.0.0:4433 to peers that have the seed.

    The seed is the one for sessions, not that of a chamber: what is in the store is sealed, and this command never
    opens it.
    """
    allowed: dict[bytes, Access] = {}
    for node_id, access in allow:
        allowed[node_id] = max(access, allowed.get(node_id, access))
    if Access.WRITE in allowed.values() and quota is None:
        raise click.UsageError("a node that may change the store needs a bound: give --quota SIZE")
    context.run(_serve(context, urls, store, allowed, quota))


async def _serve(
    context: CommandContext, urls: Sequence[str], store: str, allow: Mapping[bytes, Access], quota: int | None
) -> ExitStatus:
    storage = load_plugins().store(store)(store)
    node = STTNode(
        node_seed=context.node_seed(),
        shared_seed=context.shared_seeds(),
        config=STTConfig(keepalive=True, max_body_size=MAX_REQUEST_SIZE, max_sessions_per_peer=MAX_SESSIONS_PER_PEER),
        allow=allow,
    )
    try:
        with context.progress("count", 0) as advance:
            server = await StoreServer.open(storage, allow, quota=quota, progress=advance)
        async with node:
            node.endpoints.register(StoreServer.endpoint(), server)
            for url in await node.listen(*urls):
                context.listening(url)
            context.note(f"node id {node.node_id.hex()}")
            async for session in node.sessions():
                context.note(f"{session.peer_node_id.hex()} is here, from {session.path}")
        await server.close()
    finally:
        await storage.close()
    return ExitStatus.DONE
