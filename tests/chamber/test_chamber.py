"""Does a chamber keep values of any kind and size, on every backend, whoever else uses it?"""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from stt_chamber import (
    Chamber,
    Conflict,
    DamagedError,
    KeyMissing,
    NoChamber,
    Passphrase,
    QuotaExceeded,
    RollbackDetected,
    Seed,
    WrongSecret,
)
from stt_chamber.entries import Reference
from stt_chamber.rekey import rekey_data
from stt_chamber.upkeep import repair
from stt_chamber.values import Put
from stt_core.defaults.memory_storage import MemoryStorage
from stt_core.errors import ConfigError, LocalError, SerializationError, StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from stt_core.interfaces import StorageProvider

LARGE = random.Random(1).randbytes(300_000)


@asynccontextmanager
async def new_chamber(storage: StorageProvider, seed: Seed, **options: Any) -> AsyncIterator[Chamber]:
    chamber = await Chamber.create(storage, seed, **options)
    try:
        yield chamber
    finally:
        await chamber.close()
        await storage.close()


# Values


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"x",
        LARGE,
        None,
        True,
        7,
        -1.5,
        "text",
        [1, [b"two", {"three": 3}]],
        {"a": None, "b": [False]},
        "x" * 9000,
    ],
    ids=lambda value: f"{type(value).__name__} of {len(repr(value))}",
)
@pytest.mark.asyncio
async def test_a_value_comes_back_as_what_it_was(memory: StorageProvider, seed: Seed, value: Any) -> None:
    async with new_chamber(memory, seed) as chamber:
        await chamber.store("key", value)

        found = await chamber.retrieve("key")

        assert found == value
        assert type(found) is type(value)


@pytest.mark.asyncio
async def test_every_backend_keeps_values_over_a_reopening(
    make_storage: Callable[[], StorageProvider], seed: Seed
) -> None:
    storage = make_storage()
    chamber = await Chamber.create(storage, seed)
    await chamber.store("small", {"number": 1})
    await chamber.store("large", LARGE)
    await chamber.close()
    if storage.capabilities.durable:
        await storage.close()
        storage = make_storage()

    async with await Chamber.open(storage, seed, expected=chamber.position) as reopened:
        assert await reopened.list() == ["large", "small"]
        assert await reopened.retrieve("small") == {"number": 1}
        assert await reopened.retrieve("large") == LARGE
    await storage.close()


@pytest.mark.asyncio
async def test_a_missing_key_is_an_error_to_read_and_none_to_delete(memory: StorageProvider, seed: Seed) -> None:
    async with new_chamber(memory, seed) as chamber:
        await chamber.store("key", 1)

        assert await chamber.delete("key")
        assert not await chamber.delete("key")
        assert not await chamber.exists("key")
        for read in (chamber.retrieve, chamber.metadata):
            with pytest.raises(KeyMissing, match="'key'"):
                await read("key")


@pytest.mark.parametrize("key", ["", "k" * 1025, "\ud800", b"bytes", None])
@pytest.mark.asyncio
async def test_what_cannot_be_a_key_is_refused(memory: StorageProvider, seed: Seed, key: Any) -> None:
    async with new_chamber(memory, seed) as chamber:
        with pytest.raises(ConfigError):
            await chamber.store(key, 1)


@pytest.mark.asyncio
async def test_what_cannot_be_serialized_is_refused(memory: StorageProvider, seed: Seed) -> None:
    async with new_chamber(memory, seed) as chamber:
        with pytest.raises(SerializationError):
            await chamber.store("key", object())


@pytest.mark.asyncio
async def test_keys_are_listed_by_prefix_and_page_in_order(memory: StorageProvider, seed: Seed) -> None:
    keys = sorted(f"{group}/{number}" for group in ("a", "ab", "ö", "z") for number in range(40))
    async with new_chamber(memory, seed) as chamber:
        await asyncio.gather(*(chamber.store(key, b"x" * 1500) for key in reversed(keys)))
        await chamber.ledger.merge()
        await chamber.delete("a/7")
        keys.remove("a/7")

        assert await chamber.list() == keys
        assert await chamber.list("ab/") == [key for key in keys if key.startswith("ab/")]
        assert await chamber.list("nothing") == []
        assert await chamber.list(limit=0) == []
        pages: list[str] = []
        while page := await chamber.list("a", after=pages[-1] if pages else "", limit=7):
            pages += page
        assert pages == [key for key in keys if key.startswith("a")]


@pytest.mark.asyncio
async def test_metadata_tells_what_a_value_is(memory: StorageProvider, seed: Seed, clock: Any) -> None:
    async with new_chamber(memory, seed, clock=clock) as chamber:
        revision = await chamber.store("key", b"12345", ttl=60)

        found = await chamber.metadata("key")

        assert (found.key, found.size, found.is_serialized, found.revision) == ("key", 5, False, revision)
        assert (found.modified_at, found.expires_at) == (clock.now, clock.now + 60)


# Compare and swap, batches


@pytest.mark.asyncio
async def test_an_update_needs_the_right_revision(memory: StorageProvider, seed: Seed) -> None:
    async with new_chamber(memory, seed) as chamber:
        first = await chamber.update("key", 1, 0)
        second = await chamber.update("key", LARGE, first)
        for wrong in (0, first, second + 1):
            with pytest.raises(Conflict):
                await chamber.update("key", 3, wrong)

        assert await chamber.retrieve("key") == LARGE


@pytest.mark.asyncio
async def test_tasks_and_chambers_that_count_one_number_up_lose_none(
    make_storage: Callable[[], StorageProvider], seed: Seed
) -> None:
    storage = make_storage()
    chambers = [await Chamber.create(storage, seed), await Chamber.open(storage, seed)]

    async def count_up(chamber: Chamber) -> None:
        for _ in range(10):
            while True:
                revision, number = 0, 0
                if await chamber.exists("number"):
                    revision = (await chamber.metadata("number")).revision
                    number = await chamber.retrieve("number")
                try:
                    await chamber.update("number", number + 1, revision)
                except Conflict:
                    continue
                break

    await chambers[0].store("number", 0)
    await asyncio.gather(*(count_up(chamber) for chamber in chambers for _ in range(3)))

    assert await chambers[0].retrieve("number") == 60
    for chamber in chambers:
        await chamber.close()
    await storage.close()


@pytest.mark.asyncio
async def test_a_batch_is_made_whole(memory: StorageProvider, seed: Seed) -> None:
    async with new_chamber(memory, seed) as chamber:
        await chamber.store("old", 1)
        async with chamber.batch() as batch:
            await batch.store("new", {"a": 1})
            await batch.store("large", LARGE)
            batch.delete("old")
            assert await chamber.list() == ["old"]

        assert await chamber.list() == ["large", "new"]
        assert await chamber.retrieve("large") == LARGE
        assert batch.revisions == [(await chamber.metadata(key)).revision for key in ("new", "large")]


@pytest.mark.asyncio
async def test_a_batch_that_raises_changes_nothing_and_leaves_nothing(memory: StorageProvider, seed: Seed) -> None:
    async with new_chamber(memory, seed, quota=1000) as chamber:
        await chamber.store("old", b"1")
        chunks = [key async for key in memory.list_keys()]

        with pytest.raises(RuntimeError):  # noqa: PT012  the end of the context is what counts
            async with chamber.batch() as batch:
                await batch.store("large", LARGE)
                batch.delete("old")
                raise RuntimeError
        with pytest.raises(QuotaExceeded):  # noqa: PT012  as above
            async with chamber.batch() as batch:
                batch.delete("old")
                await batch.store("large", LARGE)

        assert await chamber.list() == ["old"]
        assert [key async for key in memory.list_keys()] == chunks


# Large values


@pytest.mark.parametrize("size", [0, 1, 2048, 2049, 61_439, 61_440, 61_441, 2 * 61_440, 1_000_000])
@pytest.mark.asyncio
async def test_what_is_written_in_pieces_is_read_in_pieces(memory: StorageProvider, seed: Seed, size: int) -> None:
    data = random.Random(size).randbytes(size)
    async with new_chamber(memory, seed) as chamber:
        async with chamber.open_writer("key") as writer:
            for start in range(0, size, 7919):
                await writer.write(data[start : start + 7919])

        assert await chamber.retrieve("key") == data
        for offset, length in ((0, None), (size // 3, 1000), (size // 2, None), (size, 5), (size + 9, None), (0, 0)):
            async with chamber.open_reader("key", offset=offset, length=length) as reader:
                assert reader.size == size
                expected = data[offset:] if length is None else data[offset : offset + length]
                assert b"".join([piece async for piece in reader]) == expected


@pytest.mark.asyncio
async def test_a_writer_that_fails_leaves_the_old_value_and_no_chunk(memory: StorageProvider, seed: Seed) -> None:
    async with new_chamber(memory, seed) as chamber:
        await chamber.store("key", b"old")
        keys = [key async for key in memory.list_keys()]

        with pytest.raises(RuntimeError):  # noqa: PT012  the end of the context is what counts
            async with chamber.open_writer("key") as writer:
                for _ in range(50):
                    await writer.write(LARGE[:100_000])
                raise RuntimeError

        assert await chamber.retrieve("key") == b"old"
        assert [key async for key in memory.list_keys()] == keys


@pytest.mark.asyncio
async def test_a_reader_ends_what_it_began_though_the_value_is_replaced(memory: StorageProvider, seed: Seed) -> None:
    async with new_chamber(memory, seed) as chamber:
        await chamber.store("key", LARGE)
        async with chamber.open_reader("key") as reader:
            pieces = [await anext(reader)]
            await chamber.store("key", b"new")
            await chamber.ledger.wait_idle()
            pieces += [piece async for piece in reader]

        assert b"".join(pieces) == LARGE
        chunks = [key async for key in memory.list_keys(chamber.ledger.names.objects)]
        assert chunks == []


@pytest.mark.asyncio
async def test_a_reader_whose_value_another_process_replaced_says_so(memory: StorageProvider, seed: Seed) -> None:
    async with new_chamber(memory, seed) as chamber, await Chamber.open(memory, seed) as other:
        await chamber.store("key", bytes(1_000_000))
        async with chamber.open_reader("key") as reader:
            await anext(reader)
            await other.store("key", b"new")
            await other.ledger.wait_idle()
            with pytest.raises(Conflict, match="replaced"):
                [piece async for piece in reader]


@pytest.mark.asyncio
async def test_content_is_stored_once_under_its_hash(memory: StorageProvider, seed: Seed) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(LARGE), 1000):
            yield LARGE[start : start + 1000]

    async with new_chamber(memory, seed) as chamber:
        address = await chamber.store_content(LARGE)
        keys = [key async for key in memory.list_keys()]

        assert await chamber.store_content(pieces()) == address
        assert [key async for key in memory.list_keys()] == keys
        assert (await chamber.info()).size == len(LARGE)
        assert await chamber.retrieve(address) == LARGE
        with pytest.raises(ConfigError):
            await chamber.store(address, b"another")


# Expiry, quota


@pytest.mark.asyncio
async def test_a_value_is_gone_when_its_time_is_over(memory: StorageProvider, seed: Seed, clock: Any) -> None:
    async with new_chamber(memory, seed, clock=clock) as chamber:
        await chamber.store("short", LARGE, ttl=10)
        await chamber.store("long", 1, ttl=20)
        clock.now += 10

        assert await chamber.list() == ["long"]
        assert not await chamber.exists("short")
        assert not await chamber.delete("short")
        assert await chamber.update("short", b"new", 0)
        clock.now += 10
        assert await chamber.sweep() == 1
        assert (await chamber.info()).count == 1


@pytest.mark.asyncio
async def test_a_quota_refuses_what_is_too_much_and_expired_values_make_room(
    memory: StorageProvider, seed: Seed, clock: Any
) -> None:
    async with new_chamber(memory, seed, clock=clock, quota=400_000) as chamber:
        await chamber.store("a", LARGE, ttl=10)
        chunks = [key async for key in memory.list_keys()]
        with pytest.raises(QuotaExceeded):
            await chamber.store("b", LARGE)
        assert [key async for key in memory.list_keys()] == chunks
        assert await chamber.list() == ["a"]

        await chamber.store("a", LARGE[:-1], ttl=10)  # no more than before
        clock.now += 10
        await chamber.store("b", LARGE)

        assert (await chamber.info()).size == len(LARGE)
        await chamber.set_quota(10)
        await chamber.delete("b")
        with pytest.raises(QuotaExceeded):
            await chamber.store("b", b"x" * 11)
        await chamber.set_quota(None)
        await chamber.store("b", LARGE)


# Opening


@pytest.mark.asyncio
async def test_each_name_is_a_chamber_of_its_own_that_is_made_once(memory: StorageProvider, seed: Seed) -> None:
    async with new_chamber(memory, seed) as first, await Chamber.create(memory, seed, name="second") as second:
        await first.store("key", 1)
        await second.store("key", 2)

        assert (await first.retrieve("key"), await second.retrieve("key")) == (1, 2)
        with pytest.raises(Conflict):
            await Chamber.create(memory, seed)
        with pytest.raises(NoChamber):
            await Chamber.open(memory, seed, name="third")


@pytest.mark.asyncio
async def test_only_its_secrets_open_a_chamber(memory: StorageProvider, seed: Seed, other_seed: Seed) -> None:
    secrets: list[Seed | Passphrase] = [seed, Passphrase("correct horse")]
    async with await Chamber.create(memory, secrets) as chamber:
        await chamber.store("key", 1)

    async with await Chamber.open(memory, Passphrase("correct horse")) as chamber:
        assert await chamber.retrieve("key") == 1
    for wrong in (other_seed, Passphrase("wrong horse")):
        with pytest.raises(WrongSecret):
            await Chamber.open(memory, wrong)


@pytest.mark.parametrize("make", [lambda: Seed(b"short"), lambda: Passphrase(""), lambda: Seed(None)])  # type: ignore[arg-type]  # what is tested
def test_what_cannot_be_a_secret_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ConfigError):
        make()


def test_secrets_are_not_shown(seed: Seed) -> None:
    assert "x" not in repr(Passphrase("xxxxxxx"))
    assert seed.value.hex()[:8] not in repr(seed)
    assert repr(seed) == "Seed()"


@pytest.mark.asyncio
async def test_a_chamber_whose_making_was_interrupted_is_made_by_the_next(memory: StorageProvider, seed: Seed) -> None:
    async with await Chamber.create(memory, seed) as chamber:
        names = chamber.ledger.names
    for left_to_write in (names.root, names.root_copy, names.header_copy):
        await memory.delete(left_to_write)

    async with new_chamber(memory, seed) as chamber:
        assert await chamber.list() == []


@pytest.mark.asyncio
async def test_a_closed_chamber_refuses_and_waits_for_what_is_under_way(memory: StorageProvider, seed: Seed) -> None:
    chamber = await Chamber.create(memory, seed)
    storing = asyncio.create_task(chamber.store("key", 1))
    await asyncio.sleep(0)
    await chamber.close()
    await chamber.close()

    assert await storing
    for call in (chamber.retrieve("key"), chamber.store("key", 2), chamber.list(), chamber.info()):
        with pytest.raises(LocalError, match="closed"):
            await call


@pytest.mark.asyncio
async def test_failures_of_the_storage_are_storage_errors(memory: StorageProvider, seed: Seed) -> None:
    chamber = await Chamber.create(memory, seed)
    await memory.close()

    for call in (chamber.retrieve("key"), chamber.store("key", 2), chamber.store("key", LARGE), chamber.list()):
        with pytest.raises(StorageError):
            await call
    await chamber.close()


# Several who use one chamber


@pytest.mark.asyncio
async def test_what_one_changes_others_see(make_storage: Callable[[], StorageProvider], seed: Seed) -> None:
    storage = make_storage()
    async with await Chamber.create(storage, seed) as one, await Chamber.open(storage, seed) as other:
        for number in range(60):
            await one.store(f"{number:02}", b"x" * 2000)
            assert await other.retrieve(f"{number:02}") == b"x" * 2000
        await one.ledger.merge()
        await other.store("large", LARGE)
        await other.delete("00")

        assert await one.retrieve("large") == LARGE
        assert await one.list() == await other.list()
        assert len(await one.list()) == 60
    await storage.close()


@pytest.mark.asyncio
async def test_a_cancelled_change_is_made_or_not(memory: StorageProvider, seed: Seed) -> None:
    async with new_chamber(memory, seed) as chamber:
        await chamber.store("key", b"old")
        for moment in range(12):
            storing = asyncio.create_task(chamber.store("key", LARGE))
            for _ in range(moment):
                await asyncio.sleep(0)
            storing.cancel()
            await asyncio.wait({storing})
            assert await chamber.retrieve("key") in (b"old", LARGE)


# Rollback


@pytest.mark.asyncio
async def test_an_earlier_state_is_noticed_by_who_has_seen_a_later_one(memory: StorageProvider, seed: Seed) -> None:
    chamber = await Chamber.create(memory, seed)
    await chamber.store("key", 1)
    before = {key: await memory.retrieve(key) async for key in memory.list_keys()}
    await chamber.store("key", 2)
    for key, value in before.items():
        assert value is not None
        await memory.store(key, value)

    with pytest.raises(RollbackDetected):
        await chamber.retrieve("key")
    with pytest.raises(RollbackDetected):
        await Chamber.open(memory, seed, expected=chamber.position)
    async with await Chamber.open(memory, seed) as unaware:
        assert await unaware.retrieve("key") == 1
        # From there on it is another history, of the same length.
        await unaware.store("key", 3)
        with pytest.raises(RollbackDetected):
            await Chamber.open(memory, seed, expected=chamber.position)
    await chamber.close()


@pytest.mark.asyncio
async def test_a_value_cannot_be_put_back_by_itself(memory: StorageProvider, seed: Seed) -> None:
    async with new_chamber(memory, seed) as chamber:
        await chamber.store("key", LARGE)
        before = {key: await memory.retrieve(key) async for key in memory.list_keys(chamber.ledger.names.objects)}
        await chamber.store("key", LARGE[::-1])
        await chamber.ledger.wait_idle()
        after = [key async for key in memory.list_keys(chamber.ledger.names.objects)]
        for new, old in zip(after, before.values(), strict=True):
            assert old is not None
            await memory.store(new, old)

        with pytest.raises(DamagedError, match="key"):
            await chamber.retrieve("key")


@pytest.mark.asyncio
async def test_nothing_readable_lies_in_the_store(memory: StorageProvider, seed: Seed) -> None:
    async with new_chamber(memory, seed) as chamber:
        for number in range(40):
            await chamber.store(f"plain key {number}", b"plain value " * 100)
        await chamber.store("plain key", b"plain value " * 10_000)
        await chamber.ledger.merge()

        lying = [(key, await memory.retrieve(key)) async for key in memory.list_keys()]

    for key, value in lying:
        assert value is not None
        assert b"plain" not in key + value
        assert seed.value not in value


# What goes wrong


@pytest.mark.parametrize("ttl", [-1, float("nan"), float("inf"), 1e300])
@pytest.mark.asyncio
async def test_a_time_to_live_that_is_none_is_refused(memory: StorageProvider, seed: Seed, ttl: float) -> None:
    async with new_chamber(memory, seed) as chamber:
        for use in (
            lambda: chamber.store("key", 1, ttl=ttl),
            lambda: chamber.update("key", 1, 0, ttl=ttl),
            lambda: chamber.batch().store("key", 1, ttl=ttl),
        ):
            with pytest.raises(ConfigError):
                await use()
        with pytest.raises(ConfigError):
            chamber.open_writer("key", ttl=ttl)


@pytest.mark.parametrize("quota", [-1, 0.5, "7", 1 << 64])
@pytest.mark.asyncio
async def test_a_quota_that_is_none_is_refused(memory: StorageProvider, seed: Seed, quota: Any) -> None:
    with pytest.raises(ConfigError):
        await Chamber.create(memory, seed, quota=quota)
    async with new_chamber(memory, seed) as chamber:
        with pytest.raises(ConfigError):
            await chamber.set_quota(quota)

        await chamber.store("key", 1)


@pytest.mark.asyncio
async def test_what_is_no_text_is_refused(memory: StorageProvider, seed: Seed) -> None:
    with pytest.raises(ConfigError):
        await Chamber.create(memory, seed, name="\ud800")
    async with new_chamber(memory, seed) as chamber:
        with pytest.raises(ConfigError):
            await chamber.list("\ud800")


@pytest.mark.asyncio
async def test_a_change_that_is_cancelled_and_then_fails_harms_no_other(memory: StorageProvider, seed: Seed) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def fail(_: Any) -> None:
        begun.set()
        await go_on.wait()
        raise Conflict("too late")

    async with new_chamber(memory, seed) as chamber:
        failing = asyncio.create_task(chamber.ledger.change(fail))
        storing = asyncio.create_task(chamber.store("key", 1))
        await begun.wait()
        failing.cancel()
        await asyncio.wait({failing})
        go_on.set()

        assert await storing
        assert await chamber.retrieve("key") == 1


class FailingStorage(MemoryStorage):
    """A store whose commits fail when told to."""

    fails = False

    async def commit(self, puts: Mapping[bytes, bytes], deletes: Sequence[bytes] = ()) -> None:
        if self.fails:
            raise StorageError("full")
        await super().commit(puts, deletes)


@pytest.mark.asyncio
async def test_a_writer_that_goes_on_after_a_failure_stores_nothing(seed: Seed) -> None:
    storage = FailingStorage()
    async with new_chamber(storage, seed) as chamber:
        await chamber.store("key", b"old")
        with pytest.raises(StorageError, match="earlier"):  # noqa: PT012  the end of the context is what counts
            async with chamber.open_writer("key") as writer:
                storage.fails = True
                with pytest.raises(StorageError, match="full"):
                    await writer.write(bytes(4_000_000))
                storage.fails = False

        assert await chamber.retrieve("key") == b"old"
        assert [key async for key in storage.list_keys(chamber.ledger.names.objects)] == []


@pytest.mark.asyncio
async def test_a_part_of_a_value_costs_as_much_as_that_part(memory: StorageProvider, seed: Seed) -> None:
    async with new_chamber(memory, seed) as chamber:
        endless = Reference(bytes(16), 1, 1 << 60)  # no such object: its chunks are missed one by one

        with pytest.raises(DamagedError, match="missing"):
            await anext(chamber.ledger.objects.chunks(endless, 1 << 59, 1 << 60))


@pytest.mark.asyncio
async def test_a_chamber_that_lost_its_header_is_not_made_anew(memory: StorageProvider, seed: Seed) -> None:
    async with await Chamber.create(memory, seed) as chamber:
        await chamber.store("key", 1)
        names = chamber.ledger.names
    await memory.delete(names.header)

    with pytest.raises(Conflict):
        await Chamber.create(memory, seed)
    await repair(memory, [seed])

    async with await Chamber.open(memory, seed) as chamber:
        assert await chamber.retrieve("key") == 1


@pytest.mark.asyncio
async def test_another_chamber_of_the_same_owner_in_its_place_is_noticed(memory: StorageProvider, seed: Seed) -> None:
    async with await Chamber.create(memory, seed) as chamber, await Chamber.create(memory, seed, name="b") as other:
        for number in range(5):
            await other.store("key", number)
        await rekey_data(other)
        position = chamber.position
        names, others = chamber.ledger.names, other.ledger.names
        for name, source in ((names.header, others.header), (names.root, others.root)):
            record = await memory.retrieve(source)
            assert record is not None
            await memory.store(name, record)

        with pytest.raises(RollbackDetected):
            await chamber.list()
        with pytest.raises(RollbackDetected):
            await Chamber.open(memory, seed, expected=position)


@pytest.mark.asyncio
async def test_values_are_not_shown() -> None:
    assert "secret" not in repr(Put(b"key", 0, b"secret", None, 0))
