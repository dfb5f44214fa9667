"""A store in one SQLite file: `acme:///path`."""

from __future__ import annotations

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, TypeVar

from stt_core import hookimpl
from stt_core.errors import ConfigError, StorageError
from stt_core.interfaces.storage import StorageCapabilities, StorageProvider, Version

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from stt_core.interfaces.storage import StorageFactory

T = TypeVar("T")

SCHEMA = """
create table if not exists entries (key blob primary key, value blob not null, version integer not null) without rowid;
create table if not exists counter (last integer not null);
insert into counter select 0 where not exists (select * from counter);
"""


class SQLiteStorage(StorageProvider):
    """Keys and values in a table; a thread of its own does the work, one call after the other."""

    capabilities = StorageCapabilities(durable=True, atomic_commit=True, shared=True)

    def __init__(self, url: str) -> None:
        self._path = url.removeprefix("acme://")
        if self._path == url or not self._path.startswith("/"):
            raise ConfigError(f"{url!r} is not acme:///path")
        self._thread: ThreadPoolExecutor | None = ThreadPoolExecutor(max_workers=1)
        self._database: sqlite3.Connection | None = None

    async def store(self, key: bytes, value: bytes) -> None:
        """Set the value of a key."""
        await self._run(lambda database: _put(database, key, value))

    async def retrieve(self, key: bytes) -> bytes | None:
        """Return the value of a key, or None."""
        return await self._run(lambda database: _field(database, "value", key))

    async def exists(self, key: bytes) -> bool:
        """Return whether a key has a value."""
        return await self.version(key) != 0

    async def delete(self, key: bytes) -> bool:
        """Remove a key; return whether it was there."""
        return await self._run(
            lambda database: database.execute("delete from entries where key = ?", (key,)).rowcount > 0
        )

    async def list_keys(self, prefix: bytes = b"") -> AsyncIterator[bytes]:
        """Iterate over the keys that begin with a prefix, as they are when the iteration begins."""
        query = "select key from entries where ? = 0 or substr(key, 1, ?) = ? order by key"
        arguments = len(prefix), len(prefix), prefix
        rows = await self._run(lambda database: database.execute(query, arguments).fetchall())
        for (key,) in rows:
            yield key

    async def version(self, key: bytes) -> Version:
        """Return the version of a key's value; 0 when it is absent."""
        return await self._run(lambda database: _field(database, "version", key) or 0)

    async def store_if(self, key: bytes, value: bytes, expected_version: Version) -> Version | None:
        """Set the value if its version is the expected one; return the new one, or None."""

        def work(database: sqlite3.Connection) -> Version | None:
            matches = (_field(database, "version", key) or 0) == expected_version
            return _put(database, key, value) if matches else None

        return await self._run(work)

    async def commit(self, puts: Mapping[bytes, bytes], deletes: Sequence[bytes] = ()) -> None:
        """Apply several changes as one."""

        def work(database: sqlite3.Connection) -> None:
            for key, value in puts.items():
                _put(database, key, value)
            database.executemany("delete from entries where key = ?", [(key,) for key in deletes])

        await self._run(work)

    async def close(self) -> None:
        """Close the file and end the thread."""
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.wrap_future(thread.submit(self._close))
            thread.shutdown()

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._thread is None:
            raise StorageError(f"{self._path} is closed")
        try:
            return await asyncio.wrap_future(self._thread.submit(self._transact, work))
        except sqlite3.Error as error:
            raise StorageError(f"{self._path}: {error}") from error

    def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._database is None:
            self._database = sqlite3.connect(self._path, isolation_level=None)
            self._database.executescript("pragma synchronous = full; begin immediate;" + SCHEMA + "commit;")
        with self._database:  # rolls back if the work raises
            self._database.execute("begin immediate")
            return work(self._database)

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()


def _field(database: sqlite3.Connection, field: str, key: bytes) -> T | None:
    with closing(database.execute(f"select {field} from entries where key = ?", (key,))) as cursor:
        row = cursor.fetchone()
    return row[0] if row is not None else None


def _put(database: sqlite3.Connection, key: bytes, value: bytes) -> Version:
    ((version,),) = database.execute("update counter set last = last + 1 returning last").fetchall()
    database.execute("insert or replace into entries values (?, ?, ?)", (key, bytes(value), version))
    return int(version)


@hookimpl
def stt_register_storage(register: Callable[[str, StorageFactory], None]) -> None:
    register("acme", SQLiteStorage)
