"""What a handshake has said so far, and the secret that both sides have by now: the state that keys are drawn from.

wire-format.md, section 3: ``ck`` is :attr:`Transcript.chaining_key`, ``h`` is :attr:`Transcript.hash`.
"""

from __future__ import annotations

import hashlib
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from stt_core.errors import HandshakeError
from stt_core.hkdf import expand, extract

TAG_SIZE: Final = 16
"""Bytes that sealing adds."""

INITIAL_HASH: Final = hashlib.sha3_256(b"STT/1").digest()
"""The hash before anything was said."""


class Transcript:
    """A state; nothing changes it, each step returns the next one, so a message that fails leaves nothing to undo.

    Args:
        chaining_key: 32 bytes.
        hash_: 32 bytes.
    """

    __slots__ = ("chaining_key", "hash")

    def __init__(self, chaining_key: bytes, hash_: bytes = INITIAL_HASH) -> None:
        self.chaining_key = chaining_key
        """32 bytes: the pre-shared key, with each exchanged secret mixed in."""
        self.hash = hash_
        """32 bytes: the hash of everything sent, sealed parts as they travel."""

    def mix_hash(self, data: bytes) -> Transcript:
        """Return the state once ``data`` was said; the length goes in, so no two splits of the same bytes agree."""
        return Transcript(self.chaining_key, hash_after(self.hash, data))

    def mix_key(self, secret: bytes) -> Transcript:
        """Return the state once both sides have a further secret."""
        return Transcript(extract(self.chaining_key, secret), self.hash)

    def derive(self, label: bytes) -> bytes:
        """Return the 32 bytes that belong to a label at this point."""
        return expand(self.chaining_key, b"stt1 " + label + self.hash, 32)

    def seal(self, label: bytes, plaintext: bytes) -> tuple[bytes, Transcript]:
        """Return the sealed plaintext, and the state once it was said. A label is used once in a state."""
        cipher, nonce = self._cipher(label)
        sealed = cipher.encrypt(nonce, plaintext, self.hash)
        return sealed, self.mix_hash(sealed)

    def open(self, label: bytes, sealed: bytes) -> tuple[bytes, Transcript]:
        """Return the plaintext, and the state once it was said.

        Raises:
            HandshakeError: It was not sealed in this state, or was changed.
        """
        cipher, nonce = self._cipher(label)
        try:
            plaintext = cipher.decrypt(nonce, sealed, self.hash)
        except InvalidTag:
            raise HandshakeError(f"{label.decode().upper()} does not open: another seed, or it was changed") from None
        return plaintext, self.mix_hash(sealed)

    def _cipher(self, label: bytes) -> tuple[ChaCha20Poly1305, bytes]:
        material = expand(self.chaining_key, b"stt1 " + label + self.hash, 44)
        return ChaCha20Poly1305(material[:32]), material[32:]


def hash_after(before: bytes, data: bytes) -> bytes:
    """Return the transcript's hash once ``data`` was said."""
    return hashlib.sha3_256(before + len(data).to_bytes(4, "big") + data).digest()
