from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from stt_core.errors import ConfigError, PeerUnreachable, TransportError
from stt_websocket import WebSocketTransport, WebSocketURL, client_context, server_context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

Opened = Callable[..., Coroutine[Any, Any, WebSocketTransport]]

PATIENCE = 20  # seconds, for what takes milliseconds
LOCAL = "ws://127.0.0.1:0"


class Proxy:
    """An HTTP proxy that makes tunnels for whoever knows the password, and resolves only one name."""

    def __init__(self, port: int) -> None:
        self.url = f"http://user:pass%20word@127.0.0.1:{port}"
        self.tunnels: list[str] = []


@pytest_asyncio.fixture
async def proxy() -> AsyncIterator[Proxy]:
    async with asyncio.TaskGroup() as tunnels:
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setblocking(False)
        made = Proxy(listening.getsockname()[1])
        accepting = tunnels.create_task(accept(made, listening, tunnels))
        yield made
        accepting.cancel()
        listening.close()


async def accept(proxy: Proxy, listening: socket.socket, tunnels: asyncio.TaskGroup) -> None:
    while True:
        sock, _ = await asyncio.get_running_loop().sock_accept(listening)
        tunnels.create_task(tunnel(proxy, sock))


async def tunnel(proxy: Proxy, client: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with client:
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            request += await loop.sock_recv(client, 1)
        password = base64.b64encode(b"user:pass word")
        if b"\r\nProxy-Authorization: Basic " + password + b"\r\n" not in request:
            await loop.sock_sendall(client, b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            return
        target = request.split()[1].decode()
        proxy.tunnels.append(target)
        host, _, port = target.rpartition(":")
        with socket.create_connection(("127.0.0.1" if host == "stt.example" else host, int(port))) as server:
            server.setblocking(False)
            await loop.sock_sendall(client, b"HTTP/1.1 200 Connection established\r\n\r\n")
            await asyncio.gather(copy(client, server), copy(server, client))


async def copy(source: socket.socket, target: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        while data := await loop.sock_recv(source, 65_536):
            await loop.sock_sendall(target, data)
        target.shutdown(socket.SHUT_WR)


@pytest.fixture
def through(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def set_variables(url: str) -> None:
        monkeypatch.setenv("http_proxy", url)
        monkeypatch.setenv("HTTPS_PROXY", url)

    return set_variables


@pytest.mark.asyncio
async def test_a_proxy_of_the_environment_makes_a_tunnel_and_resolves_the_name(
    opened: Opened, proxy: Proxy, through: Callable[[str], None]
) -> None:
    server = await opened(LOCAL, listening=True)
    port = WebSocketURL.parse(server.url).port
    through(proxy.url)

    client = await opened(f"ws://stt.example:{port}")
    await client.send(b"hello", client.peer)

    assert (await server.receive())[0] == b"hello"
    assert proxy.tunnels == [f"stt.example:{port}"]
    await client.close()


@pytest.mark.asyncio
async def test_tls_goes_through_the_tunnel_and_verifies_the_server_not_the_proxy(
    opened: Opened, proxy: Proxy, through: Callable[[str], None], certificates: Path
) -> None:
    context = server_context(certificates / "certificate.pem", certificates / "key.pem")
    server = await opened("wss://127.0.0.1:0", listening=True, server_tls=context)
    port = WebSocketURL.parse(server.url).port
    through(proxy.url)
    client_tls = client_context(certificates / "certificate.pem")

    client = await opened(server.url, client_tls=client_tls)
    await client.send(b"hello", client.peer)
    assert (await server.receive())[0] == b"hello"
    with pytest.raises(TransportError, match=r"not accepted: .*stt\.example"):
        await opened(f"wss://stt.example:{port}", client_tls=client_tls)
    await client.close()


@pytest.mark.asyncio
async def test_no_proxy_is_reached_directly(
    opened: Opened, proxy: Proxy, through: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await opened(LOCAL, listening=True)
    through(proxy.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    await opened(server.url)

    assert not proxy.tunnels


@pytest.mark.asyncio
async def test_loopback_goes_through_the_proxy_unless_it_is_exempt(
    opened: Opened, proxy: Proxy, through: Callable[[str], None]
) -> None:
    server = await opened(LOCAL, listening=True)
    through(proxy.url)

    client = await opened(server.url)

    assert len(proxy.tunnels) == 1
    await client.close()


@pytest.mark.asyncio
async def test_a_proxy_that_refuses_is_an_error_that_says_so(
    opened: Opened, proxy: Proxy, through: Callable[[str], None]
) -> None:
    through(proxy.url.replace("word", "wort"))

    with pytest.raises(TransportError, match="the proxy answered '407 Proxy Authentication Required'") as caught:
        await opened("ws://stt.example")
    assert "wort" not in str(caught.value)


@pytest.mark.asyncio
async def test_a_proxy_that_does_not_listen_is_an_error(
    opened: Opened, through: Callable[[str], None], free_port: int
) -> None:
    through(f"http://127.0.0.1:{free_port}")

    with pytest.raises(PeerUnreachable, match=r"127\.0\.0\.1 port"):
        await opened("ws://stt.example")


@pytest.mark.asyncio
async def test_a_proxy_of_another_kind_is_a_config_error(opened: Opened, through: Callable[[str], None]) -> None:
    through("socks5://127.0.0.1:1080")

    with pytest.raises(ConfigError, match="http_proxy"):
        await opened("ws://stt.example")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: ws://elsewhere/\r\n\r\n", "302 Found"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "200 OK"),
        (b"", "ended in the opening handshake"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "not HTTP"),
    ],
)
async def test_a_server_that_is_none_of_ours_is_an_error_with_its_answer(
    opened: Opened, answer: bytes, reason: str
) -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        opening = asyncio.create_task(opened(f"ws://127.0.0.1:{listening.getsockname()[1]}/?token=secret"))
        sock, _ = await loop.sock_accept(listening)
        with sock:
            await loop.sock_recv(sock, 4096)
            await loop.sock_sendall(sock, answer)
        with pytest.raises(TransportError, match=reason) as caught:
            await opening

    assert "secret" not in str(caught.value)


@pytest.mark.asyncio
async def test_the_second_address_of_a_name_is_tried_when_the_first_refuses(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    server = await opened(LOCAL, listening=True)
    port = WebSocketURL.parse(server.url).port

    async def resolve(*_: object, **__: object) -> list[Any]:
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", free_port)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
        ]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)

    client = await opened(f"ws://two.example:{port}")

    assert client.peer == ("127.0.0.1", port, 1)


@pytest.mark.asyncio
async def test_an_address_that_stays_silent_does_not_hold_up_the_next(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await opened(LOCAL, listening=True)
    port = WebSocketURL.parse(server.url).port
    # The backlog of the silent one is full: the kernel answers no further connection.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as silent, contextlib.ExitStack() as fillers:
        full = silent.getsockname()
        for _ in range(2):
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full)

        async def resolve(*_: object, **__: object) -> list[Any]:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in (full, ("127.0.0.1", port))]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)

        client = await opened(f"ws://two.example:{port}")

    assert client.peer == ("127.0.0.1", port, 1)
