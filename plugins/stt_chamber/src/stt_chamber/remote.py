"""A store that a peer serves, as a store of this node: each call is a request over a session."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from stt_chamber.errors import StoreFull, StoreRefused
from stt_chamber.store_messages import (
    MAX_BATCH_SIZE,
    MAX_CHANGES,
    MAX_KEY_SIZE,
    MAX_PAGE_KEYS,
    MAX_VALUE_SIZE,
    MAX_VERSION,
    PIECE_SIZE,
    MalformedMessage,
    Operation,
    Status,
    StoreInfo,
    decode_reply,
    encode_request,
    endpoint_of,
)
from stt_chamber.tasks import run_together
from stt_core.errors import EndpointError, EndpointErrorCode, RequestTimeout, SessionClosed, StorageError
from stt_core.interfaces import StorageProvider, Version

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from stt_core import STTSession

REQUEST_TIMEOUT: Final = 60.0
"""Seconds that the peer has for an answer: 1 MiB goes over a slow line in that time, too."""

CHANGES_AT_ONCE: Final = 4
"""Requests of one commit that are under way at a time: as many long ones as a node reads of one session."""

_TRIES: Final = 8  # to read a value that is replaced again and again, in pieces

T = TypeVar("T")


class RemoteStorage(StorageProvider):
    """A store that a peer serves with :class:`~stt_chamber.serving.StoreServer`; made by :meth:`open`.

    Whatever the peer answers, a call returns what a store may return, or raises StorageError. That it is what was
    stored, a chamber finds out by itself. A key has at most 1024 bytes, a value 1 MiB.

    Args:
        session: The session with the peer; it stays the caller's.
        name: Which of its stores.
        info: What the peer told of it.
    """

    def __init__(self, session: STTSession, name: str, info: StoreInfo) -> None:
        # A commit of many values takes several requests.
        self.capabilities = type(info.capabilities)(
            durable=info.capabilities.durable, atomic_commit=False, shared=info.capabilities.shared
        )
        self._session = session
        self._endpoint = endpoint_of(name)
        self._is_closed = False

    @classmethod
    async def open(cls, session: STTSession, name: str = "") -> Self:
        """Ask a peer for a store.

        Args:
            session: The session with the peer; the caller closes it after the store.
            name: Which of its stores.

        Raises:
            StoreRefused: This node may not use it.
            StorageError: There is none, or the session failed.
        """
        result = await _ask(session, endpoint_of(name), encode_request(Operation.INFO))
        try:
            return cls(session, name, StoreInfo.decode(result))
        except MalformedMessage as error:
            raise StorageError(str(error)) from None

    async def info(self) -> StoreInfo:
        """Return what the peer tells of the store."""
        try:
            return StoreInfo.decode(await self._request(Operation.INFO))
        except MalformedMessage as error:
            raise StorageError(str(error)) from None

    async def store(self, key: bytes, value: bytes) -> None:
        """Set the value of a key."""
        await self._change([(key, bytes(value))], [])

    async def retrieve(self, key: bytes) -> bytes | None:
        """Return the value of a key, or None."""
        for _ in range(_TRIES):
            found = await self._read(key, 0)
            if found is None:
                return None
            size, tag, piece = found
            pieces = [piece]
            received = len(piece)
            while received < size:
                found = await self._read(key, received)
                if found is None or found[:2] != (size, tag):
                    break  # it was replaced meanwhile
                pieces.append(found[2])
                received += len(found[2])
            else:
                return b"".join(pieces)
        raise StorageError("a value was replaced again and again while it was read")

    async def exists(self, key: bytes) -> bool:
        """Return whether a key has a value."""
        return await self.version(key) != 0

    async def delete(self, key: bytes) -> bool:
        """Remove a key; return whether it was there."""
        return _checked(await self._request(Operation.DELETE, _sendable(key)), bool)

    async def list_keys(self, prefix: bytes = b"") -> AsyncIterator[bytes]:
        """Iterate over the keys that begin with a prefix, ascending."""
        after: bytes | None = None
        while True:
            match await self._request(Operation.LIST, _sendable(prefix), after):
                case [[*page], bool(is_last)] if len(page) <= MAX_PAGE_KEYS and (page or is_last):
                    pass
                case _:
                    raise _not_understood()
            for key in page:
                if not isinstance(key, bytes) or not key.startswith(prefix) or (after is not None and key <= after):
                    raise StorageError("the peer lists keys out of order")
                after = key
                yield key
            if is_last:
                return

    async def version(self, key: bytes) -> Version:
        """Return the version of a key's value; 0 when it is absent."""
        return _checked_version(await self._request(Operation.VERSION, _sendable(key)))

    async def store_if(self, key: bytes, value: bytes, expected_version: Version) -> Version | None:
        """Set the value if its version is the expected one; return the new one, or None."""
        value = _sendable_value(bytes(value))
        result = await self._request(Operation.STORE_IF, _sendable(key), value, expected_version)
        return None if result is None else _checked_version(result)

    async def commit(self, puts: Mapping[bytes, bytes], deletes: Sequence[bytes] = ()) -> None:
        """Set values, then remove keys, in as many requests as it takes; each of these is one commit of the peer's."""
        changes = [(key, bytes(value)) for key, value in puts.items()]
        turns = asyncio.Semaphore(CHANGES_AT_ONCE)

        async def change(some: Sequence[tuple[bytes, bytes]]) -> None:
            async with turns:
                await self._change(some, [])

        batches = list(_batches(changes))
        gone = list(dict.fromkeys(deletes))
        if len(batches) <= 1 and len(changes) + len(gone) <= MAX_CHANGES:
            await self._change(changes, gone)
            return
        await run_together(change(batch) for batch in batches)
        for start in range(0, len(gone), MAX_CHANGES):
            await self._change([], gone[start : start + MAX_CHANGES])

    async def close(self) -> None:
        """Ask nothing any more; the session stays open. Calling it twice is allowed."""
        self._is_closed = True

    # Internals

    async def _read(self, key: bytes, offset: int) -> tuple[int, bytes, bytes] | None:
        match await self._request(Operation.READ, _sendable(key), offset):
            case None:
                return None
            case [int(size), bytes(tag), bytes(piece)] if len(piece) == min(size - offset, PIECE_SIZE):
                if size > MAX_VALUE_SIZE:
                    raise StorageError(f"the peer has a value of {size} bytes, but {MAX_VALUE_SIZE} are the most")
                return size, tag, piece
        raise _not_understood()

    async def _change(self, puts: Sequence[tuple[bytes, bytes]], deletes: Sequence[bytes]) -> None:
        result = await self._request(
            Operation.CHANGE,
            [[_sendable(key), _sendable_value(value)] for key, value in puts],
            [_sendable(key) for key in deletes],
        )
        if result is not None:
            raise _not_understood()

    async def _request(self, operation: Operation, *arguments: Any) -> Any:
        if self._is_closed:
            raise StorageError("the store of the peer is closed")
        return await _ask(self._session, self._endpoint, encode_request(operation, *arguments))


async def _ask(session: STTSession, endpoint: str, body: bytes) -> Any:
    """Return the result of a request.

    Raises:
        StoreRefused: The peer does not allow it.
        StoreFull: The store has no room.
        StorageError: It failed; a change may have been made.
    """
    try:
        status, result = decode_reply(await session.request(endpoint, body, timeout=REQUEST_TIMEOUT))
    except EndpointError as error:
        if error.code == EndpointErrorCode.UNKNOWN:
            raise StorageError("the peer serves no store of that name") from None
        raise StorageError(f"the peer failed: {error}") from error
    except (SessionClosed, RequestTimeout) as error:
        raise StorageError(f"the store of the peer cannot be reached: {error}") from error
    except MalformedMessage as error:
        raise StorageError(str(error)) from None
    if status == Status.DONE:
        return result
    if not isinstance(result, str):
        raise _not_understood()
    kinds: dict[int, type[StorageError]] = {Status.REFUSED: StoreRefused, Status.FULL: StoreFull}
    raise kinds.get(status, StorageError)(f"the peer answers: {result}")


def _not_understood() -> StorageError:
    return StorageError("the peer answers something else than was asked for")


def _checked(result: Any, kind: type[T]) -> T:
    if not isinstance(result, kind):
        raise _not_understood()
    return result


def _checked_version(result: Any) -> Version:
    version = _checked(result, int)
    if isinstance(version, bool) or not 0 <= version <= MAX_VERSION:
        raise _not_understood()
    return version


def _sendable(key: bytes) -> bytes:
    if len(key) > MAX_KEY_SIZE:
        raise StorageError(f"a key of {len(key)} bytes, but a served store takes at most {MAX_KEY_SIZE}")
    return bytes(key)


def _sendable_value(value: bytes) -> bytes:
    if len(value) > MAX_VALUE_SIZE:
        raise StorageError(f"a value of {len(value)} bytes, but a served store takes at most {MAX_VALUE_SIZE}")
    return value


def _batches(changes: Sequence[tuple[bytes, bytes]]) -> Iterator[list[tuple[bytes, bytes]]]:
    batch: list[tuple[bytes, bytes]] = []
    size = 0
    for key, value in changes:
        if batch and (size + len(key) + len(value) > MAX_BATCH_SIZE or len(batch) == MAX_CHANGES):
            yield batch
            batch, size = [], 0
        batch.append((key, value))
        size += len(key) + len(value)
    if batch:
        yield batch
