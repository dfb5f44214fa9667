"""Do those who work on a chamber, or on its replicas, at the same time lose nothing, whoever is slow or killed?"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest

from stt_chamber import Chamber, Conflict, DamagedError, Seed
from stt_chamber.archive import export_chamber, import_chamber
from stt_chamber.header import UnlockedHeader
from stt_chamber.keys import namespace
from stt_chamber.ledger import Names
from stt_chamber.rekey import add_recipient, rekey, rekey_data
from stt_chamber.root import MAX_MARKS, Mark, with_mark
from stt_chamber.snapshots import MAX_SILENCE, snapshot
from stt_chamber.sync import sync
from stt_chamber.upkeep import check, collect
from stt_core.defaults.memory_storage import MemoryStorage
from stt_core.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from stt_core.interfaces import StorageProvider, Version

NAMES = Names(namespace(""))


class OneProcess(MemoryStorage):
    """What one process sees of a store: something may be done right before one of its requests."""

    def __init__(self, shared: MemoryStorage) -> None:
        super().__init__()
        self.shared = shared
        for name in ("retrieve", "exists", "delete", "list_keys", "version"):
            setattr(self, name, getattr(shared, name))
        self.awaited = b""
        self.left = 0
        self.act: Callable[[], Awaitable[object]] | None = None

    def before(self, key: bytes, act: Callable[[], Awaitable[object]], *, number: int = 1) -> None:
        """Do something before the request that changes a key, or keys that begin with it, for the nth time."""
        self.awaited, self.left, self.act = key, number, act

    def killed_at(self, key: bytes) -> None:
        """Let the process get no further than to change a key."""

        async def kill() -> None:
            self.killed_at(key)
            raise StorageError("killed")

        self.before(key, kill)

    async def changes(self, *keys: bytes) -> None:
        if self.act is not None and any(key.startswith(self.awaited) for key in keys):
            self.left -= 1
            if not self.left:
                act, self.act = self.act, None
                await act()

    async def store(self, key: bytes, value: bytes) -> None:
        await self.changes(key)
        await self.shared.store(key, value)

    async def store_if(self, key: bytes, value: bytes, expected_version: Version) -> Version | None:
        await self.changes(key)
        return await self.shared.store_if(key, value, expected_version)

    async def commit(self, puts: Mapping[bytes, bytes], deletes: Sequence[bytes] = ()) -> None:
        await self.changes(*puts, *deletes)
        await self.shared.commit(puts, deletes)


class SlowStorage(OneProcess):
    """Takes a different time for each request, always the same one for the same seed."""

    def __init__(self, shared: MemoryStorage, seed: int) -> None:
        super().__init__(shared)
        self.chance = random.Random(seed)

    async def changes(self, *_: bytes) -> None:
        for _each in range(self.chance.randrange(4)):
            await asyncio.sleep(0)


async def assert_holds(storage: StorageProvider, secret: Seed, expected: dict[str, Any]) -> None:
    async with await Chamber.open(storage, secret) as chamber:
        assert {key: await chamber.retrieve(key) for key in await chamber.list()} == expected
        assert (await check(chamber)).damaged == ()


# Changes of keys


@pytest.mark.asyncio
async def test_a_data_key_that_comes_right_before_the_old_one_is_forgotten_is_kept(seed: Seed) -> None:
    shared = MemoryStorage()
    values = {"a": bytes(100_000), "b": bytes(50_000)}
    async with await Chamber.create(shared, seed) as chamber:
        for key, value in values.items():
            await chamber.store(key, value)
    process = OneProcess(shared)
    async with await Chamber.open(process, seed) as chamber, await Chamber.open(shared, seed) as other:
        process.before(
            NAMES.root_copy, lambda: other.ledger.change_header(UnlockedHeader.with_new_data_key, fenced=True)
        )
        await rekey_data(chamber)
        assert process.act is None
        assert other.ledger.unlocked.keyring.epoch == 3

    await assert_holds(shared, seed, values)


@pytest.mark.parametrize("number", range(12))
@pytest.mark.asyncio
async def test_two_changes_of_the_data_key_at_once_end_and_lose_nothing(seed: Seed, number: int) -> None:
    shared = MemoryStorage()
    values = {"a": bytes(5000), "b": bytes(3000)}
    async with await Chamber.create(shared, seed) as chamber:
        for key, value in values.items():
            await chamber.store(key, value)
    first, second = SlowStorage(shared, number), SlowStorage(shared, ~number)
    async with await Chamber.open(first, seed) as one, await Chamber.open(second, seed) as two:
        for error in await asyncio.gather(rekey_data(one), rekey_data(two), return_exceptions=True):
            assert error is None or isinstance(error, Conflict)
    await assert_holds(shared, seed, values)

    async with await Chamber.open(shared, seed) as chamber:
        await rekey_data(chamber)
        assert not (await chamber.info()).is_rekeying
    await assert_holds(shared, seed, values)


@pytest.mark.asyncio
async def test_a_change_of_the_data_key_ends_though_another_one_begins_in_it(seed: Seed) -> None:
    shared = MemoryStorage()
    async with await Chamber.create(shared, seed) as chamber:
        async with chamber.batch() as batch:
            for number in range(100):
                await batch.store(f"{number}", bytes(1000))
        await chamber.store("large", bytes(100_000))
    process = OneProcess(shared)
    async with await Chamber.open(process, seed) as chamber, await Chamber.open(shared, seed) as other:
        process.before(
            NAMES.header_copy, lambda: other.ledger.change_header(UnlockedHeader.with_new_data_key, fenced=True)
        )
        await rekey_data(chamber)
        assert process.act is None
        assert (await check(chamber)).damaged == ()


@pytest.mark.asyncio
async def test_a_rekey_that_was_killed_before_the_root_says_so_is_told_of_by_the_next_change(
    seed: Seed, other_seed: Seed
) -> None:
    shared = MemoryStorage()
    await (await Chamber.create(shared, seed)).close()
    old = await shared.retrieve(NAMES.header)
    assert old is not None
    process = OneProcess(shared)
    async with await Chamber.open(process, seed) as chamber:
        process.killed_at(NAMES.root)
        with pytest.raises(StorageError, match="killed"):
            await rekey(chamber, [other_seed])
    async with await Chamber.open(shared, other_seed) as chamber:
        await chamber.store("key", "secret")

    await shared.store(NAMES.header, old)
    with pytest.raises(DamagedError, match="header is older"):
        await Chamber.open(shared, seed)


@pytest.mark.asyncio
async def test_the_copy_of_the_header_is_that_of_the_newest_one(seed: Seed, other_seed: Seed) -> None:
    shared = MemoryStorage()
    process = OneProcess(shared)
    async with await Chamber.create(process, seed) as chamber, await Chamber.open(shared, seed) as other:
        process.before(NAMES.root, lambda: add_recipient(other, other_seed))
        await add_recipient(chamber, other_seed)

    assert await shared.retrieve(NAMES.header_copy) == await shared.retrieve(NAMES.header)


# Replicas and changes of keys


@pytest.mark.asyncio
async def test_replicas_with_different_data_keys_of_one_number_are_refused(seed: Seed) -> None:
    first, second = MemoryStorage(), MemoryStorage()
    async with await Chamber.create(first, seed) as one:
        await one.store("common", 1)
        await sync(first, second, seed)
        process = OneProcess(second)
        async with await Chamber.open(process, seed) as two:
            process.killed_at(NAMES.root)
            with pytest.raises(StorageError, match="killed"):
                await rekey_data(two)
        async with await Chamber.open(second, seed) as two:
            await two.store("mine", bytes(100_000))
        await rekey_data(one)

    for order in ((first, second), (second, first)):
        with pytest.raises(Conflict, match="both replicas were rekeyed"):
            await sync(*order, seed)

    await assert_holds(first, seed, {"common": 1})
    await assert_holds(second, seed, {"common": 1, "mine": bytes(100_000)})


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.asyncio
async def test_what_a_synchronisation_brings_while_the_old_data_key_goes_is_kept(seed: Seed, number: int) -> None:
    first, second = MemoryStorage(), MemoryStorage()
    async with await Chamber.create(first, seed) as one:
        await one.store("common", 1)
        await sync(first, second, seed)
        await one.store("mine", bytes(100_000))
    of_first, of_second = OneProcess(first), OneProcess(second)

    async def break_a_synchronisation_off() -> None:
        of_first.killed_at(NAMES.root)
        with pytest.raises(StorageError, match="killed"):
            await sync(of_first, second, seed)

    async with await Chamber.open(of_second, seed) as two:
        await two.store("theirs", 2)
        of_second.before(NAMES.root_copy, break_a_synchronisation_off, number=number)
        await rekey_data(two)

    await sync(first, second, seed)
    for storage in (first, second):
        await assert_holds(storage, seed, {"common": 1, "mine": bytes(100_000), "theirs": 2})


@pytest.mark.asyncio
async def test_a_replica_is_not_made_like_one_that_has_lost_a_data_key(seed: Seed) -> None:
    first, second = MemoryStorage(), MemoryStorage()
    async with await Chamber.create(first, seed) as one:
        await one.store("large", bytes(100_000))
        await sync(first, second, seed)
        for change in (UnlockedHeader.with_new_data_key, lambda header: header.with_data_keys_from(2)):
            await one.ledger.change_header(change)

    with pytest.raises(DamagedError, match="unknown data key"):
        await sync(first, second, seed)

    await assert_holds(second, seed, {"large": bytes(100_000)})


# Replicas and what removes chunks


async def broken_off(seed: Seed, clock: Any = None) -> tuple[MemoryStorage, MemoryStorage]:
    """Return two replicas: the second has got the chunks of a value of the first, which was then broken off."""
    options = {} if clock is None else {"clock": clock}
    first, second = MemoryStorage(), MemoryStorage()
    async with await Chamber.create(first, seed, **options) as one:
        await one.store("common", 1)
        await sync(first, second, seed, **options)
        await one.store("new", bytes(500_000))
    process = OneProcess(second)
    process.killed_at(NAMES.root)
    with pytest.raises(StorageError, match="killed"):
        await sync(first, process, seed, **options)
    return first, second


@pytest.mark.asyncio
async def test_a_synchronisation_waits_for_the_end_of_a_collection(seed: Seed) -> None:
    first, second = await broken_off(seed)
    process = OneProcess(second)

    async def synchronise() -> None:
        with pytest.raises(Conflict, match="afterwards"):
            await sync(first, second, seed)

    async with await Chamber.open(process, seed) as two:
        process.before(NAMES.objects, synchronise)
        assert await collect(two) > 0
        assert process.act is None

    await sync(first, second, seed)
    for storage in (first, second):
        await assert_holds(storage, seed, {"common": 1, "new": bytes(500_000)})
        assert not [key async for key in storage.list_keys() if key.startswith((NAMES.arrivals, NAMES.collections))]


@pytest.mark.asyncio
async def test_a_collection_waits_for_the_end_of_a_synchronisation(seed: Seed) -> None:
    first, second = await broken_off(seed)
    process = OneProcess(second)

    async def collect_there() -> None:
        async with await Chamber.open(second, seed) as two:
            with pytest.raises(Conflict, match="synchronised"):
                await collect(two)

    process.before(NAMES.root, collect_there)
    await sync(first, process, seed)
    assert process.act is None

    await assert_holds(second, seed, {"common": 1, "new": bytes(500_000)})
    async with await Chamber.open(second, seed) as two:
        assert await collect(two) == 0


@pytest.mark.asyncio
async def test_a_collection_that_was_killed_keeps_synchronisations_away_for_a_time_only(seed: Seed, clock: Any) -> None:
    first, second = await broken_off(seed, clock)
    await second.store(NAMES.collections + b"killed", round(clock.now * 1000).to_bytes(8, "big"))

    with pytest.raises(Conflict, match="afterwards"):
        await sync(first, second, seed, clock=clock)
    clock.now += MAX_SILENCE
    await sync(first, second, seed, clock=clock)

    await assert_holds(second, seed, {"common": 1, "new": bytes(500_000)})


@pytest.mark.asyncio
async def test_a_collection_that_was_taken_for_killed_removes_nothing_more(seed: Seed) -> None:
    first, second = await broken_off(seed)
    process = OneProcess(second)

    async def take_it_for_killed() -> None:
        for key in [key async for key in second.list_keys(NAMES.collections)]:
            await second.delete(key)
        await sync(first, second, seed)

    async with await Chamber.open(process, seed) as two:
        process.before(NAMES.collections, take_it_for_killed, number=2)
        with pytest.raises(Conflict):
            await collect(two)
        assert process.act is None

    await assert_holds(second, seed, {"common": 1, "new": bytes(500_000)})


@pytest.mark.parametrize("is_merged", [False, True])
@pytest.mark.asyncio
async def test_chunks_that_go_after_they_were_found_are_copied_all_the_same(seed: Seed, *, is_merged: bool) -> None:
    first, second = await broken_off(seed)
    expected: dict[str, Any] = {"common": 1, "new": bytes(500_000)}
    async with await Chamber.open(second, seed) as two:
        belonging = {key async for key in second.list_keys(NAMES.objects)}
        if is_merged:
            await two.store("of two", 2)
            expected["of two"] = 2
    process = OneProcess(second)

    async def remove() -> None:
        await second.commit({}, [*belonging])

    process.before(NAMES.root, remove)
    await sync(first, process, seed)
    assert process.act is None

    for storage in (first, second):
        await assert_holds(storage, seed, expected)


@pytest.mark.parametrize("is_held", [False, True])
@pytest.mark.asyncio
async def test_what_a_synchronisation_brings_back_is_not_removed_by_who_deleted_it(
    seed: Seed, tmp_path: Path, *, is_held: bool
) -> None:
    first, second = MemoryStorage(), MemoryStorage()
    async with await Chamber.create(first, seed) as one:
        await one.store("key", bytes(100_000))
        await export_chamber(first, tmp_path / "exported")
        await import_chamber(second, tmp_path / "exported")
        await one.store("of one", 1)
    async with await Chamber.open(second, seed) as two:
        if is_held:
            async with snapshot(second, NAMES):
                await two.delete("key")
                await two.ledger.wait_idle()
                await sync(first, second, seed)
        else:
            async with two.open_reader("key") as reader:
                await anext(reader)
                await two.delete("key")
                await two.ledger.wait_idle()
                await sync(first, second, seed)
        for number in range(2):
            await two.store("of two", number)
            await two.ledger.wait_idle()

    await assert_holds(second, seed, {"key": bytes(100_000), "of one": 1, "of two": 1})


# Marks


@pytest.mark.parametrize("synchronisations", [17, 40])
@pytest.mark.asyncio
async def test_a_replica_that_was_away_for_long_brings_nothing_deleted_back(
    seed: Seed, synchronisations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if synchronisations > 17:
        monkeypatch.setattr("stt_chamber.root.MAX_MARKS", 8)
    hub, near, away = (MemoryStorage() for _ in range(3))
    async with await Chamber.create(hub, seed) as chamber:
        for number in range(10):
            await chamber.store(f"{number}", 0)
    for storage in (near, away):
        await sync(storage, hub, seed)
    async with await Chamber.open(near, seed) as chamber:
        for number in range(5):
            await chamber.delete(f"{number}")
        for number in range(synchronisations):
            await chamber.store("5", number)
            await sync(near, hub, seed)
    async with await Chamber.open(away, seed) as chamber:
        await chamber.store("of away", 1)

    report = await sync(away, hub, seed)

    assert report.conflicts == ()
    expected = {**{f"{number}": 0 for number in range(6, 10)}, "5": synchronisations - 1, "of away": 1}
    for storage in (hub, away):
        await assert_holds(storage, seed, expected)


def test_of_many_marks_the_oldest_and_the_newest_ones_stay() -> None:
    marks: tuple[Mark, ...] = ()
    for number in range(10_000):
        marks = with_mark(marks, Mark(number.to_bytes(16, "big"), number, 1, None))
        assert len(marks) <= MAX_MARKS
    numbers = [mark.revision for mark in marks]
    assert numbers[0] == 0
    assert numbers[-MAX_MARKS // 2 :] == [*range(10_000 - MAX_MARKS // 2, 10_000)]
    assert numbers == sorted(numbers)
