"""What a seed is: how one is made, written down, checked, and turned into the keys that prove it.

A shared seed lets a node into a group; its node seed is what it is (:mod:`stt_core.identity`). Both are at least 32
random bytes. No message of an exception here holds any part of a seed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import unicodedata
from typing import TYPE_CHECKING, Final

import attrs
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from stt_core.config import MIN_SEED_SIZE
from stt_core.errors import ConfigError
from stt_core.hkdf import extract

if TYPE_CHECKING:
    from collections.abc import Sequence

SEED_TEXT_PREFIX: Final = "stt-seed-1:"
"""What the text form of a seed begins with."""

MIN_SALT_SIZE: Final = 16
"""Bytes of the salt of a passphrase (RFC 9106 section 3.1)."""

_CHECKSUM_SIZE: Final = 4  # bytes: one mistyped text in four billion passes
_GROUP_SIZE: Final = 8  # letters between two hyphens

# RFC 9106 section 4, the second recommended option: what a small computer can afford.
_ARGON2_ITERATIONS: Final = 3
_ARGON2_LANES: Final = 4
_ARGON2_MEMORY: Final = 64 * 1024  # KiB


def generate_seed() -> bytes:
    """Return a new seed: 32 random bytes."""
    return os.urandom(MIN_SEED_SIZE)


def seed_from_passphrase(passphrase: str, salt: bytes) -> bytes:
    """Return the seed that a passphrase stands for, by Argon2id (RFC 9106); takes some 0.1 s and 64 MiB.

    A recorded INIT lets anybody try passphrases without asking a node, so prefer :func:`generate_seed`.

    Args:
        passphrase: Any text but an empty one; its Unicode form does not matter (NFC).
        salt: At least 16 bytes that all who share the passphrase know and no other group uses, such as the group's
            name and domain. It need not be secret.

    Raises:
        ConfigError: The passphrase is empty, the salt too short, or this build of ``cryptography`` lacks Argon2id.
    """
    if not passphrase:
        raise ConfigError("the passphrase is empty")
    if len(salt) < MIN_SALT_SIZE:
        raise ConfigError(f"the salt of a passphrase has {len(salt)} bytes, but needs at least {MIN_SALT_SIZE}")
    try:
        function = Argon2id(
            salt=salt,
            length=MIN_SEED_SIZE,
            iterations=_ARGON2_ITERATIONS,
            lanes=_ARGON2_LANES,
            memory_cost=_ARGON2_MEMORY,
        )
    except UnsupportedAlgorithm:
        raise ConfigError("this build of cryptography has no Argon2id: it needs OpenSSL 3.2") from None
    return function.derive(unicodedata.normalize("NFC", passphrase).encode())


def encode_seed(seed: bytes) -> str:
    """Return a seed as text to be written down: ``stt-seed-1:`` and groups of letters and digits, checksum included.

    Raises:
        ConfigError: The seed is too short.
    """
    check_seed("the seed", seed)
    letters = base64.b32encode(seed + _checksum(seed)).decode().rstrip("=").lower()
    groups = (letters[start : start + _GROUP_SIZE] for start in range(0, len(letters), _GROUP_SIZE))
    return SEED_TEXT_PREFIX + "-".join(groups)


def decode_seed(text: str) -> bytes:
    """Return the seed of a text; its case, hyphens and white space do not matter.

    Raises:
        ConfigError: What is wrong with the text, without any of it.
    """
    compact = "".join(text.split()).lower()
    if not compact.startswith(SEED_TEXT_PREFIX):
        raise ConfigError(f"this is no seed: its text begins with {SEED_TEXT_PREFIX!r}")
    letters = compact.removeprefix(SEED_TEXT_PREFIX).replace("-", "").upper()
    try:
        data = base64.b32decode(letters + "=" * (-len(letters) % 8))
    except (binascii.Error, ValueError):
        raise ConfigError("the seed's text is cut short or holds other characters than a-z and 2-7") from None
    seed, checksum = data[:-_CHECKSUM_SIZE], data[-_CHECKSUM_SIZE:]
    if not hmac.compare_digest(checksum, _checksum(seed)):
        raise ConfigError("the seed's checksum is wrong: a character is missing or mistyped")
    check_seed("the seed", seed)
    return seed


def check_seed(name: str, seed: bytes) -> None:
    """Refuse what cannot be a seed.

    Args:
        name: What the message calls it.
        seed: The bytes in question.

    Raises:
        ConfigError: It is not bytes, or shorter than 32 of them.
    """
    if not isinstance(seed, bytes):
        raise ConfigError(f"{name} is {type(seed).__name__}, not bytes: decode_seed() reads the text form")
    if len(seed) < MIN_SEED_SIZE:
        raise ConfigError(
            f"{name} has {len(seed)} bytes, but needs at least {MIN_SEED_SIZE} random ones: "
            "make one with `stt keygen`, or seed_from_passphrase()"
        )


@attrs.frozen(eq=False)
class Keyring:
    """The shared seeds of a node, as the keys that prove them; the first is the one it initiates with."""

    pre_shared_keys: tuple[bytes, ...] = attrs.field(repr=False)
    """32 bytes each."""

    @classmethod
    def from_seeds(cls, shared_seeds: bytes | Sequence[bytes], limit: int = 4) -> Keyring:
        """Return the keyring of one shared seed or several.

        Args:
            shared_seeds: At least 32 bytes each; several while a group changes its seed.
            limit: How many a keyring may hold: a stranger's INIT is tried with each.

        Raises:
            ConfigError: There is none, one is too short or there twice, or there are more than the limit.
        """
        seeds = [shared_seeds] if isinstance(shared_seeds, (bytes, str)) else list(shared_seeds)
        if not 1 <= len(seeds) <= limit:
            raise ConfigError(f"{len(seeds)} shared seeds, but from 1 to {limit} are allowed")
        for seed in seeds:
            check_seed("a shared seed", seed)
        if len(set(seeds)) != len(seeds):
            raise ConfigError("a shared seed is there twice")
        return cls(tuple(_pre_shared_key(seed) for seed in seeds))


def check_distinct(node_seed: bytes, keyring: Keyring) -> None:
    """Refuse a node seed that is also a shared seed: all members of the group would be one node.

    Raises:
        ConfigError: They are equal.
    """
    if any(hmac.compare_digest(key, _pre_shared_key(node_seed)) for key in keyring.pre_shared_keys):
        raise ConfigError("node_seed and shared_seed are the same: each node needs a node_seed of its own")


def _pre_shared_key(shared_seed: bytes) -> bytes:
    return extract(b"stt1 seed", shared_seed)


def _checksum(seed: bytes) -> bytes:
    return hashlib.sha3_256(b"stt1 seed text" + seed).digest()[:_CHECKSUM_SIZE]
