"""When a silent peer is asked for a sign of life, and when it counts as dead; no clock of its own."""

from __future__ import annotations

from enum import Enum


class Check(Enum):
    """What a due check found."""

    ALIVE = "alive"  #: heard lately, or not due yet
    SILENT = "silent"  #: nothing for an interval: send a ping
    DEAD = "dead"  #: no byte since that ping


class Keepalive:
    """Watches one peer: any byte of it is a sign of life.

    Args:
        interval: Seconds of silence until it is asked.
        timeout: Seconds that it then has.
        now: The current time.
    """

    def __init__(self, interval: float, timeout: float, now: float) -> None:
        self._interval = interval
        self._timeout = timeout
        self._heard_at = now
        self._asked_at: float | None = None

    # Inputs

    def heard(self, now: float) -> bool:
        """Learn that bytes came; returns whether they answer a ping, which brings :meth:`next_timeout` forward."""
        self._heard_at = now
        is_answer = self._asked_at is not None
        self._asked_at = None
        return is_answer

    def check(self, now: float) -> Check:
        """Look at the peer, at the time that :meth:`next_timeout` gave or at any other."""
        if self._asked_at is not None:
            return Check.DEAD if now >= self._asked_at + self._timeout else Check.ALIVE
        if now < self._heard_at + self._interval:
            return Check.ALIVE
        self._asked_at = now
        return Check.SILENT

    # Outputs

    def next_timeout(self) -> float:
        """Return the time of the next check."""
        return self._heard_at + self._interval if self._asked_at is None else self._asked_at + self._timeout
