"""The records that carry the bytes of files: many small files back to back, large ones in chunks, holes as numbers.

The digest behind each chunk and each hole is the SHA3-256 of the file from its beginning to there: a fault shows at
once, and the last digest is that of the file.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import attrs

from stt_core.errors import FrameError
from stt_streaming.transfer.messages import DIGEST_SIZE, TransferStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stt_core.interfaces import Buffer

CHUNK_SIZE: Final = 1024 * 1024
"""Bytes of the longest chunk."""

MAX_HOLE_SIZE: Final = 64 * 1024 * 1024
"""Bytes of the longest hole: its zeros are hashed, which takes some 0.15 s."""

_FILE, _CHUNK, _HOLE, _FAILED = 1, 2, 3, 4
_FILE_BODY: Final = struct.Struct(">BIQ")
_CHUNK_HEAD: Final = struct.Struct(">BI")
_HOLE_BODY: Final = struct.Struct(f">BI{DIGEST_SIZE}s")
_FAILED_BODY: Final = struct.Struct(">BIH")
_SIZES: Final = {
    _FILE: _FILE_BODY.size,
    _CHUNK: _CHUNK_HEAD.size,
    _HOLE: _HOLE_BODY.size,
    _FAILED: _FAILED_BODY.size,
}


@attrs.frozen
class FileStart:
    """What follows belongs to this file, from this byte on; the file ends when it has all its bytes."""

    index: int
    offset: int


@attrs.frozen
class Data:
    """A part of a chunk."""

    data: memoryview


@attrs.frozen
class ChunkEnd:
    """All of a chunk has come; the file so far has this digest."""

    sha3_256: bytes


@attrs.frozen
class Hole:
    """So many zeros, which take no room on the disk; the file then has this digest."""

    size: int
    sha3_256: bytes


@attrs.frozen
class FileFailed:
    """The sender cannot send this file, or not the rest of it."""

    index: int
    status: TransferStatus


Record = FileStart | Data | ChunkEnd | Hole | FileFailed


def encode_file_start(index: int, offset: int) -> bytes:
    """Return the record that begins a file."""
    return _FILE_BODY.pack(_FILE, index, offset)


def encode_chunk_head(size: int) -> bytes:
    """Return what stands before the bytes of a chunk; behind them comes the digest."""
    return _CHUNK_HEAD.pack(_CHUNK, size)


def encode_hole(size: int, sha3_256: bytes) -> bytes:
    """Return the record of a hole."""
    return _HOLE_BODY.pack(_HOLE, size, sha3_256)


def encode_file_failed(index: int, status: TransferStatus) -> bytes:
    """Return the record that gives a file up."""
    return _FAILED_BODY.pack(_FAILED, index, status)


class RecordReader:
    """Takes a stream of records apart, however it is cut into pieces, without copying the bytes of files."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._head_size = 1
        self._data_left = 0
        self._in_chunk = False

    @property
    def at_boundary(self) -> bool:
        """Whether no record is incomplete."""
        return not self._head and not self._in_chunk

    def feed(self, piece: Buffer) -> Iterator[Record]:
        """Yield what the next bytes complete; a :class:`Data` must be used before the next step.

        Raises:
            FrameError: The bytes are no records.
        """
        view = memoryview(piece)
        while view:
            if self._data_left:
                data = view[: self._data_left]
                view = view[len(data) :]
                self._data_left -= len(data)
                yield Data(data)
                continue
            missing = self._head_size - len(self._head)
            self._head += view[:missing]
            view = view[missing:]
            if len(self._head) == self._head_size:
                record = self._take_head()
                if record is not None:
                    yield record

    def _take_head(self) -> Record | None:
        head = bytes(self._head)
        if self._in_chunk:
            self._in_chunk = False
            return self._next(ChunkEnd(head))
        if len(head) == 1:
            if head[0] not in _SIZES:
                raise FrameError(f"a record of the unknown type {head[0]}")
            self._head_size = _SIZES[head[0]]
            return None
        if head[0] == _CHUNK:
            _, self._data_left = _CHUNK_HEAD.unpack(head)
            if not 0 < self._data_left <= CHUNK_SIZE:
                raise FrameError(f"a chunk of {self._data_left} bytes")
            self._in_chunk = True
            self._head.clear()
            self._head_size = DIGEST_SIZE
            return None
        if head[0] == _FILE:
            return self._next(FileStart(*_FILE_BODY.unpack(head)[1:]))
        if head[0] == _HOLE:
            _, size, digest = _HOLE_BODY.unpack(head)
            if not 0 < size <= MAX_HOLE_SIZE:
                raise FrameError(f"a hole of {size} bytes")
            return self._next(Hole(size, digest))
        _, index, status = _FAILED_BODY.unpack(head)
        try:
            return self._next(FileFailed(index, TransferStatus(status)))
        except ValueError:
            raise FrameError(f"a file failed with the unknown status {status}") from None

    def _next(self, record: Record) -> Record:
        self._head.clear()
        self._head_size = 1
        return record
