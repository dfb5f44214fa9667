"""An encrypted key-value store over any storage: what a program keeps, readable by nobody who has the store alone."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import time
from collections.abc import AsyncIterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias, TypeVar

import attrs

from stt_chamber.entries import BYTES, VALUE, Entry, encode_key, encode_text
from stt_chamber.errors import Conflict, DamagedError, KeyMissing, NoChamber, QuotaExceeded, RollbackDetected
from stt_chamber.header import Header, create_header
from stt_chamber.keys import namespace
from stt_chamber.ledger import Collected, Ledger, Names
from stt_chamber.root import DIGEST_SIZE, Root
from stt_core import deserialize_stt, serialize_stt
from stt_core.errors import ConfigError, LocalError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
    from types import TracebackType

    from stt_chamber.entries import Reference
    from stt_chamber.index import View
    from stt_chamber.keys import Secret
    from stt_chamber.ledger import Draft
    from stt_chamber.objects import ObjectWriter
    from stt_chamber.root import Position
    from stt_core.interfaces import Buffer, StorageProvider

MAX_INLINE_SIZE: Final = 2048
"""Bytes of a value that lies in its entry; a larger one has chunks of its own."""

MAX_BATCH: Final = 10_000
"""Changes of one batch."""

MAX_QUOTA: Final = (1 << 63) - 1
"""Bytes that a quota may be."""

MAX_TTL: Final = 1e12
"""Seconds after which a value may be gone, at most: some 30,000 years."""

ADDRESS_PREFIX: Final = "sha3-256:"
"""What the keys of values begin with that are stored under the hash of their content."""

Keys: TypeAlias = list[str]
"""Named here, as :meth:`Chamber.list` hides the class of that name."""

T = TypeVar("T")


@attrs.frozen
class Metadata:
    """What a chamber knows of a value without reading it."""

    key: str
    size: int
    """Bytes of the value, or of its serialization."""
    is_serialized: bool
    """Whether it was stored as an object of STT serialization rather than as plain bytes."""
    revision: int
    """Counts all changes of the chamber; a value that is stored again gets another one."""
    modified_at: float
    """Seconds since 1970."""
    expires_at: float | None
    """Likewise; None for never."""


@attrs.frozen
class ChamberInfo:
    """A chamber as a whole."""

    chamber_id: bytes
    """16 random bytes."""
    count: int
    """Values, with those that have expired but are not swept yet."""
    size: int
    """Bytes of all values."""
    quota: int | None
    """Bytes that there may be."""
    recipients: int
    """Seeds and passphrases that open it."""
    epoch: int
    """Counts the data keys from 1."""
    is_rekeying: bool
    """Whether a change of the data key was begun and not finished."""


class Chamber:
    """An encrypted store of values under text keys.

    Made by :meth:`create` or :meth:`open`; the storage stays the caller's, who closes it after :meth:`close`. All
    methods may be used by many tasks at a time, and several processes may open one chamber where the storage is
    ``shared``. A method that changes something returns once the storage has acknowledged it.

    Any method raises :class:`~stt_core.errors.StorageError` when the storage fails; a change that fails so may have
    been made. What is missing or was changed in the store raises :class:`~stt_chamber.errors.DamagedError`.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._is_closed = False

    # Opening

    @classmethod
    async def create(
        cls,
        storage: StorageProvider,
        secrets: Secret | Sequence[Secret],
        *,
        name: str = "",
        quota: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Make a chamber and open it.

        Args:
            storage: Where it will be.
            secrets: Each of them will open it.
            name: Tells several chambers in one storage apart; not secret.
            quota: Bytes that all values together may have.
            clock: Returns seconds since 1970.

        Raises:
            Conflict: There is one of that name.
            ConfigError: There are no secrets, or too many; or the quota can be none.
        """
        secrets = [secrets] if not isinstance(secrets, Sequence) else list(secrets)
        names = Names(namespace(name))
        checked_quota = _checked_quota(quota)
        header = await asyncio.to_thread(create_header, secrets)
        # A header alone may be one that a crash kept from getting its root. But what lacks its header is damaged, and
        # must not get another one.
        for key in (names.root, names.root_copy, names.header_copy):
            if await storage.exists(key):
                raise Conflict("there is a chamber of that name in this store")
        if await storage.store_if(names.header, header, 0) is None:
            header = await _required(storage, names.header)
        unlocked = await asyncio.to_thread(Header.decode(header).unlock, secrets)
        root = Root(
            sequence=1,
            previous=bytes(DIGEST_SIZE),
            generation=unlocked.header.generation,
            revision=0,
            count=0,
            size=0,
            quota=checked_quota,
            fence=0,
            directories=(),
            segments=(),
            tail={},
        ).seal(unlocked.keyring)
        if await storage.store_if(names.root, root, 0) is None:
            raise Conflict("there is a chamber of that name in this store")
        await storage.commit({names.header_copy: header, names.root_copy: root})
        return await cls.open(storage, secrets, name=name, clock=clock)

    @classmethod
    async def open(
        cls,
        storage: StorageProvider,
        secrets: Secret | Sequence[Secret],
        *,
        name: str = "",
        expected: Position | None = None,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Open a chamber.

        Args:
            storage: Where it is.
            secrets: One of them must open it.
            name: The one that it was made with.
            expected: A state that was seen before, from :attr:`position`: an earlier one is refused.
            clock: Returns seconds since 1970.

        Raises:
            NoChamber: There is none.
            WrongSecret: The secrets are not its.
            RollbackDetected: The store shows an earlier state than the expected one, or another chamber.
        """
        secrets = [secrets] if not isinstance(secrets, Sequence) else list(secrets)
        names = Names(namespace(name))
        header = Header.decode(await _required(storage, names.header))
        if expected is not None and expected.chamber_id != header.chamber_id:
            raise RollbackDetected("the store has another chamber in the place of the expected one")
        unlocked = await asyncio.to_thread(header.unlock, secrets)
        ledger = Ledger(storage, names, secrets, unlocked, lambda: round(clock() * 1000), expected)
        await ledger.refresh()
        return cls(ledger)

    async def close(self) -> None:
        """Wait for what is under way; the storage stays open. Calling it twice is allowed."""
        self._is_closed = True
        await self._ledger.wait_idle()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def position(self) -> Position:
        """The state that was last seen or made; kept elsewhere, it lets :meth:`open` notice an earlier one."""
        return self._ledger.position

    # Values

    async def store(self, key: str, value: Any, *, ttl: float | None = None) -> int:
        """Store a value, over the one that is there, if any; return its revision.

        Args:
            key: 1 to 1024 bytes in UTF-8.
            value: Bytes, or anything that STT serialization takes; bytes come back as bytes, all else as its kind.
            ttl: Seconds after which the value is gone; None for never.

        Raises:
            ConfigError: The key cannot be one, or the time is negative or no number.
            SerializationError: The value cannot be serialized.
            QuotaExceeded: There is no room.
        """
        kind, data = _encoded(value)
        return await self._put(_own_key(key), kind, data, _checked_ttl(ttl))

    async def update(self, key: str, value: Any, revision: int, *, ttl: float | None = None) -> int:
        """Store a value only if the one that is there has the given revision; return the new one's.

        Args:
            key: As for :meth:`store`.
            value: Likewise.
            revision: From :meth:`metadata` or an earlier store; 0 if there must be no value.
            ttl: As for :meth:`store`.

        Raises:
            Conflict: The value is another by now; nothing was changed.
        """
        kind, data = _encoded(value)
        return await self._put(_own_key(key), kind, data, _checked_ttl(ttl), expected=revision)

    async def retrieve(self, key: str) -> Any:
        """Return a value as it was stored.

        Raises:
            KeyMissing: There is none.
        """
        encoded = encode_key(key)

        async def read(view: View) -> tuple[Entry, bytes]:
            entry = await self._live_entry(view, encoded)
            if isinstance(entry.content, bytes):
                return entry, entry.content
            return entry, await self._ledger.objects.read(entry.content)

        entry, data = await self._consistently(key, read)
        return data if entry.kind == BYTES else deserialize_stt(data)

    async def exists(self, key: str) -> bool:
        """Return whether there is a value."""
        try:
            await self.metadata(key)
        except KeyMissing:
            return False
        return True

    async def delete(self, key: str) -> bool:
        """Remove a value; return whether there was one."""
        encoded = encode_key(key)
        return await self._change(lambda draft: draft.delete(encoded))

    async def metadata(self, key: str) -> Metadata:
        """Return what is known of a value.

        Raises:
            KeyMissing: There is none.
        """
        encoded = encode_key(key)
        entry = await self._consistently(key, lambda view: self._live_entry(view, encoded))
        return Metadata(
            key=key,
            size=entry.size,
            is_serialized=entry.kind == VALUE,
            revision=entry.revision,
            modified_at=entry.modified_at / 1000,
            expires_at=None if entry.expires_at is None else entry.expires_at / 1000,
        )

    async def list(self, prefix: str = "", *, after: str = "", limit: int = 1000) -> Keys:
        """Return keys in the order of their UTF-8 bytes.

        Args:
            prefix: What they begin with.
            after: The last key of the page before: only later ones are returned.
            limit: How many at most; fewer mean that there are no more.

        Raises:
            ConfigError: The prefix or the key is no text.
        """
        first, last = encode_text(prefix), encode_text(after)

        async def read(view: View) -> Keys:
            now = self._ledger.clock()
            found: Keys = []
            if limit < 1:
                return found
            async for key, entry in view.entries(max(first, last)):
                if not key.startswith(first):
                    if key > first:
                        break
                elif key > last and not entry.is_expired(now):
                    found.append(key.decode())
                    if len(found) == limit:
                        break
            return found

        return await self._consistently(f"{prefix}...", read)

    def batch(self) -> Batch:
        """Return a batch: its changes are made together when the context ends, or none where it raises.

        The end of the context raises what :meth:`store` may raise, and :class:`~stt_chamber.errors.Conflict` where
        orphans were collected while large values were added: make the batch again then.
        """
        return Batch(self)

    # Large values

    def open_writer(self, key: str, *, ttl: float | None = None) -> ValueWriter:
        """Return what stores a value of any size piece by piece: it is there when the context ends without an error.

        The end of the context raises what :meth:`store` may raise, and :class:`~stt_chamber.errors.Conflict` where
        orphans were collected, or the data key was changed, while it was written: write it again then.

        Args:
            key: As for :meth:`store`.
            ttl: Likewise.
        """
        return ValueWriter(self, _own_key(key), _checked_ttl(ttl))

    def open_reader(self, key: str, *, offset: int = 0, length: int | None = None) -> ValueReader:
        """Return what reads a value, or a part of it, chunk by chunk; memory stays flat.

        Args:
            key: Of a value; a serialized one is read as the bytes of its serialization.
            offset: The byte to begin with.
            length: Bytes to read at most; to the end unless given.

        Raises:
            ConfigError: The offset or length is negative.
        """
        if offset < 0 or (length is not None and length < 0):
            raise ConfigError("neither the offset nor the length of a range may be negative")
        return ValueReader(self, encode_key(key), offset, length)

    async def store_content(self, content: Buffer | AsyncIterable[Buffer]) -> str:
        """Store bytes under their own hash, once, however often they are stored; return that key.

        Args:
            content: The bytes, or what yields them piece by piece.

        Raises:
            QuotaExceeded: There is no room.
        """
        writer = ValueWriter(self, None, None)
        async with writer:
            if isinstance(content, AsyncIterable):
                async for piece in content:
                    await writer.write(piece)
            else:
                await writer.write(content)
        return writer.key

    # The chamber as a whole

    async def info(self) -> ChamberInfo:
        """Return how much there is, and who may open it."""
        self._require_open()
        root = (await self._ledger.refresh()).root
        keyring = self._ledger.unlocked.keyring
        return ChamberInfo(
            chamber_id=keyring.chamber_id,
            count=root.count,
            size=root.size,
            quota=root.quota,
            recipients=len(self._ledger.unlocked.header.recipients),
            epoch=keyring.epoch,
            is_rekeying=len(keyring.epochs) > 1,
        )

    async def set_quota(self, quota: int | None) -> None:
        """Limit the bytes of all values together from now on; what is there stays.

        Raises:
            ConfigError: It is negative, or no whole number.
        """
        checked = _checked_quota(quota)

        async def operation(draft: Draft) -> None:
            draft.quota = checked

        await self._change(operation)

    async def sweep(self) -> int:
        """Remove the values that have expired; return how many. A quota that is reached does so by itself."""
        self._require_open()

        async def expired(view: View) -> Sequence[bytes]:
            now = self._ledger.clock()
            return [key async for key, entry in view.entries() if entry.is_expired(now)]

        async def remove(draft: Draft, keys: Sequence[bytes]) -> int:
            removed = 0
            for key in keys:
                entry = await draft.find_any(key)
                if entry is not None and entry.is_expired(draft.now):
                    await draft.delete(key)
                    removed += 1
            return removed

        keys = await self._consistently("expired values", expired)
        removed = 0
        for start in range(0, len(keys), MAX_BATCH):
            removed += await self._ledger.change(functools.partial(remove, keys=keys[start : start + MAX_BATCH]))
        return removed

    @property
    def ledger(self) -> Ledger:
        """The state behind the values, for the functions that check, repair, rekey and copy chambers."""
        return self._ledger

    # Internals

    def _require_open(self) -> None:
        if self._is_closed:
            raise LocalError("the chamber is closed")

    async def _consistently(self, what: str, read: Callable[[View], Awaitable[T]]) -> T:
        self._require_open()
        try:
            return await self._ledger.consistently(read)
        except RollbackDetected:
            raise
        except DamagedError as error:
            raise DamagedError(f"{what}: {error}") from error

    async def _live_entry(self, view: View, key: bytes) -> Entry:
        entry = await view.find(key)
        if entry is None or entry.is_expired(self._ledger.clock()):
            raise KeyMissing(key.decode())
        return entry

    async def _change(self, operation: Callable[[Draft], Awaitable[T]]) -> T:
        self._require_open()
        try:
            return await self._ledger.change(operation)
        except QuotaExceeded:
            # What has expired makes room.
            if not await self.sweep():
                raise
            return await self._ledger.change(operation)

    async def _put(self, key: bytes, kind: int, data: Buffer, ttl: float | None, *, expected: int | None = None) -> int:
        self._require_open()
        if len(data) <= MAX_INLINE_SIZE:
            return await self._put_content(key, kind, bytes(data), ttl, 0, expected)
        while True:
            started_at = (await self._ledger.refresh()).root.sequence
            content = await self._ledger.objects.write(data)
            try:
                return await self._put_content(key, kind, content, ttl, started_at, expected)
            except Collected:
                continue

    async def _put_content(
        self,
        key: bytes,
        kind: int,
        content: bytes | Reference,
        ttl: float | None,
        started_at: int,
        expected: int | None = None,
    ) -> int:
        """Make an entry of a content that lies in the store already; where it is refused, remove the content."""
        change = Put(key, kind, content, ttl, started_at, expected)
        try:
            return await self._change(change.apply)
        except LocalError:
            # Only here is it certain that nothing refers to it.
            await self._discard([content])
            raise

    async def _discard(self, contents: Iterable[bytes | Reference]) -> None:
        await self._ledger.objects.remove(content for content in contents if not isinstance(content, bytes))


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


class Batch:
    """Several changes that are made together; made by :meth:`Chamber.batch`.

    Attributes:
        revisions: After the context has ended: those of the values that were stored, in their order.
    """

    def __init__(self, chamber: Chamber) -> None:
        self.revisions: list[int] = []
        self._chamber = chamber
        self._changes: list[Put | bytes] = []
        self._started_at = 0

    async def store(self, key: str, value: Any, *, ttl: float | None = None) -> None:
        """Add a value; a large one goes to the storage now, but is not seen before the context ends.

        Args:
            key: As for :meth:`Chamber.store`.
            value: Likewise.
            ttl: Likewise.

        Raises:
            ConfigError: The key cannot be one, or there are too many changes.
            SerializationError: The value cannot be serialized.
        """
        kind, data = _encoded(value)
        encoded = _own_key(key)
        ttl = _checked_ttl(ttl)
        self._require_room()
        content: bytes | Reference = bytes(data) if len(data) <= MAX_INLINE_SIZE else b""
        if len(data) > MAX_INLINE_SIZE:
            content = await self._chamber.ledger.objects.write(data)
        self._changes.append(Put(encoded, kind, content, ttl, self._started_at))

    def delete(self, key: str) -> None:
        """Add the removal of a value, which need not be there.

        Raises:
            ConfigError: The key cannot be one, or there are too many changes.
        """
        self._require_room()
        self._changes.append(encode_key(key))

    async def __aenter__(self) -> Self:
        self._started_at = (await self._chamber.ledger.refresh()).root.sequence
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            await self._discard()
            return
        try:
            self.revisions = await self._chamber._change(self._apply)  # noqa: SLF001  one thing in two classes
        except LocalError:
            await self._discard()
            raise

    async def _apply(self, draft: Draft) -> list[int]:
        revisions = []
        for change in self._changes:
            if isinstance(change, Put):
                revisions.append(await change.apply(draft))
            else:
                await draft.delete(change)
        return revisions

    async def _discard(self) -> None:
        await self._chamber._discard(  # noqa: SLF001  as above
            change.content for change in self._changes if isinstance(change, Put)
        )

    def _require_room(self) -> None:
        if len(self._changes) >= MAX_BATCH:
            raise ConfigError(f"a batch has at most {MAX_BATCH} changes")


class ValueWriter:
    """A value of any size on its way into a chamber; made by :meth:`Chamber.open_writer`.

    Attributes:
        revision: After the context has ended: that of the value.
    """

    def __init__(self, chamber: Chamber, key: bytes | None, ttl: float | None) -> None:
        self.revision = 0
        self._chamber = chamber
        self._key = key
        self._ttl = ttl
        self._hash = hashlib.sha3_256()
        self._writer: ObjectWriter | None = None
        self._started_at = 0

    @property
    def key(self) -> str:
        """The key of the value; that of a value under its own hash belongs to what was written so far."""
        return self._encoded_key().decode()

    async def write(self, data: Buffer) -> None:
        """Append bytes; returns once they are sealed, and from time to time stored.

        Raises:
            StorageError: The storage failed; the value will not be stored.
        """
        if self._writer is None:
            raise LocalError("a writer is used in its context: async with chamber.open_writer(...) as writer")
        if self._key is None:
            self._hash.update(data)
        await self._writer.write(data)

    async def __aenter__(self) -> Self:
        self._chamber._require_open()  # noqa: SLF001  one thing in two classes
        self._started_at = (await self._chamber.ledger.refresh()).root.sequence
        self._writer = self._chamber.ledger.objects.writer()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        writer, self._writer = self._writer, None
        assert writer is not None
        if error is not None:
            await writer.discard()
            return
        try:
            if self._key is None and await self._chamber.exists(self.key):
                await writer.discard()
                return
            buffered = writer.buffered
            small = buffered is not None and len(buffered) <= MAX_INLINE_SIZE
            content = buffered if small and buffered is not None else await writer.finish()
        except BaseException:
            await writer.discard()
            raise
        self.revision = await self._chamber._put_content(  # noqa: SLF001  as above
            self._encoded_key(), BYTES, content, self._ttl, self._started_at
        )

    def _encoded_key(self) -> bytes:
        return self._key if self._key is not None else (ADDRESS_PREFIX + self._hash.hexdigest()).encode()


class ValueReader:
    """A value, or a part of it, that is read chunk by chunk; made by :meth:`Chamber.open_reader`.

    ``async for`` yields its bytes in pieces of at most 60 KiB.
    """

    def __init__(self, chamber: Chamber, key: bytes, offset: int, length: int | None) -> None:
        self._chamber = chamber
        self._key = key
        self._offset = offset
        self._length = length
        self._entry: Entry | None = None
        self._chunks: AsyncIterator[bytes] | None = None

    @property
    def size(self) -> int:
        """Bytes of the whole value."""
        return self._opened().size

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """Return the next piece.

        Raises:
            Conflict: The value was replaced by another process, which has removed what is to come.
            DamagedError: A chunk is missing or was changed.
            StopAsyncIteration: There is no more.
        """
        entry = self._opened()
        assert self._chunks is not None
        try:
            return await anext(self._chunks)
        except DamagedError as error:
            name = self._key.decode()
            if await (await self._chamber.ledger.refresh()).find(self._key) != entry:
                raise Conflict(f"{name!r} was replaced while it was read") from error
            raise DamagedError(f"{name!r}: {error}") from error

    async def __aenter__(self) -> Self:
        chamber = self._chamber
        name = self._key.decode()
        self._entry = entry = await chamber._consistently(  # noqa: SLF001  one thing in two classes
            name,
            lambda view: chamber._live_entry(view, self._key),  # noqa: SLF001  as above
        )
        stop = entry.size if self._length is None else min(entry.size, self._offset + self._length)
        start = min(self._offset, stop)
        if entry.reference is not None:
            chamber.ledger.pin(entry.reference)
            self._chunks = chamber.ledger.objects.chunks(entry.reference, start, stop)
        else:
            assert isinstance(entry.content, bytes)
            self._chunks = _one_piece(entry.content[start:stop])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        entry, self._entry = self._opened(), None
        if entry.reference is not None:
            await self._chamber.ledger.unpin(entry.reference)

    def _opened(self) -> Entry:
        if self._entry is None:
            raise LocalError("a reader is used in its context: async with chamber.open_reader(...) as reader")
        return self._entry


async def _one_piece(data: bytes) -> AsyncIterator[bytes]:
    if data:
        yield data


async def _required(storage: StorageProvider, key: bytes) -> bytes:
    data = await storage.retrieve(key)
    if data is None:
        raise NoChamber("the store has no chamber of that name: 'stt chamber init' makes one")
    return data


def _own_key(key: str) -> bytes:
    """Return the key of a value that is no hash of its content."""
    encoded = encode_key(key)
    if key.startswith(ADDRESS_PREFIX):
        raise ConfigError(f"keys that begin with {ADDRESS_PREFIX!r} are those of store_content()")
    return encoded


def _encoded(value: Any) -> tuple[int, Buffer]:
    if isinstance(value, bytes | bytearray | memoryview):
        return BYTES, value if isinstance(value, bytes) else bytes(value)
    return VALUE, serialize_stt(value)


def _checked_quota(quota: int | None) -> int | None:
    if quota is not None and (not isinstance(quota, int) or not 0 <= quota <= MAX_QUOTA):
        raise ConfigError(f"a quota is an int from 0 to {MAX_QUOTA}, or None")
    return quota


def _checked_ttl(ttl: float | None) -> float | None:
    if ttl is not None and not 0 <= ttl <= MAX_TTL:
        raise ConfigError(f"a time to live is from 0 to {MAX_TTL} seconds, or None")
    return ttl
