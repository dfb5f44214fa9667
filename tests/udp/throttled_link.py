"""Fills the kernel's send buffer for real; run by test_transport.py where loopback is slow: prints what was seen."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from stt_core.interfaces.transport import Address, Buffer, Train
from stt_udp import UDPTransport

if TYPE_CHECKING:
    from collections.abc import Sequence

TRAIN = Train(bytes(200_000), 1000)  # four calls, so that some trains are taken in part
TRAINS = 80  # 16 MB, more than a buffer of 4 MiB holds


class Sender:
    """Sends trains as long as they are taken."""

    def __init__(self, transport: UDPTransport) -> None:
        self.transport = transport
        self.taken = self.refused = self.told_writable = 0
        self.done = asyncio.Event()

    def send(self) -> None:
        while self.taken < TRAINS:
            if not self.transport.send_train(TRAIN, self.transport.peer):
                self.refused += 1
                return
            self.taken += 1
        self.done.set()

    def writable(self) -> None:
        self.told_writable += 1
        self.send()

    def messages_received(self, messages: Sequence[tuple[Buffer, Address]]) -> None: ...

    def peer_unreachable(self, address: Address, reason: str) -> None: ...

    def failed(self, reason: str) -> None: ...


async def main() -> None:
    receiving = UDPTransport("udp://127.0.0.1:0", listening=True)
    await receiving.open()
    sending = UDPTransport(receiving.url, listening=False)
    await sending.open()
    sender = Sender(sending)
    sending.start(sender)
    sender.send()
    async with asyncio.timeout(60):
        received = [len((await receiving.receive())[0]) for _ in range(TRAINS * 200)]
        await sender.done.wait()
    statistics = sending.statistics()
    print(  # noqa: T201  read by the test
        json.dumps(
            {
                "sizes": sorted(set(received)),
                "refused": sender.refused,
                "told_writable": sender.told_writable,
                "send_waits": statistics.send_waits,
                "messages_dropped": statistics.messages_dropped,
                "messages_sent": statistics.messages_sent,
            }
        )
    )
    await sending.close()
    await receiving.close()


if __name__ == "__main__":
    asyncio.run(main())
