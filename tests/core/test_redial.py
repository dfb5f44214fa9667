"""Are lost transports of a session opened again, once a second and no faster?"""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, cast

import pytest

from stt_core.errors import PeerUnreachable
from stt_core.redial import Redialer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from typing import Any

    from stt_core.links import OpenLink

URL = "memory://peer"
OTHER = "memory://peer-too"


class Selector(selectors.DefaultSelector):
    """Waits for nothing: where time would pass, the clock is put forward."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is not None:
            self.now += timeout
        return ready


class Loop(asyncio.SelectorEventLoop):
    """An event loop in which an hour takes no time."""

    def __init__(self) -> None:
        self._clock = Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now


class Network:
    """Gives a link for each attempt, and remembers when; the links are only ever compared."""

    def __init__(self, *, answers: bool = True) -> None:
        self.answers = answers
        self.dialled: list[tuple[str, float]] = []
        self.used: list[tuple[OpenLink, int]] = []
        self.dropped: list[OpenLink] = []
        self.on_use: Callable[[OpenLink], object] = lambda _: None

    async def dial(self, url: str) -> OpenLink:
        self.dialled.append((url, asyncio.get_running_loop().time()))
        if not self.answers:
            raise PeerUnreachable(url, "nobody listens there")
        return link()

    def use(self, link: OpenLink, rank: int) -> None:
        self.used.append((link, rank))
        self.on_use(link)

    def redialer(self, *urls: str) -> Redialer:
        return Redialer(urls, self.dial, self.use, self.dropped.append)


def link() -> OpenLink:
    return cast("OpenLink", object())


def in_no_time(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(scenario())


async def stopped(redialer: Redialer) -> None:
    tasks: list[Awaitable[None]] = list(redialer.stop())
    await asyncio.gather(*tasks, return_exceptions=True)


def test_a_transport_that_was_open_for_long_is_opened_again_at_once() -> None:
    async def scenario() -> None:
        network, first = Network(), link()
        redialer = network.redialer(URL)
        redialer.start(URL, first)
        await asyncio.sleep(100.0)

        assert redialer.lost(first)
        await asyncio.sleep(0.5)

        assert [at for _, at in network.dialled] == [pytest.approx(100.0)]
        assert next(used for used, _ in network.used) is first
        assert len(network.used) == 2
        await stopped(redialer)

    in_no_time(scenario)


def test_a_peer_that_accepts_and_closes_at_once_is_dialled_once_a_second() -> None:
    async def scenario() -> None:
        network = Network()
        redialer = network.redialer(URL)
        network.on_use = redialer.lost
        redialer.start(URL, link())
        await asyncio.sleep(60.5)

        assert [at for _, at in network.dialled] == pytest.approx(list(range(1, 61)))
        await stopped(redialer)

    in_no_time(scenario)


def test_a_peer_that_cannot_be_reached_is_tried_once_a_second() -> None:
    async def scenario() -> None:
        network, first = Network(answers=False), link()
        redialer = network.redialer(URL)
        redialer.start(URL, first)
        redialer.lost(first)
        await asyncio.sleep(60.5)
        tries = len(network.dialled)
        network.answers = True
        await asyncio.sleep(10.0)

        assert tries == 60
        assert len(network.dialled) == 61
        assert len(network.used) == 2
        await stopped(redialer)

    in_no_time(scenario)


def test_each_url_has_a_transport_of_its_own_and_its_rank() -> None:
    async def scenario() -> None:
        network, first = Network(), link()
        redialer = network.redialer(URL, OTHER)
        redialer.start(OTHER, first)
        await asyncio.sleep(10.0)

        assert [url for url, _ in network.dialled] == [URL]
        assert (first, 1) in network.used
        assert sorted(rank for _, rank in network.used) == [0, 1]
        await stopped(redialer)

    in_no_time(scenario)


def test_stopping_drops_what_is_open_and_opens_nothing_more() -> None:
    async def scenario() -> None:
        network, first = Network(), link()
        redialer = network.redialer(URL, OTHER)
        redialer.start(URL, first)
        await asyncio.sleep(10.0)

        await stopped(redialer)
        await asyncio.sleep(100.0)

        assert len(network.dialled) == 1
        assert set(network.dropped) == {used for used, _ in network.used}
        assert not redialer.lost(first)

    in_no_time(scenario)


def test_the_loss_of_a_strangers_transport_is_nothing_to_it() -> None:
    async def scenario() -> None:
        network, first = Network(), link()
        redialer = network.redialer(URL)
        redialer.start(URL, first)

        assert not redialer.lost(link())
        await asyncio.sleep(10.0)

        assert network.dialled == []
        await stopped(redialer)

    in_no_time(scenario)
