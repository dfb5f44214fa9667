"""The library websockets over TLS, without compression."""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmarks.certificates import client_context, server_context
from benchmarks.peers.base import Channel, Connection, OnChannel, Options, Peer

if TYPE_CHECKING:
    from collections.abc import Callable

_SETTINGS: dict[str, Any] = {"compression": None, "max_size": None}


class WebsocketsChannel(Channel):
    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.closed: type[Exception] = import_module("websockets.exceptions").ConnectionClosed

    async def send(self, data: bytes) -> None:
        await self.connection.send(data)

    async def receive(self) -> bytes:
        try:
            return bytes(await self.connection.recv())
        except self.closed:
            return b""


class WebsocketsConnection(Connection):
    def __init__(self, connection: Any) -> None:
        self.connection = connection

    async def open_channel(self) -> Channel:
        return WebsocketsChannel(self.connection)

    async def close(self) -> None:
        await self.connection.close()


class WebsocketsPeer(Peer):
    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.context = client_context(options.folder)

    async def serve(self, on_channel: OnChannel, announce: Callable[[str], None]) -> None:
        serve = import_module("websockets.asyncio.server").serve

        async def handle(connection: Any) -> None:
            await on_channel(WebsocketsChannel(connection))

        async with serve(
            handle, "127.0.0.1", 0, ssl=server_context(self.options.folder), backlog=1024, **_SETTINGS
        ) as server:
            announce(f"127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}")
            await asyncio.Event().wait()

    async def connect(self, address: str) -> Connection:
        connect = import_module("websockets.asyncio.client").connect
        return WebsocketsConnection(await connect(f"wss://{address}", ssl=self.context, proxy=None, **_SETTINGS))
