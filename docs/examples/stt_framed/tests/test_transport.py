from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stt_core.testing import TransportContract
from stt_framed.transport import FramedTransport

if TYPE_CHECKING:
    from pathlib import Path

    from stt_core.interfaces.transport import TransportFactory


class TestTCP(TransportContract):
    @pytest.fixture
    def factory(self) -> TransportFactory:
        return FramedTransport

    @pytest.fixture
    def url(self) -> str:
        return "tcp://127.0.0.1:0"

    @pytest.fixture
    def unusable_url(self) -> str:
        return "tcp://127.0.0.1"


class TestUnixSocket(TransportContract):
    @pytest.fixture
    def factory(self) -> TransportFactory:
        return FramedTransport

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"unix://{tmp_path}/socket"

    @pytest.fixture
    def unusable_url(self) -> str:
        return "unix://host/path"
