"""How a file of this machine is named in a URL, made for its owner alone, and made durable."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from stt_core.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def path_of(url: str, scheme: str) -> str:
    """Return the path in a URL, absolute or not.

    Raises:
        ConfigError: The URL is another.
    """
    path = url.removeprefix(f"{scheme}://")
    if path in ("", url) or "\0" in path:
        raise ConfigError(f"{url!r} is not {scheme}:///path")
    return path


def create_private(path: Path) -> int:
    """Make a file that was not there, for its owner alone; return a descriptor to write it.

    Raises:
        OSError: It is there, or cannot be made.
    """
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def sync_folder(folder: Path) -> None:
    """Make durable which files a folder has.

    Raises:
        OSError: It failed.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
