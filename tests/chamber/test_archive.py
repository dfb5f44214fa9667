"""Is an export a chamber, whatever else is in the file or in the store?"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from typing import TYPE_CHECKING

import pytest

from stt_chamber import Chamber, Conflict, DamagedError, Seed
from stt_chamber.archive import export_chamber, import_chamber
from stt_chamber.upkeep import check, repair
from stt_core.defaults.memory_storage import MemoryStorage

if TYPE_CHECKING:
    from pathlib import Path

    from stt_core.interfaces import StorageProvider


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
