import asyncio
import secrets
from collections.abc import AsyncIterator

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from stt_core import (
    State,
    STTFrame,
    STTHandshake,
    STTNode,
    STTSession,
    deserialize_stt,
    generate_seed,
    serialize_stt,
)
from stt_core.config import STTConfig
from stt_core.endpoints import EndpointManager
from stt_core.interfaces.endpoint import EndpointRequest, endpoint_address
from stt_core.interfaces.transport import Address, Buffer, Transport, TransportCapabilities
from stt_core.wire import decode_varint, encode_varint
from stt_core.wire.frame import CUSTOM_FRAME_TYPES, HEADER, FrameType
from stt_streaming.decoder import BinaryStreamDecoder
from stt_streaming.encoder import BinaryStreamEncoder


async def basic_node() -> None:
    shared_seed = generate_seed()

    node = STTNode(node_seed=generate_seed(), shared_seed=shared_seed)
    await node.start()

    print(f"Node ID: {node.node_id.hex()}")

    await node.stop()


async def node_at_an_address() -> None:
    node_seed, shared_seed = generate_seed(), generate_seed()

    node = STTNode(node_seed=node_seed, shared_seed=shared_seed, host="0.0.0.0", port=0)
    await node.start()

    print(node.listening)
    await node.stop()


def handshake() -> None:
    shared_seed = generate_seed()

    initiator = STTHandshake(is_initiator=True, node_seed=generate_seed(), shared_seed=shared_seed)
    responder = STTHandshake(is_initiator=False, node_seed=generate_seed(), shared_seed=shared_seed)

    hello = initiator.create_hello()
    challenge = responder.process_hello(hello)
    response = initiator.process_challenge(challenge)
    final = responder.verify_response(response)
    initiator.process_final(final)

    assert initiator.session_id is not None
    assert initiator.session_id == responder.session_id
    print(f"Session: {initiator.session_id.hex()}")


def frame_encryption() -> None:
    cipher, nonce = AESGCM(secrets.token_bytes(32)), bytes(12)

    frame = STTFrame.create_frame(
        frame_type=FrameType.DATA, session_id=b"\x01" * 8, sequence=0, stream_id=1, payload=b"Hello!"
    )
    serialized = frame.encrypt(cipher, nonce).to_bytes()

    received = STTFrame.from_bytes(serialized).decrypt(cipher, nonce)
    print(received.payload)


def frame_as_bytes() -> None:
    encrypted_data = secrets.token_bytes(100)

    frame = STTFrame(frame_type=0x10, session_id=b"12345678", sequence=7, stream_id=1, payload=encrypted_data)
    frame_bytes = frame.to_bytes()

    assert frame_bytes[:2] == b"\x53\x54"
    assert len(frame_bytes) == HEADER.size + len(encrypted_data) + 4
    print(len(frame_bytes), "bytes of a frame")


async def use_session(session: STTSession) -> None:
    print(session.session_id.hex(), session.peer_node_id.hex())

    statistics = session.get_statistics()
    print(statistics.bytes_sent, statistics.bytes_received, statistics.streams)

    session.rotate_keys()


async def use_stream(session: STTSession, peer: STTSession) -> None:
    stream = await session.open_stream()
    await stream.send(b"Data")

    received = await peer.accept_stream()
    data = await received.receive()

    assert data == b"Data"


async def create_streams(session: STTSession) -> None:
    video_stream = await session.open_stream("video")
    audio_stream = await session.open_stream("audio", priority=1)

    print(video_stream.stream_id, audio_stream.stream_id)


async def encode_and_decode() -> None:
    key, binary_data = secrets.token_bytes(32), secrets.token_bytes(200_000)
    transport: asyncio.Queue[bytes] = asyncio.Queue()

    encoder = BinaryStreamEncoder(
        key,
        session_id=b"12345678",
        stream_id=1,
        segment_size=65536,
    )

    async for segment in encoder.send(binary_data):
        await transport.put(segment.data)

    decoder = BinaryStreamDecoder(key, session_id=b"12345678", stream_id=1)

    restored = b""
    async for decrypted_chunk in decoder.receive(messages(transport)):
        restored += decrypted_chunk

    assert restored == binary_data
    print(len(restored), "bytes restored")


async def messages(transport: asyncio.Queue[bytes]) -> AsyncIterator[bytes]:
    while True:
        yield await transport.get()


async def telemetry_handler(request: EndpointRequest) -> bytes:
    return b"read " + request.body


async def register_endpoints(node: STTNode, session: STTSession) -> None:
    node.endpoints.register("sensor.telemetry", telemetry_handler)

    print(await session.request("sensor.telemetry", b"21.5"))


def endpoints_alone() -> None:
    endpoints = EndpointManager()

    address = endpoints.register("sensor.telemetry", telemetry_handler)

    assert address == endpoint_address("sensor.telemetry")
    print(address.hex())


def serialization() -> None:
    hello = {"type": "HELLO", "nonce": secrets.token_bytes(32), "capabilities": ["udp", "websocket", "streaming"]}

    data = serialize_stt(hello)
    assert deserialize_stt(data) == hello

    assert decode_varint(encode_varint(300)) == (300, 2)
    print(len(data), "bytes of a dict")


class LoopbackTransport(Transport):
    capabilities = TransportCapabilities(reliable=True, max_message_size=1 << 20)

    async def open(self) -> None:
        self._messages: asyncio.Queue[tuple[Buffer, Address]] = asyncio.Queue()

    async def send(self, data: Buffer, address: Address) -> None:
        await self._messages.put((data, address))

    async def receive(self) -> tuple[Buffer, Address]:
        return await self._messages.get()

    async def close(self) -> None:
        """Nothing is held."""


async def transport_alone() -> None:
    transport = LoopbackTransport("loopback://", listening=True)
    await transport.open()
    await transport.send(b"bytes", "anybody")
    print(await transport.receive())


def constants() -> None:
    config = STTConfig()
    thresholds = (config.rotate_after_bytes, config.rotate_after_seconds, config.rotate_after_frames)

    assert thresholds == (1_000_000_000, 3600, 100_000)
    assert [state.value for state in State] == [0, 1, 2, 3, 4, 5]
    assert range(0x80, 0x100) == CUSTOM_FRAME_TYPES


async def between_two_nodes() -> None:
    shared_seed = generate_seed()
    alice, bob = (STTNode(node_seed=generate_seed(), shared_seed=shared_seed) for _ in range(2))

    async with alice, bob:
        [url] = await bob.listen("udp://127.0.0.1:0")
        session = await alice.connect(url)
        peer = await anext(bob.sessions())

        await use_session(session)
        await use_stream(session, peer)
        await create_streams(session)
        await register_endpoints(bob, session)


async def main() -> None:
    await basic_node()
    await node_at_an_address()
    handshake()
    frame_encryption()
    frame_as_bytes()
    await between_two_nodes()
    await encode_and_decode()
    endpoints_alone()
    serialization()
    await transport_alone()
    constants()


asyncio.run(main())
