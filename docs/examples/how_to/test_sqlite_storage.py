from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sqlite_storage import SQLiteStorage
from stt_core.testing import StorageContract

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stt_core.interfaces.storage import StorageFactory


class TestSQLiteStorage(StorageContract):
    @pytest.fixture
    def factory(self) -> StorageFactory:
        return SQLiteStorage

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"acme://{tmp_path}/store"

    @pytest.fixture
    def break_store(self, tmp_path: Path) -> Callable[[], None]:
        def write_over_it() -> None:
            (tmp_path / "store").write_bytes(b"no database" * 1000)

        return write_over_it
