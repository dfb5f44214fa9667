"""Which key pairs a responder offers in its CHALLENGEs, and until when.

Making an ML-KEM key pair is a third of a responder's work, so one is offered for up to a second. What tells the
handshakes of that second apart is the responder's nonce. A handshake in progress keeps the ML-KEM pair that it offered
until it ends: what was recorded stays closed once the last of them has ended.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

if TYPE_CHECKING:
    from collections.abc import Callable


class X25519Pair:
    """A key pair for one exchange with each of several peers."""

    __slots__ = ("private_key", "public_bytes")

    def __init__(self, private_key: X25519PrivateKey) -> None:
        self.private_key = private_key
        self.public_bytes = private_key.public_key().public_bytes_raw()
        """32 bytes."""

    @classmethod
    def make(cls, random: Callable[[int], bytes]) -> X25519Pair:
        """Return a new pair from 32 random bytes."""
        return cls(X25519PrivateKey.from_private_bytes(random(32)))


class MLKEMPair:
    """A key pair to which peers encapsulate secrets (FIPS 203)."""

    __slots__ = ("private_key", "public_bytes")

    def __init__(self, private_key: MLKEM768PrivateKey) -> None:
        self.private_key = private_key
        self.public_bytes = private_key.public_key().public_bytes_raw()
        """1184 bytes."""

    @classmethod
    def make(cls, random: Callable[[int], bytes]) -> MLKEMPair:
        """Return a new pair from 64 random bytes, the ``d || z`` of FIPS 203."""
        return cls(MLKEM768PrivateKey.from_seed_bytes(random(64)))


class EphemeralKeys:
    """A responder's current key pairs, each made when first asked for.

    Args:
        lifetime: Seconds for which a pair is offered; 0 makes new ones after each :meth:`advance`.
        random: Returns that many random bytes.
    """

    __slots__ = ("_expires_at", "_lifetime", "_ml_kem", "_now", "_random", "_x25519")

    def __init__(self, lifetime: float, random: Callable[[int], bytes] = os.urandom) -> None:
        self._lifetime = lifetime
        self._random = random
        self._now = 0.0
        self._x25519: X25519Pair | None = None
        self._ml_kem: MLKEMPair | None = None
        self._expires_at: float | None = None

    def advance(self, now: float) -> None:
        """Erase the pairs whose time is over; to be called before each use, and when :attr:`expires_at` comes."""
        self._now = now
        if self._expires_at is not None and now >= self._expires_at:
            self._x25519 = None
            self._ml_kem = None
            self._expires_at = None

    @property
    def expires_at(self) -> float | None:
        """When the pairs are to be erased; None while there are none."""
        return self._expires_at

    def x25519(self) -> X25519Pair:
        """Return the current X25519 pair."""
        if self._x25519 is None:
            self._x25519 = X25519Pair.make(self._random)
            self._start()
        return self._x25519

    def ml_kem(self) -> MLKEMPair:
        """Return the current ML-KEM-768 pair."""
        if self._ml_kem is None:
            self._ml_kem = MLKEMPair.make(self._random)
            self._start()
        return self._ml_kem

    def _start(self) -> None:
        if self._expires_at is None:
            self._expires_at = self._now + self._lifetime
