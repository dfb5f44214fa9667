"""A store that ends with the process: ``memory://``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stt_core.errors import StorageError
from stt_core.interfaces.storage import StorageCapabilities, StorageProvider, Version

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence


class MemoryStorage(StorageProvider):
    """Keys and values in a dict; each instance is a store of its own.

    Once it is closed, every method but :meth:`close` raises StorageError.

    Args:
        url: ``memory://``.
    """

    capabilities = StorageCapabilities(durable=False, atomic_commit=True, shared=False)

    def __init__(self, url: str = "memory://") -> None:
        self.url = url
        self._values: dict[bytes, tuple[bytes, Version]] | None = {}
        self._last_version = 0

    async def store(self, key: bytes, value: bytes) -> None:
        """Set the value of a key."""
        self._put(key, value)

    async def retrieve(self, key: bytes) -> bytes | None:
        """Return the value of a key, or None."""
        entry = self._require_open().get(key)
        return entry[0] if entry is not None else None

    async def exists(self, key: bytes) -> bool:
        """Return whether a key has a value."""
        return key in self._require_open()

    async def delete(self, key: bytes) -> bool:
        """Remove a key; return whether it was there."""
        return self._require_open().pop(key, None) is not None

    async def list_keys(self, prefix: bytes = b"") -> AsyncIterator[bytes]:
        """Iterate over the keys that begin with ``prefix``, ascending, as they are when the iteration begins."""
        for key in sorted(key for key in self._require_open() if key.startswith(prefix)):
            yield key

    async def version(self, key: bytes) -> Version:
        """Return the version of a key's value; 0 when it is absent."""
        entry = self._require_open().get(key)
        return entry[1] if entry is not None else 0

    async def store_if(self, key: bytes, value: bytes, expected_version: Version) -> Version | None:
        """Set the value only if its version is the expected one; return the new one, or None."""
        if await self.version(key) != expected_version:
            return None
        return self._put(key, value)

    async def commit(self, puts: Mapping[bytes, bytes], deletes: Sequence[bytes] = ()) -> None:
        """Apply several changes as one; a key that is both put and deleted is gone."""
        values = self._require_open()
        # Whatever may fail, fails before anything is changed.
        copies = {key: bytes(value) for key, value in puts.items()}
        gone = set(deletes)
        for key, value in copies.items():
            self._put(key, value)
        for key in gone:
            values.pop(key, None)

    async def close(self) -> None:
        """Forget everything."""
        self._values = None

    def _put(self, key: bytes, value: bytes) -> Version:
        values = self._require_open()
        # Never reused, so that a key that went and came back has another version.
        self._last_version += 1
        values[key] = (bytes(value), self._last_version)
        return self._last_version

    def _require_open(self) -> dict[bytes, tuple[bytes, Version]]:
        if self._values is None:
            raise StorageError("the store is closed")
        return self._values
