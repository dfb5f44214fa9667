"""Keeps the paths of a session that this node began alive: opens transports again that were lost, and others beside."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from stt_core.errors import STTError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from stt_core.links import OpenLink

_LOG = logging.getLogger("stt.node")

_RETRY_INTERVAL: Final = 1.0  # seconds between two attempts to open a transport


class Redialer:
    """The transports of one session, by the URLs that it was begun with: the first is liked best.

    Args:
        urls: Where the peer can be reached.
        dial: Opens a transport to a URL.
        use: Told of each transport that is open, with its rank.
        drop: Told of each that is of no more use here.
    """

    def __init__(
        self,
        urls: Sequence[str],
        dial: Callable[[str], Awaitable[OpenLink]],
        use: Callable[[OpenLink, int], None],
        drop: Callable[[OpenLink], None],
    ) -> None:
        self._urls = tuple(urls)
        self._dial = dial
        self._use = use
        self._drop = drop
        self._links: dict[str, OpenLink] = {}
        self._lost: dict[str, asyncio.Event] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, url: str, link: OpenLink) -> None:
        """Begin with the transport that the session came about on."""
        self._links[url] = link
        for rank, each in enumerate(self._urls):
            self._lost[each] = asyncio.Event()
            self._tasks.append(asyncio.create_task(self._keep(each, rank)))

    def lost(self, link: OpenLink) -> bool:
        """Learn that a transport is lost; return whether it was one of these."""
        for url, each in self._links.items():
            if each is link:
                self._lost[url].set()
                return True
        return False

    def stop(self) -> list[asyncio.Task[None]]:
        """Open nothing more, and drop what is open; return what is still to end."""
        for task in self._tasks:
            task.cancel()
        for link in self._links.values():
            self._drop(link)
        self._links.clear()
        return self._tasks

    async def _keep(self, url: str, rank: int) -> None:
        lost = self._lost[url]
        while True:
            link = self._links.get(url)
            if link is None:
                try:
                    link = await self._dial(url)
                except STTError as error:
                    _LOG.debug("%s: not reached: %s", url, error)
                    await asyncio.sleep(_RETRY_INTERVAL)
                    continue
                self._links[url] = link
            opened_at = asyncio.get_running_loop().time()
            self._use(link, rank)
            await lost.wait()
            lost.clear()
            del self._links[url]
            # A peer that accepts and closes at once must not be dialled in a tight loop.
            await asyncio.sleep(max(0.0, opened_at + _RETRY_INTERVAL - asyncio.get_running_loop().time()))
