"""A store in a folder, one file a value: ``file:///var/lib/node/chamber``, or ``file://chamber`` for a relative path.

A value is written under another name, synced, and renamed over the one before; then the folder is synced. So a file is
the old value or the new one. Changes are made under a lock, which several processes of one machine share.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from stt_chamber.backends.threads import StorageThread
from stt_chamber.files import create_private, path_of, sync_folder
from stt_core.errors import StorageError
from stt_core.interfaces import StorageCapabilities, StorageProvider, Version

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence

LOCK_TIMEOUT: Final = 15.0
"""Seconds to wait for another process that writes, before the store counts as locked."""

_MAGIC: Final = b"STTF\x01"
_HEAD: Final = struct.Struct(">5sQH")  # magic, version, length of the key; then the key and the value
_MAX_KEY_SIZE: Final = 1 << 16
_LOCK_NAME: Final = "lock"
_TEMPORARY_FOLDER: Final = "new"
_PAUSE: Final = 0.005  # seconds between two tries to get the lock

T = TypeVar("T")


class FileStorage(StorageProvider):
    """Keys and values as files; a thread of its own does the work, one call after the other.

    The folder is made at the first use, for its owner alone. A commit of several changes is durable, but not atomic.

    Args:
        url: ``file://`` and the path of the folder.

    Raises:
        ConfigError: The URL is another.
    """

    capabilities = StorageCapabilities(durable=True, atomic_commit=False, shared=True)

    def __init__(self, url: str) -> None:
        path = path_of(url, "file")
        self._folder = Path(path).absolute()
        self._thread = StorageThread(path)
        self._lock = -1
        self._durable_folders: set[Path] = set()

    async def store(self, key: bytes, value: bytes) -> None:
        """Set the value of a key."""
        await self._change(lambda: self._write({key: value}))

    async def retrieve(self, key: bytes) -> bytes | None:
        """Return the value of a key, or None."""
        found = await self._run(lambda: self._read(key))
        return None if found is None else found[1]

    async def exists(self, key: bytes) -> bool:
        """Return whether a key has a value."""
        return await self.version(key) != 0

    async def delete(self, key: bytes) -> bool:
        """Remove a key; return whether it was there."""
        return await self._change(lambda: self._remove([key])) > 0

    async def list_keys(self, prefix: bytes = b"") -> AsyncIterator[bytes]:
        """Iterate over the keys that begin with a prefix, ascending, as they are when the iteration begins."""
        for key in await self._run(lambda: sorted(key for key in self._keys() if key.startswith(prefix))):
            yield key

    async def version(self, key: bytes) -> Version:
        """Return the version of a key's value; 0 when it is absent."""
        return await self._run(lambda: self._version(key))

    async def store_if(self, key: bytes, value: bytes, expected_version: Version) -> Version | None:
        """Set the value if its version is the expected one; return the new one, or None."""

        def work() -> Version | None:
            return self._write({key: value}) if self._version(key) == expected_version else None

        return await self._change(work)

    async def commit(self, puts: Mapping[bytes, bytes], deletes: Sequence[bytes] = ()) -> None:
        """Apply several changes, one after the other; each is durable in the end."""

        def work() -> None:
            self._write(puts)
            self._remove(deletes)

        await self._change(work)

    async def close(self) -> None:
        """Let go of the folder and end the thread."""
        await self._thread.close(self._close)

    # Internals, in the thread

    async def _change(self, work: Callable[[], T]) -> T:
        def locked() -> T:
            with self._locked():
                return work()

        return await self._run(locked)

    async def _run(self, work: Callable[[], T]) -> T:
        def call() -> T:
            try:
                self._open()
                return work()
            except OSError as error:
                raise StorageError(f"{self._folder}: {error.strerror or error}") from error

        return await self._thread.run(call)

    def _open(self) -> None:
        if self._lock < 0:
            _make_folder(self._folder)
            temporaries = self._folder / _TEMPORARY_FOLDER
            temporaries.mkdir(mode=0o700, exist_ok=True)
            self._lock = os.open(self._folder / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with self._locked():
                # Whoever writes has the lock: so these are of a process that was killed.
                for path in temporaries.iterdir():
                    path.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        give_up_at = time.monotonic() + LOCK_TIMEOUT
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES) or time.monotonic() > give_up_at:
                    raise StorageError(f"{self._folder}: locked by another process") from error
                time.sleep(_PAUSE)
            else:
                break
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _path(self, key: bytes) -> Path:
        # The hash spreads files over folders, and is a name on every file system, whatever the key.
        digest = hashlib.sha3_256(key).hexdigest()
        return self._folder / digest[:2] / digest

    def _version(self, key: bytes) -> Version:
        found = self._read(key, size=_HEAD.size + len(key))
        return 0 if found is None else found[0]

    def _read(self, key: bytes, size: int = -1) -> tuple[Version, bytes] | None:
        try:
            with self._path(key).open("rb") as file:
                data = file.read(size)
        except FileNotFoundError:
            self._require_same_folder()
            return None
        version, found = self._decode_head(data)
        if found != key:
            raise StorageError(f"{self._folder}: a file has the name of another key")
        return version, data[_HEAD.size + len(key) :]

    def _keys(self) -> Iterator[bytes]:
        self._require_same_folder()
        for folder in os.scandir(self._folder):
            if folder.name in (_LOCK_NAME, _TEMPORARY_FOLDER):
                continue
            for file in os.scandir(folder.path):
                # One that is deleted meanwhile shows or not.
                with contextlib.suppress(FileNotFoundError), Path(file).open("rb") as content:
                    head = content.read(_HEAD.size)
                    yield self._decode_head(head + content.read(int.from_bytes(head[-2:])))[1]

    def _require_same_folder(self) -> None:
        """Tell a folder that is gone, or another one in its place, from one that lacks a file."""
        if not os.path.samestat((self._folder / _LOCK_NAME).stat(), os.fstat(self._lock)):
            raise StorageError(f"{self._folder}: another folder has taken its place")

    def _decode_head(self, data: bytes) -> tuple[Version, bytes]:
        try:
            magic, version, length = _HEAD.unpack_from(data)
        except struct.error:
            raise StorageError(f"{self._folder}: a file is cut short") from None
        if magic != _MAGIC or len(data) < _HEAD.size + length:
            raise StorageError(f"{self._folder}: a file is none of this store, or was changed")
        return version, data[_HEAD.size : _HEAD.size + length]

    def _write(self, puts: Mapping[bytes, bytes]) -> Version:
        """Replace values, all durable on return; return the version, the same for all."""
        self._require_same_folder()
        # Random, so that no counter has to be kept: none of 2^62 comes again.
        version = secrets.randbits(62) + 1
        heads = {key: _HEAD.pack(_MAGIC, version, len(key)) + key for key in puts if _fits(key)}
        self._make_folders({self._path(key).parent for key in puts})
        written: list[tuple[Path, Path]] = []
        with contextlib.ExitStack() as files:
            try:
                # All written before the first is synced: the file system then syncs several at a time.
                descriptors = []
                for key, value in puts.items():
                    temporary = self._folder / _TEMPORARY_FOLDER / secrets.token_hex(8)
                    written.append((temporary, self._path(key)))
                    descriptors.append(_create(temporary, heads[key] + value, files))
                for descriptor in descriptors:
                    os.fsync(descriptor)
            except BaseException:
                for temporary, _ in written:
                    temporary.unlink(missing_ok=True)
                raise
        for temporary, path in written:
            temporary.replace(path)
        for folder in {path.parent for _, path in written}:
            sync_folder(folder)
        return version

    def _make_folders(self, folders: set[Path]) -> None:
        # One that is there may be another process's, which was killed before it had synced it.
        new = {folder for folder in folders if folder not in self._durable_folders or not folder.is_dir()}
        if new:
            for folder in new:
                folder.mkdir(mode=0o700, exist_ok=True)
            sync_folder(self._folder)
            self._durable_folders |= new

    def _remove(self, keys: Sequence[bytes]) -> int:
        self._require_same_folder()
        folders = set()
        removed = 0
        for key in keys:
            path = self._path(key)
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
                folders.add(path.parent)
                removed += 1
        for folder in folders:
            sync_folder(folder)
        return removed


def _fits(key: bytes) -> bool:
    if len(key) >= _MAX_KEY_SIZE:
        raise StorageError(f"a key of {len(key)} bytes, but a file store takes less than {_MAX_KEY_SIZE}")
    return True


def _create(path: Path, data: bytes, files: contextlib.ExitStack) -> int:
    """Write a new file; return its descriptor, which is open as long as the stack."""
    descriptor = create_private(path)
    files.callback(os.close, descriptor)
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    return descriptor


def _make_folder(folder: Path) -> None:
    """Make a folder, and those above it, durably."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        sync_folder(folder.parent)
