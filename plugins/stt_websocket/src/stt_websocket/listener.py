"""How a server takes connections: sockets, limits, TLS, opening handshake."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from itertools import count
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from stt_core.errors import TransportError
from stt_websocket.channel import Channel, ChannelHandler
from stt_websocket.connection import Role
from stt_websocket.errors import UpgradeRefused
from stt_websocket.handshake import ServerHandshake, UpgradePolicy
from stt_websocket.incomplete import IncompleteMessages
from stt_websocket.links import Link, PlainLink, TLSLink, describe
from stt_websocket.logs import LimitedLog
from stt_websocket.masking import fastest_mask
from stt_websocket.resolving import Endpoint, resolve

if TYPE_CHECKING:
    import ssl

    from stt_websocket.options import WebSocketOptions
    from stt_websocket.urls import WebSocketURL

BACKLOG: Final = 1024
"""Connections that the kernel holds ready until they are accepted."""

REFUSAL_TIMEOUT: Final = 2.0
"""Seconds that a refused client has to end its side: to close at once could reset the answer away."""

ClientAddress: TypeAlias = tuple[str, int, int]
"""How a server names a client: host, port, and a number that no other connection of the listener has."""

_ACCEPTED_AT_A_TIME: Final = 64  # then others get their turn
_RETRY_DELAY: Final = 1.0  # seconds after a failure to accept: the socket stays readable, and would be tried at once
_NO_SUCH_FAMILY: Final = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}

_log = logging.getLogger("stt_websocket")


class ListenerHandler(ChannelHandler, Protocol):
    """What a listener calls, and the channels that it opens."""

    def opened(self, channel: Channel, address: ClientAddress) -> None:
        """Learn of a client, before its channel delivers."""


class Listener:
    """Listens at a URL and opens a channel for each client whose handshake succeeds.

    Args:
        url: Where to listen. A path other than ``/`` is the only one that is served.
        handler: Whom to tell of clients and of what they send.
        options: Limits and times.
        policy: Which handshakes succeed.
        context: TLS, where the URL is secure.
    """

    def __init__(
        self,
        url: WebSocketURL,
        handler: ListenerHandler,
        *,
        options: WebSocketOptions,
        policy: UpgradePolicy,
        context: ssl.SSLContext | None,
    ) -> None:
        self._url = url
        self._handler = handler
        self._options = options
        self._policy = policy
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._sockets: list[socket.socket] = []
        self._handshakes: set[asyncio.Task[None]] = set()
        self._channels: set[Channel] = set()
        self._incomplete: IncompleteMessages[Channel] = IncompleteMessages(options.max_incomplete_size)
        self._numbers = count(1)
        self._refusals = LimitedLog(_log, self._loop.time)
        self._retry: asyncio.TimerHandle | None = None
        self.port = url.port
        """The port that is bound, once open."""

    async def open(self) -> None:
        """Bind and listen.

        Raises:
            TransportError: The host refused, or the name cannot be resolved.
        """
        fastest_mask()  # may import much: better now than amid a connection
        try:
            self._bind_all(await resolve(self._url.host, self._url.port))
        except OSError as error:
            self._stop()
            raise TransportError(f"{self._url.endpoint}: {describe(error)}") from error
        self._watch()

    async def close(self) -> None:
        """Listen no more, and give up the handshakes in progress; channels go on."""
        self._stop()
        handshakes = list(self._handshakes)
        for handshake in handshakes:
            handshake.cancel()
        await asyncio.gather(*handshakes, return_exceptions=True)

    # Internals, accepting

    def _bind_all(self, endpoints: list[Endpoint]) -> None:
        """Bind all addresses of a name to one port, also where the system chooses it."""
        unusable: OSError | None = None
        for family, address in endpoints:
            try:
                self._sockets.append(_bind(family, (address[0], self.port, *address[2:])))
            except OSError as error:
                if error.errno not in _NO_SUCH_FAMILY:
                    raise
                unusable = error  # localhost is ::1 too where IPv6 is switched off
                continue
            self.port = self._sockets[0].getsockname()[1]
        if not self._sockets and unusable is not None:
            raise unusable

    def _watch(self) -> None:
        self._retry = None
        for sock in self._sockets:
            self._loop.add_reader(sock, self._accept, sock)

    def _stop(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
        for sock in self._sockets:
            self._loop.remove_reader(sock)
            sock.close()
        self._sockets.clear()

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_ACCEPTED_AT_A_TIME):
            try:
                sock, address = listening.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptor is left, or memory
                _log.warning("%s: cannot accept: %s", self._url.endpoint, describe(error))
                for each in self._sockets:
                    self._loop.remove_reader(each)
                self._retry = self._loop.call_later(_RETRY_DELAY, self._watch)
                return
            if len(self._handshakes) + len(self._channels) >= self._options.max_connections:
                sock.close()
                self._refusals.info("%s: closed a connection: max_connections are open", self._url.endpoint)
                continue
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            handshake = self._loop.create_task(self._greet(sock, (address[0], address[1], next(self._numbers))))
            self._handshakes.add(handshake)
            handshake.add_done_callback(self._handshakes.discard)

    # Internals, handshakes

    async def _greet(self, sock: socket.socket, address: ClientAddress) -> None:
        try:
            handshake = ServerHandshake(self._policy)
            link = await self._shake_hands(sock, handshake)
            if handshake.request is not None:
                self._open_channel(link, handshake, address)
                return
            if handshake.refusal is not None:
                self._refusals.info("%s: refused %s: %s", self._url.endpoint, address, handshake.refusal.reason)
                await _send_refusal(link, handshake)
        except OSError as error:
            self._refusals.info("%s: handshake of %s failed: %s", self._url.endpoint, address, describe(error))
        except BaseException:
            sock.close()
            raise
        sock.close()

    async def _shake_hands(self, sock: socket.socket, handshake: ServerHandshake) -> Link:
        link: Link = PlainLink(sock)
        deadline = self._loop.time() + self._options.handshake_timeout
        if self._context is not None:
            async with asyncio.timeout_at(deadline):  # TimeoutError is an OSError
                link = TLSLink(sock, self._context, None)
                await link.shake_hands()
        try:
            async with asyncio.timeout_at(deadline):
                while handshake.request is None and handshake.refusal is None:
                    data = await link.receive()
                    if not data:
                        raise ConnectionResetError(errno.ECONNRESET, "the client left")
                    handshake.receive_data(data)
                if handshake.request is not None:
                    await link.send(b"".join(handshake.data_to_send()))
        except TimeoutError:
            handshake.refuse(UpgradeRefused(408, f"no request within {self._options.handshake_timeout:g} s"))
        return link

    def _open_channel(self, link: Link, handshake: ServerHandshake, address: ClientAddress) -> None:
        channel = Channel(link, Role.SERVER, self._handler, self._options, self._incomplete)
        self._channels.add(channel)
        channel.released.add_done_callback(lambda _: self._channels.discard(channel))
        _log.debug("%s: %s is connected", self._url.endpoint, address)
        self._handler.opened(channel, address)
        channel.start(handshake.rest)


async def _send_refusal(link: Link, handshake: ServerHandshake) -> None:
    """Send the answer and read on until the client has ended its side, for a while: else a reset could eat it."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(REFUSAL_TIMEOUT):
            await link.send(b"".join(handshake.data_to_send()))
            link.end_writing()
            while await link.receive():
                pass


def _bind(family: socket.AddressFamily, address: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock
