"""Is an export a chamber, whatever else is in the file or in the store?"""

from __future__ import annotations

import functools
import hashlib
import os
import stat
import struct
from typing import TYPE_CHECKING

import pytest

from stt_chamber import Chamber, Conflict, DamagedError, Seed
from stt_chamber.archive import export_chamber, import_chamber
from stt_chamber.keys import namespace
from stt_chamber.ledger import Names
from stt_chamber.upkeep import check, repair
from stt_core.defaults.memory_storage import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from stt_core.interfaces import StorageProvider, Version


async def keys_of(storage: StorageProvider) -> list[bytes]:
    return [key async for key in storage.list_keys()]


def archive(*records: tuple[bytes, bytes]) -> bytes:
    data = b"STTX\x01" + b"".join(struct.pack(">HI", len(key), len(value)) + key + value for key, value in records)
    data += b"\xff\xff\0\0\0\0"
    return data + hashlib.sha3_256(data).digest()


@pytest.mark.asyncio
async def test_an_export_is_its_owners_alone_and_comes_back(
    memory: StorageProvider, seed: Seed, tmp_path: Path
) -> None:
    async with await Chamber.create(memory, seed) as chamber:
        await chamber.store("key", bytes(200_000))
    file = tmp_path / "export"

    size = await export_chamber(memory, file)
    with pytest.raises(Conflict):
        await export_chamber(memory, file)

    assert os.listdir(tmp_path) == ["export"]  # noqa: PTH208  not in an async function
    assert (file.stat().st_size, stat.S_IMODE(file.stat().st_mode)) == (size, 0o600)
    target = MemoryStorage()
    await import_chamber(target, file, name="other")
    async with await Chamber.open(target, seed, name="other") as chamber:
        assert await chamber.retrieve("key") == bytes(200_000)
        assert (await check(chamber)).orphans == 0


@pytest.mark.asyncio
async def test_every_changed_or_missing_byte_of_an_export_is_found(
    memory: StorageProvider, seed: Seed, tmp_path: Path
) -> None:
    await (await Chamber.create(memory, seed)).close()
    file = tmp_path / "export"
    await export_chamber(memory, file)
    whole = file.read_bytes()
    for place in range(len(whole)):
        for damaged in (whole[:place], whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]):
            file.write_bytes(damaged)
            target = MemoryStorage()
            with pytest.raises(DamagedError):
                await import_chamber(target, file)
            assert await keys_of(target) == []


CHUNK = (b"o" + bytes(16), bytes(100))
ROOT = (b"r", bytes(100))
HEADER = (b"h", bytes(100))


@pytest.mark.parametrize(
    "content",
    [
        archive(),
        archive(CHUNK),
        archive(CHUNK, ROOT),
        archive(HEADER, ROOT),
        archive(CHUNK, ROOT, ROOT, HEADER),
        archive(CHUNK, (b"x", b""), ROOT, HEADER),
        archive(CHUNK, (b"o", b""), ROOT, HEADER),
        archive((b"o" + bytes(16), bytes(70_000)), ROOT, HEADER),
        archive(CHUNK, (b"r", bytes((1 << 20) + 1)), HEADER),
        archive(CHUNK, ROOT, HEADER) + b"x",
        b"STTX\x01" + b"\0\x11" + b"\xff" * 4,  # a record of 4 GiB
        b"",
    ],
    ids=range(12),
)
@pytest.mark.asyncio
async def test_a_file_that_is_no_export_stores_nothing(memory: StorageProvider, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "export"
    file.write_bytes(content)

    with pytest.raises(DamagedError):
        await import_chamber(memory, file)

    assert await keys_of(memory) == []


@pytest.mark.asyncio
async def test_a_chamber_that_can_be_repaired_is_not_overwritten(
    memory: StorageProvider, seed: Seed, tmp_path: Path
) -> None:
    async with await Chamber.create(memory, seed) as chamber:
        await export_chamber(memory, tmp_path / "export")
        await chamber.store("key", 1)
        await memory.delete(chamber.ledger.names.header)

    with pytest.raises(Conflict):
        await import_chamber(memory, tmp_path / "export")
    await repair(memory, [seed])

    async with await Chamber.open(memory, seed) as chamber:
        assert await chamber.retrieve("key") == 1


class RacedStorage(MemoryStorage):
    """Somebody else comes first, once: before a commit, or before the header is made."""

    def __init__(self) -> None:
        super().__init__()
        self.before_commit: Callable[[], Awaitable[object]] | None = None
        self.before_header: Callable[[], Awaitable[object]] | None = None

    async def commit(self, puts: Mapping[bytes, bytes], deletes: Sequence[bytes] = ()) -> None:
        race, self.before_commit = self.before_commit, None
        if race is not None:
            await race()
        await super().commit(puts, deletes)

    async def store_if(self, key: bytes, value: bytes, expected_version: Version) -> Version | None:
        if key == Names(namespace("")).header:
            race, self.before_header = self.before_header, None
            if race is not None:
                await race()
        return await super().store_if(key, value, expected_version)


@pytest.mark.asyncio
async def test_a_chamber_that_is_made_during_an_import_stays_whole(
    memory: StorageProvider, seed: Seed, tmp_path: Path
) -> None:
    async with await Chamber.create(memory, seed) as chamber:
        await chamber.store("key", bytes(100_000))
    await export_chamber(memory, tmp_path / "export")
    target = RacedStorage()

    async def create() -> None:
        async with await Chamber.create(target, seed) as chamber:
            await chamber.store("acknowledged", b"value")

    target.before_commit = create
    with pytest.raises(Conflict, match="meanwhile"):
        await import_chamber(target, tmp_path / "export")

    async with await Chamber.open(target, seed) as chamber:
        assert await chamber.retrieve("acknowledged") == b"value"
        assert (await check(chamber)).damaged == ()


@pytest.mark.asyncio
async def test_an_import_that_loses_at_the_last_step_leaves_room_for_a_chamber(
    memory: StorageProvider, seed: Seed, tmp_path: Path
) -> None:
    await (await Chamber.create(memory, seed)).close()
    await export_chamber(memory, tmp_path / "export")
    target, other = RacedStorage(), MemoryStorage()
    await (await Chamber.create(other, seed)).close()
    header_key = Names(namespace("")).header
    header = await other.retrieve(header_key)
    assert header is not None
    # Who makes a chamber stores its header first, and then finds a root.
    target.before_header = functools.partial(target.store, header_key, header)
    with pytest.raises(Conflict, match="meanwhile"):
        await import_chamber(target, tmp_path / "export")

    await (await Chamber.create(target, seed)).close()


@pytest.mark.asyncio
async def test_what_others_planted_in_the_store_is_not_exported(
    memory: StorageProvider, seed: Seed, tmp_path: Path
) -> None:
    async with await Chamber.create(memory, seed) as chamber:
        await chamber.store("key", bytes(100_000))
    objects = Names(namespace("")).objects
    for name, size in ((bytes(17), 7), (bytes(15), 7), (bytes(16), 70_000), (bytes(900), 7)):
        await memory.store(objects + name, bytes(size))

    await export_chamber(memory, tmp_path / "export")
    target = MemoryStorage()
    await import_chamber(target, tmp_path / "export")

    async with await Chamber.open(target, seed) as chamber:
        report = await check(chamber)
        assert (report.damaged, report.orphans) == ((), 0)
