"""Does a node work on event loops that differ from asyncio's own where its documentation leaves them free?"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from stt_core import STTNode

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

    import pytest

SHARED_SEED = b"the seed that all the nodes share"


class Milliseconds(asyncio.SelectorEventLoop):
    """As uvloop does it: the clock and timers count milliseconds, and what is due at once is a plain handle."""

    def time(self) -> float:
        return int(super().time() * 1000) / 1000

    def call_at(  # type: ignore[override]  # a handle without `when`, as said
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        delay = round((when - self.time()) * 1000)
        if delay <= 0:
            return self.call_soon(callback, *args, context=context)
        return super().call_at(self.time() + delay / 1000, callback, *args, context=context)


async def echo() -> bytes:
    async with (
        STTNode(node_seed=b"s" * 32, shared_seed=SHARED_SEED) as server,
        STTNode(node_seed=b"c" * 32, shared_seed=SHARED_SEED) as client,
    ):
        [url] = await server.listen("memory://loops")
        near = await client.connect(url)
        far = await anext(server.sessions())
        stream = await near.open_stream()
        await stream.send(bytes(1_000_000))
        stream.end()
        received = await (await far.accept_stream()).receive_exactly(1_000_000)
        assert await near.ping() >= 0.0
        near.close()
        await far.wait_closed()
        return received


def test_a_node_runs_on_a_loop_of_milliseconds(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR), asyncio.Runner(loop_factory=Milliseconds) as runner:
        assert runner.run(echo()) == bytes(1_000_000)

    assert caplog.text == ""
