"""HKDF of RFC 5869 over HMAC-SHA3-256: how each secret of STT comes from another."""

from __future__ import annotations

import hmac
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA3_256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

_SHA3_256: Final = SHA3_256()


def extract(salt: bytes, key_material: bytes) -> bytes:
    """Return 32 bytes that are as good as random if either input is (RFC 5869 section 2.2)."""
    # One HMAC; `HKDF.extract` of cryptography does not exist in 48, the oldest version that we run on.
    return hmac.digest(salt, key_material, "sha3_256")


def expand(secret: bytes, info: bytes, size: int) -> bytes:
    """Return ``size`` bytes that belong to ``info`` alone (RFC 5869 section 2.3).

    Args:
        secret: What :func:`extract` or this function returned.
        info: The purpose; two purposes never share one.
        size: At most 8160 bytes.
    """
    return HKDFExpand(_SHA3_256, size, info).derive(secret)
