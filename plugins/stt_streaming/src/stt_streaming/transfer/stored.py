"""What an inbox remembers of the items that it has stored, so that one which is offered again need not come again.

Each item has a small file of its own in a hidden folder, which only its owner can enter. It is written before the item
gets its name: whatever is killed when, no item is there that is not remembered. What is remembered is believed only if
the same is offered again, and lies there as it was stored. All calls block.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import struct
import time
from typing import TYPE_CHECKING, Final, Self

import attrs

from stt_core.errors import FrameError
from stt_streaming.transfer.folders import OPEN_FOLDER
from stt_streaming.transfer.manifest import MAX_DEPTH
from stt_streaming.transfer.messages import DIGEST_SIZE
from stt_streaming.transfer.names import MAX_NUMBERED_SIZE, clean_name

if TYPE_CHECKING:
    from stt_core.interfaces import Buffer

STORED_FOLDER: Final = ".stt-stored"
"""The name of the hidden folder in the inbox."""

MAX_STORED: Final = 4096
"""Items that are remembered; when there are so many, the oldest quarter is forgotten."""

STORED_LIFETIME: Final = 7 * 24 * 3600.0
"""Seconds for which an item is remembered."""

_HEAD: Final = struct.Struct(f">{DIGEST_SIZE}s{DIGEST_SIZE}s{DIGEST_SIZE}s")
_MAX_SIZE: Final = _HEAD.size + MAX_NUMBERED_SIZE + 1  # a longer one is none
_OPEN_RECORD: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE_RECORD: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW: Final = ".new"


@attrs.frozen(kw_only=True)
class StoredItem:
    """An item that was stored."""

    listing: bytes
    """The SHA3-256 of what was offered, and what of it was wanted."""

    state: bytes
    """What :func:`state_of` said of the item when it was stored."""

    sha3_256: bytes
    """The digest of the item."""

    name: str
    """The name that it got in the inbox."""

    def encode(self) -> bytes:
        """Return the bytes of the file that remembers it."""
        return _HEAD.pack(self.listing, self.state, self.sha3_256) + self.name.encode()

    @classmethod
    def decode(cls, data: Buffer) -> Self:
        """Return what such a file remembers.

        Raises:
            FrameError: The bytes are none of it, or name what no item is called.
        """
        view = memoryview(data)
        if len(view) <= _HEAD.size:
            raise FrameError(f"{len(view)} bytes remember no item")
        listing, state, sha3_256 = _HEAD.unpack_from(view)
        try:
            name = bytes(view[_HEAD.size :]).decode()
        except UnicodeDecodeError:
            raise FrameError("a remembered name is no UTF-8") from None
        if name != clean_name(name, max_size=MAX_NUMBERED_SIZE):
            raise FrameError(f"a remembered name is no name of an item: {name!r}")
        return cls(listing=listing, state=state, sha3_256=sha3_256, name=name)


class StoredItems:
    """The items that an inbox remembers. Where it cannot, it forgets: none of the calls fails for that.

    Args:
        inbox: The descriptor of the inbox; it is not closed here.
    """

    def __init__(self, inbox: int) -> None:
        self._inbox = inbox

    def remember(self, key: str, item: StoredItem) -> None:
        """Remember an item by its key, instead of what had that key before.

        Args:
            key: What :func:`item_key` returns.
            item: What is stored, or will be in a moment.
        """
        with contextlib.suppress(OSError):
            with contextlib.suppress(FileExistsError):
                os.mkdir(STORED_FOLDER, 0o700, dir_fd=self._inbox)
            folder = self._open()
            try:
                if len(os.listdir(folder)) >= MAX_STORED:  # noqa: PTH208  a descriptor, not a path
                    _forget(folder, keep=MAX_STORED - MAX_STORED // 4)
                descriptor = os.open(key + _NEW, _WRITE_RECORD, 0o600, dir_fd=folder)
                try:
                    os.write(descriptor, item.encode())
                finally:
                    os.close(descriptor)
                os.rename(key + _NEW, key, src_dir_fd=folder, dst_dir_fd=folder)
            finally:
                os.close(folder)

    def recall(self, key: str) -> StoredItem | None:
        """Return what is remembered by a key; None if nothing is, or nothing that can be read."""
        with contextlib.suppress(OSError, FrameError):
            folder = self._open()
            try:
                descriptor = os.open(key, _OPEN_RECORD, dir_fd=folder)
            finally:
                os.close(folder)
            try:
                if time.time() - os.fstat(descriptor).st_mtime < STORED_LIFETIME:
                    return StoredItem.decode(os.read(descriptor, _MAX_SIZE))
            finally:
                os.close(descriptor)
        return None

    def forget_old(self) -> None:
        """Forget what was stored long ago; with nothing left, remove the folder."""
        with contextlib.suppress(OSError):
            folder = self._open()
            try:
                _forget(folder, keep=MAX_STORED, lifetime=STORED_LIFETIME)
            finally:
                os.close(folder)
            os.rmdir(STORED_FOLDER, dir_fd=self._inbox)

    def _open(self) -> int:
        folder = os.open(STORED_FOLDER, OPEN_FOLDER, dir_fd=self._inbox)
        status = os.fstat(folder)
        if status.st_uid != os.geteuid() or status.st_mode & 0o077:
            os.close(folder)
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), STORED_FOLDER)
        return folder


def item_key(peer_node_id: bytes, item_id: bytes) -> str:
    """Return what a sender's item is called on this disk: the same when it comes again, and of no other sender."""
    return hashlib.sha3_256(peer_node_id + item_id).hexdigest()[:32]


def state_of(folder: int, name: str, limit: int) -> bytes:
    """Return a digest of how an item lies on the disk: of all names in it, and its files' inodes, sizes and times.

    A file that is written to gets another time, unless somebody puts the old one back. No file is read. No symbolic
    link is followed; where it points counts instead of its size and time.

    Args:
        folder: The descriptor of the folder in which it lies.
        name: Its name there, which does not count.
        limit: The most files, folders and links that can be in it, itself included.

    Returns:
        32 bytes; none if there are more in it, or deeper than an item can have them.

    Raises:
        OSError: It is missing, or cannot be looked at.
    """
    digest = hashlib.sha3_256()

    def take(path: str, name: str, folder: int) -> int:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFDIR:
            version = b""
        elif kind == stat.S_IFLNK:
            version = os.fsencode(os.readlink(name, dir_fd=folder))
        else:
            # With its inode: sizes and times are the sender's choice, and another file may have both.
            version = b"%d %d %d" % (status.st_ino, status.st_size, status.st_mtime_ns)
        digest.update(b"%b\0%d %b\0" % (os.fsencode(path), kind, version))
        return kind

    if take("", name, folder) != stat.S_IFDIR:
        return digest.digest()
    count = 1
    for walked, folders, files, descriptor in os.fwalk(name, dir_fd=folder):
        path = walked[len(name) :]
        folders.sort()  # in which they are walked through
        names = sorted(folders + files)
        count += len(names)
        if count > limit or path.count("/") > MAX_DEPTH:
            return b""
        for inner in names:
            take(f"{path}/{inner}", inner, descriptor)
    return digest.digest()


def _forget(folder: int, *, keep: int, lifetime: float = float("inf")) -> None:
    """Remove all but the newest, and of these what is too old."""
    found: list[tuple[float, str]] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                found.append((entry.stat(follow_symlinks=False).st_mtime, entry.name))
    oldest = time.time() - lifetime
    for number, (stored_at, name) in enumerate(sorted(found, reverse=True)):
        if number >= keep or stored_at <= oldest:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
