import asyncio
import io
import secrets
from collections.abc import AsyncIterator

from stt_core import STTNode, STTSession, generate_seed
from stt_streaming.decoder import BinaryStreamDecoder
from stt_streaming.encoder import BinaryStreamEncoder


async def chunks(file: io.BytesIO) -> AsyncIterator[bytes]:
    while chunk := file.read(100_000):
        yield chunk


async def alone() -> None:
    file = io.BytesIO()

    key, session_id = secrets.token_bytes(32), secrets.token_bytes(8)
    encoder = BinaryStreamEncoder(key, session_id=session_id, stream_id=1)
    async for segment in encoder.send(b"any bytes, files, descriptors, iterators" * 10_000):
        file.write(segment.data)

    file.seek(0)

    decoder = BinaryStreamDecoder(key, session_id=session_id, stream_id=1)
    restored = bytearray()
    await decoder.write(restored, chunks(file))

    print(len(restored), "bytes from a file of", len(file.getvalue()))


async def send(session: STTSession) -> None:
    stream = await session.open_stream(label="backup")
    await BinaryStreamEncoder(stream=stream).transmit(b"any bytes")


async def receive(session: STTSession) -> None:
    stream = await session.accept_stream()
    async for data in BinaryStreamDecoder(stream=stream).receive():
        print(len(data), "bytes on", stream.label)


async def over_a_session() -> None:
    shared = generate_seed()
    alice, bob = (STTNode(node_seed=generate_seed(), shared_seed=shared) for _ in range(2))
    async with alice, bob:
        [url] = await bob.listen("udp://127.0.0.1:0")
        session = await alice.connect(url)
        await asyncio.gather(send(session), receive(await anext(bob.sessions())))


asyncio.run(alone())
asyncio.run(over_a_session())
