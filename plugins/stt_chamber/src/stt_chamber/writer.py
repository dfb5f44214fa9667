"""A value of any size on its way into a chamber, piece by piece."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Self

from stt_chamber.entries import ADDRESS_PREFIX, BYTES
from stt_chamber.values import MAX_INLINE_SIZE, Put
from stt_core.errors import LocalError

if TYPE_CHECKING:
    from types import TracebackType

    from stt_chamber.objects import ObjectWriter
    from stt_chamber.values import Values
    from stt_core.interfaces import Buffer


class ValueWriter:
    """A value of any size on its way into a chamber; made by :meth:`~stt_chamber.chamber.Chamber.open_writer`.

    Attributes:
        revision: After the context has ended: that of the value.
    """

    def __init__(self, values: Values, key: bytes | None, ttl: float | None) -> None:
        self.revision = 0
        self._values = values
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
        self._values.require_open()
        self._started_at = (await self._values.ledger.refresh()).root.sequence
        self._writer = self._values.ledger.objects.writer()
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
            if self._key is None and await self._values.exists(self._encoded_key()):
                await writer.discard()
                return
            buffered = writer.buffered
            small = buffered is not None and len(buffered) <= MAX_INLINE_SIZE
            content = buffered if small and buffered is not None else await writer.finish()
        except BaseException:
            await writer.discard()
            raise
        self.revision = await self._values.put(Put(self._encoded_key(), BYTES, content, self._ttl, self._started_at))

    def _encoded_key(self) -> bytes:
        return self._key if self._key is not None else (ADDRESS_PREFIX + self._hash.hexdigest()).encode()
