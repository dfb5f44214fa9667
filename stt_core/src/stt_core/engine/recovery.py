"""What is under way on one path, what was lost, and how long the round trip is: RFC 9002, counted in datagrams.

Frames are numbered per session over all paths, but a frame is lost by what happens on its own path: when one that left
at least three datagrams later there is acknowledged, or by time. RTT, loss and congestion use only the path's frames.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Final, NamedTuple

from stt_core.engine.pacing import Pacer
from stt_core.interfaces.congestion import AckSample

if TYPE_CHECKING:
    from stt_core.engine.contents import Content
    from stt_core.interfaces.congestion import CongestionController

_DATAGRAM_THRESHOLD: Final = 3
_TIME_THRESHOLD: Final = 9 / 8
_GRANULARITY: Final = 0.001  # seconds
_MIN_RTT: Final = 1e-6  # seconds: a clock may stand still on loopback, and rates are bytes by round trips
_INITIAL_RTT: Final = 0.333  # seconds, RFC 9002 section 6.2.2
_PERSISTENT_CONGESTION: Final = 3  # PTOs
_MAX_PTO: Final = 60.0  # seconds


class Burst:
    """What the frames that left at one time share: when, and how much had been delivered by then."""

    __slots__ = ("app_limited", "delivered", "delivered_at", "first_sent_at", "sent_at")

    def __init__(
        self, sent_at: float, first_sent_at: float, delivered: int, delivered_at: float, *, app_limited: bool
    ) -> None:
        self.sent_at = sent_at
        self.first_sent_at = first_sent_at
        self.delivered = delivered
        self.delivered_at = delivered_at
        self.app_limited = app_limited


class SentFrame(NamedTuple):
    """A frame under way."""

    datagram: int
    """The number of its datagram on the path."""
    size: int
    """Bytes that it adds to those in flight."""
    burst: Burst
    content: Content | None


class RttEstimator:
    """The round trip of a path, in seconds, never zero (RFC 9002 section 5)."""

    __slots__ = ("latest", "minimum", "pto", "smoothed", "variance")

    def __init__(self, initial: float | None = None) -> None:
        self.latest: float | None = None
        self.minimum = float("inf")
        self.smoothed = _INITIAL_RTT if initial is None else max(initial, _MIN_RTT)
        self.variance = self.smoothed / 2
        self.pto = self._probe_timeout()
        """The probe time-out without the peer's delay and back-off."""

    def update(self, sample: float, ack_delay: float) -> None:
        """Take a measured round trip, of which the peer held the acknowledgement back ``ack_delay``."""
        first = self.latest is None
        sample = max(sample, _MIN_RTT)
        self.latest = sample
        self.minimum = min(self.minimum, sample)
        if first:
            self.smoothed = sample
            self.variance = sample / 2
        else:
            adjusted = sample - ack_delay if sample - ack_delay >= self.minimum else sample
            self.variance += (abs(self.smoothed - adjusted) - self.variance) / 4
            self.smoothed += (adjusted - self.smoothed) / 8
        self.pto = self._probe_timeout()

    def forget_minimum(self) -> None:
        """Begin the minimum anew with the latest round trip, because the path may be another (section 5.2)."""
        assert self.latest is not None
        self.minimum = self.latest

    def _probe_timeout(self) -> float:
        return self.smoothed + max(4 * self.variance, _GRANULARITY)


class Recovery:
    """Frames under way on one path.

    Inputs: :meth:`sent`, :meth:`acknowledged`, :meth:`handle_timeout`; each output comes back as a return value.

    Args:
        controller: The congestion controller of the path; None on a reliable one, where nothing is lost.
        datagram_size: Bytes of a full datagram.
        max_ack_delay: Seconds that the peer may hold an acknowledgement back.
        initial_rtt: Seconds, where the handshake has measured it.
    """

    __slots__ = (
        "_app_limited_until",
        "_datagram_size",
        "_delivered",
        "_delivered_at",
        "_first_sent_at",
        "_largest_acked_datagram",
        "_last_sent_at",
        "_loss_at",
        "_max_ack_delay",
        "_measured_at",
        "_newest_acked_sent_at",
        "_next_datagram",
        "_seen_ranges",
        "_sent",
        "bytes_in_flight",
        "controller",
        "frames_lost",
        "pacer",
        "probes_due",
        "pto_count",
        "rtt",
    )

    def __init__(
        self,
        controller: CongestionController | None,
        datagram_size: int,
        max_ack_delay: float,
        initial_rtt: float | None,
    ) -> None:
        self.controller = controller
        self.rtt = RttEstimator(initial_rtt)
        self.pacer = Pacer(datagram_size)
        self.bytes_in_flight = 0
        self.pto_count = 0
        """Probe time-outs in a row."""
        self.probes_due = 0
        """Datagrams that must leave, whatever the window says, to find out what arrived."""
        self.frames_lost = 0
        self._datagram_size = datagram_size
        self._max_ack_delay = max_ack_delay
        self._sent: dict[int, SentFrame] = {}
        self._next_datagram = 0
        self._largest_acked_datagram = -1
        self._newest_acked_sent_at = float("-inf")
        self._measured_at = float("inf")
        self._last_sent_at = 0.0
        self._loss_at: float | None = None
        self._delivered = 0
        self._delivered_at = 0.0
        self._first_sent_at = 0.0
        self._app_limited_until = 0
        self._seen_ranges: tuple[tuple[int, int], ...] = ()

    # Commands

    def begin_burst(self, now: float) -> Burst:
        """Return what the frames that leave now share."""
        if not self._sent:
            self._first_sent_at = self._delivered_at = now
        app_limited = self._app_limited_until > self._delivered
        return Burst(now, self._first_sent_at, self._delivered, self._delivered_at, app_limited=app_limited)

    def number_datagrams(self, count: int) -> int:
        """Return the number of the first of ``count`` datagrams that are being filled; they follow each other."""
        number = self._next_datagram
        self._next_datagram += count
        return number

    def sent(self, frames: list[tuple[int, SentFrame]], size: int, now: float) -> None:
        """Note a burst of frames that ask for acknowledgement, by ascending number, and their bytes."""
        self._sent.update(frames)
        self.bytes_in_flight += size
        self._last_sent_at = now
        self.pacer.sent(size)
        if self.controller is not None:
            self.controller.sent(size, self.bytes_in_flight, now)

    def app_limited(self) -> None:
        """Note that the application, not the path, is why nothing more leaves."""
        self._app_limited_until = self._delivered + self.bytes_in_flight or 1

    # Inputs

    def acknowledged(
        self, ranges: tuple[tuple[int, int], ...], ack_delay: float, now: float
    ) -> tuple[list[SentFrame], list[SentFrame]]:
        """Take an acknowledgement; return the frames that it newly confirms, and those that it shows to be lost.

        Args:
            ranges: Inclusive ranges of frame numbers, newest first.
            ack_delay: Seconds that the peer says to have held it back.
            now: Seconds.
        """
        # The delay is that of the highest number, which may be of a frame that asked for no acknowledgement.
        is_measured = ranges[0][1] in self._sent
        confirmed, newest = self._take(ranges)
        if newest is None:
            return [], []
        burst = newest.burst
        size = sum([frame.size for frame in confirmed])
        self.bytes_in_flight -= size
        self._delivered += size
        self._delivered_at = now
        self._first_sent_at = burst.sent_at
        rtt = None
        if newest.datagram > self._largest_acked_datagram:
            self._largest_acked_datagram = newest.datagram
            if is_measured:
                if self.rtt.latest is None:
                    self._measured_at = now
                self.rtt.update(now - burst.sent_at, min(ack_delay, self._max_ack_delay))
                rtt = self.rtt.latest
        self.pto_count = 0
        self.probes_due = 0
        if self.controller is None:
            return confirmed, []
        lost = self._detect_losses(now)
        if lost:
            self._check_persistence(lost, confirmed, now)
        self._newest_acked_sent_at = max(self._newest_acked_sent_at, burst.sent_at)
        if size:
            self.controller.acknowledged(
                AckSample(
                    now=now,
                    acked_bytes=size,
                    newest_sent_at=burst.sent_at,
                    bytes_in_flight=self.bytes_in_flight,
                    rtt=rtt,
                    smoothed_rtt=self.rtt.smoothed,
                    min_rtt=self.rtt.minimum,
                    delivery_rate=self._delivery_rate(burst, now),
                    app_limited=burst.app_limited,
                )
            )
        self._update_pacing()
        return confirmed, lost

    def handle_timeout(self, now: float) -> list[SentFrame]:
        """Declare losses that time has shown, or ask for probes; return the lost frames."""
        if self.controller is None or not self._sent:
            return []
        if self._loss_at is not None:
            if now < self._loss_at:
                return []
            lost = self._detect_losses(now)
            self._update_pacing()
            return lost
        if now >= self._pto_at:
            self.pto_count += 1
            self.probes_due = 2  # RFC 9002 section 6.2.4
            self._last_sent_at = now
        return []

    def abandon(self) -> list[SentFrame]:
        """Give up everything under way, because the path is given up; return it."""
        frames = list(self._sent.values())
        self._sent.clear()
        self.bytes_in_flight = 0
        self._loss_at = None
        self.pto_count = 0
        self.probes_due = 0
        return frames

    def datagram_size_changed(self, size: int) -> None:
        """Take the size of datagrams that the path carries now."""
        self._datagram_size = size
        if self.controller is not None:
            self.controller.datagram_size_changed(size)
            self._update_pacing()

    # Outputs

    @property
    def window_left(self) -> int | None:
        """Bytes that the window still allows; None on a reliable path."""
        return None if self.controller is None else self.controller.window - self.bytes_in_flight

    @property
    def pto(self) -> float:
        """Seconds until a probe, with the peer's delay, without back-off."""
        return self.rtt.pto + self._max_ack_delay

    def oldest(self, count: int) -> list[SentFrame]:
        """Return the frames of the ``count`` oldest datagrams under way, for a probe to repeat.

        Those that do not count as in flight are left out: MTU probes are lost on purpose.
        """
        frames: list[SentFrame] = []
        datagrams: set[int] = set()
        for frame in self._sent.values():
            if not frame.size:
                continue
            datagrams.add(frame.datagram)
            if len(datagrams) > count:
                break
            frames.append(frame)
        return frames

    def next_timeout(self) -> float | None:
        """Return when :meth:`handle_timeout` is due."""
        if self.controller is None or not self._sent:
            return None
        return self._loss_at if self._loss_at is not None else self._pto_at

    # Internals

    def _take(self, ranges: tuple[tuple[int, int], ...]) -> tuple[list[SentFrame], SentFrame | None]:
        """Return the frames that are acknowledged for the first time, and the newest of them."""
        sent = self._sent
        seen_starts = dict(self._seen_ranges)
        self._seen_ranges = ranges
        confirmed: list[SentFrame] = []
        newest = None
        oldest = next(iter(sent), None)
        if oldest is None:
            return confirmed, newest
        take = sent.pop
        under_way: list[int] = []
        for first, last in ranges:
            if last < oldest:
                break
            # A range that begins like one of the acknowledgement before has new numbers only behind that one's end.
            start = max(first, oldest, seen_starts.get(first, first - 1) + 1)
            numbers: range | list[int] = range(start, last + 1)
            if last - start > len(sent):
                # The peer says how long a range is; do not walk along one that is mostly not under way here.
                under_way = under_way or list(sent)
                numbers = under_way[bisect_left(under_way, start) : bisect_right(under_way, last)]
            for number in numbers:
                frame = take(number, None)
                if frame is not None:
                    confirmed.append(frame)
            if newest is None and confirmed:
                newest = confirmed[-1]
        return confirmed, newest

    def _detect_losses(self, now: float) -> list[SentFrame]:
        assert self.controller is not None
        self._loss_at = None
        largest = self._largest_acked_datagram
        delay = max(_TIME_THRESHOLD * max(self.rtt.latest or 0.0, self.rtt.smoothed), _GRANULARITY)
        lost: list[SentFrame] = []
        numbers: list[int] = []
        for number, frame in self._sent.items():
            if frame.datagram >= largest:
                break
            if frame.datagram > largest - _DATAGRAM_THRESHOLD and frame.burst.sent_at + delay > now:
                self._loss_at = frame.burst.sent_at + delay
                break
            numbers.append(number)
            lost.append(frame)
        for number in numbers:
            del self._sent[number]
        counted = [frame for frame in lost if frame.size]
        if counted:
            size = sum([frame.size for frame in counted])
            self.bytes_in_flight -= size
            self.frames_lost += len(counted)
            self.controller.lost(size, counted[-1].burst.sent_at, self.bytes_in_flight, now)
        return lost

    def _check_persistence(self, lost: list[SentFrame], confirmed: list[SentFrame], now: float) -> None:
        # RFC 9002 section 7.6: nothing arrived of what was sent over three PTOs, all of it after the first measurement.
        assert self.controller is not None
        since = max(self._newest_acked_sent_at, self._measured_at)
        times = [frame.burst.sent_at for frame in lost if frame.size and frame.burst.sent_at > since]
        duration = _PERSISTENT_CONGESTION * self.pto
        if not times or times[-1] - times[0] <= duration:
            return
        arrived = sorted({frame.burst.sent_at for frame in confirmed})
        begins: dict[int, float] = {}
        for sent_at in times:
            if sent_at - begins.setdefault(bisect_right(arrived, sent_at), sent_at) > duration:
                self.controller.congestion_persisted(now)
                self.rtt.forget_minimum()
                return

    def _delivery_rate(self, burst: Burst, now: float) -> float | None:
        # draft-cheng-iccrg-delivery-rate-estimation: the slower of how it was sent and how it was acknowledged.
        interval = max(now - burst.delivered_at, burst.sent_at - burst.first_sent_at)
        if interval < self.rtt.minimum:
            return None
        return (self._delivered - burst.delivered) / interval

    @property
    def _pto_at(self) -> float:
        return self._last_sent_at + min(self.pto * (1 << min(self.pto_count, 16)), _MAX_PTO)

    def _update_pacing(self) -> None:
        assert self.controller is not None
        # Before the first measurement the handshake's time-outs say nothing about the path: do not pace.
        rate = None if self.rtt.latest is None else self.controller.pacing_rate(self.rtt.smoothed)
        self.pacer.set_rate(rate, self._datagram_size)
