"""How much memory messages take that have begun and not ended, of all connections of a server together."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

Holder = TypeVar("Holder", bound=Hashable)


class IncompleteMessages(Generic[Holder]):
    """Accounts for bytes by their holders.

    Each connection may hold a message that is all but complete, and a stranger may open many: what one may take does
    not bound what all take.

    Args:
        limit: Bytes that all may hold together.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._sizes: dict[Holder, int] = {}
        self._total = 0

    def update(self, holder: Holder, size: int) -> Holder | None:
        """Note what a holder holds by now; returns who is to give up when all hold too much: who holds most."""
        self._total += size - self._sizes.pop(holder, 0)
        if size:
            self._sizes[holder] = size
        return max(self._sizes, key=self._sizes.__getitem__) if self._total > self._limit else None
