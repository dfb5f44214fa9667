"""AES-256-OCB (RFC 7253) as a crypto suite: sealing in one pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.ciphers.aead import AESOCB3

from stt_core import hookimpl
from stt_core.interfaces.crypto import CryptoSuite

if TYPE_CHECKING:
    from collections.abc import Callable

    from stt_core.interfaces.crypto import FrameCipher

NUMBER = 0x8001


class OCBSuite(CryptoSuite):
    """Suite 0x8001."""

    name = "X25519MLKEM768 + AES-256-OCB"
    authenticated = True
    # RFC 7253 section 5: at most 2^48 blocks of 16 bytes under one key; a frame and its header have at most 2^18.
    max_frames = 1 << 30
    max_forgeries = 1 << 30

    def cipher(self, key: bytes) -> FrameCipher:
        """Return the AEAD of the library: it has the shape of a FrameCipher."""
        return AESOCB3(key)


@hookimpl
def stt_register_crypto_suites(register: Callable[[int, CryptoSuite], None]) -> None:
    register(NUMBER, OCBSuite())
