from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ipaddress
import socket
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from stt_websocket import WebSocketOptions, WebSocketTransport, WebSocketURL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
    from pathlib import Path

    from stt_core.interfaces.transport import Address, Buffer

PATIENCE = 20  # seconds, for what takes milliseconds

PROXY_VARIABLES = ("http_proxy", "https_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the proxies and certificates of whoever runs the tests out of them."""
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("CERTIFICATE", "KEY", "CA", "HOSTS", "ORIGINS"):
        monkeypatch.delenv(f"STT_WEBSOCKET_{name}", raising=False)


class Recorder:
    """A receiver that keeps what it is told."""

    def __init__(self) -> None:
        self.messages: list[tuple[Buffer, Address]] = []
        self.unreachable: list[tuple[Address, str]] = []
        self.failures: list[str] = []
        self.writable_calls = 0
        self._changed = asyncio.Event()

    def messages_received(self, messages: Sequence[tuple[Buffer, Address]]) -> None:
        assert messages
        self.messages += messages
        self._changed.set()

    def peer_unreachable(self, address: Address, reason: str) -> None:
        self.unreachable.append((address, reason))
        self._changed.set()

    def writable(self) -> None:
        self.writable_calls += 1
        self._changed.set()

    def failed(self, reason: str) -> None:
        self.failures.append(reason)
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something that was told makes a condition true."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


@pytest.fixture
def recorder() -> type[Recorder]:
    return Recorder


@pytest_asyncio.fixture
async def opened() -> AsyncIterator[Callable[..., Coroutine[Any, Any, WebSocketTransport]]]:
    """Open transports; options are keywords. They are closed in the end, clients first."""
    async with AsyncExitStack() as stack:

        async def open_transport(url: str, *, listening: bool = False, **options: Any) -> WebSocketTransport:
            transport = WebSocketTransport(url, listening=listening, options=WebSocketOptions(**options))
            await transport.open()
            stack.push_async_callback(transport.close)
            return transport

        yield open_transport


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with certificate.pem for localhost and its addresses, other.pem for another name, and their key.pem.

    encrypted.pem is the key, encrypted.
    """
    folder = tmp_path_factory.mktemp("certificates")
    key = ec.generate_private_key(ec.SECP256R1())
    local = [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.IPAddress(ipaddress.ip_address("::1")),
    ]
    (folder / "certificate.pem").write_bytes(_certificate(key, local))
    (folder / "other.pem").write_bytes(_certificate(key, [x509.DNSName("other.example")]))
    for file, encryption in (
        ("key.pem", serialization.NoEncryption()),
        ("encrypted.pem", serialization.BestAvailableEncryption(b"password")),
    ):
        (folder / file).write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        )
    return folder


def _certificate(key: ec.EllipticCurvePrivateKey, names: list[x509.GeneralName]) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.fixture
def ipv6() -> None:
    if not _has_ipv6():
        pytest.skip("this host has no IPv6 loopback")


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port of 127.0.0.1 at which connections are taken and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def free_port() -> int:
    """A port of 127.0.0.1 at which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class RawClient:
    """A client that sends any bytes, and so what no honest one would; it reads only when told to."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._received = b""

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    def end(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    async def upgrade(self) -> None:
        await self.send(UPGRADE)
        while b"\r\n\r\n" not in self._received:
            await self._receive_more()
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")

    async def receive_frame(self) -> tuple[int, bytes]:
        """Return opcode and payload of a short frame."""
        while len(self._received) < 2 or len(self._received) < 2 + self._received[1]:
            await self._receive_more()
        opcode, end = self._received[0] & 0x0F, 2 + self._received[1]
        payload, self._received = self._received[2:end], self._received[end:]
        return opcode, payload

    async def receive_all(self) -> bytes:
        """Return everything until the peer ends the stream."""
        with contextlib.suppress(EOFError):
            while True:
                await self._receive_more()
        data, self._received = self._received, b""
        return data

    async def receive_close_code(self) -> int:
        """Return the code of the Close frame that is the last that comes."""
        opcode, payload = await self.receive_frame()
        assert opcode == 8
        assert await self.receive_all() == b""
        return int.from_bytes(payload[:2], "big")

    async def _receive_more(self) -> None:
        async with asyncio.timeout(PATIENCE):
            data = await asyncio.get_running_loop().sock_recv(self.sock, 65_536)
        if not data:
            raise EOFError
        self._received += data


UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: stt.v1\r\n\r\n"
)


@pytest_asyncio.fixture
async def raw_client() -> AsyncIterator[Callable[..., Coroutine[Any, Any, RawClient]]]:
    """Connect raw clients to the port of a URL, upgraded unless told otherwise; they are closed in the end."""
    async with AsyncExitStack() as stack:

        async def connect(url: str, *, is_upgraded: bool = True) -> RawClient:
            sock = socket.create_connection(("127.0.0.1", WebSocketURL.parse(url).port))
            stack.callback(sock.close)
            sock.setblocking(False)
            client = RawClient(sock)
            if is_upgraded:
                await client.upgrade()
            return client

        yield connect
