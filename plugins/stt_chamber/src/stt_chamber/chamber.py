"""An encrypted key-value store over any storage: what a program keeps, readable by nobody who has the store alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

import attrs

from stt_chamber.batch import Batch
from stt_chamber.entries import BYTES, VALUE, Entry, encode_key, encode_text
from stt_chamber.errors import Conflict, NoChamber, RollbackDetected
from stt_chamber.header import Header, create_header
from stt_chamber.keys import namespace
from stt_chamber.ledger import Ledger, Names
from stt_chamber.reader import ValueReader
from stt_chamber.root import DIGEST_SIZE, Root
from stt_chamber.values import Values, checked_ttl, encode_own_key, encode_value
from stt_chamber.writer import ValueWriter
from stt_core import deserialize_stt
from stt_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from stt_chamber.index import View
    from stt_chamber.keys import Secret
    from stt_chamber.ledger import Draft
    from stt_chamber.root import Position
    from stt_core.interfaces import Buffer, StorageProvider

MAX_QUOTA: Final = (1 << 63) - 1
"""Bytes that a quota may be."""

Keys: TypeAlias = list[str]
"""Named here, as :meth:`Chamber.list` hides the class of that name."""


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
    been made. What is missing or was changed in the store raises :class:`~stt_chamber.errors.DamagedError`. What other
    processes replace again and again while it is read raises :class:`~stt_chamber.errors.Conflict`: try again.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._values = Values(ledger)

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
        await self._values.close()

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
        kind, data = encode_value(value)
        return await self._values.store(encode_own_key(key), kind, data, checked_ttl(ttl))

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
        kind, data = encode_value(value)
        return await self._values.store(encode_own_key(key), kind, data, checked_ttl(ttl), expected=revision)

    async def retrieve(self, key: str) -> Any:
        """Return a value as it was stored.

        Raises:
            KeyMissing: There is none.
        """
        encoded = encode_key(key)

        async def read(view: View) -> tuple[Entry, bytes]:
            entry = await self._values.entry_of(view, encoded)
            if isinstance(entry.content, bytes):
                return entry, entry.content
            self._ledger.pin(entry.content)
            try:
                return entry, await self._ledger.objects.read(entry.content)
            finally:
                await self._ledger.unpin(entry.content)

        entry, data = await self._values.consistently(key, read)
        return data if entry.kind == BYTES else deserialize_stt(data)

    async def exists(self, key: str) -> bool:
        """Return whether there is a value."""
        return await self._values.exists(encode_key(key))

    async def delete(self, key: str) -> bool:
        """Remove a value; return whether there was one."""
        encoded = encode_key(key)
        return await self._values.change(lambda draft: draft.delete(encoded))

    async def metadata(self, key: str) -> Metadata:
        """Return what is known of a value.

        Raises:
            KeyMissing: There is none.
        """
        entry = await self._values.entry(encode_key(key))
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

        return await self._values.consistently(f"{prefix}...", read)

    def batch(self) -> Batch:
        """Return a batch: its changes are made together when the context ends, or none where it raises.

        The end of the context raises what :meth:`store` may raise, and :class:`~stt_chamber.errors.Conflict` where
        orphans were collected while large values were added: make the batch again then.
        """
        return Batch(self._values)

    # Large values

    def open_writer(self, key: str, *, ttl: float | None = None) -> ValueWriter:
        """Return what stores a value of any size piece by piece: it is there when the context ends without an error.

        The end of the context raises what :meth:`store` may raise, and :class:`~stt_chamber.errors.Conflict` where
        orphans were collected, or the data key was changed, while it was written: write it again then.

        Args:
            key: As for :meth:`store`.
            ttl: Likewise.
        """
        return ValueWriter(self._values, encode_own_key(key), checked_ttl(ttl))

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
        return ValueReader(self._values, encode_key(key), offset, length)

    async def store_content(self, content: Buffer | AsyncIterable[Buffer]) -> str:
        """Store bytes under their own hash, once, however often they are stored; return that key.

        Args:
            content: The bytes, or what yields them piece by piece.

        Raises:
            QuotaExceeded: There is no room.
        """
        writer = ValueWriter(self._values, None, None)
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
        self._values.require_open()
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

        await self._values.change(operation)

    async def sweep(self) -> int:
        """Remove the values that have expired; return how many. A quota that is reached does so by itself."""
        return await self._values.sweep()

    @property
    def ledger(self) -> Ledger:
        """The state behind the values, for the functions that check, repair, rekey and copy chambers."""
        return self._ledger


async def _required(storage: StorageProvider, key: bytes) -> bytes:
    data = await storage.retrieve(key)
    if data is None:
        raise NoChamber("the store has no chamber of that name: 'stt chamber init' makes one")
    return data


def _checked_quota(quota: int | None) -> int | None:
    if quota is not None and (not isinstance(quota, int) or not 0 <= quota <= MAX_QUOTA):
        raise ConfigError(f"a quota is an int from 0 to {MAX_QUOTA}, or None")
    return quota
