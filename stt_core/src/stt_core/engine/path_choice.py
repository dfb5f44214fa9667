"""Which of its paths an initiator uses: the one that it likes best among those that are alive.

A path in use is asked whether the peer is still there once it has been silent for half a second; others more rarely, so
that a session moves within two seconds when its path dies, and back when a better one comes to life.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stt_core.engine.paths import Path, PathKey

_ACTIVE_INTERVAL: Final = 0.5  # seconds of silence on the path in use
_STANDBY_INTERVAL: Final = 1.0  # on others
_IDLE_INTERVAL: Final = 5.0  # on all, while the session has nothing to do
_IDLE_AFTER: Final = 5.0  # seconds without traffic


class PathChoice:
    """The paths that an initiator was given, by rank: 0 is liked best."""

    __slots__ = ("_check_at", "_ranks", "_used_at")

    def __init__(self) -> None:
        self._ranks: dict[PathKey, int] = {}
        self._check_at = 0.0
        self._used_at = 0.0

    def __contains__(self, key: PathKey) -> bool:
        return key in self._ranks

    def add(self, key: PathKey, rank: int, now: float) -> None:
        """Take a path up."""
        self._ranks[key] = rank
        self._check_at = now

    def remove(self, key: PathKey) -> None:
        """Drop a path."""
        self._ranks.pop(key, None)

    def used(self, now: float) -> None:
        """Note traffic besides checks."""
        self._used_at = now

    def check(self, paths: Mapping[PathKey, Path], active: Path, now: float) -> None:
        """Ask on each path that has been silent for long enough whether the peer is there."""
        if self.next_timeout() is None or now < self._check_at:
            return
        self._check_at = now + _ACTIVE_INTERVAL
        idle = now - self._used_at > _IDLE_AFTER
        for key in self._ranks:
            path = paths.get(key)
            if path is None or path.challenging:
                continue
            interval = _ACTIVE_INTERVAL if path is active else _STANDBY_INTERVAL
            if now - path.heard_at >= (_IDLE_INTERVAL if idle and path.alive else interval):
                path.challenge(now)

    def best(self, paths: Mapping[PathKey, Path]) -> Path | None:
        """Return the path to use, if any is alive."""
        alive = [(rank, key) for key, rank in self._ranks.items() if key in paths and paths[key].alive]
        return paths[min(alive, key=lambda entry: entry[0])[1]] if alive else None

    def next_timeout(self) -> float | None:
        """Return when :meth:`check` is due: never while there is no choice."""
        return self._check_at if len(self._ranks) > 1 else None
