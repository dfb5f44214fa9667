"""What goes over the endpoint of a served store: requests, replies and their limits (reference, "Served stores")."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final

import attrs

from stt_core import deserialize_stt, serialize_stt
from stt_core.errors import SerializationError, STTError
from stt_core.interfaces import StorageCapabilities

MAX_KEY_SIZE: Final = 1024
"""Bytes of a key."""

MAX_VALUE_SIZE: Final = 1 << 20
"""Bytes of a value; the records of a chamber have less than 64 KiB."""

MAX_CHANGES: Final = 1024
"""Values and deletions in one request."""

MAX_BATCH_SIZE: Final = 2 << 20
"""Bytes of keys and values in one request: as many chunks as a chamber commits at a time."""

MAX_REQUEST_SIZE: Final = MAX_BATCH_SIZE + (64 << 10)
"""Bytes of the body of a request."""

PIECE_SIZE: Final = 62 << 10
"""Bytes of a value in one reply, so that a sealed chunk is one piece and each reply fits into one message."""

MAX_PAGE_SIZE: Final = 48 << 10
"""Bytes of the keys in one page of a listing."""

MAX_PAGE_KEYS: Final = 1000
"""Keys in one page of a listing."""

MAX_VERSION: Final = (1 << 63) - 1
"""The highest version of a key."""

TAG_SIZE: Final = 16
"""Bytes that tell one value from another where a value is read in pieces."""


class Operation(IntEnum):
    """What a request asks for: its first item."""

    INFO = 0  #: what the store promises, and what the asker may do
    READ = 1  #: a piece of a value
    VERSION = 2  #: the version of a key
    LIST = 3  #: a page of keys
    CHANGE = 4  #: values to set, and keys to remove
    DELETE = 5  #: a key to remove
    STORE_IF = 6  #: a value to set if the version is the expected one


class Status(IntEnum):
    """How a request ended: the first item of a reply."""

    DONE = 0  #: the result follows
    MALFORMED = 1  #: the request is none, or goes beyond a limit
    REFUSED = 2  #: the asker may not do that
    FULL = 3  #: the store would hold more than its quota; nothing was changed
    FAILED = 4  #: the store behind failed; a change may have been made


class Access(IntEnum):
    """What a peer may do with a served store."""

    READ = 1  #: read and list
    WRITE = 2  #: also set and remove


@attrs.frozen
class StoreInfo:
    """What a served store tells of itself."""

    capabilities: StorageCapabilities
    access: Access
    """What the asker may do."""
    used: int
    """Bytes that count against the quota."""
    quota: int | None
    """Bytes that the store may hold; None where nobody may write."""

    def encode(self) -> list[Any]:
        """Return the items of the reply."""
        promised = self.capabilities
        return [promised.durable, promised.atomic_commit, promised.shared, int(self.access), self.used, self.quota]

    @classmethod
    def decode(cls, items: Any) -> StoreInfo:
        """Return what the items say.

        Raises:
            MalformedMessage: They say nothing.
        """
        match items:
            case [
                bool(durable),
                bool(atomic_commit),
                bool(shared),
                (Access.READ | Access.WRITE) as access,
                int(used),
                int() | None as quota,
            ]:
                promised = StorageCapabilities(durable=durable, atomic_commit=atomic_commit, shared=shared)
                return cls(promised, Access(access), used, quota)
        raise MalformedMessage("the store says nothing of itself that can be understood")


class MalformedMessage(STTError):
    """A body is no request or reply, or goes beyond a limit."""


def encode_request(operation: Operation, *arguments: Any) -> bytes:
    """Return the body of a request."""
    return serialize_stt([int(operation), *arguments])


def decode_request(body: bytes) -> list[Any]:
    """Return the items of a request; the operation that the first one names gives the others their meaning.

    Raises:
        MalformedMessage: The body is too long, or no list.
    """
    if len(body) > MAX_REQUEST_SIZE:
        raise MalformedMessage(f"a request of {len(body)} bytes, but at most {MAX_REQUEST_SIZE} are taken")
    return _decode_list(body)


def encode_reply(status: Status, result: Any) -> bytes:
    """Return the body of a reply."""
    return serialize_stt([int(status), result])


def decode_reply(body: bytes) -> tuple[int, Any]:
    """Return the status, which may be one that is not known, and the result.

    Raises:
        MalformedMessage: The body is no reply.
    """
    match _decode_list(body):
        case [int(status), result]:
            return status, result
    raise MalformedMessage("the reply is none of a served store")


def endpoint_of(name: str) -> str:
    """Return the name of the endpoint of a served store."""
    return f"stt.store/1/{name}"


def checked_key(value: Any) -> bytes:
    """Return a key.

    Raises:
        MalformedMessage: It is none.
    """
    if not isinstance(value, bytes) or len(value) > MAX_KEY_SIZE:
        raise MalformedMessage(f"a key has at most {MAX_KEY_SIZE} bytes")
    return value


def checked_value(value: Any) -> bytes:
    """Return a value.

    Raises:
        MalformedMessage: It is none.
    """
    if not isinstance(value, bytes) or len(value) > MAX_VALUE_SIZE:
        raise MalformedMessage(f"a value has at most {MAX_VALUE_SIZE} bytes")
    return value


def _decode_list(body: bytes) -> list[Any]:
    try:
        items = deserialize_stt(body)
    except SerializationError as error:
        raise MalformedMessage(f"a message is malformed: {error}") from None
    if not isinstance(items, list):
        raise MalformedMessage("a message is no list")
    return items
