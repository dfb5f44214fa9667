"""A frame type that keeps every rule, as small as that goes: its messages are numbers in text, which it adds up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from stt_core.errors import FrameError
from stt_core.interfaces.frame import FrameMessage, FrameType
from stt_core.testing import FrameTypeContract

if TYPE_CHECKING:
    from collections.abc import Iterable


class Sums:
    def __init__(self) -> None:
        self.by_session: dict[bytes, int] = {}
        self.handling: set[bytes] = set()

    async def add(self, message: FrameMessage) -> None:
        try:
            number = int(message.data)
        except ValueError:
            raise FrameError("no number") from None
        session = message.peer.session_id
        await asyncio.sleep(0)
        self.by_session[session] = self.by_session.get(session, 0) + number


class TestToyFrameType(FrameTypeContract):
    patience = 1.0

    @pytest.fixture
    def frame_type(self) -> FrameType:
        return FrameType("toys.sum", 0x80, Sums().add)

    @pytest.fixture
    def messages(self) -> Iterable[bytes]:
        return [b"1", b"-20", b"300"]
