"""What an endpoint is: a name that peers send requests to, and the handler that answers."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import attrs


@attrs.frozen
class Peer:
    """Who a message came from."""

    node_id: bytes
    """32 bytes, proven in the handshake. Behind a relay this is the relay, not who first sent the message."""
    session_id: bytes
    """8 bytes: a label, not a secret."""
    path: str
    """Where the peer is reached, as a URL."""


@attrs.frozen
class PeerOffer:
    """A peer that asks to be let in: it has proven the seed and its identity."""

    node_id: bytes
    """32 bytes."""
    path: str
    """Where it is, as a URL."""
    transport: str
    """The URL that this node listens on, where it came in."""
    suite: int
    """The crypto suite that the handshake chose."""
    app_parameters: bytes = attrs.field(repr=False)
    """What its application said in the handshake, at most 512 bytes."""


@attrs.frozen
class EndpointRequest:
    """What an endpoint's handler gets."""

    endpoint: str
    """The name that the handler was registered under."""
    body: bytes = attrs.field(repr=False)
    peer: Peer
    one_way: bool
    """Whether nobody waits for a reply."""


EndpointHandler: TypeAlias = Callable[[EndpointRequest], Awaitable[bytes | None]]
"""Returns the reply's body, None for an empty one. What it raises reaches the requester as an error without details."""


def endpoint_address(name: str) -> bytes:
    """Return the address of an endpoint: SHA3-256 of its name, 32 bytes."""
    return hashlib.sha3_256(name.encode()).digest()
