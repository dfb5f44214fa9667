"""The folder that takes files: what may still come into it, and under which name it appears there.

Under its own name a file or folder is there whole and checked, or not at all: until then it lies in a hidden folder
beside, which only its owner can enter. All calls block: the receiver makes them in threads.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
import threading
import time
from enum import Enum
from typing import TYPE_CHECKING, Final, NoReturn, Self

from stt_streaming.transfer.errors import TransferError
from stt_streaming.transfer.folders import OPEN_FOLDER
from stt_streaming.transfer.messages import TransferStatus
from stt_streaming.transfer.names import numbered_name
from stt_streaming.transfer.stored import StoredItems

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

STAGING_PREFIX: Final = ".stt-"
STAGING_SUFFIX: Final = ".part"
"""What the names of folders with unfinished items begin and end with; a cleaned name never begins with a dot."""

STAGED_NAME: Final = "item"
"""The name of the item in such a folder."""

REPLACED_NAME: Final = "replaced"
"""The name there of a folder that the item takes the place of."""

MAX_NUMBER: Final = 999
"""The highest number that is put into a name to tell it from those that are there."""

MAX_UNFINISHED: Final = 64
"""Unfinished items that are kept to be resumed; of more, those that were touched last."""

UNFINISHED_LIFETIME: Final = 7 * 24 * 3600.0
"""Seconds after which an unfinished item that nobody went on with is removed."""

CREATE_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
"""How a file is opened that must not be there yet."""

_STAGING: Final = re.compile(re.escape(STAGING_PREFIX) + "[0-9a-f]{32}" + re.escape(STAGING_SUFFIX))
_NO_SPACE: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
# What file systems without hard links say to one: FAT and exFAT EPERM, others the rest.
_NO_LINKS: Final = frozenset((errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK))


class Existing(Enum):
    """What becomes of an item if its name is taken."""

    NUMBER = "number"  #: it gets a number
    SKIP = "skip"  #: it is refused
    REPLACE = "replace"  #: what is there goes


class Inbox:
    """A folder that takes files; held open, so that it stays the same one when it is renamed.

    Args:
        folder: Must exist.
        existing: What to do when a name is taken.
        quota: Bytes that may come while this object lives, counted with what was begun before; unless given, any.

    Raises:
        TransferError: The folder cannot be opened.
    """

    def __init__(self, folder: Path, *, existing: Existing = Existing.NUMBER, quota: int | None = None) -> None:
        self.folder = folder
        self.existing = existing
        self._quota = quota
        self._stored_size = 0
        self._reserved: dict[str, int] = {}
        self._counting = threading.Lock()
        try:
            self.descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            refuse(error, f"the folder {folder} cannot be opened")
        """The descriptor of the folder."""

        self.stored = StoredItems(self.descriptor)
        """What is remembered of the items in it."""

        self.umask = os.umask(0o077)
        """The permissions that new files do not get."""
        os.umask(self.umask)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def check(self) -> None:
        """Learn early whether files can be written, and remove what was begun long ago.

        Raises:
            TransferError: They cannot.
        """
        with contextlib.closing(Staging(self, "")) as staging:
            staging.remove()
        self._remove_old(UNFINISHED_LIFETIME)
        self.stored.forget_old()

    def reserve(self, key: str, size: int) -> None:
        """Count bytes that are to come; those of an item that is resumed are not counted twice.

        Raises:
            TransferError: The quota does not allow them.
        """
        with self._counting:
            used = self._stored_size + sum(self._reserved.values()) - self._reserved.get(key, 0)
            if self._quota is not None and size > self._quota - used:
                raise TransferError(
                    TransferStatus.NO_SPACE,
                    f"the quota leaves room for {max(self._quota - used, 0)} bytes, not for {size}",
                )
            self._reserved[key] = size

    def release(self, key: str) -> None:
        """Count those bytes no more: nothing of the item is left."""
        with self._counting:
            self._reserved.pop(key, None)

    def check_room(self, size: int, count: int) -> None:
        """Raise unless the disk has room for so many bytes and files.

        It is advice only, as others write too; but it spares the peer from sending what cannot be kept.

        Raises:
            TransferError: It has not.
        """
        room = os.fstatvfs(self.descriptor)
        if size > room.f_bavail * room.f_frsize:
            raise TransferError(TransferStatus.NO_SPACE, f"the disk has no room for {size} bytes")
        # Some file systems make what they need of these, and say 0.
        if room.f_files and count > room.f_favail:
            raise TransferError(TransferStatus.NO_SPACE, f"the disk has no room for {count} files")

    def check_name(self, name: str) -> None:
        """Raise if an item of this name would be refused for what is there.

        Raises:
            TransferError: It would.
        """
        if self.existing is not Existing.SKIP:
            return
        with contextlib.suppress(FileNotFoundError):
            os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)
            raise TransferError(TransferStatus.EXISTS, f"{name} is there already")

    def publish(self, staging: Staging, name: str, *, is_folder: bool, about_to: Callable[[str], None]) -> str:
        """Move a finished item out of its staging folder; return the name that it got.

        Args:
            staging: Where it is.
            name: What it shall be called.
            is_folder: Whether it is a folder.
            about_to: Told of each name right before the item may get it.

        Raises:
            TransferError: The name is taken, and the item must not have another.
            OSError: The disk fails.
        """
        if self.existing is Existing.REPLACE:
            about_to(name)
            self._replace(staging, name, is_folder=is_folder)
            return name
        last = 0 if self.existing is Existing.SKIP else MAX_NUMBER
        for number in range(last + 1):
            chosen = numbered_name(name, number) if number else name
            about_to(chosen)
            try:
                if is_folder:
                    self._move_folder(staging, chosen)
                else:
                    self._move_file(staging, chosen)
            except FileExistsError:
                continue
            return chosen
        if last:
            raise TransferError(TransferStatus.NOT_WRITABLE, f"there are {MAX_NUMBER} files of that name already")
        raise TransferError(TransferStatus.EXISTS, f"{name} is there already")

    def count_stored(self, key: str, size: int) -> None:
        """Count an item that is finished."""
        with self._counting:
            self._reserved.pop(key, None)
            self._stored_size += size

    def keep_unfinished(self) -> None:
        """Remove the oldest of the unfinished items, if there are too many."""
        self._remove_old(0.0, beyond=MAX_UNFINISHED)

    def close(self) -> None:
        """Let go of the folder; only when nothing is on its way into it."""
        os.close(self.descriptor)

    # Internals

    def _move_file(self, staging: Staging, name: str) -> None:
        """Give a file its name by a hard link, which never replaces what is there."""
        try:
            os.link(STAGED_NAME, name, src_dir_fd=staging.descriptor, dst_dir_fd=self.descriptor, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # Reserve the name with an empty file, and replace that: whoever comes later finds the name taken.
            os.close(os.open(name, CREATE_FILE, 0o600, dir_fd=self.descriptor))
            try:
                os.rename(STAGED_NAME, name, src_dir_fd=staging.descriptor, dst_dir_fd=self.descriptor)
            except OSError:
                os.unlink(name, dir_fd=self.descriptor)
                raise

    def _move_folder(self, staging: Staging, name: str) -> None:
        """Reserve the name with an empty folder, and replace that: a folder with something in it stays."""
        os.mkdir(name, 0o700, dir_fd=self.descriptor)
        try:
            os.rename(STAGED_NAME, name, src_dir_fd=staging.descriptor, dst_dir_fd=self.descriptor)
        except OSError as error:
            os.rmdir(name, dir_fd=self.descriptor)
            if error.errno == errno.ENOTEMPTY:  # somebody was quick to put something into it
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name) from error
            raise

    def _replace(self, staging: Staging, name: str, *, is_folder: bool) -> None:
        moved = False
        try:
            there = os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            pass
        else:
            # A file takes the place of another in one step; with a folder it takes two.
            if is_folder or stat.S_ISDIR(there.st_mode):
                shutil.rmtree(REPLACED_NAME, ignore_errors=True, dir_fd=staging.descriptor)
                os.rename(name, REPLACED_NAME, src_dir_fd=self.descriptor, dst_dir_fd=staging.descriptor)
                moved = True
        try:
            os.rename(STAGED_NAME, name, src_dir_fd=staging.descriptor, dst_dir_fd=self.descriptor)
        except OSError:
            if moved:
                os.rename(REPLACED_NAME, name, src_dir_fd=staging.descriptor, dst_dir_fd=self.descriptor)
            raise

    def _remove_old(self, lifetime: float, beyond: int = 0) -> None:
        """Remove the unfinished items that are older, but not the newest ones and none on its way."""
        found: list[tuple[float, str]] = []
        with contextlib.suppress(OSError), os.scandir(self.descriptor) as entries:
            for entry in entries:
                if _STAGING.fullmatch(entry.name):
                    with contextlib.suppress(OSError):
                        found.append((entry.stat(follow_symlinks=False).st_mtime, entry.name))
        for modified_at, name in sorted(found, reverse=True)[beyond:]:
            if time.time() - modified_at >= lifetime:
                with contextlib.suppress(TransferError), contextlib.closing(Staging(self, name)) as staging:
                    staging.remove()


class Staging:
    """The hidden folder of one unfinished item, locked for as long as it is open.

    Args:
        inbox: Where the item shall go.
        name: The name of the folder; empty for a new one that nobody will find again.

    Raises:
        TransferError: It cannot be made, or another process or transfer has it.
    """

    def __init__(self, inbox: Inbox, name: str) -> None:
        self.name = name or f"{STAGING_PREFIX}{secrets.token_hex(16)}{STAGING_SUFFIX}"
        self._inbox = inbox
        self.descriptor = -1
        try:
            # For its owner alone: nobody else may look into it, or put anything there.
            with contextlib.suppress(FileExistsError):
                os.mkdir(self.name, 0o700, dir_fd=inbox.descriptor)
            self.descriptor = os.open(self.name, OPEN_FOLDER, dir_fd=inbox.descriptor)
            self._lock()
        except OSError as error:
            self.close()
            refuse(error, "the file cannot be created")
        except BaseException:
            self.close()
            raise

    def remove(self) -> None:
        """Remove it with all that is in it. What cannot be removed stays, but under its hidden name."""
        self._inbox.release(self.name)
        with contextlib.suppress(OSError):
            shutil.rmtree(self.name, dir_fd=self._inbox.descriptor)

    def close(self) -> None:
        """Let go of it."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def _lock(self) -> None:
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TransferError(TransferStatus.BUSY, "it is on its way already") from None
        status = os.fstat(self.descriptor)
        if not status.st_nlink:
            raise TransferError(TransferStatus.BUSY, "it was on its way until now")  # and was then removed
        if status.st_uid != os.geteuid():
            raise TransferError(TransferStatus.NOT_WRITABLE, f"{self.name} belongs to somebody else")


def staging_name(key: str) -> str:
    """Return the name of the staging folder of the item with this key."""
    return f"{STAGING_PREFIX}{key}{STAGING_SUFFIX}"


def refuse(error: OSError, what: str) -> NoReturn:
    """Raise a TransferError for what the disk did not do."""
    status = TransferStatus.NO_SPACE if error.errno in _NO_SPACE else TransferStatus.NOT_WRITABLE
    raise TransferError(status, f"{what}: {os.strerror(error.errno or errno.EIO)}") from error
