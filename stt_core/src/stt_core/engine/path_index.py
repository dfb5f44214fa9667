"""Which sessions use a path, or any path over a link: what happens to one concerns them and nobody else."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stt_core.engine.paths import Link, PathKey
    from stt_core.engine.session import Session


class PathIndex:
    """Sessions by the paths that they have."""

    __slots__ = ("_keys", "_links")

    def __init__(self) -> None:
        self._keys: dict[Session, tuple[PathKey, ...]] = {}
        self._links: dict[Link, dict[PathKey, list[Session]]] = {}  # nearly always one session to a path

    # Commands

    def update(self, sessions: Iterable[Session]) -> None:
        """Take up what has changed in the paths of sessions; cheap where nothing has."""
        known = self._keys
        for session in sessions:
            keys = session.path_keys
            if known.get(session) is keys:
                continue
            self.forget(session)
            known[session] = keys
            for key in keys:
                self._links.setdefault(key.link, {}).setdefault(key, []).append(session)

    def forget(self, session: Session) -> None:
        """Drop a session; one that is not known is ignored."""
        for key in self._keys.pop(session, ()):
            by_key = self._links[key.link]
            users = by_key[key]
            users.remove(session)
            if not users:
                del by_key[key]
                if not by_key:
                    del self._links[key.link]

    # Outputs

    def on(self, key: PathKey) -> tuple[Session, ...]:
        """Return the sessions that use a path."""
        return tuple(self._links.get(key.link, {}).get(key, ()))

    def over(self, link: Link) -> list[tuple[PathKey, Session]]:
        """Return the paths over a link, each with a session that uses it."""
        return [(key, session) for key, users in self._links.get(link, {}).items() for session in users]
