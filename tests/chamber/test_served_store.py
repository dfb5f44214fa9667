"""Is a served store a store, only for those who may use it, and never more than it may be?"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_chamber import Chamber, DamagedError, KeyMissing, RollbackDetected, Seed, serving
from stt_chamber.backends.sqlite import SQLiteStorage
from stt_chamber.errors import StoreFull, StoreRefused
from stt_chamber.remote import RemoteStorage
from stt_chamber.serving import BLOCK_SIZE, COUNTED_TOGETHER, LISTINGS_KEPT, StoreServer
from stt_chamber.store_messages import (
    MAX_CHANGES,
    MAX_PAGE_KEYS,
    MAX_REQUEST_SIZE,
    MAX_VALUE_SIZE,
    Access,
    MalformedMessage,
    Operation,
    Status,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
)
from stt_chamber.upkeep import check, collect, repair
from stt_core import Identity, STTNode, hookimpl, serialize_stt
from stt_core.defaults.memory_storage import MemoryStorage
from stt_core.errors import ConfigError, ConnectError, StorageError
from stt_core.interfaces import StorageCapabilities, StorageProvider
from stt_core.interfaces.endpoint import EndpointRequest, Peer, PeerOffer
from stt_core.testing import StorageContract

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from stt_core import STTSession
    from stt_core.interfaces import StorageFactory, Version

SEED = Seed(bytes(range(32)))
SESSION_SEED = b"what those have who may have a session"
OWNER = b"the seed of the node that has the seed of the chamber"
HOLDER = b"the seed of the node that has the store"
STRANGER = b"the seed of a node that nobody knows of"
GENEROUS = 1 << 30


def node_id(seed: bytes) -> bytes:
    return Identity.from_seed(seed).node_id


@contextlib.asynccontextmanager
async def session_with(
    handlers: Mapping[str, Any], *, seed: bytes = OWNER, **options: Any
) -> AsyncIterator[STTSession]:
    """Give a session of one node with another that has these endpoints."""
    url = f"memory://holder-{os.urandom(8).hex()}"
    holder = STTNode(node_seed=HOLDER, shared_seed=SESSION_SEED, **options)
    asker = STTNode(node_seed=seed, shared_seed=SESSION_SEED)
    async with holder, asker:
        for name, handler in handlers.items():
            holder.endpoints.register(name, handler)
        await holder.listen(url)
        yield await asker.connect(url, expect=holder.node_id)


@contextlib.asynccontextmanager
async def served(
    storage: StorageProvider, access: Access = Access.WRITE, *, seed: bytes = OWNER, quota: int = GENEROUS
) -> AsyncIterator[RemoteStorage]:
    """Give a store as it is served to the owner's node, or to another one."""
    server = await StoreServer.open(storage, {node_id(OWNER): access}, quota=quota)
    async with session_with({StoreServer.endpoint(): server}, seed=seed) as session:
        remote = await RemoteStorage.open(session)
        yield remote
        await remote.close()
    await server.close()


class OverASession(StorageProvider):
    """A SQLite store that two nodes of this process have between them: nothing is asked of it but over a session."""

    capabilities = StorageCapabilities(durable=True, atomic_commit=False, shared=True)

    def __init__(self, url: str) -> None:
        self._storage = SQLiteStorage(url)
        self._opening = asyncio.Lock()
        self._nodes = contextlib.AsyncExitStack()
        self._remote: RemoteStorage | None = None

    async def remote(self) -> RemoteStorage:
        async with self._opening:
            if self._remote is None:
                self._remote = await self._nodes.enter_async_context(served(self._storage))
                assert self._remote.capabilities == self.capabilities
            return self._remote

    async def store(self, key: bytes, value: bytes) -> None:
        await (await self.remote()).store(key, value)

    async def retrieve(self, key: bytes) -> bytes | None:
        return await (await self.remote()).retrieve(key)

    async def exists(self, key: bytes) -> bool:
        return await (await self.remote()).exists(key)

    async def delete(self, key: bytes) -> bool:
        return await (await self.remote()).delete(key)

    async def list_keys(self, prefix: bytes = b"") -> AsyncIterator[bytes]:
        async for key in (await self.remote()).list_keys(prefix):
            yield key

    async def version(self, key: bytes) -> Version:
        return await (await self.remote()).version(key)

    async def store_if(self, key: bytes, value: bytes, expected_version: Version) -> Version | None:
        return await (await self.remote()).store_if(key, value, expected_version)

    async def commit(self, puts: Mapping[bytes, bytes], deletes: Sequence[bytes] = ()) -> None:
        await (await self.remote()).commit(puts, deletes)

    async def close(self) -> None:
        await self._nodes.aclose()
        await self._storage.close()


class TestRemoteStorage(StorageContract):
    @pytest.fixture
    def factory(self) -> StorageFactory:
        return OverASession

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite://{tmp_path}/store.db"

    @pytest.fixture
    def break_store(self, tmp_path: Path) -> Callable[[], None]:
        def write_over_it() -> None:
            for path in tmp_path.iterdir():
                path.write_bytes(b"no database" * 1000)

        return write_over_it


# A chamber over it


@pytest.mark.asyncio
async def test_a_chamber_on_a_served_store_is_like_any_other_one(memory: StorageProvider) -> None:
    async with served(memory) as remote:
        async with await Chamber.create(remote, SEED) as chamber:
            await chamber.store("small", {"is": "small"})
            async with chamber.open_writer("large") as writer:
                for _ in range(4):
                    await writer.write(bytes(1_000_000))
            await chamber.store("gone", bytes(100_000))
            await chamber.delete("gone")
            assert (await check(chamber)).damaged == ()
            assert await collect(chamber) == 0
        assert (await repair(remote, [SEED])).lost == ()

    async with await Chamber.open(memory, SEED) as chamber:
        assert await chamber.retrieve("small") == {"is": "small"}
        assert await chamber.retrieve("large") == bytes(4_000_000)


@pytest.mark.asyncio
async def test_who_holds_the_store_finds_nothing_readable_in_it(memory: MemoryStorage) -> None:
    async with served(memory) as remote, await Chamber.create(remote, SEED) as chamber:
        await chamber.store("a key that nobody reads", b"a value that nobody reads" * 1000)

    held = b"".join([key + (await memory.retrieve(key) or b"") async for key in memory.list_keys()])
    assert b"nobody reads" not in held


@pytest.mark.asyncio
async def test_several_stores_of_a_node_are_told_apart_by_name() -> None:
    stores = {"": MemoryStorage(), "photos": MemoryStorage()}
    allow = {node_id(OWNER): Access.WRITE}
    handlers = {
        StoreServer.endpoint(name): await StoreServer.open(store, allow, quota=GENEROUS)
        for name, store in stores.items()
    }
    async with session_with(handlers) as session:
        remote = await RemoteStorage.open(session, "photos")
        await remote.store(b"key", b"value")
        with pytest.raises(StorageError, match="serves no store of that name"):
            await RemoteStorage.open(session, "videos")

    assert await stores["photos"].retrieve(b"key") == b"value"
    assert not await stores[""].exists(b"key")


# Who may do what


@pytest.mark.asyncio
async def test_nobody_may_use_a_store_but_those_who_are_named(memory: StorageProvider) -> None:
    server = await StoreServer.open(memory, {node_id(OWNER): Access.WRITE}, quota=GENEROUS)
    async with session_with({StoreServer.endpoint(): server}, seed=STRANGER) as session:
        with pytest.raises(StoreRefused):
            await RemoteStorage.open(session)
        for request in every_request():
            status, _ = decode_reply(await session.request(StoreServer.endpoint(), request))
            assert status == Status.REFUSED

    assert [key async for key in memory.list_keys()] == []


@pytest.mark.asyncio
async def test_who_may_only_read_changes_nothing(memory: StorageProvider) -> None:
    await memory.store(b"key", b"value")
    async with served(memory, Access.READ) as remote:
        assert await remote.retrieve(b"key") == b"value"
        assert [key async for key in remote.list_keys()] == [b"key"]
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: remote.store(b"key", b"new"),
            lambda: remote.delete(b"key"),
            lambda: remote.store_if(b"other", b"new", 0),
            lambda: remote.commit({b"other": b"new"}, [b"key"]),
        ]
        for call in calls:
            with pytest.raises(StoreRefused, match="only read"):
                await call()

    assert await memory.retrieve(b"key") == b"value"
    assert [key async for key in memory.list_keys()] == [b"key"]


@pytest.mark.asyncio
async def test_who_may_only_read_gets_the_values_of_a_chamber(memory: StorageProvider) -> None:
    async with await Chamber.create(memory, SEED) as chamber:
        await chamber.store("key", bytes(100_000))

    async with served(memory, Access.READ) as remote, await Chamber.open(remote, SEED) as chamber:
        assert await chamber.list() == ["key"]
        assert await chamber.retrieve("key") == bytes(100_000)
        with pytest.raises(StoreRefused):
            await chamber.store("key", "new")


class _LetsNobodyIn:
    @staticmethod
    @hookimpl
    def stt_authorize(peer: PeerOffer) -> bool:
        return len(peer.node_id) == 0


@pytest.mark.asyncio
async def test_whom_a_plugin_refuses_gets_no_store(memory: StorageProvider) -> None:
    server = await StoreServer.open(memory, {node_id(OWNER): Access.WRITE}, quota=GENEROUS)
    with pytest.raises(ConnectError):
        async with session_with({StoreServer.endpoint(): server}, plugins=[_LetsNobodyIn]):
            pass


# Bounds


@pytest.mark.asyncio
async def test_a_store_that_may_be_written_to_needs_a_quota(memory: StorageProvider) -> None:
    with pytest.raises(ConfigError, match="needs a quota"):
        await StoreServer.open(memory, {node_id(OWNER): Access.WRITE})


@pytest.mark.asyncio
async def test_a_peer_cannot_fill_the_store_beyond_its_quota(memory: StorageProvider) -> None:
    quota = 50 * BLOCK_SIZE
    async with served(memory, quota=quota) as remote:
        with pytest.raises(StoreFull):
            await remote.store(b"large", bytes(quota))
        for number in range(50):
            await remote.store(b"%d" % number, b"")  # even nothing takes a block on a disk
        assert (await remote.info()).used == quota
        for change in (remote.store(b"more", b""), remote.store_if(b"more", b"", 0), remote.commit({b"more": b""})):
            with pytest.raises(StoreFull):
                await change
        await remote.store(b"0", b"as long as before")
        await remote.delete(b"1")
        await remote.store(b"more", b"")

    assert len([key async for key in memory.list_keys()]) == 50


@given(st.lists(st.tuples(st.sampled_from("scdi"), st.integers(0, 3), st.sampled_from([0, 10, 5000, 70_000]))))
def test_the_bytes_of_a_store_are_counted_as_they_are(changes: list[tuple[str, int, int]]) -> None:
    async def main() -> None:
        memory = MemoryStorage()
        async with served(memory, quota=20 * BLOCK_SIZE) as remote:
            for kind, number, size in changes:
                key, value = b"%d" % number, bytes(size)
                with contextlib.suppress(StoreFull):
                    if kind == "s":
                        await remote.store(key, value)
                    elif kind == "c":
                        await remote.commit({key: value, b"0": value}, [b"1", key, b"absent"])
                    elif kind == "d":
                        await remote.delete(key)
                    else:
                        await remote.store_if(key, value, await memory.version(key) if size else 7)
            counted = await StoreServer.open(memory, {node_id(OWNER): Access.WRITE}, quota=0)
            assert (await remote.info()).used == counted.used <= 20 * BLOCK_SIZE

    asyncio.run(main())


async def ask(server: StoreServer, operation: Operation, *arguments: Any) -> tuple[int, Any]:
    """Return the reply to a request of the owner, without a session."""
    peer = Peer(node_id(OWNER), bytes(8), "memory://peer")
    request = EndpointRequest(StoreServer.endpoint(), encode_request(operation, *arguments), peer, one_way=False)
    return decode_reply(await server(request))


@pytest.mark.asyncio
async def test_a_small_request_about_many_large_values_has_few_of_them_in_memory() -> None:
    class Watched(MemoryStorage):
        now = most = 0

        async def retrieve(self, key: bytes) -> bytes | None:
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(0)
            self.now -= 1
            return await super().retrieve(key)

    storage = Watched()
    keys = [b"%d" % number for number in range(300)]
    await storage.commit(dict.fromkeys(keys, bytes(10_000)))
    server = await StoreServer.open(storage, {node_id(OWNER): Access.WRITE}, quota=GENEROUS)

    assert await ask(server, Operation.CHANGE, [], keys) == (Status.DONE, None)

    assert server.used == 0
    assert storage.most == COUNTED_TOGETHER


class Interrupted(MemoryStorage):
    """Fails all changes for a time, before they are made or after; or keeps them until it is told to go on."""

    fails: str = ""

    def __init__(self) -> None:
        super().__init__()
        self.begun = asyncio.Event()
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()

    async def commit(self, puts: Mapping[bytes, bytes], deletes: Sequence[bytes] = ()) -> None:
        self.begun.set()
        await self.may_go_on.wait()
        if self.fails != "before":
            await super().commit(puts, deletes)
        if self.fails:
            raise StorageError("the disk is gone")


@pytest.mark.parametrize("fails", ["before", "after"])
@pytest.mark.asyncio
async def test_what_changes_count_that_failed_is_counted_anew(fails: str) -> None:
    storage = Interrupted()
    server = await StoreServer.open(storage, {node_id(OWNER): Access.WRITE}, quota=5 * BLOCK_SIZE)
    storage.fails = fails
    for number in range(20):
        status, _ = await ask(server, Operation.CHANGE, [[b"key", bytes(number)]], [])
        assert status == Status.FAILED

    storage.fails = ""
    for number in range(4):
        assert await ask(server, Operation.CHANGE, [[b"%d" % number, b""]], []) == (Status.DONE, None)

    counted = await StoreServer.open(storage, {node_id(OWNER): Access.WRITE}, quota=0)
    assert server.used == counted.used == (4 + (fails == "after")) * BLOCK_SIZE


@pytest.mark.asyncio
async def test_a_change_that_nobody_waits_for_any_more_is_counted() -> None:
    storage = Interrupted()
    storage.may_go_on.clear()
    server = await StoreServer.open(storage, {node_id(OWNER): Access.WRITE}, quota=2 * BLOCK_SIZE)
    request = asyncio.create_task(ask(server, Operation.CHANGE, [[b"key", b""]], []))
    await storage.begun.wait()
    request.cancel()
    await asyncio.wait({request})
    next_request = asyncio.create_task(ask(server, Operation.CHANGE, [[b"0", b""], [b"1", b""]], []))
    storage.may_go_on.set()

    assert (await next_request)[0] == Status.FULL
    await server.close()
    assert (server.used, await storage.retrieve(b"key")) == (BLOCK_SIZE, b"")


class Listed(MemoryStorage):
    """Tells how many listings are under way at a time, and when one has ended."""

    now = most = 0

    def __init__(self) -> None:
        super().__init__()
        self.ended = asyncio.Event()

    async def list_keys(self, prefix: bytes = b"") -> AsyncIterator[bytes]:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0)
        self.now -= 1
        try:
            async for key in super().list_keys(prefix):
                yield key
        finally:
            self.ended.set()


@pytest.mark.asyncio
async def test_a_listing_that_nobody_goes_on_with_is_let_go_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "MAX_IDLE", 0)
    storage = Listed()
    keys = [b"%05d" % number for number in range(MAX_PAGE_KEYS + 1)]
    await storage.commit(dict.fromkeys(keys, b""))
    server = StoreServer(storage, {node_id(OWNER): Access.READ}, None, 0)

    assert await ask(server, Operation.LIST, b"", None) == (Status.DONE, [keys[:-1], False])
    await storage.ended.wait()
    assert await ask(server, Operation.LIST, b"", keys[-2]) == (Status.DONE, [keys[-1:], True])


@pytest.mark.asyncio
async def test_one_listing_of_a_peer_is_made_at_a_time() -> None:
    storage = Listed()
    await storage.store(b"key", b"")
    server = StoreServer(storage, {node_id(OWNER): Access.READ}, None, 0)

    replies = await asyncio.gather(*(ask(server, Operation.LIST, b"k", None) for _ in range(10)))

    assert replies == [(Status.DONE, [[b"key"], True])] * 10
    assert storage.most == 1


@pytest.mark.asyncio
async def test_what_goes_beyond_a_limit_is_refused_on_both_sides(memory: StorageProvider) -> None:
    server = await StoreServer.open(memory, {node_id(OWNER): Access.WRITE}, quota=GENEROUS)
    too_large = bytes(MAX_VALUE_SIZE + 1)
    async with session_with({StoreServer.endpoint(): server}) as session:
        remote = await RemoteStorage.open(session)
        with pytest.raises(StorageError, match="takes at most"):
            await remote.store(b"key", too_large)
        with pytest.raises(StorageError, match="takes at most"):
            await remote.store(bytes(2000), b"")
        for request in (
            encode_request(Operation.STORE_IF, b"key", too_large, 0),
            encode_request(Operation.CHANGE, [], [b"key"] * (MAX_CHANGES + 1)),
            encode_request(Operation.CHANGE, [[b"%d" % n, bytes(MAX_VALUE_SIZE)] for n in range(2)], []),
            encode_request(Operation.READ, bytes(2000), 0),
            encode_request(Operation.READ, b"key", -1),
            encode_request(Operation.STORE_IF, b"key", b"", -1),
            bytes(MAX_REQUEST_SIZE + 1),
        ):
            status, _ = decode_reply(await session.request(StoreServer.endpoint(), request))
            assert status == Status.MALFORMED

    assert [key async for key in memory.list_keys()] == []


@pytest.mark.asyncio
async def test_many_keys_are_listed_page_by_page_and_each_page_goes_on_where_the_last_one_ended() -> None:
    class Counting(MemoryStorage):
        listings = 0

        def list_keys(self, prefix: bytes = b"") -> AsyncIterator[bytes]:
            self.listings += 1
            return super().list_keys(prefix)

    storage = Counting()
    keys = [b"%05d" % number for number in range(3 * MAX_PAGE_KEYS + 1)]
    await storage.commit(dict.fromkeys(keys, b""))
    async with served(storage) as remote:
        storage.listings = 0
        assert [key async for key in remote.list_keys()] == keys
        assert storage.listings == 1

        # More of them at a time than are kept, so that some begin anew.
        listings = [remote.list_keys(b"0" * size) for size in range(LISTINGS_KEPT + 2)]
        found: list[list[bytes]] = [[] for _ in listings]
        while any([await _next_into(listing, page) for listing, page in zip(listings, found, strict=True)]):
            pass
        assert found == [[key for key in keys if key.startswith(b"0" * size)] for size in range(len(listings))]


async def _next_into(listing: AsyncIterator[bytes], page: list[bytes]) -> bool:
    key = await anext(listing, None)
    if key is not None:
        page.append(key)
    return key is not None


@pytest.mark.asyncio
async def test_a_batch_of_any_size_is_split_into_requests(memory: StorageProvider) -> None:
    puts = {b"large %d" % number: bytes(200_000) for number in range(12)} | {b"%d" % n: b"" for n in range(3000)}
    async with served(memory) as remote:
        await remote.commit(puts)
        assert {key: await memory.retrieve(key) async for key in memory.list_keys()} == puts
        await remote.commit({b"last": b""}, [*puts])

    assert [key async for key in memory.list_keys()] == [b"last"]


# Any bytes


def every_request() -> list[bytes]:
    return [
        encode_request(Operation.INFO),
        encode_request(Operation.READ, b"key", 0),
        encode_request(Operation.VERSION, b"key"),
        encode_request(Operation.LIST, b"", None),
        encode_request(Operation.CHANGE, [[b"key", b"value"]], []),
        encode_request(Operation.DELETE, b"key"),
        encode_request(Operation.STORE_IF, b"key", b"value", 0),
    ]


sizes = st.integers(-(1 << 62), 1 << 62) | st.integers(-2, 40)
items = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 1 << 62) | st.binary(max_size=40) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=8,
)


@given(st.one_of(st.binary(), st.lists(items, max_size=5).map(serialize_stt), items.map(serialize_stt)))
def test_any_request_gets_a_reply(body: bytes) -> None:
    async def main() -> int:
        server = await StoreServer.open(MemoryStorage(), {bytes(32): Access.WRITE}, quota=GENEROUS)
        request = EndpointRequest(
            StoreServer.endpoint(), body, Peer(bytes(32), bytes(8), "memory://peer"), one_way=False
        )
        return decode_reply(await server(request))[0]

    assert asyncio.run(main()) in (Status.DONE, Status.MALFORMED)


@given(st.one_of(st.binary(), items.map(serialize_stt)))
def test_any_bytes_are_a_message_or_one_error(body: bytes) -> None:
    for decode in (decode_request, decode_reply):
        with contextlib.suppress(MalformedMessage):
            decode(body)


@given(
    st.one_of(
        st.binary(),
        items.map(serialize_stt),
        items.map(lambda item: encode_reply(Status.DONE, item)),
        st.builds(lambda size, piece: encode_reply(Status.DONE, [size, b"", piece]), sizes, st.binary()),
        st.builds(lambda keys, end: encode_reply(Status.DONE, [keys, end]), st.lists(st.binary()), st.booleans()),
        st.builds(encode_reply, st.sampled_from(Status), st.text()),
    )
)
def test_any_reply_is_a_result_or_a_storage_error(body: bytes) -> None:
    info = encode_reply(Status.DONE, [True, True, True, 2, 0, None])

    async def answer(request: EndpointRequest) -> bytes:
        return info if request.body == encode_request(Operation.INFO) else body

    async def main() -> None:
        async with session_with({StoreServer.endpoint(): answer}) as session:
            remote = await RemoteStorage.open(session)
            found: dict[str, Any] = {}
            with contextlib.suppress(StorageError):
                found["retrieve"] = await remote.retrieve(b"key")
            with contextlib.suppress(StorageError):
                found["version"] = await remote.version(b"key")
            with contextlib.suppress(StorageError):
                found["delete"] = await remote.delete(b"key")
            with contextlib.suppress(StorageError):
                found["store_if"] = await remote.store_if(b"key", b"value", 0)
            with contextlib.suppress(StorageError):
                await remote.commit({b"key": b"value"})
            with contextlib.suppress(StorageError):
                async for key in remote.list_keys(b"p"):
                    assert key.startswith(b"p")
            assert type(found.get("retrieve")) in (bytes, type(None))
            assert type(found.get("version", 0)) is int
            assert type(found.get("delete", True)) is bool
            assert type(found.get("store_if")) in (int, type(None))

    asyncio.run(main())


# A holder that lies


class Liar(MemoryStorage):
    """A store that answers as it is told to."""

    changed: bytes | None = None
    absent: bytes | None = None

    async def retrieve(self, key: bytes) -> bytes | None:
        if key == self.absent:
            return None
        value = await super().retrieve(key)
        return value[:-1] + bytes([value[-1] ^ 1]) if value and key == self.changed else value


@pytest.mark.asyncio
async def test_a_holder_that_changes_or_hides_a_chunk_is_found_out() -> None:
    storage = Liar()
    async with served(storage) as remote, await Chamber.create(remote, SEED) as chamber:
        await chamber.store("key", bytes(100_000))
        chunks = [key async for key in storage.list_keys() if len(key) == 33]
        for name in ("changed", "absent"):
            for chunk in chunks:
                setattr(storage, name, chunk)
                with pytest.raises(DamagedError, match="key: chunk"):
                    await chamber.retrieve("key")
                assert len((await check(chamber)).damaged) == 1
            setattr(storage, name, None)
        assert await chamber.retrieve("key") == bytes(100_000)


@pytest.mark.asyncio
async def test_a_holder_that_shows_an_earlier_state_is_found_out(memory: MemoryStorage) -> None:
    async with served(memory) as remote:
        async with await Chamber.create(remote, SEED) as chamber:
            await chamber.store("key", "old")
            earlier = {key: await memory.retrieve(key) or b"" async for key in memory.list_keys()}
            await chamber.store("key", "new")
            await chamber.delete("other")
            position = chamber.position
            await memory.commit(earlier)
            with pytest.raises(RollbackDetected):
                await chamber.retrieve("key")
        with pytest.raises(RollbackDetected):
            await Chamber.open(remote, SEED, expected=position)


@pytest.mark.asyncio
async def test_a_holder_that_lists_keys_out_of_order_is_found_out() -> None:
    pages = iter([[[b"a", b"b"], False], [[b"b"], True]])

    async def answer(request: EndpointRequest) -> bytes:
        if request.body == encode_request(Operation.INFO):
            return encode_reply(Status.DONE, [True, True, True, 2, 0, None])
        return encode_reply(Status.DONE, next(pages))

    async with session_with({StoreServer.endpoint(): answer}) as session:
        remote = await RemoteStorage.open(session)
        with pytest.raises(StorageError, match="out of order"):
            [key async for key in remote.list_keys()]


@pytest.mark.asyncio
async def test_the_end_of_the_session_is_a_storage_error(memory: StorageProvider) -> None:
    server = await StoreServer.open(memory, {node_id(OWNER): Access.WRITE}, quota=GENEROUS)
    async with session_with({StoreServer.endpoint(): server}) as session:
        remote = await RemoteStorage.open(session)
        chamber = await Chamber.create(remote, SEED)
        session.close()
        with pytest.raises(StorageError, match="cannot be reached"):
            await chamber.retrieve("key")


@pytest.mark.asyncio
async def test_why_a_store_failed_is_not_told_to_peers(tmp_path: Path) -> None:
    storage = SQLiteStorage(f"sqlite://{tmp_path}/missing/store.db")
    server = StoreServer(storage, {node_id(OWNER): Access.READ}, None, 0)
    async with session_with({StoreServer.endpoint(): server}) as session:
        remote = await RemoteStorage.open(session)
        with pytest.raises(StorageError, match="the store behind failed") as failed:
            await remote.retrieve(b"key")

    assert str(tmp_path) not in str(failed.value)
    await storage.close()


@pytest.mark.asyncio
async def test_two_owners_may_use_a_served_chamber_at_a_time(memory: StorageProvider) -> None:
    async with served(memory) as remote, await Chamber.create(remote, SEED) as here:
        there = await Chamber.open(memory, SEED)
        async with there:
            await asyncio.gather(
                *(
                    chamber.store(f"{name} {number}", number)
                    for name, chamber in (("here", here), ("there", there))
                    for number in range(20)
                )
            )
            assert len(await here.list()) == len(await there.list()) == 40
            await there.delete("here 1")
            with pytest.raises(KeyMissing):
                await here.retrieve("here 1")
