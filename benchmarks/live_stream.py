"""How late the segments of a live stream come over a link that loses datagrams, beside one ordered stream.

    python -m benchmarks.live_stream --loss 2 --delay 25

A publisher and a subscriber in one process, with the relay of `benchmarks.impairment` between them in another. Each
segment holds the time at which it was published; the subscriber notes when it has it, in order. "one stream" sends the
same segments over a single reliable stream, as a file would go.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import struct
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from stt_core import STTNode, generate_seed
from stt_streaming.decoder import BinaryStreamDecoder
from stt_streaming.encoder import BinaryStreamEncoder
from stt_streaming.live.publisher import LivePublisher
from stt_streaming.live.subscriber import LiveSubscriber

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from stt_core import STTSession

STAMP = struct.Struct(">d")


async def ticks(arguments: argparse.Namespace) -> AsyncIterator[bytes]:
    """Yield the segments, each when it is due."""
    padding = bytes(arguments.size - STAMP.size)
    started_at = time.monotonic()
    for number in range(arguments.rate * arguments.seconds):
        await asyncio.sleep(max(started_at + number / arguments.rate - time.monotonic(), 0))
        yield STAMP.pack(time.monotonic()) + padding


def latency(segment: bytes) -> float:
    (published_at,) = STAMP.unpack_from(segment)
    return time.monotonic() - float(published_at)


async def measure_live(here: STTSession, there: STTSession, arguments: argparse.Namespace) -> None:
    publisher, subscriber = LivePublisher(arguments.deadline), LiveSubscriber(there)
    serving = asyncio.create_task(publisher.serve(here))
    latencies: list[float] = []

    async def watch() -> None:
        async for segment in subscriber.segments():
            latencies.append(latency(segment.data))  # noqa: PERF401  at the time

    watching = asyncio.create_task(watch())
    while not publisher.subscribers:  # noqa: ASYNC110  nothing tells but looking
        await asyncio.sleep(0.01)
    async for segment in ticks(arguments):
        publisher.publish(segment)
    publisher.end()
    await watching
    await serving
    report("live", latencies, subscriber.lost)


async def measure_one_stream(here: STTSession, there: STTSession, arguments: argparse.Namespace) -> None:
    stream = await here.open_stream()
    sending = asyncio.create_task(BinaryStreamEncoder(stream=stream, live=True).transmit(ticks(arguments)))
    received = await there.accept_stream()
    latencies = [latency(data) async for data in BinaryStreamDecoder(stream=received).receive()]
    await sending
    report("one stream", latencies, 0)


def report(name: str, latencies: list[float], lost: int) -> None:
    cuts = statistics.quantiles(latencies, n=1000, method="inclusive")
    p50, p95, p99, p999 = (1e3 * cuts[place - 1] for place in (500, 950, 990, 999))
    print(
        f"{name}: {len(latencies)} segments, {lost} lost; latency in ms: "
        f"p50 {p50:.1f}, p95 {p95:.1f}, p99 {p99:.1f}, p99.9 {p999:.1f}, most {1e3 * max(latencies):.1f}"
    )


async def measure(arguments: argparse.Namespace) -> None:
    shared = generate_seed()
    for measure_one in (measure_live, measure_one_stream):
        here, there = (STTNode(node_seed=generate_seed(), shared_seed=shared) for _ in range(2))
        async with here, there:
            [url] = await here.listen("udp://127.0.0.1:0")
            relay = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "benchmarks.impairment", url.removeprefix("udp://")),
                *("--loss", str(arguments.loss), "--delay", str(arguments.delay), "--rate", str(arguments.link)),
                stdout=subprocess.PIPE,
            )
            try:
                assert relay.stdout is not None
                port = int(await relay.stdout.readline())
                session = await there.connect(f"udp://127.0.0.1:{port}")
                await measure_one(await anext(here.sessions()), session, arguments)
            finally:
                relay.kill()
                await relay.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=60, help="segments a second")
    parser.add_argument("--size", type=int, default=8192, help="bytes of a segment: 60 of 8 KiB are 4 Mbit/s")
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--deadline", type=float, default=0.5, help="seconds")
    parser.add_argument("--loss", type=float, default=2.0, help="per cent, each way")
    parser.add_argument("--link", type=float, default=200.0, help="Mbit/s that the link carries")
    parser.add_argument("--delay", type=float, default=25.0, help="ms, one way")
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
