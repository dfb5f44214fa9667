"""Does one state stay readable while others change the chamber, and only as long as somebody reads it?"""

from __future__ import annotations

import asyncio
import itertools
import random
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

from stt_chamber import Chamber, Conflict, NoChamber, Seed, snapshots
from stt_chamber.archive import export_chamber, import_chamber
from stt_chamber.keys import namespace
from stt_chamber.ledger import Names
from stt_chamber.snapshots import MAX_SILENCE, is_being_read, snapshot
from stt_chamber.upkeep import check, collect
from stt_core.defaults.memory_storage import MemoryStorage
from stt_core.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from stt_core.interfaces import Version

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
async def test_more_records_than_anybody_needs_are_not_all_read_and_nothing_is_removed() -> None:
    class Endless(MemoryStorage):
        async def list_keys(self, prefix: bytes = b"") -> AsyncIterator[bytes]:
            for number in itertools.count():
                yield prefix + number.to_bytes(16, "big")

    assert await is_being_read(Endless(), NAMES, 0)


@pytest.mark.asyncio
async def test_a_chamber_that_changes_faster_than_a_state_can_be_held_is_a_conflict(
    seed: Seed, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Changing(MemoryStorage):
        tries = 0

        async def retrieve(self, key: bytes) -> bytes | None:
            value = await super().retrieve(key)
            if key == NAMES.root and value is not None:
                self.tries += 1
                await self.store(key, value)
            return value

    monkeypatch.setattr(snapshots, "LONGEST_PAUSE", 0)
    storage = Changing()
    await (await Chamber.create(storage, seed)).close()
    storage.tries = 0

    with pytest.raises(Conflict, match="faster"):
        async with snapshot(storage, NAMES):
            pass

    assert storage.tries == snapshots.TRIES
    assert [key async for key in storage.list_keys(NAMES.snapshots)] == []


class FailingStorage(MemoryStorage):
    """Fails some renewals of a snapshot, each after it was made or before; tells when one went through after that."""

    def __init__(self) -> None:
        super().__init__()
        self.failures: list[bool] = []
        self.renewed = asyncio.Event()

    async def store_if(self, key: bytes, value: bytes, expected_version: Version) -> Version | None:
        if key.startswith(NAMES.snapshots) and expected_version:
            if self.failures:
                if self.failures.pop():
                    await super().store_if(key, value, expected_version)
                raise StorageError("the way to the store is interrupted")
            self.renewed.set()
        return await super().store_if(key, value, expected_version)


@pytest.mark.asyncio
async def test_a_renewal_that_fails_is_tried_again(seed: Seed, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RENEWAL_INTERVAL", "RETRY_INTERVAL"):
        monkeypatch.setattr(snapshots, name, 0)
    storage = FailingStorage()
    await (await Chamber.create(storage, seed)).close()
    storage.failures = [False, True, False, True]

    async with snapshot(storage, NAMES):
        await storage.renewed.wait()

    assert [key async for key in storage.list_keys(NAMES.snapshots)] == []


@pytest.mark.asyncio
async def test_a_snapshot_that_cannot_be_renewed_for_too_long_fails(
    seed: Seed, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RENEWAL_INTERVAL", "RETRY_INTERVAL", "MAX_SILENCE"):
        monkeypatch.setattr(snapshots, name, 0)
    storage = FailingStorage()
    await (await Chamber.create(storage, seed)).close()
    storage.failures = [False] * 1000

    with pytest.raises(StorageError, match="interrupted"):
        async with snapshot(storage, NAMES):
            await asyncio.Event().wait()


@pytest.mark.asyncio
async def test_who_reads_a_state_that_others_gave_up_is_interrupted_at_once(
    seed: Seed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "RENEWAL_INTERVAL", 0)
    storage = MemoryStorage()
    await (await Chamber.create(storage, seed)).close()

    with pytest.raises(Conflict, match="slowly"):  # noqa: PT012  it is raised in the middle of the context
        async with snapshot(storage, NAMES):
            [key] = [key async for key in storage.list_keys(NAMES.snapshots)]
            await storage.delete(key)
            await asyncio.Event().wait()


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
