"""Does ``memory://`` keep values as a store has to?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_core.defaults.memory_storage import MemoryStorage
from stt_core.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.asyncio


async def keys_of(store: MemoryStorage, prefix: bytes = b"") -> list[bytes]:
    return [key async for key in store.list_keys(prefix)]


async def test_what_was_stored_comes_back() -> None:
    store = MemoryStorage()

    await store.store(b"key", b"value")

    assert await store.retrieve(b"key") == b"value"
    assert await store.exists(b"key")


async def test_a_key_that_is_absent_has_no_value_and_version_0() -> None:
    store = MemoryStorage()

    assert await store.retrieve(b"key") is None
    assert not await store.exists(b"key")
    assert await store.version(b"key") == 0
    assert await store.delete(b"key") is False


async def test_deleting_says_whether_there_was_something() -> None:
    store = MemoryStorage()
    await store.store(b"key", b"")

    assert await store.delete(b"key") is True
    assert await store.delete(b"key") is False


async def test_each_store_is_its_own() -> None:
    first, second = MemoryStorage("memory://"), MemoryStorage("memory://")

    await first.store(b"key", b"value")

    assert await second.retrieve(b"key") is None


async def test_keys_are_listed_in_order_by_prefix() -> None:
    store = MemoryStorage()
    for key in (b"b/2", b"a", b"b/1", b"c", b"b/\xff", b"b"):
        await store.store(key, b"")

    assert await keys_of(store) == [b"a", b"b", b"b/1", b"b/2", b"b/\xff", b"c"]
    assert await keys_of(store, b"b/") == [b"b/1", b"b/2", b"b/\xff"]
    assert await keys_of(store, b"d") == []


async def test_keys_may_be_deleted_while_they_are_listed() -> None:
    store = MemoryStorage()
    for key in (b"a", b"b", b"c"):
        await store.store(key, b"")

    async for key in store.list_keys():
        await store.delete(key)

    assert await keys_of(store) == []


async def test_a_value_changes_its_version_each_time() -> None:
    store = MemoryStorage()
    versions = set()
    for _ in range(3):
        await store.store(b"key", b"the same")
        versions.add(await store.version(b"key"))
    await store.delete(b"key")
    await store.store(b"key", b"the same")

    versions.add(await store.version(b"key"))

    assert len(versions) == 4
    assert 0 not in versions


async def test_a_value_is_stored_only_over_the_expected_version() -> None:
    store = MemoryStorage()

    created = await store.store_if(b"key", b"first", 0)
    assert created is not None
    assert await store.store_if(b"key", b"lost", 0) is None
    changed = await store.store_if(b"key", b"second", created)

    assert changed == await store.version(b"key")
    assert await store.retrieve(b"key") == b"second"


async def test_several_changes_are_one() -> None:
    store = MemoryStorage()
    await store.store(b"old", b"")

    await store.commit({b"a": b"1", b"b": b"2"}, [b"old", b"absent"])

    assert await keys_of(store) == [b"a", b"b"]


async def test_a_key_that_is_both_put_and_deleted_is_gone() -> None:
    store = MemoryStorage()

    await store.commit({b"key": b"value"}, [b"key"])

    assert not await store.exists(b"key")


async def test_changes_of_which_one_fails_change_nothing() -> None:
    store = MemoryStorage()
    await store.store(b"a", b"before")

    with pytest.raises(TypeError):
        await store.commit({b"a": b"after", b"b": "no bytes"}, [])  # type: ignore[dict-item]  # what is tested

    assert await store.retrieve(b"a") == b"before"
    assert await keys_of(store) == [b"a"]


async def test_a_value_does_not_change_with_the_callers_buffer() -> None:
    store = MemoryStorage()
    buffer = bytearray(b"before")

    await store.store(b"key", buffer)  # type: ignore[arg-type]  # what is tested
    buffer[:] = b"behind"

    assert await store.retrieve(b"key") == b"before"


@pytest.mark.parametrize(
    "use",
    [
        lambda store: store.store(b"key", b""),
        lambda store: store.retrieve(b"key"),
        lambda store: store.exists(b"key"),
        lambda store: store.delete(b"key"),
        lambda store: store.version(b"key"),
        lambda store: store.store_if(b"key", b"", 0),
        lambda store: store.commit({}),
        keys_of,
    ],
    ids=["store", "retrieve", "exists", "delete", "version", "store_if", "commit", "list_keys"],
)
async def test_a_closed_store_keeps_nothing_and_says_so(use: Callable[[MemoryStorage], Awaitable[object]]) -> None:
    store = MemoryStorage()
    await store.store(b"key", b"value")

    await store.close()
    await store.close()

    with pytest.raises(StorageError, match="closed"):
        await use(store)


@given(st.lists(st.tuples(st.binary(max_size=3), st.none() | st.binary(max_size=3)), max_size=30))
async def test_it_is_a_dict_of_bytes(changes: list[tuple[bytes, bytes | None]]) -> None:
    store, model = MemoryStorage(), dict[bytes, bytes]()

    for key, value in changes:
        if value is None:
            assert await store.delete(key) is (model.pop(key, None) is not None)
        else:
            model[key] = value
            await store.store(key, value)

    assert await keys_of(store) == sorted(model)
    assert {key: await store.retrieve(key) for key in model} == model
