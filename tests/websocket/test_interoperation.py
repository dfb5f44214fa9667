"""Other implementations of RFC 6455 as peers, in both roles."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import pytest

from stt_core.errors import PeerUnreachable
from stt_websocket import CloseCode, WebSocketTransport, WebSocketURL, client_context, server_context

if TYPE_CHECKING:
    from pathlib import Path

Opened = Callable[..., Coroutine[Any, Any, WebSocketTransport]]

PATIENCE = 20  # seconds, for what takes milliseconds
MESSAGES = [b"", b"x", os.urandom(125), os.urandom(126), os.urandom(65_535), os.urandom(65_536), os.urandom(2_000_000)]


@pytest.fixture
def websockets() -> Any:
    pytest.importorskip("websockets", reason="the library websockets is not installed")
    return pytest.importorskip("websockets.asyncio.client"), pytest.importorskip("websockets.asyncio.server")


@pytest.fixture
def wsproto() -> Any:
    pytest.importorskip("wsproto", reason="the library wsproto is not installed")
    return pytest.importorskip("wsproto"), pytest.importorskip("wsproto.events")


@pytest.fixture(params=["ws", "wss"])
def contexts(request: pytest.FixtureRequest, certificates: Path) -> tuple[Any, Any]:
    """TLS of server and client; None for both without."""
    if request.param == "ws":
        return None, None
    server = server_context(certificates / "certificate.pem", certificates / "key.pem")
    return server, client_context(certificates / "certificate.pem")


async def echo_until_closed(server: WebSocketTransport) -> str:
    """Answer messages of one client; returns how its connection ended."""
    while True:
        try:
            message, address = await server.receive()
        except PeerUnreachable as end:
            return str(end)
        await server.send(message, address)


# websockets


@pytest.mark.asyncio
async def test_our_client_at_a_server_of_websockets(opened: Opened, websockets: Any, contexts: tuple[Any, Any]) -> None:
    ends = []

    async def echo(connection: Any) -> None:
        async for message in connection:
            await connection.send(message)
        ends.append((connection.close_code, connection.subprotocol))

    server_tls, client_tls = contexts
    server = await websockets[1].serve(
        echo, "127.0.0.1", 0, ssl=server_tls, subprotocols=["stt.v1"], max_size=None, ping_interval=0.05
    )
    port = next(iter(server.sockets)).getsockname()[1]
    client = await opened(f"{'wss' if server_tls else 'ws'}://127.0.0.1:{port}/a?b", client_tls=client_tls)
    async with asyncio.timeout(PATIENCE):
        for message in MESSAGES:
            await client.send(message, client.peer)
            assert (await client.receive())[0] == message
        await client.close()
        server.close()
        await server.wait_closed()

    assert ends == [(CloseCode.NORMAL, "stt.v1")]


@pytest.mark.asyncio
async def test_a_client_of_websockets_at_our_server(opened: Opened, websockets: Any, contexts: tuple[Any, Any]) -> None:
    server_tls, client_tls = contexts
    scheme = "wss" if server_tls else "ws"
    server = await opened(f"{scheme}://127.0.0.1:0/stt", listening=True, server_tls=server_tls, ping_interval=0.05)
    echo = asyncio.create_task(echo_until_closed(server))
    async with asyncio.timeout(PATIENCE):
        async with websockets[0].connect(
            server.url, ssl=client_tls, subprotocols=["other", "stt.v1"], max_size=None, proxy=None
        ) as client:
            assert client.subprotocol == "stt.v1"
            assert "Sec-WebSocket-Extensions" not in client.response.headers
            for message in MESSAGES:
                await client.send(message)
                assert await client.recv() == message
            await client.send([b"a fragmented ", b"message", b""])
            assert await client.recv() == b"a fragmented message"
            assert await (await client.ping()) < PATIENCE
        assert "closed by the peer: 1000" in await echo

    assert (client.close_code, client.close_reason) == (CloseCode.NORMAL, "")


@pytest.mark.asyncio
async def test_a_client_of_websockets_learns_why_our_server_closes(opened: Opened, websockets: Any) -> None:
    server = await opened("ws://127.0.0.1:0", listening=True, max_message_size=1000)
    async with asyncio.timeout(PATIENCE):
        async with websockets[0].connect(server.url, subprotocols=["stt.v1"], proxy=None) as too_long:
            await too_long.send(bytes(1001))
            await too_long.wait_closed()
        async with websockets[0].connect(server.url, subprotocols=["stt.v1"], proxy=None) as text:
            await text.send("text")
            await text.wait_closed()
        async with websockets[0].connect(server.url, subprotocols=["stt.v1"], proxy=None) as last:
            await server.close()
            await last.wait_closed()

    assert too_long.close_code == CloseCode.TOO_BIG
    assert text.close_code == CloseCode.UNSUPPORTED_DATA
    assert last.close_code == CloseCode.GOING_AWAY


# wsproto


class WsprotoPeer:
    """A WebSocket of wsproto on a socket."""

    def __init__(self, wsproto: Any, sock: socket.socket, *, is_client: bool) -> None:
        module, self.events = wsproto
        self.sock = sock
        self.loop = asyncio.get_running_loop()
        kind = module.ConnectionType.CLIENT if is_client else module.ConnectionType.SERVER
        self.connection = module.WSConnection(kind)
        self.waiting: list[Any] = []

    async def send(self, event: Any) -> None:
        await self.loop.sock_sendall(self.sock, self.connection.send(event))

    async def next_event(self) -> Any:
        while not self.waiting:
            self.connection.receive_data(await self.loop.sock_recv(self.sock, 65_536) or None)
            self.waiting += self.connection.events()
        return self.waiting.pop(0)

    async def next_message(self) -> bytes:
        message = b""
        while True:
            event = await self.next_event()
            if isinstance(event, self.events.Ping):
                await self.send(event.response())
                continue
            assert isinstance(event, self.events.BytesMessage)
            message += bytes(event.data)
            if event.message_finished:
                return message


@pytest.mark.asyncio
async def test_our_client_at_a_server_of_wsproto(opened: Opened, wsproto: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        opening = asyncio.create_task(opened(f"ws://127.0.0.1:{listening.getsockname()[1]}/a?b"))
        async with asyncio.timeout(PATIENCE):
            sock, _ = await asyncio.get_running_loop().sock_accept(listening)
            with sock:
                peer = WsprotoPeer(wsproto, sock, is_client=False)
                request = await peer.next_event()
                assert request.target == "/a?b"
                await peer.send(peer.events.AcceptConnection(subprotocol=request.subprotocols[0]))
                client = await opening
                for message in MESSAGES:
                    sending = asyncio.create_task(client.send(message, client.peer))
                    assert await peer.next_message() == message
                    await sending
                    await peer.send(peer.events.Ping(b"amid"))
                    half = len(message) // 2
                    await peer.send(peer.events.BytesMessage(message[:half], message_finished=False))
                    answer = asyncio.create_task(peer.send(peer.events.BytesMessage(message[half:])))
                    assert (await client.receive())[0] == message
                    await answer
                    assert isinstance(await peer.next_event(), peer.events.Pong)
                closing = asyncio.create_task(client.close())
                end = await peer.next_event()
                await peer.send(end.response())
                sock.shutdown(socket.SHUT_WR)
                await closing

    assert end.code == CloseCode.NORMAL


@pytest.mark.asyncio
async def test_a_client_of_wsproto_at_our_server(opened: Opened, wsproto: Any) -> None:
    server = await opened("ws://127.0.0.1:0", listening=True)
    port = WebSocketURL.parse(server.url).port
    echo = asyncio.create_task(echo_until_closed(server))
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setblocking(False)
        peer = WsprotoPeer(wsproto, sock, is_client=True)
        async with asyncio.timeout(PATIENCE):
            await peer.send(peer.events.Request(host="localhost", target="/", subprotocols=["stt.v1"]))
            accepted = await peer.next_event()
            for message in MESSAGES:
                sending = asyncio.create_task(peer.send(peer.events.BytesMessage(message)))
                assert await peer.next_message() == message
                await sending
            await peer.send(peer.events.CloseConnection(3456, "enough"))
            assert "closed by the peer: 3456 'enough'" in await echo
            end = await peer.next_event()

    assert accepted.subprotocol == "stt.v1"
    assert end.code == 3456
