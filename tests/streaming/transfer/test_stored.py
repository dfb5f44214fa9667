"""Does an inbox remember what it has stored, no more than is told, and whatever lies where it remembers it?"""

from __future__ import annotations

import os
import stat
import time
from typing import TYPE_CHECKING

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stt_core.errors import FrameError
from stt_streaming.transfer import stored
from stt_streaming.transfer.inbox import MAX_NUMBER
from stt_streaming.transfer.manifest import MAX_DEPTH
from stt_streaming.transfer.names import MAX_NUMBERED_SIZE, clean_name, numbered_name
from stt_streaming.transfer.stored import (
    MAX_STORED,
    STORED_FOLDER,
    STORED_LIFETIME,
    StoredItem,
    StoredItems,
    item_key,
    state_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ITEM = StoredItem(listing=b"l" * 32, state=b"s" * 32, sha3_256=b"d" * 32, name="a b (1).txt")
KEY = item_key(b"p" * 32, b"i" * 16)
DIGESTS = st.binary(min_size=32, max_size=32)


@attrs.define
class Memory:
    """An inbox, and the memory of it."""

    path: Path
    descriptor: int

    @property
    def items(self) -> StoredItems:
        """Another one each time, as after a restart."""
        return StoredItems(self.descriptor)

    @property
    def folder(self) -> Path:
        return self.path / STORED_FOLDER


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Memory]:
    path = tmp_path / "inbox"
    path.mkdir()
    descriptor = os.open(path, os.O_RDONLY)
    yield Memory(path, descriptor)
    os.close(descriptor)


# The file of an item


@given(listing=DIGESTS, state=DIGESTS, sha3_256=DIGESTS, name=st.text().map(clean_name))
def test_an_item_is_the_same_after_encoding(listing: bytes, state: bytes, sha3_256: bytes, name: str) -> None:
    item = StoredItem(listing=listing, state=state, sha3_256=sha3_256, name=name)

    assert StoredItem.decode(item.encode()) == item


@given(st.binary(max_size=200) | st.builds(bytes.__add__, st.just(bytes(96)), st.binary(max_size=20)))
def test_any_bytes_are_an_item_with_a_harmless_name_or_an_error(data: bytes) -> None:
    try:
        item = StoredItem.decode(data)
    except FrameError:
        return
    assert item.name == clean_name(item.name, max_size=MAX_NUMBERED_SIZE)
    assert item.encode() == data


@given(name=st.text(max_size=300).map(clean_name) | st.integers(150, 300).map("x".__mul__).map(clean_name))
def test_an_item_whose_name_got_a_number_is_remembered(name: str) -> None:
    item = attrs.evolve(ITEM, name=numbered_name(name, MAX_NUMBER))

    assert StoredItem.decode(item.encode()) == item


@pytest.mark.parametrize("name", ["", ".", "..", "../a", "a/b", ".stt-stored", "-rf", "a\0b", "x" * 300])
def test_a_remembered_name_leads_nowhere_else(name: str) -> None:
    data = attrs.evolve(ITEM, name="").encode() + name.encode()

    with pytest.raises(FrameError):
        StoredItem.decode(data)


# What is remembered


def test_an_item_is_remembered_after_a_restart_and_only_its_owner_can_look(memory: Memory) -> None:
    memory.items.remember(KEY, attrs.evolve(ITEM, name="older"))
    memory.items.remember(KEY, ITEM)

    assert memory.items.recall(KEY) == ITEM
    assert memory.items.recall(item_key(b"q" * 32, b"i" * 16)) is None
    assert [path.name for path in memory.folder.iterdir()] == [KEY]
    assert stat.S_IMODE(memory.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((memory.folder / KEY).stat().st_mode) == 0o600


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=1000))
def test_any_bytes_in_the_file_are_no_crash_and_the_next_item_is_remembered(memory: Memory, data: bytes) -> None:
    memory.items.remember(KEY, ITEM)
    (memory.folder / KEY).write_bytes(data)

    recalled = memory.items.recall(KEY)
    assert recalled is None or recalled.encode() == data
    memory.items.forget_old()
    memory.items.remember(KEY, ITEM)

    assert memory.items.recall(KEY) == ITEM


def test_what_a_kill_has_left_half_written_is_written_over(memory: Memory) -> None:
    memory.items.remember(KEY, ITEM)
    (memory.folder / f"{KEY}.new").write_bytes(ITEM.encode()[:50])

    assert memory.items.recall(KEY) == ITEM
    memory.items.remember(KEY, attrs.evolve(ITEM, name="b"))

    assert memory.items.recall(KEY) == attrs.evolve(ITEM, name="b")
    assert [path.name for path in memory.folder.iterdir()] == [KEY]


@pytest.mark.parametrize("kind", ["file", "link", "pipe", "folder of a folder"])
def test_something_else_in_its_place_is_neither_followed_nor_fatal(memory: Memory, tmp_path: Path, kind: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    if kind == "file":
        memory.folder.write_bytes(b"")
    elif kind == "link":
        memory.folder.symlink_to(outside)
    else:
        memory.folder.mkdir()
        if kind == "pipe":
            os.mkfifo(memory.folder / KEY)
        else:
            (memory.folder / KEY / "inner").mkdir(parents=True)

    assert memory.items.recall(KEY) is None
    memory.items.remember(KEY, ITEM)
    memory.items.forget_old()

    assert list(outside.iterdir()) == []


def test_a_memory_of_somebody_else_is_not_used(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.items.remember(KEY, ITEM)
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)

    assert memory.items.recall(KEY) is None
    memory.items.remember(KEY, attrs.evolve(ITEM, name="b"))

    monkeypatch.undo()
    assert memory.items.recall(KEY) == ITEM


# How much, and how long


def test_of_too_many_items_the_oldest_are_forgotten(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "MAX_STORED", 8)
    assert MAX_STORED > 8
    keys = [item_key(b"", bytes([number])) for number in range(9)]
    for age, key in enumerate(reversed(keys[:8]), 1):
        memory.items.remember(key, ITEM)
        os.utime(memory.folder / key, (time.time() - age, time.time() - age))

    memory.items.remember(keys[8], ITEM)

    assert [memory.items.recall(key) is not None for key in keys] == [False] * 2 + [True] * 7
    assert len(list(memory.folder.iterdir())) == 7


def test_old_items_are_forgotten_and_with_the_last_the_folder_goes(memory: Memory) -> None:
    other = item_key(b"", b"other")
    for key in (KEY, other):
        memory.items.remember(key, ITEM)
    then = time.time() - STORED_LIFETIME - 1
    os.utime(memory.folder / KEY, (then, then))

    assert memory.items.recall(KEY) is None
    memory.items.forget_old()
    assert [path.name for path in memory.folder.iterdir()] == [other]

    os.utime(memory.folder / other, (then, then))
    memory.items.forget_old()
    memory.items.forget_old()
    assert list(memory.path.iterdir()) == []


# How an item lies on the disk


def make_tree(root: Path) -> Path:
    (root / "sub" / "empty").mkdir(parents=True)
    (root / "a").write_bytes(b"one")
    (root / "sub" / "b").write_bytes(b"two")
    for path in (root / "a", root / "sub" / "b"):
        os.utime(path, ns=(10**18, 10**18))  # as what was received has the time of its sender
    (root / "link").symlink_to("a")
    (root / "to folder").symlink_to("sub")
    return root


def state(path: Path, limit: int = 100) -> bytes:
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        return state_of(folder, path.name, limit)
    finally:
        os.close(folder)


def test_the_state_is_the_same_under_another_name_and_whatever_permissions(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    before = state(tree)

    (tree / "a").chmod(0o640)
    tree.rename(tmp_path / "another name")

    assert len(before) == 32
    assert state(tmp_path / "another name") == before


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: (tree / "a").write_bytes(b"ONE"),
        lambda tree: (tree / "sub" / "b").write_bytes(b"longer"),
        lambda tree: os.utime(tree / "sub" / "b", ns=(10**18, 10**18 + 10**9)),
        lambda tree: (tree / "sub" / "b").unlink(),
        lambda tree: (tree / "sub" / "b").rename(tree / "sub" / "c"),
        lambda tree: (tree / "sub" / "b").rename(tree / "b"),
        lambda tree: (tree / "sub" / "empty").rmdir(),
        lambda tree: (tree / "sub" / "new").mkdir(),
        lambda tree: (tree / "new").symlink_to("a"),
        lambda tree: ((tree / "link").unlink(), (tree / "link").symlink_to("b")),
        lambda tree: ((tree / "link").unlink(), (tree / "link").mkdir()),
    ],
)
def test_any_change_in_a_folder_changes_its_state(tmp_path: Path, change: object) -> None:
    tree = make_tree(tmp_path / "tree")
    before = state(tree)

    assert callable(change)
    change(tree)

    assert state(tree) != before


def test_a_state_follows_no_link_and_reads_no_pipe(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    before = state(tree)
    (tmp_path / "link").symlink_to(tree)
    os.mkfifo(tmp_path / "pipe")

    assert len({before, state(tmp_path / "link"), state(tmp_path / "pipe")}) == 3


def test_more_than_was_stored_is_not_looked_through(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    deep = tmp_path / "deep"
    deep.joinpath(*["d"] * (MAX_DEPTH + 2)).mkdir(parents=True)

    assert state(tree, limit=7) != b""
    assert state(tree, limit=6) == b""
    assert state(deep) == b""


def test_what_is_missing_has_no_state(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        state(tmp_path / "missing")
