import asyncio

from stt_core import STTNode, generate_seed


async def main() -> None:
    shared = generate_seed()
    alice, bob = (STTNode(node_seed=generate_seed(), shared_seed=shared) for _ in range(2))
    async with alice, bob:
        [url] = await bob.listen("udp://127.0.0.1:0")
        session = await alice.connect(url, expect=bob.node_id)
        stream = await session.open_stream(label="greeting")
        await stream.send(b"Hello, Bob")
        async for packet in bob.receive():
            print(packet.data.decode(), "on stream", packet.stream_id)
            break


asyncio.run(main())
