"""What WebSockets cost by themselves: ours beside websockets and picows, over TLS, two processes on loopback.

    python -m benchmarks.websocket_raw              # all, some 2 minutes; --json FILE keeps the numbers
    python -m benchmarks.websocket_raw --plain      # the same without TLS

No protocol and no encryption of STT's own is on it. "core" = what moves in a second of processor time of the busier
process, which a busy machine disturbs least; "wall" = in a second of the clock. Up is client to server: masked.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import importlib.metadata
import json
import platform
import ssl
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.certificates import make_certificates
from stt_core.interfaces.transport import Train
from stt_websocket import WebSocketOptions, WebSocketTransport, WebSocketURL
from stt_websocket.masking import fastest_mask

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MIB = 1024 * 1024
CASES = {  # name: (direction, bytes a message, messages)
    "1 MiB down": ("down", MIB, 1500),
    "1 MiB up": ("up", MIB, 1000),
    "64 KiB down": ("down", 65_536, 20_000),
    "64 KiB up": ("up", 65_536, 15_000),
    "64 B down": ("down", 64, 200_000),
    "64 B up": ("up", 64, 200_000),
    "64 B round trips": ("echo", 64, 10_000),
}
LIBRARIES = {"stt": "stt-websocket", "websockets": "websockets", "picows": "picows"}


class Peer(ABC):
    """One end of an open connection, in the fastest way that its library documents."""

    on_message: Callable[[Peer, int], None]

    @abstractmethod
    async def send_many(self, message: bytes, count: int) -> None: ...

    @abstractmethod
    def send_soon(self, message: bytes) -> None: ...


class Library(ABC):
    @abstractmethod
    async def serve(self, context: ssl.SSLContext | None, on_message: Callable[[Peer, int], None]) -> int: ...

    @abstractmethod
    async def connect(
        self, port: int, context: ssl.SSLContext | None, on_message: Callable[[Peer, int], None]
    ) -> Peer: ...


# Ours


class OurPeer(Peer):
    def __init__(self, receiver: OurReceiver, address: Any) -> None:
        self.receiver = receiver
        self.address = address

    async def send_many(self, message: bytes, count: int) -> None:
        train = Train(message, len(message))
        send_train = self.receiver.transport.send_train
        for _ in range(count):
            while not send_train(train, self.address):
                await self.receiver.wait_writable()

    def send_soon(self, message: bytes) -> None:
        self.receiver.transport.send_train(Train(message, len(message)), self.address)


class OurReceiver:
    def __init__(self, transport: Any, on_message: Callable[[Peer, int], None]) -> None:
        self.transport = transport
        self.on_message = on_message
        self.peers: dict[Any, OurPeer] = {}
        self.is_writable = asyncio.Event()

    async def wait_writable(self) -> None:
        self.is_writable.clear()
        await self.is_writable.wait()

    def peer(self, address: Any) -> OurPeer:
        return self.peers.setdefault(address, OurPeer(self, address))

    def messages_received(self, messages: Sequence[tuple[Any, Any]]) -> None:
        peer = self.peer(messages[0][1])
        for data, _ in messages:
            self.on_message(peer, len(data))

    def peer_unreachable(self, address: Any, reason: str) -> None: ...

    def writable(self) -> None:
        self.is_writable.set()

    def failed(self, reason: str) -> None: ...


class Ours(Library):
    async def serve(self, context: ssl.SSLContext | None, on_message: Callable[[Peer, int], None]) -> int:
        options = WebSocketOptions(server_tls=context)
        transport = WebSocketTransport(f"{'wss' if context else 'ws'}://127.0.0.1:0", listening=True, options=options)
        await transport.open()
        transport.start(OurReceiver(transport, on_message))
        return WebSocketURL.parse(transport.url).port

    async def connect(self, port: int, context: ssl.SSLContext | None, on_message: Callable[[Peer, int], None]) -> Peer:
        options = WebSocketOptions(client_tls=context)
        url = f"{'wss' if context else 'ws'}://127.0.0.1:{port}"
        transport = WebSocketTransport(url, listening=False, options=options)
        await transport.open()
        receiver = OurReceiver(transport, on_message)
        transport.start(receiver)
        return receiver.peer(transport.peer)


# websockets


class WebsocketsPeer(Peer):
    def __init__(self, connection: Any) -> None:
        self.connection = connection

    async def send_many(self, message: bytes, count: int) -> None:
        send = self.connection.send
        for _ in range(count):
            await send(message)

    def send_soon(self, message: bytes) -> None:
        task = asyncio.get_running_loop().create_task(self.connection.send(message))
        task.add_done_callback(lambda task: task.result())

    async def read(self, on_message: Callable[[Peer, int], None]) -> None:
        async for message in self.connection:
            on_message(self, len(message))


class Websockets(Library):
    async def serve(self, context: ssl.SSLContext | None, on_message: Callable[[Peer, int], None]) -> int:
        async def handle(connection: Any) -> None:
            await WebsocketsPeer(connection).read(on_message)

        server = importlib.import_module("websockets.asyncio.server")
        self.server = await server.serve(handle, "127.0.0.1", 0, ssl=context, compression=None, max_size=None)
        return int(next(iter(self.server.sockets)).getsockname()[1])

    async def connect(self, port: int, context: ssl.SSLContext | None, on_message: Callable[[Peer, int], None]) -> Peer:
        url = f"{'wss' if context else 'ws'}://127.0.0.1:{port}"
        client = importlib.import_module("websockets.asyncio.client")
        connection = await client.connect(url, ssl=context, compression=None, max_size=None, proxy=None)
        peer = WebsocketsPeer(connection)
        self.reading = asyncio.create_task(peer.read(on_message))
        return peer


# picows


class Picows(Library):
    def make_listener(self, on_message: Callable[[Peer, int], None]) -> Any:
        base: Any = importlib.import_module("picows").WSListener

        class Listener(base):  # type: ignore[misc]  # it may be missing
            def __init__(self) -> None:
                self.is_writable = asyncio.Event()
                self.is_writable.set()

            def on_ws_connected(self, transport: Any) -> None:
                self.peer = PicowsPeer(transport, self.is_writable)

            def on_ws_frame(self, _: Any, frame: Any) -> None:
                on_message(self.peer, len(frame.get_payload_as_bytes()))

            def pause_writing(self) -> None:
                self.is_writable.clear()

            def resume_writing(self) -> None:
                self.is_writable.set()

        return Listener()

    async def serve(self, context: ssl.SSLContext | None, on_message: Callable[[Peer, int], None]) -> int:
        picows = importlib.import_module("picows")
        self.server = await picows.ws_create_server(
            lambda _: self.make_listener(on_message), "127.0.0.1", 0, ssl=context, max_frame_size=2 * MIB
        )
        return int(self.server.sockets[0].getsockname()[1])

    async def connect(self, port: int, context: ssl.SSLContext | None, on_message: Callable[[Peer, int], None]) -> Peer:
        picows = importlib.import_module("picows")
        url = f"{'wss' if context else 'ws'}://127.0.0.1:{port}"
        _, listener = await picows.ws_connect(
            lambda: self.make_listener(on_message), url, ssl_context=context, max_frame_size=2 * MIB
        )
        peer: Peer = listener.peer
        return peer


class PicowsPeer(Peer):
    def __init__(self, transport: Any, is_writable: asyncio.Event) -> None:
        self.transport = transport
        self.is_writable = is_writable
        self.kind = importlib.import_module("picows").WSMsgType.BINARY

    async def send_many(self, message: bytes, count: int) -> None:
        for _ in range(count):
            if not self.is_writable.is_set():
                await self.is_writable.wait()
            self.transport.send(self.kind, message)

    def send_soon(self, message: bytes) -> None:
        self.transport.send(self.kind, message)


def make_library(name: str) -> Library:
    makers: dict[str, Callable[[], Library]] = {"stt": Ours, "websockets": Websockets, "picows": Picows}
    return makers[name]()


# The two processes


async def run_server(library: str, case: str, folder: Path | None) -> None:
    direction, size, count = CASES[case]
    context = None
    if folder is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    received = 0
    started_at = 0.0
    tasks = set()

    async def send_all(peer: Peer) -> None:
        await peer.send_many(b"x" * size, count)

    def on_message(peer: Peer, _: int) -> None:
        nonlocal received, started_at
        if not received:
            started_at = time.process_time()
        received += 1
        if direction == "echo":
            peer.send_soon(b"x" * size)
        elif direction == "down":
            if received == 1:
                tasks.add(asyncio.create_task(send_all(peer)))
        elif received == count:
            peer.send_soon(b"done")
        if (direction == "down" and received == 2) or (direction != "down" and received == count):
            print(json.dumps(time.process_time() - started_at), flush=True)

    port = await make_library(library).serve(context, on_message)
    print(port, flush=True)
    await asyncio.Event().wait()


async def run_client(library: str, case: str, folder: Path | None, port: int) -> None:
    direction, size, count = CASES[case]
    context = None if folder is None else ssl.create_default_context(cafile=folder / "authority.pem")
    expected = {"up": 1, "down": count, "echo": count}[direction]
    done = asyncio.Event()
    received = 0
    payload = b"x" * size

    def on_message(peer: Peer, _: int) -> None:
        nonlocal received
        received += 1
        if received == expected:
            done.set()
        elif direction == "echo":
            peer.send_soon(payload)

    peer = await make_library(library).connect(port, context, on_message)
    await asyncio.sleep(0.2)
    cpu, wall = time.process_time(), time.perf_counter()
    if direction == "up":
        await peer.send_many(payload, count)
    else:
        peer.send_soon(payload)
    await done.wait()
    wall = time.perf_counter() - wall
    cpu = time.process_time() - cpu
    if direction == "down":
        peer.send_soon(b"done")
        await asyncio.sleep(0.2)
    print(json.dumps({"cpu": cpu, "wall": wall}), flush=True)


def measure(library: str, case: str, folder: Path | None) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.websocket_raw", "--case", case, "--library", library]
    if folder is not None:
        command += ["--folder", str(folder)]
    with subprocess.Popen(
        [*command, "--side", "server"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdout is not None
        try:
            port = server.stdout.readline().strip()
            client = subprocess.run(
                [*command, "--side", "client", "--port", port], check=True, capture_output=True, text=True, timeout=300
            )
            server_cpu = json.loads(server.stdout.readline())
        finally:
            server.terminate()
    result = json.loads(client.stdout)
    return {"server_cpu": server_cpu, "client_cpu": result["cpu"], "wall": result["wall"]}


# The table


def describe(case: str, result: dict[str, float]) -> str:
    direction, size, count = CASES[case]
    cpu = max(result["server_cpu"], result["client_cpu"])
    if direction == "echo":
        both = (result["server_cpu"] + result["client_cpu"]) / count * 1e6
        return f"{both:.0f} us CPU, {result['wall'] / count * 1e6:.0f} us"
    if size < 1024:
        return f"{count / cpu / 1000:.0f}k/s core, {count / result['wall'] / 1000:.0f}k/s"
    return f"{size * count / cpu / 1e6:.0f} MB/s core, {size * count / result['wall'] / 1e6:.0f}"


def masking() -> str:
    return f"masked by {fastest_mask().__qualname__.partition('.')[0].removeprefix('mask_by_')}"


def run(arguments: argparse.Namespace) -> None:
    libraries = [name for name in LIBRARIES if name in arguments.libraries.split(",")]
    for name in list(libraries):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            importlib.metadata.version(LIBRARIES[name])
            continue
        print(f"{name} is not installed: left out")
        libraries.remove(name)
    versions = ", ".join(f"{LIBRARIES[name]} {importlib.metadata.version(LIBRARIES[name])}" for name in libraries)
    tls = "plain" if arguments.plain else ssl.OPENSSL_VERSION
    print(f"Python {platform.python_version()}, {versions}, {masking()}, {tls}\n")
    results: dict[str, dict[str, dict[str, float]]] = {}
    print("| | " + " | ".join(libraries) + " |")
    print("| --- |" + " --- |" * len(libraries))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_certificates(folder)
        for case in CASES:
            if arguments.only and arguments.only not in case:
                continue
            results[case] = {
                library: measure(library, case, None if arguments.plain else folder) for library in libraries
            }
            cells = [describe(case, results[case][library]) for library in libraries]
            print(f"| {case} | " + " | ".join(cells) + " |", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--libraries", default=",".join(LIBRARIES), help="comma list")
    parser.add_argument("--plain", action="store_true", help="without TLS")
    parser.add_argument("--only", help="cases whose name has this in it")
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    parser.add_argument("--side", choices=["server", "client"], help=argparse.SUPPRESS)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--library", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side == "server":
        asyncio.run(run_server(arguments.library, arguments.case, arguments.folder))
    elif arguments.side == "client":
        asyncio.run(run_client(arguments.library, arguments.case, arguments.folder, arguments.port))
    else:
        run(arguments)


if __name__ == "__main__":
    main()
