"""Two nodes over this plugin: `python demo.py tcp://127.0.0.1:0`, or `unix:///path`."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys

from stt_core import STTNode, generate_seed


async def digest_of_a_file(node: STTNode) -> str:
    async for session in node.sessions():
        digest = hashlib.sha3_256()
        async for chunk in await session.accept_stream():
            digest.update(chunk)
        return digest.hexdigest()
    raise EOFError


async def main(url: str) -> bool:
    shared = generate_seed()
    alice, bob = (STTNode(node_seed=generate_seed(), shared_seed=shared, require_plugins=["framed"]) for _ in range(2))
    async with alice, bob:
        [url] = await bob.listen(url)
        receiving = asyncio.create_task(digest_of_a_file(bob))
        session = await alice.connect(url, expect=bob.node_id)

        data = os.urandom(4 << 20)
        stream = await session.open_stream(label="file")
        await stream.send(data)
        stream.end()
        has_file = await receiving == hashlib.sha3_256(data).hexdigest()
        print("file:", has_file)

        await session.send_message("framed.note", "Grüße".encode())
        answer = await session.request("framed.digest", b"body")
        has_answer = answer.decode() == hashlib.sha3_256(b"body").hexdigest()
        print("endpoint:", has_answer)
        print("path:", session.path)
        return has_file and has_answer


sys.exit(0 if asyncio.run(main(sys.argv[1])) else 1)
