"""Which of a session's paths is in use, which are known, and when it moves: wire-format.md, "Paths"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stt_core import events
from stt_core.engine.path_choice import PathChoice
from stt_core.wire.messages import PathKind, PathProbe, decode_path_probe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stt_core.engine.paths import Path, PathKey
    from stt_core.engine.recovery import SentFrame
    from stt_core.interfaces.transport import Buffer

_MAX_PATHS: Final = 8
_MAX_RESPONSES: Final = 8


class PathTable:
    """The paths of one session.

    The initiator chooses the path. The responder answers where the peer's newest frame came from, finds out whether the
    peer is really there, and goes back where it was if not.

    Args:
        first: The path of the handshake.
        follows: Whether this side is the responder.
        make: Makes a path that is not validated, from a key and the round trip known so far.
        lost: Told of each frame that was under way on a path that is given up.
        happened: Where events are appended.
    """

    __slots__ = (
        "_choice",
        "_events",
        "_follows",
        "_frames_lost_before",
        "_lost",
        "_make",
        "_newest_number",
        "_paths",
        "_responses",
        "active",
        "all_lost",
        "keys",
    )

    def __init__(
        self,
        first: Path,
        *,
        follows: bool,
        make: Callable[[PathKey, float], Path],
        lost: Callable[[SentFrame, Path, float], None],
        happened: list[events.Event],
    ) -> None:
        self._paths = {first.key: first}
        self._follows = follows
        self._make = make
        self._lost = lost
        self._events = happened
        self._responses: list[tuple[PathKey, bytes]] = []
        self._newest_number = -1
        self._choice = PathChoice()
        self.active = first
        """The path in use; the last one there was when all are lost."""
        self.all_lost = False
        """Whether no path is left that could be in use."""
        self.keys: tuple[PathKey, ...] = (first.key,)
        """The keys of all paths; the same object as long as no path comes or goes."""
        self._frames_lost_before = 0

    def __iter__(self) -> Iterator[Path]:
        return iter(self._paths.values())

    def __len__(self) -> int:
        return len(self._paths)

    def __contains__(self, key: PathKey) -> bool:
        return key in self._paths

    # Commands

    def add(self, key: PathKey, rank: int, now: float) -> None:
        """Offer another path, if this side is the one that chooses; it is used once the peer has answered there.

        Args:
            key: The path; one that is there already gets the rank.
            rank: 0 is liked best.
            now: Seconds.
        """
        self._choice.add(key, rank, now)
        if key not in self._paths:
            path = self._paths[key] = self._make(key, self.active.recovery.rtt.smoothed)
            self.keys = tuple(self._paths)
            path.alive = False
            path.chosen = True
            if self.all_lost:
                path.challenge(now)

    # Inputs

    def received(self, key: PathKey, size: int, newest: int, now: float) -> Path:
        """Note frames that opened; return their path.

        Args:
            key: Where they came from.
            size: Bytes of their messages.
            newest: The highest number among them, PATH frames left out; -1 if there are no others.
            now: Seconds.
        """
        path = self._paths.get(key)
        if path is None:
            path = self._make(key, self.active.recovery.rtt.smoothed)
            if len(self._paths) >= _MAX_PATHS:
                # The oldest of those where nobody has answered, so that forged addresses displace no real one.
                others = [each for each in self if each is not self.active]
                self.lose(min(others, key=lambda each: (each.key in self._choice, each.validated)).key, now)
            self._paths[key] = path
            self.keys = tuple(self._paths)
        path.bytes_received += size
        path.heard_at = now
        if newest >= 0:
            self._choice.used(now)
        if newest > self._newest_number:
            self._newest_number = newest
            if path is not self.active and self._follows:
                self._follow(path, now)
            elif path is self.active and not path.validated and not path.challenging:
                path.challenge(now)  # the tries before were lost, but the peer is heard here
        return path

    def receive_probe(self, plaintext: Buffer, key: PathKey, now: float) -> None:
        """Take a PATH frame.

        Raises:
            FrameError: It is malformed.
        """
        probe = decode_path_probe(plaintext)
        if probe.kind is PathKind.CHALLENGE:
            if len(self._responses) >= _MAX_RESPONSES:
                del self._responses[0]
            self._responses.append((key, probe.token))
            return
        path = self._paths.get(key)
        if path is not None and path.answered(probe.token):
            self._choose(now)

    def suspect(self, key: PathKey, now: float) -> bool:
        """Take a hint that nobody listens there; return whether another path is used from now on."""
        path = self._paths.get(key)
        if path is None or key not in self._choice:
            return False
        path.alive = False
        was_active = path is self.active
        self._choose(now)
        return was_active and path is not self.active

    def lose(self, key: PathKey, now: float) -> bool:
        """Give a path up; return whether it was the last."""
        path = self._paths.pop(key, None)
        if path is None:
            return False
        self.keys = tuple(self._paths)
        self._choice.remove(key)
        self._frames_lost_before += path.recovery.frames_lost
        for frame in path.recovery.abandon():
            self._lost(frame, path, now)
        if path is self.active:
            self.all_lost = True
            if self._paths:
                self._move_to(max(self, key=lambda each: each.validated))
        return not self._paths

    def handle_timeout(self, now: float) -> None:
        """Declare losses, suspect black holes, and give up paths on which no answer came."""
        for path in list(self):
            for frame in path.recovery.handle_timeout(now):
                self._lost(frame, path, now)
            if not path.reliable and path.mtu.timed_out(path.recovery.pto_count, now):
                path.recovery.datagram_size_changed(path.mtu.size)
            at = path.next_timeout()
            if at is None or now < at or not path.challenge_failed:
                continue
            path.give_up_challenge()
            if path.key in self._choice:
                path.alive = False
                if path is not self.active:
                    path.recovery.abandon()  # nothing but questions that were not answered
                continue
            # Back to where somebody has answered (RFC 9000 section 9.3.2); else the idle timeout decides.
            others = [each for each in self if each is not path]
            if any(each.validated for each in others) or (others and not path.validated):
                self.lose(path.key, now)

        self._choose(now)
        self._choice.check(self._paths, self.active, now)

    # Outputs

    def probes(self, now: float) -> list[tuple[Path, PathProbe]]:
        """Return the PATH frames that are due, each on its path."""
        due = []
        responses, self._responses = self._responses, []
        for key, token in responses:
            path = self._paths.get(key)
            if path is not None:
                due.append((path, PathProbe(PathKind.RESPONSE, token)))
        for path in self:
            challenge = path.challenge_to_send(now)
            if challenge is not None:
                due.append((path, PathProbe(PathKind.CHALLENGE, challenge)))
        return due

    def next_timeout(self) -> float | None:
        """Return when :meth:`handle_timeout`, or :meth:`probes`, is due."""
        soonest = self._choice.next_timeout()
        for path in self._paths.values():
            for at in (path.recovery.next_timeout(), path.next_timeout()):
                if at is not None and (soonest is None or at < soonest):
                    soonest = at
        return soonest

    @property
    def frames_lost(self) -> int:
        """Frames that were lost so far, on all paths that there were."""
        return self._frames_lost_before + sum(path.recovery.frames_lost for path in self)

    # Internals

    def _follow(self, path: Path, now: float) -> None:
        # The old place is asked as well: somebody may have sent the peer's frames on from elsewhere.
        old = self.active
        if not path.validated and not path.challenging:
            path.challenge(now)
        if old.key in self._paths and not old.challenging:
            old.challenge(now)
        self._move_to(path)
        if path.key.same_host(old.key):
            path.adopt(old)
            return
        for frame in old.recovery.abandon():
            self._lost(frame, old, now)

    def _choose(self, now: float) -> None:
        best = self._choice.best(self._paths)
        if best is None or best is self.active:
            return
        old = self.active
        self._move_to(best)
        for frame in old.recovery.abandon():
            self._lost(frame, old, now)

    def _move_to(self, path: Path) -> None:
        self.active = path
        self.all_lost = False
        self._events.append(events.PathChanged(str(path.key)))
