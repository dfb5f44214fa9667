"""A node of several processes, so that all cores are used: a port for each, and clients that pick one of them."""

import asyncio
import multiprocessing
import os
import random
from collections.abc import Sequence
from multiprocessing.connection import Connection

from stt_core import ConnectError, STTNode, STTSession, generate_seed

WORKERS = 2


async def work(node_seed: bytes, shared_seed: bytes, port: int, parent: Connection) -> None:
    async def answer(_: object) -> bytes:
        return str(os.getpid()).encode()

    async with STTNode(node_seed=node_seed, shared_seed=shared_seed) as node:
        node.endpoints.register("worker.pid", answer)
        [url] = await node.listen(f"udp://127.0.0.1:{port}")
        parent.send(url)
        await asyncio.get_running_loop().run_in_executor(None, parent.recv)  # until the parent says so


def worker(node_seed: bytes, shared_seed: bytes, port: int, parent: Connection) -> None:
    asyncio.run(work(node_seed, shared_seed, port, parent))


async def connect_to_any(node: STTNode, urls: Sequence[str], *, expect: bytes) -> STTSession:
    failure: ConnectError | None = None
    for url in random.sample(urls, len(urls)):
        try:
            return await node.connect(url, expect=expect, timeout=2.0)
        except ConnectError as error:
            failure = error  # that worker is gone, or restarts
    raise failure or ValueError("no URLs")


async def use(shared_seed: bytes, urls: Sequence[str], server_id: bytes) -> None:
    async with STTNode(node_seed=generate_seed(), shared_seed=shared_seed) as node:
        pids: set[bytes] = set()
        while len(pids) < WORKERS:
            session = await connect_to_any(node, urls, expect=server_id)
            pids.add(await session.request("worker.pid"))
            session.close()
    print(len(pids), "processes answered, all of them as one node")


def main() -> None:
    node_seed, shared_seed = generate_seed(), generate_seed()
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for _ in range(WORKERS):
        ours, theirs = context.Pipe()
        # Port 0 is any free one, for an example; a service gives each worker its own: 4433, 4434 and so on.
        process = context.Process(target=worker, args=(node_seed, shared_seed, 0, theirs))
        process.start()
        pipes.append(ours)
        processes.append(process)
    urls = [pipe.recv() for pipe in pipes]

    server_id = STTNode(node_seed=node_seed, shared_seed=shared_seed).node_id
    asyncio.run(use(shared_seed, urls, server_id))

    for pipe in pipes:
        pipe.send(None)
    for process in processes:
        process.join()


if __name__ == "__main__":
    main()
