from __future__ import annotations

import asyncio
import gc
import secrets
from typing import TYPE_CHECKING, Any

import pytest_asyncio
from hypothesis import settings

from stt_core import STTNode, STTSession

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

# Shared machines are slow at times; a test has the time limit of the whole suite instead.
settings.register_profile("stt", deadline=None)
settings.load_profile("stt")


@pytest_asyncio.fixture
async def make_node() -> AsyncIterator[Callable[..., STTNode]]:
    """Makes nodes that share a seed, without the plugins that happen to be installed; they stop behind the test.

    Nothing may stay of them then: no task, and no error that nobody has seen.
    """
    loop = asyncio.get_running_loop()
    before = asyncio.all_tasks()
    unseen: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: unseen.append(context))
    shared_seed = secrets.token_bytes(32)
    nodes: list[STTNode] = []

    def make(**options: Any) -> STTNode:
        options = {"shared_seed": shared_seed, "disable_plugins": ["*"], **options}
        nodes.append(STTNode(node_seed=secrets.token_bytes(32), **options))
        return nodes[-1]

    yield make
    while nodes:
        await nodes.pop().stop()
    for _ in range(3):  # for tasks that have been cancelled
        await asyncio.sleep(0)
    gc.collect(1)  # what nobody refers to any more is young
    assert asyncio.all_tasks() - before <= {asyncio.current_task()}
    assert unseen == []


@pytest_asyncio.fixture
async def sessions(make_node: Callable[..., STTNode]) -> tuple[STTSession, STTSession]:
    """Both ends of a session over ``memory://``: that of who connected, and the other."""
    (url,) = await (listener := make_node()).listen(f"memory://{secrets.token_hex(8)}")
    near = await make_node().connect(url)
    return near, await anext(listener.sessions())
