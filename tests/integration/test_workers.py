"""A node of several processes: a port for each (docs/how-to/scale.md)."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack

import pytest

from stt_core import ConnectError, ConnectReason, STTNode

NODE_SEED = b"the node seed of all the workers"
SHARED_SEED = b"the seed that all the nodes share"

WORKER = f"""
import asyncio, os
from stt_core import STTNode

async def main():
    async with STTNode(node_seed={NODE_SEED!r}, shared_seed={SHARED_SEED!r}) as node:
        async def answer(_):
            return str(os.getpid()).encode()
        node.endpoints.register("worker.pid", answer)
        print(*await node.listen("udp://127.0.0.1:0"), flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def start(stack: ExitStack) -> tuple[subprocess.Popen[str], str]:
    """Return a worker and its URL; it is killed with the test at the latest."""
    process = stack.enter_context(subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.PIPE, text=True))
    stack.callback(process.kill)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


@pytest.mark.asyncio
async def test_workers_are_one_node_and_each_has_its_own_sessions() -> None:
    with ExitStack() as stack:
        workers = [start(stack) for _ in range(2)]
        async with STTNode(node_seed=b"c" * 32, shared_seed=SHARED_SEED) as client:
            sessions = [await client.connect(url) for _, url in workers]

            pids = [int(await session.request("worker.pid")) for session in sessions]

            assert pids == [process.pid for process, _ in workers]
            assert sessions[0].peer_node_id == sessions[1].peer_node_id


@pytest.mark.asyncio
async def test_a_worker_that_dies_takes_no_other_with_it() -> None:
    with ExitStack() as stack:
        (first, dead), (second, alive) = start(stack), start(stack)
        async with STTNode(node_seed=b"c" * 32, shared_seed=SHARED_SEED) as client:
            session = await client.connect(alive)
            first.kill()
            first.wait()

            with pytest.raises(ConnectError) as caught:
                await client.connect(dead, timeout=5.0)

            assert caught.value.reason is ConnectReason.UNREACHABLE
            assert int(await session.request("worker.pid")) == second.pid
