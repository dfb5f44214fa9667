"""All sessions of a node: which one a message is for, which have something to send, and when time asks for one.

Messages and time in; trains, events and a timer out. The half-open handshakes are in :mod:`stt_core.engine.half_open`.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import attrs

from stt_core.engine.handshake_events import (
    HandshakeCompleted,
    HandshakeConfirmed,
    HandshakeDropped,
    HandshakeFailed,
)
from stt_core.engine.path_index import PathIndex
from stt_core.engine.paths import PathKey
from stt_core.engine.session import Session
from stt_core.engine.status import State
from stt_core.engine.transmitter import MAX_BURST
from stt_core.errors import ErrorCode, FrameError
from stt_core.interfaces.transport import Train
from stt_core.wire.frame import FRAME_OVERHEAD, FrameType, split_frames

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from stt_core import events
    from stt_core.config import STTConfig
    from stt_core.engine.half_open import HalfOpenTable
    from stt_core.engine.paths import Link
    from stt_core.interfaces.congestion import ControllerFactory
    from stt_core.interfaces.crypto import CryptoSuite
    from stt_core.interfaces.transport import Address, Buffer
    from stt_core.wire.frame import RawFrame

_LAST_HANDSHAKE: Final = int(FrameType.HANDSHAKE_CONFIRM)
_STALLED_INTERVAL: Final = 0.1  # seconds between two looks at the timers of a session whose link is blocked
_MAX_TURN: Final = 1024 * 1024  # bytes that one call of drain returns, so that what comes in is read meanwhile
_HANDSHAKE_TRAIN: Final = 8 * 1024  # bytes, about
_MIN_SHARE: Final = 16 * 1024  # bytes of it that a session gets, however many there are
_SUPERSEDED_TIMERS: Final = 64  # that may lie in the heap besides as many as there are timers


class SessionBegun(NamedTuple):
    """A handshake that this node began has made a session; it is not active yet."""

    key: int
    """What ``connect`` returned."""
    session: Session


class SessionOffered(NamedTuple):
    """A peer has proven itself; to be accepted or refused."""

    offer: HandshakeCompleted


class SessionEvents(NamedTuple):
    """What happened in one session."""

    session: Session
    events: list[events.Event]


DemuxEvent: TypeAlias = SessionBegun | SessionOffered | SessionEvents | HandshakeFailed | HandshakeDropped


@attrs.define
class DemuxStatistics:
    """Counters of what never reached a session."""

    malformed: int = 0
    """Messages that are no frames."""
    unknown_session: int = 0
    """Frames of a session that this node does not have."""
    handshakes_dropped: int = 0
    """Handshake messages that were dropped: strangers, replays, floods."""
    handshakes_failed: int = 0
    """Handshakes that this node began in vain."""


class Demux:
    """The sessions of one node; does no I/O and reads no clock.

    Drive it in this order after every input and command: :meth:`drain`, :meth:`next_timeout`. A session that was
    commanded is named with :meth:`touch`.

    Args:
        half_open: The handshakes.
        suites: Every suite that a handshake may choose.
        config: The node's settings.
        controller: What makes congestion controllers.
        sessions: The table of sessions, which the handshakes look into as well.
        custom: The codes of custom frame types that are received here, and whether each is reliable.
    """

    def __init__(
        self,
        half_open: HalfOpenTable,
        suites: Mapping[int, CryptoSuite],
        config: STTConfig,
        controller: ControllerFactory,
        sessions: dict[bytes, Session],
        custom: Mapping[int, bool] = MappingProxyType({}),
    ) -> None:
        self._half_open = half_open
        self._suites = suites
        self._config = config
        self._controller = controller
        self._sessions = sessions
        self._custom = custom
        self._unconfirmed: dict[Session, int] = {}
        self._refused: dict[PathKey, Session] = {}
        # What may have something to send or to tell since the last drain, and what waits for its turn since an earlier
        # one: in a table of its own, so that with thousands of them each turn looks only at those that it serves.
        self._touched: dict[Session, None] = {}
        self._postponed: OrderedDict[Session, None] = OrderedDict()  # takes the first away at no cost
        self._postponed_at: float | None = None
        # By blocked link, and whether a session's last word was handed over nevertheless.
        self._stalled: dict[Link, dict[Session, bool]] = {}
        self._paths = PathIndex()
        # A heap of times, each with a number of its own. What a number is of stands beside it, so that a timer which is
        # superseded, or whose session is over, keeps nothing alive until its time comes.
        self._timers: list[tuple[float, int]] = []
        self._timer_count = 0
        self._timed: dict[int, Session] = {}
        self._scheduled: dict[Session, tuple[float, int]] = {}
        self._events: list[DemuxEvent] = []
        self.statistics = DemuxStatistics()

    # Inputs

    def receive_messages(self, messages: Sequence[tuple[Buffer, Address]], link: Link, now: float) -> None:
        """Take a burst of messages of one link."""
        run: list[RawFrame] = []
        run_id, run_address, run_size = b"", None, 0
        limit = self._config.max_frame_size
        for data, address in messages:
            try:
                frames = split_frames(data, limit)
            except FrameError:
                self.statistics.malformed += 1
                continue
            # Trains of one session make up nearly all of the traffic: they stay one run.
            first = frames[0]
            if (
                first.session_id == run_id
                and len(frames) == 1
                and address == run_address
                and first.type > _LAST_HANDSHAKE
            ):
                run.append(first)
                run_size += len(data)
                continue
            for frame in frames:
                if frame.type <= _LAST_HANDSHAKE:
                    self._receive_handshake(frame, PathKey(link, address), now)
                    continue
                if frame.session_id != run_id or address != run_address:
                    if run:
                        self._deliver(run, PathKey(link, run_address), run_size, now)
                    run, run_id, run_address, run_size = [], frame.session_id, address, 0
                run.append(frame)
                run_size += _size_of(frame)
        if run:
            self._deliver(run, PathKey(link, run_address), run_size, now)

    def peer_unreachable(self, key: PathKey, reason: str, now: float) -> None:
        """Learn that the host says that nobody listens at an address; a reliable link's path is gone with it."""
        self._half_open.path_lost(key, reason, now)
        self._paths.update(self._touched)
        for session in self._paths.on(key):
            if key.link.capabilities.reliable:
                session.path_lost(key, reason, now)
            else:
                session.path_unreachable(key, reason, now)
            self._touched[session] = None

    def link_lost(self, link: Link, reason: str, now: float) -> None:
        """Learn that a link is of no more use."""
        self._stalled.pop(link, None)
        self._paths.update(self._touched)
        for key, session in self._paths.over(link):
            session.path_lost(key, reason, now)
            self._touched[session] = None

    def link_writable(self, link: Link) -> None:
        """Learn that a link that was blocked takes trains again."""
        self._touched.update(dict.fromkeys(self._stalled.pop(link, {})))

    def handle_timeout(self, now: float) -> None:
        """Do what time asks for."""
        self._half_open.handle_timeout(now)
        timers = self._timers
        while timers and timers[0][0] <= now:
            _, number = heapq.heappop(timers)
            session = self._timed.pop(number, None)
            if session is None:
                continue  # superseded
            del self._scheduled[session]
            due_at = session.next_timeout()
            if due_at is not None and due_at > now:
                self._set_timer(session, due_at)  # it was set for what has come sooner, or is no more
                continue
            session.handle_timeout(now)
            self._touched[session] = None

    # Commands

    def connect(self, key: PathKey, expect: bytes | None, now: float) -> int:
        """Begin a handshake; return the key that events name it by."""
        return self._half_open.connect(key, now, expect)

    def cancel(self, handshake: int, now: float) -> None:
        """Drop a handshake that this node began, and the session if there is one already."""
        self._half_open.cancel(handshake, now)
        for session in [session for session, key in self._unconfirmed.items() if key == handshake]:
            del self._unconfirmed[session]
            session.close(ErrorCode.NO_ERROR, "given up", now)
            self._touched[session] = None

    def accept(self, offer: HandshakeCompleted, now: float) -> Session | None:
        """Make a session of an offer; None if it waited too long for that."""
        if not self._half_open.accept(offer.result.session_id):
            return None
        session = self._begin(offer, now, offer.round_trip)
        if offer.early_frames:
            size = sum(map(_size_of, offer.early_frames))
            session.receive_frames(list(offer.early_frames), session.path, size, now)
        return session

    def refuse(self, offer: HandshakeCompleted, code: int, reason: str, now: float) -> None:
        """Tell the peer that it is not let in."""
        self._half_open.refuse(offer.result.session_id)
        # As if nothing were known of the round trip: its draining has to outlast the peer's repeated RESPONSEs.
        session = self._begin(offer, now, None)
        session.close(code, reason, now)
        self._refused[session.path] = session

    def touch(self, session: Session) -> None:
        """Learn that a session was commanded, and may have something to send or to tell."""
        if session.session_id in self._sessions:
            self._touched[session] = None

    # Outputs

    def events(self, now: float) -> list[DemuxEvent]:
        """Return what happened since the last call or :meth:`drain`, but for what follows on trains of :meth:`drain`.

        That is what a session that is closing tells: its last word has to leave before its path is let go of.
        """
        for event in self._half_open.events():
            self._take_handshake_event(event, now)
        for session in self._touched:
            if session.state is not State.CLOSING:
                self._collect_events(session)
        happened, self._events = self._events, []
        return happened

    def drain(
        self, blocked: Collection[Link | PathKey], now: float
    ) -> tuple[list[tuple[PathKey, Train]], list[DemuxEvent]]:
        """Return what is to leave, and what happened, once each.

        At most some 1 MiB leaves at a time, in equal shares; when sessions have to wait for their turn,
        :meth:`next_timeout` is ``now``, and they come first.

        Args:
            blocked: Links and paths that take no trains now. Their sessions wait for :meth:`link_writable`, but for the
                end of one, which is returned once for the transport to keep; what handshakes have to say there is
                dropped, since it is repeated.
            now: Seconds.
        """
        output = self.handshake_trains(blocked)
        for event in self._half_open.events():
            self._take_handshake_event(event, now)
        touched, self._touched = self._touched, {}
        self._paths.update(touched)
        waiting = self._postponed
        waiting.update(touched)
        share = max(_MIN_SHARE, min(MAX_BURST, _MAX_TURN // max(1, len(waiting))))
        left = _MAX_TURN
        while waiting and left > 0:
            session, _ = waiting.popitem(last=False)
            left -= self._serve(session, blocked, share, output, now)
        if waiting:
            # The last word is short, and the path may go with it: it waits for no turn.
            for session in touched:
                if session.state is State.CLOSING and session in waiting:
                    del waiting[session]
                    self._serve(session, blocked, share, output, now)
        self._postponed_at = now if waiting else None
        happened_here, self._events = self._events, []
        return output, happened_here

    def handshake_trains(self, blocked: Collection[Link | PathKey]) -> list[tuple[PathKey, Train]]:
        """Return what handshakes have to say, before :meth:`drain` would: the peer waits, and works on it meanwhile."""
        output: list[tuple[PathKey, Train]] = []
        for path, datagram in self._half_open.datagrams_to_send():
            if not isinstance(path, PathKey) or path in blocked or path.link in blocked:
                continue
            if output:
                # The datagrams of one message leave, and wake the peer, together.
                last_path, last = output[-1]
                size = len(last.data)
                is_full = size % last.segment_size == 0 and len(datagram) <= last.segment_size
                if is_full and size < _HANDSHAKE_TRAIN and last_path == path:
                    output[-1] = (path, Train(b"".join((last.data, datagram)), last.segment_size))
                    continue
            output.append((path, Train(datagram, len(datagram))))
        return output

    @property
    def has_handshake_output(self) -> bool:
        """Whether :meth:`handshake_trains` would return something, if nothing is blocked."""
        return self._half_open.has_datagrams

    @property
    def has_output(self) -> bool:
        """Whether another :meth:`drain` would return something now, because of what was done since the last."""
        return bool(self._touched and not self._postponed) or self._half_open.has_output

    def next_timeout(self) -> float | None:
        """Return when :meth:`handle_timeout` is due."""
        if self._postponed_at is not None:
            return self._postponed_at
        at = self._half_open.next_timeout()
        timers = self._timers
        while timers and timers[0][1] not in self._timed:
            heapq.heappop(timers)
        if timers and (at is None or timers[0][0] < at):
            at = timers[0][0]
        return at

    # Internals

    def _serve(
        self,
        session: Session,
        blocked: Collection[Link | PathKey],
        share: int,
        output: list[tuple[PathKey, Train]],
        now: float,
    ) -> int:
        """Let a session send and tell; return the bytes that it sends."""
        link = session.path.link
        earliest = now
        size = 0
        if blocked and (session.path in blocked or link in blocked):
            earliest += _STALLED_INTERVAL  # what is due to be sent would be due for ever
            stalled = self._stalled.setdefault(link, {})
            if session.state is State.CLOSING and not stalled.get(session):
                # Once: the transport keeps it, while nobody would keep the session until the link takes it.
                stalled[session] = True
                output += session.trains_to_send(now)
            else:
                stalled.setdefault(session, False)
                # Whether another path is to be used must not depend on the one that is blocked.
                output += [
                    (key, train)
                    for key, train in session.probes_to_send(now)
                    if key not in blocked and key.link not in blocked
                ]
        else:
            for key, train in session.trains_to_send(now, share):
                size += len(train.data)
                output.append((key, train))
        self._collect_events(session)
        self._schedule(session, earliest)
        return size

    def _collect_events(self, session: Session) -> None:
        happened = session.events()
        if happened:
            self._events.append(SessionEvents(session, happened))

    def _receive_handshake(self, frame: RawFrame, key: PathKey, now: float) -> None:
        refused = self._refused.get(key) if frame.type == FrameType.HANDSHAKE_RESPONSE else None
        if refused is None:
            self._half_open.receive_frame(frame, key, now)
            return
        # Who repeats RESPONSE has not heard that it is refused.
        refused.tell_end_again()
        self._touched[refused] = None

    def _deliver(self, frames: list[RawFrame], key: PathKey, size: int, now: float) -> None:
        session = self._sessions.get(frames[0].session_id)
        if session is None:
            for frame in frames:
                if not self._half_open.keep_early(frame, key):
                    self.statistics.unknown_session += 1
            return
        session.receive_frames(frames, key, size, now)
        self._touched[session] = None
        if session in self._unconfirmed and session.state is not State.HANDSHAKE:
            del self._unconfirmed[session]
            self._half_open.confirmed(session.session_id, now)

    def _take_handshake_event(
        self, event: HandshakeCompleted | HandshakeConfirmed | HandshakeFailed | HandshakeDropped, now: float
    ) -> None:
        match event:
            case HandshakeCompleted(key=int() as key):
                session = self._begin(event, now, event.round_trip)
                self._unconfirmed[session] = key
                self._events.append(SessionBegun(key, session))
            case HandshakeCompleted():
                self._events.append(SessionOffered(event))
            case HandshakeConfirmed():
                confirmed = self._sessions.get(event.session_id)
                if confirmed is not None and self._unconfirmed.pop(confirmed, None) is not None:
                    confirmed.confirmed()
                    self._touched[confirmed] = None
            case HandshakeFailed():
                self.statistics.handshakes_failed += 1
                failed = self._sessions.get(event.session_id) if event.session_id is not None else None
                if failed is not None and failed in self._unconfirmed:
                    self._forget(failed)
                self._events.append(event)
            case HandshakeDropped():
                self.statistics.handshakes_dropped += 1
                self._events.append(event)

    def _begin(self, offer: HandshakeCompleted, now: float, round_trip: float | None) -> Session:
        assert isinstance(offer.path, PathKey)
        session = Session(
            offer.result,
            suite=self._suites[offer.result.suite],
            config=self._config,
            controller=self._controller,
            path=offer.path,
            now=now,
            custom=self._custom,
            initial_rtt=round_trip,
        )
        self._sessions[session.session_id] = session
        self._touched[session] = None
        return session

    def _schedule(self, session: Session, earliest: float) -> None:
        at = session.next_timeout()
        if at is None:
            self._forget(session)
            return
        # A timer that fires early costs less than one that is set anew at every burst.
        at = max(at, earliest)
        scheduled = self._scheduled.get(session)
        if scheduled is not None and at >= scheduled[0]:
            return
        self._set_timer(session, at)

    def _set_timer(self, session: Session, at: float) -> None:
        self._drop_timer(session)
        self._timer_count += 1
        timer = self._scheduled[session] = (at, self._timer_count)
        self._timed[self._timer_count] = session
        heapq.heappush(self._timers, timer)

    def _drop_timer(self, session: Session) -> None:
        scheduled = self._scheduled.pop(session, None)
        if scheduled is None:
            return
        del self._timed[scheduled[1]]
        if len(self._timers) > 2 * len(self._timed) + _SUPERSEDED_TIMERS:
            self._timers[:] = [timer for timer in self._timers if timer[1] in self._timed]
            heapq.heapify(self._timers)

    def _forget(self, session: Session) -> None:
        self._sessions.pop(session.session_id, None)
        self._unconfirmed.pop(session, None)
        self._touched.pop(session, None)
        self._postponed.pop(session, None)
        self._paths.forget(session)
        self._drop_timer(session)
        if self._refused.get(session.path) is session:
            del self._refused[session.path]
        for link, stalled in list(self._stalled.items()):
            stalled.pop(session, None)
            if not stalled:
                del self._stalled[link]


def _size_of(frame: RawFrame) -> int:
    return FRAME_OVERHEAD + len(frame.payload) + len(frame.metadata)
