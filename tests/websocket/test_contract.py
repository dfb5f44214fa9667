from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import pytest

from stt_core.testing import TransportContract
from stt_websocket import WebSocketOptions, WebSocketTransport

if TYPE_CHECKING:
    from stt_core.interfaces.transport import TransportFactory


class TestWebSocketTransport(TransportContract):
    @pytest.fixture
    def factory(self) -> TransportFactory:
        # Closing waits this long for a peer that does not read.
        return functools.partial(WebSocketTransport, options=WebSocketOptions(close_timeout=0.2))

    @pytest.fixture
    def url(self) -> str:
        return "ws://127.0.0.1:0"

    @pytest.fixture
    def unusable_url(self) -> str:
        return "ws://user@127.0.0.1:0"
