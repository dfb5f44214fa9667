"""An endpoint that keeps every rule, as small as that goes: it counts the letters of a text."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from stt_core.errors import LocalError
from stt_core.testing import EndpointContract

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stt_core.interfaces.endpoint import EndpointHandler, EndpointRequest


class Counter:
    def __init__(self) -> None:
        self.text = ""
        self.peers: set[bytes] = set()

    async def count(self, request: EndpointRequest) -> bytes | None:
        try:
            text = request.body.decode()
        except UnicodeDecodeError:
            raise LocalError("no text") from None
        await asyncio.sleep(0)
        return b"%d" % len(text) if text else None


class TestToyEndpoint(EndpointContract):
    patience = 1.0

    @pytest.fixture
    def name(self) -> str:
        return "toys.count"

    @pytest.fixture
    def handler(self) -> EndpointHandler:
        return Counter().count

    @pytest.fixture
    def examples(self) -> Mapping[bytes, bytes | None]:
        return {b"": None, b"one": b"3", "zwölf".encode(): b"5"}
