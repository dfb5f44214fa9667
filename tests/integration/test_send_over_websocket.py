"""Do ``stt send`` and ``stt receive`` bring files where UDP fails: over TLS, through a proxy, and amid a transfer?"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import selectors
import socket
import socketserver
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MEBIBYTE = 1024 * 1024


@pytest.fixture
def secure(stt: Any, tmp_path: Path) -> Any:
    """The command, with a certificate of one's own for localhost."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    both = tmp_path / "both.pem"
    both.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    stt.variables = {"STT_WEBSOCKET_CERTIFICATE": str(both), "STT_WEBSOCKET_CA": str(both), "no_proxy": "*"}
    return stt


class UDPRelay(threading.Thread):
    """Stands before a UDP server for one client, and passes no more once it has passed so many bytes."""

    def __init__(self, url: str, limit: int) -> None:
        super().__init__(daemon=True)
        host, port = url.removeprefix("udp://").rsplit(":", 1)
        self.limit = limit
        self.passed = 0
        self.sockets = socket.socket(type=socket.SOCK_DGRAM), socket.socket(type=socket.SOCK_DGRAM)
        self.sockets[0].bind(("127.0.0.1", 0))
        self.sockets[1].connect((host, int(port)))
        self.url = f"udp://127.0.0.1:{self.sockets[0].getsockname()[1]}"
        self.is_over = threading.Event()

    def run(self) -> None:
        client, server = self.sockets
        with selectors.DefaultSelector() as selector:
            for sock in self.sockets:
                selector.register(sock, selectors.EVENT_READ)
            while not self.is_over.is_set():
                for key, _ in selector.select(timeout=0.1):
                    assert isinstance(key.fileobj, socket.socket)
                    data, address = key.fileobj.recvfrom(65_536)
                    if self.passed > self.limit:
                        continue
                    if key.fileobj is client:
                        self.passed += len(data)
                        sender = address
                        server.send(data)
                    else:
                        client.sendto(data, sender)
        for sock in self.sockets:
            sock.close()


@pytest.fixture
def relays() -> Iterator[list[UDPRelay]]:
    """Relays to be ended with the test."""
    started: list[UDPRelay] = []
    yield started
    for relay in started:
        relay.is_over.set()
        relay.join()


class ConnectProxy(socketserver.ThreadingTCPServer):
    """An HTTP proxy that makes tunnels, and remembers who they were for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Tunnel)
        self.requests: list[bytes] = []


class Tunnel(socketserver.StreamRequestHandler):
    server: ConnectProxy

    def handle(self) -> None:
        line = self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        self.server.requests.append(line)
        host, port = line.split()[1].rsplit(b":", 1)
        with socket.create_connection((host.decode(), int(port))) as server:
            self.connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=pump, args=(server, self.connection), daemon=True)
            back.start()
            pump(self.connection, server)
            back.join()


def pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@pytest.fixture
def proxy() -> Iterator[ConnectProxy]:
    with ConnectProxy() as server:
        serving = threading.Thread(target=server.serve_forever, daemon=True)
        serving.start()
        yield server
        server.shutdown()
        serving.join()


def listen(stt: Any, inbox: Path) -> tuple[Any, str, str]:
    """Receive over UDP and over WebSocket with TLS at once; returns the process and both URLs."""
    receiver = stt.listen("receive", "wss://localhost:0/stt", "--dir", inbox, "--once")
    return receiver, receiver.url, receiver.event()["url"]


def make(path: Path, size: int) -> str:
    data = os.urandom(size)
    path.write_bytes(data)
    return hashlib.sha3_256(data).hexdigest()


def test_a_file_that_starts_over_udp_ends_whole_over_websocket(
    secure: Any, tmp_path: Path, inbox: Path, relays: list[UDPRelay]
) -> None:
    digest = make(tmp_path / "file.bin", 32 * MEBIBYTE)
    receiver, udp, websocket = listen(secure, inbox)
    relay = UDPRelay(udp, 16 * MEBIBYTE)
    relays.append(relay)
    relay.start()

    sent = secure.send(f"{relay.url},{websocket}", tmp_path / "file.bin")

    assert sent.returncode == 0, sent.stderr
    assert relay.passed > relay.limit
    assert json.loads(sent.stdout.splitlines()[-1])["sha3_256"] == digest
    assert receiver.event()["sha3_256"] == digest
    assert receiver.end()[0] == 0
    assert hashlib.sha3_256((inbox / "file.bin").read_bytes()).hexdigest() == digest


def test_a_file_goes_through_an_http_proxy_where_udp_does_not(
    secure: Any, tmp_path: Path, inbox: Path, relays: list[UDPRelay], proxy: ConnectProxy
) -> None:
    digest = make(tmp_path / "file.bin", MEBIBYTE)
    receiver, udp, websocket = listen(secure, inbox)
    relays.append(UDPRelay(udp, -1))
    relays[0].start()
    secure.variables |= {"no_proxy": "", "https_proxy": f"http://127.0.0.1:{proxy.server_address[1]}"}

    sent = secure.send(f"{relays[0].url},{websocket}", tmp_path / "file.bin")

    assert sent.returncode == 0, sent.stderr
    assert receiver.event()["sha3_256"] == digest
    port = websocket.removesuffix("/stt").rpartition(":")[2]
    assert proxy.requests == [f"CONNECT localhost:{port} HTTP/1.1\r\n".encode()]


def test_a_certificate_of_nobody_known_is_named_as_the_reason(secure: Any, tmp_path: Path, inbox: Path) -> None:
    make(tmp_path / "file.bin", 10)
    _, _, websocket = listen(secure, inbox)
    del secure.variables["STT_WEBSOCKET_CA"]

    sent = secure.send(websocket, tmp_path / "file.bin")

    assert sent.returncode != 0
    assert "certificate is not accepted: self-signed certificate" in sent.stderr
    assert not list(inbox.iterdir())
