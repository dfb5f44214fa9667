"""What a chamber costs beside plain SQLite, SQLite with AES-256-GCM by hand, diskcache and restic.

    pip install diskcache
    apt-get install restic
    python benchmarks/chamber.py --megabytes 1024
    python benchmarks/chamber.py --megabytes 64 --store "s3://bucket?endpoint=http://127.0.0.1:9000"
    python benchmarks/chamber.py --changes 100000

All but diskcache sync every acknowledged put (WAL, synchronous=FULL); diskcache comes with synchronous=NORMAL, which
loses some of them in a power cut. Values are random. "together" are puts of 100 tasks at a time, of which a chamber
makes one commit. The large value is written and read in pieces; diskcache keeps it as a file beside its database.
restic, which seals what it keeps as a chamber does, takes it from standard input and gives it to standard output: for
one value at a time it is a process of a second, so that small ones would tell nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import resource
import secrets
import shutil
import sqlite3
import subprocess
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from stt_chamber import Chamber, Seed
from stt_chamber.backends.file import FileStorage
from stt_chamber.backends.sqlite import SQLiteStorage
from stt_chamber.values import MAX_CHANGES
from stt_core import load_plugins
from stt_core.defaults.memory_storage import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from stt_core.interfaces import StorageProvider

SMALL = 100
PUTS = 2000
TASKS = 100
PIECE = 1 << 20


def rate(name: str, what: str, count: float, started_at: float, unit: str = "/s") -> None:
    print(f"{name:24}{what:28}{count / (time.perf_counter() - started_at):12,.0f} {unit}")


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def print_overhead(name: str, folder: Path, size: int) -> None:
    print(f"{name:24}{'space overhead':28}{100 * (size_of(folder) / size - 1):12.1f} %")


async def measure_chamber(name: str, storage: StorageProvider, megabytes: int) -> None:
    async with await Chamber.create(storage, Seed(secrets.token_bytes(32))) as chamber:
        values = [secrets.token_bytes(SMALL) for _ in range(PUTS)]
        started_at = time.perf_counter()
        for number, value in enumerate(values):
            await chamber.store(f"key {number}", value)
        rate(name, "puts of 100 B", PUTS, started_at)
        started_at = time.perf_counter()

        async def put_some(task: int) -> None:
            for number in range(task, PUTS, TASKS):
                await chamber.store(f"more {number}", values[number])

        await asyncio.gather(*(put_some(task) for task in range(TASKS)))
        rate(name, "puts of 100 B, together", PUTS, started_at)
        started_at = time.perf_counter()
        for number in range(PUTS):
            await chamber.retrieve(f"key {number}")
        rate(name, "gets of 100 B", PUTS, started_at)

        piece = secrets.token_bytes(PIECE)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started_at = time.perf_counter()
        async with chamber.open_writer("large") as writer:
            for _ in range(megabytes):
                await writer.write(piece)
        rate(name, f"put of {megabytes} MiB", megabytes * PIECE / 1e6, started_at, "MB/s")
        started_at = time.perf_counter()
        async with chamber.open_reader("large") as reader:
            read = sum([len(part) async for part in reader])
        assert read == megabytes * PIECE
        rate(name, f"get of {megabytes} MiB", read / 1e6, started_at, "MB/s")
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(f"{name:24}{'memory grown by':28}{grown / 1024:12.1f} MiB")
    await storage.close()


class CountingStorage(MemoryStorage):
    """Counts the bytes that it is given to store."""

    def __init__(self) -> None:
        super().__init__()
        self.stored = 0

    async def store(self, key: bytes, value: bytes) -> None:
        self.stored += len(value)
        await super().store(key, value)

    async def store_if(self, key: bytes, value: bytes, expected_version: int) -> int | None:
        self.stored += len(value)
        return await super().store_if(key, value, expected_version)

    async def commit(self, puts: Mapping[bytes, bytes], deletes: Sequence[bytes] = ()) -> None:
        self.stored += sum(map(len, puts.values()))
        await super().commit(puts, deletes)


async def measure_changes(count: int, together: int) -> None:
    """Print how many bytes are stored for each byte that is changed, of small values in random order."""
    storage = CountingStorage()
    chance = random.Random(1)
    async with await Chamber.create(storage, Seed(secrets.token_bytes(32))) as chamber:
        for start in range(0, count, MAX_CHANGES):
            async with chamber.batch() as batch:
                for number in range(start, min(start + MAX_CHANGES, count)):
                    await batch.store(f"key {number:08}", chance.randbytes(SMALL))
        await chamber.ledger.merge()
        before = storage.stored
        for _ in range(count // together):
            keys = [f"key {chance.randrange(count):08}" for _ in range(together)]
            await asyncio.gather(*(chamber.store(key, chance.randbytes(SMALL)) for key in keys))
        await chamber.ledger.wait_idle()
        changed = count * (SMALL + len("key 00000000"))
        name = f"{count} changes"
        print(f"{name:24}{f'{together} at a time':28}{(storage.stored - before) / changed:12.1f} times the bytes")


def measure_sqlite(
    name: str, folder: Path, megabytes: int, seal: Callable[[bytes], bytes], unseal: Callable[[bytes], bytes]
) -> None:
    database = sqlite3.connect(folder / "plain.db", isolation_level=None)
    database.executescript("pragma page_size = 16384; pragma journal_mode = wal; pragma synchronous = full;")
    database.execute("create table entries (key text primary key, value blob) without rowid")
    values = [secrets.token_bytes(SMALL) for _ in range(PUTS)]
    started_at = time.perf_counter()
    for number, value in enumerate(values):
        database.execute("insert or replace into entries values (?, ?)", (f"key {number}", seal(value)))
    rate(name, "puts of 100 B", PUTS, started_at)
    started_at = time.perf_counter()
    for number in range(PUTS):
        [(value,)] = database.execute("select value from entries where key = ?", (f"key {number}",))
        unseal(value)
    rate(name, "gets of 100 B", PUTS, started_at)
    piece = secrets.token_bytes(PIECE)
    started_at = time.perf_counter()
    for number in range(megabytes):
        database.execute("insert into entries values (?, ?)", (f"large {number}", seal(piece)))
    rate(name, f"put of {megabytes} MiB", megabytes * PIECE / 1e6, started_at, "MB/s")
    started_at = time.perf_counter()
    for number in range(megabytes):
        [(value,)] = database.execute("select value from entries where key = ?", (f"large {number}",))
        unseal(value)
    rate(name, f"get of {megabytes} MiB", megabytes * PIECE / 1e6, started_at, "MB/s")
    database.close()


def measure_diskcache(name: str, folder: Path, megabytes: int) -> None:
    cache: Any = import_module("diskcache").Cache(str(folder), size_limit=1 << 40)
    values = [secrets.token_bytes(SMALL) for _ in range(PUTS)]
    started_at = time.perf_counter()
    for number, value in enumerate(values):
        cache.set(f"key {number}", value)
    rate(name, "puts of 100 B", PUTS, started_at)
    started_at = time.perf_counter()
    for number in range(PUTS):
        cache.get(f"key {number}")
    rate(name, "gets of 100 B", PUTS, started_at)
    source = folder / "source"
    source.write_bytes(secrets.token_bytes(PIECE) * megabytes)
    started_at = time.perf_counter()
    with source.open("rb") as file:
        cache.set("large", file, read=True)
    rate(name, f"put of {megabytes} MiB", megabytes * PIECE / 1e6, started_at, "MB/s")
    started_at = time.perf_counter()
    with cache.get("large", read=True) as file:
        while file.read(PIECE):
            pass
    rate(name, f"get of {megabytes} MiB", megabytes * PIECE / 1e6, started_at, "MB/s")
    cache.close()


def measure_restic(name: str, folder: Path, megabytes: int) -> None:
    source = folder / "source"
    with source.open("wb") as file:
        for _ in range(megabytes):
            file.write(secrets.token_bytes(PIECE))  # all different, as restic keeps equal parts once
    repository = folder / "repository"
    environment = {**os.environ, "RESTIC_PASSWORD": "password", "RESTIC_REPOSITORY": str(repository)}
    environment["RESTIC_CACHE_DIR"] = str(folder / "cache")

    def run(*arguments: str, source: Path | None = None) -> None:
        with (source or Path(os.devnull)).open("rb") as taken:
            subprocess.run(
                ["restic", "--quiet", *arguments], stdin=taken, stdout=subprocess.DEVNULL, env=environment, check=True
            )

    run("init")
    started_at = time.perf_counter()
    run("backup", "--stdin", "--stdin-filename", "large", source=source)
    rate(name, f"put of {megabytes} MiB", megabytes * PIECE / 1e6, started_at, "MB/s")
    started_at = time.perf_counter()
    run("dump", "latest", "large")
    rate(name, f"get of {megabytes} MiB", megabytes * PIECE / 1e6, started_at, "MB/s")
    print_overhead(name, repository, megabytes * PIECE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1024, help="size of the large value")
    parser.add_argument("--store", metavar="URL", help="measure a chamber in this empty store, and nothing else")
    parser.add_argument("--changes", type=int, help="measure what as many small changes write, and nothing else")
    options = parser.parse_args()
    megabytes = options.megabytes
    if options.changes is not None:
        for together in (1, 100):
            asyncio.run(measure_changes(options.changes, together))
        return
    if options.store is not None:
        asyncio.run(measure_chamber("chamber", load_plugins().store(options.store)(options.store), megabytes))
        return
    cipher = AESGCM(secrets.token_bytes(32))

    def seal(data: bytes) -> bytes:
        nonce = os.urandom(12)
        return nonce + cipher.encrypt(nonce, data, None)

    def unseal(data: bytes) -> bytes:
        return cipher.decrypt(data[:12], data[12:], None)

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for part in ("chamber", "files", "plain", "hand", "diskcache", "restic"):
            (folder / part).mkdir()
        size = megabytes * PIECE + 2 * PUTS * SMALL
        storage: StorageProvider = SQLiteStorage(f"sqlite://{folder}/chamber/chamber.db")
        asyncio.run(measure_chamber("chamber on sqlite", storage, megabytes))
        print_overhead("chamber on sqlite", folder / "chamber", size)
        storage = FileStorage(f"file://{folder}/files")
        asyncio.run(measure_chamber("chamber on files", storage, megabytes))
        print_overhead("chamber on files", folder / "files", size)
        measure_sqlite("SQLite", folder / "plain", megabytes, bytes, bytes)
        measure_sqlite("SQLite, AES by hand", folder / "hand", megabytes, seal, unseal)
        try:
            measure_diskcache("diskcache", folder / "diskcache", megabytes)
        except ModuleNotFoundError:
            print("diskcache is not installed")
        if shutil.which("restic"):
            measure_restic("restic", folder / "restic", megabytes)
        else:
            print("restic is not installed")


if __name__ == "__main__":
    main()
