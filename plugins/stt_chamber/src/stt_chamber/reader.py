"""A value of any size on its way out of a chamber, chunk by chunk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from stt_chamber.errors import Conflict, DamagedError
from stt_core.errors import LocalError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType

    from stt_chamber.entries import Entry
    from stt_chamber.values import Values


class ValueReader:
    """A value, or a part of it, that is read chunk by chunk; made by :meth:`~stt_chamber.chamber.Chamber.open_reader`.

    ``async for`` yields its bytes in pieces of at most 60 KiB.
    """

    def __init__(self, values: Values, key: bytes, offset: int, length: int | None) -> None:
        self._values = values
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
            if await (await self._values.ledger.refresh()).find(self._key) != entry:
                raise Conflict(f"{name!r} was replaced while it was read") from error
            raise DamagedError(f"{name!r}: {error}") from error

    async def __aenter__(self) -> Self:
        ledger = self._values.ledger
        self._entry = entry = await self._values.entry(self._key)
        stop = entry.size if self._length is None else min(entry.size, self._offset + self._length)
        start = min(self._offset, stop)
        if entry.reference is not None:
            ledger.pin(entry.reference)
            self._chunks = ledger.objects.chunks(entry.reference, start, stop)
        else:
            assert isinstance(entry.content, bytes)
            self._chunks = _one_piece(entry.content[start:stop])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        entry, self._entry = self._opened(), None
        if entry.reference is not None:
            await self._values.ledger.unpin(entry.reference)

    def _opened(self) -> Entry:
        if self._entry is None:
            raise LocalError("a reader is used in its context: async with chamber.open_reader(...) as reader")
        return self._entry


async def _one_piece(data: bytes) -> AsyncIterator[bytes]:
    if data:
        yield data
