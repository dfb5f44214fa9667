"""The UDP transport by itself: one datagram there and back."""

import asyncio

from stt_udp import UDPTransport


async def ask(url: str) -> None:
    transport = UDPTransport(url, listening=False)
    await transport.open()
    assert transport.peer is not None
    await transport.send(b"anybody there?", transport.peer)
    data, _ = await transport.receive()
    print("answered:", bytes(data))
    await transport.close()


async def main() -> None:
    transport = UDPTransport("udp://127.0.0.1:0", listening=True)
    await transport.open()
    asking = asyncio.create_task(ask(transport.url))

    data, address = await transport.receive()
    await transport.send(data, address)
    await asking
    await transport.close()


asyncio.run(main())
