"""An encrypted store: values, a change that needs the right revision, a batch, and a large value in pieces."""

import asyncio
import tempfile

from stt_chamber import Chamber, Seed
from stt_chamber.backends.sqlite import SQLiteStorage
from stt_core import generate_seed


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        storage = SQLiteStorage(f"sqlite://{folder}/chamber.db")
        async with await Chamber.create(storage, Seed(generate_seed())) as chamber:
            await use(chamber)
        await storage.close()


async def use(chamber: Chamber) -> None:
    await chamber.store("sensors/roof", {"celsius": 21.5, "ok": True}, ttl=3600)
    reading = await chamber.retrieve("sensors/roof")
    print("on the roof:", reading)

    revision = (await chamber.metadata("sensors/roof")).revision
    await chamber.update("sensors/roof", {"celsius": 22.0, "ok": True}, revision)

    async with chamber.batch() as batch:
        await batch.store("sensors/door", {"open": False})
        batch.delete("sensors/roof")
    print("keys:", await chamber.list("sensors/"))

    async with chamber.open_writer("video") as writer:
        for _ in range(40):
            await writer.write(bytes(100_000))

    async with chamber.open_reader("video", offset=1_000_000, length=500_000) as reader:
        received = sum([len(piece) async for piece in reader])
    print("read", received, "of", (await chamber.metadata("video")).size, "bytes")


if __name__ == "__main__":
    asyncio.run(main())
