"""Are two replicas made the same, with as little copied as need be, and refused where they cannot be?"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from stt_chamber import Chamber, Conflict, DamagedError, NoChamber, QuotaExceeded, RollbackDetected, Seed, WrongSecret
from stt_chamber.archive import export_chamber, import_chamber
from stt_chamber.backends.sqlite import SQLiteStorage
from stt_chamber.errors import NotAReplica
from stt_chamber.rekey import rekey, rekey_data
from stt_chamber.sync import MAX_TRIES, sync
from stt_chamber.upkeep import check, repair
from stt_core.defaults.memory_storage import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from stt_core.interfaces import StorageProvider, Version

SEED = Seed(bytes(range(32)))
OTHER_SEED = Seed(bytes(32))


@pytest.fixture
def first() -> MemoryStorage:
    return MemoryStorage()


@pytest.fixture
def second() -> MemoryStorage:
    return MemoryStorage()


@contextlib.asynccontextmanager
async def both(first: StorageProvider, second: StorageProvider, clock: Callable[[], float]) -> Any:
    """Make a chamber and its replica, and open both."""
    async with await Chamber.create(first, SEED, clock=clock) as one:
        await one.store("common", "before")
        await one.store("large", bytes(100_000))
        await sync(first, second, SEED, clock=clock)
        async with await Chamber.open(second, SEED, clock=clock) as two:
            yield one, two


async def values(chamber: Chamber) -> dict[str, Any]:
    return {key: await chamber.retrieve(key) for key in await chamber.list()}


async def records(storage: StorageProvider) -> dict[bytes, bytes | None]:
    """Return what is in a store, but for the copies that a repair looks for: they may be some states behind."""
    return {key: await storage.retrieve(key) async for key in storage.list_keys() if key[16:] not in (b"R", b"H")}


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.asyncio
async def test_an_empty_store_becomes_a_replica_record_by_record(
    first: MemoryStorage, second: MemoryStorage, *, turned: bool
) -> None:
    async with await Chamber.create(first, SEED) as chamber:
        for number in range(300):
            await chamber.store(f"{number}", bytes(number * 20))

    report = await sync(*((second, first) if turned else (first, second)), SEED)

    assert await records(first) == await records(second)
    assert report.positions[0] == report.positions[1]
    assert report.copied[turned] == 0
    async with await Chamber.open(second, SEED) as chamber:
        found = await check(chamber)
        assert (found.damaged, found.orphans, found.values) == ((), 0, 300)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.asyncio
async def test_the_one_that_is_behind_gets_what_it_lacks_and_nothing_else(
    first: MemoryStorage, second: MemoryStorage, clock: Any, *, turned: bool
) -> None:
    async with both(first, second, clock) as (one, two):
        await one.store("large", bytes(61_000))
        await one.store("new", 1)
        await one.delete("common")

        report = await sync(*((second, first) if turned else (first, second)), SEED, clock=clock)

        assert await values(two) == await values(one) == {"large": bytes(61_000), "new": 1}
        assert await records(first) == await records(second)
        assert sum(report.copied) < 66_000
        assert (report.taken, report.conflicts) == (0, ())
        assert (await check(two)).orphans == 0


@pytest.mark.asyncio
async def test_equal_replicas_stay_as_they_are(first: MemoryStorage, second: MemoryStorage, clock: Any) -> None:
    async with both(first, second, clock):
        before = [await records(first), await records(second)]

        report = await sync(first, second, SEED, clock=clock)

        assert report.copied == (0, 0)
        assert [await records(first), await records(second)] == before


@pytest.mark.asyncio
async def test_what_each_has_changed_is_merged(first: MemoryStorage, second: MemoryStorage, clock: Any) -> None:
    async with both(first, second, clock) as (one, two):
        await one.store("of one", bytes(5000), ttl=100)
        await one.delete("large")
        await two.store("of two", bytes(6000))
        await two.store("common", "after")

        report = await sync(first, second, SEED, clock=clock)

        assert await values(one) == await values(two)
        assert await values(one) == {"of one": bytes(5000), "of two": bytes(6000), "common": "after"}
        assert (await two.metadata("of one")).expires_at == clock.now + 100
        assert (report.taken, report.conflicts) == (2, ())
        assert (await one.info()).count == 3
        for chamber in (one, two):
            assert (await check(chamber)).damaged == ()
            assert (await check(chamber)).orphans == 0


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("size", [10, 5000])
@pytest.mark.asyncio
async def test_of_two_changes_of_one_value_the_newer_one_wins_and_the_other_one_is_kept(
    first: MemoryStorage, second: MemoryStorage, clock: Any, size: int, *, turned: bool
) -> None:
    async with both(first, second, clock) as (one, two):
        older, newer = (one, two) if turned else (two, one)
        await older.store("common", b"a" * size)
        clock.now += 1
        await newer.store("common", b"b" * size)

        report = await sync(first, second, SEED, clock=clock)

        [conflict] = report.conflicts
        assert conflict.key == "common"
        found = await values(one)
        assert found == await values(two)
        assert (found["common"], found[conflict.kept_as]) == (b"b" * size, b"a" * size)
        assert (await check(one)).damaged == (await check(two)).damaged == ()
        assert (await sync(first, second, SEED, clock=clock)).conflicts == ()


@pytest.mark.asyncio
async def test_at_the_same_time_it_does_not_matter_who_asks_which_value_wins(clock: Any) -> None:
    winners = set()
    for turned in (False, True):
        first, second = MemoryStorage(), MemoryStorage()
        async with both(first, second, clock) as (one, two):
            await one.store("common", "a")
            await two.store("common", "b")
            await sync(*((second, first) if turned else (first, second)), SEED, clock=clock)
            winners.add(await one.retrieve("common"))

    assert len(winners) == 1


@pytest.mark.asyncio
async def test_two_equal_changes_are_no_conflict(first: MemoryStorage, second: MemoryStorage, clock: Any) -> None:
    async with both(first, second, clock) as (one, two):
        for chamber in (one, two):
            await chamber.store("same", bytes(70_000))
            await chamber.store_content(b"the same" * 1000)
            clock.now += 1

        assert (await sync(first, second, SEED, clock=clock)).conflicts == ()
        assert (await check(one)).damaged == (await check(two)).damaged == ()
        assert (await two.info()).count == 4


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.asyncio
async def test_what_one_has_changed_and_the_other_deleted_is_kept(
    first: MemoryStorage, second: MemoryStorage, clock: Any, *, turned: bool
) -> None:
    async with both(first, second, clock) as (one, two):
        await one.delete("common")
        await two.store("common", "after")

        await sync(*((second, first) if turned else (first, second)), SEED, clock=clock)

        assert await one.retrieve("common") == await two.retrieve("common") == "after"


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.asyncio
async def test_a_revision_of_one_replica_is_never_that_of_another_value(
    first: MemoryStorage, second: MemoryStorage, clock: Any, *, turned: bool
) -> None:
    async with both(first, second, clock) as (one, two):
        seen = [await one.store("common", "of one"), await two.store("common", "of two")]
        assert seen[0] == seen[1]

        await sync(*((second, first) if turned else (first, second)), SEED, clock=clock)

        for chamber in (one, two):
            with pytest.raises(Conflict):
                await chamber.update("common", "lost", seen[0])


@pytest.mark.asyncio
async def test_a_long_key_gets_another_one_that_fits(first: MemoryStorage, second: MemoryStorage, clock: Any) -> None:
    key = "ä" * 512
    async with both(first, second, clock) as (one, two):
        for number, chamber in enumerate((one, two)):
            await chamber.store(key, number)
            clock.now += 1

        [conflict] = (await sync(first, second, SEED, clock=clock)).conflicts

        assert await one.retrieve(conflict.kept_as) == 0
        assert await one.retrieve(key) == 1


@pytest.mark.asyncio
async def test_a_quota_that_one_has_changed_holds_for_both(
    first: MemoryStorage, second: MemoryStorage, clock: Any
) -> None:
    async with both(first, second, clock) as (one, two):
        await one.set_quota(200_000)
        await two.store("more", bytes(90_000))
        await sync(first, second, SEED, clock=clock)
        assert (await two.info()).quota == 200_000

        await two.store("of two", bytes(5000))
        await one.store("of one", bytes(5000))
        with pytest.raises(QuotaExceeded):
            await sync(first, second, SEED, clock=clock)
        assert (await check(one)).damaged == (await check(two)).damaged == ()


@pytest.mark.asyncio
async def test_three_replicas_of_which_one_meets_both_others_keep_deletions(
    first: MemoryStorage, second: MemoryStorage, clock: Any
) -> None:
    third = MemoryStorage()
    async with both(first, second, clock) as (one, two):
        await sync(third, second, SEED, clock=clock)
        async with await Chamber.open(third, SEED, clock=clock) as three:
            await one.delete("common")
            await one.store("of one", 1)
            await three.store("of three", 3)
            await three.delete("large")
            for spoke in (first, third, first):
                await sync(spoke, second, SEED, clock=clock)

            expected = {"of one": 1, "of three": 3}
            assert await values(one) == await values(two) == await values(three) == expected


# Keys


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.asyncio
async def test_new_recipients_and_a_new_data_key_reach_the_replica(
    first: MemoryStorage, second: MemoryStorage, clock: Any, *, turned: bool
) -> None:
    async with both(first, second, clock) as (one, two):
        await rekey(one, [OTHER_SEED])
        await rekey_data(one)
        await two.store("of two", bytes(70_000))  # under the old data key
        await two.store("common", "after")

        await sync(*((second, first) if turned else (first, second)), [SEED, OTHER_SEED], clock=clock)

    for storage in (first, second):
        with pytest.raises(WrongSecret):
            await Chamber.open(storage, SEED)
        async with await Chamber.open(storage, OTHER_SEED, clock=clock) as chamber:
            assert await values(chamber) == {"common": "after", "large": bytes(100_000), "of two": bytes(70_000)}
            assert not (await chamber.info()).is_rekeying
            assert (await check(chamber)).damaged == ()


@pytest.mark.asyncio
async def test_replicas_that_were_both_rekeyed_are_refused(
    first: MemoryStorage, second: MemoryStorage, clock: Any
) -> None:
    async with both(first, second, clock) as (one, two):
        await rekey_data(one)
        await rekey_data(two)
        before = [await records(first), await records(second)]

        with pytest.raises(Conflict, match="both replicas were rekeyed"):
            await sync(first, second, SEED, clock=clock)

        assert [await records(first), await records(second)] == before


# What is refused


@pytest.mark.asyncio
async def test_different_chambers_are_refused(first: MemoryStorage, second: MemoryStorage) -> None:
    for storage in (first, second):
        await (await Chamber.create(storage, SEED)).close()
    before = [await records(first), await records(second)]

    with pytest.raises(NotAReplica):
        await sync(first, second, SEED)

    assert [await records(first), await records(second)] == before


@pytest.mark.asyncio
async def test_two_empty_stores_are_refused(first: MemoryStorage, second: MemoryStorage) -> None:
    with pytest.raises(NoChamber):
        await sync(first, second, SEED)


@pytest.mark.asyncio
async def test_the_beginning_of_another_chamber_is_refused(first: MemoryStorage, second: MemoryStorage) -> None:
    await (await Chamber.create(first, SEED)).close()
    await (await Chamber.create(second, SEED)).close()
    for key in [key async for key in second.list_keys()]:
        if not key.endswith(b"h"):
            await second.delete(key)

    with pytest.raises(NotAReplica):
        await sync(first, second, SEED)


@pytest.mark.asyncio
async def test_parts_of_a_chamber_are_to_be_repaired_first(first: MemoryStorage, second: MemoryStorage) -> None:
    await (await Chamber.create(first, SEED)).close()
    await sync(first, second, SEED)
    await second.delete(next(iter([key async for key in second.list_keys() if key.endswith(b"r")])))

    with pytest.raises(DamagedError, match="repair"):
        await sync(first, second, SEED)


@pytest.mark.asyncio
async def test_a_replica_that_was_put_back_is_found_out(
    first: MemoryStorage, second: MemoryStorage, clock: Any
) -> None:
    async with both(first, second, clock) as (one, _):
        earlier = {key: value or b"" for key, value in (await records(second)).items()}
        await one.store("common", "after")
        positions = (await sync(first, second, SEED, clock=clock)).positions
        await second.commit(earlier)

        with pytest.raises(RollbackDetected):
            await sync(first, second, SEED, expected=positions, clock=clock)

        assert await one.retrieve("common") == "after"


@pytest.mark.parametrize("damage", [None, b"x", bytes(61_456)])
@pytest.mark.asyncio
async def test_what_is_damaged_is_not_copied(
    first: MemoryStorage, second: MemoryStorage, clock: Any, damage: bytes | None
) -> None:
    async with both(first, second, clock) as (one, two):
        known = await records(second)
        await two.store("new", bytes(300_000))
        for key in await records(second):
            if key not in known and len(key) == 33:
                await (second.delete(key) if damage is None else second.store(key, damage))
                break

        with pytest.raises(DamagedError, match="chunk"):
            await sync(first, second, SEED, clock=clock)

        assert (await check(one)).damaged == ()
        assert "new" not in await one.list()


@pytest.mark.asyncio
async def test_what_a_repair_had_to_forget_comes_back_from_a_replica(
    first: MemoryStorage, second: MemoryStorage, clock: Any
) -> None:
    async with both(first, second, clock) as (one, two):
        known = await records(first)
        await one.store("new", bytes(70_000))
        await sync(first, second, SEED, clock=clock)
        await first.commit({}, [key for key in await records(first) if key not in known and len(key) == 33])
        assert [damage.what for damage in (await repair(first, [SEED])).lost] == ["new"]

        await sync(first, second, SEED, clock=clock)

        assert await values(one) == await values(two)
        assert await two.retrieve("new") == bytes(70_000)
        assert (await check(one)).damaged == ()


@pytest.mark.asyncio
async def test_a_copy_that_was_not_made_by_a_synchronisation_loses_nothing(tmp_path: Path, clock: Any) -> None:
    first, second = MemoryStorage(), MemoryStorage()
    async with await Chamber.create(first, SEED, clock=clock) as one:
        await one.store("common", "before")
        await one.store("same", bytes(5000))
        await export_chamber(first, tmp_path / "exported")
        await import_chamber(second, tmp_path / "exported")
        async with await Chamber.open(second, SEED, clock=clock) as two:
            clock.now += 1
            await two.store("common", "after")

            report = await sync(first, second, SEED, clock=clock)

            assert await one.retrieve("common") == "after"
            assert [await one.retrieve(conflict.kept_as) for conflict in report.conflicts] == ["before"]
            assert await two.retrieve("same") == bytes(5000)
            assert len(await one.list()) == 3


# Others at work


class Watched(MemoryStorage):
    """A store that lets somebody else act right before the root is replaced, and counts what is stored."""

    def __init__(self) -> None:
        super().__init__()
        self.before_root: Callable[[], Awaitable[object]] | None = None
        self.chunks: list[bytes] = []
        self.fails_at = -1

    async def store_if(self, key: bytes, value: bytes, expected_version: Version) -> Version | None:
        if key[16:] == b"r" and self.before_root is not None:
            act, self.before_root = self.before_root, None
            await act()
        return await super().store_if(key, value, expected_version)

    async def commit(self, puts: Mapping[bytes, bytes], deletes: Sequence[bytes] = ()) -> None:
        self.chunks += [key for key in puts if len(key) == 33]
        if 0 <= self.fails_at < len(self.chunks):
            raise asyncio.CancelledError
        await super().commit(puts, deletes)


@pytest.mark.asyncio
async def test_a_change_that_comes_first_is_merged_as_well(first: MemoryStorage, clock: Any) -> None:
    second = Watched()
    async with both(first, second, clock) as (one, two):
        await one.store("of one", 1)
        second.before_root = lambda: two.store("of two", 2)

        await sync(first, second, SEED, clock=clock)

        assert await values(one) == await values(two)
        assert {"of one", "of two"} <= {*await one.list()}


@pytest.mark.asyncio
async def test_what_was_taken_over_and_then_changed_again_is_no_conflict(second: MemoryStorage, clock: Any) -> None:
    first = Watched()
    async with both(first, second, clock) as (one, two):
        await one.store("of one", bytes(3000))
        await one.store("gone", 1)
        await two.store("of two", 2)

        async def change() -> None:
            await one.store("of one", bytes(4000))
            await one.delete("gone")

        first.before_root = change
        report = await sync(first, second, SEED, clock=clock)

        assert report.conflicts == ()
        assert await values(one) == await values(two)
        assert (await one.retrieve("of one"), await one.exists("gone")) == (bytes(4000), False)


@pytest.mark.asyncio
async def test_a_replica_that_never_rests_is_given_up(second: MemoryStorage, clock: Any) -> None:
    first = Watched()
    async with both(first, second, clock) as (one, two):
        await two.store("of two", 2)
        tries = 0

        async def change() -> None:
            nonlocal tries
            tries += 1
            await one.store("of one", tries)
            first.before_root = change

        await change()
        with pytest.raises(Conflict, match="again and again"):
            await sync(first, second, SEED, clock=clock)

        assert tries >= MAX_TRIES
        assert (await check(two)).damaged == ()


@pytest.mark.asyncio
async def test_both_are_used_while_they_are_synchronised(tmp_path: Path, clock: Any) -> None:
    first, second = (SQLiteStorage(f"sqlite://{tmp_path}/{number}") for number in (1, 2))
    async with both(first, second, clock) as (one, two):

        async def use(chamber: Chamber, name: str) -> None:
            for number in range(30):
                clock.now += 0.001
                await chamber.store(f"{name} {number % 7}", bytes(number * 1000))
                await asyncio.sleep(0.002)  # the others' turn

        async def keep_synchronising() -> None:
            while not all(user.done() for user in users):
                with contextlib.suppress(Conflict):
                    await sync(first, second, SEED, clock=clock)

        users = [asyncio.create_task(use(one, "one")), asyncio.create_task(use(two, "two"))]
        await asyncio.gather(keep_synchronising(), *users)
        await sync(first, second, SEED, clock=clock)

        found = await values(one)
        assert found == await values(two)
        for name in ("one", "two"):
            assert [len(found[f"{name} {number}"]) for number in range(7)] == [
                1000 * max(each for each in range(30) if each % 7 == number) for number in range(7)
            ]
        assert (await check(one)).damaged == (await check(two)).damaged == ()
    await first.close()
    await second.close()


@pytest.mark.asyncio
async def test_what_was_broken_off_goes_on_where_it_was(first: MemoryStorage) -> None:
    second = Watched()
    async with await Chamber.create(first, SEED) as one:
        async with one.open_writer("large") as writer:
            for _ in range(100):
                await writer.write(bytes(61_440))
        for fails_at in (40, 80):
            second.fails_at = fails_at
            with pytest.raises(asyncio.CancelledError):
                await sync(first, second, SEED)
        second.fails_at = -1
        report = await sync(first, second, SEED)

        assert await records(first) == await records(second)
        assert report.copied[1] < 80 * 61_456
