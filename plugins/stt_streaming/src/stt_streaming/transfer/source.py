"""What is to be sent: a file, or a folder with all that is in it, listed first and then read as the receiver wants it.

All calls block: the sender makes them in threads. No symbolic link below what the user named is ever followed, also if
one is put there while this runs.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import os
import stat
from typing import TYPE_CHECKING, Final, NoReturn

import attrs

from stt_streaming.transfer.errors import TransferError
from stt_streaming.transfer.folders import Folders
from stt_streaming.transfer.manifest import (
    MAX_DEPTH,
    MAX_MODIFIED_AT,
    MAX_NAME_SIZE,
    MAX_TARGET_SIZE,
    Entry,
    EntryKind,
)
from stt_streaming.transfer.messages import ITEM_ID_SIZE, MAX_ENTRIES, TransferStatus, cut
from stt_streaming.transfer.records import (
    CHUNK_SIZE,
    MAX_HOLE_SIZE,
    encode_chunk_head,
    encode_file_failed,
    encode_file_start,
    encode_hole,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stt_streaming.transfer.plan import Mark, Plan

_OPEN_FILE: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe without a writer would block the opening
_JOINED_SIZE: Final = 64 * 1024  # pieces below this are joined, larger ones handed on without a copy
_FILE_COST: Final = 256  # what a file takes of a batch besides its bytes, so that empty ones fill it as well
_ZEROS: Final = bytes(CHUNK_SIZE)


@attrs.frozen
class LeftOut:
    """Something in a folder that is not sent."""

    path: str
    reason: str

    by_choice: bool
    """Whether it was not meant to be sent, as a link or a socket; else it could not be read."""


class SourceItem:
    """A file or folder to send; a symbolic link is followed if it is the item itself. Call :meth:`scan` first.

    Args:
        path: The file or folder.
        keep_links: Whether symbolic links in a folder are sent as such; else they are left out.
        batch_size: Bytes that one :meth:`read` should return about.
    """

    def __init__(self, path: Path, *, keep_links: bool = False, batch_size: int = CHUNK_SIZE) -> None:
        self.path = path
        self.entries: list[Entry] = []
        """The manifest; the item itself first."""

        self.left_out: list[LeftOut] = []
        self.item_id = b""
        """The same for the same file or folder, as long as it is on this disk under this name."""

        self.size = 0
        """Bytes of all files."""

        self.disk_size = 0
        """Bytes that they take on this disk."""

        self.done = 0
        """Bytes of wanted files that were read, or that the receiver has."""

        self.resumed = 0
        """Bytes that the receiver had already."""

        self.sent_files = 0
        """Files and links that were read to their end."""

        self._keep_links = keep_links
        self._batch_size = batch_size
        self._unlisted = 0
        self._names: list[str] = []
        self._parents: list[int] = []
        self._targets: dict[int, bytes] = {}
        self._root = -1
        self._folders: Folders | None = None
        self._plan: Plan = {}
        self._index = -1
        self._file: _OpenFile | None = None
        self._file_done = 0
        self._digests = hashlib.sha3_256()
        self._file_digest = b""

    @property
    def name(self) -> str:
        """The name of the item, as it is offered."""
        return self.entries[0].name

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return self.entries[0].kind is EntryKind.FOLDER

    def scan(self) -> None:
        """Open the item and list what is in it.

        Raises:
            TransferError: It is missing, unreadable, neither file nor folder, or has too many entries.
        """
        try:
            self._root = os.open(self.path, _OPEN_FILE)
            status = os.fstat(self._root)
            name = self.path.name
            # "." and ".." name a folder, but not as those would call it who get it.
            name = name if name not in ("", "..") else self.path.resolve().name
            if stat.S_ISREG(status.st_mode):
                self._add(EntryKind.FILE, name, status, 0)
            elif stat.S_ISDIR(status.st_mode):
                self._add(EntryKind.FOLDER, name, status, 0)
                self._folders = Folders(self._root, self._parents, self._names)
                self._scan_folders()
            else:
                raise TransferError(TransferStatus.CHANGED, f"{self.path} is neither a regular file nor a folder")
        except OSError as error:
            _fail(str(self.path), error)
        self._unlisted = len(self.left_out)
        identity = f"{status.st_dev} {status.st_ino} ".encode() + os.fsencode(name)
        self.item_id = hashlib.sha3_256(identity).digest()[:ITEM_ID_SIZE]

    def follow(self, plan: Plan) -> None:
        """Be told what the receiver wants, before the first :meth:`read`."""
        self._plan = plan

    def read(self) -> list[bytes] | None:
        """Return the next records, some ``batch_size`` bytes of them; None at the end.

        There may be none for a while, when a large file is compared with what the receiver has of it.

        Raises:
            TransferError: The item is a file, and cannot be sent.
        """
        pieces: list[bytes] = []
        room = self._batch_size
        while room > 0:
            if self._file is None and not self._open_next(pieces):
                return _joined(pieces) if pieces else None
            room -= self._continue_file(pieces)
        return _joined(pieces)

    def rewind(self) -> None:
        """Let :meth:`read` begin again with the first file, as if nothing had been read."""
        self._end_file()
        self._index = -1
        self._digests = hashlib.sha3_256()
        self.done = self.resumed = self.sent_files = 0
        del self.left_out[self._unlisted :]

    def digest(self) -> bytes:
        """Return the digest of the item, once all is read: a file's own, or that of all digests of a folder's."""
        return self._digests.digest() if self.is_folder else self._file_digest

    def close(self) -> None:
        """Let go of everything; calling it twice, or without :meth:`scan`, is allowed."""
        self._end_file()
        if self._folders is not None:
            self._folders.close()
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    # Listing

    def _scan_folders(self) -> None:
        depths = {0: 0}
        waiting = [0]
        while waiting:
            index = waiting.pop()
            first = len(self.entries)
            try:
                assert self._folders is not None
                folder = self._folders.open(index)
                with os.scandir(folder) as found:
                    inner = sorted(found, key=lambda entry: entry.name)
                for entry in inner:
                    self._scan_one(entry, folder, index)
            except OSError as error:
                self._leave_out(index, "", error.strerror or str(error))
            folders = [
                number for number in range(first, len(self.entries)) if self.entries[number].kind is EntryKind.FOLDER
            ]
            for number in reversed(folders):
                depths[number] = depths[index] + 1
                if depths[number] < MAX_DEPTH:
                    waiting.append(number)
                else:
                    self._leave_out(number, "", f"lies deeper than {MAX_DEPTH} folders")

    def _scan_one(self, entry: os.DirEntry[str], folder: int, parent: int) -> None:
        try:
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISREG(status.st_mode):
                self._add(EntryKind.FILE, entry.name, status, parent)
            elif stat.S_ISDIR(status.st_mode):
                self._add(EntryKind.FOLDER, entry.name, status, parent)
            elif not stat.S_ISLNK(status.st_mode):
                self._leave_out(parent, entry.name, "is no regular file", by_choice=True)
            elif not self._keep_links:
                self._leave_out(parent, entry.name, "is a symbolic link", by_choice=True)
            else:
                self._add_link(entry.name, os.readlink(entry.name, dir_fd=folder), status, parent)
        except OSError as error:
            self._leave_out(parent, entry.name, error.strerror or str(error))

    def _add_link(self, name: str, target: str, status: os.stat_result, parent: int) -> None:
        try:
            encoded = target.encode()
        except UnicodeEncodeError:
            encoded = b""
        if 0 < len(encoded) <= MAX_TARGET_SIZE:
            self._targets[len(self.entries)] = encoded
            self._add(EntryKind.LINK, name, status, parent, size=len(encoded))
        else:
            self._leave_out(parent, name, "is a symbolic link to a name that is no Unicode")

    def _add(self, kind: EntryKind, name: str, status: os.stat_result, parent: int, *, size: int | None = None) -> None:
        if len(self.entries) >= MAX_ENTRIES:
            raise TransferError(
                TransferStatus.UNSUPPORTED, f"{self.path} has more than {MAX_ENTRIES} files and folders in it"
            )
        if size is None:
            size = status.st_size if kind is EntryKind.FILE else 0
        self.entries.append(
            Entry(
                kind=kind,
                name=cut(os.fsencode(name).decode(errors="replace"), MAX_NAME_SIZE),
                size=size,
                mode=stat.S_IMODE(status.st_mode) & 0o777,
                modified_at=max(-MAX_MODIFIED_AT, min(status.st_mtime_ns, MAX_MODIFIED_AT)),
                parent=parent,
            )
        )
        self._names.append(name)
        self._parents.append(parent)
        self.size += size
        self.disk_size += min(size, status.st_blocks * 512)

    def _leave_out(self, folder: int, name: str, reason: str, *, by_choice: bool = False) -> None:
        self.left_out.append(LeftOut(os.path.join(self._path_of(folder), name).rstrip("/"), reason, by_choice))  # noqa: PTH118  names may be no Unicode

    def _path_of(self, index: int) -> str:
        names = []
        while index:
            names.append(self._names[index])
            index = self._parents[index]
        return os.path.join(self.path, *reversed(names))  # noqa: PTH118  as above

    # Reading

    def _open_next(self, pieces: list[bytes]) -> bool:
        """Open the next file that is wanted; say whether there is one."""
        while self._index + 1 < len(self.entries):
            self._index += 1
            kind = self.entries[self._index].kind
            if kind is EntryKind.FOLDER or self._plan.get(self._index) == ():
                continue
            if kind is EntryKind.LINK:
                self._send_link(pieces)
                continue
            try:
                self._file = self._open()
            except TransferError as error:
                self._give_up(error, pieces)
            else:
                return True
        return False

    def _open(self) -> _OpenFile:
        path = self._path_of(self._index)
        try:
            if self._folders is None:
                descriptor = os.dup(self._root)
            else:
                folder = self._folders.open(self._parents[self._index])
                descriptor = os.open(self._names[self._index], _OPEN_FILE | os.O_NOFOLLOW, dir_fd=folder)
        except OSError as error:
            _fail(path, error)
        return _OpenFile(descriptor, path, self.entries[self._index], self._plan.get(self._index, ()))

    def _continue_file(self, pieces: list[bytes]) -> int:
        """Compare or read some of the open file; return what this took of the batch."""
        assert self._file is not None
        entry, file = self.entries[self._index], self._file
        try:
            if file.offset is None:
                compared = file.compare()
                if file.offset is None:
                    return compared
            if not file.begun:
                file.begun = True
                pieces.append(encode_file_start(self._index, file.offset))
                self._file_done = file.offset
                self.done += file.offset
                self.resumed += file.offset
            before = file.position
            records = file.read(min(self._batch_size, CHUNK_SIZE)) if before < entry.size else []
            if file.position == entry.size:
                # Before the records that complete it go: it may never have been like this at one time.
                file.check_unchanged()
        except TransferError as error:
            self._give_up(error, pieces)
            return 0
        pieces += records
        read = file.position - before
        self._file_done += read
        self.done += read
        if file.position == entry.size:
            self._take_digest(file.digest())
            self._end_file()
        return read + _FILE_COST

    def _send_link(self, pieces: list[bytes]) -> None:
        target = self._targets[self._index]
        digest = hashlib.sha3_256(target).digest()
        pieces += [encode_file_start(self._index, 0), encode_chunk_head(len(target)), target, digest]
        self.done += len(target)
        self._take_digest(digest)

    def _give_up(self, error: TransferError, pieces: list[bytes]) -> None:
        if self._file is not None and self._file.begun:
            self.done -= self._file_done
            self.resumed -= self._file.offset or 0
        self._end_file()
        if not self.is_folder:
            raise error
        self.left_out.append(LeftOut(self._path_of(self._index), str(error), by_choice=False))
        pieces.append(encode_file_failed(self._index, error.status))

    def _take_digest(self, digest: bytes) -> None:
        self.sent_files += 1
        self._file_digest = digest
        self._digests.update(digest)

    def _end_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class _OpenFile:
    """One file while it is read; takes the descriptor over."""

    def __init__(self, descriptor: int, path: str, entry: Entry, marks: Sequence[Mark]) -> None:
        self.position = 0
        self.offset: int | None = None if marks else 0
        """From where on it is sent, once that is known."""

        self.begun = False
        """Whether its first record was made."""

        self._descriptor = descriptor
        self._path = path
        self._entry = entry
        self._marks = list(marks)
        self._agreed = (0, hashlib.sha3_256())
        self._hash = hashlib.sha3_256()
        self._data_start = self._data_end = 0
        try:
            status = self.check_unchanged()
        except BaseException:
            self.close()
            raise
        if status.st_blocks * 512 >= entry.size:
            self._data_end = entry.size  # without holes, as most are

    def check_unchanged(self) -> os.stat_result:
        """Return its status.

        Raises:
            TransferError: It is not the regular file that was listed, or was changed since.
        """
        try:
            status = os.fstat(self._descriptor)
        except OSError as error:
            _fail(self._path, error)
        listed = (self._entry.size, self._entry.modified_at)
        if not stat.S_ISREG(status.st_mode) or (status.st_size, status.st_mtime_ns) != listed:
            raise TransferError(TransferStatus.CHANGED, f"{self._path} changed while it was sent")
        return status

    def compare(self) -> int:
        """Compare some of it with the marks; when all that agree are known, :attr:`offset` is set.

        Returns:
            Bytes that were compared.

        Raises:
            TransferError: It became shorter, or the disk fails.
        """
        mark, before = self._marks[0], self.position
        self._take(min(MAX_HOLE_SIZE, mark.offset - before), CHUNK_SIZE)
        compared = self.position - before
        if self.position < mark.offset:
            return compared
        if hmac.compare_digest(self._hash.digest(), mark.sha3_256):
            self._agreed = (mark.offset, self._hash.copy())
            del self._marks[0]
            if self._marks:
                return compared
        self.position, self._hash = self._agreed
        self.offset = self.position
        if self._data_start:
            self._data_start = self._data_end = 0  # to be found anew from there
        return compared

    def read(self, chunk_size: int) -> list[bytes]:
        """Return the next bytes as records; not at the end.

        Raises:
            TransferError: It became shorter, or the disk fails.
        """
        before = self.position
        data = self._take(MAX_HOLE_SIZE, chunk_size)
        digest = self.digest()
        if data:
            return [encode_chunk_head(len(data)), data, digest]
        return [encode_hole(self.position - before, digest)]

    def digest(self) -> bytes:
        """Return the digest up to the position."""
        return self._hash.digest()

    def close(self) -> None:
        """Close it."""
        os.close(self._descriptor)

    def _take(self, max_hole: int, max_data: int) -> bytes:
        """Read on, at most so far; return the data, or nothing for a hole."""
        try:
            if self.position >= self._data_end:
                self._find_data()
            if self.position < self._data_start:
                self._skip_hole(min(max_hole, self._data_start - self.position))
                return b""
            size = min(max_hole, max_data, self._data_end - self.position)
            data = os.pread(self._descriptor, size, self.position)
        except OSError as error:
            _fail(self._path, error)
        if not data:
            raise TransferError(TransferStatus.CHANGED, f"{self._path} became shorter while it was sent")
        self._hash.update(data)
        self.position += len(data)
        return data

    def _skip_hole(self, size: int) -> None:
        self.position += size
        while size:
            part = min(size, len(_ZEROS))
            self._hash.update(memoryview(_ZEROS)[:part])
            size -= part

    def _find_data(self) -> None:
        end = self._entry.size
        try:
            start = os.lseek(self._descriptor, self.position, os.SEEK_DATA)
        except OSError as error:
            # There is none; or this file system knows no holes.
            self._data_start = end if error.errno == errno.ENXIO else self.position
            self._data_end = end
        else:
            self._data_start = min(start, end)
            self._data_end = min(os.lseek(self._descriptor, start, os.SEEK_HOLE), end)


def _joined(pieces: list[bytes]) -> list[bytes]:
    """Return the same bytes in fewer pieces: sending many small ones costs more than copying them."""
    joined: list[bytes] = []
    small: list[bytes] = []
    for piece in pieces:
        if len(piece) < _JOINED_SIZE:
            small.append(piece)
            continue
        if small:
            joined.append(b"".join(small))
            small.clear()
        joined.append(piece)
    if small:
        joined.append(b"".join(small))
    return joined


def _fail(path: str, error: OSError) -> NoReturn:
    raise TransferError(TransferStatus.CHANGED, f"{path} cannot be read: {error.strerror}") from error
