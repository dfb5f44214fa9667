"""Are folders found by their index, and links on the way refused?"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from stt_streaming.transfer.folders import OPEN_FOLDER, Folders

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PARENTS = [0, 0, 1, 0]
NAMES = ["root", "a", "b", "c"]


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[Folders]:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "c").mkdir()
    root = os.open(tmp_path, OPEN_FOLDER)
    folders = Folders(root, PARENTS, NAMES)
    yield folders
    folders.close()
    folders.close()
    os.close(root)


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 2, 0, 1]])
def test_a_folder_is_opened_by_its_index(folders: Folders, tmp_path: Path, order: list[int]) -> None:
    paths = [tmp_path, tmp_path / "a", tmp_path / "a" / "b", tmp_path / "c"]

    for index in order:
        assert os.fstat(folders.open(index)).st_ino == paths[index].stat().st_ino


def test_a_link_in_the_place_of_a_folder_is_not_followed(folders: Folders, tmp_path: Path) -> None:
    (tmp_path / "a").rename(tmp_path / "moved")
    (tmp_path / "a").symlink_to(tmp_path / "moved")

    for index in (1, 2):
        with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
            folders.open(index)


def test_no_descriptor_is_left_open(folders: Folders) -> None:
    before = len(os.listdir("/dev/fd"))  # noqa: PTH208  as short as can be, since it opens one itself

    for _ in range(3):
        folders.open(2)
        folders.open(3)
        with pytest.raises(OSError, match="No such file"):
            Folders(folders.open(0), [0, 0], ["root", "missing"]).open(1)
    folders.close()

    assert len(os.listdir("/dev/fd")) == before  # noqa: PTH208  as above
