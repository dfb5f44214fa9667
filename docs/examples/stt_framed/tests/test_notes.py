from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from stt_core.testing import EndpointContract, FrameTypeContract
from stt_framed.notes import DIGEST_ENDPOINT, NOTE, digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from stt_core.interfaces.endpoint import EndpointHandler
    from stt_core.interfaces.frame import FrameType


class TestNote(FrameTypeContract):
    @pytest.fixture
    def frame_type(self) -> FrameType:
        return NOTE

    @pytest.fixture
    def messages(self) -> Iterable[bytes]:
        return [b"", b"Hello", "Grüße".encode(), b"x" * 1000]


class TestDigest(EndpointContract):
    @pytest.fixture
    def name(self) -> str:
        return DIGEST_ENDPOINT

    @pytest.fixture
    def handler(self) -> EndpointHandler:
        return digest

    @pytest.fixture
    def examples(self) -> Mapping[bytes, bytes | None]:
        return {body: hashlib.sha3_256(body).hexdigest().encode() for body in (b"", b"Hello", bytes(1000))}
