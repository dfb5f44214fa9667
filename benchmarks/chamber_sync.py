"""What it costs to synchronise a chamber with a peer: two processes on loopback over UDP, SQLite on both sides.

    python benchmarks/chamber_sync.py --megabytes 1024 --value-size 65536

Told are seconds, the bytes on the wire in both directions, and the processor time of the owner's process: for the first
time, with nothing changed, and after one value in a hundred was replaced.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import subprocess
import sys
import tempfile
import time

from stt_chamber import Chamber, Seed
from stt_chamber.backends.sqlite import SQLiteStorage
from stt_chamber.remote import RemoteStorage
from stt_chamber.serving import StoreServer
from stt_chamber.store_messages import Access
from stt_chamber.sync import sync
from stt_core import Identity, STTNode, STTSession

OWNER, HOLDER, SHARED = (bytes([number]) * 32 for number in range(3))
SEED = Seed(bytes(range(32)))
BATCH = 64


async def hold(url: str) -> None:
    storage = SQLiteStorage(url)
    server = await StoreServer.open(storage, {Identity.from_seed(OWNER).node_id: Access.WRITE}, quota=1 << 40)
    async with STTNode(node_seed=HOLDER, shared_seed=SHARED) as node:
        node.endpoints.register(StoreServer.endpoint(), server)
        [url] = await node.listen("udp://127.0.0.1:0")
        print(url, flush=True)
        await asyncio.Event().wait()


async def measure(what: str, local: SQLiteStorage, remote: RemoteStorage, session: STTSession) -> None:
    before = session.get_statistics()
    began, began_cpu = time.perf_counter(), time.process_time()
    report = await sync(local, remote, SEED)
    seconds, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    after = session.get_statistics()
    sent, received = after.bytes_sent - before.bytes_sent, after.bytes_received - before.bytes_received
    copied = report.copied[1] / 1e6
    print(
        f"{what:16}{seconds:8.2f} s{copied / seconds:8.1f} MB/s{copied:10.2f} MB of chunks"
        f"{sent / 1e6:10.2f} MB sent{received / 1e6:8.2f} MB received{cpu:8.2f} s CPU"
    )


async def own(url: str, folder: str, megabytes: int, size: int) -> None:
    local = SQLiteStorage(f"sqlite://{folder}/owner.db")
    count = megabytes * (1 << 20) // size
    async with await Chamber.create(local, SEED) as chamber, STTNode(node_seed=OWNER, shared_seed=SHARED) as node:
        began = time.perf_counter()
        for start in range(0, count, BATCH):
            async with chamber.batch() as batch:
                for number in range(start, min(start + BATCH, count)):
                    await batch.store(f"key {number:08d}", secrets.token_bytes(size))
        print(f"{'put, to compare':16}{time.perf_counter() - began:8.2f} s")
        session = await node.connect(url)
        remote = await RemoteStorage.open(session)
        await measure("first", local, remote, session)
        await measure("nothing changed", local, remote, session)
        for number in range(0, count, 100):
            await chamber.store(f"key {number:08d}", secrets.token_bytes(size))
        await measure("1 % changed", local, remote, session)
    await local.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--value-size", type=int, default=65_536)
    parser.add_argument("--hold", metavar="URL")
    arguments = parser.parse_args()
    if arguments.hold:
        asyncio.run(hold(arguments.hold))
        return
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--hold", f"sqlite://{folder}/holder.db"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout is not None
            asyncio.run(own(holder.stdout.readline().strip(), folder, arguments.megabytes, arguments.value_size))
            holder.kill()


if __name__ == "__main__":
    main()
