"""What every store keeps: the contract kit of :class:`~stt_core.interfaces.storage.StorageProvider`."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import traceback
import warnings
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Final

import pytest

from stt_core.errors import StorageError
from stt_core.interfaces.storage import StorageCapabilities
from stt_core.testing.contract import Contract, Leftovers, assert_same, rule

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.context import ForkContext, SpawnContext

    from stt_core.interfaces.storage import StorageFactory, StorageProvider

# Ascending. Some are trouble to file names, some to SQL, some to text.
_KEYS: Final = (
    b"",
    b"\x00",
    b" ",
    b"%",
    b"' OR 1=1 --",
    b".",
    b"..",
    b"../up",
    b"/",
    b"/root",
    b"A",
    b"CON",
    b"_",
    b"a",
    b"a/",
    b"a/b",
    b"aB",
    b"ab",
    b"n" * 200,
    "ö".encode(),
    b"\xff",
    b"\xff\xff",
)
_LARGE: Final = 1 << 20  # bytes
_TASKS: Final = 12
_MOMENTS: Final = 16  # iterations of the event loop after which a call is cancelled, at most
_COUNT: Final = 30  # times that each of two processes counts a number up


class StorageContract(Contract):
    """The rules of stores.

    Give the fixtures :meth:`factory` and :meth:`url`, and :meth:`break_store` where a store can fail. What
    ``capabilities`` declares is checked: ``durable``, ``atomic_commit`` and ``shared``.
    """

    is_fork_safe: ClassVar[bool] = True
    """Whether a process may be forked after it has used a store; if not, the rules begin others from scratch.

    ``factory`` must then be importable: a class or a function of a module.
    """

    @pytest.fixture
    def factory(self) -> StorageFactory:
        """Return what makes the providers, called with a URL."""
        self.to_be_given("factory", "what makes the providers, called as factory(url)")

    @pytest.fixture
    def url(self) -> str:
        """Return the URL of an empty store that no other test uses."""
        self.to_be_given("url", "the URL of an empty store that no other test uses")

    @pytest.fixture
    def break_store(self) -> Callable[[], None] | None:
        """Return a function that makes the store at ``url`` fail from now on; None where nothing can."""
        return None

    @pytest.fixture
    def storage(self, factory: StorageFactory, url: str) -> _Storage:
        """Return what opens the store of a rule."""
        return _Storage(factory, url)

    # Keys and values

    @rule()
    def test_capabilities_are_declared(self, factory: StorageFactory, url: str) -> None:
        """On the provider, as StorageCapabilities, before it is used."""
        assert isinstance(factory(url).capabilities, StorageCapabilities)

    @rule()
    async def test_what_is_stored_is_retrieved(self, storage: _Storage) -> None:
        """Any bytes: none, one, every one, a MiB."""
        async with storage.open() as store:
            for value in (b"", b"\x00", bytes(range(256)), random.Random(1).randbytes(_LARGE)):
                await store.store(b"key", value)
                found = await store.retrieve(b"key")
                assert type(found) is bytes
                assert_same(found, value, f"{len(value)} bytes were stored, and {len(found)} others retrieved")
            assert await store.exists(b"key")

    @rule()
    async def test_any_bytes_are_a_key(self, storage: _Storage) -> None:
        """None of them is another one's, whatever it looks like to a file system or a database."""
        async with storage.open() as store:
            keys = [*_KEYS, b"n" * 512, b"n" * 511]
            for number, key in enumerate(keys):
                await store.store(key, b"%d" % number)
            for number, key in enumerate(keys):
                assert await store.retrieve(key) == b"%d" % number

    @rule()
    async def test_storing_again_replaces(self, storage: _Storage) -> None:
        """With a longer value, a shorter one, an empty one."""
        async with storage.open() as store:
            for value in (b"first", b"a longer one", b"short", b""):
                await store.store(b"key", value)
                assert await store.retrieve(b"key") == value

    @rule()
    async def test_an_absent_key_is_told_from_an_empty_value(self, storage: _Storage) -> None:
        """It is None, not there, and of version 0."""
        async with storage.open() as store:
            await store.store(b"empty", b"")
            assert await store.retrieve(b"absent") is None
            assert await store.exists(b"absent") is False
            assert await store.version(b"absent") == 0
            assert await store.exists(b"empty") is True

    @rule()
    async def test_deleting_removes_and_says_whether_there_was_something(self, storage: _Storage) -> None:
        """A key, and no other."""
        async with storage.open() as store:
            await store.store(b"key", b"value")
            await store.store(b"key too", b"value")
            assert await store.delete(b"key") is True
            assert await store.delete(b"key") is False
            assert await store.retrieve(b"key") is None
            assert await store.exists(b"key") is False
            assert await store.retrieve(b"key too") == b"value"

    @rule()
    async def test_keys_are_listed_ascending(self, storage: _Storage) -> None:
        """By their bytes."""
        async with storage.open() as store:
            assert await _listed(store) == []
            for key in random.Random(1).sample(_KEYS, len(_KEYS)):
                await store.store(key, b"")
            assert await _listed(store) == list(_KEYS)

    @rule()
    async def test_keys_are_listed_by_prefix(self, storage: _Storage) -> None:
        """Any bytes are a prefix, also those that mean something to a pattern."""
        async with storage.open() as store:
            for key in _KEYS:
                await store.store(key, b"")
            for prefix in (b"a", b"a/", b"%", b"_", b"..", b"\xff", b"\xff\xff", b"n" * 199, b"b"):
                assert await _listed(store, prefix) == [key for key in _KEYS if key.startswith(prefix)]

    @rule()
    async def test_keys_may_change_while_they_are_listed(self, storage: _Storage) -> None:
        """The change may show or not; keys that were there all the time come once."""
        async with storage.open() as store:
            keys = [b"%02d" % number for number in range(20)]
            for key in keys:
                await store.store(key, b"")
            listed = []
            async for key in store.list_keys():
                listed.append(key)
                await store.delete(key)
                await store.store(b"x" + key, b"")
            assert [key for key in listed if key in keys] == keys

    # Versions

    @rule()
    async def test_each_change_gives_a_version_that_the_key_never_had(self, storage: _Storage) -> None:
        """Also after it was deleted; other keys change nothing."""
        async with storage.open() as store:
            seen = [await store.version(b"key")]
            for number in range(4):
                await store.store(b"key", b"%d" % number)
                version = await store.version(b"key")
                assert version not in seen
                seen.append(version)
                await store.store(b"other", b"")
                assert await store.version(b"key") == version
                if number % 2:
                    await store.delete(b"key")
                    assert await store.version(b"key") == 0

    @rule()
    async def test_store_if_needs_the_right_version(self, storage: _Storage) -> None:
        """It returns the new one; else None, and nothing is changed."""
        async with storage.open() as store:
            first = await store.store_if(b"key", b"first", 0)
            assert first is not None
            assert first == await store.version(b"key")
            assert await store.store_if(b"key", b"wrong", 0) is None
            assert await store.retrieve(b"key") == b"first"
            second = await store.store_if(b"key", b"second", first)
            assert second is not None
            assert second == await store.version(b"key")
            assert await store.store_if(b"key", b"wrong", first) is None
            assert await store.retrieve(b"key") == b"second"

    @rule()
    async def test_one_of_many_wins_store_if(self, storage: _Storage) -> None:
        """Of those that expect the same version at the same time."""
        async with storage.open() as store:
            await store.store(b"key", b"")
            version = await store.version(b"key")
            won = await asyncio.gather(*(store.store_if(b"key", b"%d" % task, version) for task in range(_TASKS)))
            winners = [task for task, result in enumerate(won) if result is not None]
            assert len(winners) == 1
            assert await store.retrieve(b"key") == b"%d" % winners[0]

    # Several changes

    @rule()
    async def test_a_commit_applies_all_its_changes(self, storage: _Storage) -> None:
        """Puts and deletes, of absent keys too, and none at all."""
        async with storage.open() as store:
            await store.store(b"old", b"")
            before = await store.version(b"old")
            await store.store(b"gone", b"")
            await store.commit({b"new": b"1", b"old": b"2"}, [b"gone", b"never there"])
            await store.commit({})
            assert await store.retrieve(b"new") == b"1"
            assert await store.retrieve(b"old") == b"2"
            assert await store.version(b"old") not in (0, before)
            assert await _listed(store) == [b"new", b"old"]

    @rule(relaxed_by="declare atomic_commit=False")
    async def test_a_commit_that_fails_changes_nothing(self, storage: _Storage) -> None:
        """For instance because one of its values is none."""
        async with storage.open() as store:
            _only_if(store.capabilities, "atomic_commit")
            await store.store(b"2", b"old")
            puts: dict[bytes, Any] = {b"1": b"new", b"2": b"new", b"3": object()}
            with pytest.raises(Exception):  # noqa: B017, PT011  whatever it is
                await store.commit(puts, [b"2"])
            assert await _listed(store) == [b"2"]
            assert await store.retrieve(b"2") == b"old"

    @rule(relaxed_by="declare atomic_commit=False")
    async def test_a_cancelled_commit_is_whole_or_not_at_all(self, storage: _Storage) -> None:
        """At whatever moment it is cancelled."""
        async with storage.open() as store:
            _only_if(store.capabilities, "atomic_commit")
            keys = [b"%d" % number for number in range(8)]
            for moment in range(_MOMENTS):
                await store.commit({}, keys)
                await _cancelled_after(moment, store.commit(dict.fromkeys(keys, b"new")))
                assert await _listed(store) in ([], keys)

    # Concurrency, cancellation

    @rule()
    async def test_many_tasks_may_use_it_at_a_time(self, storage: _Storage) -> None:
        """Each finds what it has stored."""

        async def use(store: StorageProvider, task: int) -> None:
            for number in range(4):
                key, value = b"%d/%d" % (task, number), b"%d" % (task * number)
                await store.store(key, value)
                assert await store.retrieve(key) == value
                if number % 2:
                    assert await store.delete(key)

        async with storage.open() as store:
            await asyncio.gather(*(use(store, task) for task in range(_TASKS)))
            assert len(await _listed(store)) == _TASKS * 2

    @rule()
    async def test_a_cancelled_store_leaves_the_old_value_or_the_new_one(self, storage: _Storage) -> None:
        """At whatever moment; and the store goes on."""
        async with storage.open() as store:
            old, new = b"old" * 1000, b"new" * 2000
            for moment in range(_MOMENTS):
                await store.store(b"key", old)
                await _cancelled_after(moment, store.store(b"key", new))
                assert await store.retrieve(b"key") in (old, new)

    # Closing, failing

    @rule()
    async def test_closing_twice_is_allowed(self, factory: StorageFactory, url: str) -> None:
        """Also where the store was never used."""
        store = factory(url)
        await store.close()
        await store.close()

    @rule()
    async def test_a_closed_store_raises_storage_error(self, factory: StorageFactory, url: str) -> None:
        """It does not look like an empty one."""
        store = factory(url)
        await store.store(b"key", b"value")
        await store.close()
        await _assert_fails(store)

    @rule()
    async def test_closing_leaves_nothing_behind(self, storage: _Storage) -> None:
        """No task, thread, file or socket."""

        async def use() -> None:
            async with storage.open() as store:
                await asyncio.gather(*(store.store(b"%d" % number, b"value") for number in range(_TASKS)))
                await _listed(store)

        async with Leftovers():
            await use()

    @rule()
    async def test_failures_are_storage_errors(self, storage: _Storage, break_store: Callable[[], None] | None) -> None:
        """Not what the backend's library raises."""
        async with storage.open() as store:
            await store.store(b"key", b"value")
            if break_store is None:
                pytest.skip("the fixture `break_store` gives nothing that makes the store fail")
            break_store()
            await _assert_fails(store)

    # Declared promises

    @rule(relaxed_by="declare durable=False")
    async def test_a_durable_store_outlives_its_provider(self, storage: _Storage) -> None:
        """What was stored is there when the store is opened again, versions too."""
        async with storage.open() as store:
            _only_if(store.capabilities, "durable")
            await store.store(b"key", b"value")
            await store.commit({b"key 2": b"value 2"})
            version = await store.version(b"key")
        async with storage.open() as store:
            assert await store.retrieve(b"key") == b"value"
            assert await store.retrieve(b"key 2") == b"value 2"
            assert await store.version(b"key") == version

    @rule(relaxed_by="declare durable=False")
    def test_a_durable_store_outlives_its_process(self, factory: StorageFactory, url: str) -> None:
        """What was acknowledged is there, though the process ended without closing the store."""
        _only_if(factory(url).capabilities, "durable")
        with _process(_store_value, factory, url, fork=self.is_fork_safe):
            pass
        assert asyncio.run(_retrieved(factory, url, b"key")) == b"value"

    @rule(relaxed_by="declare shared=False")
    def test_processes_that_share_a_store_lose_no_change(self, factory: StorageFactory, url: str) -> None:
        """Two count one number up, by store_if; each sees what the other one did."""
        _only_if(factory(url).capabilities, "shared")
        with _process(_count_up, factory, url, fork=self.is_fork_safe):
            asyncio.run(_count_up(factory, url))
        assert asyncio.run(_retrieved(factory, url, b"number")) == b"%d" % (2 * _COUNT)


class _Storage:
    """Opens the store of a rule, and closes it."""

    def __init__(self, factory: StorageFactory, url: str) -> None:
        self._factory = factory
        self._url = url

    @asynccontextmanager
    async def open(self) -> AsyncIterator[StorageProvider]:
        store = self._factory(self._url)
        try:
            yield store
        finally:
            await store.close()


async def _listed(store: StorageProvider, prefix: bytes = b"") -> list[bytes]:
    return [key async for key in store.list_keys(prefix)]


async def _cancelled_after(moment: int, call: Awaitable[None]) -> None:
    """Cancel a call after some iterations of the event loop, unless it has ended by then."""
    task = asyncio.ensure_future(call)
    for _ in range(moment):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.result()


async def _assert_fails(store: StorageProvider) -> None:
    async def listing() -> None:
        await _listed(store)

    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "store": lambda: store.store(b"key", b"new"),
        "retrieve": lambda: store.retrieve(b"key"),
        "exists": lambda: store.exists(b"key"),
        "version": lambda: store.version(b"key"),
        "store_if": lambda: store.store_if(b"key", b"new", 1),
        "commit": lambda: store.commit({b"key": b"new"}, [b"other"]),
        "delete": lambda: store.delete(b"key"),
        "list_keys": listing,
    }
    for name, call in calls.items():
        try:
            await call()
        except StorageError:
            continue
        except Exception as error:  # noqa: BLE001  whatever it is
            pytest.fail(f"{name} raised {error!r}")
        pytest.fail(f"{name} raised nothing")


def _only_if(capabilities: StorageCapabilities, name: str) -> None:
    if not getattr(capabilities, name):
        pytest.skip(f"it declares {name}=False")


async def _store_value(factory: StorageFactory, url: str) -> None:
    await factory(url).store(b"key", b"value")


async def _count_up(factory: StorageFactory, url: str) -> None:
    store = factory(url)
    try:
        for _ in range(_COUNT):
            while True:
                version = await store.version(b"number")
                number = int(await store.retrieve(b"number") or b"0")
                # Where the number was changed between the two, its version is another by now.
                if await store.store_if(b"number", b"%d" % (number + 1), version) is not None:
                    break
                await asyncio.sleep(0)
    finally:
        await store.close()


async def _retrieved(factory: StorageFactory, url: str, key: bytes) -> bytes | None:
    store = factory(url)
    try:
        return await store.retrieve(key)
    finally:
        await store.close()


@contextmanager
def _process(
    main: Callable[[StorageFactory, str], Any], factory: StorageFactory, url: str, *, fork: bool
) -> Iterator[None]:
    """Run a coroutine function in a process of its own, which ends at once, with nothing closed or flushed."""
    if fork and not hasattr(os, "fork"):
        pytest.skip("this system cannot fork")
    context: ForkContext | SpawnContext
    context = multiprocessing.get_context("fork") if fork else multiprocessing.get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=_run_and_end, args=(writer, main, factory, url))
    with reader, writer, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12, where other threads are about
        process.start()
        writer.close()
        reader.poll(None)  # until it has begun, or ended
    try:
        yield
    finally:
        process.join()
        status = process.exitcode
        process.close()
    assert status == 0, "the other process failed"


def _run_and_end(
    begun: Connection, main: Callable[[StorageFactory, str], Any], factory: StorageFactory, url: str
) -> None:
    status = 1
    try:
        begun.close()
        asyncio.run(main(factory, url))
        status = 0
    except BaseException:  # noqa: BLE001  this process ends here
        traceback.print_exc()
    finally:
        os._exit(status)
