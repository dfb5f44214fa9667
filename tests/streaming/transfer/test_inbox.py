"""Is a received file there whole or not at all, and is what was there kept?"""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import stat
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from stt_streaming.transfer.errors import TransferError
from stt_streaming.transfer.inbox import MAX_NUMBER, TEMPORARY_PREFIX, Inbox
from stt_streaming.transfer.messages import TransferStatus

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def inbox(tmp_path: Path) -> Iterator[Inbox]:
    with Inbox(tmp_path, mode=0o640) as inbox:
        yield inbox


def sha3(data: bytes) -> bytes:
    return hashlib.sha3_256(data).digest()


def store(inbox: Inbox, name: str, data: bytes) -> str:
    file = inbox.file(name, len(data))
    file.open()
    file.write([data])
    file.publish(sha3(data))
    file.discard()
    return file.name


@pytest.mark.parametrize("data", [b"", b"x", os.urandom(300_000)])
def test_a_file_is_stored_under_its_name_with_the_given_permissions(inbox: Inbox, tmp_path: Path, data: bytes) -> None:
    assert store(inbox, "a b.txt", data) == "a b.txt"

    (path,) = tmp_path.iterdir()
    assert path.name == "a b.txt"
    assert path.read_bytes() == data
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_pieces_of_any_kind_are_joined(inbox: Inbox, tmp_path: Path) -> None:
    file = inbox.file("a", 6)
    file.open()
    file.write([b"ab", bytearray(b"cd")])
    file.write([memoryview(b"ef"), b""])
    file.publish(sha3(b"abcdef"))
    file.discard()

    assert (tmp_path / "a").read_bytes() == b"abcdef"


def test_an_unfinished_file_is_hidden_and_private_and_gone_when_discarded(inbox: Inbox, tmp_path: Path) -> None:
    file = inbox.file("a", 4)
    file.open()
    file.write([b"ab"])

    (partial,) = tmp_path.iterdir()
    assert partial.name.startswith(TEMPORARY_PREFIX)
    assert stat.S_IMODE(partial.stat().st_mode) == 0o600

    file.discard()
    file.discard()
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_kept_and_the_new_one_numbered(inbox: Inbox, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")

    assert store(inbox, "a.txt", b"new") == "a (1).txt"
    assert store(inbox, "a.txt", b"newer") == "a (2).txt"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "a.txt": b"old",
        "a (1).txt": b"new",
        "a (2).txt": b"newer",
    }


@pytest.mark.parametrize("kind", ["folder", "link", "dangling link", "pipe"])
def test_whatever_has_the_name_is_kept(inbox: Inbox, tmp_path: Path, kind: str) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    there = tmp_path / "a"
    if kind == "folder":
        there.mkdir()
    elif kind == "pipe":
        os.mkfifo(there)
    else:
        if kind == "link":
            outside.write_text("precious")
        there.symlink_to(outside)

    assert store(inbox, "a", b"new") == "a (1)"

    assert there.is_symlink() or not there.is_file()
    assert not outside.exists() or outside.read_text() == "precious"


def test_files_of_one_name_that_come_at_once_are_all_kept(inbox: Inbox, tmp_path: Path) -> None:
    contents = [bytes([number]) * 1000 for number in range(20)]

    with ThreadPoolExecutor(8) as threads:
        names = list(threads.map(lambda data: store(inbox, "a", data), contents))

    assert len(set(names)) == 20
    assert {path.read_bytes() for path in tmp_path.iterdir()} == set(contents)


def test_names_run_out_in_the_end(inbox: Inbox, tmp_path: Path) -> None:
    for name in ("a", *(f"a ({number})" for number in range(1, MAX_NUMBER + 1))):
        (tmp_path / name).touch()

    with pytest.raises(TransferError, match="already") as caught:
        store(inbox, "a", b"")

    assert caught.value.status is TransferStatus.NOT_WRITABLE


def test_a_name_cannot_leave_the_folder(inbox: Inbox, tmp_path: Path) -> None:
    assert store(inbox, "../../escaped", b"x") == "escaped"
    assert (tmp_path / "escaped").exists()


def test_the_folder_stays_the_same_when_it_is_renamed_and_replaced(inbox: Inbox, tmp_path: Path) -> None:
    moved = tmp_path.with_name("moved")
    tmp_path.rename(moved)
    tmp_path.mkdir()

    store(inbox, "a", b"x")

    assert (moved / "a").exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("announced", "written"), [(3, b"ab"), (0, b"")])
def test_a_file_that_is_not_what_was_announced_is_not_published(
    inbox: Inbox, tmp_path: Path, announced: int, written: bytes
) -> None:
    file = inbox.file("a", announced)
    file.open()
    file.write([written])

    with pytest.raises(TransferError) as caught:
        file.publish(sha3(b"abc"))
    file.discard()

    assert caught.value.status is TransferStatus.MISMATCH
    assert list(tmp_path.iterdir()) == []


def test_more_bytes_than_announced_are_refused(inbox: Inbox) -> None:
    file = inbox.file("a", 3)
    file.open()

    with pytest.raises(TransferError, match="more bytes") as caught:
        file.write([b"ab", b"cd"])
    file.discard()

    assert caught.value.status is TransferStatus.MALFORMED


def test_a_file_that_the_disk_has_no_room_for_is_refused_before_it_comes(inbox: Inbox, tmp_path: Path) -> None:
    file = inbox.file("a", 1 << 60)

    with pytest.raises(TransferError, match="no room") as caught:
        file.open()
    file.discard()

    assert caught.value.status is TransferStatus.NO_SPACE
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_leaves_nothing(inbox: Inbox, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    file = inbox.file("a", 10_000)
    file.open()

    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(TransferError) as caught:
            file.write([bytes(10_000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    file.discard()

    assert caught.value.status is TransferStatus.NO_SPACE
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_went_away_is_an_error_of_its_own(inbox: Inbox, tmp_path: Path) -> None:
    inbox.check()
    tmp_path.rmdir()

    with pytest.raises(TransferError) as caught:
        inbox.check()

    assert caught.value.status is TransferStatus.NOT_WRITABLE


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_found_out_early(inbox: Inbox, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)

    with pytest.raises(TransferError) as caught:
        inbox.check()

    assert caught.value.status is TransferStatus.NOT_WRITABLE


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TransferError, match=os.strerror(errno.ENOENT)):
        Inbox(tmp_path / "missing")


def test_nothing_is_left_of_a_check(inbox: Inbox, tmp_path: Path) -> None:
    inbox.check()

    assert list(tmp_path.iterdir()) == []


# FAT and the like have no hard links; the test's file system has, so they are taken away.


@pytest.fixture
def linkless(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)


@pytest.mark.usefixtures("linkless")
def test_without_hard_links_a_file_is_stored_as_well_and_what_is_there_kept(inbox: Inbox, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")

    assert store(inbox, "a", b"new") == "a (1)"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"old", "a (1)": b"new"}


@pytest.mark.usefixtures("linkless")
def test_without_hard_links_a_failed_rename_leaves_nothing(
    inbox: Inbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "broken disk")

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(TransferError):
        store(inbox, "a", b"new")

    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(TEMPORARY_PREFIX)] == []


# Making it last


def test_the_file_is_synced_before_it_gets_its_name_and_the_folder_after(
    inbox: Inbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, list[str]]] = []
    real_fsync = os.fsync

    def fsync(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        seen.append((is_folder, [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")]))
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    store(inbox, "a", b"x")

    assert seen == [(False, []), (True, ["a"])]
