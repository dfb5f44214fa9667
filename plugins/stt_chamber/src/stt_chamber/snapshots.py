"""One state of a chamber that stays readable while others change it, with no key at hand (reference, "Snapshots").

Whoever reads a state leaves a record in the store, and then stores the root again as it is. By that, whoever has the
chamber open must read the root anew before the next change, looks for such records, and removes nothing while there
are any. By other records a synchronisation and a collection of orphans keep out of each other's way.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import struct
import time
from typing import TYPE_CHECKING, Final

import attrs

from stt_chamber.errors import Conflict, NoChamber
from stt_core.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from stt_chamber.ledger import Names
    from stt_core.interfaces import StorageProvider, Version

MAX_SILENCE: Final = 300.0
"""Seconds after which a snapshot that was not renewed counts as abandoned."""

RENEWAL_INTERVAL: Final = 60.0
"""Seconds after which a snapshot is renewed."""

RETRY_INTERVAL: Final = 5.0
"""Seconds after which a renewal is tried again that the store has failed."""

MAX_LISTED: Final = 1000
"""Records of snapshots that are looked at together, whatever the store lists."""

TRIES: Final = 16
"""How often a snapshot tries to be told of between two changes that others make."""

LONGEST_PAUSE: Final = 1.0
"""Seconds between two such tries, at most."""

_FIRST_PAUSE: Final = 0.02

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
        Conflict: Others change the chamber too fast for a state to be had; or, at any time, they took the snapshot for
            abandoned, and may have removed something.
        StorageError: The store failed.
    """
    async with _record(storage, names.snapshots, clock):
        yield await _tell_others(storage, names)


def arrival(
    storage: StorageProvider, names: Names, clock: Callable[[], float] = time.time
) -> AbstractAsyncContextManager[Callable[[], Awaitable[None]]]:
    """Until the context ends, keep collections of orphans from what a synchronisation brings or finds.

    Args:
        storage: Where the replica is.
        names: Its keys there.
        clock: Returns seconds since 1970.

    Returns:
        A context that gives what makes sure that they still are kept from it, and raises Conflict if not. Entering it
        raises Conflict while orphans are collected, leaving it if others took this for abandoned, and both StorageError
        if the store fails.
    """
    refusal = "what belongs to nothing is being removed from a replica: synchronise it afterwards"
    return _keep_out(storage, names.arrivals, names.collections, refusal, clock)


def collection(
    storage: StorageProvider, names: Names, clock: Callable[[], float] = time.time
) -> AbstractAsyncContextManager[Callable[[], Awaitable[None]]]:
    """Until the context ends, keep synchronisations from relying on chunks that may be orphans.

    Args:
        storage: Where the chamber is.
        names: Its keys there.
        clock: Returns seconds since 1970.

    Returns:
        A context as that of :func:`arrival`; entering it raises Conflict while the chamber is synchronised.
    """
    refusal = "the chamber is being synchronised: what belongs to nothing stays until that has ended"
    return _keep_out(storage, names.collections, names.arrivals, refusal, clock)


@contextlib.asynccontextmanager
async def _keep_out(
    storage: StorageProvider, own: bytes, others: bytes, refusal: str, clock: Callable[[], float]
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    # Each of the two leaves its record before it looks for the other's, so that one of them at least finds it.
    async with _record(storage, own, clock) as record:
        if await _is_any(storage, others, round(clock() * 1000)):
            raise Conflict(refusal)
        yield record.renew


@contextlib.asynccontextmanager
async def _record(storage: StorageProvider, prefix: bytes, clock: Callable[[], float]) -> AsyncIterator[_Record]:
    """Tell others of something until the context ends."""
    record = _Record(storage, prefix + secrets.token_bytes(16), clock)
    await record.renew()
    ended = asyncio.Event()
    renewing = asyncio.create_task(record.renew_until(ended))
    try:
        try:
            async with asyncio.timeout(None) as reading:

                def interrupt(_: asyncio.Task[None]) -> None:
                    if not ended.is_set():
                        reading.reschedule(0)

                renewing.add_done_callback(interrupt)
                yield record
                ended.set()
        except TimeoutError:
            if not reading.expired():
                raise
        await renewing
    finally:
        ended.set()
        await asyncio.gather(renewing, return_exceptions=True)
        await record.remove()


class _Record:
    """What tells others that somebody reads a state, or brings or removes chunks."""

    def __init__(self, storage: StorageProvider, key: bytes, clock: Callable[[], float]) -> None:
        self._storage = storage
        self._key = key
        self._clock = clock
        self._version: Version = 0

    async def renew(self) -> None:
        now = _TIME.pack(round(self._clock() * 1000))
        for _ in range(2):
            version = await self._storage.store_if(self._key, now, self._version)
            if version is not None:
                self._version = version
                return
            # A renewal that failed may have been made all the same: others do not write this record, but delete it.
            self._version = await self._storage.version(self._key)
            if not self._version:
                break  # never made a second time: who deletes it goes on to remove what the state needs
        raise Conflict("it went so slowly that others took it for abandoned, and may have removed something: try again")

    async def renew_until(self, ended: asyncio.Event) -> None:
        # Not a task that is cancelled: a renewal that was made and not noted would look like somebody else's.
        loop = asyncio.get_running_loop()
        renewed_at = loop.time()
        pause = RENEWAL_INTERVAL
        while not ended.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await ended.wait()
            begun_at = loop.time()
            try:
                await self.renew()
            except StorageError:
                if ended.is_set() or begun_at - renewed_at > MAX_SILENCE - RENEWAL_INTERVAL:
                    raise
                pause = RETRY_INTERVAL
            else:
                renewed_at, pause = begun_at, RENEWAL_INTERVAL

    async def remove(self) -> None:
        with contextlib.suppress(StorageError):  # others will, after some time
            await self._storage.delete(self._key)


async def _tell_others(storage: StorageProvider, names: Names) -> Snapshot:
    """Store the newest root a second time, so that all others read it anew before their next change."""
    for attempt in range(TRIES):
        header_version = await storage.version(names.header)
        header = await storage.retrieve(names.header)
        # From here to the end no other change may come: so nothing else is asked of a store that may be far away.
        root_version = await storage.version(names.root)
        root = await storage.retrieve(names.root)
        if root is None or header is None:
            raise NoChamber("the store has no chamber of that name")
        told = await storage.store_if(names.root, root, root_version)
        # A header that was replaced meanwhile may lack a data key that the root needs.
        if told is not None and await storage.version(names.header) == header_version:
            return Snapshot(root, header)
        pause = min(_FIRST_PAUSE * 2**attempt, LONGEST_PAUSE)
        await asyncio.sleep(random.uniform(0, pause))  # noqa: S311  no secret
    raise Conflict("others change the chamber faster than one state of it can be held: try again")


async def is_being_read(storage: StorageProvider, names: Names, now: int) -> bool:
    """Return whether there are snapshots of a chamber; end those that are abandoned, until one is found that is not.

    Where the store lists more than anybody needs, the answer is yes, so that nothing is removed.

    Args:
        storage: Where the chamber is.
        names: Its keys there.
        now: Milliseconds since 1970.

    Raises:
        StorageError: The store failed.
    """
    return await _is_any(storage, names.snapshots, now)


async def _is_any(storage: StorageProvider, prefix: bytes, now: int) -> bool:
    """Return whether there are records of a kind that are not abandoned, as :func:`is_being_read` does."""
    listed = 0
    async for key in storage.list_keys(prefix):
        listed += 1
        if listed > MAX_LISTED:
            return True
        record = await storage.retrieve(key)
        if record is None:
            continue
        # A time ahead is one of another machine's clock, or of somebody who wants nothing removed for ever.
        if len(record) == _TIME.size and abs(now - _TIME.unpack(record)[0]) < MAX_SILENCE * 1000:
            return True
        await storage.delete(key)
    return False
