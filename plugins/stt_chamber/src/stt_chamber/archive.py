"""A chamber in one file, sealed as it lies in the store: written, checked and read back without any key."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import os
import secrets
import struct
from typing import TYPE_CHECKING, BinaryIO, Final

from stt_chamber.errors import Conflict, DamagedError
from stt_chamber.files import create_private, sync_folder
from stt_chamber.keys import TAG_SIZE, namespace
from stt_chamber.ledger import Names
from stt_chamber.objects import CHUNK_SIZE, CHUNKS_PER_COMMIT
from stt_chamber.snapshots import snapshot
from stt_core.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from stt_core.interfaces import StorageProvider

MAGIC: Final = b"STTX\x01"
"""What an export begins with; the last byte is the version of its format."""

_RECORD: Final = struct.Struct(">HI")  # length of the key without the namespace, length of the value
_END: Final = 0xFFFF
_DIGEST_SIZE: Final = 32
_ROOT: Final = b"r"
_HEADER: Final = b"h"
_CHUNK_NAME_SIZE: Final = 1 + 16
_MAX_CHUNK_SIZE: Final = CHUNK_SIZE + TAG_SIZE
_MAX_RECORD_SIZE: Final = 1 << 20  # of a root or a header, which are far smaller


def _ignore(_: int) -> None:
    pass


async def export_chamber(
    storage: StorageProvider, path: Path, *, name: str = "", progress: Callable[[int], None] = _ignore
) -> int:
    """Write a chamber to a new file, in one state of it, though others may use it; return the bytes of the file.

    The file is there whole or not at all. It is as secret as the store: whoever opens it needs the chamber's seed.

    Args:
        storage: Where the chamber is.
        path: The file; it must not be there.
        name: The one that the chamber was made with.
        progress: Told of the bytes of each step.

    Raises:
        NoChamber: There is none.
        Conflict: There is a file of that name; or the store gave no answer for so long that others took this for dead.
        StorageError: The store or the file failed.
    """
    names = Names(namespace(name))
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    if path.exists():  # noqa: ASYNC240  one call, so that it is known before all is copied
        raise Conflict(f"{path} is there already")
    try:
        with contextlib.ExitStack() as stack:
            descriptor = create_private(temporary)
            stack.callback(lambda: temporary.unlink(missing_ok=True))
            file = stack.enter_context(os.fdopen(descriptor, "wb"))
            archive = _ArchiveWriter(file, len(names.namespace))
            async with snapshot(storage, names) as taken:
                await _copy_chunks(storage, names, archive, progress)
            archive.add(names.root, taken.root)
            archive.add(names.header, taken.header)
            size = archive.end()
            file.flush()
            await asyncio.to_thread(os.fsync, descriptor)
            # A hard link, unlike a renaming, never replaces what is there.
            os.link(temporary, path)
            sync_folder(path.parent)
            return size
    except FileExistsError:
        raise Conflict(f"{path} is there already") from None
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}") from error


async def import_chamber(
    storage: StorageProvider, path: Path, *, name: str = "", progress: Callable[[int], None] = _ignore
) -> None:
    """Read a chamber from a file that was exported; the whole file is checked first.

    Args:
        storage: Where the chamber will be.
        path: The file.
        name: The one that it will have, which must be free.
        progress: Told of the bytes of each step.

    Raises:
        DamagedError: The file is no export, or was changed by accident; nothing was stored.
        Conflict: There is a chamber of that name.
        StorageError: The store or the file failed.
    """
    names = Names(namespace(name))
    # One that an interrupted import has left may be replaced; one that comes later is another chamber's.
    root_version = await storage.version(names.root)
    # The copy alone is that of a chamber which a repair can save.
    if await storage.exists(names.header) or await storage.exists(names.header_copy):
        raise Conflict("there is a chamber of that name in this store")
    try:
        with path.open("rb") as file:
            await asyncio.to_thread(_check, file)
            root = header = b""
            puts: dict[bytes, bytes] = {}
            for key, value in _records(file):
                if key == _ROOT:
                    root = value
                elif key == _HEADER:
                    header = value
                else:
                    puts[names.namespace + key] = value
                if len(puts) == CHUNKS_PER_COMMIT:
                    await storage.commit(puts)
                    puts = {}
                progress(len(value))
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}") from error
    await storage.commit(puts)
    if await storage.store_if(names.root, root, root_version) is None:
        raise Conflict("a chamber of that name was made meanwhile in this store")
    # Only now, as it is what makes a chamber of the rest.
    if await storage.store_if(names.header, header, 0) is None:
        # Whoever made that header has got no root, and could not have opened this one.
        await storage.delete(names.root)
        raise Conflict("a chamber of that name was made meanwhile in this store")
    await storage.commit({names.root_copy: root, names.header_copy: header})


class _ArchiveWriter:
    def __init__(self, file: BinaryIO, prefix_size: int) -> None:
        self._file = file
        self._prefix_size = prefix_size
        self._digest = hashlib.sha3_256()
        self._size = 0
        self._write(MAGIC)

    def add(self, key: bytes, value: bytes) -> None:
        key = key[self._prefix_size :]
        self._write(_RECORD.pack(len(key), len(value)) + key)
        self._write(value)

    def end(self) -> int:
        self._write(_RECORD.pack(_END, 0))
        self._write(self._digest.digest())
        return self._size

    def _write(self, data: bytes) -> None:
        self._digest.update(data)
        self._file.write(data)
        self._size += len(data)


async def _copy_chunks(
    storage: StorageProvider,
    names: Names,
    archive: _ArchiveWriter,
    progress: Callable[[int], None],
) -> None:
    async for key in storage.list_keys(names.objects):
        value = await storage.retrieve(key)
        # Else it was removed since it was listed, and the state does not need it; or it is none of a chamber.
        if value is not None and _is_chunk(key[len(names.namespace) :], len(value)):
            await asyncio.to_thread(archive.add, key, value)
            progress(len(value))


def _is_chunk(key: bytes, size: int) -> bool:
    """Return whether a record can be a chunk, by its key without the namespace and the size of its value."""
    return key.startswith(b"o") and len(key) == _CHUNK_NAME_SIZE and size <= _MAX_CHUNK_SIZE


def _check(file: BinaryIO) -> None:
    """Read a whole file, and go back to its beginning."""
    keys = [key for key, _ in _records(file) if key in (_ROOT, _HEADER)]
    if keys != [_ROOT, _HEADER]:
        raise DamagedError("the file is an export without a root and a header")
    file.seek(0)


def _records(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Iterate over keys and values; raise in the end where the file has another hash than it says."""
    digest = hashlib.sha3_256()

    def read(size: int) -> bytes:
        data = file.read(size)
        if len(data) != size:
            raise DamagedError("the file is no export of a chamber, or is cut short")
        digest.update(data)
        return data

    if read(len(MAGIC)) != MAGIC:
        raise DamagedError("the file is no export of a chamber, or one of another version of the format")
    while True:
        key_size, value_size = _RECORD.unpack(read(_RECORD.size))
        if key_size == _END:
            break
        if key_size > _CHUNK_NAME_SIZE or value_size > _MAX_RECORD_SIZE:
            raise DamagedError("the file has a record that is none of a chamber, or was changed")
        key, value = read(key_size), read(value_size)
        if not _is_chunk(key, value_size) and key not in (_ROOT, _HEADER):
            raise DamagedError("the file has a record that is none of a chamber, or was changed")
        yield key, value
    if not hmac.compare_digest(file.read(_DIGEST_SIZE + 1), digest.digest()):
        raise DamagedError("the file was changed")
