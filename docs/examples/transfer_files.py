"""Sends a file from one node to another with the parts that `stt send` and `stt receive` are made of."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from stt_core import STTNode, generate_seed
from stt_streaming.transfer.inbox import Inbox
from stt_streaming.transfer.receiver import FileReceiver, SessionProgress
from stt_streaming.transfer.sender import FileSender


async def receive(node: STTNode, folder: Path) -> None:
    with Inbox(folder) as inbox:
        receiver = FileReceiver(inbox, stored=print, failed=print)
        async for session in node.sessions():
            await receiver.serve(session, SessionProgress())
            break


async def send(node: STTNode, url: str, paths: list[Path]) -> None:
    session = await node.connect(url)
    await FileSender(session, stored=print, failed=print).send(paths)
    session.close()


async def main(source: Path, inbox: Path) -> None:
    seed = generate_seed()
    async with (
        STTNode(node_seed=generate_seed(), shared_seed=seed) as alice,
        STTNode(node_seed=generate_seed(), shared_seed=seed) as bob,
    ):
        [url] = await bob.listen("udp://127.0.0.1:0")
        async with asyncio.TaskGroup() as group:
            group.create_task(receive(bob, inbox))
            group.create_task(send(alice, url, [source]))


with tempfile.TemporaryDirectory() as folder:
    hello, inbox = Path(folder, "hello.txt"), Path(folder, "inbox")
    hello.write_text("Hello over there")
    inbox.mkdir()
    asyncio.run(main(hello, inbox))
    print((inbox / "hello.txt").read_text())
