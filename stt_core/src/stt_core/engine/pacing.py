"""How much may leave now, so that a path is fed evenly and not in bursts: a token bucket (RFC 9002 section 7.7)."""

from __future__ import annotations

from typing import Final

_TRAIN: Final = 64 * 1024  # bytes: one GSO call; the unit that leaves at once
_TRAIN_TIME: Final = 0.01  # seconds: no train takes longer than that at the path's rate
_QUANTUM: Final = 0.002  # seconds: event loops wake a millisecond late, so the bucket must hold more than that
_BURST_DATAGRAMS: Final = 10  # of at most the size below, as the initial window (RFC 9002 section 7.7)
_BURST_DATAGRAM: Final = 1472


class Pacer:
    """Tokens in bytes, filled at the controller's rate.

    Args:
        datagram_size: Bytes of a full datagram.
    """

    __slots__ = ("_capacity", "_datagram_size", "_rate", "_tokens", "_updated_at")

    def __init__(self, datagram_size: int) -> None:
        self._datagram_size = datagram_size
        self._rate: float | None = None
        self._capacity = float(_BURST_DATAGRAMS * datagram_size)
        self._tokens = self._capacity
        self._updated_at = 0.0

    def set_rate(self, rate: float | None, datagram_size: int) -> None:
        """Take the controller's rate in bytes a second, above zero; None does not pace."""
        self._rate = rate
        self._datagram_size = datagram_size
        if rate is not None:
            burst = _BURST_DATAGRAMS * min(datagram_size, _BURST_DATAGRAM)
            self._capacity = max(burst, datagram_size, min(_TRAIN, rate * _TRAIN_TIME), rate * _QUANTUM)

    def budget(self, now: float) -> int | None:
        """Return the bytes that may leave now; None without a rate. A datagram may leave whenever it is above zero."""
        if self._rate is None:
            return None
        elapsed = now - self._updated_at
        if elapsed > 0:
            self._tokens = min(self._capacity, self._tokens + elapsed * self._rate)
            self._updated_at = now
        return int(self._tokens)

    def sent(self, size: int) -> None:
        """Take away what left."""
        if self._rate is not None:
            self._tokens -= size

    def next_time(self, now: float) -> float | None:
        """Return when a worthwhile part may leave: a datagram, or a train at high rates."""
        if self._rate is None:
            return None
        wanted = min(max(self._datagram_size, self._rate * _QUANTUM / 2), self._capacity)
        return now + max(0.0, (wanted - self._tokens) / self._rate)
