"""Which store a URL names: one of this machine's, or one that a peer serves, ``stt+udp://NODE_ID@host:port#name``."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final, Self

import attrs
import click

from stt_chamber.remote import RemoteStorage
from stt_chamber.store_messages import MAX_REQUEST_SIZE
from stt_core import STTConfig, STTNode, load_plugins
from stt_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from stt_core.interfaces import CommandContext, StorageProvider

PREFIX: Final = "stt+"
"""What the URL of a peer's store begins with; the URL that the peer listens on follows."""

NODE_ID_SIZE: Final = 32
"""Bytes of a node id; twice as many hexadecimal digits in a URL."""


@attrs.frozen
class PeerStore:
    """Where a peer's store is."""

    url: str
    """Where the peer listens."""
    expect: bytes | None
    """The node id that it must have."""
    name: str
    """Which of its stores."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the place of a store from its URL.

        Raises:
            ConfigError: It is none.
        """
        url, _, name = text.removeprefix(PREFIX).partition("#")
        scheme, separator, rest = url.partition("://")
        node_id, at, place = rest.partition("@")
        if not separator or not (place if at else rest):
            raise ConfigError(f"{text!r} is no store of a peer, as in {PREFIX}udp://host:4433")
        if not at:
            return cls(url, None, name)
        return cls(f"{scheme}://{place}", parse_node_id(node_id), name)


def parse_node_id(text: str) -> bytes:
    """Return the bytes of a node id.

    Raises:
        ConfigError: It is none.
    """
    try:
        node_id = bytes.fromhex(text)
    except ValueError:
        node_id = b""
    if len(node_id) != NODE_ID_SIZE:
        raise ConfigError(f"{text!r} is no node id, which has {2 * NODE_ID_SIZE} hexadecimal digits: see 'stt id'")
    return node_id


@contextlib.asynccontextmanager
async def open_store(
    url: str, context: CommandContext, session_seeds: Callable[[], Sequence[bytes]]
) -> AsyncIterator[StorageProvider]:
    """Give the store at a URL until the context ends.

    Args:
        url: Of any storage, or of a peer's store.
        context: Has the seed of this node.
        session_seeds: Returns the seeds that a peer may know; called for a peer's store alone.

    Raises:
        ConfigError: There is no storage for such a URL, or it is malformed.
        ConnectError: The peer cannot be reached.
        StorageError: The peer serves no such store, or not to this node.
    """
    async with contextlib.AsyncExitStack() as stack:
        if url.startswith(PREFIX):
            place = PeerStore.parse(url)
            node = STTNode(
                node_seed=context.node_seed(),
                shared_seed=session_seeds(),
                config=STTConfig(keepalive=True, max_body_size=MAX_REQUEST_SIZE),
            )
            await stack.enter_async_context(node)
            session = await node.connect(place.url, expect=place.expect)
            stack.callback(session.close)
            storage: StorageProvider = await RemoteStorage.open(session, place.name)
        else:
            storage = load_plugins().store(url)(url)
        stack.push_async_callback(storage.close)
        yield storage


def node_id_of(text: str) -> bytes:
    """Return the bytes of a node id, for click.

    Raises:
        BadParameter: It is none.
    """
    try:
        return parse_node_id(text)
    except ConfigError as error:
        raise click.BadParameter(str(error)) from None
