"""A transport over byte streams: four bytes of length, and then the message."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from contextlib import suppress

from stt_core.errors import PeerUnreachable, TransportError
from stt_core.interfaces.transport import Address, Buffer, Transport, TransportCapabilities
from stt_framed.places import parse_url

QUEUE_SIZE = 64  # messages that wait to be received; beyond it nothing more is read, so that senders wait


class FramedTransport(Transport):
    """Messages over TCP or a Unix socket; a connection is an address."""

    capabilities = TransportCapabilities(reliable=True, max_message_size=1 << 20)

    def __init__(self, url: str, *, listening: bool) -> None:
        super().__init__(url, listening=listening)
        self._place = parse_url(url)
        self._server: asyncio.Server | None = None
        self._numbers = itertools.count(1)
        self._connections: dict[Address, tuple[asyncio.StreamWriter, asyncio.Task[None]]] = {}
        self._inbox: deque[tuple[bytes, Address] | PeerUnreachable] = deque()
        self._changed = asyncio.Condition()
        self._ended = ""  # why nothing more is sent or received

    async def open(self) -> None:
        """Listen, or dial."""
        try:
            if self.listening:
                self._server, self.url = await self._place.listen(self._connected)
            else:
                self._connected(*await self._place.dial())
                (self.peer,) = self._connections
        except (ConnectionRefusedError, FileNotFoundError) as error:
            raise PeerUnreachable(self.url, f"nobody listens at {self.url}") from error
        except OSError as error:
            raise TransportError(f"{self.url}: {error}") from error

    async def send(self, data: Buffer, address: Address) -> None:
        """Write a message as a whole, and wait until there is room for another."""
        if self._ended or len(data) > self.capabilities.max_message_size:
            raise TransportError(self._ended or f"a message of {len(data)} bytes is too long")
        if address not in self._connections:
            raise PeerUnreachable(address, f"{address} is not connected")
        writer, _ = self._connections[address]
        writer.write(len(data).to_bytes(4, "big") + data)
        with suppress(OSError):
            await writer.drain()
        if self._ended:
            raise TransportError(self._ended)
        if writer.is_closing():
            raise PeerUnreachable(address, f"{address} has closed")

    async def receive(self) -> tuple[Buffer, Address]:
        """Wait for a message, or for the end of a connection."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._inbox or self._ended)
            if not self._inbox:
                raise TransportError(self._ended)
            item = self._inbox.popleft()
            self._changed.notify_all()
        if isinstance(item, PeerUnreachable):
            raise item
        return item

    async def close(self) -> None:
        """Send what was written, for a second at most, and close everything."""
        self._inbox.clear()
        await self._end(f"{self.url} is closed")
        if self._server is not None:
            self._server.close()
        for writer, _ in self._connections.values():
            writer.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(1), self._changed:
                await self._changed.wait_for(lambda: not self._connections)
        for writer, _ in self._connections.values():
            writer.transport.abort()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = f"{self.url}#{next(self._numbers)}"
        self._connections[address] = writer, asyncio.create_task(self._read(reader, writer, address))

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: Address) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while (size := int.from_bytes(await reader.readexactly(4), "big")) <= self.capabilities.max_message_size:
                await self._put((await reader.readexactly(size), address))
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()
        del self._connections[address]
        await self._put(PeerUnreachable(address, f"{address} has closed"))
        if not self.listening:
            await self._end(f"{self.url} has closed")

    async def _put(self, item: tuple[bytes, Address] | PeerUnreachable) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._inbox) < QUEUE_SIZE or self._ended)
            if not self._ended:
                self._inbox.append(item)
            self._changed.notify_all()

    async def _end(self, reason: str) -> None:
        async with self._changed:
            self._ended = self._ended or reason
            self._changed.notify_all()
