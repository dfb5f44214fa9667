"""What this distribution adds to STT: ``sqlite:``, ``file:``, ``redis:`` and ``s3:`` storage, and ``stt chamber``."""

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
    from stt_chamber.backends.sqlite import SQLiteStorage  # noqa: PLC0415  as above

    register("sqlite", SQLiteStorage)
    register("file", FileStorage)
    register("redis", _redis_storage)
    register("rediss", _redis_storage)
    register("s3", _s3_storage)


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


def _s3_storage(url: str) -> StorageProvider:
    try:
        from stt_chamber.backends.s3 import S3Storage  # noqa: PLC0415  as above
    except ModuleNotFoundError:
        raise ConfigError("s3:// URLs need the extra of stt-chamber: install stt-chamber[s3]") from None
    return S3Storage(url)
