"""TLS 1.3 over TCP, with the streams of asyncio; the event loop is chosen outside."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from benchmarks.certificates import client_context, server_context
from benchmarks.peers.base import Channel, Connection, OnChannel, Options, Peer, split_address

if TYPE_CHECKING:
    from collections.abc import Callable

_READ_SIZE = 1024 * 1024


class TLSChannel(Channel):
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def receive(self) -> bytes:
        return await self.reader.read(_READ_SIZE)


class TLSConnection(Connection):
    def __init__(self, channel: TLSChannel) -> None:
        self.channel = channel

    async def open_channel(self) -> Channel:
        return self.channel

    async def close(self) -> None:
        self.channel.writer.close()


class TLSPeer(Peer):
    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.context = client_context(options.folder)

    async def serve(self, on_channel: OnChannel, announce: Callable[[str], None]) -> None:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await on_channel(TLSChannel(reader, writer))
            writer.close()

        server = await asyncio.start_server(
            handle, "127.0.0.1", 0, ssl=server_context(self.options.folder), limit=_READ_SIZE, backlog=1024
        )
        announce(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await server.serve_forever()

    async def connect(self, address: str) -> Connection:
        host, port = split_address(address)
        return TLSConnection(TLSChannel(*await asyncio.open_connection(host, port, ssl=self.context, limit=_READ_SIZE)))
