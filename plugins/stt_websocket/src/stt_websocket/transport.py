"""The ws and wss transports: each STT message is one binary message of a WebSocket."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from typing import Final, cast

import attrs

from stt_core.errors import PeerUnreachable, TransportError
from stt_core.interfaces.transport import (
    Address,
    BatchTransport,
    Buffer,
    Train,
    TransportCapabilities,
    TransportReceiver,
    TransportStatistics,
)
from stt_websocket.channel import Channel
from stt_websocket.connection import MAX_MESSAGE_SIZE, Event, Role
from stt_websocket.dialing import dial
from stt_websocket.frames import CloseCode
from stt_websocket.handshake import UpgradePolicy
from stt_websocket.listener import ClientAddress, Listener
from stt_websocket.logs import LimitedLog
from stt_websocket.options import WebSocketOptions
from stt_websocket.tls import server_context_from
from stt_websocket.urls import WebSocketURL

_MESSAGES: Final = frozenset({bytes, bytearray})
_ITEM_SIZE: Final = 64  # bytes that a message costs in the inbox besides its own

_log = logging.getLogger("stt_websocket")


class WebSocketTransport(BatchTransport):
    """WebSockets at a URL, as a server for many clients, or as the client of one server.

    A connection is an address: ``(host, port, number)``. When it dies the address is unreachable for good; a client
    that comes back has another one.

    Args:
        url: A ws or wss URL. Listening, a path other than ``/`` is the only one that is served, and a query is ignored.
        listening: Whether to be the server.
        options: Settings; None takes the defaults and what the environment says.

    Raises:
        ConfigError: The URL cannot be used, or it listens at wss and there is no certificate.
    """

    capabilities = TransportCapabilities(reliable=True, max_message_size=MAX_MESSAGE_SIZE)

    def __init__(self, url: str, *, listening: bool, options: WebSocketOptions | None = None) -> None:
        super().__init__(url, listening=listening)
        self._url = WebSocketURL.parse(url, listening=listening)
        self._options = options or WebSocketOptions.from_environment(os.environ)
        self.capabilities = attrs.evolve(self.capabilities, max_message_size=self._options.max_message_size)
        self._context = None
        if listening and self._url.is_secure:
            self._context = self._options.server_tls or server_context_from(os.environ)
        self._listener: Listener | None = None
        self._channels: dict[Address, Channel] = {}  # the open ones
        self._addresses: dict[Channel, ClientAddress] = {}  # those that hold a socket
        self._receiver: TransportReceiver | None = None
        self._inbox: deque[tuple[Buffer, Address] | PeerUnreachable] = deque()
        self._inbox_size = 0
        self._paused: set[Channel] = set()
        self._waiting: set[asyncio.Future[None]] = set()
        self._is_closed = False
        self._end: str | None = None  # why the transport is of no more use
        self._messages_sent = self._messages_received = 0
        self._bytes_sent = self._bytes_received = 0
        self._messages_dropped = self._send_waits = 0

    async def open(self) -> None:
        """Bind, or connect as far as an open WebSocket.

        Raises:
            TransportError: It failed; the text says at which step.
            PeerUnreachable: Nobody listens there.
        """
        self._closings = LimitedLog(_log, asyncio.get_running_loop().time)
        if not self.listening:
            link, rest, (host, port) = await dial(self._url, self._options)
            channel = Channel(link, Role.CLIENT, self, self._options)
            self.peer = (host, port, 1)
            self.opened(channel, (host, port, 1))
            channel.start(rest)
            return
        policy = UpgradePolicy(
            path=None if self._url.path == "/" else self._url.path,
            subprotocol=self._options.subprotocol,
            allowed_hosts=self._options.allowed_hosts,
            allowed_origins=self._options.allowed_origins,
        )
        self._listener = Listener(self._url, self, options=self._options, policy=policy, context=self._context)
        await self._listener.open()
        self._url = attrs.evolve(self._url, port=self._listener.port)
        self.url = str(self._url)

    async def close(self) -> None:
        """Send what waits, end each connection with a Close frame, and release everything."""
        if self._end is None:
            self._end = f"{self._url.endpoint}: closed"
        self._receiver = None
        self._is_closed = True
        self._inbox.clear()
        self._resume()
        self._wake()
        if self._listener is not None:
            await self._listener.close()
        channels = list(self._addresses)
        for channel in channels:
            channel.close(CloseCode.GOING_AWAY if self.listening else CloseCode.NORMAL)
        try:
            if channels:
                await asyncio.wait([channel.released for channel in channels], timeout=self._options.close_timeout)
        finally:
            for channel in channels:
                channel.abort()

    def statistics(self) -> TransportStatistics:
        """Return the counters."""
        return TransportStatistics(
            messages_sent=self._messages_sent,
            messages_received=self._messages_received,
            bytes_sent=self._bytes_sent,
            bytes_received=self._bytes_received,
            messages_dropped=self._messages_dropped,
            send_waits=self._send_waits,
        )

    # Message by message

    async def send(self, data: Buffer, address: Address) -> None:
        """Send one message; waits while the connection takes no more. A large buffer must not change afterwards.

        Raises:
            PeerUnreachable: The connection is gone.
            TransportError: The message is larger than ``max_message_size``, or the transport is closed.
        """
        while True:
            self._check_sendable(len(data))
            channel = self._channels.get(address)
            if channel is None or not channel.can_send:
                raise PeerUnreachable(address, f"{address}: not connected")
            if self._send(channel, [data], len(data)):
                return
            await self._changed()

    async def receive(self) -> tuple[Buffer, Address]:
        """Wait for one message; while none is taken, reading pauses and the peers are held back.

        Raises:
            PeerUnreachable: One connection is gone; others go on.
            TransportError: The transport is closed, or its only connection is gone.
        """
        while not self._inbox:
            if self._end is not None:
                raise TransportError(self._end)
            await self._changed()
        item = self._inbox.popleft()
        self._inbox_size -= _ITEM_SIZE if isinstance(item, PeerUnreachable) else len(item[0]) + _ITEM_SIZE
        if self._paused and self._inbox_size <= self._options.receive_buffer_size // 2:
            self._resume()
        if isinstance(item, PeerUnreachable):
            raise item
        return item

    # By trains and bursts

    def start(self, receiver: TransportReceiver) -> None:
        """Deliver to ``receiver`` from now on, in place of :meth:`receive`; called once, after :meth:`open`."""
        self._receiver = receiver
        asyncio.get_running_loop().call_soon(self._deliver_inbox)

    def send_train(self, train: Train, address: Address) -> bool:
        """Send each message of a train, or say that the connection takes none of them now.

        A large buffer is not copied: it must not change afterwards. For a connection that is gone the train is
        dropped, and the receiver is told that the address is unreachable.

        Raises:
            TransportError: A message is larger than ``max_message_size``, or the transport is closed.
        """
        self._check_sendable(min(train.segment_size, len(train.data)))
        channel = self._channels.get(address)
        messages = train.segments()
        if channel is None or not channel.can_send:
            self._messages_dropped += len(messages)
            asyncio.get_running_loop().call_soon(self._tell_unreachable, address, "not connected")
            return True
        return self._send(channel, messages, len(train.data))

    # What the channels tell

    def opened(self, channel: Channel, address: ClientAddress) -> None:
        """Learn of a connection."""
        self._channels[address] = channel
        self._addresses[channel] = address
        channel.released.add_done_callback(lambda _: self._addresses.pop(channel))
        if self._inbox_size > self._options.receive_buffer_size:
            channel.pause_reading()
            self._paused.add(channel)

    def events_received(self, channel: Channel, events: list[Event]) -> None:
        """Take messages of a peer."""
        if self._is_closed:
            return
        address = self._addresses[channel]
        if not _MESSAGES.issuperset(map(type, events)):
            if any(isinstance(event, str) for event in events):
                channel.close(CloseCode.UNSUPPORTED_DATA, "STT messages are binary")
            events = [event for event in events if type(event) in _MESSAGES]
        messages = cast("list[tuple[Buffer, Address]]", [(event, address) for event in events])
        size = sum(len(data) for data, _ in messages)
        if not messages:
            return
        self._messages_received += len(messages)
        self._bytes_received += size
        if self._receiver is not None and not self._inbox:
            self._receiver.messages_received(messages)
            return
        self._inbox.extend(messages)
        self._inbox_size += size + _ITEM_SIZE * len(messages)
        if self._inbox_size > self._options.receive_buffer_size:
            channel.pause_reading()
            self._paused.add(channel)
        self._wake()

    def writable(self, channel: Channel) -> None:  # noqa: ARG002  whoever waits tries again, whatever channel it is
        """Learn that a connection takes messages again."""
        self._wake()
        if self._receiver is not None:
            self._receiver.writable()

    def closed(self, channel: Channel, reason: str) -> None:
        """Learn that a connection is gone."""
        address = self._addresses[channel]
        del self._channels[address]
        self._paused.discard(channel)
        if self._is_closed:
            return
        self._closings.info("%s: %s: %s", self._url.endpoint, address, reason)
        if not self.listening:
            self._end = f"{self._url.endpoint}: {reason}"
        if self._receiver is not None and not self._inbox:
            self._tell_end(address, reason)
            return
        self._inbox.append(PeerUnreachable(address, reason))
        self._inbox_size += _ITEM_SIZE
        self._wake()

    # Internals

    def _check_sendable(self, size: int) -> None:
        if self._is_closed:
            raise TransportError(f"{self._url.endpoint}: closed")
        if size > self._options.max_message_size:
            raise TransportError(f"a message of {size} bytes, but at most {self._options.max_message_size} fit")

    def _send(self, channel: Channel, messages: list[Buffer], size: int) -> bool:
        if not channel.send(messages):
            self._send_waits += 1
            return False
        self._messages_sent += len(messages)
        self._bytes_sent += size
        return True

    def _deliver_inbox(self) -> None:
        """Give the receiver what came before it was there; what comes meanwhile queues up behind."""
        while self._inbox and self._receiver is not None:
            item = self._inbox.popleft()
            if isinstance(item, PeerUnreachable):
                self._tell_end(item.address, str(item))
            else:
                self._receiver.messages_received([item])
        self._inbox_size = 0
        self._resume()

    def _tell_end(self, address: Address, reason: str) -> None:
        """Tell the receiver that a connection is gone; with it, a client's whole transport."""
        self._tell_unreachable(address, reason)
        if not self.listening and self._receiver is not None:
            self._receiver.failed(reason)

    def _tell_unreachable(self, address: Address, reason: str) -> None:
        if self._receiver is not None:
            self._receiver.peer_unreachable(address, reason)

    def _resume(self) -> None:
        paused, self._paused = self._paused, set()
        for channel in paused:
            channel.resume_reading()

    async def _changed(self) -> None:
        """Wait until something came, ended, or can be sent."""
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.add(waiting)
        try:
            await waiting
        finally:
            self._waiting.discard(waiting)

    def _wake(self) -> None:
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)
