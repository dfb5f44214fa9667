"""BBR: a window and a rate from what the path was measured to carry, not from losses (draft-ietf-ccwg-bbr).

A model of the path is kept: the highest delivery rate of the last ten round trips, and the lowest round trip of the
last ten seconds. Their product is what the path holds when no queue stands. The rate cycles a little above and below
the measured one, to notice when there is more and to drain what that queued.

Two deviations from the draft. Losses limit the bytes in flight only from ``_LOSS_THRESHOLD`` in a round trip on, since
radio links lose two per cent without being full. And the probing cycle is timed in round trips alone, as in the first
version of BBR: its phases need no random source.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final

from stt_core.interfaces.congestion import CongestionController

if TYPE_CHECKING:
    from stt_core.interfaces.congestion import AckSample

_STARTUP_GAIN: Final = 2.77
_STARTUP_WINDOW_GAIN: Final = 2.0
_DRAIN_GAIN: Final = 0.5
_PROBE_GAINS: Final = (1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
_WINDOW_GAIN: Final = 2.0
_MARGIN: Final = 0.99  # of the measured rate, so that a queue drains
_RATE_ROUNDS: Final = 10
_FULL_GROWTH: Final = 1.25
_FULL_ROUNDS: Final = 3
_RTT_WINDOW: Final = 10.0  # seconds
_PROBE_RTT_DURATION: Final = 0.2  # seconds
_PROBE_RTT_GAIN: Final = 0.5
_LOSS_THRESHOLD: Final = 0.1  # of a round trip's bytes; the draft has 0.02
_FULL_LOSSES: Final = 6  # datagrams in a round trip: fewer say nothing
_LOSS_BETA: Final = 0.7
_MINIMUM_DATAGRAMS: Final = 4
_INITIAL_DATAGRAMS: Final = 10
_MAX_INITIAL_DATAGRAM: Final = 1472
_TRAIN: Final = 64 * 1024  # bytes: what leaves in one go at high rates
_TRAIN_TIME: Final = 0.001  # seconds


class _Phase(Enum):
    STARTUP = "startup"
    DRAIN = "drain"
    PROBE_RATE = "probe rate"
    PROBE_RTT = "probe rtt"


class BBR(CongestionController):
    """Rate and window from the measured delivery rate and the lowest round trip."""

    name = "bbr"

    def __init__(self, datagram_size: int) -> None:
        super().__init__(datagram_size)
        self._initial_window = _INITIAL_DATAGRAMS * min(datagram_size, _MAX_INITIAL_DATAGRAM)
        self._window = self._initial_window
        self._phase = _Phase.STARTUP
        self._pacing_gain = _STARTUP_GAIN
        self._rates: list[tuple[int, float]] = []  # (round, rate), falling: the first is the highest
        self._min_rtt: float | None = None
        self._min_rtt_at = 0.0
        self._round = 0
        self._round_ends_at = -1.0
        self._round_acked = 0
        self._round_lost = 0
        self._full_rate = 0.0
        self._full_rounds = 0
        self._is_full = False
        self._cycle = 0
        self._cycle_started_at = 0.0
        self._probe_rtt_ends_at: float | None = None
        self._ceiling: float | None = None
        """Bytes in flight above which too much was lost."""

    @property
    def window(self) -> int:
        """Bytes that may be in flight: twice what the path holds, and half of it while the round trip is measured."""
        if self._phase is _Phase.PROBE_RTT:
            return max(int(_PROBE_RTT_GAIN * self._product), self._minimum)
        return self._window

    def pacing_rate(self, smoothed_rtt: float) -> float | None:
        """Return the measured rate times the gain of the phase, in bytes a second."""
        rate = self._rate
        if not rate:
            return _STARTUP_GAIN * self._initial_window / max(smoothed_rtt, 1e-6)
        return self._pacing_gain * rate * _MARGIN

    def sent(self, size: int, bytes_in_flight: int, now: float) -> None:
        """Nothing is learned from sending."""

    def acknowledged(self, sample: AckSample) -> None:
        """Learn what an acknowledgement taught."""
        self._round_acked += sample.acked_bytes
        begins_round = sample.newest_sent_at >= self._round_ends_at
        if begins_round:
            self._round += 1
            self._round_ends_at = sample.now
        self._learn_rate(sample)
        self._learn_rtt(sample)
        if begins_round:
            self._judge_losses()
            if not self._is_full and not sample.app_limited:
                self._judge_growth()
        self._advance(sample)
        self._grow_window(sample.acked_bytes)

    def lost(self, size: int, newest_sent_at: float, bytes_in_flight: int, now: float) -> None:  # noqa: ARG002  any loss
        """Count losses; they matter when a round trip is over."""
        self._round_lost += size

    def congestion_persisted(self, now: float) -> None:  # noqa: ARG002  the interface has it
        """Begin again from the smallest window; the model of the path is kept."""
        self._window = self._minimum

    def datagram_size_changed(self, size: int) -> None:
        """Make sure that some datagrams of the new size fit the window."""
        super().datagram_size_changed(size)
        self._window = max(self._window, self._minimum)

    # The model of the path

    @property
    def _rate(self) -> float:
        return self._rates[0][1] if self._rates else 0.0

    @property
    def _product(self) -> float:
        """Bytes that the path holds without a queue."""
        return self._rate * self._min_rtt if self._min_rtt is not None else 0.0

    @property
    def _minimum(self) -> int:
        return _MINIMUM_DATAGRAMS * self.datagram_size

    def _learn_rate(self, sample: AckSample) -> None:
        rates = self._rates
        while rates and rates[0][0] < self._round - _RATE_ROUNDS:
            del rates[0]
        rate = sample.delivery_rate
        # A sender with nothing to send measures itself, unless it got through more than ever.
        if rate is None or (sample.app_limited and rate < self._rate):
            return
        while rates and rates[-1][1] <= rate:
            rates.pop()
        rates.append((self._round, rate))

    def _learn_rtt(self, sample: AckSample) -> None:
        if sample.rtt is None:
            return
        if self._min_rtt is None or sample.rtt <= self._min_rtt:
            self._min_rtt = sample.rtt
            self._min_rtt_at = sample.now

    def _judge_losses(self) -> None:
        total = self._round_acked + self._round_lost
        few = self._round_lost < _FULL_LOSSES * self.datagram_size
        if self._round_lost > _LOSS_THRESHOLD * total and not few:
            self._is_full = True
            reached = self._ceiling if self._ceiling is not None else float(self._window)
            self._ceiling = max(_LOSS_BETA * reached, self._product, self._minimum)
        elif self._ceiling is not None and self._pacing_gain > 1:
            self._ceiling *= _PROBE_GAINS[0]
            if self._ceiling > _WINDOW_GAIN * self._product + 3 * _TRAIN:
                self._ceiling = None
        self._round_acked = self._round_lost = 0

    def _judge_growth(self) -> None:
        rate = self._rate
        if rate >= self._full_rate * _FULL_GROWTH:
            self._full_rate = rate
            self._full_rounds = 0
            return
        self._full_rounds += 1
        self._is_full = self._full_rounds >= _FULL_ROUNDS

    # Phases

    def _advance(self, sample: AckSample) -> None:
        if self._phase is _Phase.STARTUP and self._is_full:
            self._phase = _Phase.DRAIN
            self._pacing_gain = _DRAIN_GAIN
        if self._phase is _Phase.DRAIN and sample.bytes_in_flight <= self._product:
            self._begin_cycle(sample.now)
        if self._phase is _Phase.PROBE_RATE:
            self._advance_cycle(sample)
        self._check_probe_rtt(sample)

    def _begin_cycle(self, now: float) -> None:
        self._phase = _Phase.PROBE_RATE
        self._set_cycle(2, now)  # neither above nor below, until the model has settled

    def _set_cycle(self, cycle: int, now: float) -> None:
        self._cycle = cycle % len(_PROBE_GAINS)
        self._pacing_gain = _PROBE_GAINS[self._cycle]
        self._cycle_started_at = now

    def _advance_cycle(self, sample: AckSample) -> None:
        if self._min_rtt is None:
            return  # no acknowledgement has measured a round trip yet
        over = sample.now - self._cycle_started_at > self._min_rtt
        if self._pacing_gain > 1:
            # Up until the queue stands or losses say so: less would not show whether there is more.
            reached = sample.bytes_in_flight >= self._pacing_gain * self._product or self._round_lost > 0
            over = over and reached
        elif self._pacing_gain < 1:
            over = over or sample.bytes_in_flight <= self._product
        if over:
            self._set_cycle(self._cycle + 1, sample.now)

    def _check_probe_rtt(self, sample: AckSample) -> None:
        now = sample.now
        if self._phase is not _Phase.PROBE_RTT:
            if self._min_rtt is None or now - self._min_rtt_at <= _RTT_WINDOW:
                return
            if sample.app_limited or sample.rtt is None:
                # Little is under way, so that the round trip is the path's own.
                if sample.rtt is not None:
                    self._min_rtt, self._min_rtt_at = sample.rtt, now
                return
            self._phase = _Phase.PROBE_RTT
            self._pacing_gain = 1.0
            self._probe_rtt_ends_at = None
            return
        if self._probe_rtt_ends_at is None:
            if sample.bytes_in_flight <= self.window:
                self._probe_rtt_ends_at = now + _PROBE_RTT_DURATION
                self._min_rtt = sample.rtt if sample.rtt is not None else self._min_rtt
            return
        if sample.rtt is not None and self._min_rtt is not None and sample.rtt < self._min_rtt:
            self._min_rtt = sample.rtt
        if now >= self._probe_rtt_ends_at:
            self._min_rtt_at = now
            if self._is_full:
                self._begin_cycle(now)
            else:
                self._phase = _Phase.STARTUP
                self._pacing_gain = _STARTUP_GAIN

    def _grow_window(self, acked_bytes: int) -> None:
        gain = _WINDOW_GAIN if self._is_full else _STARTUP_WINDOW_GAIN
        # What leaves, and is acknowledged, in trains needs room for some of them.
        train = min(max(self._rate * _TRAIN_TIME, 2 * self.datagram_size), max(_TRAIN, self.datagram_size))
        target = gain * self._product + 3 * train
        if self._ceiling is not None:
            target = min(target, self._ceiling)
        target = max(target, self._minimum)
        if self._is_full:
            self._window = int(min(self._window + acked_bytes, target))
        elif self._window < target or not self._rates:
            self._window += acked_bytes
