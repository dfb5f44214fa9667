"""What a chamber knows of one value, and how that is written: entries, and runs of them (reference, "Entries")."""

from __future__ import annotations

import struct
from typing import Any, Final, TypeAlias

import attrs

from stt_chamber.errors import DamagedError
from stt_core import deserialize_stt, serialize_stt
from stt_core.errors import ConfigError, SerializationError

MAX_KEY_SIZE: Final = 1024
"""Bytes of a key in UTF-8."""

BYTES: Final = 0
"""The kind of a value that is plain bytes."""

VALUE: Final = 1
"""The kind of a value in STT serialization."""

ADDRESS_PREFIX: Final = "sha3-256:"
"""What the keys of values begin with that are stored under the hash of their content."""

Run: TypeAlias = dict[bytes, bytes]
"""Encoded entries by key (UTF-8); an empty one says that the key was deleted."""

_KEY_LENGTH: Final = struct.Struct(">H")
_ENTRY_LENGTH: Final = struct.Struct(">I")
_RUN_ITEM_SIZE: Final = _KEY_LENGTH.size + _ENTRY_LENGTH.size


@attrs.frozen
class Reference:
    """Where bytes lie that are too many for an entry: an object of sealed chunks."""

    object_id: bytes
    """16 random bytes."""
    epoch: int
    """The data key that it is sealed under."""
    size: int
    """Bytes, without padding."""

    def encode(self) -> list[Any]:
        """Return the reference as STT serialization takes it."""
        return [self.object_id, self.epoch, self.size]

    @classmethod
    def decode(cls, value: Any) -> Reference:
        """Return the reference of its form in STT serialization.

        Raises:
            DamagedError: It is none.
        """
        match value:
            case [bytes(object_id), int(epoch), int(size)] if len(object_id) == 16 and size >= 0:
                return cls(object_id, epoch, size)
        raise DamagedError("a reference is malformed")


@attrs.frozen
class Entry:
    """One value as the index has it."""

    revision: int
    """Counts all changes of the chamber; no two values that were ever stored in it have the same."""
    kind: int
    """:data:`BYTES` or :data:`VALUE`."""
    modified_at: int
    """Milliseconds since 1970."""
    expires_at: int | None
    """Likewise; None for never."""
    content: bytes | Reference = attrs.field(repr=False)
    """The bytes themselves where they are few."""

    @property
    def size(self) -> int:
        """Bytes of the value."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.size

    @property
    def reference(self) -> Reference | None:
        """The object that holds the value, if one does."""
        return None if isinstance(self.content, bytes) else self.content

    def is_expired(self, now: int) -> bool:
        """Return whether its time is over, with ``now`` in milliseconds since 1970."""
        return self.expires_at is not None and self.expires_at <= now

    def encode(self) -> bytes:
        """Return the bytes of the entry."""
        content = self.content if isinstance(self.content, bytes) else self.content.encode()
        return serialize_stt([self.revision, self.kind, self.modified_at, self.expires_at, content])

    @classmethod
    def decode(cls, data: bytes) -> Entry:
        """Return the entry of its bytes.

        Raises:
            DamagedError: They are none.
        """
        try:
            match deserialize_stt(data):
                case [int(revision), 0 | 1 as kind, int(modified_at), int() | None as expires_at, bytes(content)]:
                    return cls(revision, kind, modified_at, expires_at, content)
                case [int(revision), 0 | 1 as kind, int(modified_at), int() | None as expires_at, [*content]]:
                    return cls(revision, kind, modified_at, expires_at, Reference.decode(content))
        except SerializationError as error:
            raise DamagedError(f"an entry is malformed: {error}") from None
        raise DamagedError("an entry is malformed")


def encode_key(key: str) -> bytes:
    """Return a key in UTF-8.

    Raises:
        ConfigError: It is no text, empty or too long.
    """
    data = encode_text(key)
    if not 1 <= len(data) <= MAX_KEY_SIZE:
        raise ConfigError(f"a key has 1 to {MAX_KEY_SIZE} bytes in UTF-8, not {len(data)}")
    return data


def encode_text(text: str) -> bytes:
    """Return a text in UTF-8: a key, a part of one, or the name of a chamber.

    Raises:
        ConfigError: It is none.
    """
    if not isinstance(text, str):
        raise ConfigError(f"a key or name is a str, not {type(text).__name__}")
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ConfigError("a key or name with lone surrogates is no text") from None


def weight(run: Run) -> int:
    """Return the bytes that a run takes when it is written."""
    return sum(len(key) + len(entry) + _RUN_ITEM_SIZE for key, entry in run.items())


def encode_run(run: Run) -> bytes:
    """Return the bytes of a run, its keys ascending."""
    parts: list[bytes] = []
    for key in sorted(run):
        entry = run[key]
        parts += (_KEY_LENGTH.pack(len(key)), key, _ENTRY_LENGTH.pack(len(entry)), entry)
    return b"".join(parts)


def decode_run(data: bytes) -> Run:
    """Return the run of its bytes; the entries are decoded when they are needed.

    Raises:
        DamagedError: They are none.
    """
    run: Run = {}
    offset = 0
    last = b""
    try:
        while offset < len(data):
            (length,) = _KEY_LENGTH.unpack_from(data, offset)
            start = offset + _KEY_LENGTH.size
            key = data[start : start + length]
            (length,) = _ENTRY_LENGTH.unpack_from(data, start + length)
            start += len(key) + _ENTRY_LENGTH.size
            offset = start + length
            if key <= last:
                raise DamagedError("the keys of a run do not ascend")
            run[key] = data[start:offset]
            last = key
    except struct.error:
        raise DamagedError("a run is cut short") from None
    if offset != len(data):
        raise DamagedError("a run is cut short")
    return run
