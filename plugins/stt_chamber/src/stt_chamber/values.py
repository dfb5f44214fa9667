"""How the values of one open chamber are found and changed, whichever way they come in or go out."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final, TypeVar

import attrs

from stt_chamber.entries import ADDRESS_PREFIX, BYTES, VALUE, Entry, encode_key
from stt_chamber.errors import Conflict, DamagedError, KeyMissing, QuotaExceeded, RollbackDetected
from stt_chamber.ledger import Collected
from stt_core import serialize_stt
from stt_core.errors import ConfigError, LocalError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from stt_chamber.entries import Reference
    from stt_chamber.index import View
    from stt_chamber.ledger import Draft, Ledger
    from stt_core.interfaces import Buffer

MAX_INLINE_SIZE: Final = 2048
"""Bytes of a value that lies in its entry; a larger one has chunks of its own."""

MAX_CHANGES: Final = 10_000
"""Values that one change of the chamber may touch."""

MAX_TTL: Final = 1e12
"""Seconds after which a value may be gone, at most: some 30,000 years."""

T = TypeVar("T")


@attrs.frozen
class Put:
    """One value that is to be stored, its content being where it will stay."""

    key: bytes
    kind: int
    content: bytes | Reference = attrs.field(repr=False)
    ttl: float | None
    started_at: int
    """The state that was seen before the content was written; means nothing where the content is here."""
    expected: int | None = None
    """The revision that the value must have that is there; 0 for none."""

    async def apply(self, draft: Draft) -> int:
        """Make the change in a draft; return the revision.

        Raises:
            Conflict: The value is another than expected.
            Collected: The content may have been taken for an orphan.
            QuotaExceeded: There is no room.
        """
        if not isinstance(self.content, bytes):
            draft.require_kept(self.started_at)
        if self.expected is not None:
            found = await draft.find(self.key)
            revision = found.revision if found else 0
            if revision != self.expected:
                raise Conflict(f"{self.key.decode()!r} has revision {revision}, not {self.expected}")
        expires_at = None if self.ttl is None else draft.now + round(self.ttl * 1000)
        return await draft.put(self.key, Entry(0, self.kind, draft.now, expires_at, self.content))


class Values:
    """What a chamber, and the batches, writers and readers that it hands out, have in common.

    Once it is closed, what reads or changes values raises :class:`~stt_core.errors.LocalError`.

    Args:
        ledger: The state behind the values.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._is_closed = False

    async def close(self) -> None:
        """Refuse what comes from now on, and wait for what is under way."""
        self._is_closed = True
        await self.ledger.wait_idle()

    def require_open(self) -> None:
        """Refuse to go on with a closed chamber."""
        if self._is_closed:
            raise LocalError("the chamber is closed")

    # Reading

    async def consistently(self, what: str, read: Callable[[View], Awaitable[T]]) -> T:
        """Return what ``read`` returns of the newest state.

        Raises:
            DamagedError: What it needs is missing or was changed; the message begins with ``what``.
        """
        self.require_open()
        try:
            return await self.ledger.consistently(read)
        except RollbackDetected:
            raise
        except DamagedError as error:
            raise DamagedError(f"{what}: {error}") from error

    async def entry(self, key: bytes) -> Entry:
        """Return the entry of a value.

        Raises:
            KeyMissing: There is none, or it has expired.
        """
        return await self.consistently(key.decode(), lambda view: self.entry_of(view, key))

    async def entry_of(self, view: View, key: bytes) -> Entry:
        """Return the entry of a value in a given state.

        Raises:
            KeyMissing: There is none, or it has expired.
        """
        entry = await view.find(key)
        if entry is None or entry.is_expired(self.ledger.clock()):
            raise KeyMissing(key.decode())
        return entry

    async def exists(self, key: bytes) -> bool:
        """Return whether there is a value that has not expired."""
        try:
            await self.entry(key)
        except KeyMissing:
            return False
        return True

    # Changing

    async def change(self, operation: Callable[[Draft], Awaitable[T]]) -> T:
        """Make a change, as :meth:`~stt_chamber.ledger.Ledger.change` does; what has expired makes room for it.

        Raises:
            QuotaExceeded: There is no room all the same.
        """
        self.require_open()
        try:
            return await self.ledger.change(operation)
        except QuotaExceeded:
            if not await self.sweep():
                raise
            return await self.ledger.change(operation)

    async def store(
        self, key: bytes, kind: int, data: Buffer, ttl: float | None, *, expected: int | None = None
    ) -> int:
        """Write a value's content where it will stay, and make an entry of it; return the revision."""
        self.require_open()
        if len(data) <= MAX_INLINE_SIZE:
            return await self.put(Put(key, kind, bytes(data), ttl, 0, expected))
        while True:
            started_at = (await self.ledger.refresh()).root.sequence
            content = await self.ledger.objects.write(data)
            try:
                return await self.put(Put(key, kind, content, ttl, started_at, expected))
            except Collected:
                continue

    async def put(self, change: Put) -> int:
        """Make an entry of a content that lies in the store already; where it is refused, remove the content."""
        try:
            return await self.change(change.apply)
        except LocalError:
            # Only here is it certain that nothing refers to it.
            await self.discard([change.content])
            raise

    async def discard(self, contents: Iterable[bytes | Reference]) -> None:
        """Remove contents from the store that no entry refers to."""
        await self.ledger.objects.remove(content for content in contents if not isinstance(content, bytes))

    async def sweep(self) -> int:
        """Remove the values that have expired; return how many."""

        async def expired(view: View) -> Sequence[bytes]:
            now = self.ledger.clock()
            return [key async for key, entry in view.entries() if entry.is_expired(now)]

        async def remove(draft: Draft, keys: Sequence[bytes]) -> int:
            removed = 0
            for key in keys:
                entry = await draft.find_any(key)
                if entry is not None and entry.is_expired(draft.now):
                    await draft.delete(key)
                    removed += 1
            return removed

        keys = await self.consistently("expired values", expired)
        removed = 0
        for start in range(0, len(keys), MAX_CHANGES):
            removed += await self.ledger.change(functools.partial(remove, keys=keys[start : start + MAX_CHANGES]))
        return removed


# What a caller gives


def encode_own_key(key: str) -> bytes:
    """Return the key, in UTF-8, of a value that is not stored under the hash of its content.

    Raises:
        ConfigError: It cannot be one.
    """
    encoded = encode_key(key)
    if key.startswith(ADDRESS_PREFIX):
        raise ConfigError(f"keys that begin with {ADDRESS_PREFIX!r} are those of store_content()")
    return encoded


def encode_value(value: Any) -> tuple[int, Buffer]:
    """Return the kind of a value, and its bytes.

    Raises:
        SerializationError: It cannot be serialized.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return BYTES, value if isinstance(value, bytes) else bytes(value)
    return VALUE, serialize_stt(value)


def checked_ttl(ttl: float | None) -> float | None:
    """Return a time to live.

    Raises:
        ConfigError: It is negative, too long or no number.
    """
    if ttl is not None and not 0 <= ttl <= MAX_TTL:
        raise ConfigError(f"a time to live is from 0 to {MAX_TTL} seconds, or None")
    return ttl
