"""Kills a process that stores values, again and again, and counts what it had acknowledged and is gone.

python tests/chamber/kill_loop.py URL KILLS
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from stt_chamber import Chamber, Seed
from stt_chamber.upkeep import check
from stt_core import load_plugins

if TYPE_CHECKING:
    from collections.abc import Coroutine

SEED = Seed(bytes(range(32)))
SIZES = (10, 500, 3000, 150_000)


def value_of(number: int) -> bytes:
    return b"%d " % number * (SIZES[number % len(SIZES)] // len(b"%d " % number))


async def store_until_killed(url: str, first: int, reader: int, acknowledgements: int) -> None:
    os.close(reader)  # the parent's, so that this ends with it
    storage = load_plugins().store(url)(url)
    chamber = await Chamber.open(storage, SEED)
    number = first
    while True:
        await chamber.store(f"{number:08}", value_of(number))
        os.write(acknowledgements, b"%d\n" % number)
        number += 1


def fork(work: Coroutine[Any, Any, None]) -> int:
    """Do the work in a process of its own; return its id.

    The parent itself opens no chamber before the last fork: a thread of it that ends just then could leave a lock of
    OpenSSL taken in the child, for ever.
    """
    process = os.fork()
    if not process:
        status = 1
        try:
            asyncio.run(work)
            status = 0
        finally:
            os._exit(status)  # this process must not go on as its parent
    work.close()
    return process


def kill_once(url: str, first: int, patience: float) -> int:
    """Return the number behind the last one that was acknowledged before the kill."""
    reader, writer = os.pipe()
    process = fork(store_until_killed(url, first, reader, writer))
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        acknowledged = pipe.readline()  # at least one, so that there is progress
        time.sleep(patience)
        os.kill(process, signal.SIGKILL)
        acknowledged += pipe.read()
    os.waitpid(process, 0)
    return int(acknowledged.split()[-1]) + 1


async def count_lost(url: str, acknowledged: int) -> tuple[int, int]:
    """Return how many values are gone or others, and how many damages a check finds."""
    storage = load_plugins().store(url)(url)
    async with await Chamber.open(storage, SEED) as chamber:
        there = {*await chamber.list(limit=10_000_000)}
        lost = 0
        for number in range(acknowledged):
            key = f"{number:08}"
            lost += key not in there or await chamber.retrieve(key) != value_of(number)
        damages = len((await check(chamber)).damaged)
    await storage.close()
    return lost, damages


async def create(url: str) -> None:
    storage = load_plugins().store(url)(url)
    await (await Chamber.create(storage, SEED)).close()
    await storage.close()


def main() -> None:
    url, kills = sys.argv[1], int(sys.argv[2])
    moments = random.Random(kills)
    _, status = os.waitpid(fork(create(url)), 0)
    assert status == 0
    number = 0
    for _ in range(kills):
        number = kill_once(url, number, moments.uniform(0.0005, 0.05))
    lost, damages = asyncio.run(count_lost(url, number))
    print(f"kills {kills}, acknowledged {number}, lost {lost}, damaged {damages}")  # noqa: T201  read by the test
    sys.exit(lost + damages)


if __name__ == "__main__":
    main()
