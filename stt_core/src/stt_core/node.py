"""The node: owns transports, sessions and the clock; with the handles beside it, the only core module that does I/O."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Final, overload

import attrs

from stt_core import events
from stt_core.admission import Admission
from stt_core.config import STTConfig
from stt_core.defaults import plugin as core_plugin
from stt_core.defaults.suites import select_suites
from stt_core.dialling import Dialler
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
    STTError,
)
from stt_core.foreign import ends_the_task
from stt_core.frame_types import FrameTypes
from stt_core.identity import Identity
from stt_core.interfaces.endpoint import PeerOffer
from stt_core.links import OpenLink, open_link
from stt_core.memory import keep_freed_memory
from stt_core.observers import Observers
from stt_core.packets import PacketReader
from stt_core.plugins import PluginInfo, load_plugins
from stt_core.seeds import Keyring, check_distinct
from stt_core.session import STTSession
from stt_core.stream import Signal
from stt_core.subscriptions import (
    DEFAULT_QUEUE_SIZE,
    EventT,
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
    from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
    from types import TracebackType
    from typing import Any, Self

    from stt_core.engine.demux import DemuxEvent
    from stt_core.engine.handshake_events import HandshakeCompleted
    from stt_core.engine.paths import Link
    from stt_core.engine.session import Session
    from stt_core.interfaces.storage import StorageProvider
    from stt_core.interfaces.transport import Address, Buffer, Train, TransportStatistics
    from stt_core.packets import ReceivedPacket

_LOG = logging.getLogger("stt.node")

_DROP_LOG_INTERVAL: Final = 10.0  # seconds: strangers must not be able to fill the log
_MAX_DRAINS: Final = 4  # rounds of output in one go, before others have their turn
_MAX_ENDED: Final = 64  # sessions that ended before anybody took them: what they had brought may still be read
_CALL_TIMEOUT: Final = 1.0  # seconds for calls that wait to notice that the node stops


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
        self._subscriptions = Subscriptions()
        self._registries = load_plugins(
            extra=plugins, core=(core_plugin,), disabled=disable_plugins, required=require_plugins
        )
        self._admission = Admission(self._registries, self._config, allow=allow, deny=deny)
        self._observers = Observers(self._registries, self._config.authorize_timeout, self._plugin_failed)
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
        self._blocked: set[OpenLink] = set()
        self._listening: list[OpenLink] = []
        self._dialler = Dialler(
            self._demux,
            open_link=partial(self._open, listening=False),
            close_link=self._close_soon,
            is_reliable=self._is_reliable,
            flush=self._flush,
            send_handshakes=self._send_handshakes,
            schedule_flush=self._schedule_flush,
        )
        self._sessions: dict[Session, STTSession] = {}
        self._accepted: dict[STTSession, None] = {}
        self._session_accepted = Signal()
        self._packets: PacketReader | None = None
        self._ended: dict[STTSession, None] = {}
        self._starting = asyncio.Lock()
        self._calls: set[asyncio.Timeout] = set()
        self._call_ended = Signal()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._scheduled_flush: asyncio.Handle | None = None
        self._timer: asyncio.Handle | None = None
        self._timer_at = 0.0  # kept here: what uvloop returns for a timer that is due at once does not tell it
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
        if not self._listening:
            self._admission.warn()
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
                session = await self._dialler.connect(urls, expect)
        except TimeoutError:
            if self._stopped:
                raise ConnectError(ConnectReason.CANCELLED, "the node was stopped") from None
            raise ConnectError(
                ConnectReason.NO_ANSWER,
                f"no answer within {timeout:g} s: another seed, a wrong address, or a blocked port",
            ) from None
        self._dialler.keep_paths(session, urls)
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

    @overload
    def subscribe(self, *, queue_size: int = ...) -> Subscription[NodeEvent]: ...

    @overload
    def subscribe(self, *kinds: type[EventT], queue_size: int = ...) -> Subscription[EventT]: ...

    def subscribe(self, *kinds: type[Any], queue_size: int = DEFAULT_QUEUE_SIZE) -> Subscription[Any]:
        """Listen to what happens in the node: iterate over the result.

        Args:
            kinds: Types of events; all if none is named.
            queue_size: Events that may wait for a slow listener; then the oldest is dropped and counted.
        """
        return self._subscriptions.subscribe(*kinds or (NodeEvent,), queue_size=queue_size)

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
        now = self._loop.time()
        try:
            self._demux.receive_messages(messages, link, now)
            self._send_handshakes()
            # Who waits for what came is woken first, and runs before the flush: answers ride with acknowledgements.
            for event in self._demux.events(now):
                self._handle(event, now)
        except Exception as error:  # noqa: BLE001  a fault here, or of a plugin's suite or controller; others go on
            _LOG.error("%s: messages could not be taken", link.name.partition(":")[0], exc_info=error)
        self._schedule_flush()

    def peer_unreachable(self, link: Link, address: Address, reason: str) -> None:
        """Learn from a link that nobody listens at an address."""
        assert self._loop is not None
        if self._dialler.keeps(link) and link.capabilities.reliable:
            self.link_lost(link, reason)  # this connection had one peer: another one is made
            return
        self._demux.peer_unreachable(PathKey(link, address), reason, self._loop.time())
        self._schedule_flush()

    def link_blocked(self, link: OpenLink) -> None:
        """Learn that a link takes no more trains, to all of its addresses or to some."""
        self._blocked.add(link)

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
        self._dialler.link_lost(lost)
        self._schedule_flush()

    # Internals, output and time

    def _schedule_flush(self) -> None:
        # Once for all that is sent in one turn of the loop: many small writes become few datagrams.
        if self._scheduled_flush is None and self._loop is not None:
            self._scheduled_flush = self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        assert self._loop is not None
        now = self._loop.time()
        self._send_all(now)
        self._arm_timer(now)

    def _send_all(self, now: float) -> None:
        if self._scheduled_flush is not None:
            self._scheduled_flush.cancel()
            self._scheduled_flush = None
        try:
            for _ in range(_MAX_DRAINS):
                self._drain(now)
                if not self._demux.has_output:
                    break
            else:
                self._schedule_flush()
        except Exception as error:  # noqa: BLE001  as in messages_received; and what closes behind this has to close
            _LOG.error("what sessions have to send could not be taken", exc_info=error)

    def _drain(self, now: float) -> None:
        """Send what is to leave, and do what events ask for."""
        output, happened = self._demux.drain(self._find_blocked(), now)
        self._send(output)
        for event in happened:
            self._handle(event, now)

    def _send_handshakes(self) -> None:
        """Send what handshakes have to say at once: the peer works on it while this side does what follows from it."""
        if self._demux.has_handshake_output:
            self._send(self._demux.handshake_trains(self._find_blocked()))

    def _send(self, output: list[tuple[PathKey, Train]]) -> None:
        for key, train in output:
            link = self._links.get(key.link)
            if link is not None:
                link.send(train, key.address)

    def _find_blocked(self) -> set[Link | PathKey]:
        blocked: set[Link | PathKey] = set()
        if self._blocked:
            self._blocked = {link for link in self._blocked if link.blocked and link.link in self._links}
            blocked.update(*(link.blocked for link in self._blocked))
        return blocked

    def _arm_timer(self, now: float) -> None:
        at, other = self._demux.next_timeout(), self.endpoint_service.next_timeout()
        if at is None or (other is not None and other < at):
            at = other
        if at is None or self._stopped:
            return
        at = max(at, now)
        assert self._loop is not None
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._time_out)
        self._timer_at = at

    def _time_out(self) -> None:
        assert self._loop is not None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._loop.time()
        if self._scheduled_flush is not None:
            self._send_all(now)  # what was commanded leaves before time can end it, such as the end of a session
        try:
            self._demux.handle_timeout(now)
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
                self._dialler.begun(key, session)
            case SessionOffered(offer):
                self._decide(offer, now)
            case HandshakeFailed(key, _, reason, text):
                self._dialler.failed(key, reason, text)
            case HandshakeDropped(path, reason):
                self._warn(now, "%s: handshake dropped: %s", path, reason)

    def _follow(self, session: Session, happened: list[events.Event]) -> None:
        """Hand over what happened in a session, take it up when it is active, and let go of it when it is over."""
        # Not by its state: a plugin that was told of another session may have closed this one since.
        is_over = isinstance(happened[-1], events.SessionEnded)
        handle = self._sessions.get(session)
        if handle is None and is_over:
            self._dialler.ended_early(session, happened)
        elif handle is None and session.state is not State.HANDSHAKE and self._dialler.waits_for(session):
            handle = self._take_up(session)
            self._dialler.succeeded(session, handle)
        if handle is not None:
            handle.handle(happened)
            if is_over:
                self._let_go(session, handle)

    def _decide(self, offer: HandshakeCompleted, now: float) -> None:
        reason = self._admission.refusal(offer.result.peer_node_id)
        if self._stopped:
            self._demux.refuse(offer, ErrorCode.NO_ERROR, "the node stopped", now)
        elif reason:
            self._refuse(offer, ErrorCode.REFUSED, reason)
        elif self._admission.asks_plugins:
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
        reason = await self._admission.ask(peer)
        if reason:
            self._refuse(offer, ErrorCode.REFUSED, reason)
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
        limit = self._admission.limit(offer.result.peer_node_id)
        if limit:
            self._refuse(offer, ErrorCode.LIMIT, limit)
            return
        session = self._demux.accept(offer, now)
        self._send_handshakes()
        if session is not None:
            self._accepted[self._take_up(session)] = None
            self._session_accepted.set()

    def _take_up(self, session: Session) -> STTSession:
        handle = self._sessions[session] = STTSession(session, self, self._config.datagram_queue_size)
        self._admission.opened(session.peer_node_id)
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
        self._admission.closed(session.peer_node_id)
        for task in self._dialler.ended(session):
            self._await_when_stopping(task)
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
        for work in self._observers.ask(hook, **arguments):
            self._spawn(work)

    def _plugin_failed(self, info: PluginInfo) -> None:
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
            keep_freed_memory()
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
        for work in self._observers.ask("stt_node_stopped", node=self):
            await work
        self._subscriptions.close()
        if self._storage is None:
            return
        try:
            await self._storage.close()
        except BaseException as error:
            if ends_the_task(error):
                raise
            # Somebody else's code, and the node is stopping anyway.
            _LOG.error("the store failed to close", exc_info=error)

    def _is_reliable(self, url: str) -> bool:
        capabilities = getattr(self._registries.transport(url), "capabilities", None)
        return capabilities is None or bool(capabilities.reliable)

    async def _open(self, url: str, *, listening: bool) -> OpenLink:
        link = await open_link(self._registries.transport(url), url, self, listening=listening)
        self._links[link.link] = link
        return link

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


async def _wait_for(tasks: set[asyncio.Task[None]], timeout: float | None) -> None:
    if tasks:
        await asyncio.wait(tasks, timeout=timeout)
