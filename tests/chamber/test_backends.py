"""Do the backends keep what stores promise, and what these promise besides?"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from stt_chamber.backends.file import FileStorage
from stt_chamber.backends.redis import RedisStorage
from stt_chamber.backends.sqlite import SQLiteStorage
from stt_core import load_plugins
from stt_core.errors import ConfigError, StorageError
from stt_core.testing import StorageContract

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stt_core.interfaces import StorageFactory, StorageProvider


class TestSQLiteStorage(StorageContract):
    @pytest.fixture
    def factory(self) -> StorageFactory:
        return SQLiteStorage

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite://{tmp_path}/store.db"

    @pytest.fixture
    def break_store(self, tmp_path: Path) -> Callable[[], None]:
        def write_over_it() -> None:
            for path in tmp_path.iterdir():
                path.write_bytes(b"no database" * 1000)

        return write_over_it


class TestFileStorage(StorageContract):
    @pytest.fixture
    def factory(self) -> StorageFactory:
        return FileStorage

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"file://{tmp_path}/store"

    @pytest.fixture
    def break_store(self, tmp_path: Path) -> Callable[[], None]:
        def replace_folders_by_files() -> None:
            folder = tmp_path / "store"
            folder.rename(tmp_path / "gone")
            folder.write_bytes(b"")

        return replace_folders_by_files


class TestRedisStorage(StorageContract):
    @pytest.fixture
    def factory(self) -> StorageFactory:
        return RedisStorage

    @pytest.fixture
    def url(self, redis_server: Any) -> str:
        return str(redis_server.url)

    @pytest.fixture
    def break_store(self, redis_server: Any) -> Callable[[], None]:
        def kill() -> None:
            redis_server.process.kill()
            redis_server.process.wait()

        return kill


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:/path", "sqlite:///a\0b", "file://", "file:///a\0b", "path", "http://host"]
)
def test_a_url_that_cannot_work_is_refused(url: str) -> None:
    for make in (SQLiteStorage, FileStorage, RedisStorage):
        with pytest.raises(ConfigError):
            make(url)


def test_a_redis_url_that_is_refused_is_not_shown() -> None:
    with pytest.raises(ConfigError) as refused:
        RedisStorage("redis://user:secret/word@host")

    assert "secret" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_each_backend_is_registered_under_its_scheme() -> None:
    registries = load_plugins()

    assert registries.store("sqlite:///path") is SQLiteStorage
    assert registries.store("file:///path") is FileStorage
    assert isinstance(registries.store("redis://host")("redis://host"), RedisStorage)
    assert isinstance(registries.store("rediss://host")("rediss://host"), RedisStorage)


@pytest.mark.parametrize("make", [SQLiteStorage, FileStorage])
@pytest.mark.asyncio
async def test_a_store_that_is_gone_is_an_error_and_no_empty_store(
    tmp_path: Path, make: Callable[[str], StorageProvider]
) -> None:
    store = make(f"{'sqlite' if make is SQLiteStorage else 'file'}://{tmp_path}/folder/store")
    if make is SQLiteStorage:
        with pytest.raises(StorageError):  # a folder is not made for it
            await store.retrieve(b"key")
    else:
        await store.store(b"key", b"value")
        shutil.rmtree(tmp_path / "folder")
        with pytest.raises(StorageError):
            await store.retrieve(b"key")
    await store.close()


STORE_AND_CLOSE = """
import asyncio, sys
from stt_chamber.backends.sqlite import SQLiteStorage
async def main():
    storage = SQLiteStorage(sys.argv[1])
    await storage.store(b"other", b"value")
    print([key async for key in storage.list_keys()])
    await storage.close()
asyncio.run(main())
"""


@pytest.mark.asyncio
async def test_several_stores_of_one_process_keep_the_locks_on_a_sqlite_file(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/store"
    first, second = SQLiteStorage(url), SQLiteStorage(url)
    await first.store(b"first", b"value")
    await second.retrieve(b"first")  # closing any descriptor of the file would free the locks of the process
    command = [sys.executable, "-c", STORE_AND_CLOSE, url]

    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
    await first.store(b"second", b"value")
    done = await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True, text=True)

    assert done.stdout == "[b'first', b'other', b'second']\n"
    await first.close()
    await second.close()


@pytest.mark.asyncio
async def test_every_sqlite_path_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        storage = SQLiteStorage("sqlite://:memory:")
        found = await storage.retrieve(b"key")
        await storage.store(b"key", b"value")
        await storage.close()

    assert found == b"value"


@pytest.mark.parametrize(
    "change",
    [
        "update entries set value = 'text'",
        "update entries set version = 'text'",
        "update entries set key = 'text'",
        "update counter set last = 0.5",
        "update counter set last = x'00'",
        "delete from counter; insert into counter values (1), (2)",
        "drop table entries; create view entries as select x'6b6579' key, null version, 'text' value",
        "drop table counter; create view counter as select 1 last",
    ],
)
@pytest.mark.asyncio
async def test_a_sqlite_file_with_anything_in_it_holds_bytes_or_is_one_error(tmp_path: Path, change: str) -> None:
    url = f"sqlite://{tmp_path}/store"
    storage = SQLiteStorage(url)
    await storage.store(b"key", b"value")
    await storage.close()
    with closing(sqlite3.connect(tmp_path / "store")) as database:
        database.executescript(change)

    storage = SQLiteStorage(url)
    with contextlib.suppress(StorageError):
        assert await storage.retrieve(b"key") in (None, b"value")
    with contextlib.suppress(StorageError):
        assert await storage.version(b"key") in (0, 1)
    for key in (b"key", b"other"):
        with contextlib.suppress(StorageError):
            await storage.store(key, b"new")
            assert await storage.version(key) > 0
    with contextlib.suppress(StorageError):
        assert all([isinstance(key, bytes) async for key in storage.list_keys()])
    await storage.close()
