"""A store that peers reach over an endpoint: who may do what with it, and how much they may make it hold.

The server has no key of a chamber: what it holds is sealed, and stays so.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, Final, Self

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
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from stt_core.interfaces import StorageProvider
    from stt_core.interfaces.endpoint import EndpointRequest

REQUESTS_AT_ONCE: Final = 16
"""Requests of one peer that are worked on at a time; more wait, and hold the peer back."""

LISTINGS_KEPT: Final = 4
"""Listings of one peer that go on where their last page ended; others begin anew, and skip."""

BLOCK_SIZE: Final = 4096
"""What a record takes is counted in blocks of these bytes, as disks have it: many small ones fill a disk, too."""

RECORD_OVERHEAD: Final = 64
"""Bytes that a backend needs for a record besides its key and value, at most."""

_LOG = logging.getLogger("stt.chamber")


class _Refusal(STTError):
    """A request gets no result, but a status and a reason."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class _Peer:
    """What is kept of one peer that may use the store."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self.turns = asyncio.Semaphore(REQUESTS_AT_ONCE)
        # By prefix: the last key that was told, and what yields those behind it.
        self.listings: OrderedDict[bytes, tuple[bytes, AsyncIterator[bytes]]] = OrderedDict()


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
        """End what is kept of listings. Calling it twice is allowed."""
        for peer in self._peers.values():
            while peer.listings:
                await _end(peer.listings.popitem()[1][1])

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
        last, keys = peer.listings.pop(prefix, (b"", None))
        if keys is None or after is None or last != after:
            if keys is not None:
                await _end(keys)
            keys = self._storage.list_keys(prefix)
        page: list[bytes] = []
        size = 0
        async for key in keys:
            if (after is not None and key <= after) or len(key) > MAX_KEY_SIZE:
                continue
            page.append(key)
            size += len(key)
            if len(page) == MAX_PAGE_KEYS or size > MAX_PAGE_SIZE - MAX_KEY_SIZE:
                peer.listings[prefix] = (key, keys)
                if len(peer.listings) > LISTINGS_KEPT:
                    await _end(peer.listings.popitem(last=False)[1][1])
                return [page, False]
        return [page, True]

    # Changing

    async def _change(self, puts: Mapping[bytes, bytes], deletes: Sequence[bytes]) -> None:
        async with self._changing:
            charged = sum(_charge(key, value) for key, value in puts.items()) - await self._charged(*puts)
            freed = await self._charged(*(set(deletes) - puts.keys()))
            self._require_room(charged - freed)
            self._used += max(charged, 0)  # at first as if nothing were freed, for a failure may leave it half done
            await self._storage.commit(puts, deletes)
            gone = sum(_charge(key, puts[key]) for key in set(deletes) & puts.keys())
            self._used += min(charged, 0) - freed - gone

    async def _delete(self, key: bytes) -> bool:
        async with self._changing:
            freed = await self._charged(key)
            was_there = await self._storage.delete(key)
            self._used -= freed
            return was_there

    async def _store_if(self, key: bytes, value: bytes, expected: int) -> int | None:
        async with self._changing:
            charged = _charge(key, value) - await self._charged(key)
            self._require_room(charged)
            self._used += max(charged, 0)  # as above
            version = await self._storage.store_if(key, value, expected)
            self._used += min(charged, 0) if version is not None else -max(charged, 0)
            return version

    async def _charged(self, *keys: bytes) -> int:
        values = await asyncio.gather(*map(self._storage.retrieve, keys))
        return sum(_charge(key, value) for key, value in zip(keys, values, strict=True) if value is not None)

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


async def _end(keys: AsyncIterator[bytes]) -> None:
    if isinstance(keys, AsyncGenerator):
        await keys.aclose()
