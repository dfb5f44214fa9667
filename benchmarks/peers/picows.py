"""picows over TLS: WebSockets with callbacks."""

from __future__ import annotations

import asyncio
from collections import deque
from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmarks.certificates import client_context, server_context
from benchmarks.peers.base import Channel, Connection, OnChannel, Options, Peer

if TYPE_CHECKING:
    from collections.abc import Callable

_MAX_FRAME_SIZE = 4 * 1024 * 1024


class PicowsChannel(Channel):
    """Counts in the callback while it discards, so that a message costs no task switch."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport
        self.kind = import_module("picows").WSMsgType.BINARY
        self.received: deque[bytes] = deque()
        self.discarding = 0
        self.ended = False
        self.arrival: asyncio.Future[None] | None = None
        self.is_writable = asyncio.Event()
        self.is_writable.set()

    def take(self, frame: Any) -> None:
        if self.discarding:
            self.discarding -= len(frame.get_payload_as_bytes())  # an application has them
            if self.discarding > 0:
                return
        else:
            self.received.append(frame.get_payload_as_bytes())
        self.wake()

    def wake(self) -> None:
        if self.arrival is not None and not self.arrival.done():
            self.arrival.set_result(None)

    async def wait(self) -> None:
        self.arrival = asyncio.get_running_loop().create_future()
        await self.arrival

    async def send(self, data: bytes) -> None:
        if not self.is_writable.is_set():
            await self.is_writable.wait()
        self.transport.send(self.kind, data)

    async def receive(self) -> bytes:
        while not self.received and not self.ended:
            await self.wait()
        return self.received.popleft() if self.received else b""

    async def discard(self, size: int) -> None:
        self.discarding = size - sum(map(len, self.received))
        self.received.clear()
        while self.discarding > 0:
            if self.ended:
                raise EOFError("the sender ended early")
            await self.wait()


def make_listener(on_channel: OnChannel | None) -> Any:
    class Listener(import_module("picows").WSListener):  # type: ignore[misc]  # it may be missing
        def on_ws_connected(self, transport: Any) -> None:
            self.channel = PicowsChannel(transport)
            if on_channel is not None:
                self.task = asyncio.ensure_future(on_channel(self.channel))

        def on_ws_frame(self, _: Any, frame: Any) -> None:
            self.channel.take(frame)

        def on_ws_disconnected(self, _: Any) -> None:
            self.channel.ended = True
            self.channel.wake()

        def pause_writing(self) -> None:
            self.channel.is_writable.clear()

        def resume_writing(self) -> None:
            self.channel.is_writable.set()

    return Listener()


class PicowsConnection(Connection):
    def __init__(self, transport: Any, channel: PicowsChannel) -> None:
        self.transport, self.channel = transport, channel

    async def open_channel(self) -> Channel:
        return self.channel

    async def close(self) -> None:
        self.transport.disconnect()


class PicowsPeer(Peer):
    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.context = client_context(options.folder)

    async def serve(self, on_channel: OnChannel, announce: Callable[[str], None]) -> None:
        server = await import_module("picows").ws_create_server(
            lambda _: make_listener(on_channel),
            "127.0.0.1",
            0,
            ssl=server_context(self.options.folder),
            max_frame_size=_MAX_FRAME_SIZE,
            backlog=1024,
        )
        announce(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await server.serve_forever()

    async def connect(self, address: str) -> Connection:
        transport, listener = await import_module("picows").ws_connect(
            lambda: make_listener(None),
            f"wss://{address}/",
            ssl_context=self.context,
            max_frame_size=_MAX_FRAME_SIZE,
        )
        return PicowsConnection(transport, listener.channel)
