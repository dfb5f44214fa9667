"""Are changes merged before they take much memory, and pages written anew only now and then?"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from stt_chamber import Chamber, Seed
from stt_chamber.ledger import MAX_SEGMENTS, MAX_SEGMENTS_SIZE
from stt_core.defaults.memory_storage import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class CountingStorage(MemoryStorage):
    """Counts the bytes of objects that are stored."""

    def __init__(self) -> None:
        super().__init__()
        self.stored = 0

    async def commit(self, puts: Mapping[bytes, bytes], deletes: Sequence[bytes] = ()) -> None:
        self.stored += sum(map(len, puts.values()))
        await super().commit(puts, deletes)


@pytest.mark.asyncio
async def test_large_batches_do_not_pile_up_in_memory(seed: Seed) -> None:
    async with await Chamber.create(MemoryStorage(), seed) as chamber:
        for round_ in range(6):
            async with chamber.batch() as batch:
                for number in range(600):
                    await batch.store(f"{round_}/{number}", bytes(2000))
            await chamber.ledger.wait_idle()
            segments = (await chamber.ledger.refresh()).root.segments

            assert sum(segment.size for segment in segments) < MAX_SEGMENTS_SIZE

        assert len(await chamber.list(limit=10_000)) == 3600


@pytest.mark.asyncio
async def test_many_small_changes_write_the_pages_anew_only_now_and_then(seed: Seed) -> None:
    storage = CountingStorage()
    chance = random.Random(1)
    async with await Chamber.create(storage, seed) as chamber:
        async with chamber.batch() as batch:
            for number in range(10_000):
                await batch.store(f"key {number:05}", chance.randbytes(100))
        await chamber.ledger.merge()
        storage.stored = 0
        changed = 0
        for _ in range(250):
            async with chamber.batch() as batch:
                for _ in range(100):
                    await batch.store(f"key {chance.randrange(10_000):05}", chance.randbytes(100))
                    changed += 109
            assert len((await chamber.ledger.refresh()).root.segments) <= MAX_SEGMENTS
        await chamber.ledger.wait_idle()

    assert storage.stored < 4 * changed
