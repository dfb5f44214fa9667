"""The header of a chamber: who may open it, and under which master key its data keys lie (reference, "Header")."""

from __future__ import annotations

import secrets as random
import struct
from typing import TYPE_CHECKING, Final

import attrs
from cryptography.exceptions import InvalidTag

from stt_chamber.errors import DamagedError, WrongSecret
from stt_chamber.keys import (
    KEY_SIZE,
    TAG_SIZE,
    Keyring,
    Passphrase,
    Seed,
    derive,
    open_once,
    seal_once,
    wrapping_key,
)
from stt_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stt_chamber.keys import Secret

MAGIC: Final = b"STTC\x01"
"""What a header begins with; the last byte is the version of the format."""

MAX_RECIPIENTS: Final = 16
"""How many may open one chamber: each passphrase costs whoever opens it an Argon2id."""

MAX_EPOCHS: Final = 16
"""Data keys that a header may hold; two at most are in use."""

_SALT_SIZE: Final = 16
_FRONT: Final = struct.Struct(">5s16sQB")
_RECIPIENT: Final = struct.Struct(f">B{_SALT_SIZE}s{KEY_SIZE + TAG_SIZE}s")
_DATA_KEY: Final = struct.Struct(f">I{KEY_SIZE}s")
_KINDS: Final[dict[type, int]] = {Seed: 1, Passphrase: 2}


@attrs.frozen
class Recipient:
    """One of those who may open a chamber: the master key, sealed for its secret."""

    kind: int
    """1 for a seed, 2 for a passphrase."""
    salt: bytes
    """16 random bytes."""
    wrapped_key: bytes = attrs.field(repr=False)
    """The master key sealed under the recipient's wrapping key: 48 bytes."""


@attrs.frozen
class Header:
    """A header as it lies in the store, still locked."""

    chamber_id: bytes
    """16 random bytes."""
    generation: int
    """Counts the changes of this record from 1."""
    recipients: tuple[Recipient, ...]
    _front: bytes = attrs.field(repr=False)
    _salt: bytes = attrs.field(repr=False)
    _sealed_keys: bytes = attrs.field(repr=False)

    @classmethod
    def decode(cls, data: bytes) -> Header:
        """Return the header of its bytes.

        Raises:
            DamagedError: They are no header, or one of a version that is not known.
        """
        try:
            magic, chamber_id, generation, count = _FRONT.unpack_from(data)
            if magic != MAGIC:
                raise DamagedError("this is no header of a chamber, or one of another version of the format")
            if not 1 <= count <= MAX_RECIPIENTS:
                raise DamagedError(f"the header has {count} recipients")
            end = _FRONT.size + count * _RECIPIENT.size
            recipients = tuple(
                Recipient(*_RECIPIENT.unpack_from(data, _FRONT.size + number * _RECIPIENT.size))
                for number in range(count)
            )
        except struct.error:
            raise DamagedError("the header is cut short") from None
        return cls(
            chamber_id, generation, recipients, data[:end], data[end : end + _SALT_SIZE], data[end + _SALT_SIZE :]
        )

    def opens_alike(self, other: Header) -> bool:
        """Return whether two headers are of one generation with the same recipients; data keys may differ."""
        return self._front == other._front

    def unlock(self, secrets: Sequence[Secret]) -> UnlockedHeader:
        """Return the header with its keys; blocks where there is a passphrase among the secrets.

        Raises:
            WrongSecret: None of the secrets is that of a recipient.
            DamagedError: One is, but something else in the header was changed.
        """
        for recipient in self.recipients:
            for secret in secrets:
                if _KINDS[type(secret)] != recipient.kind:
                    continue
                key = wrapping_key(secret, recipient.salt, self.chamber_id)
                try:
                    master_key = open_once(key, recipient.wrapped_key, MAGIC)
                except InvalidTag:
                    continue
                return UnlockedHeader(self, master_key, self._open_keys(master_key))
        raise WrongSecret("no seed or passphrase that was given opens this chamber, or its header was changed")

    def _open_keys(self, master_key: bytes) -> Keyring:
        try:
            data = open_once(_key_of_keys(master_key, self._salt), self._sealed_keys, self._front)
            keys: dict[int, bytes] = dict(_DATA_KEY.iter_unpack(data))
        except (InvalidTag, struct.error):
            raise DamagedError("the header was changed") from None
        if not 1 <= len(keys) <= MAX_EPOCHS:
            raise DamagedError(f"the header has {len(keys)} data keys")
        return Keyring(self.chamber_id, keys)


@attrs.frozen(eq=False)
class UnlockedHeader:
    """A header and the keys that were in it."""

    header: Header
    _master_key: bytes = attrs.field(repr=False)
    keyring: Keyring

    def with_recipient(self, secret: Secret) -> bytes:
        """Return the bytes of a header that one more can open.

        Raises:
            ConfigError: There are too many.
        """
        if len(self.header.recipients) >= MAX_RECIPIENTS:
            raise ConfigError(f"a chamber has at most {MAX_RECIPIENTS} recipients")
        recipients = (*self.header.recipients, _recipient(secret, self.header.chamber_id, self._master_key))
        return self._encode(recipients, self._master_key, self.keyring.data_keys())

    def with_secrets(self, secrets: Sequence[Secret]) -> bytes:
        """Return the bytes of a header with a new master key that these secrets open, and no other.

        Raises:
            ConfigError: There are none, or too many.
        """
        master_key = random.token_bytes(KEY_SIZE)
        recipients = _recipients(secrets, self.header.chamber_id, master_key)
        return self._encode(recipients, master_key, self.keyring.data_keys())

    def with_new_data_key(self) -> bytes:
        """Return the bytes of a header with one more data key, which seals all that is new."""
        keys = {**self.keyring.data_keys(), self.keyring.epoch + 1: random.token_bytes(KEY_SIZE)}
        return self._encode(self.header.recipients, self._master_key, keys)

    def with_data_keys_from(self, oldest_epoch: int) -> bytes:
        """Return the bytes of a header that has forgotten all data keys before an epoch."""
        keys = {epoch: key for epoch, key in self.keyring.data_keys().items() if epoch >= oldest_epoch}
        return self._encode(self.header.recipients, self._master_key, keys)

    def with_data_keys_of(self, keyring: Keyring) -> bytes:
        """Return the bytes of this header, of the same generation, with the data keys of another besides its own.

        It is for the time in which one state of a replica takes the place of another, under other data keys.
        """
        keys = {**keyring.data_keys(), **self.keyring.data_keys()}
        header = self.header
        return _encode_header(header.chamber_id, header.generation, header.recipients, self._master_key, keys)

    def _encode(self, recipients: Sequence[Recipient], master_key: bytes, data_keys: Mapping[int, bytes]) -> bytes:
        return _encode_header(self.header.chamber_id, self.header.generation + 1, recipients, master_key, data_keys)


def create_header(secrets: Sequence[Secret]) -> bytes:
    """Return the bytes of the header of a new chamber; blocks where there is a passphrase among the secrets.

    Raises:
        ConfigError: There are no secrets, or too many.
    """
    chamber_id = random.token_bytes(16)
    master_key = random.token_bytes(KEY_SIZE)
    recipients = _recipients(secrets, chamber_id, master_key)
    return _encode_header(chamber_id, 1, recipients, master_key, {1: random.token_bytes(KEY_SIZE)})


def _recipients(secrets: Sequence[Secret], chamber_id: bytes, master_key: bytes) -> list[Recipient]:
    if not 1 <= len(secrets) <= MAX_RECIPIENTS:
        raise ConfigError(f"a chamber has 1 to {MAX_RECIPIENTS} recipients, not {len(secrets)}")
    return [_recipient(secret, chamber_id, master_key) for secret in secrets]


def _recipient(secret: Secret, chamber_id: bytes, master_key: bytes) -> Recipient:
    salt = random.token_bytes(_SALT_SIZE)
    wrapped_key = seal_once(wrapping_key(secret, salt, chamber_id), master_key, MAGIC)
    return Recipient(_KINDS[type(secret)], salt, wrapped_key)


def _encode_header(
    chamber_id: bytes,
    generation: int,
    recipients: Sequence[Recipient],
    master_key: bytes,
    data_keys: Mapping[int, bytes],
) -> bytes:
    front = _FRONT.pack(MAGIC, chamber_id, generation, len(recipients)) + b"".join(
        _RECIPIENT.pack(recipient.kind, recipient.salt, recipient.wrapped_key) for recipient in recipients
    )
    salt = random.token_bytes(_SALT_SIZE)
    keys = b"".join(_DATA_KEY.pack(*item) for item in sorted(data_keys.items()))
    return front + salt + seal_once(_key_of_keys(master_key, salt), keys, front)


def _key_of_keys(master_key: bytes, salt: bytes) -> bytes:
    return derive(master_key, b"stt1 chamber keys" + salt)
