"""A file that is to be sent: read once, hashed on the way, and checked not to have changed meanwhile.

All calls block: the sender makes them in threads.
"""

from __future__ import annotations

import hashlib
import os
import stat
from typing import TYPE_CHECKING, NoReturn

from stt_streaming.transfer.errors import TransferError
from stt_streaming.transfer.messages import MAX_NAME_SIZE, TransferStatus, cut

if TYPE_CHECKING:
    from pathlib import Path


class SourceFile:
    """A regular file to read from; a symbolic link is followed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = cut(os.fsencode(path.name).decode(errors="replace"), MAX_NAME_SIZE)
        """The last part of the path, as it is offered."""
        self.size = 0
        """Bytes that it has, and that will be sent; known after :meth:`open`."""

        self._hash = hashlib.sha3_256()
        self._left = 0
        self._modified_at = 0
        self._descriptor = -1

    def open(self) -> None:
        """Open it.

        Raises:
            TransferError: It is missing, unreadable or no regular file.
        """
        try:
            # A pipe without a writer would block the opening.
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            status = os.fstat(self._descriptor)
        except OSError as error:
            _fail(self.path, error)
        if not stat.S_ISREG(status.st_mode):
            raise TransferError(TransferStatus.CHANGED, f"{self.path} is no regular file")
        self.size = self._left = status.st_size
        self._modified_at = status.st_mtime_ns

    def read(self, max_bytes: int) -> bytes:
        """Return the next bytes; none at the end.

        Raises:
            TransferError: It became shorter, or the disk fails.
        """
        try:
            data = os.read(self._descriptor, min(max_bytes, self._left))
        except OSError as error:
            _fail(self.path, error)
        if not data and self._left:
            raise TransferError(TransferStatus.CHANGED, f"{self.path} became shorter while it was sent")
        self._hash.update(data)
        self._left -= len(data)
        return data

    def digest(self) -> bytes:
        """Return the SHA3-256 of what was read, once all was.

        Raises:
            TransferError: The file was changed since it was opened, so that what was read may never have been its
                content.
        """
        status = os.fstat(self._descriptor)
        if (status.st_size, status.st_mtime_ns) != (self.size, self._modified_at):
            raise TransferError(TransferStatus.CHANGED, f"{self.path} changed while it was sent")
        return self._hash.digest()

    def close(self) -> None:
        """Close it; calling it twice, or without :meth:`open`, is allowed."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _fail(path: Path, error: OSError) -> NoReturn:
    raise TransferError(TransferStatus.CHANGED, f"{path} cannot be read: {error.strerror}") from error
