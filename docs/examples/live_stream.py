import asyncio

from stt_core import STTNode, STTSession, generate_seed
from stt_streaming.live.publisher import LivePublisher
from stt_streaming.live.subscriber import LiveSubscriber


async def publish(alice: STTNode) -> None:
    publisher = LivePublisher(deadline=0.2)
    serving = asyncio.create_task(publisher.serve(await anext(alice.sessions())))

    for number in range(60):
        publisher.publish(b"frame %d" % number)
        await asyncio.sleep(1 / 60)
    publisher.end()

    print(await serving)


async def watch(session: STTSession) -> None:
    subscriber = LiveSubscriber(session)
    async for segment in subscriber.segments():
        print(segment.sequence, segment.data)

    print(subscriber.received, "received", subscriber.lost, "lost")


async def main() -> None:
    shared = generate_seed()
    alice, bob = (STTNode(node_seed=generate_seed(), shared_seed=shared) for _ in range(2))
    async with alice, bob:
        [url] = await alice.listen("udp://127.0.0.1:0")
        session = await bob.connect(url)
        await asyncio.gather(publish(alice), watch(session))


asyncio.run(main())
