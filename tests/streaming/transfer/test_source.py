"""Is a file read as it is, and noticed when it is none or changes?"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from stt_streaming.transfer.errors import TransferError
from stt_streaming.transfer.source import SourceFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def read_all(source: SourceFile, size: int = 7) -> bytes:
    return b"".join(iter(lambda: source.read(size), b""))


@pytest.mark.parametrize("data", [b"", b"x", os.urandom(100)])
def test_a_file_is_read_and_hashed(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a b.txt"
    path.write_bytes(data)
    source = SourceFile(path)

    source.open()

    assert (source.name, source.size) == ("a b.txt", len(data))
    assert read_all(source) == data
    assert source.digest() == hashlib.sha3_256(data).digest()
    source.close()
    source.close()


def test_a_name_that_is_no_unicode_can_be_offered(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9")
    path.touch()

    assert SourceFile(path).name == "caf\ufffd"


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("content")
    (tmp_path / "link").symlink_to("target")
    source = SourceFile(tmp_path / "link")

    source.open()

    assert (source.name, read_all(source)) == ("link", b"content")
    source.close()


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_what_is_no_regular_file_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "a")
    source = SourceFile(tmp_path / "a")

    with pytest.raises(TransferError, match="no regular file"):
        source.open()
    source.close()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TransferError, match="missing"):
        SourceFile(tmp_path / "missing").open()


def test_a_file_that_becomes_shorter_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(20))
    source = SourceFile(path)
    source.open()
    source.read(5)

    os.truncate(path, 10)

    with pytest.raises(TransferError, match="shorter"):
        read_all(source)
    source.close()


def test_a_file_that_grows_or_changes_is_noticed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(20))
    source = SourceFile(path)
    source.open()

    with path.open("ab") as file:
        file.write(b"more")

    assert read_all(source) == bytes(20)
    with pytest.raises(TransferError, match="changed"):
        source.digest()
    source.close()
