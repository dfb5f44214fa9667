"""How much may be sent: the credit that the peer gave, and what is given to it; absolute limits, in bytes."""

from __future__ import annotations


class SendCredit:
    """What the peer allows on a stream or a session."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    @property
    def left(self) -> int:
        """Bytes that may still be sent."""
        return self.limit - self.used

    def raise_to(self, limit: int) -> bool:
        """Take a new limit; return whether it is higher. A lower one is late, not wrong."""
        if limit <= self.limit:
            return False
        self.limit = limit
        return True


class ReceiveCredit:
    """What the peer is allowed on a stream or a session.

    Args:
        window: Bytes that the peer may be ahead of the reader.
    """

    __slots__ = ("_window", "consumed", "limit", "received")

    def __init__(self, window: int) -> None:
        self._window = window
        self.consumed = 0
        """Bytes that the application has read, or that need not be kept."""
        self.limit = window
        """The limit that the peer was told."""
        self.received = 0
        """The highest offset that came, or the sum of them for a session."""

    def consume(self, size: int) -> None:
        """Note that the application took bytes, or that they need not be kept."""
        self.consumed += size

    @property
    def update_due(self) -> bool:
        """Whether a quarter of the window was read since the peer was told its limit."""
        return self.consumed + self._window - self.limit >= max(1, self._window >> 2)

    def renew(self) -> int:
        """Return the limit to tell the peer now."""
        self.limit = self.consumed + self._window
        return self.limit
