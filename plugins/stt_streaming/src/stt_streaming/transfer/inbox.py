"""Files on their way into a folder: under its own name a file is there whole and checked, or not at all.

While it arrives, a file has a hidden temporary name in the same folder and can be read by its owner alone. It is synced
before it gets its name, so that not even a power cut leaves half a file that looks whole. Names are given by a hard
link, which never replaces what is there. All calls block: the receiver makes them in threads.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import hmac
import os
import secrets
from typing import TYPE_CHECKING, Final, NoReturn, Self

from stt_streaming.transfer.errors import TransferError
from stt_streaming.transfer.messages import TransferStatus
from stt_streaming.transfer.names import clean_name, numbered_name

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from types import TracebackType

    from stt_core.interfaces import Buffer

TEMPORARY_PREFIX: Final = ".stt-"
TEMPORARY_SUFFIX: Final = ".part"
"""What the names of unfinished files begin and end with; a cleaned name never begins with a dot."""

MAX_NUMBER: Final = 999
"""The highest number that is put into a name to tell it from those that are there."""

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_SPACE: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
# What file systems without hard links say to one: FAT and exFAT EPERM, others the rest.
_NO_LINKS: Final = frozenset((errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK))


class Inbox:
    """A folder that takes files; held open, so that it stays the same one when it is renamed.

    Args:
        folder: Must exist.
        mode: The permissions that a finished file gets.

    Raises:
        TransferError: The folder cannot be written.
    """

    def __init__(self, folder: Path, *, mode: int = 0o600) -> None:
        self.folder = folder
        self.mode = mode
        try:
            self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            _refuse(error, f"the folder {folder} cannot be opened")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def check(self) -> None:
        """Create and remove an empty file, to learn early whether files can be written.

        Raises:
            TransferError: They cannot.
        """
        probe = self.file("probe", 0)
        try:
            probe.open()
        finally:
            probe.discard()

    def file(self, name: str, size: int) -> IncomingFile:
        """Return a file that is to come into this folder.

        Args:
            name: As the peer calls it.
            size: Bytes that it will have.
        """
        return IncomingFile(self._descriptor, clean_name(name), size, self.mode)

    def close(self) -> None:
        """Let go of the folder; only when no file is on its way into it."""
        os.close(self._descriptor)


class IncomingFile:
    """One file on its way, made by :meth:`Inbox.file`; :meth:`discard` ends it in any case.

    Args:
        folder: The descriptor of the folder.
        name: The cleaned name that it shall have.
        size: Bytes that it will have.
        mode: The permissions that it gets in the end.
    """

    def __init__(self, folder: int, name: str, size: int, mode: int) -> None:
        self.name = name
        """The name that it shall have; after :meth:`publish` the one that it has."""
        self.size = size
        self.written = 0
        """Bytes that were written so far."""

        self._folder = folder
        self._mode = mode
        self._hash = hashlib.sha3_256()
        self._temporary_name = f"{TEMPORARY_PREFIX}{secrets.token_hex(16)}{TEMPORARY_SUFFIX}"
        self._descriptor = -1

    def open(self) -> None:
        """Create it, empty.

        Raises:
            TransferError: It cannot be created, or the disk has not that much space.
        """
        try:
            room = os.fstatvfs(self._folder)
            # Advice only, as others write too; but it spares the peer from sending what cannot be kept.
            if self.size > room.f_bavail * room.f_frsize:
                raise TransferError(TransferStatus.NO_SPACE, f"the disk has no room for {self.size} bytes")
            self._descriptor = os.open(self._temporary_name, _CREATE, 0o600, dir_fd=self._folder)
        except OSError as error:
            _refuse(error, "the file cannot be created")

    def write(self, pieces: Iterable[Buffer]) -> None:
        """Append bytes.

        Raises:
            TransferError: The disk is full or fails, or there are more bytes than were announced.
        """
        for piece in pieces:
            if self.written + len(piece) > self.size:
                raise TransferError(TransferStatus.MALFORMED, "more bytes came than were announced")
            self._hash.update(piece)
            view = memoryview(piece)
            while view:
                try:
                    count = os.write(self._descriptor, view)
                except OSError as error:
                    _refuse(error, "the file cannot be written")
                view = view[count:]
                self.written += count

    def publish(self, sha3_256: bytes) -> None:
        """Check the file, make it last and give it its name, or the next free one with a number.

        Args:
            sha3_256: What its bytes must hash to.

        Raises:
            TransferError: It is incomplete, the hash is another, or the disk fails.
        """
        try:
            if self.written != self.size:
                raise TransferError(TransferStatus.MISMATCH, f"{self.written} of {self.size} bytes came")
            if not hmac.compare_digest(self._hash.digest(), sha3_256):
                raise TransferError(TransferStatus.MISMATCH, "the bytes that came have another SHA3-256 than announced")
            os.fchmod(self._descriptor, self._mode)
            os.fsync(self._descriptor)
            self.name = self._claim_name()
            self._remove_temporary()
            os.fsync(self._folder)
        except OSError as error:
            _refuse(error, "the file cannot be stored")

    def discard(self) -> None:
        """Remove what has not got its name; calling it twice, or without :meth:`open`, is allowed."""
        if self._descriptor < 0:
            return
        os.close(self._descriptor)
        self._descriptor = -1
        self._remove_temporary()

    # Internals

    def _remove_temporary(self) -> None:
        # It is gone once it was renamed. Where it cannot be removed it stays, but under this name.
        with contextlib.suppress(OSError):
            os.unlink(self._temporary_name, dir_fd=self._folder)

    def _claim_name(self) -> str:
        for number in range(MAX_NUMBER + 1):
            name = numbered_name(self.name, number) if number else self.name
            try:
                self._link(name)
            except FileExistsError:
                continue
            return name
        raise TransferError(TransferStatus.NOT_WRITABLE, f"there are {MAX_NUMBER} files of that name already")

    def _link(self, name: str) -> None:
        try:
            os.link(self._temporary_name, name, src_dir_fd=self._folder, dst_dir_fd=self._folder, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # Reserve the name with an empty file, and replace that: whoever comes later finds the name taken.
            os.close(os.open(name, _CREATE, 0o600, dir_fd=self._folder))
            try:
                os.rename(self._temporary_name, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            except OSError:
                os.unlink(name, dir_fd=self._folder)
                raise


def _refuse(error: OSError, what: str) -> NoReturn:
    status = TransferStatus.NO_SPACE if error.errno in _NO_SPACE else TransferStatus.NOT_WRITABLE
    raise TransferError(status, f"{what}: {os.strerror(error.errno or errno.EIO)}") from error
