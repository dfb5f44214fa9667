"""Is UDP on uvloop, which stops to watch a socket that has an error, what it is on asyncio's own loop?"""

from __future__ import annotations

import asyncio
import secrets
import socket
from typing import TYPE_CHECKING, Any

import pytest

from stt_core import STTNode
from stt_core.interfaces.transport import Train
from stt_udp import UDPTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from stt_core.interfaces.endpoint import EndpointRequest
    from stt_core.interfaces.transport import Address, Buffer

uvloop = pytest.importorskip("uvloop")
PATIENCE = 20  # seconds, for what takes milliseconds


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(main(), PATIENCE))


def gone() -> Address:
    """An address that nobody listens at."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        address: Address = sock.getsockname()
        return address


class Heard(asyncio.Queue[bytes]):
    """What a transport delivered."""

    def messages_received(self, messages: Sequence[tuple[Buffer, Address]]) -> None:
        for data, _ in messages:
            self.put_nowait(bytes(data))

    def peer_unreachable(self, address: Address, reason: str) -> None: ...

    def writable(self) -> None: ...

    def failed(self, reason: str) -> None:
        raise AssertionError(reason)


def test_a_peer_that_is_gone_does_not_make_a_socket_deaf() -> None:
    async def main() -> None:
        listener = UDPTransport("udp://127.0.0.1:0", listening=True)
        await listener.open()
        heard = Heard()
        listener.start(heard)
        dialler = UDPTransport(listener.url, listening=False)
        await dialler.open()
        try:
            for word in (b"one", b"two"):
                await dialler.send(word, dialler.peer)
                assert await heard.get() == word
                listener.send_train(Train(b"lost", 4), gone())
        finally:
            await dialler.close()
            await listener.close()

    run(main)


def test_nodes_connect_all_at_once_and_one_after_another() -> None:
    async def main() -> None:
        shared_seed = secrets.token_bytes(32)
        server = STTNode(node_seed=secrets.token_bytes(32), shared_seed=shared_seed)

        async def echo(request: EndpointRequest) -> bytes:
            return request.body

        server.endpoints.register("echo", echo)
        (url,) = await server.listen("udp://127.0.0.1:0")

        async def visit(number: int) -> None:
            async with STTNode(node_seed=secrets.token_bytes(32), shared_seed=shared_seed) as client:
                session = await client.connect(url)
                assert await session.request("echo", b"%d" % number) == b"%d" % number

        try:
            # Each that leaves closes its port, to which the server still sends.
            for _ in range(3):
                await asyncio.gather(*map(visit, range(20)))
        finally:
            await server.stop()

    run(main)
