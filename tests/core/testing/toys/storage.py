"""A store that keeps every rule, as small as that goes: `toy:///path` is one file, read and written anew each time."""

from __future__ import annotations

import asyncio  # noqa: F401  for those that are broken
import fcntl
import pickle
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest

from stt_core.errors import StorageError
from stt_core.interfaces.storage import StorageCapabilities, StorageProvider, Version
from stt_core.testing import StorageContract

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence

    from stt_core.interfaces.storage import StorageFactory


@attrs.define
class Content:
    values: dict[bytes, tuple[bytes, Version]] = attrs.field(factory=dict)
    last_version: Version = 0

    def put(self, key: bytes, value: bytes) -> Version:
        self.last_version += 1
        self.values[key] = (bytes(value), self.last_version)
        return self.last_version

    def version(self, key: bytes) -> Version:
        return self.values[key][1] if key in self.values else 0


class ToyStorage(StorageProvider):
    capabilities = StorageCapabilities(durable=True, atomic_commit=True, shared=True)

    def __init__(self, url: str) -> None:
        self.path = Path(url.removeprefix("toy://"))
        self.closed = False

    @contextmanager
    def content(self) -> Iterator[Content]:
        if self.closed:
            raise StorageError(f"{self.path} is closed")
        try:
            with self.path.open("a+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.seek(0)
                content = self.load(file.read())
                yield content
                new = pickle.dumps(content)
                file.truncate(0)
                file.write(new)
        except OSError as error:
            raise StorageError(f"{self.path}: {error.strerror}") from error

    def load(self, data: bytes) -> Content:
        content = pickle.loads(data) if data else Content()
        assert isinstance(content, Content)
        return content

    async def store(self, key: bytes, value: bytes) -> None:
        with self.content() as content:
            content.put(key, value)

    async def retrieve(self, key: bytes) -> bytes | None:
        with self.content() as content:
            return content.values[key][0] if key in content.values else None

    async def exists(self, key: bytes) -> bool:
        with self.content() as content:
            return key in content.values

    async def delete(self, key: bytes) -> bool:
        with self.content() as content:
            return content.values.pop(key, None) is not None

    async def list_keys(self, prefix: bytes = b"") -> AsyncIterator[bytes]:
        with self.content() as content:
            keys = sorted(key for key in content.values if key.startswith(prefix))
        for key in keys:
            yield key

    async def version(self, key: bytes) -> Version:
        with self.content() as content:
            return content.version(key)

    async def store_if(self, key: bytes, value: bytes, expected_version: Version) -> Version | None:
        with self.content() as content:
            if content.version(key) != expected_version:
                return None
            return content.put(key, value)

    async def commit(self, puts: Mapping[bytes, bytes], deletes: Sequence[bytes] = ()) -> None:
        with self.content() as content:
            for key, value in puts.items():
                content.put(key, value)
            for key in deletes:
                content.values.pop(key, None)

    async def close(self) -> None:
        self.closed = True


class TestToyStorage(StorageContract):
    patience = 2.0

    @pytest.fixture
    def factory(self) -> StorageFactory:
        return ToyStorage

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"toy://{tmp_path}/store"

    @pytest.fixture
    def break_store(self, tmp_path: Path) -> Callable[[], None] | None:
        def replace_by_folder() -> None:
            (tmp_path / "store").unlink()
            (tmp_path / "store").mkdir()

        return replace_by_folder
