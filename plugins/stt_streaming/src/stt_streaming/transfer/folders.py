"""The folders of an item, opened step by step from its own: no symbolic link is followed, whoever puts one there."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

OPEN_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""How a folder is opened that must be one."""


class Folders:
    """The folders of one item; the one used last stays open.

    Args:
        root: The descriptor of the item's own folder, which is index 0; it is not closed here.
        parents: For each entry the index of its folder.
        names: For each entry the name that it has on this machine.
    """

    def __init__(self, root: int, parents: Sequence[int], names: Sequence[str]) -> None:
        self._root = root
        self._parents = parents
        self._names = names
        self._index = 0
        self._descriptor = -1

    def open(self, index: int) -> int:
        """Return the descriptor of a folder, which is good until the next call.

        Raises:
            OSError: It is missing, no folder or not readable.
        """
        if index == 0:
            return self._root
        if index == self._index:
            return self._descriptor
        self.close()
        path = [index]
        while path[-1]:
            path.append(self._parents[path[-1]])
        descriptor = os.dup(self._root)
        for step in path[-2::-1]:
            try:
                inner = os.open(self._names[step], OPEN_FOLDER, dir_fd=descriptor)
            finally:
                os.close(descriptor)
            descriptor = inner
        self._index, self._descriptor = index, descriptor
        return descriptor

    def close(self) -> None:
        """Let go of the folder used last; more can be opened after it."""
        if self._index:
            os.close(self._descriptor)
            self._index = 0
