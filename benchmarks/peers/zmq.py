"""ZeroMQ with CURVE: blocking calls, its fastest, for one connection; ROUTER and DEALER for many."""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmarks.peers.base import Channel, Connection, OnChannel, Options, Peer

if TYPE_CHECKING:
    from collections.abc import Callable

_MANY = frozenset({"handshakes", "handshakes-50", "idle"})
_QUEUED = 64  # messages; the library's 1000 would be 256 MB of bulk
_ZERO_COPY_FROM = 64 * 1024
_MAX_SOCKETS = 12_000


class CurveChannel(Channel):
    """A blocking PAIR: nothing else runs in its process."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket

    async def send(self, data: bytes) -> None:
        self.socket.send(data, copy=len(data) < _ZERO_COPY_FROM)

    async def send_many(self, data: bytes, count: int) -> None:
        send, copy = self.socket.send, len(data) < _ZERO_COPY_FROM
        for _ in range(count):
            send(data, copy=copy)

    async def receive(self) -> bytes:
        return bytes(self.socket.recv())

    async def discard(self, size: int) -> None:
        receive = self.socket.recv
        while size > 0:
            size -= len(receive())


class DealerChannel(Channel):
    """One of many clients, on the event loop."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket

    async def send(self, data: bytes) -> None:
        await self.socket.send(data)

    async def receive(self) -> bytes:
        return bytes(await self.socket.recv())


class RouterChannel(Channel):
    """What one client of a ROUTER sent, to be answered."""

    def __init__(self, socket: Any, client: bytes, message: bytes) -> None:
        self.socket, self.client, self.message = socket, client, message

    async def send(self, data: bytes) -> None:
        self.socket.send_multipart([self.client, data])

    async def receive(self) -> bytes:
        message, self.message = self.message, b""
        return message


class CurveConnection(Connection):
    def __init__(self, channel: CurveChannel | DealerChannel) -> None:
        self.channel = channel

    async def open_channel(self) -> Channel:
        return self.channel

    async def close(self) -> None:
        self.channel.socket.close(0)


class CurvePeer(Peer):
    def __init__(self, options: Options) -> None:
        super().__init__(options)
        zmq = import_module("zmq")
        self.zmq = zmq
        self.many = options.measure in _MANY
        self.asynchronous: Any = None
        self.context = zmq.Context()
        self.context.set(zmq.MAX_SOCKETS, _MAX_SOCKETS)
        self.public, self.secret = zmq.curve_keypair()

    async def serve(self, on_channel: OnChannel, announce: Callable[[str], None]) -> None:
        zmq = self.zmq
        socket = self.context.socket(zmq.ROUTER if self.many else zmq.PAIR)
        socket.set_hwm(_QUEUED)
        socket.setsockopt(zmq.BACKLOG, 1024)
        socket.curve_server = True
        socket.curve_secretkey, socket.curve_publickey = self.secret, self.public
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        announce(f"{self.public.decode()} 127.0.0.1:{port}")
        if not self.many:
            await on_channel(CurveChannel(socket))
        while True:
            client, message = socket.recv_multipart()
            await on_channel(RouterChannel(socket, client, message))

    async def connect(self, address: str) -> Connection:
        zmq = self.zmq
        if self.many and self.asynchronous is None:
            self.asynchronous = import_module("zmq.asyncio").Context(self.context)
        socket = self.asynchronous.socket(zmq.DEALER) if self.many else self.context.socket(zmq.PAIR)
        socket.set_hwm(_QUEUED)
        key, _, address = address.partition(" ")
        socket.curve_serverkey = key.encode()
        socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
        socket.connect(f"tcp://{address}")
        await asyncio.sleep(0)
        return CurveConnection(DealerChannel(socket) if self.many else CurveChannel(socket))
