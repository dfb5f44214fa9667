"""Is what is sent listed and read as it is, and is it noticed when something cannot be read or changes?"""

from __future__ import annotations

import hashlib
import os
import socket
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stt_streaming.transfer.errors import TransferError
from stt_streaming.transfer.manifest import Entry, EntryKind
from stt_streaming.transfer.messages import TransferStatus
from stt_streaming.transfer.plan import Mark, mark_offsets
from stt_streaming.transfer.records import CHUNK_SIZE, ChunkEnd, Data, FileFailed, FileStart, Hole, RecordReader
from stt_streaming.transfer.source import LeftOut, SourceItem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MEBIBYTE = 1024 * 1024


def sha3(data: bytes | bytearray) -> bytes:
    return hashlib.sha3_256(data).digest()


@pytest.fixture
def opened() -> Iterator[Callable[..., SourceItem]]:
    items: list[SourceItem] = []

    def scan(path: Path, *, keep_links: bool = False, batch_size: int = CHUNK_SIZE) -> SourceItem:
        item = SourceItem(path, keep_links=keep_links, batch_size=batch_size)
        items.append(item)
        item.scan()
        return item

    yield scan
    for item in items:
        item.close()
        item.close()


def batches(item: SourceItem) -> Iterator[list[bytes]]:
    while (pieces := item.read()) is not None:
        yield pieces


def read_all(item: SourceItem) -> dict[int, bytes | TransferStatus]:
    """Return the bytes that are sent of each file, or why it failed; check every digest."""
    files: dict[int, bytes | TransferStatus] = {}
    reader = RecordReader()
    index, data, offset = -1, bytearray(), 0
    for pieces in batches(item):
        for piece in pieces:
            for record in reader.feed(piece):
                if isinstance(record, FileStart):
                    index, data, offset = record.index, bytearray(), record.offset
                    files[index] = b""
                elif isinstance(record, Data):
                    data += record.data
                    files[index] = bytes(data)
                elif isinstance(record, Hole):
                    data += bytes(record.size)
                    files[index] = bytes(data)
                elif isinstance(record, FileFailed):
                    files[record.index] = record.status
                if isinstance(record, ChunkEnd | Hole) and not offset:
                    assert record.sha3_256 == sha3(data)
    assert reader.at_boundary
    return files


@pytest.mark.parametrize("size", [0, 1, CHUNK_SIZE, 2 * CHUNK_SIZE + 5])
def test_a_file_is_read_and_hashed(tmp_path: Path, opened: Callable[..., SourceItem], size: int) -> None:
    path = tmp_path / "a b.txt"
    path.write_bytes(data := os.urandom(size))
    path.chmod(0o640)
    os.utime(path, ns=(1, 1_234_567_890_123_456_789))

    item = opened(path)

    assert item.entries == [
        Entry(kind=EntryKind.FILE, name="a b.txt", size=size, mode=0o640, modified_at=1_234_567_890_123_456_789)
    ]
    assert (item.name, item.is_folder, item.size) == ("a b.txt", False, size)
    assert read_all(item) == {0: data}
    assert item.digest() == sha3(data)
    assert (item.done, item.resumed, item.sent_files) == (size, 0, 1)


def test_a_folder_is_listed_parents_first_and_read_in_that_order(
    tmp_path: Path, opened: Callable[..., SourceItem]
) -> None:
    contents = {"a.txt": b"one", "b/c/d.txt": b"two", "b/e.txt": b"", "z/.hidden": b"three"}
    for name, data in contents.items():
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_bytes(data)
    (tmp_path / "tree" / "empty").mkdir()

    item = opened(tmp_path / "tree")
    files = read_all(item)

    paths: list[str] = []
    for index, entry in enumerate(item.entries):
        assert entry.parent < max(index, 1)
        paths.append(f"{paths[entry.parent]}/{entry.name}" if index else entry.name)
    assert {paths[index].removeprefix("tree/"): data for index, data in files.items()} == contents
    assert "tree/empty" in paths
    assert list(files) == sorted(files)
    assert item.digest() == sha3(b"".join(sha3(data) for data in files.values() if isinstance(data, bytes)))
    assert item.left_out == []


def test_what_is_not_wanted_is_not_read(tmp_path: Path, opened: Callable[..., SourceItem]) -> None:
    for name in "abc":
        (tmp_path / name).write_text(name)
    item = opened(tmp_path)

    item.follow({2: ()})

    assert read_all(item) == {1: b"a", 3: b"c"}
    assert item.digest() == sha3(sha3(b"a") + sha3(b"c"))
    assert item.sent_files == 2


def test_links_are_left_out_or_kept_and_the_item_itself_may_be_one(
    tmp_path: Path, opened: Callable[..., SourceItem]
) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "link").symlink_to("/etc/passwd")
    (tmp_path / "to tree").symlink_to("tree")

    without, with_links = opened(tmp_path / "to tree"), opened(tmp_path / "to tree", keep_links=True)

    assert [entry.name for entry in without.entries] == ["to tree"]
    assert without.left_out == [LeftOut(str(tmp_path / "to tree" / "link"), "is a symbolic link", by_choice=True)]
    assert [(entry.name, entry.kind) for entry in with_links.entries[1:]] == [("link", EntryKind.LINK)]
    assert read_all(with_links) == {1: b"/etc/passwd"}


def test_what_is_neither_file_nor_folder_is_left_out_of_a_folder_and_refused_alone(
    tmp_path: Path, opened: Callable[..., SourceItem]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "socket"))
    listening.close()

    item = opened(tmp_path)

    assert len(item.entries) == 1
    assert sorted(left_out.path for left_out in item.left_out) == [str(tmp_path / "pipe"), str(tmp_path / "socket")]
    with pytest.raises(TransferError, match="neither a regular file nor a folder"):
        opened(tmp_path / "pipe")
    with pytest.raises(TransferError, match="missing"):
        opened(tmp_path / "missing")


def test_a_name_that_is_no_unicode_can_be_offered_and_dot_has_the_name_of_its_folder(
    tmp_path: Path, opened: Callable[..., SourceItem], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9")
    path.mkdir()
    (path / os.fsdecode(b"\xff.txt")).write_text("content")

    item = opened(path)
    monkeypatch.chdir(tmp_path)

    assert [entry.name for entry in item.entries] == ["caf\ufffd", "\ufffd.txt"]
    assert read_all(item) == {1: b"content"}
    assert opened(tmp_path.__class__()).name == tmp_path.name


def test_an_item_has_an_id_that_stays_when_it_changes_and_is_its_own(
    tmp_path: Path, opened: Callable[..., SourceItem]
) -> None:
    one, other = tmp_path / "a", tmp_path / "b"
    one.write_text("x")
    other.write_text("x")
    before = opened(one).item_id

    one.write_text("something else")

    assert opened(one).item_id == before != opened(other).item_id


# What the receiver has already


def marks_of(data: bytes, offsets: list[int]) -> tuple[Mark, ...]:
    return tuple(Mark(offset, sha3(data[:offset])) for offset in offsets)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.integers(1, 40),
    there=st.integers(0, 40),
    changed=st.integers(0, 40),
    extents=st.lists(st.booleans(), min_size=40, max_size=40),
)
def test_sending_goes_on_from_the_last_mark_where_both_agree(
    tmp_path: Path, opened: Callable[..., SourceItem], size: int, there: int, changed: int, extents: list[bool]
) -> None:
    # In units of 64 KiB, some of them holes; the copy of the receiver differs from one byte on.
    unit = 65_536
    path = tmp_path / "a"
    data = b"".join((bytes([number + 1]) if extents[number] else b"\x00") * unit for number in range(size))
    with path.open("wb") as file:
        for number in range(size):
            if extents[number]:
                file.seek(number * unit)
                file.write(data[number * unit : (number + 1) * unit])
        file.truncate(size * unit)
    copy = bytearray(data[: min(there, size) * unit])
    if changed * unit < len(copy):
        copy[changed * unit] ^= 0xFF
    offsets = mark_offsets(len(copy))
    item = opened(path)
    if offsets:
        item.follow({0: marks_of(bytes(copy), offsets)})

    files = read_all(item)

    agreed = max((offset for offset in offsets if bytes(copy[:offset]) == data[:offset]), default=0)
    assert item.resumed == agreed
    assert files == {0: data[agreed:]}
    assert item.digest() == sha3(data)
    assert item.done == len(data)


def test_what_is_there_whole_needs_one_record(tmp_path: Path, opened: Callable[..., SourceItem]) -> None:
    (tmp_path / "a").write_bytes(data := os.urandom(5000))
    item = opened(tmp_path / "a")

    item.follow({0: marks_of(data, [5000])})

    assert read_all(item) == {0: b""}
    assert (item.resumed, item.digest()) == (5000, sha3(data))


def test_holes_are_sent_as_numbers(tmp_path: Path, opened: Callable[..., SourceItem]) -> None:
    path = tmp_path / "sparse"
    path.touch()
    os.truncate(path, 100 * MEBIBYTE)

    item = opened(path)
    sent = sum(len(piece) for pieces in batches(item) for piece in pieces)

    assert sent < 1000
    assert item.disk_size < MEBIBYTE
    assert item.digest() == sha3(bytes(100 * MEBIBYTE))


def test_small_files_are_packed_and_a_rate_makes_batches_small(
    tmp_path: Path, opened: Callable[..., SourceItem]
) -> None:
    for number in range(300):
        (tmp_path / str(number)).write_bytes(bytes(100))

    together = list(batches(opened(tmp_path)))
    slowly = [sum(map(len, pieces)) for pieces in batches(opened(tmp_path, batch_size=1000))]

    assert [len(pieces) for pieces in together] == [1]
    assert max(slowly) < 1500


# What changes or cannot be read


def test_a_file_that_changes_fails_and_the_others_of_its_folder_go(
    tmp_path: Path, opened: Callable[..., SourceItem]
) -> None:
    for name in ("a", "b", "c", "d", "e"):
        (tmp_path / name).write_bytes(b"old " + name.encode())
    item = opened(tmp_path)

    with (tmp_path / "b").open("ab") as file:
        file.write(b"more")
    (tmp_path / "c").unlink()
    (tmp_path / "d").unlink()
    (tmp_path / "d").symlink_to("a")
    files = read_all(item)

    changed = TransferStatus.CHANGED
    assert files == {1: b"old a", 2: changed, 3: changed, 4: changed, 5: b"old e"}
    assert [left_out.path for left_out in item.left_out] == [str(tmp_path / name) for name in "bcd"]
    assert not any(left_out.by_choice for left_out in item.left_out)
    assert item.sent_files == 2


@pytest.mark.parametrize("size", [CHUNK_SIZE, 3 * CHUNK_SIZE])
def test_a_file_that_changes_while_it_is_read_is_never_completed(
    tmp_path: Path, opened: Callable[..., SourceItem], size: int
) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(size))
    item = opened(path, batch_size=CHUNK_SIZE // 4)
    item.read()

    os.truncate(path, size + 1)

    with pytest.raises(TransferError, match="changed while it was sent"):
        for _ in batches(item):
            pass
    assert item.done < size


def test_a_file_that_becomes_shorter_fails(tmp_path: Path, opened: Callable[..., SourceItem]) -> None:
    path = tmp_path / "a"
    path.write_bytes(os.urandom(3 * CHUNK_SIZE))
    item = opened(path)
    item.read()

    os.truncate(path, CHUNK_SIZE)

    with pytest.raises(TransferError, match=r"became shorter|changed"):
        for _ in batches(item):
            pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_may_not_be_read_is_left_out_and_no_choice(tmp_path: Path, opened: Callable[..., SourceItem]) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    (tmp_path / "secret").touch(mode=0)

    item = opened(tmp_path)
    read_all(item)

    assert sorted(left_out.path for left_out in item.left_out) == [str(tmp_path / "closed"), str(tmp_path / "secret")]
    assert not any(left_out.by_choice for left_out in item.left_out)
