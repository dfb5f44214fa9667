"""What a session tells its owner: one value for each thing that happened, in order."""

from __future__ import annotations

from typing import TypeAlias

import attrs


@attrs.frozen
class _Bare:
    """An event with nothing to tell but that it happened."""


@attrs.frozen
class _OfStream:
    """An event of one stream."""

    stream_id: int


class SessionActivated(_Bare):
    """Both sides have proven themselves; at the initiator, the peer's CONFIRM or a sealed frame has come."""

    __slots__ = ()


@attrs.frozen
class SessionEnded:
    """The session is over; no event follows."""

    code: int
    """An :class:`~stt_core.errors.ErrorCode` or an application's code."""
    reason: str
    by_peer: bool


class StreamOpened(_OfStream):
    """The peer has opened a stream."""

    __slots__ = ()


class StreamReadable(_OfStream):
    """A stream has bytes, its end, or a reset to read. Told once a burst."""

    __slots__ = ()


class StreamWritable(_OfStream):
    """A stream that took less than it was given takes bytes again, or will never take any."""

    __slots__ = ()


class StreamDelivered(_OfStream):
    """The peer has acknowledged everything that was sent on a stream, and its end."""

    __slots__ = ()


class StreamForgotten(_OfStream):
    """Both directions of a stream are over, and nothing more will be told of it."""

    __slots__ = ()


class StreamsAllowed(_Bare):
    """The peer allows more streams than before."""

    __slots__ = ()


@attrs.frozen
class MessageReceived:
    """A message of a custom type or an endpoint came whole, or a datagram of a custom type that is not reliable."""

    frame_type: int
    data: bytes
    reliable: bool
    """Whether the peer waits for room: ``message_handled`` is to be called for it."""


class MessagesAllowed(_Bare):
    """The peer has room for messages again."""

    __slots__ = ()


@attrs.frozen
class DatagramReceived:
    """A datagram came."""

    data: bytes


@attrs.frozen
class PingAnswered:
    """A KEEPALIVE was acknowledged."""

    token: bytes
    round_trip: float
    """Seconds from its sending."""


@attrs.frozen
class PathChanged:
    """The session goes over another path now."""

    path: str


@attrs.frozen
class KeysRotated:
    """A direction has begun a new epoch."""

    epoch: int
    sending: bool


Event: TypeAlias = (
    SessionActivated
    | SessionEnded
    | StreamOpened
    | StreamReadable
    | StreamWritable
    | StreamDelivered
    | StreamForgotten
    | StreamsAllowed
    | MessageReceived
    | MessagesAllowed
    | DatagramReceived
    | PingAnswered
    | PathChanged
    | KeysRotated
)
