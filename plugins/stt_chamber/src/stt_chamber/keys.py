"""Which key protects what: from a seed or a passphrase to the key of one record (reference, "Keys")."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA3_256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from stt_chamber.entries import encode_text
from stt_core import seed_from_passphrase
from stt_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY_SIZE: Final = 32
"""Bytes of every key."""

TAG_SIZE: Final = 16
"""Bytes that AES-256-GCM adds."""

MIN_SEED_SIZE: Final = 32
"""Bytes of a seed, at least."""

_HASH: Final = SHA3_256()
_NONCE: Final = bytes(12)


@attrs.frozen
class Seed:
    """A seed as the secret that opens a chamber.

    Args:
        value: At least 32 random bytes.

    Raises:
        ConfigError: It is no such thing.
    """

    value: bytes = attrs.field(repr=False)

    @value.validator
    def _check(self, _: attrs.Attribute[bytes], value: bytes) -> None:
        if not isinstance(value, bytes) or len(value) < MIN_SEED_SIZE:
            raise ConfigError(f"the seed of a chamber is at least {MIN_SEED_SIZE} random bytes")

    def key_material(self, _: bytes) -> bytes:
        """Return what the wrapping key is made from; the salt comes in later."""
        return self.value


@attrs.frozen
class Passphrase:
    """A passphrase as the secret that opens a chamber, stretched by Argon2id.

    Args:
        text: Not empty; its Unicode form does not matter.

    Raises:
        ConfigError: It is empty.
    """

    text: str = attrs.field(repr=False)

    @text.validator
    def _check(self, _: attrs.Attribute[str], text: str) -> None:
        if not text:
            raise ConfigError("the passphrase is empty")

    def key_material(self, salt: bytes) -> bytes:
        """Return what the wrapping key is made from; takes some 0.1 s and 64 MiB."""
        return seed_from_passphrase(self.text, salt)


Secret: TypeAlias = Seed | Passphrase


def wrapping_key(secret: Secret, salt: bytes, chamber_id: bytes) -> bytes:
    """Return the key under which a recipient finds the master key; blocks for a passphrase.

    Args:
        secret: Whose it is.
        salt: 16 bytes, the recipient's own.
        chamber_id: 16 bytes.
    """
    extracted = hmac.digest(salt, secret.key_material(salt), "sha3_256")
    return derive(extracted, b"stt1 chamber wrap" + chamber_id)


def derive(key: bytes, info: bytes) -> bytes:
    """Return the key that belongs to a purpose alone (HKDF-Expand of RFC 5869 with SHA3-256)."""
    return HKDFExpand(_HASH, KEY_SIZE, info).derive(key)


def seal_once(key: bytes, data: bytes, associated: bytes) -> bytes:
    """Return data sealed by AES-256-GCM under a key that seals nothing else, so that the nonce may be zero."""
    return AESGCM(key).encrypt(_NONCE, data, associated)


def open_once(key: bytes, sealed: bytes, associated: bytes) -> bytes:
    """Return what :func:`seal_once` sealed.

    Raises:
        InvalidTag: Of ``cryptography``; the key is another, or something was changed.
    """
    return AESGCM(key).decrypt(_NONCE, sealed, associated)


@attrs.frozen(eq=False)
class Keyring:
    """The data keys of a chamber, by epoch; the highest epoch seals what is new."""

    chamber_id: bytes
    """16 random bytes."""
    _data_keys: Mapping[int, bytes] = attrs.field(repr=False)
    _name_keys: dict[int, bytes] = attrs.field(factory=dict, init=False, repr=False)

    @property
    def epoch(self) -> int:
        """The epoch under which new records are sealed."""
        return max(self._data_keys)

    @property
    def epochs(self) -> frozenset[int]:
        """All epochs whose records can be opened."""
        return frozenset(self._data_keys)

    def data_keys(self) -> dict[int, bytes]:
        """Return the data keys by epoch, to be sealed anew."""
        return dict(self._data_keys)

    def record_key(self, epoch: int, salt: bytes) -> bytes:
        """Return the key of one version of the root.

        Raises:
            KeyError: The epoch is not known.
        """
        return derive(self._data_keys[epoch], b"stt1 chamber root" + self.chamber_id + salt)

    def object_key(self, epoch: int, object_id: bytes) -> bytes:
        """Return the key of all chunks of one object.

        Raises:
            KeyError: The epoch is not known.
        """
        return derive(self._data_keys[epoch], b"stt1 chamber object" + self.chamber_id + object_id)

    def chunk_name(self, epoch: int, object_id: bytes, index: int) -> bytes:
        """Return the 16 bytes under which the store has a chunk: those of one object have nothing in common.

        Raises:
            KeyError: The epoch is not known.
        """
        name_key = self._name_keys.get(epoch)
        if name_key is None:
            name_key = derive(self._data_keys[epoch], b"stt1 chamber names" + self.chamber_id)
            self._name_keys[epoch] = name_key
        return hmac.digest(name_key, object_id + index.to_bytes(8, "big"), "sha3_256")[:16]


def namespace(name: str) -> bytes:
    """Return the 16 bytes with which the store's keys of a chamber begin; a name can be guessed from them.

    Raises:
        ConfigError: The name is no text.
    """
    return hashlib.sha3_256(b"stt1 chamber\x00" + encode_text(name)).digest()[:16]
