"""What a storage provider implements: bytes under bytes keys, with versions, and promises that it declares."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TypeAlias

import attrs

Version: TypeAlias = int
"""A number that each change of a key's value makes one that the key never had before; 0 means that it is absent."""


@attrs.frozen(kw_only=True)
class StorageCapabilities:
    """What a backend promises, declared on its class and checked by the conformance kit."""

    durable: bool
    """What was acknowledged survives the end of the process and a power cut."""

    atomic_commit: bool
    """:meth:`StorageProvider.commit` takes effect whole or not at all, also when interrupted."""

    shared: bool
    """Several processes may use one store at a time."""


class StorageProvider(ABC):
    """A store of bytes values under bytes keys.

    Every failure of the backend is a :class:`~stt_core.errors.StorageError`.
    """

    capabilities: StorageCapabilities

    @abstractmethod
    async def store(self, key: bytes, value: bytes) -> None:
        """Set the value of a key, new or not. On return the declared promises hold for it."""

    @abstractmethod
    async def retrieve(self, key: bytes) -> bytes | None:
        """Return the value of a key, or None when it is absent."""

    @abstractmethod
    async def exists(self, key: bytes) -> bool:
        """Return whether a key has a value."""

    @abstractmethod
    async def delete(self, key: bytes) -> bool:
        """Remove a key; return whether it was there."""

    @abstractmethod
    def list_keys(self, prefix: bytes = b"") -> AsyncIterator[bytes]:
        """Iterate over the keys that begin with ``prefix``, ascending; changes made meanwhile may show or not."""

    @abstractmethod
    async def version(self, key: bytes) -> Version:
        """Return the version of a key's value; 0 when it is absent."""

    @abstractmethod
    async def store_if(self, key: bytes, value: bytes, expected_version: Version) -> Version | None:
        """Set the value only if its version is the expected one; return the new version, or None if it was another."""

    @abstractmethod
    async def commit(self, puts: Mapping[bytes, bytes], deletes: Sequence[bytes] = ()) -> None:
        """Apply several changes, as one where the backend declares ``atomic_commit``."""

    @abstractmethod
    async def close(self) -> None:
        """Release everything; calling it twice is allowed, and all else raises StorageError from then on."""


StorageFactory: TypeAlias = Callable[[str], StorageProvider]
"""Called with the URL of a store, such as ``memory://``; returns the provider, not yet used."""
