"""Does what was acknowledged survive a killed process and a power cut?"""

from __future__ import annotations

import asyncio
import os
import random
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from stt_chamber import Chamber, Seed
from stt_chamber.backends.file import FileStorage
from stt_chamber.backends.sqlite import SQLiteStorage
from stt_chamber.upkeep import check
from stt_core.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable

KILL_LOOP = Path(__file__).with_name("kill_loop.py")


@pytest.mark.parametrize("scheme", ["sqlite", "file"])
def test_what_was_acknowledged_survives_kill_9(tmp_path: Path, scheme: str) -> None:
    command = [sys.executable, str(KILL_LOOP), f"{scheme}://{tmp_path}/store", "20"]

    done = subprocess.run(command, check=False, capture_output=True, text=True)

    assert re.fullmatch(r"kills 20, acknowledged \d{2,}, lost 0, damaged 0\n", done.stdout), done.stdout + done.stderr


@attrs.define
class Disk:
    """What a disk has of a folder: files and lists of files as they were when they were synced."""

    folder: Path
    contents: dict[int, bytes] = attrs.field(factory=dict)
    entries: dict[Path, dict[str, int]] = attrs.field(factory=dict)

    def note_sync(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if stat.S_ISDIR(status.st_mode):
            self.entries[path] = {entry.name: entry.inode() for entry in os.scandir(path)}
        else:
            self.contents[status.st_ino] = path.read_bytes()

    def after_power_cut(self, target: Path) -> None:
        """Write what is on the disk to another folder."""
        target.mkdir()
        for name, inode in self.entries.get(self.folder, {}).items():
            if self.folder / name in self.entries:
                (target / name).mkdir()
                for file, number in self.entries[self.folder / name].items():
                    (target / name / file).write_bytes(self.contents.get(number, b""))
            elif (self.folder / name).is_dir():
                (target / name).mkdir()
            else:
                (target / name).write_bytes(self.contents.get(inode, b""))


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells which file is synced")
@pytest.mark.asyncio
async def test_what_was_acknowledged_survives_a_power_cut(
    tmp_path: Path, seed: Seed, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "store"
    disk = Disk(folder)
    sync = os.fsync

    def noted_sync(descriptor: int) -> None:
        sync(descriptor)
        disk.note_sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted_sync)
    storage = FileStorage(f"file://{folder}")
    chamber = await Chamber.create(storage, seed)
    moments = random.Random(1)
    expected: dict[str, bytes] = {}
    for number in range(60):
        key = f"{moments.randrange(20)}"
        value = bytes([number]) * moments.choice((10, 2000, 3000, 100_000))
        if moments.random() < 0.2:
            await chamber.delete(key)
            expected.pop(key, None)
        else:
            await chamber.store(key, value)
            expected[key] = value
        if number % 6 == 0:
            cut = tmp_path / f"cut {number}"
            disk.after_power_cut(cut)
            await assert_holds(FileStorage(f"file://{cut}"), seed, expected)
            shutil.rmtree(cut)
    await chamber.close()
    await storage.close()


@pytest.mark.asyncio
async def test_what_was_acknowledged_in_sqlite_survives_a_power_cut_that_tears_the_log(
    tmp_path: Path, seed: Seed
) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    storage = SQLiteStorage(f"sqlite://{folder}/chamber.db")
    chamber = await Chamber.create(storage, seed)
    moments = random.Random(3)
    expected: dict[str, bytes] = {}
    log = folder / "chamber.db-wal"
    tear = tmp_path / "torn"
    for number in range(12):
        key = f"{number % 7}"
        expected[key] = bytes([number]) * moments.choice((10, 3000, 100_000))
        await chamber.store(key, expected[key])
        await chamber.ledger.wait_idle()
        acknowledged = dict(expected)
        synced = log.stat().st_size
        # What comes next may be in the log in part: its first bytes, or any of its sectors.
        await chamber.store("next", moments.randbytes(5000))
        await chamber.ledger.wait_idle()
        written = bytearray(log.read_bytes())
        for cut in (synced, moments.randrange(synced, len(written) + 1), len(written)):
            torn = bytearray(written[:cut])
            for sector in range(-(-synced // 512) * 512, cut - 512, 512):
                if cut == len(written) and moments.random() < 0.5:
                    torn[sector : sector + 512] = bytes(512)
            tear.mkdir()
            (tear / "chamber.db").write_bytes((folder / "chamber.db").read_bytes())
            (tear / "chamber.db-wal").write_bytes(torn)
            await assert_holds_at_least(SQLiteStorage(f"sqlite://{tear}/chamber.db"), seed, acknowledged)
            shutil.rmtree(tear)
    await chamber.close()
    await storage.close()


async def assert_holds_at_least(storage: Any, seed: Seed, expected: dict[str, bytes]) -> None:
    async with await Chamber.open(storage, seed) as chamber:
        for key, value in expected.items():
            assert await chamber.retrieve(key) == value
        assert (await check(chamber)).damaged == ()
    await storage.close()


async def assert_holds(storage: Any, seed: Seed, expected: dict[str, bytes]) -> None:
    async with await Chamber.open(storage, seed) as chamber:
        assert await chamber.list() == sorted(expected)
        for key, value in expected.items():
            assert await chamber.retrieve(key) == value
        assert (await check(chamber)).damaged == ()
    await storage.close()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells which folder is synced")
@pytest.mark.asyncio
async def test_every_folder_that_is_made_is_synced_in_the_one_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(tmp_path)
    sync = os.fsync

    def noted_sync(descriptor: int) -> None:
        sync(descriptor)
        disk.note_sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted_sync)
    storage = FileStorage(f"file://{tmp_path}/a/b/c")
    await storage.store(b"key", b"value")
    await storage.close()

    assert {"a"} == {*disk.entries[tmp_path]}
    assert {"b"} == {*disk.entries[tmp_path / "a"]}
    assert {"c"} == {*disk.entries[tmp_path / "a" / "b"]}


@pytest.mark.asyncio
async def test_what_a_killed_process_left_in_a_file_store_is_removed(tmp_path: Path) -> None:
    storage = FileStorage(f"file://{tmp_path}/store")
    await storage.store(b"key", b"value")
    await storage.close()
    left = tmp_path / "store" / "new" / "left"
    left.write_bytes(b"half")

    storage = FileStorage(f"file://{tmp_path}/store")
    assert [key async for key in storage.list_keys()] == [b"key"]
    await storage.close()

    assert not left.exists()


@pytest.mark.parametrize("make", [SQLiteStorage, FileStorage])
def test_what_is_stored_is_its_owners_alone(tmp_path: Path, make: Callable[[str], Any]) -> None:
    async def store() -> None:
        storage = make(f"{'sqlite' if make is SQLiteStorage else 'file'}://{tmp_path}/store")
        await storage.store(b"key", b"value")
        assert_all_are_their_owners_alone(tmp_path)  # SQLite's log and index, too, which go when the file is closed
        await storage.close()

    asyncio.run(store())
    assert_all_are_their_owners_alone(tmp_path)


def assert_all_are_their_owners_alone(folder: Path) -> None:
    paths = list(folder.rglob("*"))
    assert paths
    for path in paths:
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


@pytest.mark.asyncio
async def test_a_full_disk_is_one_error_and_loses_nothing(tmp_path: Path, seed: Seed) -> None:
    script = (
        "import asyncio, resource, signal, sys\n"
        "from stt_chamber import Chamber, Seed\n"
        "from stt_chamber.backends.file import FileStorage\n"
        "from stt_chamber.backends.sqlite import SQLiteStorage\n"
        "from stt_core.errors import StorageError\n"
        "async def main():\n"
        "    url = sys.argv[1]\n"
        "    storage = FileStorage(url) if url.startswith('file') else SQLiteStorage(url)\n"
        "    chamber = await Chamber.create(storage, Seed(bytes(range(32))))\n"
        "    await chamber.store('kept', b'x' * 10_000)\n"
        "    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "    limit = 30_000 if url.startswith('file') else 400_000\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))\n"
        "    try:\n"
        "        await chamber.store('too large', bytes(2_000_000))\n"
        "    except StorageError as error:\n"
        "        print('refused')\n"
        "    assert await chamber.retrieve('kept') == b'x' * 10_000\n"
        "    await chamber.close()\n"
        "    await storage.close()\n"
        "asyncio.run(main())\n"
    )
    for scheme, make in (("sqlite", SQLiteStorage), ("file", FileStorage)):
        url = f"{scheme}://{tmp_path}/{scheme}"
        run = asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", script, url], check=False, capture_output=True, text=True
        )
        done = await run
        assert (done.returncode, done.stdout) == (0, "refused\n"), done.stderr
        await assert_holds(make(url), seed, {"kept": b"x" * 10_000})


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
@pytest.mark.parametrize("make", [SQLiteStorage, FileStorage])
def test_a_read_only_folder_is_one_error(tmp_path: Path, make: Callable[[str], Any]) -> None:
    async def store() -> None:
        storage = make(f"{'sqlite' if make is SQLiteStorage else 'file'}://{tmp_path}/store")
        with pytest.raises(StorageError):
            await storage.store(b"key", b"value")
        await storage.close()

    tmp_path.chmod(0o500)
    asyncio.run(store())
