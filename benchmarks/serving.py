"""What the accepting end does with a channel: it answers pings, counts, hashes, and says what it used."""

from __future__ import annotations

import gc
import hashlib
import json
import resource
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.peers.base import Channel

REQUEST_SIZE = 64
ANSWER_SIZE = 256
SHORT_STREAM_SIZE = 1024

PING = b"p".ljust(REQUEST_SIZE)
SHORT_STREAM = b"s".ljust(SHORT_STREAM_SIZE)
_PING, _SHORT_STREAM = PING[0], SHORT_STREAM[0]
_PAGE_SIZE = resource.getpagesize()


async def serve_channel(channel: Channel) -> None:
    """Answer until the channel ends; each request is answered before the next one comes."""
    while True:
        request = await channel.receive()
        if not request:
            break
        if request[0] == _SHORT_STREAM:
            size = SHORT_STREAM_SIZE - len(request)
            if size:
                request += await channel.receive_exactly(size)
            await channel.send(request)
            break
        if len(request) < REQUEST_SIZE:
            request += await channel.receive_exactly(REQUEST_SIZE - len(request))
        if request[0] == _PING:
            await channel.send(request)
        else:
            await _obey(channel, json.loads(request))
    channel.end()


async def ask(channel: Channel, what: str, size: int = 0) -> dict[str, float]:
    """Send a request that is not followed by data, and return its answer."""
    await channel.send(encode_request(what, size))
    return decode_answer(await channel.receive_exactly(ANSWER_SIZE))


def encode_request(what: str, size: int = 0) -> bytes:
    return json.dumps([what, size]).encode().ljust(REQUEST_SIZE)


def decode_answer(answer: bytes) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads(answer)
    return figures


def resident_size() -> int:
    """Return the bytes of memory that this process has, once what is unused was let go of."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE_SIZE


async def _obey(channel: Channel, request: list[Any]) -> None:
    what, size = request
    if what == "usage":
        await _answer(channel, cpu=time.process_time())
        return
    if what == "memory":
        await _answer(channel, resident=resident_size())
        return
    await channel.send(PING)  # the data may come
    started_at, cpu_at = time.perf_counter(), time.process_time()
    digest = ""
    if what == "hash":
        digest = await _hash(channel, size)
    else:
        await channel.discard(size)
    cpu, wall = time.process_time() - cpu_at, time.perf_counter() - started_at
    await _answer(channel, wall=wall, cpu=cpu, digest=digest)


async def _hash(channel: Channel, size: int) -> str:
    hashed = hashlib.sha256()
    while size > 0:
        chunk = await channel.receive()
        if not chunk:
            break
        hashed.update(chunk)
        size -= len(chunk)
    return hashed.hexdigest()


async def _answer(channel: Channel, **figures: object) -> None:
    await channel.send(json.dumps(figures).encode().ljust(ANSWER_SIZE))
