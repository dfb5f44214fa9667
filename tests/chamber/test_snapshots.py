"""Does one state stay readable while others change the chamber, and only as long as somebody reads it?"""

from __future__ import annotations

import random
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

from stt_chamber import Chamber, Conflict, NoChamber, Seed
from stt_chamber.archive import export_chamber, import_chamber
from stt_chamber.keys import namespace
from stt_chamber.ledger import Names
from stt_chamber.snapshots import MAX_SILENCE, snapshot
from stt_chamber.upkeep import check, collect
from stt_core.defaults.memory_storage import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

NAMES = Names(namespace(""))


class BusyStorage(MemoryStorage):
    """What another process sees of a store: each time that it reads a chunk, it is told so."""

    def __init__(self, shared: MemoryStorage, on_chunk: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self.shared = shared
        self.on_chunk = on_chunk
        for name in ("store", "exists", "delete", "list_keys", "version", "store_if", "commit"):
            setattr(self, name, getattr(shared, name))

    async def retrieve(self, key: bytes) -> bytes | None:
        value = await self.shared.retrieve(key)
        if key.startswith(NAMES.objects):
            await self.on_chunk()
        return value


def change_of(chamber: Chamber) -> Callable[[], Awaitable[None]]:
    """Return what replaces values, large and small ones, so that what they had is removed, and merges now and then."""
    chance = random.Random(1)

    async def change() -> None:
        number = chance.randrange(8)
        await chamber.store(f"key {number}", bytes([chance.randrange(256)]) * chance.choice([10, 2000, 70_000]))
        if not chance.randrange(6):
            await chamber.ledger.merge()

    return change


async def chunks(storage: MemoryStorage) -> set[bytes]:
    return {key async for key in storage.list_keys(NAMES.objects)}


async def filled(storage: MemoryStorage, seed: Seed, **options: Any) -> Chamber:
    chamber = await Chamber.create(storage, seed, **options)
    for _ in range(60):
        await change_of(chamber)()
    for number in range(8):
        await chamber.store(f"key {number}", bytes(70_000))
    await chamber.ledger.wait_idle()
    return chamber


@pytest.mark.asyncio
async def test_an_export_of_a_busy_chamber_ends_and_is_whole(seed: Seed, tmp_path: Path) -> None:
    shared = MemoryStorage()
    chamber = await filled(shared, seed)
    path = tmp_path / "export"

    await export_chamber(BusyStorage(shared, change_of(chamber)), path)

    copy = MemoryStorage()
    await import_chamber(copy, path)
    async with await Chamber.open(copy, seed) as imported:
        assert (await check(imported)).damaged == ()
        assert await imported.list() == [f"key {number}" for number in range(8)]
    await chamber.close()


@pytest.mark.asyncio
async def test_a_check_of_a_busy_chamber_finds_no_damage(seed: Seed) -> None:
    shared = MemoryStorage()
    chamber = await filled(shared, seed)

    async with await Chamber.open(BusyStorage(shared, change_of(chamber)), seed) as other:
        report = await check(other)

    assert report.damaged == ()
    await chamber.close()


@pytest.mark.asyncio
async def test_what_was_kept_for_a_reader_is_removed_when_it_has_ended(seed: Seed) -> None:
    storage = MemoryStorage()
    chamber = await filled(storage, seed)

    async with snapshot(storage, NAMES):
        before = await chunks(storage)
        for number in range(8):
            await chamber.store(f"key {number}", b"small")
        await chamber.ledger.wait_idle()
        assert before <= await chunks(storage)
        with pytest.raises(Conflict, match="exported"):
            await collect(chamber)

    await chamber.store("key 0", b"other")
    await chamber.ledger.wait_idle()
    assert (await check(chamber)).orphans == 0
    await chamber.close()


@pytest.mark.asyncio
async def test_an_abandoned_snapshot_keeps_nothing(seed: Seed, clock: Any) -> None:
    storage = MemoryStorage()
    chamber = await filled(storage, seed, clock=clock)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(snapshot(storage, NAMES, clock))
        clock.now += MAX_SILENCE
        before = await chunks(storage)
        await chamber.store("key 0", b"small")
        await chamber.ledger.wait_idle()

        assert not before <= await chunks(storage)
        with pytest.raises(Conflict, match="slowly"):
            await stack.aclose()
    assert [key async for key in storage.list_keys(NAMES.snapshots)] == []
    await chamber.close()


@pytest.mark.parametrize("record", [b"", b"malformed", bytes(8), b"\xff" * 8])
@pytest.mark.asyncio
async def test_nobody_can_keep_everything_for_ever(seed: Seed, record: bytes) -> None:
    storage = MemoryStorage()
    chamber = await filled(storage, seed)
    await storage.store(NAMES.snapshots + b"forged", record)

    before = await chunks(storage)
    await chamber.store("key 0", b"small")
    await chamber.close()

    assert not before <= await chunks(storage)


@pytest.mark.asyncio
async def test_a_snapshot_of_nothing_is_an_error_and_leaves_nothing() -> None:
    storage = MemoryStorage()

    with pytest.raises(NoChamber):
        async with snapshot(storage, NAMES):
            pass

    assert [key async for key in storage.list_keys()] == []


# Reading without a snapshot


@pytest.mark.asyncio
async def test_a_large_value_is_read_whole_though_it_is_replaced_and_collected_meanwhile(seed: Seed) -> None:
    shared = MemoryStorage()
    values = [bytes([number]) * 1_000_000 for number in range(3)]

    async def replace() -> None:
        if not chance.randrange(4):
            await chamber.store("key", values[chance.randrange(3)])
            await collect(chamber)

    chance = random.Random(1)
    chamber = await Chamber.create(BusyStorage(shared, replace), seed)
    await chamber.store("key", values[0])

    for _ in range(5):
        assert await chamber.retrieve("key") in values
    async with chamber.open_reader("key") as reader:
        assert b"".join([piece async for piece in reader]) in values
    await chamber.close()


@pytest.mark.asyncio
async def test_a_value_that_another_process_replaces_faster_than_it_is_read_is_a_conflict(seed: Seed) -> None:
    shared = MemoryStorage()
    chamber = await Chamber.create(shared, seed)

    async def replace() -> None:
        await chamber.store("key", bytes(1_000_000))
        await chamber.ledger.wait_idle()

    await replace()
    async with await Chamber.open(BusyStorage(shared, replace), seed) as other:
        with pytest.raises(Conflict, match="again"):
            await other.retrieve("key")
        async with other.open_reader("key") as reader:
            await anext(reader)
            with pytest.raises(Conflict, match="replaced"):
                [piece async for piece in reader]
    await chamber.close()
