"""What a congestion controller implements: how many bytes a path may have in flight, and how fast they leave.

The engine tells it of bursts, not of packets; it is told only of what needs an acknowledgement. It reads no clock.
Times are seconds, sizes bytes. Model: RFC 9002 section 7.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeAlias

import attrs


@attrs.frozen(kw_only=True)
class AckSample:
    """What one acknowledgement taught about a path."""

    now: float
    acked_bytes: int
    """Bytes that it newly acknowledged."""

    newest_sent_at: float
    """When the newest datagram that it newly acknowledged was sent."""

    bytes_in_flight: int
    """What is still unacknowledged, after it."""

    rtt: float | None
    """The round trip that it measured, if it did."""

    smoothed_rtt: float
    min_rtt: float
    delivery_rate: float | None
    """Bytes a second between the sending and the acknowledging of that datagram; None where it cannot be told."""

    app_limited: bool
    """Whether the sender had too little to send for the rate or the window to mean anything."""


class CongestionController(ABC):
    """The state of one path; made by its factory, and made anew when the path changes.

    Args:
        datagram_size: Bytes of a full datagram on the path.
    """

    name: str

    def __init__(self, datagram_size: int) -> None:
        self.datagram_size = datagram_size

    @property
    @abstractmethod
    def window(self) -> int:
        """Bytes that may be in flight."""

    @abstractmethod
    def pacing_rate(self, smoothed_rtt: float) -> float | None:
        """Return bytes a second to send at, or None to send as the window allows."""

    @abstractmethod
    def sent(self, size: int, bytes_in_flight: int, now: float) -> None:
        """Learn that ``size`` bytes left; ``bytes_in_flight`` counts them."""

    @abstractmethod
    def acknowledged(self, sample: AckSample) -> None:
        """Learn what an acknowledgement taught."""

    @abstractmethod
    def lost(self, size: int, newest_sent_at: float, bytes_in_flight: int, now: float) -> None:
        """Learn that ``size`` bytes were lost, the newest of them sent at ``newest_sent_at``."""

    @abstractmethod
    def congestion_persisted(self, now: float) -> None:
        """Learn that all was lost for longer than RFC 9002 section 7.6 allows."""

    def datagram_size_changed(self, size: int) -> None:
        """Learn that the path now carries datagrams of ``size`` bytes."""
        self.datagram_size = size


ControllerFactory: TypeAlias = Callable[[int], CongestionController]
"""Called with the datagram size; a :class:`CongestionController` class is one."""
