"""What the UDP socket path costs by itself: two processes on loopback, no protocol and no encryption on it.

    python benchmarks/udp_socket.py --megabytes 1000

A receiver counts and acknowledges, a sender keeps a window full; both tell the processor time they took. "plain" is the
same code where the kernel neither cuts nor joins trains.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import socket
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

from stt_core.interfaces.transport import Address, Buffer, Train
from stt_udp import UDPTransport
from stt_udp.options import UDP_GRO, UDP_SEGMENT

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from multiprocessing.connection import Connection

WINDOW = 1024 * 1024
ACKNOWLEDGE_AFTER = 128 * 1024
TRAIN_SIZE = 65_507
PINGS = 5000


class PlainSocket(socket.socket):
    """A socket of a kernel that knows no trains."""

    def setsockopt(self, level: int, option: int, *value: Any) -> None:
        if level == socket.IPPROTO_UDP and option in (UDP_SEGMENT, UDP_GRO):
            raise OSError("not in this kernel")
        super().setsockopt(level, option, *value)


class Counter:
    """Counts what comes, answers with the count, and answers single bytes at once."""

    def __init__(self, transport: UDPTransport, total: int) -> None:
        self.transport = transport
        self.total = total
        self.received = self.messages = self.acknowledged = 0
        self.started_at = 0.0
        self.cpu = 0.0
        self.done = asyncio.Event()

    def messages_received(self, messages: Sequence[tuple[Buffer, Address]]) -> None:
        if not self.received:
            self.started_at = time.process_time()
        for data, _ in messages:
            self.received += len(data)
        self.messages += len(messages)
        if self.received - self.acknowledged >= ACKNOWLEDGE_AFTER or self.received >= self.total:
            self.acknowledged = self.received
            self.transport.send_train(Train(self.received.to_bytes(8, "big"), 8), messages[0][1])
        if self.received >= self.total:
            self.cpu = time.process_time() - self.started_at
            self.done.set()

    def peer_unreachable(self, address: Address, reason: str) -> None: ...
    def writable(self) -> None: ...
    def failed(self, reason: str) -> None: ...


class Source:
    """Keeps a window of trains under way."""

    def __init__(self, transport: UDPTransport, total: int, segment_size: int) -> None:
        self.transport = transport
        self.total = total
        self.train = Train(bytes(TRAIN_SIZE // segment_size * segment_size), segment_size)
        self.sent = self.acknowledged = 0
        self.done = asyncio.Event()

    def fill(self) -> None:
        while self.sent < self.total and self.sent - self.acknowledged < WINDOW:
            if not self.transport.send_train(self.train, self.transport.peer):
                return
            self.sent += len(self.train.data)

    def messages_received(self, messages: Sequence[tuple[Buffer, Address]]) -> None:
        self.acknowledged = int.from_bytes(messages[-1][0], "big")
        if self.acknowledged >= self.total:
            self.done.set()
        self.fill()

    def peer_unreachable(self, address: Address, reason: str) -> None: ...
    def writable(self) -> None:
        self.fill()

    def failed(self, reason: str) -> None: ...


async def receive(pipe: Connection, total: int) -> None:
    transport = UDPTransport("udp://127.0.0.1:0", listening=True)
    await transport.open()
    pipe.send(transport.url)
    for _ in range(PINGS):
        data, address = await transport.receive()
        await transport.send(data, address)
    counter = Counter(transport, total)
    transport.start(counter)
    await counter.done.wait()
    pipe.send((counter.cpu, counter.received, counter.messages, transport.statistics()))
    await transport.close()


async def send(pipe: Connection, total: int, segment_size: int) -> str:
    transport = UDPTransport(pipe.recv(), listening=False)
    await transport.open()
    started_at, cpu_at = time.perf_counter(), time.process_time()
    for _ in range(PINGS):
        await transport.send(b"p" * 64, transport.peer)
        await transport.receive()
    trip, trip_cpu = time.perf_counter() - started_at, time.process_time() - cpu_at
    source = Source(transport, total, segment_size)
    transport.start(source)
    started_at, cpu_at = time.perf_counter(), time.process_time()
    source.fill()
    await asyncio.wait_for(source.done.wait(), 120)
    wall, cpu = time.perf_counter() - started_at, time.process_time() - cpu_at
    receiver_cpu, received, messages, statistics = pipe.recv()
    await transport.close()
    gigabytes = received / 1e9
    return (
        f"{segment_size:6} {received / wall / 1e6:8.0f} {cpu / gigabytes:10.2f} {receiver_cpu / gigabytes:10.2f}"
        f" {cpu / messages * 1e6:10.2f} {receiver_cpu / messages * 1e6:10.2f}"
        f" {received / max(cpu, receiver_cpu) / 1e6:9.0f} {trip / PINGS * 1e6:9.1f} {trip_cpu / PINGS * 1e6:9.1f}"
        f"  {'trains' if statistics.coalescing else 'plain'}, {statistics.receive_overflows} overflows"
    )


def run(coroutine: Coroutine[Any, Any, Any], *, plain: bool, loop: str) -> Any:
    if plain:
        socket.socket = PlainSocket  # type: ignore[misc]  # for the transport, which makes its own
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if loop == "uvloop":
        factory = import_module("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(coroutine)


def receiver_process(pipe: Connection, total: int, *, plain: bool, loop: str) -> None:
    run(receive(pipe, total), plain=plain, loop=loop)


def sender_process(pipe: Connection, total: int, segment_size: int, *, plain: bool, loop: str) -> None:
    print(run(send(pipe, total, segment_size), plain=plain, loop=loop), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--segment-sizes", type=int, nargs="+", default=[1200, 1472, 8900, 65_507])
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    arguments = parser.parse_args()
    print("  size     MB/s  send s/GB  recv s/GB  send us/m  recv us/m MB/s core   ping us   its cpu")
    for plain in (False, True):
        for segment_size in arguments.segment_sizes:
            total = arguments.megabytes * 1_000_000 // (4 if plain else 1)
            here, there = multiprocessing.Pipe()
            how = {"plain": plain, "loop": arguments.loop}
            receiver = multiprocessing.Process(target=receiver_process, args=(there, total), kwargs=how)
            sender = multiprocessing.Process(target=sender_process, args=(here, total, segment_size), kwargs=how)
            receiver.start()
            sender.start()
            sender.join()
            receiver.join(5)
            if receiver.is_alive():
                receiver.terminate()


if __name__ == "__main__":
    main()
