"""A sender with a congestion controller in front of a link that is slower than it: what leaves, arrives, gets lost."""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import attrs

from stt_core.interfaces.congestion import AckSample

if TYPE_CHECKING:
    from stt_core.interfaces.congestion import CongestionController

_REORDERING: Final = 3  # datagrams: RFC 9002 section 6.1.1


@attrs.frozen
class _Sent:
    """A datagram under way, and what was delivered when it left."""

    at: float
    first_at: float
    delivered: int
    delivered_at: float


class Bottleneck:
    """One path that always has something to send, simulated without a clock.

    A link takes ``rate`` bytes a second; what comes faster waits in a queue, and gets lost where that is full. Each
    datagram is acknowledged by itself, and is lost when three later ones were acknowledged.

    Args:
        controller: Who decides what leaves.
        rate: Bytes a second of the link.
        round_trip: Seconds there and back, without queue and link.
        queue_size: Bytes that wait for the link at most.
        now: When it begins.
    """

    def __init__(
        self, controller: CongestionController, *, rate: float, round_trip: float, queue_size: int, now: float = 0.0
    ) -> None:
        self.controller = controller
        self.rate = rate
        self.round_trip = round_trip
        self.now = now
        self.bytes_sent = 0
        self.bytes_delivered = 0
        self.bytes_lost = 0
        self.bytes_in_flight = 0
        self._size = controller.datagram_size
        self._queue_time = queue_size / rate
        self._link_free_at = now
        self._may_send_at = now
        self._sent: OrderedDict[int, _Sent] = OrderedDict()
        self._acknowledgements: list[tuple[float, int]] = []
        self._numbers = itertools.count()
        self._delivered_at = self._first_sent_at = now
        self._smoothed = self._minimum = round_trip

    def run(self, seconds: float) -> int:
        """Let time pass; return the bytes that were delivered in it."""
        end = self.now + seconds
        before = self.bytes_delivered
        while self.now < end:
            self._send()
            moments = [end]
            if self._acknowledgements:
                moments.append(self._acknowledgements[0][0])
            if self._has_room():
                moments.append(self._may_send_at)
            self.now = max(self.now, min(moments))
            while self._acknowledgements and self._acknowledgements[0][0] <= self.now:
                self._acknowledge(heapq.heappop(self._acknowledgements)[1])
            if not self._acknowledgements and not self._has_room():
                self._lose(list(self._sent))  # a probe time-out: nothing will tell of these
        return self.bytes_delivered - before

    def _has_room(self) -> bool:
        return not self.bytes_in_flight or self.bytes_in_flight + self._size <= self.controller.window

    def _send(self) -> None:
        while self._has_room() and self._may_send_at <= self.now:
            if not self._sent:
                self._first_sent_at = self._delivered_at = self.now
            number = next(self._numbers)
            self._sent[number] = _Sent(self.now, self._first_sent_at, self.bytes_delivered, self._delivered_at)
            self.bytes_sent += self._size
            self.bytes_in_flight += self._size
            self.controller.sent(self._size, self.bytes_in_flight, self.now)
            waiting = max(self._link_free_at - self.now, 0.0)
            if waiting <= self._queue_time:
                self._link_free_at = self.now + waiting + self._size / self.rate
                heapq.heappush(self._acknowledgements, (self._link_free_at + self.round_trip, number))
            pace = self.controller.pacing_rate(self._smoothed)
            if pace is not None:
                self._may_send_at = max(self._may_send_at, self.now - self._size / pace) + self._size / pace

    def _acknowledge(self, number: int) -> None:
        sent = self._sent.pop(number, None)
        if sent is None:
            return
        self.bytes_in_flight -= self._size
        self.bytes_delivered += self._size
        self._delivered_at = self.now
        self._first_sent_at = sent.at
        rtt = self.now - sent.at
        self._smoothed += (rtt - self._smoothed) / 8
        self._minimum = min(self._minimum, rtt)
        self._lose(list(itertools.takewhile(lambda other: other <= number - _REORDERING, self._sent)))
        interval = max(self.now - sent.delivered_at, sent.at - sent.first_at)
        self.controller.acknowledged(
            AckSample(
                now=self.now,
                acked_bytes=self._size,
                newest_sent_at=sent.at,
                bytes_in_flight=self.bytes_in_flight,
                rtt=rtt,
                smoothed_rtt=self._smoothed,
                min_rtt=self._minimum,
                delivery_rate=(self.bytes_delivered - sent.delivered) / interval if interval > 0 else None,
                app_limited=False,
            )
        )

    def _lose(self, numbers: list[int]) -> None:
        if not numbers:
            return
        newest = max(self._sent.pop(number).at for number in numbers)
        size = self._size * len(numbers)
        self.bytes_in_flight -= size
        self.bytes_lost += size
        self.controller.lost(size, newest, self.bytes_in_flight, self.now)
