"""Do new keys shut out whom they should, while the values stay and can be used?"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

from stt_chamber import Chamber, Conflict, DamagedError, Passphrase, Seed, WrongSecret
from stt_chamber.header import Header
from stt_chamber.rekey import add_recipient, rekey, rekey_data
from stt_chamber.upkeep import check
from stt_core.defaults.memory_storage import MemoryStorage
from stt_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from stt_core.interfaces import StorageProvider, Version

LARGE = random.Random(3).randbytes(150_000)


async def fill(chamber: Chamber) -> None:
    for number in range(30):
        await chamber.store(f"{number:02}", LARGE[: number * 1000])
    await chamber.ledger.merge()
    await chamber.store("last", LARGE)


@pytest.mark.asyncio
async def test_another_recipient_opens_the_same_values(memory: StorageProvider, seed: Seed) -> None:
    passphrase = Passphrase("correct horse")
    async with await Chamber.create(memory, seed) as chamber:
        await fill(chamber)
        await add_recipient(chamber, passphrase)
        assert (await chamber.info()).recipients == 2

    for secret in (seed, passphrase):
        async with await Chamber.open(memory, secret) as chamber:
            assert await chamber.retrieve("last") == LARGE


@pytest.mark.asyncio
async def test_recipients_are_limited(memory: StorageProvider, seed: Seed) -> None:
    async with await Chamber.create(memory, [seed] * 16) as chamber:
        with pytest.raises(ConfigError, match="16"):
            await add_recipient(chamber, seed)
        for count in (0, 17):
            with pytest.raises(ConfigError):
                await rekey(chamber, [seed] * count)


@pytest.mark.asyncio
async def test_a_rekey_shuts_out_at_once_whoever_is_not_named(
    make_storage: Callable[[], StorageProvider], seed: Seed, other_seed: Seed
) -> None:
    storage = make_storage()
    async with await Chamber.create(storage, seed) as chamber:
        await fill(chamber)
        chunks = {key async for key in storage.list_keys(chamber.ledger.names.objects)}

        await rekey(chamber, [other_seed])

        assert {key async for key in storage.list_keys(chamber.ledger.names.objects)} == chunks
        assert await chamber.retrieve("last") == LARGE
        await chamber.store("more", 1)
    with pytest.raises(WrongSecret):
        await Chamber.open(storage, seed)
    async with await Chamber.open(storage, other_seed) as chamber:
        assert await chamber.retrieve("more") == 1
        assert (await check(chamber)).damaged == ()
    await storage.close()


@pytest.mark.asyncio
async def test_an_older_header_that_is_put_back_is_noticed(
    memory: StorageProvider, seed: Seed, other_seed: Seed
) -> None:
    async with await Chamber.create(memory, seed) as chamber:
        names = chamber.ledger.names
        old = await memory.retrieve(names.header)
        assert old is not None
        await rekey(chamber, [other_seed])
    await memory.store(names.header, old)

    with pytest.raises(DamagedError, match="header"):
        await Chamber.open(memory, seed)


@pytest.mark.asyncio
async def test_after_a_new_data_key_the_old_one_opens_nothing(memory: StorageProvider, seed: Seed) -> None:
    async with await Chamber.create(memory, seed) as chamber:
        await fill(chamber)
        names = chamber.ledger.names
        old_header = await memory.retrieve(names.header)
        before = {key: (await chamber.metadata(key)).revision for key in await chamber.list()}
        old_chunks = {key async for key in memory.list_keys(names.objects)}
        assert old_header is not None

        told: list[int] = []
        await rekey_data(chamber, told.append)

        assert {key: (await chamber.metadata(key)).revision for key in await chamber.list()} == before
        assert not old_chunks & {key async for key in memory.list_keys(names.objects)}
        assert await chamber.retrieve("last") == LARGE
        report = await check(chamber)
        assert (report.damaged, report.orphans) == ((), 0)
        info = await chamber.info()
        assert (info.epoch, info.is_rekeying) == (2, False)
        assert sum(told) > len(LARGE)

    old_keyring = Header.decode(old_header).unlock([seed]).keyring
    assert old_keyring.epochs == {1}
    for key in (names.root, names.root_copy):
        root = await memory.retrieve(key)
        assert root is not None
        assert int.from_bytes(root[1:5], "big") == 2


@pytest.mark.asyncio
async def test_an_interrupted_change_of_the_data_key_goes_on(memory: StorageProvider, seed: Seed) -> None:
    for steps in range(1, 16, 2):
        chamber = await Chamber.create(memory, seed, name=f"{steps}")
        await fill(chamber)
        await stop_rekey_after(steps, chamber)
        assert (await chamber.info()).is_rekeying
        await chamber.close()

        async with await Chamber.open(memory, seed, name=f"{steps}") as again:
            assert await again.retrieve("last") == LARGE
            await rekey_data(again)
            info = await again.info()
            assert (info.epoch, info.is_rekeying) == (2, False)
            assert await again.retrieve("last") == LARGE
            assert (await check(again)).damaged == ()


async def stop_rekey_after(steps: int, chamber: Chamber) -> None:
    """Begin to change the data key, and cancel that when some values have been written anew."""
    done = 0

    def stop(_: int) -> None:
        nonlocal done
        done += 1
        if done == steps:
            changing.cancel()

    changing = asyncio.create_task(rekey_data(chamber, stop))
    await asyncio.wait({changing})
    assert changing.cancelled()


@pytest.mark.asyncio
async def test_others_use_the_chamber_while_its_data_key_changes(memory: StorageProvider, seed: Seed) -> None:
    async with await Chamber.create(memory, seed) as chamber, await Chamber.open(memory, seed) as other:
        await fill(chamber)
        changing = asyncio.create_task(rekey_data(chamber))
        number = 0
        while not changing.done():
            await other.store(f"new {number}", LARGE[:5000])
            assert await other.retrieve(f"new {number}") == LARGE[:5000]
            assert await other.retrieve("29") == LARGE[:29_000]
            number += 1
            await asyncio.sleep(0)
        await changing

        assert number > 1
        assert len(await other.list("new")) == number
        report = await check(other)
        assert (report.damaged, report.orphans) == ((), 0)


@pytest.mark.asyncio
async def test_a_value_whose_writing_began_under_the_old_key_is_refused(memory: StorageProvider, seed: Seed) -> None:
    async with await Chamber.create(memory, seed) as chamber, await Chamber.open(memory, seed) as other:
        writer = other.open_writer("key")
        await writer.__aenter__()
        await writer.write(LARGE)
        await rekey_data(chamber)

        with pytest.raises(Conflict, match="again"):
            await writer.__aexit__(None, None, None)

        assert await chamber.list() == []
        assert (await check(chamber)).damaged == ()


class OvertakenStorage(MemoryStorage):
    """A store in which somebody else does something right after a compare-and-swap."""

    meanwhile: Callable[[], Awaitable[None]] | None = None

    async def store_if(self, key: bytes, value: bytes, expected_version: Version) -> Version | None:
        version = await super().store_if(key, value, expected_version)
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            await meanwhile()
        return version


@pytest.mark.asyncio
async def test_whoever_waits_while_another_shuts_us_out_learns_of_it(
    seed: Seed, other_seed: Seed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stt_chamber.ledger.MAX_SEGMENTS", 1)  # so that the first segment is merged at once
    storage = OvertakenStorage()
    async with await Chamber.create(storage, seed) as chamber, await Chamber.open(storage, seed) as other:
        waiting: list[asyncio.Task[int]] = []

        async def shut_out() -> None:
            waiting.append(asyncio.create_task(chamber.store("waits", 1)))
            await asyncio.sleep(0)
            await rekey(other, [other_seed])

        storage.meanwhile = shut_out
        async with chamber.batch() as batch:
            for number in range(10):
                await batch.store(f"{number}", bytes(2000))

        with pytest.raises(WrongSecret):
            await waiting[0]
