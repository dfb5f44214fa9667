"""Messages between nodes that run in one event loop: ``memory://name``."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from typing import Final

from stt_core.errors import ConfigError, PeerUnreachable, TransportError
from stt_core.interfaces.transport import Address, Buffer, Transport, TransportCapabilities, TransportStatistics

_QUEUE_SIZE: Final = 64  # messages that wait for a receiver; senders wait beyond it
_SCHEME: Final = "memory://"


class MemoryTransport(Transport):
    """A transport that loses nothing, for tests and for parts of one program.

    A listening one owns its name until it is closed, or its event loop is. Addresses are names.

    Args:
        url: ``memory://name``; a name has no ``/`` and no ``#``.
        listening: Whether to take the name, or to reach who has it.

    Raises:
        ConfigError: The URL is of another form.
    """

    capabilities = TransportCapabilities(reliable=True, max_message_size=1 << 20)

    _open: Final[dict[str, _Inbox]] = {}
    _numbers = itertools.count(1)

    def __init__(self, url: str, *, listening: bool) -> None:
        super().__init__(url, listening=listening)
        name = url.removeprefix(_SCHEME)
        if not url.startswith(_SCHEME) or not name or "/" in name or "#" in name:
            raise ConfigError(f"{url!r} is no URL of this transport: it is memory://name")
        self._name = name
        self._inbox: _Inbox | None = None
        self._sent = self._received = self._bytes_sent = self._bytes_received = self._send_waits = 0

    async def open(self) -> None:
        """Take the name, or find who has it.

        Raises:
            TransportError: Another transport listens under that name, or it belongs to another event loop.
            PeerUnreachable: Nobody listens there.
        """
        loop = asyncio.get_running_loop()
        owner = self._open.get(self._name)
        if owner is not None and owner.loop.is_closed():
            owner = None  # what a loop left behind listens no more
        if self.listening:
            if owner is not None:
                raise TransportError(f"{self.url} is taken")
        else:
            if owner is None:
                raise PeerUnreachable(self._name, f"nobody listens at {self.url}")
            if owner.loop is not loop:
                raise TransportError(f"{self.url} is of another event loop, which no message leaves")
            self.peer = self._name
            self._name = f"{self._name}#{next(self._numbers)}"
            owner.dialled.add(self._name)
        self._inbox = self._open[self._name] = _Inbox(loop)

    async def send(self, data: Buffer, address: Address) -> None:
        """Hand a message over; waits while the receiver has too many.

        Raises:
            PeerUnreachable: Nobody has that address.
            TransportError: The message is too large, or the transport is closed.
        """
        if len(data) > self.capabilities.max_message_size:
            raise TransportError(f"a message of {len(data)} bytes: {self.capabilities.max_message_size} is the most")
        own = self._require_open()
        while True:
            peer = self._open.get(str(address))
            if peer is None or peer.loop is not own.loop:
                raise PeerUnreachable(address, f"nobody has the address {address}")
            if len(peer.messages) < _QUEUE_SIZE:
                break
            self._send_waits += 1
            await peer.wait(peer.senders)
            self._require_open()
        peer.put((bytes(data), self._name))
        self._sent += 1
        self._bytes_sent += len(data)

    async def receive(self) -> tuple[Buffer, Address]:
        """Wait for a message.

        Raises:
            PeerUnreachable: A transport that this one reaches, or that reaches it, was closed.
            TransportError: This one was.
        """
        inbox = self._require_open()
        while not inbox.messages:
            await inbox.wait(inbox.receivers)
            self._require_open()
        message = inbox.messages.popleft()
        _wake(inbox.senders)
        if isinstance(message, PeerUnreachable):
            raise message
        self._received += 1
        self._bytes_received += len(message[0])
        return message

    async def close(self) -> None:
        """Give the name back; whoever reaches this transport learns of it."""
        inbox, self._inbox = self._inbox, None
        if inbox is None:
            return
        if self._open.get(self._name) is inbox:  # no other took it from a loop that was closed
            del self._open[self._name]
        peer = self._open.get(str(self.peer))
        if peer is not None:
            peer.dialled.discard(self._name)
        for other in (peer, *(self._open.get(name) for name in inbox.dialled)):
            if other is not None:
                other.put(PeerUnreachable(self._name, f"{self._name} is closed"))
        _wake(inbox.receivers)
        _wake(inbox.senders)
        for other in self._open.values():
            _wake(other.senders)  # one that waits there may be this one's

    def statistics(self) -> TransportStatistics:
        """Return the counters."""
        return TransportStatistics(
            messages_sent=self._sent,
            messages_received=self._received,
            bytes_sent=self._bytes_sent,
            bytes_received=self._bytes_received,
            send_waits=self._send_waits,
        )

    def _require_open(self) -> _Inbox:
        if self._inbox is None:
            raise TransportError(f"{self.url} is closed")
        return self._inbox


class _Inbox:
    """What was sent to one open transport, and who waits for that to change."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.messages: deque[tuple[bytes, str] | PeerUnreachable] = deque()
        self.receivers: set[asyncio.Future[None]] = set()
        self.senders: set[asyncio.Future[None]] = set()
        self.dialled: set[str] = set()
        """The transports that reach this one."""

    def put(self, message: tuple[bytes, str] | PeerUnreachable) -> None:
        self.messages.append(message)
        _wake(self.receivers)

    async def wait(self, waiters: set[asyncio.Future[None]]) -> None:
        waiter = self.loop.create_future()
        waiters.add(waiter)
        try:
            await waiter
        finally:
            waiters.discard(waiter)


def _wake(waiters: set[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
