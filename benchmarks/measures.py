"""What is measured: each measure is one function of the connecting end, the same for every peer."""

from __future__ import annotations

import asyncio
import hashlib
import random
import statistics
import time
from typing import TYPE_CHECKING, Final, TypeAlias

from benchmarks.serving import (
    ANSWER_SIZE,
    PING,
    REQUEST_SIZE,
    SHORT_STREAM,
    SHORT_STREAM_SIZE,
    ask,
    decode_answer,
    encode_request,
    resident_size,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks.peers.base import Channel, Connection, Peer

Figures: TypeAlias = dict[str, float]
Measure: TypeAlias = "Callable[[Peer, str, Limits], Awaitable[Figures]]"

BULK_CHUNK: Final = 256 * 1024
MESSAGE: Final = b"m" * 64
AT_ONCE: Final = 50
STREAMS_AT_ONCE: Final = 16
HOSTILE_SIZE: Final = 3_000_000
_FIRST_BLOCK: Final = 256 * 1024
_WARM_UP_SESSIONS: Final = 20
_DATAGRAM_INTERVAL: Final = 0.002  # seconds
_DATAGRAM_PATIENCE: Final = 1.0  # seconds after which a datagram counts as lost
_CALIBRATION: Final = 0.1  # of a run's seconds that a block must last to tell the rate


class Limits:
    """How long a run may take: measures are bound by time, so that slow peers and fast ones take the same.

    Args:
        seconds: For the measured part.
        sessions: That :func:`idle` opens at the most.
        settle: Seconds that idle sessions are left alone before their memory is read.
    """

    def __init__(self, seconds: float, sessions: int = 1000, settle: float = 2.0) -> None:
        self.seconds = seconds
        self.sessions = sessions
        self.settle = settle

    @property
    def opening_time(self) -> float:
        """Seconds after which :func:`idle` opens no more sessions."""
        return max(12 * self.seconds, self.sessions / 200)


# Rates of one channel


async def bulk(peer: Peer, address: str, limits: Limits) -> Figures:
    """Send blocks, each four times the last, until one lasts long enough to size the block that counts."""
    connection = await peer.connect(address)
    figures = await _measure_rate(await connection.open_channel(), random.randbytes(BULK_CHUNK), limits.seconds)
    result = {
        "core": figures["size"] / max(figures["sender_cpu"], figures["receiver_cpu"]) / 1e6,
        "wall": figures["size"] / figures["wall"] / 1e6,
        "sender_cpu": figures["sender_cpu"] / figures["size"] * 1e9,
        "receiver_cpu": figures["receiver_cpu"] / figures["size"] * 1e9,
        "size": figures["size"],
    } | connection.describe()
    await connection.close()
    return result


async def messages(peer: Peer, address: str, limits: Limits) -> Figures:
    """As bulk, in messages of 64 bytes, each sent by a call of its own."""
    connection = await peer.connect(address)
    figures = await _measure_rate(await connection.open_channel(), MESSAGE, limits.seconds)
    count = figures["size"] / len(MESSAGE)
    await connection.close()
    return {
        "core": count / max(figures["sender_cpu"], figures["receiver_cpu"]),
        "wall": count / figures["wall"],
        "count": count,
    }


async def round_trip(peer: Peer, address: str, limits: Limits) -> Figures:
    """Send 64 bytes and wait for them, again and again."""
    connection = await peer.connect(address)
    channel = await connection.open_channel()
    await _ping_for(channel, limits.seconds * _CALIBRATION)
    before = await ask(channel, "usage")
    cpu_at = time.process_time()
    times = await _ping_for(channel, limits.seconds)
    cpu = time.process_time() - cpu_at
    after = await ask(channel, "usage")
    await connection.close()
    peer_cpu = 0.0 if peer.in_one_process else after["cpu"] - before["cpu"]
    return {
        "cpu": (cpu + peer_cpu) / len(times) * 1e6,
        "p50": statistics.median(times) * 1e6,
        "p99": statistics.quantiles(times, n=100)[98] * 1e6,
        "count": len(times),
    }


# Rates of connections and streams


async def handshakes(peer: Peer, address: str, limits: Limits) -> Figures:
    return await _handshakes(peer, address, limits.seconds, 1)


async def handshakes_at_once(peer: Peer, address: str, limits: Limits) -> Figures:
    return await _handshakes(peer, address, limits.seconds, AT_ONCE)


async def streams(peer: Peer, address: str, limits: Limits) -> Figures:
    """Open a stream, send 1 KiB, get 1 KiB back, see its end; 16 at a time."""
    connection = await peer.connect(address)

    async def use_one() -> None:
        channel = await connection.open_channel()
        await channel.send(SHORT_STREAM)
        channel.end()
        await channel.receive_exactly(SHORT_STREAM_SIZE)
        if await channel.receive():
            raise EOFError("more came than was sent")

    control = await connection.open_channel()
    await _ping(control)
    figures = await _repeat(use_one, control, peer, limits.seconds, STREAMS_AT_ONCE)
    await connection.close()
    return figures


# Datagrams


async def datagrams(peer: Peer, address: str, limits: Limits) -> Figures:
    """Send a datagram every few milliseconds and wait for it; see how long that takes."""
    connection = await peer.connect(address)
    figures = await _echo_datagrams(connection, limits.seconds)
    await connection.close()
    return figures


async def datagrams_beside_bulk(peer: Peer, address: str, limits: Limits) -> Figures:
    """As :func:`datagrams`, while a channel of the same connection sends as fast as it can."""
    connection = await peer.connect(address)
    channel = await connection.open_channel()
    await channel.send(encode_request("discard", 1 << 50))
    await channel.receive_exactly(REQUEST_SIZE)
    bulk_sender = asyncio.ensure_future(channel.send_many(bytes(BULK_CHUNK), 1 << 32))
    await asyncio.sleep(limits.seconds * _CALIBRATION)
    figures = await _echo_datagrams(connection, limits.seconds)
    bulk_sender.cancel()
    await asyncio.wait([bulk_sender])
    await connection.close()
    return figures


# Memory


async def idle(peer: Peer, address: str, limits: Limits) -> Figures:
    """Open many sessions, use each once, leave them alone, and see what both ends have grown by for each."""
    connections: list[Connection] = []
    channels: list[Channel] = []
    until = float("inf")

    async def open_some(count: int) -> None:
        while len(connections) < count and time.perf_counter() < until:
            connection = await peer.connect(address)
            connections.append(connection)
            channel = await connection.open_channel()
            await _ping(channel)
            if peer.has_streams:
                channel.end()
                await channel.receive()
            else:
                channels.append(channel)

    await open_some(_WARM_UP_SESSIONS)
    control = await connections[0].open_channel()
    await _ping(control)
    await asyncio.sleep(limits.settle)
    before, here_before = (await ask(control, "memory"))["resident"], resident_size()
    started_at = time.perf_counter()
    until = started_at + limits.opening_time
    total = limits.sessions + _WARM_UP_SESSIONS
    await asyncio.gather(*(open_some(total) for _ in range(AT_ONCE)))
    opened = len(connections) - _WARM_UP_SESSIONS
    took = time.perf_counter() - started_at
    await asyncio.sleep(limits.settle)
    after, here_after = (await ask(control, "memory"))["resident"], resident_size()
    rest_at = await ask(control, "usage")
    cpu_at, started_at = time.process_time(), time.perf_counter()
    await asyncio.sleep(limits.settle)
    idle_cpu = time.process_time() - cpu_at + (await ask(control, "usage"))["cpu"] - rest_at["cpu"]
    idle_cpu /= time.perf_counter() - started_at
    times = await _ping_for(control, min(limits.seconds, 0.5))
    ends = 2 if peer.in_one_process else 1
    return {
        "accepting": (after - before) / opened / 1024 / ends,
        "connecting": (here_after - here_before) / opened / 1024 / ends,
        "sessions": opened,
        "opened_per_second": opened / took,
        "idle_cpu": idle_cpu * 100,
        "p50": statistics.median(times) * 1e6,
        "p99": statistics.quantiles(times, n=100)[98] * 1e6,
    }


# Over an impaired link


async def link_loss(peer: Peer, address: str, limits: Limits) -> Figures:
    """As bulk; the last block counts, so that what a controller does at first does not."""
    connection = await peer.connect(address)
    data = random.randbytes(BULK_CHUNK)
    figures = await _measure_rate(await connection.open_channel(), data, 8 * limits.seconds)
    result = {"wall": figures["size"] / figures["wall"] / 1e6, "size": figures["size"]} | connection.describe()
    await connection.close()
    return result


async def link_hostile(peer: Peer, address: str, _: Limits) -> Figures:
    """Send 3 MB at once over a link that also moves the sender to other ports; they must come whole."""
    data = random.Random(0).randbytes(HOSTILE_SIZE)
    connection = await peer.connect(address)
    channel = await connection.open_channel()
    await channel.send(encode_request("hash", HOSTILE_SIZE))
    await channel.receive_exactly(REQUEST_SIZE)
    await channel.send(data)
    figures = decode_answer(await channel.receive_exactly(ANSWER_SIZE))
    if figures["digest"] != hashlib.sha256(data).hexdigest():
        raise ValueError("what came is not what was sent")
    result = {
        "rate": HOSTILE_SIZE * 8 / figures["wall"] / 1e6,
        "wall": figures["wall"],
    } | connection.describe()
    await connection.close()
    return result


MEASURES: Final[dict[str, Measure]] = {
    "bulk": bulk,
    "round-trip": round_trip,
    "messages": messages,
    "handshakes": handshakes,
    "handshakes-50": handshakes_at_once,
    "streams": streams,
    "datagrams": datagrams,
    "datagrams-beside-bulk": datagrams_beside_bulk,
    "idle": idle,
    "idle-10000": idle,
    "link-loss": link_loss,
    "link-hostile": link_hostile,
}


# Internals


async def _measure_rate(channel: Channel, data: bytes, seconds: float) -> dict[str, float]:
    count = max(1, _FIRST_BLOCK // len(data))
    while True:
        figures = await _transfer(channel, data, count)
        if figures["wall"] >= seconds * _CALIBRATION:
            break
        count *= 4
    count = max(count, round(count * seconds / figures["wall"]))
    return await _transfer(channel, data, count)


async def _transfer(channel: Channel, data: bytes, count: int) -> dict[str, float]:
    size = len(data) * count
    await channel.send(encode_request("discard", size))
    await channel.receive_exactly(REQUEST_SIZE)
    cpu_at = time.process_time()
    await channel.send_many(data, count)
    answer = decode_answer(await channel.receive_exactly(ANSWER_SIZE))
    sender_cpu = time.process_time() - cpu_at
    return {"size": size, "wall": answer["wall"], "receiver_cpu": answer["cpu"], "sender_cpu": sender_cpu}


async def _ping(channel: Channel) -> None:
    await channel.send(PING)
    await channel.receive_exactly(REQUEST_SIZE)


async def _ping_for(channel: Channel, seconds: float) -> list[float]:
    clock = time.perf_counter
    times: list[float] = []
    now = clock()
    until = now + seconds
    while now < until or len(times) < 2:
        await _ping(channel)
        before, now = now, clock()
        times.append(now - before)
    return times


async def _echo_datagrams(connection: Connection, seconds: float) -> Figures:
    times: list[float] = []
    lost = 0
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(times) < 2:
        sent_at = time.perf_counter()
        try:
            await asyncio.wait_for(connection.echo_datagram(encode_request(str(sent_at))), _DATAGRAM_PATIENCE)
        except TimeoutError:
            lost += 1
        else:
            times.append(time.perf_counter() - sent_at)
        await asyncio.sleep(_DATAGRAM_INTERVAL)
    return {
        "p50": statistics.median(times) * 1e6,
        "p99": statistics.quantiles(times, n=100)[98] * 1e6,
        "count": len(times),
        "lost": lost,
    }


async def _handshakes(peer: Peer, address: str, seconds: float, at_once: int) -> Figures:
    """Connect, send 64 bytes, get them back, close."""

    async def connect_once() -> None:
        connection = await peer.connect(address)
        await _ping(await connection.open_channel())
        await connection.close()

    control = await peer.connect(address)
    channel = await control.open_channel()
    await _ping(channel)
    figures = await _repeat(connect_once, channel, peer, seconds, at_once)
    await control.close()
    return figures


async def _repeat(
    work: Callable[[], Awaitable[None]], control: Channel, peer: Peer, seconds: float, at_once: int
) -> Figures:
    """Do the same over and over, several at a time; return how often a second, and what each cost both ends."""
    done = 0
    until = time.perf_counter() + seconds * _CALIBRATION

    async def go_on() -> None:
        nonlocal done
        while time.perf_counter() < until:
            await work()
            done += 1

    await asyncio.gather(*(go_on() for _ in range(at_once)))
    before = await ask(control, "usage")
    cpu_at, started_at, done = time.process_time(), time.perf_counter(), 0
    until = started_at + seconds
    await asyncio.gather(*(go_on() for _ in range(at_once)))
    wall, cpu = time.perf_counter() - started_at, time.process_time() - cpu_at
    after = await ask(control, "usage")
    peer_cpu = 0.0 if peer.in_one_process else after["cpu"] - before["cpu"]
    return {"rate": done / wall, "cpu": (cpu + peer_cpu) / done * 1e6, "count": done}
