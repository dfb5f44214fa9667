"""One file or folder on its way into an inbox: what is there of it already, what comes, and its end.

All calls block: the receiver makes them in threads.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import hmac
import os
import shutil
import stat
from typing import TYPE_CHECKING, Final

import attrs

from stt_core.errors import FrameError
from stt_streaming.transfer.errors import TransferError
from stt_streaming.transfer.folders import OPEN_FOLDER, Folders
from stt_streaming.transfer.inbox import CREATE_FILE, STAGED_NAME, Existing, Staging, refuse, staging_name
from stt_streaming.transfer.manifest import EntryKind, encode_manifest
from stt_streaming.transfer.messages import TransferStatus
from stt_streaming.transfer.names import FolderNames, clean_name, is_inside
from stt_streaming.transfer.plan import Mark, encode_plan, mark_offsets
from stt_streaming.transfer.records import CHUNK_SIZE, ChunkEnd, Data, FileFailed, FileStart, Hole, RecordReader
from stt_streaming.transfer.stored import StoredItem, item_key, state_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from stt_core.interfaces import Buffer
    from stt_streaming.transfer.inbox import Inbox
    from stt_streaming.transfer.manifest import Entry
    from stt_streaming.transfer.plan import Plan

COMPARED_SIZE: Final = 16 * 1024 * 1024
"""Bytes that one call of :meth:`IncomingItem.compare` hashes: some 30 ms."""

_OPEN_AGAIN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_OWNER_FILE, _OWNER_FOLDER = 0o600, 0o700  # what the owner may do in any case: else nothing could be resumed or removed
_ZEROS: Final = bytes(CHUNK_SIZE)


class IncomingItem:
    """A file or folder on its way. Call in this order: prepare, compare until it is done, write, publish; always close.

    If :meth:`recall` says that the inbox has it already, the plan is complete. Then :meth:`settle` follows if the
    sender has the same; if not, prepare, write and publish.

    Args:
        inbox: Where it goes.
        entries: Its manifest.
        peer_node_id: Who sends it.
        item_id: What the sender calls it; empty if it shall not be resumed.
        disk_size: Bytes that it takes on the disk of the sender.
        keep_links: Whether symbolic links are made; else they are left out.
        wants: Whether a file or link is wanted, by its path; unless given, all are.
    """

    def __init__(
        self,
        inbox: Inbox,
        entries: Sequence[Entry],
        *,
        peer_node_id: bytes,
        item_id: bytes,
        disk_size: int,
        keep_links: bool = False,
        wants: Callable[[str], bool] | None = None,
    ) -> None:
        self.name = clean_name(entries[0].name)
        """The name that it shall have; after :meth:`publish` the one that it has."""

        self.is_folder = entries[0].kind is EntryKind.FOLDER
        self.size = sum(entry.size for entry in entries)
        """Bytes of all that is in it."""

        self.plan: Plan = {}
        """What is not wanted, and what is there; complete when :meth:`compare` is done."""

        self.done = 0
        """Bytes that are there, of wanted files."""

        self.resumed = 0
        """Bytes that were there before."""

        self.stored_files = 0
        """Files and links that are whole."""

        self.left_out: list[str] = []
        """The paths of what will be missing in the folder, since the sender could not read it or a link leads out."""

        self._inbox = inbox
        self._entries = entries
        self._key = item_key(peer_node_id, item_id) if item_id else ""
        self._disk_size = disk_size
        self._parents = [entry.parent for entry in entries]
        names = FolderNames()
        self._names = [STAGED_NAME, *(names.claim(entry.parent, entry.name) for entry in entries[1:])]
        self._unwanted = self._choose(keep_links=keep_links, wants=wants)
        self._kept: dict[int, dict[int, hashlib._Hash]] = {}
        self._staging: Staging | None = None
        self._folders: Folders | None = None
        self._root = -1
        self._there = 0
        self._comparing: Iterator[int] = iter(())
        self._reader = RecordReader()
        self._index = -1
        self._file: _WrittenFile | None = None
        self._links: dict[int, str] = {}
        self._digests = hashlib.sha3_256()
        self._file_digest = b""
        self._published = False
        self._stored: StoredItem | None = None

    def recall(self) -> bytes:
        """Return the digest of the item if the inbox has it from an earlier offer, as it came; else nothing.

        Only where an item whose name is taken gets a number: else that option says what is to be done.
        """
        if not self._key or self._inbox.existing is not Existing.NUMBER:
            return b""
        stored = self._inbox.stored.recall(self._key)
        if stored is None or stored.listing != self._listing():
            return b""
        with contextlib.suppress(OSError):
            if stored.state == state_of(self._inbox.descriptor, stored.name, len(self._entries)):
                self._stored = stored
                self.plan = dict.fromkeys(self._unwanted, ())
                return stored.sha3_256
        return b""

    def settle(self) -> None:
        """Count the item as received that :meth:`recall` has found: the sender has the same."""
        assert self._stored is not None
        self.name = self._stored.name
        wanted = [entry.size for index, entry in enumerate(self._entries) if self._is_wanted(index)]
        self.stored_files = len(wanted)
        self.done = self.resumed = sum(wanted)
        # A receiver that was killed once the item had its name has left the staging folder.
        with (
            contextlib.suppress(TransferError),
            contextlib.closing(Staging(self._inbox, staging_name(self._key))) as staging,
        ):
            staging.remove()

    def prepare(self) -> None:
        """Check that it may come, and find what is there of it.

        Raises:
            TransferError: It may not, or the disk fails.
        """
        self._inbox.check_name(self.name)
        if not self.is_folder and 0 in self._unwanted:
            raise TransferError(TransferStatus.UNWANTED, "it is not wanted here")
        self._staging = Staging(self._inbox, staging_name(self._key) if self._key else "")
        try:
            os.utime(self._staging.descriptor)  # unfinished items are removed by their age
            self._sort_out()
            self._inbox.reserve(self._staging.name, self.size)
            self._inbox.check_room(max(self._disk_size - self._there, 0), len(self._entries))
            if self.is_folder:
                self._make_folders()
        except OSError as error:
            refuse(error, "the file cannot be created")
        self.plan = dict.fromkeys(self._unwanted, ())
        self._comparing = self._compare()

    def compare(self) -> bool:
        """Hash some of what is there, for the plan; say whether more is to be hashed.

        Raises:
            TransferError: The disk fails.
        """
        hashed = 0
        try:
            for size in self._comparing:
                hashed += size
                if hashed >= COMPARED_SIZE:
                    return True
            return False  # noqa: TRY300  the exception is that of the loop
        except OSError as error:
            refuse(error, "what is there cannot be read")

    def write(self, pieces: Iterable[Buffer]) -> None:
        """Take the next bytes of the records.

        Raises:
            TransferError: The disk is full or fails, or the bytes are not those of the sender's file.
            FrameError: The bytes are no records, or not as the plan has them.
        """
        try:
            for piece in pieces:
                for record in self._reader.feed(piece):
                    if isinstance(record, Data):
                        self._open_file().write(record.data)
                        self.done += len(record.data)
                    elif isinstance(record, ChunkEnd):
                        self._open_file().check(record.sha3_256)
                        self._end_file_if_whole()
                    elif isinstance(record, Hole):
                        self._open_file().skip(record.size)
                        self.done += record.size
                        self._open_file().check(record.sha3_256)
                        self._end_file_if_whole()
                    elif isinstance(record, FileStart):
                        self._begin_file(record)
                    else:
                        self._give_up(record)
        except OSError as error:
            refuse(error, "the file cannot be written")

    def publish(self) -> bytes:
        """Check that all has come, make it last and give it its name; return the digest of the item.

        Raises:
            TransferError: It is incomplete, or the disk fails.
        """
        assert self._staging is not None
        if self._file is not None or not self._reader.at_boundary or self._next_wanted(self._index + 1) is not None:
            raise TransferError(TransferStatus.MISMATCH, "the sender ended before all had come")
        try:
            if self.is_folder:
                self._make_links()
                self._finish_folders()
                # One call for all files: one for each would take longer than they themselves.
                os.sync()
            digest = self._digests.digest() if self.is_folder else self._file_digest
            self.name = self._inbox.publish(
                self._staging, self.name, is_folder=self.is_folder, about_to=self._rememberer(digest)
            )
            self._published = True
            self._inbox.count_stored(self._staging.name, self.size)
            os.fsync(self._inbox.descriptor)
        except OSError as error:
            refuse(error, "the file cannot be stored")
        return digest

    def close(self, *, keep: bool) -> None:
        """Let go of it; calling it twice, or without :meth:`prepare`, is allowed.

        Args:
            keep: Whether what has come is kept, so that the sender can go on with it another time.
        """
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._folders is not None:
            self._folders.close()
            self._folders = None
        if self._root >= 0:
            os.close(self._root)
            self._root = -1
        if self._staging is not None:
            staging, self._staging = self._staging, None
            kept = keep and bool(self._key) and self.done + self._there > 0 and not self._published
            if not kept:
                staging.remove()
            staging.close()
            if kept:
                self._inbox.keep_unfinished()

    # What was stored

    def _listing(self) -> bytes:
        """Return what is offered and wanted, as the memory of it has it."""
        unwanted = encode_plan(dict.fromkeys(self._unwanted, ()))
        return hashlib.sha3_256(encode_manifest(self._entries) + unwanted).digest()

    def _rememberer(self, digest: bytes) -> Callable[[str], None]:
        """Return what remembers the item under the name that it is told."""
        if not self._key or self.left_out:
            return lambda _: None
        assert self._staging is not None
        listing = self._listing()
        state = state_of(self._staging.descriptor, STAGED_NAME, len(self._entries))
        return lambda name: self._inbox.stored.remember(
            self._key, StoredItem(listing=listing, state=state, sha3_256=digest, name=name)
        )

    # What is there

    def _choose(self, *, keep_links: bool, wants: Callable[[str], bool] | None) -> set[int]:
        """Return the indexes of the files and links that are not wanted."""
        unwanted = set()
        for index, entry in enumerate(self._entries):
            if entry.kind is EntryKind.FOLDER:
                continue
            if (entry.kind is EntryKind.LINK and not keep_links) or (wants and not wants(self._path_of(index))):
                unwanted.add(index)
        return unwanted

    def _sort_out(self) -> None:
        """Keep what can be gone on with, and remove the rest."""
        assert self._staging is not None
        indexes: dict[int, dict[str, int]] = {}
        for index, entry in enumerate(self._entries[1:], 1):
            indexes.setdefault(entry.parent, {})[self._names[index]] = index
        self._sort_out_one(self._staging.descriptor, 0)
        waiting = [0] if self._is_there(0) else []
        if waiting and self.is_folder:
            self._open_root()
        while waiting and self._folders is not None:
            folder = waiting.pop()
            descriptor = self._folders.open(folder)
            inner = indexes.get(folder, {})
            for name in os.listdir(descriptor):  # noqa: PTH208  a descriptor, not a path
                index = inner.get(name, -1)
                if index < 0:
                    _remove(descriptor, name)
                    continue
                self._sort_out_one(descriptor, index)
                if self._entries[index].kind is EntryKind.FOLDER and self._is_there(index):
                    waiting.append(index)

    def _sort_out_one(self, folder: int, index: int) -> None:
        entry, name = self._entries[index], self._names[index]
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return
        if entry.kind is EntryKind.FOLDER and stat.S_ISDIR(status.st_mode):
            self._kept[index] = {}
        elif entry.kind is EntryKind.FILE and stat.S_ISREG(status.st_mode) and index not in self._unwanted:
            self._kept[index] = {}
            self._there += min(status.st_size, status.st_blocks * 512)
        else:
            _remove(folder, name)

    def _is_there(self, index: int) -> bool:
        return index in self._kept

    def _compare(self) -> Iterator[int]:
        """Hash the files that are there; yield the bytes of each step."""
        for index in sorted(self._kept):
            entry = self._entries[index]
            if entry.kind is not EntryKind.FILE:
                continue
            folder, name = self._place(index)
            descriptor = os.open(name, _OPEN_AGAIN, dir_fd=folder)
            try:
                size = min(os.fstat(descriptor).st_size, entry.size)
                digest = hashlib.sha3_256()
                position = 0
                marks = []
                for offset in mark_offsets(size):
                    while position < offset:
                        data = os.pread(descriptor, min(CHUNK_SIZE, offset - position), position)
                        if not data:
                            raise OSError(errno.EIO, os.strerror(errno.EIO))
                        digest.update(data)
                        position += len(data)
                        yield len(data)
                    self._kept[index][offset] = digest.copy()
                    marks.append(Mark(offset, digest.digest()))
                if marks:
                    self.plan[index] = tuple(marks)
            finally:
                os.close(descriptor)

    # What comes

    def _begin_file(self, record: FileStart) -> None:
        if self._file is not None or record.index != self._next_wanted(self._index + 1):
            raise FrameError(f"file {record.index} comes where another was to come")
        entry = self._entries[record.index]
        digest = self._kept.pop(record.index, {}).get(record.offset) if record.offset else hashlib.sha3_256()
        if digest is None:
            raise FrameError(f"file {record.index} begins where it has no mark")
        self._index = record.index
        self.done += record.offset
        self.resumed += record.offset
        if entry.kind is EntryKind.LINK:
            self._file = _WrittenFile(-1, entry, digest, 0)
        else:
            folder, name = self._place(record.index)
            mode = entry.mode | _OWNER_FILE
            try:
                descriptor = os.open(name, CREATE_FILE, mode, dir_fd=folder)
            except FileExistsError:
                descriptor = os.open(name, CREATE_FILE & ~os.O_EXCL, mode, dir_fd=folder)
                os.fchmod(descriptor, mode & ~self._inbox.umask)
                os.ftruncate(descriptor, record.offset)
            os.lseek(descriptor, record.offset, os.SEEK_SET)
            self._file = _WrittenFile(descriptor, entry, digest, record.offset)
        self._end_file_if_whole()

    def _open_file(self) -> _WrittenFile:
        if self._file is None:
            raise FrameError("bytes come where a file was to begin")
        return self._file

    def _end_file_if_whole(self) -> None:
        file = self._open_file()
        entry = self._entries[self._index]
        if file.position < entry.size:
            return
        if entry.kind is EntryKind.LINK:
            self._take_link(file.target)
        else:
            self.stored_files += 1
            os.utime(file.descriptor, ns=(entry.modified_at, entry.modified_at))
            if not self.is_folder:
                os.fsync(file.descriptor)
        self._file_digest = file.digest()
        self._digests.update(self._file_digest)
        file.close()
        self._file = None

    def _take_link(self, target: bytes) -> None:
        try:
            text = target.decode()
        except UnicodeDecodeError:
            raise FrameError("a symbolic link leads to what is no UTF-8") from None
        depth = -1
        index = self._index
        while index:
            index = self._parents[index]
            depth += 1
        if is_inside(text, depth):
            self._links[self._index] = text
            self.stored_files += 1
        else:
            self.left_out.append(self._path_of(self._index))

    def _give_up(self, record: FileFailed) -> None:
        if self._file is None:
            if record.index != self._next_wanted(self._index + 1):
                raise FrameError(f"file {record.index} fails where another was to come")
            self._index = record.index
        elif record.index != self._index:
            raise FrameError(f"file {record.index} fails while {self._index} comes")
        else:
            self.done -= self._file.position
            self.resumed -= self._file.offset
            self._file.close()
            self._file = None
        if not self.is_folder:
            raise TransferError(record.status, "the file changed, or could not be read on, at the peer", by_peer=True)
        folder, name = self._place(record.index)
        _remove(folder, name)
        self.left_out.append(self._path_of(record.index))

    def _next_wanted(self, index: int) -> int | None:
        """Return the index of the next file or link that is to come, from this one on."""
        while index < len(self._entries):
            if self._is_wanted(index):
                return index
            index += 1
        return None

    def _is_wanted(self, index: int) -> bool:
        """Say whether an entry is a file or link that is to come."""
        return self._entries[index].kind is not EntryKind.FOLDER and index not in self._unwanted

    # Folders and links

    def _open_root(self) -> None:
        assert self._staging is not None
        self._root = os.open(STAGED_NAME, OPEN_FOLDER, dir_fd=self._staging.descriptor)
        self._folders = Folders(self._root, self._parents, self._names)

    def _make_folders(self) -> None:
        assert self._staging is not None
        if self._folders is None:
            os.mkdir(STAGED_NAME, _OWNER_FOLDER, dir_fd=self._staging.descriptor)
            self._open_root()
        assert self._folders is not None
        for index, entry in enumerate(self._entries[1:], 1):
            if entry.kind is EntryKind.FOLDER and not self._is_there(index):
                os.mkdir(self._names[index], _OWNER_FOLDER, dir_fd=self._folders.open(entry.parent))

    def _make_links(self) -> None:
        """Make the symbolic links, after all files: nothing can be written through one of them."""
        for index, target in self._links.items():
            folder, name = self._place(index)
            os.symlink(target, name, dir_fd=folder)

    def _finish_folders(self) -> None:
        """Give the folders their permissions and times, the inner ones first."""
        assert self._folders is not None
        for index in range(len(self._entries) - 1, -1, -1):
            entry = self._entries[index]
            if entry.kind is EntryKind.FOLDER:
                descriptor = self._folders.open(index)
                os.fchmod(descriptor, (entry.mode & ~self._inbox.umask) | _OWNER_FOLDER)
                os.utime(descriptor, ns=(entry.modified_at, entry.modified_at))

    def _place(self, index: int) -> tuple[int, str]:
        """Return the descriptor of the folder in which an entry lies, and its name there."""
        assert self._staging is not None
        if index == 0:
            return self._staging.descriptor, STAGED_NAME
        assert self._folders is not None
        return self._folders.open(self._parents[index]), self._names[index]

    def _path_of(self, index: int) -> str:
        names = []
        while index:
            names.append(self._names[index])
            index = self._parents[index]
        return "/".join((self.name, *reversed(names)))


@attrs.define
class _WrittenFile:
    """One file while it is written; without a descriptor, a symbolic link."""

    descriptor: int
    _entry: Entry
    _hash: hashlib._Hash
    offset: int
    position: int = attrs.field(init=False)
    target: bytes = b""

    def __attrs_post_init__(self) -> None:
        self.position = self.offset

    def write(self, data: memoryview) -> None:
        if self.position + len(data) > self._entry.size:
            raise FrameError("more bytes came than the manifest says")
        self._hash.update(data)
        self.position += len(data)
        if self.descriptor < 0:
            self.target += data
            return
        while data:
            data = data[os.write(self.descriptor, data) :]

    def skip(self, size: int) -> None:
        if self.descriptor < 0 or self.position + size > self._entry.size:
            raise FrameError("a hole comes where none can be")
        self.position += size
        os.ftruncate(self.descriptor, self.position)
        os.lseek(self.descriptor, self.position, os.SEEK_SET)
        while size:
            part = min(size, len(_ZEROS))
            self._hash.update(memoryview(_ZEROS)[:part])
            size -= part

    def check(self, sha3_256: bytes) -> None:
        if not hmac.compare_digest(self._hash.digest(), sha3_256):
            raise TransferError(TransferStatus.MISMATCH, "the bytes that came have another SHA3-256 than announced")

    def digest(self) -> bytes:
        return self._hash.digest()

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


def _remove(folder: int, name: str) -> None:
    """Remove a file, or a folder with all that is in it."""
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        pass
    except OSError:  # Linux says EISDIR of a folder, others EPERM
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(name, dir_fd=folder)
