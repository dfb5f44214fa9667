"""One session with a peer, as applications use it: streams, datagrams, its end."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs

from stt_core import events
from stt_core.endpoints import ROUTE_LABEL
from stt_core.errors import ErrorCode, LocalError, RequestTimeout, SessionClosed
from stt_core.stream import DEFAULT_READ_SIZE, Signal, STTStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from stt_core.endpoints import EndpointService
    from stt_core.engine.session import Session
    from stt_core.engine.status import SessionStatistics, State
    from stt_core.frame_types import FrameTypes
    from stt_core.interfaces.transport import Buffer


class SessionOwner(Protocol):
    """What a session asks of its node."""

    frame_types: FrameTypes
    endpoint_service: EndpointService

    def touch(self, session: Session) -> None:
        """Learn that there may be something to send."""

    def message_received(self, session: STTSession, frame_type: int, data: bytes, *, reliable: bool) -> None:
        """Take a message of an endpoint or custom type."""

    def session_moved(self, session: STTSession) -> None:
        """Learn that the session goes over another path now."""


class STTSession:
    """A session: encrypted, mutually proven, over whichever path works.

    Made by :meth:`STTNode.connect` and :meth:`STTNode.sessions`.
    """

    def __init__(self, engine: Session, owner: SessionOwner, datagram_queue_size: int) -> None:
        self.engine = engine
        """The protocol state; for the node and the streams alone."""
        self._owner = owner
        self._streams: dict[int, STTStream] = {}
        self._offered: dict[int, None] = {}
        self._accepting = False
        self._packet_readable: Callable[[STTSession, int], None] | None = None
        self._packet_streams: dict[int, None] = {}
        self._datagrams: deque[bytes] | None = None  # made when first used: many sessions get none
        self._datagram_queue_size = datagram_queue_size
        self._datagrams_dropped = 0
        self._pings: dict[bytes, asyncio.Future[float | None]] = {}
        self._stream_offered = Signal()
        self._streams_allowed = Signal()
        self._messages_allowed = Signal()
        self._datagram_came = Signal()
        self._ended: events.SessionEnded | None = None
        self._closed = Signal()

    def __repr__(self) -> str:
        return f"<STTSession {self.session_id.hex()} with {self.peer_node_id.hex()[:16]} {self.state.name}>"

    @property
    def session_id(self) -> bytes:
        """8 bytes: a label, not a secret."""
        return self.engine.session_id

    @property
    def peer_node_id(self) -> bytes:
        """32 bytes: who the peer has proven to be."""
        return self.engine.peer_node_id

    @property
    def peer_app_parameters(self) -> bytes:
        """What the peer's application said in the handshake."""
        return self.engine.peer_app_parameters

    @property
    def peer_custom(self) -> Mapping[str, tuple[int, bool]]:
        """The custom frame types that the peer receives: each one's code there, and whether reliably."""
        return self.engine.peer_custom

    @property
    def peer_relays(self) -> bool:
        """Whether the peer passes requests on to others."""
        return self.engine.peer_relays

    @property
    def is_initiator(self) -> bool:
        """Whether this side connected."""
        return self.engine.is_initiator

    @property
    def state(self) -> State:
        """Where the session stands."""
        return self.engine.state

    @property
    def path(self) -> str:
        """Where the peer is reached, as a URL."""
        return str(self.engine.path)

    # Streams

    async def open_stream(self, label: str = "", *, priority: int = 3, metadata: object = None) -> STTStream:
        """Open a stream; waits while the peer has too many open.

        Args:
            label: What the peer sees it as.
            priority: From 0, first, to 7, last.
            metadata: Any value of STT serialization; with the label at most 1 KiB.

        Raises:
            LocalError: The priority is none, or label and metadata are too large.
            SerializationError: The metadata is no such value.
            SessionClosed: The session is over.
        """
        while True:
            stream_id = self.engine.open_stream(label, priority, metadata)
            if stream_id is not None:
                break
            await self._streams_allowed.wait()
        stream = self._adopt(stream_id)
        self.touch()
        return stream

    async def accept_stream(self) -> STTStream:
        """Wait for a stream that the peer opens.

        From the first call on, ``STTNode.receive`` leaves the streams of this session alone.

        Raises:
            SessionClosed: The session is over, and no stream is left to accept.
        """
        self._accepting = True
        while True:
            while self._offered:
                stream_id = next(iter(self._offered))
                del self._offered[stream_id]
                if self.engine.stream(stream_id) is not None:
                    return self._adopt(stream_id)
            self.require_open()
            await self._stream_offered.wait()

    async def streams(self) -> AsyncIterator[STTStream]:
        """Iterate over the streams that the peer opens, until the session ends."""
        while True:
            try:
                stream = await self.accept_stream()
            except SessionClosed:
                return
            yield stream
            del stream  # or it would live until the next one comes

    # Datagrams

    def send_datagram(self, data: Buffer) -> None:
        """Send bytes that are not sent again when lost; when too many wait, the oldest is dropped.

        Raises:
            LocalError: They do not fit into :attr:`max_datagram_payload`.
            SessionClosed: The session is over.
        """
        self.engine.send_datagram(bytes(data))
        self.touch()

    async def receive_datagram(self) -> bytes:
        """Wait for a datagram.

        Raises:
            SessionClosed: The session is over, and none is left.
        """
        while not self._datagrams:
            self.require_open()
            await self._datagram_came.wait()
        return self._datagrams.popleft()

    @property
    def max_datagram_payload(self) -> int:
        """Bytes that a datagram may hold on the path in use."""
        return self.engine.max_datagram_payload

    # Messages and endpoints

    async def send_message(self, name: str, data: Buffer) -> None:
        """Send a message of a custom frame type; waits while the peer has no room for it.

        Args:
            name: The type's name, such as ``acme.telemetry``.
            data: At most ``max_message_size`` bytes, or a datagram's where the type is not reliable.

        Raises:
            LocalError: The peer does not receive that type, or the message is too long.
            SessionClosed: The session is over.
        """
        code, reliable = self._owner.frame_types.code_at_peer(self, name)
        await self.send_frame(code, bytes(data), reliable=reliable)

    async def request(self, endpoint: str, body: Buffer = b"", *, timeout: float = 10.0) -> bytes:
        """Return the answer of the peer's endpoint, or of one that the peer passes requests on to.

        Args:
            endpoint: Its name.
            body: Up to what the peer takes, 16 MiB by default.
            timeout: Seconds.

        Raises:
            EndpointError: There is no such endpoint, or it failed.
            RequestTimeout: No answer came in time.
            SessionClosed: The session is over.
        """
        return await self._owner.endpoint_service.request(self, endpoint, bytes(body), timeout)

    async def notify(self, endpoint: str, body: Buffer = b"") -> None:
        """Send a body to the peer's endpoint; there is no answer, and no error if there is no endpoint.

        Raises:
            SessionClosed: The session is over.
        """
        await self._owner.endpoint_service.notify(self, endpoint, bytes(body))

    async def resolve(self, endpoint: str, *, timeout: float = 10.0) -> bool:
        """Return whether the peer has an endpoint, or knows a peer that has.

        Raises:
            RequestTimeout: No answer came in time.
            SessionClosed: The session is over.
        """
        return await self._owner.endpoint_service.resolve(self, endpoint, timeout)

    # Life

    async def ping(self, timeout: float = 10.0) -> float:
        """Return the seconds until the peer acknowledged a frame.

        Raises:
            RequestTimeout: It did not in ``timeout`` seconds.
            SessionClosed: The session is over.
        """
        token = self.engine.ping()
        answer: asyncio.Future[float | None] = asyncio.get_running_loop().create_future()
        self._pings[token] = answer
        self.touch()
        try:
            async with asyncio.timeout(timeout):
                round_trip = await answer
        except TimeoutError:
            raise RequestTimeout(f"no answer to a ping within {timeout:g} s") from None
        finally:
            del self._pings[token]
        if round_trip is None:
            raise self._closed_error()
        return round_trip

    def rotate_keys(self) -> None:
        """Change the keys of the sending direction, as soon as the peer has followed the last change.

        Raises:
            SessionClosed: The session is over.
        """
        self.engine.rotate_keys()
        self.touch()

    def close(self, code: int = ErrorCode.NO_ERROR, reason: str = "") -> None:
        """End the session and tell the peer; what streams still hold is lost, see ``STTStream.wait_delivered``.

        Args:
            code: An ErrorCode, or an application's code of 0x100 and up.
            reason: At most 256 bytes of UTF-8.

        Raises:
            LocalError: The reason is too long, or the code is none.
        """
        self.engine.close(code, reason, asyncio.get_running_loop().time())
        self.touch()

    async def wait_closed(self) -> SessionClosed:
        """Wait for the end of the session; return, not raise, how it ended."""
        while self._ended is None:
            await self._closed.wait()
        return self._closed_error()

    @property
    def end(self) -> events.SessionEnded | None:
        """How the session ended; None while it has not."""
        return self._ended

    @property
    def closed(self) -> bool:
        """Whether the session is over."""
        return self._ended is not None

    def get_statistics(self) -> SessionStatistics:
        """Return the figures of this moment."""
        figures = self.engine.statistics()
        return attrs.evolve(figures, datagrams_dropped=figures.datagrams_dropped + self._datagrams_dropped)

    # What the node and the streams use

    def touch(self) -> None:
        """Tell the node that there may be something to send."""
        self._owner.touch(self.engine)

    async def send_frame(self, frame_type: int, data: bytes, *, reliable: bool = True) -> None:
        """Send a frame of an endpoint or custom type; waits while the peer has no room for it."""
        while not self.engine.send_message(frame_type, data, reliable=reliable):
            await self._messages_allowed.wait()
        self.touch()

    def message_handled(self) -> None:
        """Note that a reliable message is done with, so that the peer may send another."""
        self.engine.message_handled()
        self.touch()

    def require_open(self) -> None:
        """Raise SessionClosed if the session is over."""
        if self._ended is not None:
            raise self._closed_error()

    def tell_packets(self, readable: Callable[[STTSession, int], None]) -> None:
        """Tell somebody, by session and id, of the streams that nobody accepts and that have something to read."""
        self._packet_readable = readable
        for stream_id in self._offered:
            readable(self, stream_id)

    def read_unaccepted(self, stream_id: int) -> bytes:
        """Return the next bytes of a stream that nobody accepts, nor can from now on; none when there are none now.

        A stream that ended is ended from this side as well.
        """
        if stream_id in self._offered and not self._accepting:
            del self._offered[stream_id]
            self._packet_streams[stream_id] = None
        stream = self.engine.stream(stream_id)
        if stream is None or stream_id not in self._packet_streams:
            return b""
        data = self.engine.read(stream_id, DEFAULT_READ_SIZE)
        if stream.receiving.at_end or stream.receiving.reset_code is not None:
            self._packet_streams.pop(stream_id, None)
            self.engine.end_stream(stream_id)
        self.touch()
        return data

    def handle(self, happened: list[events.Event]) -> None:
        """Take what the engine tells."""
        for event in happened:
            take = self._taken_by.get(type(event))
            if take is not None:
                take(self, event)

    # Internals: what the engine tells

    def _take_opened(self, event: events.StreamOpened) -> None:
        if self._is_route(event.stream_id):
            self._owner.endpoint_service.receive_stream(self._adopt(event.stream_id))
            return
        self._offered[event.stream_id] = None
        self._stream_offered.set()
        if self._packet_readable is not None and not self._accepting:
            self._packet_readable(self, event.stream_id)

    def _take_readable(self, event: events.StreamReadable) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            stream.notify(readable=True)
        elif event.stream_id in self._packet_streams and self._packet_readable is not None:
            self._packet_readable(self, event.stream_id)

    def _take_writable(self, event: events.StreamWritable) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            stream.notify(writable=True)

    def _take_delivered(self, event: events.StreamDelivered) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            stream.notify(delivered=True)

    def _take_forgotten(self, event: events.StreamForgotten) -> None:
        self._streams.pop(event.stream_id, None)
        self._offered.pop(event.stream_id, None)
        self._packet_streams.pop(event.stream_id, None)

    def _take_streams_allowed(self, _: events.StreamsAllowed) -> None:
        self._streams_allowed.set()

    def _take_messages_allowed(self, _: events.MessagesAllowed) -> None:
        self._messages_allowed.set()

    def _take_message(self, event: events.MessageReceived) -> None:
        self._owner.message_received(self, event.frame_type, event.data, reliable=event.reliable)

    def _take_datagram(self, event: events.DatagramReceived) -> None:
        if self._datagrams is None:
            self._datagrams = deque(maxlen=self._datagram_queue_size)
        if len(self._datagrams) == self._datagrams.maxlen:
            self._datagrams_dropped += 1
        self._datagrams.append(event.data)
        self._datagram_came.set()

    def _take_answer(self, event: events.PingAnswered) -> None:
        ping = self._pings.get(event.token)
        if ping is not None and not ping.done():
            ping.set_result(event.round_trip)

    def _take_path(self, _: events.PathChanged) -> None:
        self._owner.session_moved(self)

    def _take_end(self, event: events.SessionEnded) -> None:
        self._ended = event
        self._closed.set()
        for stream in self._streams.values():
            stream.notify(readable=True, writable=True)
        for signal in (self._stream_offered, self._streams_allowed, self._messages_allowed, self._datagram_came):
            signal.set()
        for ping in self._pings.values():
            if not ping.done():
                ping.set_result(None)

    _taken_by: Final[dict[type[events.Event], Callable[[STTSession, Any], None]]] = {
        events.StreamOpened: _take_opened,
        events.StreamReadable: _take_readable,
        events.StreamWritable: _take_writable,
        events.StreamDelivered: _take_delivered,
        events.StreamForgotten: _take_forgotten,
        events.StreamsAllowed: _take_streams_allowed,
        events.MessagesAllowed: _take_messages_allowed,
        events.MessageReceived: _take_message,
        events.DatagramReceived: _take_datagram,
        events.PingAnswered: _take_answer,
        events.PathChanged: _take_path,
        events.SessionEnded: _take_end,
    }

    # Internals: the rest

    def _closed_error(self) -> SessionClosed:
        assert self._ended is not None
        return SessionClosed(self._ended.code, self._ended.reason, by_peer=self._ended.by_peer)

    def _is_route(self, stream_id: int) -> bool:
        stream = self.engine.stream(stream_id)
        return stream is not None and stream.label == ROUTE_LABEL

    def _adopt(self, stream_id: int) -> STTStream:
        state = self.engine.stream(stream_id)
        if state is None:
            raise LocalError(f"stream {stream_id} is over")
        stream = self._streams[stream_id] = STTStream(self, state)
        return stream
