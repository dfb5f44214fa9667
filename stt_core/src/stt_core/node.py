"""The node: owns transports, sessions and the clock; with the handles beside it, the only core module that does I/O."""

from __future__ import annotations

import asyncio
import inspect
import logging
import traceback
from collections import Counter
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import attrs

from stt_core import events
from stt_core.config import STTConfig
from stt_core.defaults import plugin as core_plugin
from stt_core.defaults.suites import select_suites
from stt_core.endpoints import EndpointManager, EndpointService
from stt_core.engine.demux import Demux, SessionBegun, SessionEvents, SessionOffered
from stt_core.engine.half_open import HalfOpenTable
from stt_core.engine.handshake_events import HandshakeDropped, HandshakeFailed
from stt_core.engine.paths import PathKey
from stt_core.engine.status import State
from stt_core.errors import (
    ConfigError,
    ConnectError,
    ConnectReason,
    ErrorCode,
    FrameError,
    LocalError,
    PeerUnreachable,
    SessionClosed,
    STTError,
)
from stt_core.frame_types import FrameTypes
from stt_core.identity import Identity
from stt_core.interfaces.endpoint import PeerOffer
from stt_core.links import OpenLink, open_link
from stt_core.packets import PacketReader
from stt_core.plugins import PluginInfo, PluginState, load_plugins
from stt_core.racing import race
from stt_core.redial import Redialer
from stt_core.seeds import Keyring, check_distinct
from stt_core.session import STTSession
from stt_core.stream import Signal
from stt_core.subscriptions import (
    DEFAULT_QUEUE_SIZE,
    LinkLost,
    NodeEvent,
    PeerRefused,
    PluginFailed,
    SessionEnded,
    SessionMoved,
    SessionOpened,
    Subscription,
    Subscriptions,
)
from stt_core.wire.frame import CUSTOM_FRAME_TYPES
from stt_core.wire.messages import Parameters

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterable, Sequence
    from types import TracebackType
    from typing import Any, Self

    from stt_core.engine.demux import DemuxEvent
    from stt_core.engine.handshake_events import HandshakeCompleted
    from stt_core.engine.paths import Link
    from stt_core.engine.session import Session
    from stt_core.interfaces.storage import StorageProvider
    from stt_core.interfaces.transport import Address, Buffer, TransportStatistics
    from stt_core.packets import ReceivedPacket

_LOG = logging.getLogger("stt.node")

_NODE_ID_SIZE: Final = 32
_RACE_INTERVAL: Final = 0.25  # seconds between two URLs of one connect (RFC 8305 section 5)
_DROP_LOG_INTERVAL: Final = 10.0  # seconds: strangers must not be able to fill the log
_MAX_DRAINS: Final = 4  # rounds of output in one go, before others have their turn
_MAX_ENDED: Final = 64  # sessions that ended before anybody took them: what they had brought may still be read
_CALL_TIMEOUT: Final = 1.0  # seconds for calls that wait to notice that the node stops

# The most telling first: a peer that answered says more than one that did not.
_REASONS: Final = (
    ConnectReason.WRONG_PEER,
    ConnectReason.REFUSED,
    ConnectReason.CANCELLED,
    ConnectReason.UNREACHABLE,
    ConnectReason.NO_ANSWER,
)


@attrs.frozen(kw_only=True)
class NodeStatistics:
    """Figures of a node at one moment."""

    sessions: int
    transports: tuple[tuple[str, TransportStatistics], ...]
    """Those that are open, each with its URL; several may have the same."""
    messages_malformed: int
    """Messages that were no frames."""
    frames_unknown: int
    """Frames of sessions that this node does not have."""
    handshakes_dropped: int
    """Handshake messages of strangers, replays and floods."""
    handshakes_failed: int
    """Handshakes that this node began in vain."""
    sessions_refused: int
    """Peers that had the seed and were not let in."""


class STTNode:
    """A node: an identity, the seeds that it shares, the transports that it listens on, and its sessions.

    Args:
        node_seed: At least 32 random bytes that are this node's alone: its identity.
        shared_seed: At least 32 random bytes that all its peers have, or several such seeds; the first initiates.
        host: Where :meth:`start` listens, unless something was listened on before.
        port: As above; 0 lets the host choose.
        config: The settings.
        storage: URL of the store that :attr:`storage` opens.
        plugins: Plugin objects, besides the installed ones.
        require_plugins: Names of plugins without which the node refuses to be made.
        disable_plugins: Names of plugins not to use; ``*`` for all that are installed. Those are not imported.
        allow: Node ids that are let in; None lets in everybody who has a shared seed.
        deny: Node ids that are not let in.

    Raises:
        ConfigError: A seed or a setting cannot work.
        PluginError: A required plugin is missing or failed.
    """

    def __init__(  # noqa: PLR0913  what a node is made of, by name
        self,
        *,
        node_seed: bytes,
        shared_seed: bytes | Sequence[bytes],
        host: str = "127.0.0.1",
        port: int = 0,
        config: STTConfig | None = None,
        storage: str = "memory://",
        plugins: Iterable[object] = (),
        require_plugins: Iterable[str] = (),
        disable_plugins: Iterable[str] = (),
        allow: Iterable[bytes] | None = None,
        deny: Iterable[bytes] = (),
    ) -> None:
        self._config = config or STTConfig()
        self._identity = Identity.from_seed(node_seed)
        keyring = Keyring.from_seeds(shared_seed, self._config.shared_seed_limit)
        check_distinct(node_seed, keyring)
        self._host, self._port = host, port
        self._allow = _node_ids("allow", allow) if allow is not None else None
        self._deny = _node_ids("deny", deny)
        self._subscriptions = Subscriptions()
        self._registries = load_plugins(
            extra=plugins, core=(core_plugin,), disabled=disable_plugins, required=require_plugins
        )
        self._storage_url = storage
        self._storage: StorageProvider | None = None
        controller = self._registries.controllers.get(self._config.congestion_controller)
        if controller is None:
            known = ", ".join(sorted(self._registries.controllers))
            raise ConfigError(f"there is no congestion controller {self._config.congestion_controller!r}, only {known}")
        self._tasks: set[asyncio.Task[None]] = set()
        self.frame_types = FrameTypes(self._registries.frame_types, self._spawn)
        """The custom frame types of this node."""
        self.endpoints = EndpointManager()
        """The endpoints of this node: register handlers here."""
        for name, handler in self._registries.endpoints.items():
            self.endpoints.register(name, handler)
        self.endpoint_service = EndpointService(
            self.endpoints,
            relays=self._config.relay_endpoints,
            max_message_size=self._config.max_message_size,
            max_body_size=self._config.max_body_size,
            sessions=self._find_session,
            spawn=self._spawn,
            clock=self._clock,
        )
        """Endpoints at work; for sessions alone."""
        suites = select_suites(self._registries.suites, self._config)
        self._engines: dict[bytes, Session] = {}
        half_open = HalfOpenTable(
            identity=self._identity,
            keyring=keyring,
            config=self._config,
            suites=suites,
            parameters=self._parameters(),
            is_session_id_taken=self._engines.__contains__,
        )
        self._demux = Demux(half_open, suites, self._config, controller, self._engines, self.frame_types.receivable)
        self._links: dict[Link, OpenLink] = {}
        self._listening: list[OpenLink] = []
        self._dials: dict[int, _Dial] = {}
        self._dialled: dict[Session, _Dial] = {}
        self._redialled: dict[Link, Redialer] = {}
        self._sessions: dict[Session, STTSession] = {}
        self._sessions_by_peer: Counter[bytes] = Counter()
        self._accepted: dict[STTSession, None] = {}
        self._session_accepted = Signal()
        self._packets: PacketReader | None = None
        self._ended: dict[STTSession, None] = {}
        self._starting = asyncio.Lock()
        self._calls: set[asyncio.Timeout] = set()
        self._call_ended = Signal()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._flush_scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._stopping: asyncio.Task[None] | None = None
        self._stopped = False
        self._refused = 0
        self._warned_at = float("-inf")
        self._warnings_left_out = 0

    def __repr__(self) -> str:
        return f"<STTNode {self.node_id.hex()[:16]} with {len(self._sessions)} sessions>"

    async def __aenter__(self) -> Self:
        self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def node_id(self) -> bytes:
        """32 bytes: SHA3-256 of the node's public key."""
        return self._identity.node_id

    @property
    def listening(self) -> tuple[str, ...]:
        """The URLs that the node listens on, with their real ports."""
        return tuple(link.transport.url for link in self._listening)

    @property
    def plugins(self) -> tuple[PluginInfo, ...]:
        """Every plugin that was found, and what became of it."""
        return tuple(self._registries.plugins)

    @property
    def storage(self) -> StorageProvider:
        """The store of this node, opened at first use.

        Raises:
            ConfigError: No installed plugin serves its URL.
            LocalError: The node was stopped, and the store was not in use.
        """
        if self._storage is None:
            self._require_unstopped()
            self._storage = self._registries.store(self._storage_url)(self._storage_url)
        return self._storage

    # Life

    async def start(self) -> None:
        """Listen on ``host`` and ``port`` with the first datagram transport installed, unless listening already.

        Raises:
            TransportError: The host refused.
            ConfigError: No datagram transport is installed.
        """
        async with self._starting:
            self._begin()
            if self._listening:
                return
            for scheme in sorted(self._registries.transports):
                capabilities = getattr(self._registries.transports[scheme], "capabilities", None)
                if capabilities is not None and not capabilities.reliable:
                    host = f"[{self._host}]" if ":" in self._host else self._host
                    await self.listen(f"{scheme}://{host}:{self._port}")
                    return
        raise ConfigError("no datagram transport is installed: stt-udp is one")

    async def stop(self) -> None:
        """Tell the peers, end all sessions and close all transports. Calling it twice is allowed.

        Being cancelled, it leaves the stopping under way.
        """
        self._stopped = True
        if self._loop is None:
            return
        if self._stopping is None:
            self._stopping = self._loop.create_task(self._stop())
        await asyncio.shield(self._stopping)

    async def listen(self, *urls: str) -> list[str]:
        """Accept sessions at each URL; return the URLs with their real ports.

        Raises:
            ConfigError: A URL cannot be used, or no plugin serves its scheme.
            TransportError: The host refused one; those before it are listened on.
            LocalError: The node was stopped.
        """
        self._begin()
        opened = []
        try:
            async with self._call(None):
                for url in urls:
                    link = await self._open(url, listening=True)
                    self._listening.append(link)
                    opened.append(link.transport.url)
        except TimeoutError:
            raise LocalError("the node was stopped") from None
        return opened

    # Sessions

    async def connect(
        self, url: str | Sequence[str], *, expect: bytes | None = None, timeout: float | None = None
    ) -> STTSession:
        """Begin a session with the peer at a URL.

        Args:
            url: Where it is; several URLs are tried 250 ms apart, datagram transports first, and the first to answer
                wins. The others are kept at hand: the session moves when its path dies, and back when a better one
                comes to life. A connection that is lost is made again.
            expect: The node id that it must have, 32 bytes.
            timeout: Seconds; by default ``handshake_timeout`` of the settings, which no handshake outlasts.

        Raises:
            ConnectError: No session came about; its ``reason`` tells why.
            ConfigError: A URL cannot be used.
            TransportError: The host refused to open a transport.
            LocalError: The node was stopped before.
        """
        self._begin()
        urls = [url] if isinstance(url, str) else sorted(dict.fromkeys(url), key=self._is_reliable)
        if not urls:
            raise ConfigError("there is no URL to connect to")
        if timeout is None:
            timeout = self._config.handshake_timeout + 1.0  # the handshake's own time-out has the better reason
        try:
            async with self._call(timeout):
                session = await (self._connect(urls[0], expect) if len(urls) == 1 else self._race(urls, expect))
        except TimeoutError:
            if self._stopped:
                raise ConnectError(ConnectReason.CANCELLED, "the node was stopped") from None
            raise ConnectError(
                ConnectReason.NO_ANSWER,
                f"no answer within {timeout:g} s: another seed, a wrong address, or a blocked port",
            ) from None
        self._keep_paths(session, urls)
        return session

    async def sessions(self) -> AsyncIterator[STTSession]:
        """Iterate over the sessions that peers begin, until the node stops.

        Of sessions that ended before they were taken, the newest 64 are kept.
        """
        while True:
            while self._accepted:
                session = next(iter(self._accepted))
                del self._accepted[session]
                yield session
            if self._stopped:
                return
            await self._session_accepted.wait()

    def receive(self) -> AsyncIterator[ReceivedPacket]:
        """Iterate over what peers send on streams that nobody accepts, of all sessions, until the node stops.

        Sessions on which ``accept_stream`` was called are left alone. A stream that ended is ended from this side as
        well. Only one task can wait for the next packet; a loop that was left can be taken up by another call.
        """
        if self._packets is None:
            self._packets = PacketReader()
            for session in self._sessions.values():
                session.tell_packets(self._packets.readable)
            if self._stopped:
                self._packets.end()
        return self._packets

    async def send_to_sessions(
        self, session_ids: Iterable[bytes], data: bytes, *, label: str = ""
    ) -> dict[bytes, STTError | None]:
        """Send bytes to several sessions, each on a stream of its own; return what became of each.

        Args:
            session_ids: Those of :meth:`active_sessions`.
            data: Any number of bytes.
            label: The label of the streams.

        Returns:
            By session id: None once the peer has acknowledged everything, or the error.
        """
        targets = list(session_ids)

        async def send(session_id: bytes) -> STTError | None:
            session = self._find_session(session_id)
            if session is None:
                return LocalError(f"there is no session {session_id.hex()}")
            try:
                stream = await session.open_stream(label)
                try:
                    await stream.send(data)
                    stream.end()
                    stream.stop()
                    await stream.wait_delivered()
                except asyncio.CancelledError:
                    stream.reset()
                    stream.stop()
                    raise
            except STTError as error:
                return error
            return None

        return dict(zip(targets, await asyncio.gather(*map(send, targets)), strict=True))

    async def send_to_all(self, data: bytes, *, label: str = "") -> dict[bytes, STTError | None]:
        """Send bytes to all sessions, as :meth:`send_to_sessions` does."""
        return await self.send_to_sessions(
            [session.session_id for session in self.active_sessions()], data, label=label
        )

    def active_sessions(self) -> list[STTSession]:
        """Return the sessions there are."""
        return [session for session in self._sessions.values() if not session.closed]

    def subscribe(self, *kinds: type[NodeEvent], queue_size: int = DEFAULT_QUEUE_SIZE) -> Subscription[NodeEvent]:
        """Listen to what happens in the node: iterate over the result.

        Args:
            kinds: Types of events; all if none is named.
            queue_size: Events that may wait for a slow listener; then the oldest is dropped and counted.
        """
        return self._subscriptions.subscribe(*kinds, queue_size=queue_size)

    def get_statistics(self) -> NodeStatistics:
        """Return the figures of this moment."""
        counters = self._demux.statistics
        return NodeStatistics(
            sessions=len(self._sessions),
            transports=tuple((link.transport.url, link.transport.statistics()) for link in self._links.values()),
            messages_malformed=counters.malformed,
            frames_unknown=counters.unknown_session,
            handshakes_dropped=counters.handshakes_dropped,
            handshakes_failed=counters.handshakes_failed,
            sessions_refused=self._refused,
        )

    # What sessions ask

    def touch(self, session: Session) -> None:
        """Learn that a session was commanded, and may have something to send."""
        self._demux.touch(session)
        self._schedule_flush()

    def message_received(self, session: STTSession, frame_type: int, data: bytes, *, reliable: bool) -> None:
        """Take a message of an endpoint or custom type."""
        if frame_type in CUSTOM_FRAME_TYPES:
            self.frame_types.receive(session, frame_type, data)
            return
        try:
            handled = self.endpoint_service.receive(session, frame_type, data)
        except FrameError as error:
            session.close(error.code, error.reason)
            return
        if handled and reliable:
            session.message_handled()

    def session_moved(self, session: STTSession) -> None:
        """Learn that a session goes over another path now."""
        self._subscriptions.publish(SessionMoved(session.session_id, session.path))

    # What links tell

    def messages_received(self, link: Link, messages: Sequence[tuple[Buffer, Address]]) -> None:
        """Take a burst of messages of a link."""
        assert self._loop is not None
        try:
            self._demux.receive_messages(messages, link, self._loop.time())
        except Exception as error:  # noqa: BLE001  a fault here, or of a plugin's suite or controller; others go on
            _LOG.error("%s: messages could not be taken", link.name.partition(":")[0], exc_info=error)
        self._flush()

    def peer_unreachable(self, link: Link, address: Address, reason: str) -> None:
        """Learn from a link that nobody listens at an address."""
        assert self._loop is not None
        if link in self._redialled and link.capabilities.reliable:
            self.link_lost(link, reason)  # this connection had one peer: another one is made
            return
        self._demux.peer_unreachable(PathKey(link, address), reason, self._loop.time())
        self._schedule_flush()

    def link_writable(self, link: Link) -> None:
        """Learn that a link takes trains again."""
        self._demux.link_writable(link)
        self._schedule_flush()

    def link_lost(self, link: Link, reason: str) -> None:
        """Learn that a link is of no more use."""
        assert self._loop is not None
        lost = self._links.get(link)
        if lost is None:
            return
        closing = self._close_soon(lost)
        if lost in self._listening:
            self._listening.remove(lost)
            _LOG.error("%s: no longer listening: %s", lost.transport.url, reason)
            # Not before the URL is free: who hears of it may listen there again.
            event = LinkLost(lost.transport.url, reason)
            closing.add_done_callback(lambda _: self._subscriptions.publish(event))
        self._demux.link_lost(link, reason, self._loop.time())
        redialer = self._redialled.pop(link, None)
        if redialer is not None:
            redialer.lost(lost)
        self._schedule_flush()

    # Internals, output and time

    def _schedule_flush(self) -> None:
        # Once for all that is sent in one turn of the loop: many small writes become few datagrams.
        if not self._flush_scheduled and self._loop is not None:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        assert self._loop is not None
        now = self._loop.time()
        try:
            for _ in range(_MAX_DRAINS):
                if not self._drain(now):
                    break
            else:
                self._schedule_flush()
        except Exception as error:  # noqa: BLE001  as in messages_received; and what closes behind this has to close
            _LOG.error("what sessions have to send could not be taken", exc_info=error)
        self._arm_timer(now)

    def _drain(self, now: float) -> bool:
        """Send what is to leave, and do what events ask for; return whether there were any."""
        links = self._links
        blocked: set[Link | PathKey] = set().union(*(link.blocked for link in links.values()))
        output, happened = self._demux.drain(blocked, now)
        for key, train in output:
            link = links.get(key.link)
            if link is not None:
                link.send(train, key.address)
        for event in happened:
            self._handle(event, now)
        return bool(happened)

    def _arm_timer(self, now: float) -> None:
        times = [at for at in (self._demux.next_timeout(), self.endpoint_service.next_timeout()) if at is not None]
        if not times or self._stopped:
            return
        at = max(min(times), now)
        assert self._loop is not None
        if self._timer is not None:
            if self._timer.when() <= at:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._time_out)

    def _time_out(self) -> None:
        assert self._loop is not None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._flush_scheduled:
            self._flush()  # what was commanded leaves before time can end it, such as the word that a session is closed
        try:
            self._demux.handle_timeout(self._loop.time())
            self.endpoint_service.handle_timeout()
        except Exception as error:  # noqa: BLE001  a fault here, or of a plugin's controller; others go on
            _LOG.error("a timer failed", exc_info=error)
        self._flush()

    # Internals, events

    def _handle(self, event: DemuxEvent, now: float) -> None:
        match event:
            case SessionEvents(session, happened):
                self._follow(session, happened)
            case SessionBegun(key, session):
                dial = self._dials.get(key)
                if dial is not None:
                    dial.session = session
                    self._dialled[session] = dial
            case SessionOffered(offer):
                self._decide(offer, now)
            case HandshakeFailed(key, _, reason, text):
                dial = self._dials.get(key)
                if dial is not None:
                    dial.settle(ConnectError(reason, text))
            case HandshakeDropped(path, reason):
                self._warn(now, "%s: handshake dropped: %s", path, reason)

    def _follow(self, session: Session, happened: list[events.Event]) -> None:
        """Hand over what happened in a session, take it up when it is active, and let go of it when it is over."""
        is_over = session.state in (State.CLOSING, State.CLOSED)
        handle = self._sessions.get(session)
        dial = self._dialled.get(session)
        if handle is None and dial is not None:
            if is_over:
                dial.settle(_no_session(happened))
                self._dialled.pop(session)
            elif session.state is not State.HANDSHAKE and not dial.outcome.done():
                handle = self._take_up(session)
                dial.settle(handle)
        if handle is not None:
            handle.handle(happened)
            if is_over:
                self._let_go(session, handle)

    def _decide(self, offer: HandshakeCompleted, now: float) -> None:
        peer = offer.result.peer_node_id
        if self._stopped:
            self._demux.refuse(offer, ErrorCode.NO_ERROR, "the node stopped", now)
        elif peer in self._deny or (self._allow is not None and peer not in self._allow):
            self._refuse(offer, ErrorCode.REFUSED, "this node is not allowed in")
        elif self._registries.observers.get("stt_authorize"):
            self._spawn(self._authorize(offer))
        else:
            self._accept(offer, now)

    async def _authorize(self, offer: HandshakeCompleted) -> None:
        result = offer.result
        assert isinstance(offer.path, PathKey)
        peer = PeerOffer(
            node_id=result.peer_node_id,
            path=str(offer.path),
            transport=offer.path.link.name,
            suite=result.suite,
            app_parameters=result.peer_parameters.app,
        )
        for info, allows in self._registries.observers["stt_authorize"]:
            try:
                async with asyncio.timeout(self._config.authorize_timeout):
                    answer = allows(peer=peer)
                    is_allowed = (await answer) if inspect.isawaitable(answer) else answer
            except Exception as error:  # noqa: BLE001  a plugin that cannot tell must not let anybody in
                _LOG.error("plugin %s failed to authorize a peer, which is refused", info.name, exc_info=error)
                is_allowed = False
            if is_allowed is not True:
                self._refuse(offer, ErrorCode.REFUSED, f"refused by plugin {info.name}")
                break
        else:
            self._accept(offer, self._clock())
        self._schedule_flush()

    def _refuse(self, offer: HandshakeCompleted, code: ErrorCode, reason: str) -> None:
        peer = offer.result.peer_node_id
        self._refused += 1
        now = self._clock()
        self._warn(now, "%s: node %s has the seed, but was refused: %s", offer.path, peer.hex(), reason)
        self._subscriptions.publish(PeerRefused(peer, str(offer.path), reason))
        # The peer learns the least that explains it.
        text = reason if code is ErrorCode.LIMIT else "this node is not allowed in"
        self._demux.refuse(offer, code, text, now)

    def _accept(self, offer: HandshakeCompleted, now: float) -> None:
        if len(self._sessions) >= self._config.max_sessions:
            self._refuse(offer, ErrorCode.LIMIT, "too many sessions")
            return
        if self._sessions_by_peer[offer.result.peer_node_id] >= self._config.max_sessions_per_peer:
            self._refuse(offer, ErrorCode.LIMIT, "too many sessions of this node")
            return
        session = self._demux.accept(offer, now)
        if session is not None:
            self._accepted[self._take_up(session)] = None
            self._session_accepted.set()

    def _take_up(self, session: Session) -> STTSession:
        handle = self._sessions[session] = STTSession(session, self, self._config.datagram_queue_size)
        self._sessions_by_peer[session.peer_node_id] += 1
        if self._packets is not None:
            handle.tell_packets(self._packets.readable)
        self.endpoint_service.session_opened(handle)
        self._subscriptions.publish(
            SessionOpened(handle.session_id, handle.peer_node_id, handle.path, handle.is_initiator)
        )
        self._observe("stt_session_opened", session=handle)
        return handle

    def _let_go(self, session: Session, handle: STTSession) -> None:
        del self._sessions[session]
        self._sessions_by_peer[session.peer_node_id] -= 1
        if not self._sessions_by_peer[session.peer_node_id]:
            del self._sessions_by_peer[session.peer_node_id]
        dial = self._dialled.pop(session, None)
        if dial is not None:
            if dial.redialer is not None:
                for task in dial.redialer.stop():
                    self._await_when_stopping(task)
            self._close_soon(dial.link)
        if handle in self._accepted or (self._packets is not None and self._packets.has(handle)):
            self._keep_ended(handle)
        self.endpoint_service.session_closed(handle.session_id)
        end = handle.end
        assert end is not None
        self._subscriptions.publish(
            SessionEnded(handle.session_id, handle.peer_node_id, end.code, end.reason, end.by_peer)
        )
        self._observe("stt_session_closed", session=handle, code=end.code, reason=end.reason)

    def _keep_ended(self, handle: STTSession) -> None:
        """Keep a session that ended before anybody took it, as one of a few: peers must not be able to fill memory."""
        self._ended = {
            each: None
            for each in self._ended
            if each in self._accepted or (self._packets is not None and self._packets.has(each))
        }
        self._ended[handle] = None
        if len(self._ended) > _MAX_ENDED:
            oldest = next(iter(self._ended))
            del self._ended[oldest]
            self._accepted.pop(oldest, None)
            if self._packets is not None:
                self._packets.drop(oldest)

    def _observe(self, hook: str, **arguments: object) -> None:
        for work in self._ask_observers(hook, **arguments):
            self._spawn(work)

    def _ask_observers(self, hook: str, **arguments: object) -> list[Coroutine[Any, Any, None]]:
        """Call the observers of a hook; return what is to be awaited of those that are async."""
        pending = []
        for info, observer in list(self._registries.observers.get(hook, ())):
            try:
                result = observer(**arguments)
            except Exception as error:  # noqa: BLE001  a plugin may fail in any way; the node goes on without it
                self._quarantine(info, hook, error)
            else:
                if inspect.isawaitable(result):
                    pending.append(self._await_observer(info, hook, result))
        return pending

    async def _await_observer(self, info: PluginInfo, hook: str, result: Awaitable[object]) -> None:
        try:
            async with asyncio.timeout(self._config.authorize_timeout):
                await result
        except Exception as error:  # noqa: BLE001  as above
            self._quarantine(info, hook, error)

    def _quarantine(self, info: PluginInfo, hook: str, error: Exception) -> None:
        """Ask a plugin that raised in an observer hook no more; what it registered stays."""
        for kind, observers in self._registries.observers.items():
            if kind != "stt_authorize":  # else whom it would refuse would get in
                observers[:] = [each for each in observers if each[0] is not info]
        info.state = PluginState.FAILED
        info.reason = f"{hook}: {type(error).__name__}: {error}"
        info.traceback = "".join(traceback.format_exception(error))
        _LOG.error("plugin %s raised in %s and is asked no more", info.name, hook, exc_info=error)
        self._subscriptions.publish(PluginFailed(info.name, info.reason))

    def _warn(self, now: float, text: str, *arguments: object) -> None:
        """Log what peers can cause, at a limited rate."""
        if now - self._warned_at < _DROP_LOG_INTERVAL:
            self._warnings_left_out += 1
            return
        more = f" ({self._warnings_left_out} more since the last)" if self._warnings_left_out else ""
        _LOG.warning(text + more, *arguments)
        self._warned_at = now
        self._warnings_left_out = 0

    # Internals, transports

    def _begin(self) -> None:
        self._require_unstopped()
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
            self._observe("stt_node_started", node=self)
        elif self._loop is not loop:
            raise LocalError("the node runs in another event loop")

    def _require_unstopped(self) -> None:
        if self._stopped:
            raise LocalError("the node was stopped; make another one")

    @asynccontextmanager
    async def _call(self, timeout: float | None) -> AsyncIterator[None]:
        """Limit a wait: TimeoutError comes out of it when its time is over, and when the node stops."""
        async with asyncio.timeout(timeout) as limit:
            self._calls.add(limit)
            try:
                yield
            finally:
                self._calls.discard(limit)
                self._call_ended.set()

    async def _stop(self) -> None:
        assert self._loop is not None
        now = self._loop.time()
        for call in self._calls:
            if not call.expired():
                call.reschedule(now)
        for session in list(self._sessions):
            session.close(ErrorCode.NO_ERROR, "the node stopped", now)
            self._demux.touch(session)
        self._flush()
        with suppress(TimeoutError):
            async with asyncio.timeout(_CALL_TIMEOUT):
                while self._calls:
                    await self._call_ended.wait()
        if self._timer is not None:
            self._timer.cancel()
        await _wait_for(self._closing.union(link.close() for link in self._links.values()), None)
        self._links.clear()
        self._listening.clear()
        self._session_accepted.set()
        if self._packets is not None:
            self._packets.end()
        await self._release()

    async def _release(self) -> None:
        for task in self._tasks:
            task.cancel()
        await _wait_for(self._tasks, _CALL_TIMEOUT)
        for work in self._ask_observers("stt_node_stopped", node=self):
            await work
        self._subscriptions.close()
        if self._storage is None:
            return
        try:
            await self._storage.close()
        except Exception as error:  # noqa: BLE001  somebody else's code, and the node is stopping anyway
            _LOG.error("the store failed to close", exc_info=error)

    def _is_reliable(self, url: str) -> bool:
        capabilities = getattr(self._registries.transport(url), "capabilities", None)
        return capabilities is None or bool(capabilities.reliable)

    async def _open(self, url: str, *, listening: bool) -> OpenLink:
        link = await open_link(self._registries.transport(url), url, self, listening=listening)
        self._links[link.link] = link
        return link

    async def _connect(self, url: str, expect: bytes | None) -> STTSession:
        try:
            link = await self._open(url, listening=False)
        except PeerUnreachable as error:
            raise ConnectError(ConnectReason.UNREACHABLE, str(error)) from error
        assert self._loop is not None
        dial = _Dial(url, link, self._loop.create_future())
        try:
            dial.key = self._demux.connect(PathKey(link.link, link.transport.peer), expect, self._loop.time())
            self._dials[dial.key] = dial
            self._schedule_flush()
            outcome = await dial.outcome
        except BaseException:
            self._give_up(dial)
            raise
        finally:
            self._dials.pop(dial.key, None)
        if isinstance(outcome, ConnectError):
            self._give_up(dial)
            raise outcome
        return outcome

    def _give_up(self, dial: _Dial) -> None:
        assert self._loop is not None
        now = self._loop.time()
        self._demux.cancel(dial.key, now)
        if dial.session is not None:
            dial.session.close(ErrorCode.NO_ERROR, "given up", now)
            self._demux.touch(dial.session)
        self._flush()  # at once, since the link closes behind it
        self._close_soon(dial.link)

    async def _race(self, urls: Sequence[str], expect: bytes | None) -> STTSession:
        attempts = [partial(self._connect, url, expect) for url in urls]
        try:
            return await race(attempts, _RACE_INTERVAL, STTSession.close)
        except BaseExceptionGroup as group:
            known = [error for error in group.exceptions if isinstance(error, ConnectError)]
            known.sort(key=lambda error: _REASONS.index(error.reason))
            raise (known or group.exceptions)[0] from None

    def _keep_paths(self, session: STTSession, urls: Sequence[str]) -> None:
        dial = self._dialled.get(session.engine)
        # One datagram socket has nothing that could be lost: it reaches the peer again when the network does.
        if dial is None or (len(urls) == 1 and not self._is_reliable(urls[0])):
            return
        dial.redialer = Redialer(
            urls,
            dial=partial(self._open, listening=False),
            use=partial(self._use_link, session.engine),
            drop=self._drop_link,
        )
        dial.redialer.start(dial.url, dial.link)

    def _use_link(self, engine: Session, link: OpenLink, rank: int) -> None:
        dial = self._dialled.get(engine)
        if dial is None or dial.redialer is None:
            self._close_soon(link)
            return
        if link.link not in self._links:
            dial.redialer.lost(link)  # it was lost before anybody could be told
            return
        self._redialled[link.link] = dial.redialer
        engine.add_path(PathKey(link.link, link.transport.peer), rank, self._clock())
        self.touch(engine)

    def _drop_link(self, link: OpenLink) -> None:
        self._redialled.pop(link.link, None)
        self._close_soon(link)

    def _parameters(self) -> Parameters:
        config = self._config
        try:
            parameters = Parameters(
                credit=(config.session_credit, config.stream_credit, config.max_streams),
                idle=round(config.idle_timeout * 1000),
                max_frame=config.max_frame_size,
                padding=config.padding,
                custom=self.frame_types.parameters,
                endpoints=config.relay_endpoints,
                app=config.app_parameters,
            )
            parameters.encode()
        except LocalError as error:
            raise ConfigError(f"what the handshake has to say of this node is too much: {error}") from error
        return parameters

    # Internals, tasks of plugins' handlers

    def _clock(self) -> float:
        return self._loop.time() if self._loop is not None else 0.0

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        if self._loop is None or self._stopped:
            work.close()
            return
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _find_session(self, session_id: bytes) -> STTSession | None:
        engine = self._engines.get(session_id)
        return self._sessions.get(engine) if engine is not None else None

    def _close_soon(self, link: OpenLink) -> asyncio.Task[None]:
        self._links.pop(link.link, None)
        closing = link.close()
        self._await_when_stopping(closing)
        return closing

    def _await_when_stopping(self, task: asyncio.Task[None]) -> None:
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


@attrs.define(eq=False)
class _Dial:
    """One transport that was opened to reach a peer, and what comes of it."""

    url: str
    link: OpenLink
    outcome: asyncio.Future[STTSession | ConnectError]
    """A value even for an error: nobody may be left to look at it."""
    key: int = 0
    session: Session | None = None
    redialer: Redialer | None = None

    def settle(self, outcome: STTSession | ConnectError) -> None:
        """Tell who waits, if anybody still does."""
        if not self.outcome.done():
            self.outcome.set_result(outcome)


async def _wait_for(tasks: set[asyncio.Task[None]], timeout: float | None) -> None:
    if tasks:
        await asyncio.wait(tasks, timeout=timeout)


def _no_session(happened: list[events.Event]) -> ConnectError:
    """Return the error for a session that ended before it was active."""
    end = next(event for event in happened if isinstance(event, events.SessionEnded))
    reason = ConnectReason.REFUSED if end.by_peer else ConnectReason.NO_ANSWER
    return ConnectError(reason, str(SessionClosed(end.code, end.reason, by_peer=end.by_peer)))


def _node_ids(name: str, ids: Iterable[bytes]) -> frozenset[bytes]:
    known = frozenset(ids)
    for each in known:
        if not isinstance(each, bytes) or len(each) != _NODE_ID_SIZE:
            raise ConfigError(f"{name} holds node ids, bytes of 32 each, not {each!r}")
    return known
