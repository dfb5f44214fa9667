from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stt_core.testing import TransportContract
from stt_udp import UDPTransport

if TYPE_CHECKING:
    from stt_core.interfaces.transport import TransportFactory


class TestUDPTransport(TransportContract):
    @pytest.fixture
    def factory(self) -> TransportFactory:
        return UDPTransport

    @pytest.fixture
    def url(self, host: str) -> str:
        return f"udp://[{host}]:0" if ":" in host else f"udp://{host}:0"

    @pytest.fixture
    def unusable_url(self) -> str:
        return "udp://127.0.0.1"
