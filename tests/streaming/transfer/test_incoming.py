"""Is what is received there whole or not at all, is what was there kept, and is the rest gone on with?"""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import stat
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stt_core.errors import FrameError
from stt_streaming.transfer.errors import TransferError
from stt_streaming.transfer.inbox import MAX_NUMBER, MAX_UNFINISHED, UNFINISHED_LIFETIME, Existing, Inbox
from stt_streaming.transfer.incoming import IncomingItem
from stt_streaming.transfer.manifest import Entry, EntryKind
from stt_streaming.transfer.messages import TransferStatus
from stt_streaming.transfer.plan import mark_offsets
from stt_streaming.transfer.records import (
    CHUNK_SIZE,
    encode_chunk_head,
    encode_file_failed,
    encode_file_start,
    encode_hole,
)
from stt_streaming.transfer.stored import STORED_FOLDER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PEER = b"p" * 32
ITEM_ID = b"i" * 16
FOLDER = Entry(kind=EntryKind.FOLDER, name="tree", mode=0o755, modified_at=10**18)


def sha3(data: bytes) -> bytes:
    return hashlib.sha3_256(data).digest()


def file(name: str, data: bytes | int, parent: int = 0, mode: int = 0o644) -> Entry:
    size = data if isinstance(data, int) else len(data)
    return Entry(kind=EntryKind.FILE, name=name, size=size, parent=parent, mode=mode, modified_at=10**18)


def folder(name: str, parent: int = 0) -> Entry:
    return Entry(kind=EntryKind.FOLDER, name=name, parent=parent, mode=0o755)


def link(name: str, target: bytes, parent: int = 0) -> Entry:
    return Entry(kind=EntryKind.LINK, name=name, size=len(target), parent=parent)


def records(index: int, data: bytes, offset: int = 0) -> bytes:
    """Return the records of one file in chunks of at most 1 MiB."""
    stream = encode_file_start(index, offset)
    for start in range(offset, len(data), CHUNK_SIZE):
        chunk = data[start : start + CHUNK_SIZE]
        stream += encode_chunk_head(len(chunk)) + chunk + sha3(data[: start + len(chunk)])
    return stream


@attrs.define
class Box:
    """An inbox, and what comes into it."""

    path: Path
    inbox: Inbox

    def item(
        self, *entries: Entry, peer_node_id: bytes = PEER, item_id: bytes = ITEM_ID, **options: Any
    ) -> IncomingItem:
        options = {"disk_size": 0} | options
        return IncomingItem(self.inbox, list(entries), peer_node_id=peer_node_id, item_id=item_id, **options)

    def begin(self, *entries: Entry, **options: Any) -> IncomingItem:
        item = self.item(*entries, **options)
        try:
            item.prepare()
            while item.compare():
                pass
        except BaseException:
            item.close(keep=False)
            raise
        return item

    def store(self, *entries: Entry, contents: dict[int, bytes], **options: Any) -> IncomingItem:
        item = self.begin(*entries, **options)
        try:
            item.write([records(index, data) for index, data in contents.items()])
            item.publish()
        finally:
            item.close(keep=False)
        return item

    def store_file(self, name: str, data: bytes, **options: Any) -> str:
        return self.store(file(name, data), contents={0: data}, **options).name

    @property
    def names(self) -> list[str]:
        """What is in it, besides the memory of what was stored."""
        return sorted(path.name for path in self.path.iterdir() if path.name != STORED_FOLDER)


@pytest.fixture
def open_box(tmp_path: Path) -> Iterator[Callable[..., Box]]:
    path = tmp_path / "inbox"
    path.mkdir()
    boxes: list[Box] = []

    def make(**options: Any) -> Box:
        boxes.append(Box(path, Inbox(path, **options)))
        return boxes[-1]

    yield make
    for box in boxes:
        box.inbox.close()


@pytest.fixture
def box(open_box: Callable[..., Box]) -> Box:
    return open_box()


# What arrives


@pytest.mark.parametrize("size", [0, 1, 3 * CHUNK_SIZE + 7])
def test_a_file_is_stored_under_its_name_with_mode_and_time(box: Box, size: int) -> None:
    data = os.urandom(size)
    item = box.begin(file("a b.txt", data, mode=0o755))

    item.write([records(0, data)])
    assert item.publish() == sha3(data)
    item.close(keep=True)

    assert box.names == [item.name] == ["a b.txt"]
    status = (box.path / "a b.txt").stat()
    assert (box.path / "a b.txt").read_bytes() == data
    assert stat.S_IMODE(status.st_mode) == 0o755 & ~box.inbox.umask
    assert status.st_mtime_ns == 10**18
    assert (item.done, item.stored_files, item.is_folder) == (size, 1, False)


def test_a_folder_is_stored_with_all_that_is_in_it(box: Box) -> None:
    entries = [FOLDER, file("a.txt", b"one", mode=0o444), folder(".git"), file("b", b"", 2), folder("empty", 2)]
    item = box.begin(*entries)

    item.write([records(1, b"one"), records(3, b"")])
    digest = item.publish()
    item.close(keep=False)

    assert box.names == ["tree"]
    tree = box.path / "tree"
    assert sorted(str(path.relative_to(tree)) for path in tree.rglob("*")) == [".git", ".git/b", ".git/empty", "a.txt"]
    assert (tree / "a.txt").read_bytes() == b"one"
    assert stat.S_IMODE((tree / "a.txt").stat().st_mode) == 0o644 & ~box.inbox.umask  # its owner may always write
    assert tree.stat().st_mtime_ns == 10**18
    assert digest == sha3(sha3(b"one") + sha3(b""))
    assert item.stored_files == 2


def test_nothing_shows_before_all_is_there_and_only_the_owner_can_look(box: Box) -> None:
    item = box.begin(FOLDER, file("a", b"one"), file("b", b"two"))

    item.write([records(1, b"one")])

    [name] = box.names
    assert name.startswith(".stt-")
    assert stat.S_IMODE((box.path / name).stat().st_mode) == 0o700
    with pytest.raises(TransferError, match="before all had come") as caught:
        item.publish()
    assert caught.value.status is TransferStatus.MISMATCH
    item.close(keep=False)
    item.close(keep=False)
    assert box.names == []


def test_holes_take_no_room(box: Box) -> None:
    size = 40 * 1024 * 1024
    data = bytes(size) + b"end"
    item = box.begin(file("sparse", data))

    item.write([encode_file_start(0, 0), encode_hole(size, sha3(bytes(size)))])
    item.write([encode_chunk_head(3), b"end", sha3(data)])
    item.publish()
    item.close(keep=False)

    assert (box.path / "sparse").read_bytes() == data
    assert (box.path / "sparse").stat().st_blocks * 512 < size // 4


def test_names_that_would_be_one_on_some_systems_are_told_apart(box: Box) -> None:
    names = ["a.txt", "A.txt", "../a.txt", "CON", "x" * 300]
    entries = [FOLDER, *(file(name, b"x") for name in names)]

    box.store(*entries, contents=dict.fromkeys(range(1, 6), b"x"))

    found = sorted(path.name for path in (box.path / "tree").iterdir())
    assert found == sorted(["a.txt", "A (1).txt", "a (2).txt", "_CON", "x" * 200])


# What was there


def test_an_existing_file_is_kept_and_the_new_one_numbered(box: Box) -> None:
    (box.path / "a.txt").write_text("old")

    assert box.store_file("a.txt", b"new") == "a (1).txt"
    assert box.store_file("a.txt", b"newer") == "a (2).txt"
    assert (box.path / "a.txt").read_text() == "old"


@pytest.mark.parametrize("make", ["mkdir", "dangling link", "link to a folder", "pipe"])
@pytest.mark.parametrize("kind", [EntryKind.FILE, EntryKind.FOLDER])
def test_whatever_takes_the_name_is_kept(box: Box, tmp_path: Path, make: str, kind: EntryKind) -> None:
    taken = box.path / "tree"
    if make == "mkdir":
        taken.mkdir()
    elif make == "pipe":
        os.mkfifo(taken)
    else:
        taken.symlink_to(tmp_path if make == "link to a folder" else tmp_path / "missing")
    before = taken.lstat()

    if kind is EntryKind.FILE:
        assert box.store_file("tree", b"new") == "tree (1)"
    else:
        assert box.store(FOLDER, file("a", b"x"), contents={1: b"x"}).name == "tree (1)"

    assert (taken.lstat().st_mode, taken.lstat().st_ino) == (before.st_mode, before.st_ino)


def test_at_some_point_a_name_is_taken_for_good(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stt_streaming.transfer.inbox.MAX_NUMBER", 2)
    assert MAX_NUMBER > 2

    for _ in range(3):
        box.store_file("a", b"")
    with pytest.raises(TransferError, match="files of that name"):
        box.store_file("a", b"")

    assert box.names == ["a", "a (1)", "a (2)"]


def test_what_exists_can_be_refused_before_it_comes(open_box: Callable[..., Box]) -> None:
    box = open_box(existing=Existing.SKIP)
    assert box.store_file("a", b"one") == "a"

    with pytest.raises(TransferError) as caught:
        box.begin(file("a", b"two"))

    assert caught.value.status is TransferStatus.EXISTS
    assert (box.path / "a").read_bytes() == b"one"
    assert box.names == ["a"]


def test_what_appears_while_the_item_comes_is_refused_then(open_box: Callable[..., Box]) -> None:
    box = open_box(existing=Existing.SKIP)
    item = box.begin(file("a", b"new"))
    item.write([records(0, b"new")])
    (box.path / "a").write_text("quicker")

    with pytest.raises(TransferError) as caught:
        item.publish()
    item.close(keep=False)

    assert caught.value.status is TransferStatus.EXISTS
    assert (box.path / "a").read_text() == "quicker"


@pytest.mark.parametrize("before", ["nothing", "file", "folder", "link"])
@pytest.mark.parametrize("kind", [EntryKind.FILE, EntryKind.FOLDER])
def test_what_exists_can_be_replaced(
    open_box: Callable[..., Box], tmp_path: Path, before: str, kind: EntryKind
) -> None:
    box = open_box(existing=Existing.REPLACE)
    place = box.path / "tree"
    (tmp_path / "outside").write_text("outside")
    if before == "file":
        place.write_text("old")
    elif before == "folder":
        (place / "sub").mkdir(parents=True)
        (place / "sub" / "old").write_text("old")
    elif before == "link":
        place.symlink_to(tmp_path / "outside")

    if kind is EntryKind.FILE:
        box.store_file("tree", b"new")
        assert place.read_bytes() == b"new"
        assert not place.is_symlink()
    else:
        box.store(FOLDER, file("a", b"new"), contents={1: b"new"})
        assert [path.name for path in place.iterdir()] == ["a"]

    assert box.names == ["tree"]
    assert (tmp_path / "outside").read_text() == "outside"


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP])
def test_without_hard_links_the_name_is_reserved_first(box: Box, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    (box.path / "a").write_text("old")

    assert box.store_file("a", b"new") == "a (1)"
    assert (box.path / "a (1)").read_bytes() == b"new"
    assert (box.path / "a").read_text() == "old"
    assert box.names == ["a", "a (1)"]


# Going on


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.integers(1, 3 * CHUNK_SIZE),
    stops=st.lists(st.floats(0.0, 1.0), max_size=4).map(sorted),
    damage=st.one_of(st.none(), st.floats(0.0, 0.999)),
)
def test_an_interrupted_file_is_gone_on_with_from_what_is_on_the_disk(
    open_box: Callable[..., Box], size: int, stops: list[float], damage: float | None
) -> None:
    box = open_box()
    data = os.urandom(64) * (size // 64 + 1)
    data = data[:size]
    for stop in stops:
        item = box.begin(file("a", data))
        offset = agreed(item, data)
        stream = records(0, data, offset)
        item.write([stream[: max(int(stop * len(stream)), 13)]])
        item.close(keep=True)
    if damage is not None:
        for part in box.path.glob(".stt-*/item"):
            with part.open("r+b") as there:
                there.seek(int(damage * part.stat().st_size))
                there.write(b"\x00damaged\x00")

    item = box.begin(file("a", data))
    offset = agreed(item, data)
    item.write([records(0, data, offset)])
    digest = item.publish()
    item.close(keep=True)

    assert digest == sha3(data)
    assert item.resumed == offset
    assert (box.path / item.name).read_bytes() == data
    assert box.names == [item.name]
    (box.path / item.name).unlink()


def agreed(item: IncomingItem, data: bytes) -> int:
    """Return where an honest sender goes on."""
    offset = 0
    for mark in item.plan.get(0, ()):
        if mark.offset > len(data) or sha3(data[: mark.offset]) != mark.sha3_256:
            break
        offset = mark.offset
    return offset


def test_an_interrupted_folder_is_gone_on_with_and_what_is_no_longer_in_it_goes(box: Box) -> None:
    first = box.begin(FOLDER, file("a", b"one"), folder("sub"), file("b", b"two", 2), file("c", b"three", 2))
    first.write([records(1, b"one"), records(3, b"two")])
    first.close(keep=True)

    # Meanwhile b has become a folder, sub has a new file, and there is another one before it.
    entries = [FOLDER, file("0", b"zero"), file("a", b"one"), folder("sub"), folder("b", 3), file("c", b"three", 3)]
    item = box.begin(*entries)
    assert {index: [mark.offset for mark in marks] for index, marks in item.plan.items()} == {2: [3]}
    item.write([records(1, b"zero"), records(2, b"one", 3), records(5, b"three")])
    item.publish()
    item.close(keep=True)

    tree = box.path / "tree"
    assert {str(path.relative_to(tree)) for path in tree.rglob("*")} == {"0", "a", "sub", "sub/b", "sub/c"}
    assert (tree / "sub" / "b").is_dir()
    assert item.resumed == 3
    assert box.names == ["tree"]


def test_of_a_large_file_many_beginnings_are_named(box: Box) -> None:
    data = os.urandom(3 * CHUNK_SIZE + 100)
    first = box.begin(file("a", 10 * CHUNK_SIZE))
    first.write([encode_file_start(0, 0)])
    first.write([records(0, data)[13:]])
    first.close(keep=True)

    item = box.begin(file("a", 10 * CHUNK_SIZE))
    item.close(keep=True)

    assert [mark.offset for mark in item.plan[0]] == mark_offsets(len(data))
    assert [mark.sha3_256 for mark in item.plan[0]] == [sha3(data[:offset]) for offset in mark_offsets(len(data))]


def test_what_came_of_a_longer_version_is_cut(box: Box) -> None:
    first = box.begin(file("a", b"0123456789"))
    first.write([encode_file_start(0, 0), encode_chunk_head(9), b"01234"])
    first.close(keep=True)

    item = box.begin(file("a", b"012"))
    item.write([records(0, b"012", 3)])
    item.publish()
    item.close(keep=True)

    assert (box.path / "a").read_bytes() == b"012"


def test_an_attempt_that_ends_before_anything_comes_loses_nothing(open_box: Callable[..., Box]) -> None:
    box = open_box()
    first = box.begin(file("a", b"data"))
    first.write([records(0, b"data")[:-33]])
    first.close(keep=True)

    box.begin(file("a", b"data")).close(keep=True)
    refused = open_box(quota=3).item(file("a", b"data"))
    with pytest.raises(TransferError, match="quota"):
        refused.prepare()
    refused.close(keep=True)
    last = box.begin(file("a", b"data"))
    last.close(keep=True)

    assert [mark.offset for mark in last.plan[0]] == [3]


@pytest.mark.parametrize(("item_id", "keep"), [(b"", True), (ITEM_ID, False)])
def test_nothing_is_kept_where_that_is_not_wanted(box: Box, item_id: bytes, *, keep: bool) -> None:
    item = box.begin(file("a", b"data"), item_id=item_id)
    item.write([records(0, b"data")[:-33]])

    item.close(keep=keep)

    assert box.names == []


def test_an_item_is_on_its_way_only_once(open_box: Callable[..., Box]) -> None:
    item = open_box().begin(file("a", b"data"))

    with pytest.raises(TransferError) as caught:
        open_box().begin(file("a", b"data"))

    assert caught.value.status is TransferStatus.BUSY
    item.close(keep=False)


def test_old_and_too_many_unfinished_items_are_removed_but_none_on_its_way(
    open_box: Callable[..., Box], monkeypatch: pytest.MonkeyPatch
) -> None:
    box = open_box()
    monkeypatch.setattr("stt_streaming.transfer.inbox.MAX_UNFINISHED", 3)
    assert MAX_UNFINISHED > 3
    for number in range(5):
        item = box.begin(file("a", b"data"), item_id=bytes([number]) * 16)
        item.write([records(0, b"data")[:-33]])
        item.close(keep=True)
    assert len(box.names) == 3
    active = box.begin(file("b", b"data"))
    for path in box.path.iterdir():
        os.utime(path, (0, 0))
    (box.path / ".stt-notes.part").mkdir()

    box.inbox.check()

    assert len(box.names) == 2
    assert UNFINISHED_LIFETIME > 24 * 3600
    active.close(keep=False)
    assert box.names == [".stt-notes.part"]


# What is offered once more


def recall(box: Box, *entries: Entry, **options: Any) -> bytes:
    """Return what another receiver of the same folder says to an offer."""
    with Inbox(box.path) as inbox:
        return Box(box.path, inbox).item(*entries, **options).recall()


def test_a_stored_file_that_is_offered_again_need_not_come(box: Box) -> None:
    box.store_file("a", b"data")

    assert recall(box, file("a", b"data")) == sha3(b"data")
    item = box.item(file("a", b"data"))
    item.recall()
    item.settle()
    item.close(keep=True)

    assert (item.name, item.done, item.resumed, item.stored_files) == ("a", 4, 4, 1)
    assert box.names == ["a"]


def test_a_stored_folder_that_is_offered_again_need_not_come(box: Box) -> None:
    entries = [FOLDER, file("a", b"one"), folder("sub"), file("b", b"two", 2), link("l", b"../a", 2)]
    (box.path / "tree").mkdir()
    options: Any = {"keep_links": True, "wants": lambda path: not path.endswith("b")}
    stored = box.store(*entries, contents={1: b"one", 4: b"../a"}, **options)
    assert stored.name == "tree (1)"

    item = box.item(*entries, **options)

    assert item.recall() == sha3(sha3(b"one") + sha3(b"../a"))
    assert item.plan == {3: ()}
    item.settle()
    assert (item.name, item.done, item.stored_files) == ("tree (1)", 7, 2)


def test_nobody_learns_what_another_peer_has_sent(box: Box) -> None:
    box.store_file("a", b"data")

    assert recall(box, file("a", b"data"), peer_node_id=b"q" * 32) == b""
    assert recall(box, file("a", b"data"), item_id=b"j" * 16) == b""
    assert recall(box, file("a", b"data"), item_id=b"") == b""


@pytest.mark.parametrize(
    "entry",
    [
        file("a", b"longer"),
        file("b", b"data"),
        file("a", b"data", mode=0o755),
        attrs.evolve(file("a", b"data"), modified_at=10**18 + 1),
        attrs.evolve(FOLDER, name="a"),
    ],
)
def test_another_version_at_the_sender_is_received(box: Box, entry: Entry) -> None:
    box.store_file("a", b"data")

    assert recall(box, entry) == b""


def test_what_was_wanted_otherwise_is_received(box: Box) -> None:
    entries = [FOLDER, file("a", b"one"), file("b", b"two")]
    box.store(*entries, contents={1: b"one"}, wants=lambda path: path.endswith("a"))

    assert recall(box, *entries) == b""
    assert recall(box, *entries, wants=lambda path: path.endswith("b")) == b""
    assert recall(box, *entries, wants=lambda path: path.endswith("a")) != b""


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: (tree / "a").write_bytes(b"ONE"),
        lambda tree: (tree / "sub" / "b").unlink(),
        lambda tree: (tree / "sub" / "new").write_bytes(b""),
        lambda tree: tree.rename(tree.parent / "mine"),
        lambda tree: (tree.rename(tree.parent / "mine"), tree.write_bytes(b"")),
        lambda tree: (tree.rename(tree.parent / "mine"), tree.symlink_to("mine")),
    ],
)
def test_what_was_changed_or_deleted_at_the_receiver_is_received(box: Box, change: Callable[[Path], object]) -> None:
    entries = [FOLDER, file("a", b"one"), folder("sub"), file("b", b"two", 2)]
    contents = {1: b"one", 3: b"two"}
    box.store(*entries, contents=contents)
    assert recall(box, *entries)

    change(box.path / "tree")

    assert recall(box, *entries) == b""
    again = box.store(*entries, contents=contents)
    assert again.resumed == 0
    assert recall(box, *entries)
    assert (box.path / again.name / "sub" / "b").read_bytes() == b"two"


@pytest.mark.parametrize("existing", [Existing.SKIP, Existing.REPLACE])
def test_an_option_that_says_what_becomes_of_existing_names_is_kept_to(
    open_box: Callable[..., Box], existing: Existing
) -> None:
    box = open_box(existing=existing)
    box.store_file("a", b"data")

    assert box.item(file("a", b"data")).recall() == b""
    assert recall(box, file("a", b"data")) == sha3(b"data")  # without it


def test_a_folder_in_which_something_is_missing_is_not_remembered(box: Box) -> None:
    entries = [FOLDER, file("a", b"one"), file("b", b"two")]
    item = box.begin(*entries)
    item.write([records(1, b"one"), encode_file_failed(2, TransferStatus.CHANGED)])
    item.publish()
    item.close(keep=False)

    assert recall(box, *entries) == b""


@pytest.mark.parametrize("named", [True, False])
def test_whenever_it_is_killed_a_receiver_remembers_what_has_its_name_and_nothing_else(
    box: Box, monkeypatch: pytest.MonkeyPatch, *, named: bool
) -> None:
    (box.path / "a").write_bytes(b"mine")
    real = os.link

    def link_and_die(source: str, name: str, **options: Any) -> None:
        if named or name == "a":
            real(source, name, **options)
        raise KeyboardInterrupt

    item = box.begin(file("a", b"data"))
    item.write([records(0, b"data")])
    with monkeypatch.context() as patched:
        patched.setattr(os, "link", link_and_die)
        with pytest.raises(KeyboardInterrupt):
            item.publish()
    assert len(box.names) == 2 + named  # with what is left in the staging folder

    assert recall(box, file("a", b"data")) == (sha3(b"data") if named else b"")
    item.close(keep=True)


def test_what_a_kill_has_left_of_a_stored_item_goes_when_it_is_offered_again(box: Box) -> None:
    box.store_file("a", b"data")
    left = box.begin(file("a", b"data"))
    left.write([records(0, b"data")])
    left.close(keep=True)
    assert len(box.names) == 2

    item = box.item(file("a", b"data"))
    item.recall()
    item.settle()

    assert box.names == ["a"]


# What is not wanted


def test_only_what_is_wanted_is_in_the_plan_and_comes(box: Box) -> None:
    entries = [FOLDER, file("a.jpg", b"one"), file("b.txt", b"two"), link("l", b"a.jpg")]

    item = box.begin(*entries, wants=lambda path: path.endswith(".jpg"))
    assert item.plan == {2: (), 3: ()}
    item.write([records(1, b"one")])
    item.publish()
    item.close(keep=False)

    assert [path.name for path in (box.path / "tree").iterdir()] == ["a.jpg"]
    with pytest.raises(TransferError) as caught:
        box.begin(file("a", b""), wants=lambda _: False)
    assert caught.value.status is TransferStatus.UNWANTED


def test_links_are_made_if_they_stay_inside_and_only_when_asked_for(box: Box) -> None:
    entries = [FOLDER, folder("sub"), link("good", b"../a", 1), link("bad", b"../../x", 1), link("worse", b"/etc")]
    contents = {2: b"../a", 3: b"../../x", 4: b"/etc"}

    without = box.store(*entries, contents={})
    item = box.store(*entries, contents=contents, keep_links=True)

    assert without.plan == {2: (), 3: (), 4: ()}
    tree = box.path / "tree (1)"
    assert [(path.name, str(path.readlink())) for path in (tree / "sub").iterdir()] == [("good", "../a")]
    assert item.left_out == ["tree/sub/bad", "tree/worse"]
    assert item.stored_files == 1


def test_a_file_that_the_sender_gives_up_is_missing_and_said_to_be(box: Box) -> None:
    item = box.begin(FOLDER, file("a", b"one"), file("b", b"two"), file("c", b"three"))

    item.write([encode_file_start(1, 0), encode_chunk_head(3), b"one", sha3(b"one")])
    item.write([encode_file_start(2, 0), encode_file_failed(2, TransferStatus.CHANGED)])
    item.write([encode_file_failed(3, TransferStatus.CHANGED)])
    assert item.publish() == sha3(sha3(b"one"))
    item.close(keep=False)

    assert [path.name for path in (box.path / "tree").iterdir()] == ["a"]
    assert item.left_out == ["tree/b", "tree/c"]
    assert (item.stored_files, item.done) == (1, 3)


# What there is no room for


def test_a_quota_counts_what_is_stored_what_comes_and_what_is_resumed_once(open_box: Callable[..., Box]) -> None:
    box = open_box(quota=10)
    box.store_file("a", b"1234")
    item = box.begin(file("b", b"12345"), item_id=b"b" * 16)
    item.write([records(0, b"12345")[:-33]])

    with pytest.raises(TransferError, match="room for 1 bytes") as caught:
        box.begin(file("c", b"12"), item_id=b"c" * 16)
    item.close(keep=True)
    again = box.begin(file("b", b"12345"), item_id=b"b" * 16)
    again.close(keep=False)

    assert caught.value.status is TransferStatus.NO_SPACE
    assert box.store_file("c", b"123456") == "c"


def test_what_the_disk_has_no_room_for_is_refused_before_it_comes(box: Box) -> None:
    with pytest.raises(TransferError, match="no room") as caught:
        box.begin(file("huge", 1 << 60), disk_size=1 << 60)

    assert caught.value.status is TransferStatus.NO_SPACE
    assert box.names == []


def test_a_file_with_holes_needs_room_for_its_data_only(box: Box) -> None:
    box.begin(file("huge", 1 << 60), disk_size=4096).close(keep=False)


@pytest.mark.skipif(os.statvfs("/").f_files == 0, reason="this file system makes its inodes as they are needed")
def test_more_files_than_the_disk_can_have_are_refused(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fstatvfs(box.inbox.descriptor)
    few = os.statvfs_result((*real[:6], 2, 2, *real[8:]))
    monkeypatch.setattr(os, "fstatvfs", lambda _: few)

    with pytest.raises(TransferError, match="no room for 3 files"):
        box.begin(FOLDER, file("a", b""), file("b", b""))


def test_a_disk_that_fills_up_is_told(box: Box) -> None:
    item = box.begin(file("a", bytes(20_000)))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(TransferError, match="cannot be written") as caught:
            item.write([records(0, bytes(20_000))])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    item.close(keep=False)

    assert caught.value.status is TransferStatus.NO_SPACE
    assert box.names == []


def test_a_folder_that_cannot_be_opened_or_written_is_found_out_at_once(tmp_path: Path) -> None:
    with pytest.raises(TransferError, match="cannot be opened"):
        Inbox(tmp_path / "missing")
    with Inbox(tmp_path) as inbox:
        inbox.check()
        tmp_path.rmdir()
        with pytest.raises(TransferError, match="cannot be created"):
            inbox.check()


# A sender that does not keep the rules

ENTRIES = [FOLDER, file("a", b"abc"), file("b", b"de"), link("l", b"xy")]


@pytest.mark.parametrize(
    "stream",
    [
        encode_chunk_head(3) + b"abc",
        encode_hole(1, bytes(32)),
        encode_file_start(0, 0),
        encode_file_start(2, 0),
        encode_file_start(9, 0),
        encode_file_start(1, 1),
        encode_file_start(1, 0) + encode_file_start(2, 0),
        encode_file_start(1, 0) + encode_chunk_head(4) + b"abcd",
        encode_file_start(1, 0) + encode_hole(4, bytes(32)),
        encode_file_start(1, 0) + encode_file_failed(2, TransferStatus.CHANGED),
        encode_file_failed(2, TransferStatus.CHANGED),
        records(1, b"abc") + encode_chunk_head(1) + b"d",
        records(1, b"abc") + records(1, b"abc"),
        records(1, b"abc") + records(2, b"de") + encode_file_start(3, 0) + encode_hole(2, bytes(32)),
        records(1, b"abc") + records(2, b"de") + records(3, b"\xff\xfe"),
    ],
)
def test_records_against_the_plan_are_refused(box: Box, stream: bytes) -> None:
    item = box.begin(*ENTRIES, keep_links=True)

    with pytest.raises(FrameError):
        item.write([stream])
    item.close(keep=False)

    assert box.names == []


@pytest.mark.parametrize(
    "stream",
    [
        encode_file_start(0, 0) + encode_chunk_head(3) + b"abc" + sha3(b"abd"),
        encode_file_start(0, 0) + encode_hole(3, sha3(b"abc")),
    ],
)
def test_other_bytes_than_announced_are_refused(box: Box, stream: bytes) -> None:
    item = box.begin(file("a", b"abc"))

    with pytest.raises(TransferError, match="another SHA3-256") as caught:
        item.write([stream])
    item.close(keep=False)

    assert caught.value.status is TransferStatus.MISMATCH


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(
            st.sampled_from([records(1, b"abc"), records(2, b"de"), records(3, b"xy")]),
            st.builds(encode_file_start, st.integers(0, 4), st.integers(0, 3)),
            st.builds(encode_file_failed, st.integers(0, 4), st.sampled_from(TransferStatus)),
            st.builds(encode_hole, st.integers(1, 5), st.just(sha3(bytes(3)))),
            st.binary(max_size=40),
        ),
        max_size=5,
    )
)
def test_whatever_comes_the_item_is_whole_or_not_there(open_box: Callable[..., Box], stream: list[bytes]) -> None:
    box = open_box()
    item = box.begin(*ENTRIES, keep_links=True)
    try:
        item.write(stream)
        item.publish()
    except (TransferError, FrameError):
        assert [path.name for path in box.path.iterdir() if not path.name.startswith(".stt-")] == []
    else:
        stored = {path.name for path in (box.path / item.name).iterdir()}
        assert stored | {path.rpartition("/")[2] for path in item.left_out} == {"a", "b", "l"}
        (box.path / item.name).rename(box.path.parent / f"seen {os.urandom(8).hex()}")
    finally:
        item.close(keep=False)
    assert box.names == []


def test_a_link_that_somebody_puts_into_the_staging_folder_is_not_followed(box: Box, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    item = box.begin(FOLDER, folder("sub"), file("a", b"one", 1))
    [staging] = box.path.iterdir()
    (staging / "item" / "sub").rmdir()
    (staging / "item" / "sub").symlink_to(tmp_path / "outside")

    with pytest.raises(TransferError):
        item.write([records(2, b"one")])
    item.close(keep=False)

    assert list((tmp_path / "outside").iterdir()) == []
    assert box.names == []


def test_a_staging_folder_of_somebody_else_is_not_used(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    item = box.begin(file("a", b"data"))
    item.write([records(0, b"data")[:-33]])
    item.close(keep=True)
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)

    with pytest.raises(TransferError, match="somebody else"):
        box.begin(file("a", b"data"))
