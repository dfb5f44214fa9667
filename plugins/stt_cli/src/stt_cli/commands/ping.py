"""``stt ping``: whether a peer answers, and how soon."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import click

from stt_cli.options import shared_options
from stt_core import STTNode
from stt_core.interfaces import ExitStatus

if TYPE_CHECKING:
    from stt_cli.context import Context

INTERVAL: Final = 1.0
"""Seconds between two pings."""


@click.command(params=shared_options())
@click.argument("url")
@click.option("-c", "--count", type=click.IntRange(min=1), default=4, show_default=True, help="How often to ask.")
@click.pass_obj
def ping(context: Context, url: str, count: int) -> None:
    """Measure the round trip to the peer at URL, inside an encrypted session."""
    context.run(_ping(context, url, count))


async def _ping(context: Context, url: str, count: int) -> ExitStatus:
    async with STTNode(node_seed=context.node_seed(), shared_seed=context.shared_seeds()) as node:
        session = await node.connect(url)
        peer = session.peer_node_id.hex()
        context.note(f"{url} is {peer}")
        round_trips = []
        for number in range(count):
            if number:
                await asyncio.sleep(INTERVAL)
            seconds = await session.ping()
            round_trips.append(seconds)
            context.report(
                "pong",
                f"pong {number + 1}: {seconds * 1000:.3f} ms",
                number=number + 1,
                peer=peer,
                seconds=round(seconds, 6),
            )
        average = sum(round_trips) / count
        context.note(
            f"round trip of {count}: least {min(round_trips) * 1000:.3f} ms, average {average * 1000:.3f} ms, "
            f"most {max(round_trips) * 1000:.3f} ms"
        )
        session.close()
    return ExitStatus.DONE
