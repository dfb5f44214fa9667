"""Who a node is: the Ed25519 key that its node seed stands for, and the node id that is the hash of the public half."""

from __future__ import annotations

import hashlib
from typing import Final

import attrs
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from stt_core.errors import HandshakeError
from stt_core.hkdf import expand, extract
from stt_core.seeds import check_seed

NODE_ID_SIZE: Final = 32
"""Bytes of a node id."""

PUBLIC_KEY_SIZE: Final = 32
"""Bytes of an Ed25519 public key."""

SIGNATURE_SIZE: Final = 64
"""Bytes of an Ed25519 signature."""

# The y coordinates of the eight points of small order, as RFC 8032 writes them, less the sign of x; and the two that
# are written a second time, above the field's prime. Any message verifies under them.
_SMALL_ORDER: Final = frozenset(
    bytes.fromhex(encoding)
    for encoding in (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    )
)


@attrs.frozen(eq=False)
class Identity:
    """A node's own key pair; sealed by its node seed, named by its node id."""

    node_id: bytes
    """32 bytes, public: SHA3-256 of the public key."""
    public_key: bytes
    """32 bytes."""
    _private_key: Ed25519PrivateKey = attrs.field(repr=False)

    @classmethod
    def from_seed(cls, node_seed: bytes) -> Identity:
        """Return the identity of a node seed; the same one every time.

        Raises:
            ConfigError: The seed is not bytes, or shorter than 32 of them.
        """
        check_seed("node_seed", node_seed)
        secret = expand(extract(b"stt1 node", node_seed), b"stt1 identity", 32)
        private_key = Ed25519PrivateKey.from_private_bytes(secret)
        public_key = private_key.public_key().public_bytes_raw()
        return cls(node_id_of(public_key), public_key, private_key)

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature of a message."""
        return self._private_key.sign(message)


def node_id_of(public_key: bytes) -> bytes:
    """Return the node id of a public key: who has the key can prove the id, and nobody else."""
    return hashlib.sha3_256(public_key).digest()


def verify(public_key: bytes, signature: bytes, message: bytes) -> None:
    """Check that the holder of a public key signed a message.

    Args:
        public_key: Any bytes.
        signature: Any bytes.
        message: What should have been signed.

    Raises:
        HandshakeError: It did not, or the key is one under which any message verifies, or no key at all.
    """
    if len(public_key) != PUBLIC_KEY_SIZE:
        raise HandshakeError(f"a public key of {len(public_key)} bytes instead of {PUBLIC_KEY_SIZE}")
    if bytes((*public_key[:-1], public_key[-1] & 0x7F)) in _SMALL_ORDER:
        raise HandshakeError("a public key of small order, under which any message verifies")
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise HandshakeError("the signature is not that of the public key") from None
