"""The stores that chambers are tested on, and a clock that only tests move."""

from __future__ import annotations

import shutil
import socket
import subprocess
from typing import TYPE_CHECKING

import attrs
import pytest
from hypothesis import settings

from stt_chamber import Seed
from stt_chamber.backends.file import FileStorage
from stt_chamber.backends.redis import RedisStorage
from stt_chamber.backends.sqlite import SQLiteStorage
from stt_core.defaults.memory_storage import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from stt_core.interfaces import StorageProvider

# Shared machines are slow at times; a test has the time limit of the whole suite instead.
settings.register_profile("stt", deadline=None)
settings.load_profile("stt")

SEED = Seed(bytes(range(32)))
OTHER_SEED = Seed(bytes(32))


@attrs.define
class Clock:
    """Seconds since 1970, as a test has set them."""

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def seed() -> Seed:
    return SEED


@pytest.fixture
def other_seed() -> Seed:
    return OTHER_SEED


@pytest.fixture
def memory() -> StorageProvider:
    return MemoryStorage()


@attrs.frozen
class RedisServer:
    """A server of its own for one test."""

    process: subprocess.Popen[str]
    url: str


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "Ready to accept connections" in line:
                break
        yield RedisServer(process, f"redis://127.0.0.1:{port}/0")
        process.kill()


@pytest.fixture(params=["memory", "sqlite", "file", "redis"])
def make_storage(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], StorageProvider]:
    """Return what opens a store of each backend; a second call opens the same store, but for that in memory."""
    if request.param == "redis":
        url = request.getfixturevalue("redis_server").url
        return lambda: RedisStorage(url)
    if request.param == "sqlite":
        return lambda: SQLiteStorage(f"sqlite://{tmp_path}/chamber.db")
    if request.param == "file":
        return lambda: FileStorage(f"file://{tmp_path}/chamber")
    return MemoryStorage
