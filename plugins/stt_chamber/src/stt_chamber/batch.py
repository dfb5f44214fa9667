"""Several changes of a chamber that are made together, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from stt_chamber.entries import encode_key
from stt_chamber.values import MAX_CHANGES, MAX_INLINE_SIZE, Put, checked_ttl, encode_own_key, encode_value
from stt_core.errors import ConfigError, LocalError

if TYPE_CHECKING:
    from types import TracebackType

    from stt_chamber.entries import Reference
    from stt_chamber.ledger import Draft
    from stt_chamber.values import Values


class Batch:
    """Several changes that are made together; made by :meth:`~stt_chamber.chamber.Chamber.batch`.

    Attributes:
        revisions: After the context has ended: those of the values that were stored, in their order.
    """

    def __init__(self, values: Values) -> None:
        self.revisions: list[int] = []
        self._values = values
        self._changes: list[Put | bytes] = []
        self._started_at = 0

    async def store(self, key: str, value: Any, *, ttl: float | None = None) -> None:
        """Add a value; a large one goes to the storage now, but is not seen before the context ends.

        Args:
            key: As for :meth:`~stt_chamber.chamber.Chamber.store`.
            value: Likewise.
            ttl: Likewise.

        Raises:
            ConfigError: The key cannot be one, or there are too many changes.
            SerializationError: The value cannot be serialized.
        """
        kind, data = encode_value(value)
        encoded = encode_own_key(key)
        ttl = checked_ttl(ttl)
        self._require_room()
        content: bytes | Reference = bytes(data) if len(data) <= MAX_INLINE_SIZE else b""
        if len(data) > MAX_INLINE_SIZE:
            content = await self._values.ledger.objects.write(data)
        self._changes.append(Put(encoded, kind, content, ttl, self._started_at))

    def delete(self, key: str) -> None:
        """Add the removal of a value, which need not be there.

        Raises:
            ConfigError: The key cannot be one, or there are too many changes.
        """
        self._require_room()
        self._changes.append(encode_key(key))

    async def __aenter__(self) -> Self:
        self._started_at = (await self._values.ledger.refresh()).root.sequence
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            await self._discard()
            return
        try:
            self.revisions = await self._values.change(self._apply)
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
        await self._values.discard(change.content for change in self._changes if isinstance(change, Put))

    def _require_room(self) -> None:
        if len(self._changes) >= MAX_CHANGES:
            raise ConfigError(f"a batch has at most {MAX_CHANGES} changes")
