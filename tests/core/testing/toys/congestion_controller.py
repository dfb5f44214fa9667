"""A congestion controller that keeps every rule, as small as that goes: a step up a round trip, half down a loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stt_core.interfaces.congestion import AckSample, CongestionController
from stt_core.testing import CongestionControllerContract

if TYPE_CHECKING:
    from stt_core.interfaces.congestion import ControllerFactory


class ToyController(CongestionController):
    name = "toy"

    def __init__(self, datagram_size: int) -> None:
        super().__init__(datagram_size)
        self.bytes = float(10 * min(datagram_size, 1472))
        self.threshold = float("inf")
        self.reduced_at = -1.0

    @property
    def window(self) -> int:
        return int(self.bytes)

    def pacing_rate(self, smoothed_rtt: float) -> float | None:
        return 2 * self.bytes / smoothed_rtt

    def sent(self, size: int, bytes_in_flight: int, now: float) -> None:
        pass

    def acknowledged(self, sample: AckSample) -> None:
        if sample.app_limited or sample.newest_sent_at <= self.reduced_at:
            return
        growing = self.bytes < self.threshold
        self.bytes += sample.acked_bytes if growing else self.datagram_size * sample.acked_bytes / self.bytes

    def lost(self, size: int, newest_sent_at: float, bytes_in_flight: int, now: float) -> None:
        if newest_sent_at <= self.reduced_at:
            return
        self.reduced_at = now
        self.threshold = self.bytes = max(self.bytes / 2, 2.0 * self.datagram_size)

    def congestion_persisted(self, now: float) -> None:
        self.bytes = 2.0 * self.datagram_size

    def datagram_size_changed(self, size: int) -> None:
        super().datagram_size_changed(size)
        self.bytes = max(self.bytes, 2.0 * size)


class TestToyController(CongestionControllerContract):
    @pytest.fixture
    def factory(self) -> ControllerFactory:
        return ToyController
