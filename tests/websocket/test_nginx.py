"""nginx as a reverse proxy in front of a server: with the configuration of the how-to page."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stt_core.errors import PeerUnreachable, TransportError
from stt_websocket import WebSocketTransport, WebSocketURL, client_context

if TYPE_CHECKING:
    from collections.abc import Iterator

Opened = Callable[..., Coroutine[Any, Any, WebSocketTransport]]

PATIENCE = 20  # seconds, for what takes milliseconds
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "websocket.md"
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


@pytest.fixture
def nginx(tmp_path: Path, certificates: Path) -> Iterator[Callable[[int], str]]:
    """Start nginx in front of a port; returns its URL."""
    started: list[subprocess.Popen[bytes]] = []

    def start(backend: int) -> str:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        (block,) = re.findall(r"```nginx\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
        server = (
            block.replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
            .replace("/etc/ssl/certs/example.org.pem", str(certificates / "certificate.pem"))
            .replace("/etc/ssl/private/example.org.key", str(certificates / "key.pem"))
            .replace("127.0.0.1:8080", f"127.0.0.1:{backend}")
        )
        folders = "".join(f"{kind}_temp_path {tmp_path};\n" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
        (tmp_path / "nginx.conf").write_text(
            f"daemon off;\nmaster_process off;\npid {tmp_path}/nginx.pid;\nevents {{}}\n"
            f"http {{\naccess_log off;\nclient_body_temp_path {tmp_path};\n{folders}{server}}}\n"
        )
        assert NGINX is not None
        command = [NGINX, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"), "-e", str(tmp_path / "error.log")]
        started.append(subprocess.Popen(command))
        end = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
            except OSError:
                assert started[0].poll() is None, (tmp_path / "error.log").read_text()
                assert time.monotonic() < end
                time.sleep(0.05)
            else:
                return f"wss://localhost:{port}/stt"

    yield start
    for process in started:
        process.terminate()
        process.wait(PATIENCE)


@pytest.mark.asyncio
async def test_messages_pass_a_reverse_proxy_that_does_tls(
    opened: Opened, nginx: Callable[[int], str], certificates: Path
) -> None:
    server = await opened("ws://127.0.0.1:0/stt", listening=True, allowed_hosts=frozenset({"localhost"}))
    url = nginx(WebSocketURL.parse(server.url).port)
    client = await opened(url, client_tls=client_context(certificates / "certificate.pem"))
    messages = [b"", b"x", os.urandom(65_536), os.urandom(5_000_000)]
    async with asyncio.timeout(PATIENCE):
        for message in messages:
            await client.send(message, client.peer)
            received, address = await server.receive()
            assert received == message
            await server.send(received, address)
            assert (await client.receive())[0] == message
        await client.close()
        with pytest.raises(PeerUnreachable, match="1000"):
            await server.receive()


@pytest.mark.asyncio
async def test_a_client_learns_through_a_reverse_proxy_that_the_server_stops(
    opened: Opened, nginx: Callable[[int], str], certificates: Path
) -> None:
    server = await opened("ws://127.0.0.1:0/stt", listening=True)
    url = nginx(WebSocketURL.parse(server.url).port)
    client = await opened(url, client_tls=client_context(certificates / "certificate.pem"))

    await server.close()

    async with asyncio.timeout(PATIENCE):
        with pytest.raises(PeerUnreachable, match="1001"):
            await client.receive()


@pytest.mark.asyncio
async def test_a_reverse_proxy_without_its_server_answers_502(
    opened: Opened, nginx: Callable[[int], str], certificates: Path, free_port: int
) -> None:
    url = nginx(free_port)

    with pytest.raises(TransportError, match="502 Bad Gateway"):
        await opened(url, client_tls=client_context(certificates / "certificate.pem"))


@pytest.mark.asyncio
async def test_another_path_of_the_same_host_is_not_ours(
    opened: Opened, nginx: Callable[[int], str], certificates: Path, free_port: int
) -> None:
    url = nginx(free_port)

    with pytest.raises(TransportError, match="404"):
        await opened(f"{url}/other", client_tls=client_context(certificates / "certificate.pem"))
