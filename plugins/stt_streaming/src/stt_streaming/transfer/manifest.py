"""The manifest of an item as bytes and values: what a file or a folder with all that is in it consists of.

An entry names its folder by its index and itself by one name, so that no path has to be taken apart, and none can lead
elsewhere.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import TYPE_CHECKING, Final

import attrs

from stt_core.errors import FrameError
from stt_streaming.transfer.messages import MAX_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stt_core.interfaces import Buffer

MAX_NAME_SIZE: Final = 512
"""Bytes of UTF-8 of the longest name that can be offered; the receiver shortens it further."""

MAX_TARGET_SIZE: Final = 4095
"""Bytes of UTF-8 of where a symbolic link may point: the limit of Linux."""

MAX_DEPTH: Final = 64
"""Folders that may lie in each other."""

MAX_MODIFIED_AT: Final = 1 << 62
"""Nanoseconds from 1970, both ways, to the farthest time of change: some 146 years."""

_ENTRY: Final = struct.Struct(">BHIQqH")
_PERMISSIONS: Final = 0o777


class EntryKind(IntEnum):
    """What an entry of a manifest is."""

    FILE = 0  #: a regular file
    FOLDER = 1  #: a folder
    LINK = 2  #: a symbolic link; its bytes are those of where it points, in UTF-8


@attrs.frozen(kw_only=True)
class Entry:
    """A file, folder or symbolic link."""

    kind: EntryKind
    name: str
    """As the sender calls it; hostile until cleaned."""

    size: int = 0
    """Bytes of a file or of where a link points; 0 for a folder."""

    mode: int = 0o600
    """The permissions, without the bits that give another user's rights."""

    modified_at: int = 0
    """When it was changed last: nanoseconds since 1970."""

    parent: int = 0
    """The index of its folder; for the first entry, which is the item itself, 0."""


def encode_manifest(entries: Sequence[Entry]) -> bytes:
    """Return the bytes of a manifest."""
    parts = []
    for entry in entries:
        name = entry.name.encode()
        parts.append(_ENTRY.pack(entry.kind, entry.mode, entry.parent, entry.size, entry.modified_at, len(name)))
        parts.append(name)
    return b"".join(parts)


def decode_manifest(data: Buffer, count: int, size: int) -> list[Entry]:
    """Return the entries of a manifest.

    Args:
        data: The bytes of the manifest.
        count: Entries that were announced.
        size: Bytes of all files that were announced.

    Raises:
        FrameError: The bytes are no manifest, or not the one that was announced.
    """
    view = memoryview(data)
    entries: list[Entry] = []
    depths: list[int] = []
    while view:
        if len(view) < _ENTRY.size:
            raise FrameError("a manifest ends in the middle of an entry")
        kind, mode, parent, entry_size, modified_at, name_size = _ENTRY.unpack_from(view)
        if name_size > MAX_NAME_SIZE or len(view) < _ENTRY.size + name_size:
            raise FrameError(f"a manifest has a name of {name_size} bytes")
        depths.append(_depth(len(entries), parent, entries, depths))
        entries.append(
            Entry(
                kind=_checked_kind(kind, entry_size, is_root=not entries),
                name=_decoded(view[_ENTRY.size : _ENTRY.size + name_size]),
                size=entry_size,
                mode=mode & _PERMISSIONS,
                modified_at=max(-MAX_MODIFIED_AT, min(modified_at, MAX_MODIFIED_AT)),
                parent=parent,
            )
        )
        if len(entries) > count:
            break
        view = view[_ENTRY.size + name_size :]
    if len(entries) != count:
        raise FrameError(f"a manifest has not the {count} entries that were announced")
    if sum(entry.size for entry in entries) != size:
        raise FrameError(f"a manifest has not the {size} bytes that were announced")
    return entries


def _depth(index: int, parent: int, entries: Sequence[Entry], depths: Sequence[int]) -> int:
    if index == 0:
        if parent:
            raise FrameError("the first entry of a manifest lies in a folder")
        return 0
    if parent >= index or entries[parent].kind is not EntryKind.FOLDER:
        raise FrameError(f"entry {index} of a manifest lies in {parent}, which is no folder before it")
    if depths[parent] >= MAX_DEPTH:
        raise FrameError(f"entry {index} of a manifest lies deeper than {MAX_DEPTH} folders")
    return depths[parent] + 1


def _checked_kind(number: int, size: int, *, is_root: bool) -> EntryKind:
    try:
        kind = EntryKind(number)
    except ValueError:
        raise FrameError(f"a manifest has an entry of the unknown kind {number}") from None
    if is_root and kind is EntryKind.LINK:
        raise FrameError("an item is a symbolic link")
    limit = {EntryKind.FILE: MAX_SIZE, EntryKind.FOLDER: 0, EntryKind.LINK: MAX_TARGET_SIZE}[kind]
    if size > limit:
        raise FrameError(f"a manifest has a {kind.name.lower()} of {size} bytes")
    return kind


def _decoded(name: memoryview) -> str:
    try:
        return bytes(name).decode()
    except UnicodeDecodeError:
        raise FrameError("a manifest has a name that is no UTF-8") from None
