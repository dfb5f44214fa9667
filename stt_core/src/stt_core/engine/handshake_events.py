"""What the half-open table tells its owner: one value for each thing that happened to a handshake."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from stt_core.engine.handshake import HandshakeResult
    from stt_core.errors import ConnectReason
    from stt_core.wire.frame import RawFrame


class HandshakeCompleted(NamedTuple):
    """The peer has proven itself; both sides have keys.

    The initiator may send sealed frames at once, behind the datagrams of the table. At the responder nothing is sent
    until the handshake is accepted or refused.
    """

    key: int | None
    """What ``connect`` returned; None at the responder."""
    path: Hashable
    result: HandshakeResult
    round_trip: float | None
    """Seconds, with the peer's work in them; None when a message was repeated, so that nobody knows which was
    answered."""
    early_frames: Sequence[RawFrame] = ()
    """Sealed frames of the session that came before the decision, in their order; to be read once it is accepted, since
    those that come until then are added. Only at the responder."""


class HandshakeConfirmed(NamedTuple):
    """CONFIRM came: the responder has accepted. Only at the initiator, and only if no sealed frame opened before."""

    key: int
    session_id: bytes


class HandshakeFailed(NamedTuple):
    """A handshake that this node began is over without a session, or with one that is to be dropped."""

    key: int
    path: Hashable
    reason: ConnectReason
    text: str
    session_id: bytes | None = None
    """The session, where :class:`HandshakeCompleted` was told before."""


class HandshakeDropped(NamedTuple):
    """Something was dropped without an answer: for the local log and the counters only."""

    path: Hashable
    reason: str


HandshakeEvent: TypeAlias = HandshakeCompleted | HandshakeConfirmed | HandshakeFailed | HandshakeDropped
