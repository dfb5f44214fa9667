"""asyncssh: forwarded connections, its leanest channels; only the server proves itself, by its key."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmarks.peers.base import Channel, Connection, OnChannel, Options, Peer, split_address

if TYPE_CHECKING:
    from collections.abc import Callable

_READ_SIZE = 1024 * 1024
_WINDOW = 4 * 1024 * 1024


class AsyncsshChannel(Channel):
    def __init__(self, reader: Any, writer: Any) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def receive(self) -> bytes:
        return bytes(await self.reader.read(_READ_SIZE))

    def end(self) -> None:
        self.writer.write_eof()


class AsyncsshConnection(Connection):
    def __init__(self, connection: Any) -> None:
        self.connection = connection

    async def open_channel(self) -> Channel:
        return AsyncsshChannel(*await self.connection.open_connection("benchmark", 1, encoding=None, window=_WINDOW))

    async def close(self) -> None:
        self.connection.close()


class AsyncsshPeer(Peer):
    has_streams = True

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.asyncssh = import_module("asyncssh")

    async def serve(self, on_channel: OnChannel, announce: Callable[[str], None]) -> None:
        asyncssh = self.asyncssh

        async def handle(reader: Any, writer: Any) -> None:
            await on_channel(AsyncsshChannel(reader, writer))
            writer.close()

        class Server(import_module("asyncssh").SSHServer):  # type: ignore[misc]  # it may be missing
            def begin_auth(self, _: str) -> bool:
                return False

            def connection_requested(self, *_: Any) -> Any:
                return channel_of(self.connection), handle

            def connection_made(self, connection: Any) -> None:
                self.connection = connection

        def channel_of(connection: Any) -> Any:
            return connection.create_tcp_channel(encoding=None, window=_WINDOW)

        key = asyncssh.generate_private_key("ssh-ed25519")
        server = await asyncssh.listen(
            "127.0.0.1", 0, server_factory=Server, server_host_keys=[key], backlog=1024, keepalive_interval=0
        )
        public = key.export_public_key().decode().split()[1]
        announce(f"{public} 127.0.0.1:{server.get_port()}")
        await server.wait_closed()

    async def connect(self, address: str) -> Connection:
        asyncssh = self.asyncssh
        public, _, address = address.partition(" ")
        host, port = split_address(address)
        known = asyncssh.import_public_key(f"ssh-ed25519 {public}")
        return AsyncsshConnection(
            await asyncssh.connect(
                host, port, known_hosts=([known], [], []), username="benchmark", config=None, client_keys=None
            )
        )
