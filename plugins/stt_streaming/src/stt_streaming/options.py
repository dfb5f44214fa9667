"""What the commands have in common: who the peer is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from stt_core import STTConfig, STTNode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from stt_core.interfaces import CommandContext

NODE_ID_SIZE: Final = 32
"""Bytes of a node id; twice as many hexadecimal digits on the command line."""

WORD_TIMEOUT: Final = 5.0
"""Seconds that a side waits for the peer to close the session, once all has been said."""


def parse_node_id(text: str) -> bytes:
    """Return the bytes of a node id, for click.

    Raises:
        BadParameter: It is none.
    """
    try:
        node_id = bytes.fromhex(text)
    except ValueError:
        node_id = b""
    if len(node_id) != NODE_ID_SIZE:
        raise click.BadParameter(
            f"{text!r} is no node id, which has {2 * NODE_ID_SIZE} hexadecimal digits: see 'stt id'"
        )
    return node_id


def expect_option(function: Callable[..., None]) -> Callable[..., None]:
    """Add ``--expect`` to a command that connects."""
    return click.option(
        "--expect", type=parse_node_id, metavar="NODE_ID", help="Connect only to the node with this id."
    )(function)


def allow_option(function: Callable[..., None]) -> Callable[..., None]:
    """Add ``--allow`` to a command that listens."""
    return click.option(
        "--allow", type=parse_node_id, multiple=True, metavar="NODE_ID", help="Let only this node in, or these."
    )(function)


def make_node(context: CommandContext, allow: Iterable[bytes] = ()) -> STTNode:
    """Return the node of a command for pipes, tunnels and live streams: its session stays while nothing is sent."""
    return STTNode(
        node_seed=context.node_seed(),
        shared_seed=context.shared_seeds(),
        config=STTConfig(keepalive=True),
        allow=frozenset(allow) or None,
    )
