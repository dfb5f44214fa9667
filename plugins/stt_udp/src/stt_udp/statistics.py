"""What a UDP transport counts beyond what every transport does."""

from __future__ import annotations

import attrs

from stt_core.interfaces.transport import TransportStatistics


@attrs.frozen(kw_only=True)
class UDPStatistics(TransportStatistics):
    """Counters of one UDP transport since it was opened, and what the kernel granted it."""

    messages_too_large: int = 0
    """Of ``messages_dropped``, those that the path's first link cannot carry: they are never fragmented."""

    receive_overflows: int | None = None
    """Datagrams that the kernel threw away because the receive buffer was full; None where it does not tell."""

    segmentation: bool = False
    """Whether the kernel cuts trains into datagrams (UDP_SEGMENT), so that one call sends a train."""

    coalescing: bool = False
    """Whether the kernel joins datagrams into trains (UDP_GRO), so that one call receives a train."""

    trains_segmented: int = 0
    """Calls that handed the kernel a train to cut."""

    segmentation_fallbacks: int = 0
    """Times that the kernel refused to cut a train for a path which then took its messages one by one."""

    errors_received: int = 0
    """Datagrams that the network reported as undeliverable (ICMP)."""
