"""A store that peers reach over an endpoint: who may do what with it, and how much they may make it hold.

The server has no key of a chamber: what it holds is sealed, and stays so.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import attrs

from stt_chamber.store_messages import (
    MAX_BATCH_SIZE,
    MAX_CHANGES,
    MAX_KEY_SIZE,
    MAX_PAGE_KEYS,
    MAX_PAGE_SIZE,
    MAX_VERSION,
    PIECE_SIZE,
    TAG_SIZE,
    Access,
    MalformedMessage,
    Operation,
    Status,
    StoreInfo,
    checked_key,
    checked_value,
    decode_request,
    encode_reply,
    endpoint_of,
)
from stt_core.errors import ConfigError, StorageError, STTError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence

    from stt_core.interfaces import StorageProvider
    from stt_core.interfaces.endpoint import EndpointRequest

REQUESTS_AT_ONCE: Final = 16
"""Requests of one peer that are worked on at a time; more wait, and hold the peer back."""

LISTINGS_KEPT: Final = 4
"""Listings of one peer that go on where their last page ended; others begin anew, and skip."""

MAX_IDLE: Final = 60.0
"""Seconds after which a listing that nobody goes on with is let go of."""

COUNTED_TOGETHER: Final = 16
"""Values that are in memory at a time to count what a change replaces, as a small request may name many large ones."""

BLOCK_SIZE: Final = 4096
"""What a record takes is counted in blocks of these bytes, as disks have it: many small ones fill a disk, too."""

RECORD_OVERHEAD: Final = 64
"""Bytes that a backend needs for a record besides its key and value, at most."""

T = TypeVar("T")

_LOG = logging.getLogger("stt.chamber")


class _Refusal(STTError):
    """A request gets no result, but a status and a reason."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@attrs.frozen
class _Listing:
    """A listing that can be gone on with."""

    last: bytes
    """The last key that was told."""
    keys: AsyncIterator[bytes]
    """Yields those behind it."""
    expiry: asyncio.TimerHandle


class _Peer:
    """What is kept of one peer that may use the store."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self.turns = asyncio.Semaphore(REQUESTS_AT_ONCE)
        # Held while a page is made, as one may take the store long.
        self.listing = asyncio.Lock()
        self.listings: OrderedDict[bytes, _Listing] = OrderedDict()  # by prefix


class StoreServer:
    """The handler of one endpoint, through which peers use one store; made by :meth:`open`.

    Args:
        storage: The store; it stays the caller's, who closes it after :meth:`close`.
        allow: What each node may do; nobody else may do anything.
        quota: Bytes that the store may hold, in blocks of 4 KiB for each record.
        used: Bytes that it holds.
    """

    def __init__(self, storage: StorageProvider, allow: Mapping[bytes, Access], quota: int | None, used: int) -> None:
        self._storage = storage
        self._peers = {node_id: _Peer(access) for node_id, access in allow.items()}
        self._quota = quota
        self._used = used
        # Held while something is changed, so that the count of bytes is right.
        self._changing = asyncio.Lock()
        self._change_task: asyncio.Task[Any] | None = None  # kept, as the loop does not
        # The keys of a change that failed, and so may have been made, and what they counted before.
        self._doubted: tuple[Collection[bytes], int] | None = None

    @classmethod
    async def open(
        cls,
        storage: StorageProvider,
        allow: Mapping[bytes, Access],
        *,
        quota: int | None = None,
        progress: Callable[[int], None] = lambda _: None,
    ) -> Self:
        """Return what serves a store.

        Where somebody may write, everything in the store is read once, to count its bytes. What other programs change
        in the store later is not counted.

        Args:
            storage: The store.
            allow: What each node may do, by node id; nobody else may do anything.
            quota: Bytes that the store may hold; needed where somebody may write, and of no meaning else.
            progress: Told of the bytes of each record that was counted.

        Raises:
            ConfigError: Somebody may write, and there is no quota.
            StorageError: The store failed.
        """
        if Access.WRITE not in allow.values():
            return cls(storage, allow, None, 0)
        if quota is None or quota < 0:
            raise ConfigError("a store that peers may write to needs a quota")
        used = 0
        async for key in storage.list_keys():
            value = await storage.retrieve(key)
            if value is not None:  # else it was removed since it was listed
                used += _charge(key, value)
                progress(len(value))
        return cls(storage, allow, quota, used)

    @staticmethod
    def endpoint(name: str = "") -> str:
        """Return the name of the endpoint to register this under.

        Args:
            name: Tells several stores of one node apart.
        """
        return endpoint_of(name)

    @property
    def used(self) -> int:
        """Bytes that the store holds, as they count against the quota; 0 where nobody may write."""
        return self._used

    async def close(self) -> None:
        """End what is kept of listings, and wait for a change that is under way. Calling it twice is allowed."""
        for peer in self._peers.values():
            while peer.listings:
                await _end(peer.listings.popitem()[1])
        async with self._changing:
            pass

    async def __call__(self, request: EndpointRequest) -> bytes:
        """Answer a request."""
        peer = self._peers.get(request.peer.node_id)
        if peer is None:
            return encode_reply(Status.REFUSED, "this node may not use the store")
        async with peer.turns:
            try:
                return encode_reply(Status.DONE, await self._answer(peer, decode_request(request.body)))
            except _Refusal as refusal:
                return encode_reply(refusal.status, str(refusal))
            except MalformedMessage as error:
                return encode_reply(Status.MALFORMED, str(error))
            except StorageError as error:
                # What it says may name paths and passwords.
                _LOG.warning("the served store failed: %s", error)
                return encode_reply(Status.FAILED, "the store behind failed")

    async def _answer(self, peer: _Peer, items: Sequence[Any]) -> Any:
        match items:
            case [Operation.INFO]:
                return StoreInfo(self._storage.capabilities, peer.access, self._used, self._quota).encode()
            case [Operation.READ, key, int(offset)] if offset >= 0:
                return await self._read(checked_key(key), offset)
            case [Operation.VERSION, key]:
                return await self._storage.version(checked_key(key))
            case [Operation.LIST, prefix, bytes() | None as after]:
                return await self._list(peer, checked_key(prefix), after)
        if peer.access is not Access.WRITE:
            raise _Refusal(Status.REFUSED, "this node may only read")
        return await self._answer_writer(items)

    async def _answer_writer(self, items: Sequence[Any]) -> Any:
        match items:
            case [Operation.CHANGE, [*puts], [*deletes]] if len(puts) + len(deletes) <= MAX_CHANGES:
                return await self._change(_decode_puts(puts), [checked_key(key) for key in deletes])
            case [Operation.DELETE, key]:
                return await self._delete(checked_key(key))
            case [Operation.STORE_IF, key, value, int(expected)] if 0 <= expected <= MAX_VERSION:
                return await self._store_if(checked_key(key), checked_value(value), expected)
        raise MalformedMessage("this is no request that the store knows, or it is too long")

    # Reading

    async def _read(self, key: bytes, offset: int) -> list[Any] | None:
        value = await self._storage.retrieve(key)
        if value is None:
            return None
        if offset > len(value):
            raise MalformedMessage("the offset is behind the end of the value")
        tag = hashlib.sha3_256(value).digest()[:TAG_SIZE] if len(value) > PIECE_SIZE else b""
        return [len(value), tag, value[offset : offset + PIECE_SIZE]]

    async def _list(self, peer: _Peer, prefix: bytes, after: bytes | None) -> list[Any]:
        async with peer.listing:
            kept = peer.listings.pop(prefix, None)
            if kept is not None and after is not None and kept.last == after:
                kept.expiry.cancel()
                keys = kept.keys
            else:
                if kept is not None:
                    await _end(kept)
                keys = self._storage.list_keys(prefix)
            page: list[bytes] = []
            size = 0
            async for key in keys:
                if (after is not None and key <= after) or len(key) > MAX_KEY_SIZE:
                    continue
                page.append(key)
                size += len(key)
                if len(page) == MAX_PAGE_KEYS or size > MAX_PAGE_SIZE - MAX_KEY_SIZE:
                    await _keep(peer, prefix, key, keys)
                    return [page, False]
            return [page, True]

    # Changing

    async def _change(self, puts: Mapping[bytes, bytes], deletes: Sequence[bytes]) -> None:
        async def change() -> None:
            await self._begin(puts.keys() | set(deletes), sum(_charge(*item) for item in puts.items()))
            await self._storage.commit(puts, deletes)
            self._settle(sum(_charge(key, puts[key]) for key in puts.keys() - set(deletes)))

        await self._in_turn(change)

    async def _delete(self, key: bytes) -> bool:
        async def change() -> bool:
            await self._begin([key], 0)
            was_there = await self._storage.delete(key)
            self._settle(0)
            return was_there

        return await self._in_turn(change)

    async def _store_if(self, key: bytes, value: bytes, expected: int) -> int | None:
        async def change() -> int | None:
            held = await self._begin([key], _charge(key, value))
            version = await self._storage.store_if(key, value, expected)
            self._settle(held if version is None else _charge(key, value))
            return version

        return await self._in_turn(change)

    async def _in_turn(self, change: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Make one change at a time, to its end though the request is cancelled: it would take effect later."""
        await self._changing.acquire()
        self._change_task = task = asyncio.create_task(change())
        task.add_done_callback(lambda _: self._changing.release())
        return await asyncio.shield(task)

    async def _begin(self, keys: Collection[bytes], charge: int) -> int:
        """Return what keys count that are about to be changed; until :meth:`_settle` they are in doubt.

        If they still are when the next change comes, it first counts them anew. Where the store then gives no answer,
        that change fails: so there are never more of them than one request has.

        Raises:
            _Refusal: There is no room for what they will count.
        """
        if self._doubted is not None:
            self._settle(await self._charged(self._doubted[0]))
        held = await self._charged(keys)
        self._require_room(charge - held)
        self._doubted = keys, held
        return held

    def _settle(self, holds: int) -> None:
        """Note what the keys in doubt count now."""
        assert self._doubted is not None  # whoever calls has made it so
        self._used += holds - self._doubted[1]
        self._doubted = None

    async def _charged(self, keys: Collection[bytes]) -> int:
        remaining = iter(keys)
        charged = 0
        while some := list(itertools.islice(remaining, COUNTED_TOGETHER)):
            charged += sum(await asyncio.gather(*map(self._charge_of, some)))
        return charged

    async def _charge_of(self, key: bytes) -> int:
        value = await self._storage.retrieve(key)
        return 0 if value is None else _charge(key, value)

    def _require_room(self, grown: int) -> None:
        assert self._quota is not None  # as somebody may write
        if grown > 0 and self._used + grown > self._quota:
            raise _Refusal(Status.FULL, f"the store may hold {self._quota} bytes, and has {self._used}")


def _charge(key: bytes, value: bytes) -> int:
    """Return the bytes that a record counts."""
    return -(-(len(key) + len(value) + RECORD_OVERHEAD) // BLOCK_SIZE) * BLOCK_SIZE


def _decode_puts(items: Sequence[Any]) -> dict[bytes, bytes]:
    puts: dict[bytes, bytes] = {}
    for item in items:
        match item:
            case [key, value]:
                puts[checked_key(key)] = checked_value(value)
            case _:
                raise MalformedMessage("a value to set is a pair of key and value")
    if sum(len(key) + len(value) for key, value in puts.items()) > MAX_BATCH_SIZE:
        raise MalformedMessage(f"a batch has at most {MAX_BATCH_SIZE} bytes")
    return puts


async def _keep(peer: _Peer, prefix: bytes, last: bytes, keys: AsyncIterator[bytes]) -> None:
    # The loop ends a generator that nothing refers to any more.
    expiry = asyncio.get_running_loop().call_later(MAX_IDLE, peer.listings.pop, prefix, None)
    peer.listings[prefix] = _Listing(last, keys, expiry)
    if len(peer.listings) > LISTINGS_KEPT:
        await _end(peer.listings.popitem(last=False)[1])


async def _end(listing: _Listing) -> None:
    listing.expiry.cancel()
    if isinstance(listing.keys, AsyncGenerator):
        await listing.keys.aclose()
