"""A crypto suite that keeps every rule, as small as that goes: a stream and a tag of SHAKE256, and four bytes more."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

import attrs
import pytest
from cryptography.exceptions import InvalidTag

from stt_core.interfaces.crypto import TAG_SIZE, CryptoSuite
from stt_core.testing import CryptoSuiteContract

if TYPE_CHECKING:
    from stt_core.interfaces.crypto import FrameCipher
    from stt_core.interfaces.transport import Buffer

METADATA_SIZE = 4
EXTRA = TAG_SIZE + METADATA_SIZE


@attrs.define
class ToyCipher:
    key: bytes = attrs.field(repr=False)
    highest: int = 0

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None, /) -> bytes:
        sealed = self.mixed(nonce, data)
        return sealed + self.tag(nonce, sealed, associated_data)

    def decrypt(self, nonce: bytes, data: Buffer, associated_data: Buffer | None, /) -> bytes:
        sealed, tag = bytes(data[:-EXTRA]), bytes(data[-EXTRA:])
        if not hmac.compare_digest(tag, self.tag(nonce, sealed, associated_data)):
            raise InvalidTag
        return self.mixed(nonce, sealed)

    def mixed(self, nonce: bytes, data: bytes) -> bytes:
        stream = hashlib.shake_256(b"stream" + self.key + nonce).digest(len(data))
        return (int.from_bytes(data, "big") ^ int.from_bytes(stream, "big")).to_bytes(len(data), "big")

    def tag(self, nonce: bytes, sealed: bytes, associated_data: Buffer | None) -> bytes:
        associated = bytes(associated_data or b"")
        size = len(associated).to_bytes(8, "big")
        return hashlib.shake_256(b"tag" + self.key + nonce + size + associated + sealed).digest(EXTRA)


class ToySuite(CryptoSuite):
    name = "SHAKE256"
    authenticated = True
    post_quantum = True
    max_frames = 1 << 20
    max_forgeries = 1 << 20
    metadata_size = METADATA_SIZE

    def cipher(self, key: bytes) -> FrameCipher:
        return ToyCipher(key)


class TestToySuite(CryptoSuiteContract):
    @pytest.fixture
    def suite(self) -> CryptoSuite:
        return ToySuite()

    @pytest.fixture
    def number(self) -> int:
        return 0x8001
