"""The UDP transport of STT: one socket, driven by the event loop."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from typing import TYPE_CHECKING, Final

from stt_core.errors import LocalError, PeerUnreachable, TransportError
from stt_core.interfaces.transport import BatchTransport, Train, TransportCapabilities
from stt_udp.address import SocketAddress, format_url, parse_url, resolve
from stt_udp.datagram_socket import MAX_MESSAGE_SIZE, DatagramSocket
from stt_udp.statistics import UDPStatistics

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stt_core.interfaces.transport import Address, Buffer, TransportReceiver

_WILDCARDS: Final[dict[int, SocketAddress]] = {socket.AF_INET: ("0.0.0.0", 0), socket.AF_INET6: ("::", 0)}  # noqa: S104  to dial
_UNREACHABLE_LIMIT: Final = 1024  # addresses that wait to be reported; beyond it the oldest is forgotten


class UDPTransport(BatchTransport):
    """STT's messages as UDP datagrams, one each.

    An address is the tuple that the socket module uses: ``(host, port)``, or ``(host, port, flow, scope)`` for IPv6,
    with a numeric host. Messages that arrive as one train share one address object.

    Args:
        url: ``udp://host:port``, or ``udp://[address]:port`` for IPv6. Port 0 asks for any free port when listening.
        listening: Whether to bind that address, or to reach it from a free port of this host.

    Raises:
        ConfigError: The URL is of another form.
    """

    capabilities = TransportCapabilities(
        reliable=False,
        max_message_size=MAX_MESSAGE_SIZE,
        initial_message_size=1200,  # what RFC 9000 section 14 relies on, too
    )

    def __init__(self, url: str, *, listening: bool) -> None:
        self._host, self._port = parse_url(url, listening=listening)
        super().__init__(url, listening=listening)
        self._opened = False
        self._socket: DatagramSocket | None = None
        self._ended: str | None = None
        self._statistics = UDPStatistics()
        self._receiver: TransportReceiver | None = None
        self._unreachable: dict[Address, str] = {}
        # Of receive() and send(), in use until start().
        self._inbox: deque[tuple[Buffer, Address]] = deque()
        self._readers: set[asyncio.Future[None]] = set()
        self._writers: set[asyncio.Future[None]] = set()
        # While the kernel's buffer is full: whether the loop watches for room, what is left of a train that was taken,
        # and whether another was refused.
        self._full = False
        self._rest: tuple[Buffer, int, Address] | None = None
        self._refused = False

    async def open(self) -> None:
        """Bind, or bind a free port and find the way to the peer.

        Raises:
            TransportError: The address is in use or not of this host, no route leads to the peer, the name cannot be
                resolved, or the event loop cannot watch sockets.
            LocalError: It was opened before.
        """
        if self._opened:
            raise LocalError(f"{self.url} was opened before")
        self._opened = True
        self._loop = asyncio.get_running_loop()
        candidates = await resolve(self._host, self._port)
        if self._ended is not None:
            raise TransportError(self._ended)
        sock = self._bind(candidates)
        try:
            self._loop.remove_reader(sock.fileno())
        except NotImplementedError:
            sock.close()
            raise TransportError(
                f"{type(self._loop).__name__} cannot watch sockets: run on asyncio.SelectorEventLoop, which Windows"
                " does not use by default"
            ) from None
        self._socket = sock
        if self.listening:
            self.url = format_url(sock.address)

    async def send(self, data: Buffer, address: Address) -> None:
        """Send one datagram; waits while the kernel's buffer is full.

        It may get lost like any datagram; what the kernel itself refuses, such as a datagram larger than the path's
        first link carries, is counted in the statistics.

        Raises:
            PeerUnreachable: Nobody listens there, as an earlier datagram has shown, or no route leads there.
            TransportError: The message is larger than ``max_message_size``, or the transport is closed.
        """
        if len(data) > MAX_MESSAGE_SIZE:
            raise TransportError(f"a UDP datagram holds {MAX_MESSAGE_SIZE} bytes, not {len(data)}")
        train = Train(data, max(1, len(data)))
        while not self.send_train(train, address):
            await self._wait(self._writers)
        if address in self._unreachable:
            reason = self._unreachable[address]
            if self._receiver is None:
                del self._unreachable[address]
            raise PeerUnreachable(address, reason)

    async def receive(self) -> tuple[Buffer, Address]:
        """Wait for one datagram.

        Raises:
            PeerUnreachable: Nobody listens at one address, or no route leads there; others go on.
            TransportError: The transport is closed or failed for good.
            LocalError: A receiver was started.
        """
        while True:
            sock = self._require_open()
            if self._receiver is not None:
                raise LocalError(f"{self.url} delivers to the receiver that was started")
            if not self._inbox and not self._unreachable:
                try:
                    self._inbox.extend(sock.read_burst())
                except TransportError as error:
                    self._fail(str(error))
                    raise
            if self._unreachable:
                address, reason = self._unreachable.popitem()
                raise PeerUnreachable(address, reason)
            if self._inbox:
                return self._inbox.popleft()
            self._loop.add_reader(sock.fileno(), self._wake_readers, sock)
            await self._wait(self._readers)

    def start(self, receiver: TransportReceiver) -> None:
        """Deliver to ``receiver`` from now on.

        Raises:
            TransportError: The transport is closed.
            LocalError: It is not open, or was started before.
        """
        sock = self._require_open()
        if self._receiver is not None:
            raise LocalError(f"{self.url} was started before")
        self._receiver = receiver
        _wake(self._readers)
        self._loop.call_soon(self._deliver_earlier)
        self._loop.add_reader(sock.fileno(), self._deliver, sock, receiver)

    def send_train(self, train: Train, address: Address) -> bool:
        """Send a train, in one call where the kernel cuts it; see :meth:`BatchTransport.send_train`.

        Raises:
            TransportError: The transport is closed or failed for good.
            LocalError: It is not open, or the segment size is not positive.
        """
        sock = self._socket or self._require_open()
        if self._full:
            self._refused = True
            return False
        try:
            rest = sock.send(train.data, train.segment_size, address)
        except TransportError as error:
            self._fail(str(error))
            raise
        if rest is None:
            return True
        sock.send_waits += 1
        self._full = True
        self._loop.add_writer(sock.fileno(), self._continue_sending, sock)
        if rest is train.data:
            self._refused = True
            return False
        # A copy, since the caller may use its buffer again; one at most is held, as all others are refused meanwhile.
        self._rest = (bytes(rest), train.segment_size, address)
        return True

    def statistics(self) -> UDPStatistics:
        """Return the counters; after :meth:`close`, the last ones."""
        return self._statistics if self._socket is None else self._socket.statistics()

    async def close(self) -> None:
        """Release the socket; what waits in :meth:`receive` or :meth:`send` raises TransportError."""
        self._end(f"{self.url} is closed")
        self._receiver = None

    # Internals: what the event loop calls

    def _deliver(self, sock: DatagramSocket, receiver: TransportReceiver) -> None:
        """Hand a burst to the receiver."""
        try:
            messages = sock.read_burst()
        except TransportError as error:
            self._fail(str(error))
            return
        if messages:
            receiver.messages_received(messages)

    def _deliver_earlier(self) -> None:
        """Hand over what came before the receiver did."""
        messages = list(self._inbox)
        self._inbox.clear()
        if self._receiver is not None and messages:
            self._receiver.messages_received(messages)
        self._deliver_unreachable()

    def _deliver_unreachable(self) -> None:
        reports, self._unreachable = self._unreachable, {}
        if self._receiver is not None:
            for address, reason in reports.items():
                self._receiver.peer_unreachable(address, reason)

    def _deliver_failure(self, reason: str) -> None:
        if self._receiver is not None:
            self._receiver.failed(reason)

    def _wake_readers(self, sock: DatagramSocket) -> None:
        """Let :meth:`receive` look; else the kernel keeps what comes, and drops what is too much."""
        self._loop.remove_reader(sock.fileno())
        _wake(self._readers)

    def _continue_sending(self, sock: DatagramSocket) -> None:
        """Send the rest of a train, and then say that there is room again."""
        if self._rest is not None:
            _, segment_size, address = self._rest
            try:
                rest = sock.send(*self._rest)
            except TransportError as error:
                self._fail(str(error))
                return
            self._rest = None if rest is None else (rest, segment_size, address)
            if rest is not None:
                return
        self._full = False
        self._loop.remove_writer(sock.fileno())
        _wake(self._writers)
        if self._refused and self._receiver is not None:
            self._refused = False
            self._receiver.writable()

    # Internals: the rest

    def _bind(self, candidates: Iterable[tuple[socket.AddressFamily, SocketAddress]]) -> DatagramSocket:
        """Return a socket for the first address that works."""
        # libuv, and so uvloop, stops to watch a socket for good once poll(2) says that it is in error (uv__poll_io).
        error_queue = isinstance(self._loop, asyncio.SelectorEventLoop)
        failure: OSError | None = None
        for family, address in candidates:
            try:
                if self.listening:
                    return DatagramSocket(family, address, self._note_unreachable, error_queue=error_queue)
                _check_route(family, address)
                sock = DatagramSocket(family, _WILDCARDS[family], self._note_unreachable, error_queue=error_queue)
            except OSError as error:
                failure = failure or error
            else:
                self.peer = address
                return sock
        doing = "listen on" if self.listening else "reach"
        raise TransportError(f"cannot {doing} {self.url}: {failure.strerror if failure else 'no address'}") from failure

    def _note_unreachable(self, address: Address, reason: str) -> None:
        if self._receiver is None:
            _wake(self._readers)
        elif not self._unreachable:
            self._loop.call_soon(self._deliver_unreachable)
        if len(self._unreachable) >= _UNREACHABLE_LIMIT:
            del self._unreachable[next(iter(self._unreachable))]
        self._unreachable[address] = reason

    def _require_open(self) -> DatagramSocket:
        if self._ended is not None:
            raise TransportError(self._ended)
        if self._socket is None:
            raise LocalError(f"{self.url} is not open")
        return self._socket

    async def _wait(self, waiters: set[asyncio.Future[None]]) -> None:
        waiter = self._loop.create_future()
        waiters.add(waiter)
        try:
            await waiter
        finally:
            waiters.discard(waiter)

    def _fail(self, reason: str) -> None:
        self._end(reason)
        self._loop.call_soon(self._deliver_failure, reason)

    def _end(self, reason: str) -> None:
        if self._ended is None:
            self._ended = reason
        if self._socket is None:
            return
        sock, self._socket = self._socket, None
        self._loop.remove_reader(sock.fileno())
        self._loop.remove_writer(sock.fileno())
        if self._rest is not None:
            sock.drop(*self._rest[:2])
        self._statistics = sock.statistics()
        sock.close()
        _wake(self._readers)
        _wake(self._writers)


def _check_route(family: socket.AddressFamily, address: SocketAddress) -> None:
    """Raise OSError where no route leads to an address; nothing is sent."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(address)


def _wake(waiters: set[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
