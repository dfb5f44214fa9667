"""A session on two transports: it leaves UDP when that dies, goes on over WebSocket, and comes back."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, cast

import pytest

from stt_core import STTNode
from stt_core.errors import ConnectError
from stt_core.subscriptions import SessionMoved

if TYPE_CHECKING:
    from stt_core.session import STTSession
    from stt_core.subscriptions import Subscription

SHARED = secrets.token_bytes(32)
MOVE_TIMEOUT = 5.0  # seconds; two are the goal, on a machine that does nothing else


class CuttableNetwork(asyncio.DatagramProtocol):
    """Passes datagrams between one client and a server, until it is cut."""

    def __init__(self, server: tuple[str, int]) -> None:
        self.server = server
        self.is_cut = False
        self.client: tuple[str, int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        if self.is_cut:
            return
        if address == self.server:
            if self.client is not None:
                self.transport.sendto(data, self.client)
        else:
            self.client = address
            self.transport.sendto(data, self.server)


async def cuttable(url: str) -> tuple[str, CuttableNetwork]:
    """Return a URL that leads to another one, and the network between."""
    host, port = url.removeprefix("udp://").rsplit(":", 1)
    transport, network = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: CuttableNetwork((host, int(port))), local_addr=("127.0.0.1", 0)
    )
    return f"udp://127.0.0.1:{transport.get_extra_info('sockname')[1]}", network


def make_node() -> STTNode:
    return STTNode(node_seed=secrets.token_bytes(32), shared_seed=SHARED)


async def count(node: STTNode, received: asyncio.Event, enough: int) -> None:
    """Answer the first stream of the first session with the number of bytes that it had."""
    session = await anext(node.sessions())
    stream = await session.accept_stream()
    total = 0
    async for chunk in stream:
        total += len(chunk)
        if total >= enough:
            received.set()
    await stream.send(str(total).encode())
    stream.end()


async def moved_to(events: Subscription[SessionMoved], scheme: str) -> None:
    async with asyncio.timeout(MOVE_TIMEOUT):
        async for event in events:
            if event.path.startswith(scheme):
                return


async def begin(server: STTNode, client: STTNode) -> tuple[STTSession, CuttableNetwork]:
    udp, websocket = await server.listen("udp://127.0.0.1:0", "ws://127.0.0.1:0")
    through, network = await cuttable(udp)
    return await client.connect([websocket, through], expect=server.node_id), network


@pytest.mark.asyncio
async def test_a_transfer_survives_the_loss_of_udp_and_comes_back_to_it() -> None:
    async with make_node() as server, make_node() as client:
        session, network = await begin(server, client)
        assert session.path.startswith("udp://")  # the better one, although it was named last
        events = client.subscribe(SessionMoved)
        received = asyncio.Event()
        counting = asyncio.create_task(count(server, received, 1_000_000))
        stream = await session.open_stream()
        data = secrets.token_bytes(100_000)
        going = True
        sent = 0

        async def send() -> None:
            nonlocal sent
            while going:
                await stream.send(data)
                sent += len(data)
                await session.ping()
            stream.end()

        sending = asyncio.create_task(send())
        await received.wait()
        network.is_cut = True
        await moved_to(events, "ws://")
        network.is_cut = False
        await moved_to(events, "udp://")
        going = False
        await sending

        assert await stream.receive() == str(sent).encode()
        await counting
        network.transport.close()


@pytest.mark.asyncio
async def test_a_receiver_that_sends_nothing_moves_as_well() -> None:
    async with make_node() as server, make_node() as client:
        session, network = await begin(server, client)
        events = client.subscribe(SessionMoved)
        accepted = await anext(server.sessions())
        stream = await accepted.open_stream()
        size = 30_000_000

        async def send() -> None:
            await stream.send(secrets.token_bytes(size))
            stream.end()

        sending = asyncio.create_task(send())
        incoming = await session.accept_stream()
        total = len(await incoming.receive(100_000))
        network.is_cut = True
        while chunk := await incoming.receive():
            total += len(chunk)
        await sending

        assert total == size
        await moved_to(events, "ws://")
        network.transport.close()


@pytest.mark.asyncio
async def test_a_connection_that_is_lost_is_made_again_and_the_streams_go_on() -> None:
    async with make_node() as server, make_node() as client:
        (url,) = await server.listen("ws://127.0.0.1:0")
        port = int(url.rsplit(":", 1)[1].rstrip("/"))
        connections: list[asyncio.StreamWriter] = []

        async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)
            connections.extend((writer, up_writer))

            async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
                try:
                    while data := await source.read(65_536):
                        target.write(data)
                        await target.drain()
                except ConnectionError:
                    pass
                finally:
                    target.close()

            await asyncio.gather(copy(reader, up_writer), copy(up_reader, writer))

        proxy = await asyncio.start_server(forward, "127.0.0.1", 0)
        through = f"ws://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
        session = await client.connect(through)
        received = asyncio.Event()
        counting = asyncio.create_task(count(server, received, 1))
        stream = await session.open_stream()
        await stream.send(b"before")
        await received.wait()

        for writer in connections:
            writer.transport.abort()
        await stream.send(b" and after")
        stream.end()

        async with asyncio.timeout(MOVE_TIMEOUT):
            assert await stream.receive() == b"16"
        await counting
        session.close()
        await session.wait_closed()
        proxy.close()


@pytest.mark.asyncio
async def test_udp_that_never_answers_gives_way_to_websocket() -> None:
    async with make_node() as server, make_node() as client:
        udp, websocket = await server.listen("udp://127.0.0.1:0", "ws://127.0.0.1:0")
        through, network = await cuttable(udp)
        network.is_cut = True

        session = await client.connect([through, websocket])

        assert session.path.startswith("ws://")
        network.transport.close()


@pytest.mark.asyncio
async def test_when_no_url_answers_the_most_telling_reason_is_given() -> None:
    async with make_node() as client:
        with pytest.raises(ConnectError):
            await client.connect(["ws://127.0.0.1:9", "udp://127.0.0.1:9"], timeout=2)
