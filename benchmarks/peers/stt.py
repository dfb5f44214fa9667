"""STT itself: a node, sessions and streams, as an application uses them."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

from benchmarks.peers.base import Channel, Connection, OnChannel, Options, Peer
from stt_core import SessionClosed, STTConfig, STTNode

if TYPE_CHECKING:
    from collections.abc import Callable

    from stt_core import STTSession, STTStream

_SHARED_SEED: Final = b"the benchmarks' shared seed 0123"
_READ_SIZE = 1024 * 1024


class STTChannel(Channel):
    def __init__(self, stream: STTStream) -> None:
        self.stream = stream

    async def send(self, data: bytes) -> None:
        await self.stream.send(data)

    async def send_many(self, data: bytes, count: int) -> None:
        send = self.stream.send
        for _ in range(count):
            await send(data)

    async def receive(self) -> bytes:
        try:
            return await self.stream.receive(_READ_SIZE)
        except SessionClosed:
            return b""

    def end(self) -> None:
        self.stream.end()


class STTConnection(Connection):
    def __init__(self, session: STTSession) -> None:
        self.session = session

    async def open_channel(self) -> Channel:
        return STTChannel(await self.session.open_stream())

    async def close(self) -> None:
        self.session.close()

    async def echo_datagram(self, data: bytes) -> None:
        self.session.send_datagram(data)
        while await self.session.receive_datagram() != data:
            pass  # an earlier one, which came too late

    def describe(self) -> dict[str, float]:
        statistics = self.session.get_statistics()
        return {
            "datagram_size": statistics.datagram_size,
            "frames_sent": statistics.frames_sent,
            "frames_lost": statistics.frames_lost,
        }


class STTPeer(Peer):
    has_streams = True
    has_datagrams = True

    def __init__(self, options: Options, scheme: str, max_datagram_size: int = 65_507) -> None:
        super().__init__(options)
        self.url = f"{scheme}://127.0.0.1:0"
        controller: dict[str, Any] = {"congestion_controller": options.controller} if options.controller else {}
        self.config = STTConfig(
            max_datagram_size=max_datagram_size,
            max_sessions_per_peer=100_000,  # all clients are one node
            idle_timeout=600.0,
            **controller,
        )
        self.node: STTNode | None = None

    def make_node(self, node_seed: bytes) -> STTNode:
        return STTNode(node_seed=node_seed, shared_seed=_SHARED_SEED, config=self.config)

    async def serve(self, on_channel: OnChannel, announce: Callable[[str], None]) -> None:
        tasks = set()

        async def handle(session: STTSession) -> None:
            channels = set()
            async for stream in session.streams():
                channel = asyncio.ensure_future(on_channel(STTChannel(stream)))
                channels.add(channel)
                channel.add_done_callback(channels.discard)
                del stream, channel  # neither is part of an idle session

        async def echo_datagrams(session: STTSession) -> None:
            with contextlib.suppress(SessionClosed):
                while True:
                    session.send_datagram(await session.receive_datagram())

        async with self.make_node(b"server" * 6) as node:
            [url] = await node.listen(self.url)
            announce(url)
            async for session in node.sessions():
                work = [handle(session)]
                if self.options.measure.startswith("datagrams"):
                    work.append(echo_datagrams(session))
                for each in work:
                    task = asyncio.create_task(each)
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)

    async def connect(self, address: str) -> Connection:
        if self.node is None:
            self.node = self.make_node(b"client" * 6)
        return STTConnection(await self.node.connect(address))


class MemoryPeer(STTPeer):
    """Both ends are in one process: what the protocol costs without a kernel below it."""

    in_one_process = True

    def __init__(self, options: Options) -> None:
        super().__init__(options, "memory")
        self.url = "memory://benchmark"
