"""What a session shows of itself: its state, and its figures."""

from __future__ import annotations

from enum import IntEnum

import attrs


class State(IntEnum):
    """Where a session stands (wire format, "Life")."""

    INIT = 0  #: not begun
    HANDSHAKE = 1  #: the initiator has sent RESPONSE and awaits CONFIRM or a sealed frame
    ACTIVE = 2  #: both sides have proven themselves
    KEY_ROTATING = 3  #: as ACTIVE; the next epoch waits for the peer to acknowledge the current one
    CLOSING = 4  #: DISCONNECT has left; frames of the peer are answered with it for a while
    CLOSED = 5  #: over


@attrs.frozen(kw_only=True)
class SessionStatistics:
    """Figures of one session at one moment."""

    state: State
    path: str
    bytes_sent: int
    bytes_received: int
    frames_sent: int
    frames_received: int
    frames_lost: int
    frames_dropped: int
    """Frames that did not open, came twice or too late, or made no sense before they were opened."""
    datagrams_dropped: int
    """Datagrams that found a queue full, or did not fit the path."""
    round_trip: float | None
    """Smoothed seconds; None before the first measurement."""
    min_round_trip: float | None
    congestion_window: int | None
    """Bytes; None on a reliable path."""
    bytes_in_flight: int
    datagram_size: int
    """Bytes of a full datagram on the path: its MTU less the headers below STT."""
    streams: int
    send_epoch: int
    receive_epoch: int
    waiting_for: str
    """Who holds the sender back: ``application``, ``credit``, ``congestion``, ``pacing``, ``socket``, ``keys``."""
