"""The plan of a transfer as bytes and values: what the receiver does not want, and what it has already.

What it has of a file is told by marks: a number of bytes from the beginning, and the SHA3-256 of these. The sender goes
on from the last mark at which its own file has the same digest. So nothing has to be trusted that an interruption left
behind, on either side.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import attrs

from stt_core.errors import FrameError
from stt_streaming.transfer.manifest import EntryKind
from stt_streaming.transfer.messages import DIGEST_SIZE, MAX_PLAN_SIZE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stt_core.interfaces import Buffer
    from stt_streaming.transfer.manifest import Entry

MAX_MARKS: Final = 64
"""Marks of one file."""

MARK_INTERVAL: Final = 1024 * 1024
"""Bytes from one mark to the next, or more if the file would have too many."""

_FILE: Final = struct.Struct(">IB")
_MARK: Final = struct.Struct(f">Q{DIGEST_SIZE}s")


@attrs.frozen
class Mark:
    """The beginning of a file, as the receiver has it."""

    offset: int
    """Bytes of the beginning."""

    sha3_256: bytes


Plan = dict[int, tuple[Mark, ...]]
"""By the indexes of entries: the marks of a file, in order; none if the entry is not wanted. Of all that is not named,
everything is wanted."""


def mark_offsets(size: int) -> list[int]:
    """Return where the marks of a file go of which ``size`` bytes are there."""
    interval = max(MARK_INTERVAL, -(-size // MAX_MARKS))
    return [*range(interval, size, interval), size] if size else []


def encode_plan(plan: Mapping[int, Sequence[Mark]]) -> bytes:
    """Return the bytes of a plan; marks for which there is no room are left out, and cost the sender some bytes."""
    parts: list[bytes] = []
    room = MAX_PLAN_SIZE - len(plan) * _FILE.size
    for index in sorted(plan):
        marks = plan[index]
        if marks and room < len(marks) * _MARK.size:
            continue
        room -= len(marks) * _MARK.size
        parts.append(_FILE.pack(index, len(marks)))
        parts.extend(_MARK.pack(mark.offset, mark.sha3_256) for mark in marks)
    return b"".join(parts)


def decode_plan(data: Buffer, entries: Sequence[Entry]) -> Plan:
    """Return the plan for the entries of a manifest.

    Raises:
        FrameError: The bytes are no plan for these.
    """
    view = memoryview(data)
    plan: Plan = {}
    previous = -1
    while view:
        if len(view) < _FILE.size:
            raise FrameError("a plan ends in the middle of a file")
        index, count = _FILE.unpack_from(view)
        marks, view = view[_FILE.size : _FILE.size + count * _MARK.size], view[_FILE.size + count * _MARK.size :]
        if not previous < index < len(entries) or count > MAX_MARKS or len(marks) < count * _MARK.size:
            raise FrameError(f"a plan has an impossible entry for file {index}")
        if count and entries[index].kind is not EntryKind.FILE:
            raise FrameError(f"a plan has marks for entry {index}, which is no file")
        plan[index] = tuple(Mark(*fields) for fields in _MARK.iter_unpack(marks))
        offsets = [0, *(mark.offset for mark in plan[index])]
        if offsets != sorted(set(offsets)) or offsets[-1] > entries[index].size:
            raise FrameError(f"a plan has impossible marks for file {index}")
        previous = index
    return plan
