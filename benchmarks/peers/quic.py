"""aioquic and qh3, its fork with a core in Rust: QUIC with the streams that both document."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.peers.base import Channel, Connection, OnChannel, Options, Peer, split_address

if TYPE_CHECKING:
    from collections.abc import Callable

_READ_SIZE = 1024 * 1024
_WINDOW = 4 * 1024 * 1024
_CREDIT = 1024 * 1024
_RECEIVE_WINDOW = 16 * 1024 * 1024  # as STT's session credit
_DATAGRAM_SIZE = 1472


class QuicChannel(Channel):
    """``drain`` of these libraries does not wait, so while it discards the receiver says how far it is."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def receive(self) -> bytes:
        return await self.reader.read(_READ_SIZE)

    def end(self) -> None:
        self.writer.write_eof()

    async def send_many(self, data: bytes, count: int) -> None:
        credits_due = len(data) * count // _CREDIT
        credits = unsent = 0
        for number in range(count):
            self.writer.write(data)
            unsent += len(data)
            if unsent >= 65_536:  # the event loop sends only when it has its turn
                unsent = 0
                await asyncio.sleep(0)
            while (number + 1) * len(data) - credits * _CREDIT > _WINDOW:
                credits += len(await self.reader.read(_READ_SIZE))
        while credits < credits_due:
            credits += len(await self.reader.read(credits_due - credits))

    async def discard(self, size: int) -> None:
        received = told = 0
        while received < size:
            chunk = await self.reader.read(_READ_SIZE)
            if not chunk:
                raise EOFError("the sender ended early")
            received += len(chunk)
            if received // _CREDIT > told:
                self.writer.write(b"c" * (received // _CREDIT - told))
                told = received // _CREDIT


class QuicConnection(Connection):
    closing: ClassVar[set[asyncio.Future[None]]] = set()

    def __init__(self, protocol: Any, stack: AsyncExitStack) -> None:
        self.protocol, self.stack = protocol, stack

    async def open_channel(self) -> Channel:
        return QuicChannel(*await self.protocol.create_stream())

    async def close(self) -> None:
        self.protocol.close()
        # The rest is waiting for what is still under way, three probe time-outs long.
        task = asyncio.ensure_future(self.stack.aclose())
        self.closing.add(task)
        task.add_done_callback(self.closing.discard)


class QuicPeer(Peer):
    has_streams = True

    def __init__(self, options: Options, library: str) -> None:
        super().__init__(options)
        self.asyncio = import_module(f"{library}.asyncio")
        self.make_configuration = partial(
            import_module(f"{library}.quic.configuration").QuicConfiguration,
            alpn_protocols=["benchmark"],
            max_datagram_size=_DATAGRAM_SIZE,
            max_data=_RECEIVE_WINDOW,
            max_stream_data=_RECEIVE_WINDOW,
            idle_timeout=600.0,
        )

    async def serve(self, on_channel: OnChannel, announce: Callable[[str], None]) -> None:
        configuration = self.make_configuration(is_client=False)
        configuration.load_cert_chain(self.options.folder / "certificate.pem", self.options.folder / "key.pem")
        tasks = set()

        def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(on_channel(QuicChannel(reader, writer)))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        # Neither library tells the port that it was given, so one is chosen here.
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
        )
        port = transport.get_extra_info("sockname")[1]
        transport.close()
        await asyncio.sleep(0)
        await self.asyncio.serve("127.0.0.1", port, configuration=configuration, stream_handler=handle)
        announce(f"127.0.0.1:{port}")
        await asyncio.Event().wait()

    async def connect(self, address: str) -> Connection:
        host, port = split_address(address)
        configuration = self.make_configuration(is_client=True, server_name="localhost")
        configuration.load_verify_locations(cafile=str(self.options.folder / "authority.pem"))
        stack = AsyncExitStack()
        protocol = await stack.enter_async_context(self.asyncio.connect(host, port, configuration=configuration))
        return QuicConnection(protocol, stack)
