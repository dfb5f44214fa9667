"""The stores that chambers are tested on, and a clock that only tests move."""

from __future__ import annotations

import importlib.util
import itertools
import shutil
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest
from hypothesis import settings

from stt_chamber import Seed
from stt_chamber.backends.file import FileStorage
from stt_chamber.backends.redis import RedisStorage
from stt_chamber.backends.sqlite import SQLiteStorage
from stt_core import load_plugins
from stt_core.defaults.memory_storage import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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


@attrs.frozen
class S3Server:
    """A server for all tests, each of which has buckets of its own."""

    process: subprocess.Popen[str]
    endpoint: str
    numbers: Iterator[int]

    def ask(self, method: str, path: str) -> None:
        request = urllib.request.Request(self.endpoint + path, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            answer.read()

    def new_bucket(self) -> str:
        """Make a bucket; return the URL of a store in it."""
        bucket = f"bucket-{next(self.numbers)}"
        self.ask("PUT", f"/{bucket}")
        settings = f"endpoint={self.endpoint}&access_key_id=id&secret_access_key=not-told"
        return f"s3://{bucket}/folder/of%20it?{settings}"


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    for module, name in (("obstore", "the extra stt-chamber[s3]"), ("moto", "moto[server]")):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{name} is not installed")
    command = [sys.executable, str(Path(__file__).with_name("s3_server.py"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        yield S3Server(process, f"http://127.0.0.1:{port}", itertools.count())
        process.kill()


@pytest.fixture(params=["memory", "sqlite", "file", "redis", "s3"])
def make_storage(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], StorageProvider]:
    """Return what opens a store of each backend; a second call opens the same store, but for that in memory."""
    if request.param == "s3":
        url = request.getfixturevalue("s3_server").new_bucket()
        return lambda: load_plugins().store(url)(url)
    if request.param == "redis":
        url = request.getfixturevalue("redis_server").url
        return lambda: RedisStorage(url)
    if request.param == "sqlite":
        return lambda: SQLiteStorage(f"sqlite://{tmp_path}/chamber.db")
    if request.param == "file":
        return lambda: FileStorage(f"file://{tmp_path}/chamber")
    return MemoryStorage
