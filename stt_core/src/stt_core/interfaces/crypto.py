"""What a crypto suite implements: the AEAD that seals frames. The key exchange stays the core's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from stt_core.interfaces.transport import Buffer

KEY_SIZE = 32
"""Bytes of a frame key."""
NONCE_SIZE = 12
"""Bytes of a frame nonce."""
TAG_SIZE = 16
"""Bytes that sealing adds to the plaintext."""


class FrameCipher(Protocol):
    """One AEAD under one key; the shape of the AEAD classes of ``cryptography``, so that those are ciphers as they are.

    Nonces are the caller's duty: one is never used twice with one key.
    """

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None, /) -> bytes:
        """Return ``len(data) + TAG_SIZE`` sealed bytes, followed by the suite's ``metadata_size`` bytes."""

    def decrypt(self, nonce: bytes, data: Buffer, associated_data: Buffer | None, /) -> bytes:
        """Return the plaintext of what :meth:`encrypt` returned; frames are opened where they lie, as views.

        Raises:
            cryptography.exceptions.InvalidTag: The key is another, or any bit of the data, the metadata, the nonce or
                the associated data was changed. Nothing else is raised, whatever a peer sends.
        """


class CryptoSuite(ABC):
    """A way to seal frames, known to both peers by its number.

    The core refuses a suite whose ``authenticated`` is not True.
    """

    name: ClassVar[str]
    """As shown to people, such as ``X25519MLKEM768 + AES-256-GCM``."""

    authenticated: ClassVar[bool] = False
    """Whether every changed bit of sealed data, metadata, nonce and associated data is found."""

    post_quantum: ClassVar[bool] = True
    """Whether the handshake mixes ML-KEM-768 in. Plugins keep it True."""

    max_frames: ClassVar[int]
    """Frames that may be sealed under one key before its secrecy weakens."""

    max_forgeries: ClassVar[int]
    """Frames that may fail to open under one key before its integrity weakens."""

    metadata_size: ClassVar[int] = 0
    """Bytes that sealing writes behind the tag, carried in the frame's crypto metadata field."""

    @abstractmethod
    def cipher(self, key: bytes) -> FrameCipher:
        """Return the AEAD under a key of ``KEY_SIZE`` bytes."""
