"""Westwood+: at a loss the window falls to what the path was measured to carry, not to the half."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stt_core import hookimpl
from stt_core.interfaces.congestion import AckSample, CongestionController

if TYPE_CHECKING:
    from collections.abc import Callable

    from stt_core.interfaces.congestion import ControllerFactory


class Westwood(CongestionController):
    """NewReno, but for what a loss does. Radio links lose without being full; this takes note of that."""

    name = "westwood"

    def __init__(self, datagram_size: int) -> None:
        super().__init__(datagram_size)
        self._window = float(10 * min(datagram_size, 1472))
        self._threshold = float("inf")
        self._rate = 0.0  # bytes a second that arrive, smoothed
        self._min_rtt = 0.0
        self._reduced_at = -1.0

    @property
    def window(self) -> int:
        """Bytes that may be in flight."""
        return int(self._window)

    def pacing_rate(self, smoothed_rtt: float) -> float | None:
        """Return a little more than a window a round trip."""
        return 1.25 * self._window / max(smoothed_rtt, 1e-6)

    def sent(self, size: int, bytes_in_flight: int, now: float) -> None:
        """Nothing is learned from sending."""

    def acknowledged(self, sample: AckSample) -> None:
        """Learn the rate, and grow: by what arrived, later by a datagram a round trip."""
        self._min_rtt = sample.min_rtt
        if sample.delivery_rate is not None and not sample.app_limited:
            self._rate += (sample.delivery_rate - self._rate) / 8
        if sample.app_limited or sample.newest_sent_at <= self._reduced_at:
            return
        starting = self._window < self._threshold
        self._window += sample.acked_bytes if starting else self.datagram_size * sample.acked_bytes / self._window

    def lost(self, size: int, newest_sent_at: float, bytes_in_flight: int, now: float) -> None:
        """Fall to what the path holds without a queue, once for all losses of a flight."""
        if newest_sent_at <= self._reduced_at:
            return
        self._reduced_at = now
        self._window = min(self._window, max(self._rate * self._min_rtt, 2.0 * self.datagram_size))
        self._threshold = self._window

    def congestion_persisted(self, now: float) -> None:
        """Begin anew."""
        self._window = 2.0 * self.datagram_size
        self._rate = 0.0

    def datagram_size_changed(self, size: int) -> None:
        """Keep two datagrams in the window."""
        super().datagram_size_changed(size)
        self._window = max(self._window, 2.0 * size)


@hookimpl
def stt_register_congestion_controllers(register: Callable[[str, ControllerFactory], None]) -> None:
    register(Westwood.name, Westwood)
