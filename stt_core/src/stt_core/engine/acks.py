"""What is to be acknowledged, and when: the receiving side's half of RFC 9000 section 13.2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stt_core.engine.mtu import BASE_SIZE
from stt_core.engine.ranges import RangeSet
from stt_core.wire.messages import MAX_ACK_RANGES, Ack

if TYPE_CHECKING:
    from stt_core.engine.paths import Path

_FRAMES_PER_ACK: Final = 2  # RFC 9000 section 13.2.2, of packets
_BYTES_PER_ACK: Final = BASE_SIZE
_RELIABLE_BYTES_PER_ACK: Final = 256 * 1024
_RELIABLE_DELAY: Final = 0.1  # seconds
_INTERVALS: Final = 2  # between frames to ride with, each of which may be longer than the one before
_ELICIT_EVERY: Final = 16  # acknowledgements without anything to acknowledge
_MAX_RANGES: Final = 4 * MAX_ACK_RANGES  # between two ACKs: a peer that asks for none, and leaves gaps, adds ever more


class AckTracker:
    """Frame numbers that arrived, and whether the peer should hear of them now.

    An ACK goes out at the end of a burst with which two frames have come that ask for it, or with which a gap shows, so
    that one covers a whole train when frames come fast; else ``max_delay`` later. What fills less than a datagram
    counts by its bytes, as segments do in RFC 1122 section 4.2.3.2: a frame costs the same whatever it holds, and of a
    dialogue of short messages every second one would else be an ACK. Less than two datagrams of the least size are ever
    under way unacknowledged, which the smallest congestion window admits.

    Args:
        max_delay: Seconds that an acknowledgement may wait.
    """

    __slots__ = (
        "_due",
        "_frames",
        "_largest",
        "_largest_at",
        "_left_at",
        "_max_delay",
        "_numbers",
        "_size",
        "_unelicited",
    )

    def __init__(self, max_delay: float) -> None:
        self._max_delay = max_delay
        self._numbers = RangeSet()
        self._largest = -1
        self._largest_at = 0.0
        self._frames = 0
        self._size = 0
        self._due: float | None = None
        self._left_at = float("-inf")
        self._unelicited = 0

    # Inputs

    def received(self, first: int, last: int, now: float) -> bool:
        """Note the frames from one number to another; return whether they left or filled a gap.

        The peer should hear of that at once.
        """
        self._numbers.add(first, last + 1)
        expected = self._largest + 1
        if last >= expected:
            self._largest = last
            self._largest_at = now
        if first == expected:
            return False
        if len(self._numbers) > _MAX_RANGES:
            self._numbers.drop_oldest(MAX_ACK_RANGES)
        return True

    def asked(self, frames: int, size: int, path: Path, now: float, *, urgent: bool) -> None:
        """Note at the end of a burst that it held frames that ask for an acknowledgement.

        Args:
            frames: How many.
            size: Bytes of the burst's datagrams.
            path: Where the burst came from.
            now: Seconds.
            urgent: Whether the peer should hear at once: numbers are missing or came late, or it waits.
        """
        self._frames += frames
        self._size += size
        if path.reliable:
            at_once = urgent or self._size >= _RELIABLE_BYTES_PER_ACK
            delay = _RELIABLE_DELAY
        else:
            at_once = urgent or (self._frames >= _FRAMES_PER_ACK and self._size >= _BYTES_PER_ACK)
            delay = self._max_delay
        due = now if at_once else now + delay
        if self._due is None or due < self._due:
            self._due = due

    def forget_below(self, number: int) -> None:
        """Stop reporting numbers below one: the peer knows of them."""
        self._numbers.drop_below(number)

    # Outputs

    @property
    def due(self) -> float | None:
        """When an acknowledgement has to leave; None while nothing asks for one."""
        return self._due

    def rides(self, now: float) -> bool:
        """Note that other frames leave; return whether an ACK should leave with them, to save a datagram of its own.

        Not where they leave so often that others are likely to before it is due.
        """
        interval, self._left_at = now - self._left_at, now
        return self._due is not None and now + _INTERVALS * interval >= self._due

    @property
    def largest(self) -> int:
        """The highest number that arrived; -1 before the first."""
        return self._largest

    def ack(self, now: float) -> Ack:
        """Return the acknowledgement to send now, which counts as sent; only once a frame has arrived."""
        self._numbers.drop_oldest(MAX_ACK_RANGES)
        self._frames = 0
        self._size = 0
        self._due = None
        ranges = tuple((start, stop - 1) for start, stop in self._numbers)[::-1]
        # Rounded down: a delay that is too long is not believed.
        return Ack(delay_us=max(0, int((now - self._largest_at) * 1e6)), ranges=ranges)

    def should_elicit(self, *, alone: bool) -> bool:
        """Return whether a frame that asks for an acknowledgement should ride with the ACK being sent.

        Who only receives would otherwise repeat old ranges for ever, never learning that they were heard.
        """
        if not alone:
            self._unelicited = 0
            return False
        self._unelicited += 1
        if self._unelicited < _ELICIT_EVERY or len(self._numbers) <= 1:
            return False
        self._unelicited = 0
        return True
