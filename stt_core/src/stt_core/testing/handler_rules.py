"""What handlers of frame types and of endpoints have in common; part of both kits."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final, TypeAlias

import pytest

from stt_core.errors import STTError
from stt_core.interfaces.endpoint import Peer
from stt_core.testing.contract import Contract, rule

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Handle: TypeAlias = Callable[[bytes, Peer], Awaitable[bytes | None]]
"""Calls a handler with bytes of a peer."""

_SESSIONS: Final = 10
_TRIES: Final = 100
_MOMENTS: Final = 8  # iterations of the event loop after which a handler is cancelled, at most


def peer(number: int) -> Peer:
    """Return a peer, another one for each number."""
    return Peer(bytes([number]) * 32, bytes([number]) * 8, f"memory://peer-{number}")


class HandlerRules(Contract):
    """The rules of handlers, whatever they handle."""

    @pytest.fixture
    def handle(self) -> Handle:
        """Return what calls the handler; each kit gives its own."""
        raise NotImplementedError

    @pytest.fixture
    def answers(self) -> Mapping[bytes, bytes | None]:
        """Return what the handler returns for bytes that it takes; each kit gives its own."""
        raise NotImplementedError

    @pytest.fixture
    def sizes(self) -> Sequence[int]:
        """Return sizes of what a peer may send, the largest last; each kit gives its own."""
        raise NotImplementedError

    @rule()
    async def test_it_returns_what_is_promised(self, handle: Handle, answers: Mapping[bytes, bytes | None]) -> None:
        """For each example, twice."""
        assert answers, "there is no example"
        for _ in range(2):
            for data, answer in answers.items():
                given = await handle(data, peer(1))
                assert given is None or type(given) is bytes, f"it returned {given!r}"
                _assert_is(given, answer, data)

    @rule()
    async def test_whatever_a_peer_sends_raises_nothing_but_stt_errors(
        self, handle: Handle, sizes: Sequence[int]
    ) -> None:
        """No bytes, any bytes, as many as can come: a handler that cannot use them raises an STTError, or nothing."""
        for data in _anything(sizes):
            await _refused(handle, data)

    @rule()
    async def test_what_it_refuses_harms_nothing_else(
        self, handle: Handle, answers: Mapping[bytes, bytes | None], sizes: Sequence[int]
    ) -> None:
        """What comes next, from the same session or another, is handled as before."""
        before = {data: await handle(data, peer(1)) for data in answers}
        for data in _anything(sizes):
            await _refused(handle, data, quietly=True)
        for number in (1, 2):
            for data, answer in before.items():
                _assert_is(await handle(data, peer(number)), answer, data)

    @rule()
    async def test_sessions_are_handled_at_a_time(self, handle: Handle, answers: Mapping[bytes, bytes | None]) -> None:
        """Many of them, each as if it were alone."""
        alone = {data: await handle(data, peer(0)) for data in answers}

        async def use(number: int) -> None:
            for data, answer in alone.items():
                _assert_is(await handle(data, peer(number)), answer, data)

        await asyncio.gather(*(use(number) for number in range(_SESSIONS)))

    @rule()
    async def test_it_ends_when_it_is_cancelled(self, handle: Handle, answers: Mapping[bytes, bytes | None]) -> None:
        """At whatever moment, as the node stops or the session is over; what comes next is handled as before."""
        before = {data: await handle(data, peer(1)) for data in answers}
        for data, answer in before.items():
            for moment in range(_MOMENTS):
                handling = asyncio.ensure_future(handle(data, peer(1)))
                for _ in range(moment):
                    await asyncio.sleep(0)
                if handling.cancel():
                    await asyncio.wait({handling})
                    assert handling.cancelled(), "it was cancelled, and went on"
                _assert_is(await handle(data, peer(1)), answer, data)

    @rule()
    async def test_no_task_outlives_its_call(self, handle: Handle, answers: Mapping[bytes, bytes | None]) -> None:
        """What a handler leaves to tasks, no bound and no backpressure reaches."""
        before = asyncio.all_tasks()
        for data in answers:
            await handle(data, peer(1))
            left = [repr(task) for task in asyncio.all_tasks() - before]
            assert not left, f"tasks go on: {left}"


def _anything(sizes: Sequence[int]) -> Iterator[bytes]:
    chance = random.Random(1)
    for size in sizes:
        yield bytes(size)
        yield b"\xff" * size
        yield chance.randbytes(size)
    for _ in range(_TRIES):
        yield chance.randbytes(chance.randrange(64))


async def _refused(handle: Handle, data: bytes, *, quietly: bool = False) -> None:
    try:
        answer = await handle(data, peer(1))
    except STTError:
        return
    except Exception as error:  # noqa: BLE001  whatever it is
        if not quietly:
            pytest.fail(f"{data[:40]!r} ({len(data)} bytes) made it raise {error!r}")
        return
    assert answer is None or type(answer) is bytes, f"it returned {answer!r}"


def _assert_is(answer: bytes | None, wanted: bytes | None, data: bytes) -> None:
    assert answer == wanted, f"it returned {answer!r} for {data!r}, not {wanted!r}"
