"""A store in one SQLite file: ``sqlite:///var/lib/node/chamber.db``, or ``sqlite://chamber.db`` for a relative path.

What is acknowledged is synced: ``synchronous=FULL`` on a write-ahead log. Several processes of one machine may use the
file; network file systems cannot keep SQLite's promises.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from stt_chamber.backends.listing import KEYS_PER_PAGE, keys_with_prefix
from stt_chamber.backends.threads import StorageThread
from stt_chamber.files import path_of
from stt_core.errors import StorageError
from stt_core.interfaces import StorageCapabilities, StorageProvider, Version

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

LOCK_TIMEOUT: Final = 15.0
"""Seconds to wait for another process that writes, before the store counts as locked."""

# In keeping with sealed chunks of 60 KiB; SQLite's own 4 KiB make long chains of overflow pages.
_PAGE_SIZE: Final = 16 * 1024

_PAUSE: Final = 0.005  # seconds between two tries

_CREATING: Final = threading.Lock()

_SCHEMA: Final = """
create table if not exists entries (key blob primary key, version integer not null, value blob not null) without rowid;
create table if not exists counter (last integer not null);
insert into counter select 0 where not exists (select * from counter);
"""

T = TypeVar("T")


class SQLiteStorage(StorageProvider):
    """Keys and values in a table; a thread of its own does the work, one call after the other.

    The file is made at the first use, for its owner alone.

    Args:
        url: ``sqlite://`` and the path of the file.

    Raises:
        ConfigError: The URL is another.
    """

    capabilities = StorageCapabilities(durable=True, atomic_commit=True, shared=True)

    def __init__(self, url: str) -> None:
        # Absolute, for SQLite has names such as ":memory:" that are no files.
        self._path = str(Path(path_of(url, "sqlite")).absolute())
        self._thread = StorageThread(self._path)
        self._database: sqlite3.Connection | None = None

    async def store(self, key: bytes, value: bytes) -> None:
        """Set the value of a key."""
        await self._change(lambda database: _put(database, key, value))

    async def retrieve(self, key: bytes) -> bytes | None:
        """Return the value of a key, or None."""
        return await self._run(lambda database: _field(database, "select value from entries where key = ?", bytes, key))

    async def exists(self, key: bytes) -> bool:
        """Return whether a key has a value."""
        return await self.version(key) != 0

    async def delete(self, key: bytes) -> bool:
        """Remove a key; return whether it was there."""
        return await self._change(
            lambda database: database.execute("delete from entries where key = ?", (key,)).rowcount > 0
        )

    def list_keys(self, prefix: bytes = b"") -> AsyncIterator[bytes]:
        """Iterate over the keys that begin with a prefix, ascending."""
        return keys_with_prefix(prefix, lambda start: self._run(lambda database: _page(database, start)))

    async def version(self, key: bytes) -> Version:
        """Return the version of a key's value; 0 when it is absent."""
        return await self._run(lambda database: _version(database, key))

    async def store_if(self, key: bytes, value: bytes, expected_version: Version) -> Version | None:
        """Set the value if its version is the expected one; return the new one, or None."""

        def work(database: sqlite3.Connection) -> Version | None:
            return _put(database, key, value) if _version(database, key) == expected_version else None

        return await self._change(work)

    async def commit(self, puts: Mapping[bytes, bytes], deletes: Sequence[bytes] = ()) -> None:
        """Apply several changes as one transaction."""
        if not puts and not deletes:
            await self.version(b"")
            return

        def work(database: sqlite3.Connection) -> None:
            for key, value in puts.items():
                _put(database, key, value)
            database.executemany("delete from entries where key = ?", [(key,) for key in deletes])

        await self._change(work)

    async def close(self) -> None:
        """Close the file and end the thread."""
        await self._thread.close(self._close)

    # Internals, in the thread

    async def _change(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def transaction(database: sqlite3.Connection) -> T:
            with database:  # rolls back if the work raises
                # At once: a transaction that begins by reading may not be let to write.
                database.execute("begin immediate")
                return work(database)

        return await self._run(transaction)

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def call() -> T:
            try:
                return work(self._open())
            except (sqlite3.Error, OSError) as error:
                raise StorageError(f"{self._path}: {error}") from error

        return await self._thread.run(call)

    def _open(self) -> sqlite3.Connection:
        if self._database is None:
            _create(self._path)
            database = sqlite3.connect(self._path, timeout=LOCK_TIMEOUT, isolation_level=None)
            try:
                database.execute(f"pragma page_size = {_PAGE_SIZE}")
                _use_write_ahead_log(database)
                database.execute("pragma synchronous = full")
                database.executescript(f"begin immediate; {_SCHEMA} commit;")
            except BaseException:
                database.close()
                raise
            self._database = database
        return self._database

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()


def _create(path: str) -> None:
    """Make an empty file for its owner alone, unless there is one.

    One that is there is left alone: to close a file frees all locks that the process has on it (POSIX), those of its
    other connections, too. Another process would then take the log for its own, and remove it.
    """
    with _CREATING, contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _use_write_ahead_log(database: sqlite3.Connection) -> None:
    """Turn it on; where another process does so at the same time, SQLite itself does not wait."""
    give_up_at = time.monotonic() + LOCK_TIMEOUT
    while True:
        try:
            database.execute("pragma journal_mode = wal")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up_at:
                raise
            time.sleep(_PAUSE)
        else:
            return


def _page(database: sqlite3.Connection, start: bytes) -> list[bytes]:
    query = "select key from entries where key >= ? order by key limit ?"
    return [key for (key,) in database.execute(query, (start, KEYS_PER_PAGE))]


def _field(database: sqlite3.Connection, query: str, kind: type[T], key: bytes) -> T | None:
    row = database.execute(query, (key,)).fetchone()
    return None if row is None else _checked(row[0], kind)


def _checked(found: object, kind: type[T]) -> T:
    """Return what was found; SQLite itself lets a column hold anything."""
    if not isinstance(found, kind):
        raise sqlite3.DataError(f"a column has a {type(found).__name__}, not {kind.__name__}")
    return found


def _version(database: sqlite3.Connection, key: bytes) -> Version:
    return _field(database, "select version from entries where key = ?", int, key) or 0


def _put(database: sqlite3.Connection, key: bytes, value: bytes) -> Version:
    rows = database.execute("update counter set last = last + 1 returning last").fetchall()
    if len(rows) != 1:
        raise sqlite3.DataError(f"the counter of versions has {len(rows)} rows")
    version = _checked(rows[0][0], int)
    database.execute("insert or replace into entries values (?, ?, ?)", (key, version, bytes(value)))
    return version
