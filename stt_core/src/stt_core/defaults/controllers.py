"""The congestion controllers that come with the core: NewReno (RFC 9002 section 7) and CUBIC (RFC 9438)."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Final

from stt_core.defaults.bbr import BBR
from stt_core.interfaces.congestion import CongestionController

if TYPE_CHECKING:
    from stt_core.interfaces.congestion import AckSample, ControllerFactory

_INITIAL_DATAGRAMS: Final = 10  # RFC 9002 section 7.2
_MINIMUM_DATAGRAMS: Final = 2
_MAX_INITIAL_WINDOW_DATAGRAM: Final = 1472
_SLOW_START_PACING: Final = 2.0  # of a window a round trip: slow start doubles it in that time
_PACING: Final = 1.25  # RFC 9002 section 7.7
_PAUSE: Final = 0.1  # seconds, or two round trips: who does not fill the window for so long has paused
# HyStart++, RFC 9406 section 4.3:
_MIN_RTT_SAMPLES: Final = 8
_MIN_RTT_THRESHOLD: Final = 0.004  # seconds
_MAX_RTT_THRESHOLD: Final = 0.016  # seconds
_RTT_DIVISOR: Final = 8
_CAUTIOUS_GROWTH: Final = 1 / 4
_CAUTIOUS_ROUNDS: Final = 5


class _WindowController(CongestionController):
    """What window-based controllers share: slow start, one reduction a round trip, a minimum."""

    def __init__(self, datagram_size: int) -> None:
        super().__init__(datagram_size)
        self._window = float(_INITIAL_DATAGRAMS * min(datagram_size, _MAX_INITIAL_WINDOW_DATAGRAM))
        self._threshold = float("inf")
        self._recovery_started_at = -1.0
        self._first_slow_start = _FirstSlowStart()

    @property
    def window(self) -> int:
        return int(self._window)

    def pacing_rate(self, smoothed_rtt: float) -> float | None:
        doubles = self._window < self._threshold and self._growth == 1
        gain = _SLOW_START_PACING if doubles else _PACING
        return gain * self._window / smoothed_rtt

    def sent(self, size: int, bytes_in_flight: int, now: float) -> None:
        """Nothing is learned from sending."""

    def acknowledged(self, sample: AckSample) -> None:
        if sample.newest_sent_at <= self._recovery_started_at or sample.app_limited:
            return
        if self._window >= self._threshold:
            self._avoid_congestion(sample)
            return
        self._window += self._growth * sample.acked_bytes
        if self._threshold == float("inf") and self._first_slow_start.ends(sample):
            self._threshold = self._window

    def lost(self, size: int, newest_sent_at: float, bytes_in_flight: int, now: float) -> None:  # noqa: ARG002  any loss
        if newest_sent_at <= self._recovery_started_at:
            return
        self._recovery_started_at = now
        self._reduce()
        self._window = max(self._window, self._minimum)
        self._threshold = self._window

    def congestion_persisted(self, now: float) -> None:  # noqa: ARG002  the interface has it
        self._window = self._minimum
        self._recovery_started_at = -1.0

    def datagram_size_changed(self, size: int) -> None:
        super().datagram_size_changed(size)
        self._window = max(self._window, self._minimum)

    @property
    def _minimum(self) -> float:
        return float(_MINIMUM_DATAGRAMS * self.datagram_size)

    @property
    def _growth(self) -> float:
        """Bytes by which slow start grows for each that is acknowledged."""
        return self._first_slow_start.growth if self._threshold == float("inf") else 1.0

    @abstractmethod
    def _avoid_congestion(self, sample: AckSample) -> None:
        """Grow outside of slow start."""

    @abstractmethod
    def _reduce(self) -> None:
        """Make the window smaller, once for all losses of a round trip."""


class _FirstSlowStart:
    """Ends slow start before the queue overflows that it builds up (HyStart++, RFC 9406).

    When the round trip grows, the window grows more slowly for some rounds; if the round trip was only noisy, it goes
    on as before, else slow start is over. Later slow starts know where to end.
    """

    def __init__(self) -> None:
        self._round_ends_at = -1.0
        self._last_minimum = float("inf")
        self._minimum = float("inf")
        self._samples = 0
        self._baseline: float | None = None
        self._cautious_rounds = 0

    @property
    def growth(self) -> float:
        """Bytes by which the window grows for each that is acknowledged; less than one while the round trip grows."""
        return 1.0 if self._baseline is None else _CAUTIOUS_GROWTH

    def ends(self, sample: AckSample) -> bool:
        """Take a sample; return whether slow start is over."""
        if sample.newest_sent_at >= self._round_ends_at:
            self._round_ends_at = sample.now
            self._last_minimum, self._minimum = self._minimum, float("inf")
            self._samples = 0
            if self._baseline is not None:
                self._cautious_rounds += 1
        if sample.rtt is not None:
            self._minimum = min(self._minimum, sample.rtt)
            self._samples += 1
        if self._samples >= _MIN_RTT_SAMPLES:
            self._judge()
        return self._baseline is not None and self._cautious_rounds >= _CAUTIOUS_ROUNDS

    def _judge(self) -> None:
        if self._baseline is not None:
            if self._minimum < self._baseline:
                self._baseline = None
            return
        threshold = min(max(self._last_minimum / _RTT_DIVISOR, _MIN_RTT_THRESHOLD), _MAX_RTT_THRESHOLD)
        if self._last_minimum + threshold <= self._minimum:
            self._baseline = self._minimum
            self._cautious_rounds = 0


class NewReno(_WindowController):
    """RFC 9002 section 7: a datagram more each round trip, half of it at a loss."""

    name = "newreno"

    def _avoid_congestion(self, sample: AckSample) -> None:
        self._window += self.datagram_size * sample.acked_bytes / self._window

    def _reduce(self) -> None:
        self._window /= 2


class Cubic(_WindowController):
    """RFC 9438: the window grows as a cubic function of the time since the last loss, whatever the round trip."""

    name = "cubic"

    _SCALE: Final = 0.4  # C, section 5.1
    _BETA: Final = 0.7  # section 4.6

    def __init__(self, datagram_size: int) -> None:
        super().__init__(datagram_size)
        self._maximum = 0.0  # W_max
        self._prior = 0.0  # the window before the last reduction
        self._epoch_started_at: float | None = None
        self._grown_at = 0.0
        self._origin_delay = 0.0  # K
        self._estimate = 0.0  # W_est, section 4.3

    def congestion_persisted(self, now: float) -> None:
        """As Reno's, and the window before is forgotten."""
        super().congestion_persisted(now)
        self._epoch_started_at = None
        self._maximum = 0.0  # section 4.8: K is 0 in the round that follows

    def _avoid_congestion(self, sample: AckSample) -> None:
        size, now = self.datagram_size, sample.now
        if self._epoch_started_at is None:
            self._epoch_started_at = now
            self._estimate = self._window
            self._maximum = max(self._maximum, self._window)
            self._origin_delay = ((self._maximum - self._window) / size / self._SCALE) ** (1 / 3)
        elif now - self._grown_at > max(2 * sample.smoothed_rtt, _PAUSE):
            self._epoch_started_at += now - self._grown_at  # section 5.8: a pause teaches nothing about the path
        self._grown_at = now
        elapsed = now - self._epoch_started_at + sample.smoothed_rtt
        target = self._SCALE * (elapsed - self._origin_delay) ** 3 * size + self._maximum
        target = min(max(target, self._window), 1.5 * self._window)
        # Section 4.3: as fast as Reno would, while that is faster.
        gain = 1.0 if self._estimate >= self._prior else 3 * (1 - self._BETA) / (1 + self._BETA)
        self._estimate += gain * size * sample.acked_bytes / self._window
        grown = self._window + (target - self._window) * sample.acked_bytes / self._window
        self._window = max(grown, self._estimate)

    def _reduce(self) -> None:
        # Section 4.7, fast convergence: who could not reach the last maximum leaves room to others.
        shrinking = self._window < self._maximum
        self._maximum = self._window * (1 + self._BETA) / 2 if shrinking else self._window
        self._prior = self._window
        self._window *= self._BETA
        self._epoch_started_at = None


CONTROLLERS: Final[dict[str, ControllerFactory]] = {NewReno.name: NewReno, Cubic.name: Cubic, BBR.name: BBR}
"""Each controller by its name."""
