"""A node on a selector event loop, which UDP needs where the default loop is another."""

import asyncio

from stt_core import STTNode, generate_seed


async def main() -> None:
    async with STTNode(node_seed=generate_seed(), shared_seed=generate_seed()) as node:
        print("listening:", *await node.listen("udp://127.0.0.1:0"))


with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
    runner.run(main())
