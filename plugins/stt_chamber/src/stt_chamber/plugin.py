"""What this distribution adds to STT: storage at ``sqlite:``, ``file:`` and ``redis:`` URLs, and ``stt chamber``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stt_core import hookimpl
from stt_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from stt_core.interfaces import StorageFactory, StorageProvider


@hookimpl
def stt_register_storage(register: Callable[[str, StorageFactory], None]) -> None:
    """Offer the backends, each under its scheme."""
    from stt_chamber.backends.file import FileStorage  # noqa: PLC0415  not needed to list the commands
    from stt_chamber.backends.sqlite import SQLiteStorage  # noqa: PLC0415

    register("sqlite", SQLiteStorage)
    register("file", FileStorage)
    register("redis", _redis_storage)
    register("rediss", _redis_storage)


@hookimpl
def stt_register_commands(register: Callable[[str, str, str], None]) -> None:
    """Offer the command of chambers."""
    register("chamber", "Keep values in an encrypted store.", "stt_chamber.commands:chamber")


def _redis_storage(url: str) -> StorageProvider:
    try:
        from stt_chamber.backends.redis import RedisStorage  # noqa: PLC0415  an extra, which may be missing
    except ModuleNotFoundError:
        raise ConfigError("redis:// URLs need the extra of stt-chamber: install stt-chamber[redis]") from None
    return RedisStorage(url)
