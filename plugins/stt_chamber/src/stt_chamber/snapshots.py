"""One state of a chamber that stays readable while others change it, with no key at hand (reference, "Snapshots").

Whoever reads a state leaves a record in the store, and then stores the root again as it is. By that, whoever has the
chamber open must read the root anew before the next change, looks for such records, and removes nothing while there
are any.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import struct
import time
from typing import TYPE_CHECKING, Final

import attrs

from stt_chamber.errors import Conflict, NoChamber
from stt_core.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from stt_chamber.ledger import Names
    from stt_core.interfaces import StorageProvider, Version

MAX_SILENCE: Final = 300.0
"""Seconds after which a snapshot that was not renewed counts as abandoned."""

RENEWAL_INTERVAL: Final = 60.0
"""Seconds after which a snapshot is renewed."""

_TIME: Final = struct.Struct(">Q")  # milliseconds since 1970 when it was renewed


@attrs.frozen
class Snapshot:
    """A state of a chamber, all of whose chunks are in the store."""

    root: bytes = attrs.field(repr=False)
    """The root as it lies in the store."""
    header: bytes = attrs.field(repr=False)
    """The header, likewise."""


@contextlib.asynccontextmanager
async def snapshot(
    storage: StorageProvider, names: Names, clock: Callable[[], float] = time.time
) -> AsyncIterator[Snapshot]:
    """Give the newest state of a chamber; until the context ends, all that it needs stays in the store.

    Args:
        storage: Where the chamber is.
        names: Its keys there.
        clock: Returns seconds since 1970.

    Raises:
        NoChamber: There is none.
        Conflict: In the end: others took the snapshot for abandoned, and may have removed something.
        StorageError: The store failed.
    """
    record = _Record(storage, names.snapshots + secrets.token_bytes(16), clock)
    await record.renew()
    ended = asyncio.Event()
    renewing = asyncio.create_task(record.renew_until(ended))
    try:
        yield await _tell_others(storage, names)
        ended.set()
        await renewing
    finally:
        ended.set()
        await asyncio.gather(renewing, return_exceptions=True)
        await record.remove()


class _Record:
    """What tells others that somebody reads a state."""

    def __init__(self, storage: StorageProvider, key: bytes, clock: Callable[[], float]) -> None:
        self._storage = storage
        self._key = key
        self._clock = clock
        self._version: Version = 0

    async def renew(self) -> None:
        # Never made a second time: who finds it too old removes it first, and only then what the state needs.
        now = _TIME.pack(round(self._clock() * 1000))
        version = await self._storage.store_if(self._key, now, self._version)
        if version is None:
            raise Conflict("the chamber was read so slowly that others have removed some of it: try again")
        self._version = version

    async def renew_until(self, ended: asyncio.Event) -> None:
        # Not a task that is cancelled: a renewal that was made and not noted would look like somebody else's.
        while not ended.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RENEWAL_INTERVAL):
                    await ended.wait()
            await self.renew()

    async def remove(self) -> None:
        with contextlib.suppress(StorageError):  # others will, after some time
            await self._storage.delete(self._key)


async def _tell_others(storage: StorageProvider, names: Names) -> Snapshot:
    """Store the newest root a second time, so that all others read it anew before their next change."""
    while True:
        header_version = await storage.version(names.header)
        root_version = await storage.version(names.root)
        root = await storage.retrieve(names.root)
        header = await storage.retrieve(names.header)
        if root is None or header is None:
            raise NoChamber("the store has no chamber of that name")
        told = await storage.store_if(names.root, root, root_version)
        # A header that was replaced meanwhile may lack a data key that the root needs.
        if told is not None and await storage.version(names.header) == header_version:
            return Snapshot(root, header)


async def is_being_read(storage: StorageProvider, names: Names, now: int) -> bool:
    """Return whether there are snapshots of a chamber; end those that are abandoned.

    Args:
        storage: Where the chamber is.
        names: Its keys there.
        now: Milliseconds since 1970.

    Raises:
        StorageError: The store failed.
    """
    found = False
    async for key in storage.list_keys(names.snapshots):
        record = await storage.retrieve(key)
        if record is None:
            continue
        # A time ahead is one of another machine's clock, or of somebody who wants nothing removed for ever.
        if len(record) == _TIME.size and abs(now - _TIME.unpack(record)[0]) < MAX_SILENCE * 1000:
            found = True
        else:
            await storage.delete(key)
    return found
