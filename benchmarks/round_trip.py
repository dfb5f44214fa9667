"""Where the processor time of a round trip of 64 bytes goes, both ends in one process and one event loop.

    python -m benchmarks.round_trip

The UDP transport by itself, with a task at each end that waits and answers; the state machines of the protocol by
themselves, with nothing but function calls between them; and two nodes, which are both of these and what joins them.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import TYPE_CHECKING, Final

from stt_core import STTNode
from stt_core.defaults.bbr import BBR
from stt_core.interfaces.transport import Train
from stt_core.testing.sessions import session_pair
from stt_core.wire.frame import split_frames
from stt_udp import UDPTransport

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from stt_core.engine.paths import PathKey
    from stt_core.engine.session import Session
    from stt_core.interfaces.transport import Address, Buffer

_DATA: Final = bytes(64)
_WARM_UP: Final = 500
_ROUNDS: Final = 5
_STEP: Final = 0.0005  # seconds of the state machines' clock, half a round trip


class _Mailbox(asyncio.Queue[tuple[bytes, "Address"]]):
    """What a transport delivered."""

    def messages_received(self, messages: Sequence[tuple[Buffer, Address]]) -> None:
        for data, address in messages:
            self.put_nowait((bytes(data), address))

    def peer_unreachable(self, address: Address, reason: str) -> None: ...
    def writable(self) -> None: ...
    def failed(self, reason: str) -> None: ...


async def _best(turn: Callable[[], Awaitable[None]], count: int) -> float:
    """Return the microseconds of processor time that a turn takes, in the fastest of some rounds."""
    for _ in range(_WARM_UP):
        await turn()
    best = float("inf")
    for _ in range(_ROUNDS):
        started_at = time.process_time()
        for _ in range(count):
            await turn()
        best = min(best, time.process_time() - started_at)
    return best / count * 1e6


async def measure_transport(count: int) -> float:
    """Return the microseconds of a round trip of two UDP transports."""
    listener = UDPTransport("udp://127.0.0.1:0", listening=True)
    await listener.open()
    dialler = UDPTransport(listener.url, listening=False)
    await dialler.open()
    near, far = _Mailbox(), _Mailbox()
    listener.start(far)
    dialler.start(near)

    async def answer() -> None:
        while True:
            data, address = await far.get()
            listener.send_train(Train(data, len(data)), address)

    async def turn() -> None:
        dialler.send_train(Train(_DATA, len(_DATA)), dialler.peer)
        await near.get()

    answering = asyncio.create_task(answer())
    try:
        return await _best(turn, count)
    finally:
        answering.cancel()
        await dialler.close()
        await listener.close()


async def measure_engine(count: int) -> float:
    """Return the microseconds of a round trip of two sessions, without sockets, tasks and nodes."""
    near, far = session_pair(controller=BBR)
    now = 0.0
    stream_id = near.open_stream()
    assert stream_id is not None

    def carry(sender: Session, receiver: Session, path: PathKey) -> None:
        sender.write(stream_id, _DATA)
        for _, train in sender.trains_to_send(now):
            for datagram in train.segments():
                receiver.receive_frames(split_frames(datagram), path, len(datagram), now)
        sender.next_timeout()
        sender.events()
        if receiver.read(stream_id, len(_DATA)) != _DATA:
            raise AssertionError("the message did not arrive at once")
        receiver.events()

    async def turn() -> None:
        nonlocal now
        for ends in ((near, far, far.path), (far, near, near.path)):
            now += _STEP
            carry(*ends)

    return await _best(turn, count)


async def measure_nodes(count: int) -> float:
    """Return the microseconds of a round trip of two nodes over UDP."""
    shared_seed = b"the shared seed of this benchmark"
    async with (
        STTNode(node_seed=b"one end of it".ljust(32), shared_seed=shared_seed) as server,
        STTNode(node_seed=b"the other end".ljust(32), shared_seed=shared_seed) as client,
    ):
        (url,) = await server.listen("udp://127.0.0.1:0")
        stream = await (await client.connect(url)).open_stream()

        async def answer() -> None:
            async for session in server.sessions():
                far = await session.accept_stream()
                while data := await far.receive():
                    await far.send(data)

        async def turn() -> None:
            await stream.send(_DATA)
            await stream.receive_exactly(len(_DATA))

        answering = asyncio.create_task(answer())
        try:
            return await _best(turn, count)
        finally:
            answering.cancel()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=4000, help="round trips of a round, of which there are five")
    count = parser.parse_args().count
    print("µs of processor time of a round trip, both ends")
    for name, measure in (
        ("UDP transport", measure_transport),
        ("state machines", measure_engine),
        ("nodes over UDP", measure_nodes),
    ):
        print(f"{name:16}{asyncio.run(measure(count)):8.1f}")


if __name__ == "__main__":
    main()
