"""Where a session's peer can be reached: its paths, their state, and whether the peer is really there.

wire-format.md, "Paths". A session is bound to its keys; a path is a way to the peer: a link (one open transport) and an
address on it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NamedTuple

from stt_core.engine.mtu import BASE_SIZE, MtuSearch
from stt_core.engine.recovery import Recovery

if TYPE_CHECKING:
    from stt_core.interfaces.congestion import ControllerFactory
    from stt_core.interfaces.transport import Address, TransportCapabilities

_AMPLIFICATION: Final = 3  # bytes sent per byte received, until the path is validated
_CHALLENGES: Final = 3
_GRACE: Final = 3.0  # seconds: the round trip of another path says little of a new one's (RFC 9000 section 8.2.4)
_RELIABLE_DATAGRAM: Final = 256 * 1024  # bytes: a frame large enough to make its overhead vanish


class Link:
    """One open transport, as the engine knows it; each is itself alone.

    Args:
        name: The transport's URL, for people.
        capabilities: What it promises.
    """

    def __init__(self, name: str, capabilities: TransportCapabilities) -> None:
        self.name = name
        self.capabilities = capabilities


class PathKey(NamedTuple):
    """A link and an address on it."""

    link: Link
    address: Address

    def same_host(self, other: PathKey) -> bool:
        """Return whether both differ at most in the port, as after a rebinding of a network address translator."""
        if self.link is not other.link or not isinstance(self.address, tuple) or not isinstance(other.address, tuple):
            return False
        return bool(self.address[:1] == other.address[:1])

    def __str__(self) -> str:
        scheme = self.link.name.partition(":")[0]
        if isinstance(self.address, tuple) and len(self.address) >= 2:
            host = f"[{self.address[0]}]" if ":" in str(self.address[0]) else self.address[0]
            return f"{scheme}://{host}:{self.address[1]}"
        return f"{scheme}:{self.address}"


class Path:
    """One way to the peer: what is under way on it, its size, and its validation.

    Args:
        key: The link and the address.
        validated: Whether the peer has proven to be there.
        controller: What makes the congestion controller, on a link that is not reliable.
        max_datagram_size: Bytes of the largest datagram that both sides allow.
        max_ack_delay: Seconds that the peer may hold an acknowledgement back.
        initial_rtt: Seconds, where known.
    """

    __slots__ = (
        "_challenge_at",
        "_challenge_until",
        "_challenges_left",
        "_token",
        "alive",
        "bytes_received",
        "bytes_sent",
        "chosen",
        "heard_at",
        "key",
        "mtu",
        "recovery",
        "reliable",
        "validated",
    )

    def __init__(
        self,
        key: PathKey,
        *,
        validated: bool,
        controller: ControllerFactory,
        max_datagram_size: int,
        max_ack_delay: float,
        initial_rtt: float | None = None,
    ) -> None:
        capabilities = key.link.capabilities
        self.key = key
        self.reliable = capabilities.reliable
        self.validated = validated
        self.alive = validated
        """Whether the peer was heard on it since it was last asked in vain."""
        self.heard_at = float("-inf")
        """When the peer was last heard on it, in seconds."""
        self.chosen = False
        """Whether this side has chosen the address, so that nobody else can make it send there."""
        self.bytes_received = 0
        self.bytes_sent = 0
        limit = min(max_datagram_size, capabilities.max_message_size)
        if self.reliable:
            limit = min(limit, _RELIABLE_DATAGRAM)
            self.mtu = MtuSearch(limit, limit)
        else:
            self.mtu = MtuSearch(limit, capabilities.initial_message_size or BASE_SIZE)
        size = self.mtu.size
        self.recovery = Recovery(None if self.reliable else controller(size), size, max_ack_delay, initial_rtt)
        self._token: bytes | None = None
        self._challenges_left = 0
        self._challenge_at: float | None = None
        self._challenge_until = 0.0

    # Commands

    def challenge(self, now: float) -> None:
        """Begin to find out whether the peer is there: three tries, a PTO apart."""
        self._token = os.urandom(8)
        self._challenges_left = _CHALLENGES
        self._challenge_at = now
        self._challenge_until = now if self.validated else now + _GRACE

    def challenge_to_send(self, now: float) -> bytes | None:
        """Return the token of a challenge that is due now."""
        if self._challenge_at is None or now < self._challenge_at or not self._challenges_left:
            return None
        self._challenges_left -= 1
        self._challenge_at = now + self.recovery.pto
        if not self._challenges_left:
            self._challenge_at = max(self._challenge_at, self._challenge_until)
        return self._token

    def give_up_challenge(self) -> None:
        """Await no answer any more."""
        self._token = None
        self._challenge_at = None

    def adopt(self, old: Path) -> None:
        """Take over what was learned of another port of the same host, and what is under way there."""
        self.recovery, old.recovery = old.recovery, self.recovery
        self.mtu, old.mtu = old.mtu, self.mtu

    # Inputs

    def answered(self, token: bytes) -> bool:
        """Take a response; return whether it proves that the peer is here. Tokens are no secrets on their path."""
        if token != self._token:
            return False
        self.give_up_challenge()
        self.validated = True
        self.alive = True
        return True

    # Outputs

    @property
    def challenge_failed(self) -> bool:
        """Whether all tries have left; meaningful once :meth:`next_timeout` is over."""
        return self.challenging and not self._challenges_left

    @property
    def challenging(self) -> bool:
        """Whether an answer is awaited."""
        return self._token is not None

    @property
    def amplification_left(self) -> int | None:
        """Bytes that may be sent before the path is validated; None when it is, or was chosen here."""
        return None if self.validated or self.chosen else max(0, _AMPLIFICATION * self.bytes_received - self.bytes_sent)

    def next_timeout(self) -> float | None:
        """Return when a challenge is due, or its last one has failed."""
        return self._challenge_at
