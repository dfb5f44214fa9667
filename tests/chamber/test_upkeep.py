"""Is every damage found and named, is what is whole saved, and are orphans, and nothing else, removed?"""

from __future__ import annotations

import functools
import random
from typing import TYPE_CHECKING

import pytest

from stt_chamber import Chamber, Conflict, DamagedError, KeyMissing, RollbackDetected, Seed, WrongSecret
from stt_chamber.keys import namespace
from stt_chamber.ledger import Names
from stt_chamber.rekey import rekey, rekey_data
from stt_chamber.upkeep import check, collect, repair
from stt_core.defaults.memory_storage import MemoryStorage
from stt_core.errors import CryptoError, StorageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from stt_core.interfaces import StorageProvider

LARGE = random.Random(2).randbytes(200_000)


async def contents(storage: StorageProvider) -> dict[bytes, bytes]:
    found = {}
    async for key in storage.list_keys():
        value = await storage.retrieve(key)
        assert value is not None
        found[key] = value
    return found


async def filled(seed: Seed) -> tuple[StorageProvider, dict[str, bytes]]:
    """Return a store with values in pages, in segments and in the tail, some of them large."""
    storage = MemoryStorage()
    values = {f"{number:03}": bytes([number]) * 1000 for number in range(100)}
    values |= {f"large {number}": LARGE[number:] for number in range(4)}
    async with await Chamber.create(storage, seed) as chamber:
        for number, (key, value) in enumerate(values.items()):
            await chamber.store(key, value)
            if number == 60:
                await chamber.ledger.merge()
    return storage, values


@pytest.mark.asyncio
async def test_a_chamber_that_is_whole_is_found_whole(seed: Seed) -> None:
    storage, values = await filled(seed)
    told: list[int] = []

    async with await Chamber.open(storage, seed) as chamber:
        report = await check(chamber, told.append)

    assert (report.damaged, report.orphans) == ((), 0)
    assert (report.values, report.size) == (len(values), sum(map(len, values.values())))
    assert sum(told) == report.size


@pytest.mark.asyncio
async def test_every_changed_byte_is_found(seed: Seed) -> None:
    storage = MemoryStorage()
    async with await Chamber.create(storage, seed) as chamber:
        await chamber.store("inline", b"value")
        await chamber.ledger.merge()
        async with chamber.batch() as batch:  # more than a tail holds, and so a segment
            for number in range(9):
                await batch.store(f"{number}", b"x" * 2000)
        await chamber.store("chunked", bytes(2100))
        await chamber.store_content(bytes(2200))
        await chamber.ledger.merge()
        await chamber.store("inline", b"another value")
    whole = await contents(storage)
    async with await Chamber.open(storage, seed) as chamber:
        assert (await check(chamber)).damaged == ()
        for key, value in whole.items():
            # Every byte of the records, and of each object's beginning, end and every 41st between: a seal is one.
            places = {*range(min(len(value), 300)), *range(len(value) - 40, len(value)), *range(0, len(value), 41)}
            for place in places:
                flipped = bytearray(value)
                flipped[place] ^= 1 << place % 8
                await storage.store(key, bytes(flipped))
                try:
                    found = len((await check(chamber)).damaged)
                except (StorageError, CryptoError):
                    found = 1
                assert found, f"byte {place} of {key.hex()}"
            await storage.store(key, value)
        assert (await check(chamber)).damaged == ()


@pytest.mark.asyncio
async def test_everything_that_is_missing_is_found(seed: Seed) -> None:
    storage, _ = await filled(seed)
    for key, value in (await contents(storage)).items():
        await storage.delete(key)
        try:
            async with await Chamber.open(storage, seed) as chamber:
                assert (await check(chamber)).damaged, key
        except StorageError:
            pass
        await storage.store(key, value)


@pytest.mark.parametrize("is_same_process", [False, True])
@pytest.mark.asyncio
async def test_a_change_of_the_data_key_during_a_check_is_no_damage(seed: Seed, is_same_process: bool) -> None:  # noqa: FBT001  a parameter
    class Raced(MemoryStorage):
        race: Callable[[], Awaitable[object]] | None = None

        async def retrieve(self, key: bytes) -> bytes | None:
            if key == Names(namespace("")).header_copy and self.race is not None:
                race, self.race = self.race, None
                await race()
            return await super().retrieve(key)

    storage = Raced()
    async with await Chamber.create(storage, seed) as chamber:
        for number in range(5):
            await chamber.store(f"{number}", bytes(10_000))
        async with await Chamber.open(storage, seed) as other:
            storage.race = functools.partial(rekey_data, chamber if is_same_process else other)

            report = await check(chamber)

    assert storage.race is None
    assert (report.damaged, report.values) == ((), 5)


@pytest.mark.asyncio
async def test_a_damaged_value_is_named_and_a_repair_forgets_it_alone(seed: Seed) -> None:
    storage, values = await filled(seed)
    async with await Chamber.open(storage, seed) as chamber:
        entry = await (await chamber.ledger.refresh()).find(b"large 2")
        assert entry is not None
        assert entry.reference is not None
        await storage.delete([*chamber.ledger.objects.names(entry.reference)][1])

        (damage,) = (await check(chamber)).damaged
        assert (damage.what, damage.reason) == ("large 2", "chunk 2 of 4 is missing")
        with pytest.raises(DamagedError, match="large 2"):
            await chamber.retrieve("large 2")

    report = await repair(storage, [seed])

    assert report.lost == (damage,)
    assert report.orphans == 3
    del values["large 2"]
    await assert_holds(storage, seed, values)


@pytest.mark.asyncio
async def test_whatever_one_object_is_lost_a_repair_saves_the_rest(seed: Seed) -> None:
    storage, values = await filled(seed)
    whole = await contents(storage)
    for key in whole:
        for each, value in whole.items():
            await storage.store(each, value)
        await storage.store(key, b"damaged")

        report = await repair(storage, [seed])

        async with await Chamber.open(storage, seed) as chamber:
            after = await check(chamber)
            assert (after.damaged, after.orphans) == ((), 0)
            found = await chamber.list(limit=1000)
            for name in found:
                assert await chamber.retrieve(name) == values[name]
            info = await chamber.info()
            assert (info.count, info.size) == (len(found), sum(len(values[name]) for name in found))
            assert bool(report.lost) == (len(found) < len(values) or key == chamber.ledger.names.root)
            # A page, a segment or a tail has 16 KiB of these entries at most, and so some 16 of them.
            assert len(values) - len(found) < 40
        for each in await contents(storage):
            await storage.delete(each)


async def assert_holds(storage: StorageProvider, seed: Seed, values: dict[str, bytes]) -> None:
    async with await Chamber.open(storage, seed) as chamber:
        assert await chamber.list() == sorted(values)
        for key, value in values.items():
            assert await chamber.retrieve(key) == value
        report = await check(chamber)
        assert (report.damaged, report.orphans) == ((), 0)


@pytest.mark.asyncio
async def test_a_repair_is_nothing_for_who_was_shut_out(memory: StorageProvider, seed: Seed, other_seed: Seed) -> None:
    async with await Chamber.create(memory, seed) as chamber:
        copy_key = chamber.ledger.names.header_copy
        copy = await memory.retrieve(copy_key)
        assert copy is not None
        await rekey(chamber, [other_seed])
    await memory.store(copy_key, copy)  # as if the power had gone before the copy was replaced

    with pytest.raises(WrongSecret):
        await repair(memory, [seed])
    await repair(memory, [other_seed])


# Orphans


@pytest.mark.asyncio
async def test_what_an_interrupted_write_left_is_counted_and_collected(memory: StorageProvider, seed: Seed) -> None:
    async with await Chamber.create(memory, seed) as chamber:
        await chamber.store("key", LARGE)
        await chamber.ledger.objects.write(LARGE)  # and nothing refers to it

        assert (await check(chamber)).orphans == 4
        assert await collect(chamber) == 4
        assert await collect(chamber) == 0
        assert await chamber.retrieve("key") == LARGE


@pytest.mark.asyncio
async def test_a_value_whose_chunks_were_collected_is_refused(memory: StorageProvider, seed: Seed) -> None:
    async with await Chamber.create(memory, seed) as chamber, await Chamber.open(memory, seed) as other:
        with pytest.raises(Conflict, match="again"):  # noqa: PT012  the end of the context is what raises
            async with chamber.open_writer("key") as writer:
                await writer.write(bytes(3_000_000))
                assert await collect(other) > 0

        with pytest.raises(KeyMissing):
            await chamber.retrieve("key")
        assert (await check(chamber)).orphans == 0


@pytest.mark.asyncio
async def test_a_repair_knows_a_state_that_was_seen(memory: StorageProvider, seed: Seed) -> None:
    chamber = await Chamber.create(memory, seed)
    await chamber.store("key", b"first")
    await chamber.close()
    old = await contents(memory)
    async with await Chamber.open(memory, seed) as chamber:
        await chamber.store("key", b"second")
        seen = chamber.position
    names = Names(namespace(""))
    newest = await contents(memory)

    await repair(memory, [seed], expected=seen)
    async with await Chamber.open(memory, seed, expected=seen) as chamber:
        assert await chamber.retrieve("key") == b"second"

    for changed in ({names.root: old[names.root]}, {names.root: b"damaged"}, {names.root: b"", names.header: b""}):
        await memory.commit(newest | changed)
        before = await contents(memory)
        with pytest.raises(RollbackDetected, match="was seen"):
            await repair(memory, [seed], expected=seen)
        assert await contents(memory) == before

    assert (await repair(memory, [seed])).lost  # it is for the owner to decide
    async with await Chamber.open(memory, seed, expected=seen) as chamber:
        assert chamber.position.sequence > seen.sequence


@pytest.mark.asyncio
async def test_a_repair_takes_no_other_chamber_for_the_one_that_was_seen(seed: Seed) -> None:
    seen = (await Chamber.create(MemoryStorage(), seed)).position
    other = MemoryStorage()
    await Chamber.create(other, seed)
    before = await contents(other)

    with pytest.raises(RollbackDetected, match="another chamber"):
        await repair(other, [seed], expected=seen)

    assert await contents(other) == before
