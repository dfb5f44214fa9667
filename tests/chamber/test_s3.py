"""Is a bucket behind HTTP a store that chambers can stand on, whatever fails?"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from stt_chamber import Chamber, Conflict, Seed
from stt_core import load_plugins
from stt_core.errors import ConfigError, StorageError
from stt_core.testing import StorageContract

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from stt_core.interfaces import StorageFactory

pytest.importorskip("obstore", reason="the extra stt-chamber[s3] is not installed")

from stt_chamber.backends import s3
from stt_chamber.backends.s3 import S3Storage


class TestS3Storage(StorageContract):
    is_fork_safe = False  # the threads of obstore are not there in a process that was forked

    @pytest.fixture
    def factory(self) -> StorageFactory:
        return S3Storage

    @pytest.fixture
    def url(self, s3_server: Any) -> str:
        return str(s3_server.new_bucket())

    @pytest.fixture
    def break_store(self, s3_server: Any) -> Callable[[], None]:
        def remove_all_buckets() -> None:
            s3_server.ask("POST", "/moto-api/reset")

        return remove_all_buckets


@pytest_asyncio.fixture
async def storage(s3_server: Any) -> AsyncIterator[S3Storage]:
    provider = S3Storage(s3_server.new_bucket())
    yield provider
    await provider.close()


@pytest.mark.parametrize(
    "url",
    [
        "s3:///folder",
        "s3:bucket",
        "http://bucket",
        "s3://key:secret@bucket",
        "s3://bucket?secret=secret",
        "s3://bucket?secret",
        "s3://bucket?secret_access_key=secret",  # without a key id
        "s3://bucket#secret",
    ],
)
def test_a_url_that_cannot_work_is_refused_and_not_shown(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)

    with pytest.raises(ConfigError) as refused:
        S3Storage(url)

    assert "secret" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_buckets_are_registered() -> None:
    assert isinstance(load_plugins().store("s3://bucket")("s3://bucket"), S3Storage)


@pytest.mark.asyncio
async def test_settings_come_from_the_environment_too(s3_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    url, _, _ = s3_server.new_bucket().partition("?")
    for name, value in (("ACCESS_KEY_ID", "id"), ("SECRET_ACCESS_KEY", "not-told")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")

    provider = S3Storage(url)
    await provider.store(b"key", b"value")

    assert await provider.retrieve(b"key") == b"value"
    await provider.close()


# A service that fails


@pytest.mark.parametrize("effect", ["none", "full"])
@pytest.mark.asyncio
async def test_a_change_is_made_once_though_the_service_fails(s3_server: Any, storage: S3Storage, effect: str) -> None:
    first = await storage.store_if(b"key", b"first", 0)
    assert first is not None

    s3_server.ask("POST", f"/faults?count=2&status=503&effect={effect}")
    second = await storage.store_if(b"key", b"second", first)
    s3_server.ask("POST", f"/faults?count=1&status=500&effect={effect}")
    await storage.store(b"other", b"value")

    assert second is not None
    assert await storage.version(b"key") == second
    assert await storage.retrieve(b"key") == b"second"
    assert await storage.retrieve(b"other") == b"value"


@pytest.mark.asyncio
async def test_a_change_that_may_have_been_made_and_replaced_is_an_error(s3_server: Any, storage: S3Storage) -> None:
    first = await storage.store_if(b"key", b"first", 0)
    assert first is not None

    s3_server.ask("POST", "/faults?count=1&status=503&effect=other")
    with pytest.raises(StorageError, match=r"SlowDown|HTTP status 503"):
        await storage.store_if(b"key", b"second", first)


@pytest.mark.asyncio
async def test_a_service_that_goes_on_failing_is_one_error(s3_server: Any, storage: S3Storage) -> None:
    s3_server.ask("POST", "/faults?count=1000&status=503&effect=none")
    try:
        with pytest.raises(StorageError, match=r"SlowDown|HTTP status 503"):
            await storage.store(b"key", b"value")
        with pytest.raises(StorageError, match=r"SlowDown|HTTP status 503"):
            await storage.store_if(b"key", b"value", 0)
    finally:
        s3_server.ask("POST", "/faults?count=0&status=503&effect=none")


@pytest.mark.asyncio
async def test_what_the_service_says_is_not_repeated(s3_server: Any, storage: S3Storage) -> None:
    s3_server.ask("POST", "/faults?count=1&status=400&effect=none")
    with pytest.raises(StorageError, match="ExpiredToken") as refused:
        await storage.store(b"key", b"value")

    assert "told" not in str(refused.value)
    assert refused.value.__suppress_context__


@pytest.mark.parametrize("listens", [False, True])
@pytest.mark.asyncio
async def test_a_service_that_does_not_answer_is_one_error(
    monkeypatch: pytest.MonkeyPatch,
    listens: bool,  # noqa: FBT001  from parametrize
) -> None:
    monkeypatch.setattr(s3, "REQUEST_TIMEOUT", 0.2)
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        if listens:
            place.listen()
        settings = f"endpoint=http://127.0.0.1:{place.getsockname()[1]}&access_key_id=id&secret_access_key=not-told"
        provider = S3Storage(f"s3://bucket?{settings}")

        with pytest.raises(StorageError, match="no answer"):
            await provider.retrieve(b"key")
        with pytest.raises(StorageError, match="no answer"):
            await provider.store_if(b"key", b"", 0)
        await provider.close()


FAIL_AND_END = """
import asyncio, sys
from stt_chamber.backends import s3
from stt_core.errors import StorageError
async def main():
    storage = s3.S3Storage(sys.argv[1])
    try:
        await storage.retrieve(b"key")
    except StorageError as error:
        print(error)
    await storage.close()
s3.MAX_RETRIES = 2
asyncio.run(main())
"""


def test_a_process_may_end_right_after_a_request() -> None:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))  # where nobody listens
        endpoint = f"http://127.0.0.1:{place.getsockname()[1]}"
        url = f"s3://bucket?endpoint={endpoint}&access_key_id=id&secret_access_key=not-told"

        for _ in range(6):
            done = subprocess.run(
                [sys.executable, "-c", FAIL_AND_END, url], check=False, capture_output=True, text=True
            )

            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout == "s3://bucket: no answer: Connect\n"


# What else lies in the bucket


@pytest.mark.asyncio
async def test_objects_of_others_are_left_alone(s3_server: Any) -> None:
    url = s3_server.new_bucket()
    provider = S3Storage(url)
    await provider.store(b"key", b"value")
    folder = url.partition("?")[0].removeprefix("s3:/")
    for name in ("a", "k", "k1.", "kDLINQ.txt", "kDLINQ0.", "folder/kDLINQ.", "z"):
        s3_server.ask("PUT", f"{folder}/{name}")

    assert [key async for key in provider.list_keys()] == [b"key"]
    s3_server.ask("PUT", f"{folder}/k.")  # as the object of the key b"" is called
    with pytest.raises(StorageError, match="none of this store"):
        await provider.retrieve(b"")
    with pytest.raises(StorageError):
        await provider.version(b"")
    await provider.close()


@pytest.mark.asyncio
async def test_an_object_that_is_larger_than_any_of_a_chamber_is_not_read(
    storage: S3Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await storage.store(b"key", bytes(s3.MAX_VALUE_SIZE))
    assert await storage.retrieve(b"key") == bytes(s3.MAX_VALUE_SIZE)
    with pytest.raises(StorageError, match="takes at most"):
        await storage.store(b"other", bytes(s3.MAX_VALUE_SIZE + 1))

    monkeypatch.setattr(s3, "MAX_VALUE_SIZE", s3.MAX_VALUE_SIZE - 1)  # as if somebody else had stored it
    with pytest.raises(StorageError, match="larger than any"):
        await storage.retrieve(b"key")
    assert await storage.exists(b"key")


@pytest.mark.asyncio
async def test_more_keys_than_the_service_lists_at_once_are_listed(storage: S3Storage) -> None:
    keys = [b"%05d" % number for number in range(1100)]
    await storage.commit(dict.fromkeys(keys, b""))

    assert [key async for key in storage.list_keys(b"0")] == keys


@pytest.mark.asyncio
async def test_a_version_that_was_seen_long_ago_is_still_compared(storage: S3Storage) -> None:
    first = await storage.store_if(b"key", b"first", 0)
    assert first is not None
    for number in range(100):
        assert await storage.store_if(b"%d" % number, b"", 0) is not None

    assert await storage.store_if(b"key", b"second", first) is not None
    assert await storage.store_if(b"key", b"third", first) is None


# Chambers


def test_what_was_acknowledged_survives_kill_9(s3_server: Any) -> None:
    loop = Path(__file__).with_name("kill_loop.py")

    done = subprocess.run(
        [sys.executable, str(loop), s3_server.new_bucket(), "8"], check=False, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.asyncio
async def test_chambers_that_change_one_value_lose_no_change(s3_server: Any, seed: Seed) -> None:
    url = s3_server.new_bucket()
    stores = [S3Storage(url) for _ in range(3)]
    await (await Chamber.create(stores[0], seed)).store("number", 0)

    async def count_up(provider: S3Storage) -> None:
        async with await Chamber.open(provider, seed) as chamber:
            left = 10
            while left:
                revision = (await chamber.metadata("number")).revision
                try:
                    await chamber.update("number", await chamber.retrieve("number") + 1, revision)
                    left -= 1
                except Conflict:
                    continue

    await asyncio.gather(*(count_up(provider) for provider in stores))

    async with await Chamber.open(stores[0], seed) as chamber:
        assert await chamber.retrieve("number") == 30
    for provider in stores:
        await provider.close()
