"""A node holds a replica of a chamber that it cannot read; its owner synchronises it, and merges what both changed."""

import asyncio
import tempfile

from stt_chamber import Chamber, Seed
from stt_chamber.backends.sqlite import SQLiteStorage
from stt_chamber.remote import RemoteStorage
from stt_chamber.serving import StoreServer
from stt_chamber.store_messages import Access
from stt_chamber.sync import sync
from stt_core import STTNode, generate_seed


async def main() -> None:
    session_seed = generate_seed()
    seed = Seed(generate_seed())  # the holder never gets this one
    owner = STTNode(node_seed=generate_seed(), shared_seed=session_seed)
    holder = STTNode(node_seed=generate_seed(), shared_seed=session_seed)
    with tempfile.TemporaryDirectory() as folder:
        local = SQLiteStorage(f"sqlite://{folder}/owner.db")
        held = SQLiteStorage(f"sqlite://{folder}/holder.db")
        async with owner, holder:
            server = await StoreServer.open(held, {owner.node_id: Access.WRITE}, quota=20_000_000_000)
            holder.endpoints.register(StoreServer.endpoint(), server)
            [url] = await holder.listen("udp://127.0.0.1:0")

            session = await owner.connect(url, expect=holder.node_id)
            remote = await RemoteStorage.open(session)
            await use(local, remote, seed)
        await server.close()
        await local.close()
        await held.close()


async def use(local: SQLiteStorage, remote: RemoteStorage, seed: Seed) -> None:
    async with await Chamber.create(local, seed) as chamber:
        await chamber.store("plan", "draw it")
        await chamber.store("drawing", bytes(300_000))
    report = await sync(local, remote, seed)
    print("the holder has", report.copied[1], "bytes of chunks, and the root")

    async with await Chamber.open(remote, seed) as chamber:
        await chamber.store("plan", "build it")
    async with await Chamber.open(local, seed) as chamber:
        await chamber.store("plan", "sell it")
        report = await sync(local, remote, seed)
        for conflict in report.conflicts:
            print(
                await chamber.retrieve(conflict.key), "- but there was also:", await chamber.retrieve(conflict.kept_as)
            )


if __name__ == "__main__":
    asyncio.run(main())
