"""Does a manifest survive its encoding, and is one that no honest sender makes refused?"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_core.errors import FrameError
from stt_streaming.transfer.manifest import (
    MAX_DEPTH,
    MAX_MODIFIED_AT,
    MAX_TARGET_SIZE,
    Entry,
    EntryKind,
    decode_manifest,
    encode_manifest,
)
from stt_streaming.transfer.messages import MAX_SIZE, cut

names = st.text(st.characters(codec="utf-8"), max_size=40).map(lambda text: cut(text, 512))
FOLDER = Entry(kind=EntryKind.FOLDER, name="f", mode=0o700)


@st.composite
def manifests(draw: st.DrawFn) -> list[Entry]:
    root = draw(st.sampled_from([EntryKind.FILE, EntryKind.FOLDER]))
    entries = [draw_entry(draw, root, 0)]
    folders = [0] if root is EntryKind.FOLDER else []
    for index in range(1, draw(st.integers(1, 12)) if folders else 1):
        kind = draw(st.sampled_from(EntryKind))
        entries.append(draw_entry(draw, kind, draw(st.sampled_from(folders))))
        if kind is EntryKind.FOLDER:
            folders.append(index)
    return entries


def draw_entry(draw: st.DrawFn, kind: EntryKind, parent: int) -> Entry:
    limit = {EntryKind.FILE: MAX_SIZE, EntryKind.FOLDER: 0, EntryKind.LINK: MAX_TARGET_SIZE}[kind]
    return Entry(
        kind=kind,
        name=draw(names),
        size=draw(st.integers(0, limit)),
        mode=draw(st.integers(0, 0o777)),
        modified_at=draw(st.integers(-MAX_MODIFIED_AT, MAX_MODIFIED_AT)),
        parent=parent,
    )


def decode(entries: list[Entry], **announced: int) -> list[Entry]:
    size = sum(entry.size for entry in entries)
    return decode_manifest(encode_manifest(entries), announced.get("count", len(entries)), announced.get("size", size))


@given(manifests())
def test_decoding_inverts_encoding(entries: list[Entry]) -> None:
    assert decode(entries) == entries


@given(st.binary(max_size=200), st.integers(1, 5), st.integers(0, 100))
def test_any_bytes_are_a_manifest_or_a_frame_error(data: bytes, count: int, size: int) -> None:
    try:
        entries = decode_manifest(data, count, size)
    except FrameError:
        return
    assert len(entries) == count
    assert sum(entry.size for entry in entries) == size


@given(manifests(), st.integers(0, 300), st.binary(min_size=1, max_size=1))
def test_a_changed_byte_gives_a_manifest_within_bounds_or_a_frame_error(
    entries: list[Entry], place: int, byte: bytes
) -> None:
    data = bytearray(encode_manifest(entries))
    data[place % len(data)] = byte[0]
    try:
        changed = decode_manifest(data, len(entries), sum(entry.size for entry in entries))
    except FrameError:
        return
    for index, entry in enumerate(changed):
        assert entry.parent < index or index == entry.parent == 0
        assert 0 <= entry.mode <= 0o777


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([Entry(kind=EntryKind.LINK, name="l", size=1)], "symbolic link"),
        ([Entry(kind=EntryKind.FILE, name="a", parent=1)], "lies in a folder"),
        ([FOLDER, Entry(kind=EntryKind.FILE, name="a", parent=1)], "no folder before it"),
        ([FOLDER, Entry(kind=EntryKind.FILE, name="a", parent=2)], "no folder before it"),
        ([Entry(kind=EntryKind.FILE, name="a"), Entry(kind=EntryKind.FILE, name="b")], "no folder before it"),
        ([Entry(kind=EntryKind.FOLDER, name="f", size=1)], "folder of 1 bytes"),
        ([FOLDER, Entry(kind=EntryKind.LINK, name="l", size=MAX_TARGET_SIZE + 1)], "link of 4096 bytes"),
        ([Entry(kind=EntryKind.FILE, name="x" * 513)], "name of 513 bytes"),
        ([FOLDER, *(Entry(kind=EntryKind.FOLDER, name="f", parent=n) for n in range(MAX_DEPTH + 1))], "deeper than"),
    ],
)
def test_a_manifest_against_the_rules_is_refused(entries: list[Entry], reason: str) -> None:
    with pytest.raises(FrameError, match=reason):
        decode(entries)


@pytest.mark.parametrize("announced", [{"count": 1}, {"count": 3}, {"size": 4}, {"size": 6}])
def test_a_manifest_must_be_the_one_that_was_announced(announced: Any) -> None:
    with pytest.raises(FrameError, match="announced"):
        decode([FOLDER, Entry(kind=EntryKind.FILE, name="a", size=5)], **announced)


def test_bits_that_give_rights_of_others_are_dropped_and_times_are_within_reach() -> None:
    entries = [Entry(kind=EntryKind.FILE, name="a", mode=0o6755, modified_at=(1 << 63) - 1)]

    (entry,) = decode(entries)

    assert entry.mode == 0o755
    assert entry.modified_at == MAX_MODIFIED_AT


@pytest.mark.parametrize("data", [b"\x00" * 5, bytes([7]) + bytes(25), bytes(23) + b"\x00\x02\xff\xfe"])
def test_what_is_cut_off_unknown_or_no_text_is_refused(data: bytes) -> None:
    with pytest.raises(FrameError):
        decode_manifest(data, 1, 0)
