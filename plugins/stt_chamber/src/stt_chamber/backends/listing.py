"""All keys with a prefix, of a store that gives its keys a page at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

KEYS_PER_PAGE: Final = 1000
"""Keys that a listing reads at a time."""


async def keys_with_prefix(
    prefix: bytes, read_page: Callable[[bytes], Awaitable[Sequence[bytes]]]
) -> AsyncIterator[bytes]:
    """Iterate over the keys that begin with a prefix, ascending.

    Args:
        prefix: What they begin with.
        read_page: Returns the first :data:`KEYS_PER_PAGE` keys from the given one on, ascending; fewer are the last.
    """
    start = prefix
    while True:
        keys = await read_page(start)
        for key in keys:
            if not key.startswith(prefix):
                return
            yield key
        if len(keys) < KEYS_PER_PAGE:
            return
        start = keys[-1] + b"\x00"
