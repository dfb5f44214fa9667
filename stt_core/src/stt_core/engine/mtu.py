"""How large may a datagram be on this path? Packetization-layer path MTU discovery, RFC 8899.

The search goes over sizes that networks really have rather than over all numbers: most paths are done after two probes.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

BASE_SIZE: Final = 1200
"""Bytes of a datagram that every path carries (RFC 9000 section 14)."""

_ETHERNET: Final = 1472  # under IPv4
_SIZES: Final = (
    1232,  # IPv6's minimum of 1280
    1352,
    1392,  # WireGuard's 1420
    1452,  # Ethernet under IPv6, less 48; PPPoE under IPv4 has 1464
    1464,
    _ETHERNET,
    2048,
    4072,
    8152,
    8952,  # jumbo frames under IPv6
    8972,  # jumbo frames under IPv4
    16_384,
    32_768,
    65_487,  # loopback under IPv6
    65_507,  # the largest there is under IPv4
)
_PROBES: Final = 3  # RFC 8899 section 5.1.2, MAX_PROBES
_RAISE_INTERVAL: Final = 600.0  # seconds, section 5.1.1, PMTU_RAISE_TIMER
_PROBE_SPACING: Final = 0.05  # seconds at least between probes of one size
_BLACK_HOLE_TIMEOUTS: Final = 3  # probe time-outs in a row with larger datagrams than the base


class MtuSearch:
    """The search on one path; the session sends the probes, which congestion does not count.

    Args:
        limit: Bytes of the largest datagram that this node, its transport and the peer allow.
        start: Bytes that the transport promises for any path.
    """

    __slots__ = ("_base", "_ceiling", "_failures", "_limit", "_outstanding", "_wait_until", "size")

    def __init__(self, limit: int, start: int) -> None:
        self._base = min(start, limit)
        self._limit = limit
        self._ceiling = limit
        """No size above it is tried for now."""
        self._failures = 0
        self._outstanding: int | None = None
        self._wait_until = 0.0
        self.size = self._base
        """Bytes of a full datagram now."""

    def probe(self, now: float) -> int | None:
        """Return the size of a probe to send now, which is then outstanding; None if none is due."""
        due = self._due
        if due is None or now < due:
            return None
        if self._ceiling <= self.size:
            self._ceiling = self._limit  # the raise timer: the path may have changed for the better
        self._outstanding = self._candidate()
        return self._outstanding

    def confirmed(self, size: int, now: float) -> bool:
        """Note that a probe arrived; return whether the path's size grew."""
        if size <= self.size:
            return False
        self.size = size
        self._go_on(now)
        return True

    def lost(self, size: int, now: float) -> None:
        """Note that a probe was lost."""
        if size != self._outstanding:
            return
        self._outstanding = None
        self._failures += 1
        self._wait_until = now + _PROBE_SPACING
        if self._failures >= _PROBES:
            self._lower_ceiling(size)
            self._go_on(now)

    def refused(self, size: int, now: float) -> bool:
        """Note that the host takes no datagram of that size; return whether the path's size fell to the base."""
        fell = self._base < self.size >= size
        self._lower_ceiling(size)
        if fell:
            self.size = self._base
        self._go_on(now)
        return fell

    def timed_out(self, probe_timeouts: int, now: float) -> bool:
        """Note probe time-outs in a row; return whether a black hole is suspected and the size fell to the base."""
        return probe_timeouts >= _BLACK_HOLE_TIMEOUTS and self.size > self._base and self.refused(self.size, now)

    @property
    def search_due(self) -> float | None:
        """When the search goes on; None while it rests, since only a path in use needs the raise timer."""
        return self._due if self._ceiling > self.size else None

    @property
    def _due(self) -> float | None:
        if self._outstanding is not None or self.size >= self._limit:
            return None
        return self._wait_until

    def _go_on(self, now: float) -> None:
        self._outstanding = None
        self._failures = 0
        self._wait_until = now if self._ceiling > self.size else now + _RAISE_INTERVAL

    def _candidate(self) -> int:
        # Ethernet first, the limit next (loopback, or a configured maximum), then halves of what is left.
        sizes = sorted({size for size in (*_SIZES, self._ceiling) if self.size < size <= self._ceiling})
        if _ETHERNET in sizes and self.size == self._base:
            return _ETHERNET
        if self._ceiling == self._limit:
            return self._limit
        return sizes[len(sizes) // 2]

    def _lower_ceiling(self, size: int) -> None:
        smaller = bisect_left(_SIZES, size)
        largest = _SIZES[smaller - 1] if smaller else self._base
        self._ceiling = min(self._ceiling, max(largest, self.size if self.size < size else self._base))
