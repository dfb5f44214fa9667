"""Bytes of any size as sealed chunks of the store: written once, read whole or in part, removed (reference, "Objects").

A chunk's place in its object and whether it is the last are part of what its seal proves, so that chunks cannot be
swapped, left out or added. What an object is called in the store tells neither which chunks belong together nor, by
the padding, how long a value exactly is.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
import struct
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from stt_chamber.entries import Reference
from stt_chamber.errors import DamagedError
from stt_core.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping

    from stt_chamber.keys import Keyring
    from stt_core.interfaces import Buffer, StorageProvider

CHUNK_SIZE: Final = 60 * 1024
"""Bytes of a chunk before it is sealed: with the tag it fits into one request to an endpoint (65,536 bytes)."""

MIN_PADDED_SIZE: Final = 256
"""Bytes of the smallest object after padding."""

CHUNKS_PER_COMMIT: Final = 32
"""Chunks that are handed to the store at a time, and so what a writer keeps in memory."""

CHUNKS_READ_TOGETHER: Final = 8
"""Chunks that a reader asks the store for at a time, and keeps in memory."""

_NONCE: Final = struct.Struct(">3xQ?")


def padded_size(size: int) -> int:
    """Return the size that ``size`` bytes are padded to: Padme, which leaks O(log log size) bits.

    Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and Communication with PURBs", section 4.
    """
    if size <= MIN_PADDED_SIZE:
        return MIN_PADDED_SIZE
    exponent = size.bit_length() - 1
    granularity = 1 << (exponent - exponent.bit_length())
    return -(-size // granularity) * granularity


def chunk_count(size: int) -> int:
    """Return how many chunks an object of ``size`` bytes has."""
    return -(-padded_size(size) // CHUNK_SIZE)


class ObjectStore:
    """The objects of one chamber.

    Args:
        storage: Where they are.
        prefix: What the keys of all chunks in the store begin with.
        keyring: The keys; replaced when they change.
    """

    def __init__(self, storage: StorageProvider, prefix: bytes, keyring: Keyring) -> None:
        self._storage = storage
        self._prefix = prefix
        self.keyring = keyring

    def name(self, reference: Reference, index: int) -> bytes:
        """Return the key in the store of a chunk of an object.

        Raises:
            DamagedError: Its data key is gone.
        """
        try:
            return self._prefix + self.keyring.chunk_name(reference.epoch, reference.object_id, index)
        except KeyError:
            raise _unknown_data_key(reference) from None

    def names(self, reference: Reference) -> Iterator[bytes]:
        """Iterate over the keys in the store of all chunks of an object.

        Raises:
            DamagedError: Its data key is gone.
        """
        for index in range(chunk_count(reference.size)):
            yield self.name(reference, index)

    async def write(self, data: Buffer) -> Reference:
        """Store bytes as a new object.

        Raises:
            StorageError: The store failed.
        """
        writer = self.writer()
        try:
            await writer.write(data)
            return await writer.finish()
        except BaseException:
            await writer.discard()
            raise

    async def write_all(self, pieces: Iterable[bytes]) -> list[Reference]:
        """Store many objects, each of few bytes, with few commits; return where they are.

        Raises:
            StorageError: The store failed; what was stored so far is left to the collection.
        """
        references: list[Reference] = []
        puts: dict[bytes, bytes] = {}

        async def collect(more: Mapping[bytes, bytes]) -> None:
            puts.update(more)

        for piece in pieces:
            writer = ObjectWriter(self._storage, self._prefix, self.keyring, commit=collect)
            await writer.write(piece)
            references.append(await writer.finish())
            if len(puts) >= CHUNKS_PER_COMMIT:
                await self._storage.commit(puts)
                puts.clear()
        await self._storage.commit(puts)
        return references

    def writer(self) -> ObjectWriter:
        """Return what stores a new object piece by piece."""
        return ObjectWriter(self._storage, self._prefix, self.keyring)

    async def read(self, reference: Reference) -> bytes:
        """Return the bytes of an object.

        Raises:
            DamagedError: A chunk is missing or was changed.
            StorageError: The store failed.
        """
        return b"".join([chunk async for chunk in self.chunks(reference, 0, reference.size)])

    async def chunks(self, reference: Reference, start: int, stop: int) -> AsyncIterator[bytes]:
        """Iterate over the bytes of an object from ``start`` to ``stop``, chunk by chunk.

        Raises:
            DamagedError: A chunk is missing or was changed.
            StorageError: The store failed.
        """
        cipher = self._cipher(reference)
        count = chunk_count(reference.size)
        async for index, sealed in self._sealed(reference, range(start // CHUNK_SIZE, -(-stop // CHUNK_SIZE))):
            chunk = _open_chunk(cipher, sealed, index, count)
            offset = index * CHUNK_SIZE
            yield chunk[max(start - offset, 0) : stop - offset]

    async def sealed_chunk(self, reference: Reference, index: int) -> bytes:
        """Return a chunk as it lies in the store, once it is seen that it is whole.

        Raises:
            DamagedError: It is missing or was changed.
            StorageError: The store failed.
        """
        sealed = await self._storage.retrieve(self.name(reference, index))
        _open_chunk(self._cipher(reference), sealed, index, chunk_count(reference.size))
        assert sealed is not None  # it was opened
        return sealed

    async def check(self, reference: Reference) -> None:
        """Open every chunk of an object, padding included.

        Raises:
            DamagedError: One is missing or was changed, or the size is not the one that it was sealed with.
            StorageError: The store failed.
        """
        cipher = self._cipher(reference)
        count = chunk_count(reference.size)
        padded = 0
        async for index, sealed in self._sealed(reference, range(count)):
            padded += len(_open_chunk(cipher, sealed, index, count))
        if padded != padded_size(reference.size):
            raise DamagedError("an object has another size than its reference says")

    async def remove(self, references: Iterable[Reference]) -> None:
        """Remove objects that nothing refers to any more; what cannot be removed now is left to the collection."""
        for reference in references:
            with contextlib.suppress(StorageError):
                await _remove(self._storage, self.names(reference))

    async def _sealed(self, reference: Reference, indexes: range) -> AsyncIterator[tuple[int, bytes | None]]:
        """Iterate over chunks as they lie in the store; several are on their way at a time, as it may be far."""
        for start in range(0, len(indexes), CHUNKS_READ_TOGETHER):
            some = indexes[start : start + CHUNKS_READ_TOGETHER]
            names = [self.name(reference, index) for index in some]
            found = await asyncio.gather(*map(self._storage.retrieve, names))
            for item in zip(some, found, strict=True):
                yield item

    def _cipher(self, reference: Reference) -> AESGCM:
        try:
            return AESGCM(self.keyring.object_key(reference.epoch, reference.object_id))
        except KeyError:
            raise _unknown_data_key(reference) from None


class ObjectWriter:
    """One object that is being written; :meth:`finish` or :meth:`discard` ends it.

    Args:
        storage: Where it goes.
        prefix: What the keys of its chunks begin with.
        keyring: Its newest data key seals the object.
        commit: What takes the chunks; that of the storage unless given.
    """

    def __init__(
        self,
        storage: StorageProvider,
        prefix: bytes,
        keyring: Keyring,
        *,
        commit: Callable[[Mapping[bytes, bytes]], Awaitable[None]] | None = None,
    ) -> None:
        self.size = 0
        """Bytes that were written so far."""
        self._storage = storage
        self._commit = commit or storage.commit
        self._prefix = prefix
        self._keyring = keyring
        self._epoch = keyring.epoch
        self._object_id = secrets.token_bytes(16)
        self._cipher = AESGCM(keyring.object_key(self._epoch, self._object_id))
        self._buffer = bytearray()
        self._index = 0
        self._puts: dict[bytes, bytes] = {}
        self._is_broken = False

    @property
    def buffered(self) -> bytes | None:
        """All that was written, as long as nothing of it went to the store; else None."""
        return bytes(self._buffer) if not self._index else None

    async def write(self, data: Buffer) -> None:
        """Append bytes.

        Raises:
            StorageError: The store failed; the object cannot be finished.
        """
        view = memoryview(data).cast("B")
        self._require_whole()
        self._is_broken = True  # as long as only a part may have been taken
        self.size += len(view)
        await self._append(view)
        self._is_broken = False

    async def finish(self) -> Reference:
        """Store what is left, padded; return where the object is. Nothing refers to it yet.

        Raises:
            StorageError: The store failed, now or in an earlier call.
        """
        self._require_whole()
        padding = padded_size(self.size) - self.size
        zeros = memoryview(bytes(min(padding, CHUNK_SIZE)))
        while padding:
            piece = zeros[:padding]
            await self._append(piece)
            padding -= len(piece)
        self._seal(self._buffer, final=True)
        self._buffer = bytearray()
        await self._flush()
        return Reference(self._object_id, self._epoch, self.size)

    async def discard(self) -> None:
        """Remove what was stored so far; what cannot be removed now is left to the collection."""
        with contextlib.suppress(StorageError):
            await _remove(self._storage, (self._name(index) for index in range(self._index)))

    def _require_whole(self) -> None:
        if self._is_broken:
            raise StorageError("an earlier write failed or was cancelled: the value cannot be whole")

    async def _append(self, view: memoryview) -> None:
        # A full buffer is sealed only once more follows: the last chunk must be known to be the last.
        while view:
            if len(self._buffer) == CHUNK_SIZE:
                self._seal(self._buffer, final=False)
                self._buffer = bytearray()
                if len(self._puts) == CHUNKS_PER_COMMIT:
                    await self._flush()
            room = CHUNK_SIZE - len(self._buffer)
            self._buffer += view[:room]
            view = view[room:]

    def _seal(self, chunk: Buffer, *, final: bool) -> None:
        self._puts[self._name(self._index)] = self._cipher.encrypt(_NONCE.pack(self._index, final), chunk, None)
        self._index += 1

    def _name(self, index: int) -> bytes:
        return self._prefix + self._keyring.chunk_name(self._epoch, self._object_id, index)

    async def _flush(self) -> None:
        puts, self._puts = self._puts, {}
        await self._commit(puts)


async def _remove(storage: StorageProvider, names: Iterable[bytes]) -> None:
    remaining = iter(names)
    while some := list(itertools.islice(remaining, CHUNKS_PER_COMMIT)):
        await storage.commit({}, some)


def _unknown_data_key(reference: Reference) -> DamagedError:
    return DamagedError(f"an object is sealed under the unknown data key {reference.epoch}")


def _open_chunk(cipher: AESGCM, sealed: bytes | None, index: int, count: int) -> bytes:
    if sealed is None:
        raise DamagedError(f"chunk {index + 1} of {count} is missing")
    try:
        return cipher.decrypt(_NONCE.pack(index, index == count - 1), sealed, None)
    except InvalidTag:
        raise DamagedError(f"chunk {index + 1} of {count} was changed") from None
