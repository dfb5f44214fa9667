"""Peers that stall, flood, lie and vanish: memory stays bounded, and the others are served meanwhile."""

from __future__ import annotations

import asyncio
import resource
import socket
import struct
import tracemalloc
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from stt_core.errors import PeerUnreachable, TransportError
from stt_core.interfaces.transport import Train
from stt_websocket import CloseCode, Opcode, WebSocketTransport, server_context
from stt_websocket.connection import MAX_PENDING_PONGS
from stt_websocket.frames import encode_close, encode_header

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Opened = Callable[..., Coroutine[Any, Any, WebSocketTransport]]
Raw = Callable[..., Coroutine[Any, Any, Any]]

PATIENCE = 20  # seconds, for what takes milliseconds
LOCAL = "ws://127.0.0.1:0"
KEY = bytes(4)  # a mask that changes nothing


def frame(opcode: int, payload: bytes = b"", *, is_final: bool = True) -> bytes:
    return encode_header(opcode, len(payload), KEY, is_final=is_final) + payload


async def is_served(server: WebSocketTransport, opened: Opened) -> bool:
    """Tell whether an honest client can connect and get an answer; the server must have no other messages."""
    client = await opened(server.url)
    await client.send(b"hello", client.peer)
    async with asyncio.timeout(PATIENCE):
        message, address = await server.receive()
        await server.send(message, address)
        return bytes((await client.receive())[0]) == b"hello"


async def until_there_is_room(server: WebSocketTransport, opened: Opened) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await opened(server.url)
            except TransportError:
                await asyncio.sleep(0.05)
            else:
                return


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest_asyncio.fixture
async def many_descriptors() -> Any:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4096:
        pytest.skip("this host allows too few open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# Before the WebSocket


@pytest.mark.asyncio
async def test_slow_headers_are_answered_with_408_when_the_time_is_over(opened: Opened, raw_client: Raw) -> None:
    server = await opened(LOCAL, listening=True, handshake_timeout=0.5)
    client = await raw_client(server.url, is_upgraded=False)
    served = asyncio.create_task(is_served(server, opened))
    answer = asyncio.create_task(client.receive_all())
    await client.send(b"GET / HTTP/1.1\r\nA: ")
    while not answer.done():
        await client.send(b"a")
        await asyncio.sleep(0.01)

    assert answer.result().startswith(b"HTTP/1.1 408 ")
    assert await served


@pytest.mark.asyncio
async def test_endless_headers_are_answered_with_431(opened: Opened, raw_client: Raw) -> None:
    server = await opened(LOCAL, listening=True)
    for endless in (b"A: b\r\n" * 101 + b"\r\n", b"A: " + b"a" * 20_000):
        client = await raw_client(server.url, is_upgraded=False)

        await client.send(b"GET / HTTP/1.1\r\n" + endless)

        assert (await client.receive_all()).startswith(b"HTTP/1.1 431 ")
    assert await is_served(server, opened)


@pytest.mark.asyncio
async def test_a_close_in_mid_header_frees_the_connection_and_freezes_nothing(opened: Opened, raw_client: Raw) -> None:
    server = await opened(LOCAL, listening=True, max_connections=1)
    client = await raw_client(server.url, is_upgraded=False)
    await client.send(b"GET / HTTP/1.1\r\nHost: local")

    client.end()

    assert await client.receive_all() == b""
    assert await is_served(server, opened)


@pytest.mark.asyncio
async def test_bytes_that_are_no_http_are_answered_with_400(opened: Opened, raw_client: Raw) -> None:
    server = await opened(LOCAL, listening=True)
    client = await raw_client(server.url, is_upgraded=False)

    await client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")

    assert (await client.receive_all()).startswith(b"HTTP/1.1 400 ")


@pytest.mark.asyncio
async def test_a_client_that_never_begins_tls_is_cut_off_when_the_time_is_over(
    opened: Opened, raw_client: Raw, certificates: Path
) -> None:
    server_tls = server_context(certificates / "certificate.pem", certificates / "key.pem")
    server = await opened("wss://127.0.0.1:0", listening=True, server_tls=server_tls, handshake_timeout=0.2)
    client = await raw_client(server.url, is_upgraded=False)

    assert await client.receive_all() == b""


@pytest.mark.asyncio
async def test_a_refused_client_that_does_not_go_is_cut_off(opened: Opened, raw_client: Raw) -> None:
    server = await opened(LOCAL, listening=True, max_connections=1)
    client = await raw_client(server.url, is_upgraded=False)
    await client.send(b"POST / HTTP/1.1\r\n\r\n")
    assert (await client.receive_all()).startswith(b"HTTP/1.1 405 ")

    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await opened(server.url)
            except Exception:  # noqa: BLE001  refused until the place is free again
                await asyncio.sleep(0.1)
                continue
            break


@pytest.mark.asyncio
async def test_connections_beyond_the_limit_are_closed_at_once(opened: Opened, raw_client: Raw) -> None:
    server = await opened(LOCAL, listening=True, max_connections=2)
    first, _ = await raw_client(server.url, is_upgraded=False), await raw_client(server.url)

    third = await raw_client(server.url, is_upgraded=False)

    assert await third.receive_all() == b""
    first.sock.close()
    await until_there_is_room(server, opened)


# Frames


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(encode_header(Opcode.BINARY, 1) + b"x", CloseCode.PROTOCOL_ERROR, id="unmasked"),
        pytest.param(struct.pack(">BBQ", 0x82, 0xFF, 2**63) + KEY, CloseCode.PROTOCOL_ERROR, id="2^63 bytes"),
        pytest.param(struct.pack(">BBQ", 0x82, 0xFF, 2**62) + KEY, CloseCode.TOO_BIG, id="2^62 bytes"),
        pytest.param(encode_header(Opcode.PING, 126, KEY), CloseCode.PROTOCOL_ERROR, id="control frame of 126 bytes"),
        pytest.param(frame(Opcode.PING, b"x", is_final=False), CloseCode.PROTOCOL_ERROR, id="fragmented ping"),
        pytest.param(b"\xc2\x80" + KEY, CloseCode.PROTOCOL_ERROR, id="reserved bit"),
        pytest.param(b"\x83\x80" + KEY, CloseCode.PROTOCOL_ERROR, id="reserved opcode"),
        pytest.param(frame(Opcode.TEXT, b"\xff"), CloseCode.INVALID_DATA, id="bad UTF-8"),
        pytest.param(frame(Opcode.TEXT, b"text"), CloseCode.UNSUPPORTED_DATA, id="text"),
        pytest.param(frame(Opcode.CONTINUATION, b"x"), CloseCode.PROTOCOL_ERROR, id="stray fragment"),
        pytest.param(frame(Opcode.CLOSE, b"\x03"), CloseCode.PROTOCOL_ERROR, id="half a close code"),
    ],
)
async def test_a_frame_that_is_forbidden_is_answered_with_its_code(
    opened: Opened, raw_client: Raw, data: bytes, code: CloseCode
) -> None:
    server = await opened(LOCAL, listening=True)
    client = await raw_client(server.url)

    await client.send(data)
    if code is CloseCode.UNSUPPORTED_DATA:
        opcode, payload = await client.receive_frame()
        assert (opcode, payload[:2]) == (Opcode.CLOSE, code.to_bytes(2, "big"))
    else:
        assert await client.receive_close_code() == code


@pytest.mark.asyncio
@pytest.mark.usefixtures("traced")
async def test_a_ping_flood_is_answered_in_bounded_memory_while_others_are_served(
    opened: Opened, raw_client: Raw
) -> None:
    server = await opened(LOCAL, listening=True)
    client = await raw_client(server.url)
    pings = frame(Opcode.PING, bytes(125)) * 500
    served = asyncio.create_task(is_served(server, opened))
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()

    for _ in range(200):
        await client.send(pings)

    assert await served
    _, peak = tracemalloc.get_traced_memory()
    assert peak - before < 2_000_000, "100,000 pings of 13 MB"
    await client.send(frame(Opcode.CLOSE, encode_close(CloseCode.NORMAL, "")))
    answers = await client.receive_all()
    assert answers.endswith(b"\x88\x02" + CloseCode.NORMAL.to_bytes(2, "big"))
    assert answers.count(b"\x8a\x7d") >= MAX_PENDING_PONGS


@pytest.mark.asyncio
@pytest.mark.usefixtures("traced")
async def test_a_flood_of_empty_fragments_takes_no_memory_while_others_are_served(
    opened: Opened, raw_client: Raw
) -> None:
    server = await opened(LOCAL, listening=True)
    client = await raw_client(server.url)
    await client.send(frame(Opcode.BINARY, is_final=False))
    fragments = frame(Opcode.CONTINUATION, is_final=False) * 10_000
    served = asyncio.create_task(is_served(server, opened))
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()

    for _ in range(4):
        await client.send(fragments)

    assert await served
    _, peak = tracemalloc.get_traced_memory()
    assert peak - before < 2_000_000


@pytest.mark.asyncio
@pytest.mark.usefixtures("traced")
async def test_a_large_message_that_is_announced_and_never_sent_takes_no_memory(
    opened: Opened, raw_client: Raw
) -> None:
    server = await opened(LOCAL, listening=True)
    clients = [await raw_client(server.url) for _ in range(20)]
    before, _ = tracemalloc.get_traced_memory()

    for client in clients:
        await client.send(encode_header(Opcode.BINARY, 16 * 1024 * 1024, KEY) + bytes(1000))
        await client.send(frame(Opcode.PING)[:1])

    assert await is_served(server, opened)
    after, _ = tracemalloc.get_traced_memory()
    assert after - before < 20 * 100_000, "320 MB were announced"


@pytest.mark.asyncio
@pytest.mark.usefixtures("traced")
async def test_many_messages_that_never_end_take_bounded_memory_and_the_largest_is_given_up(
    opened: Opened, raw_client: Raw, recorder: Any
) -> None:
    server = await opened(LOCAL, listening=True, max_incomplete_size=4_000_000)
    receiver = recorder()
    server.start(receiver)
    small = await raw_client(server.url)
    await small.send(encode_header(Opcode.BINARY, 1000, KEY) + bytes(500))
    before, _ = tracemalloc.get_traced_memory()

    for number in range(10):
        client = await raw_client(server.url)
        await client.send(encode_header(Opcode.BINARY, 16 * 1024 * 1024, KEY) + bytes(1_000_000))
        await receiver.until(lambda count=number - 3: len(receiver.unreachable) >= count)

    after, _ = tracemalloc.get_traced_memory()
    assert after - before < 6_000_000, "10 MB were sent"
    assert {reason for _, reason in receiver.unreachable} == {"incomplete messages take too much memory"}
    await small.send(bytes(500))
    await receiver.until(lambda: bool(receiver.messages))
    assert receiver.messages[0][0] == bytes(1000)


@pytest.mark.asyncio
async def test_a_client_learns_that_its_message_was_given_up(opened: Opened, raw_client: Raw) -> None:
    server = await opened(LOCAL, listening=True, max_incomplete_size=100_000)
    client = await raw_client(server.url)

    await client.send(encode_header(Opcode.BINARY, 16 * 1024 * 1024, KEY) + bytes(200_000))

    assert await client.receive_close_code() == CloseCode.TRY_AGAIN_LATER
    with pytest.raises(PeerUnreachable, match="incomplete"):
        await server.receive()
    assert await is_served(server, opened)


# Peers that stall or vanish


@pytest.mark.asyncio
async def test_a_half_open_connection_is_found_dead(opened: Opened, raw_client: Raw, recorder: Any) -> None:
    server = await opened(LOCAL, listening=True, ping_interval=0.1, ping_timeout=0.1)
    receiver = recorder()
    server.start(receiver)
    client = await raw_client(server.url)

    await receiver.until(lambda: bool(receiver.unreachable))

    assert "no sign of life" in receiver.unreachable[0][1]
    assert await client.receive_frame() == (Opcode.PING, b"")


@pytest.mark.asyncio
async def test_an_idle_client_that_answers_pings_stays(opened: Opened, raw_client: Raw, recorder: Any) -> None:
    server = await opened(LOCAL, listening=True, ping_interval=0.05, ping_timeout=5)
    receiver = recorder()
    server.start(receiver)
    client = await raw_client(server.url)

    for _ in range(3):
        assert await client.receive_frame() == (Opcode.PING, b"")
        await client.send(frame(Opcode.PONG))
    await client.send(frame(Opcode.BINARY, b"here"))

    await receiver.until(lambda: bool(receiver.messages))
    assert not receiver.unreachable


@pytest.mark.asyncio
async def test_a_client_that_is_not_read_is_not_taken_for_dead(opened: Opened, raw_client: Raw) -> None:
    server = await opened(LOCAL, listening=True, ping_interval=0.05, ping_timeout=0.05, receive_buffer_size=1)
    client = await raw_client(server.url)
    await client.send(frame(Opcode.BINARY, b"first"))
    while not server.statistics().messages_received:  # noqa: ASYNC110  counters tell nobody
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)  # long enough to be found dead, were its pongs not still in the socket

    await client.send(frame(Opcode.BINARY, b"second"))

    async with asyncio.timeout(PATIENCE):
        assert (await server.receive())[0] == b"first"
        assert (await server.receive())[0] == b"second"


@pytest.mark.asyncio
async def test_a_client_that_does_not_read_holds_back_its_sender_and_nobody_else(
    opened: Opened, raw_client: Raw, recorder: Any
) -> None:
    server = await opened(LOCAL, listening=True)
    receiver = recorder()
    server.start(receiver)
    client = await raw_client(server.url)
    await client.send(frame(Opcode.BINARY, b"who"))
    await receiver.until(lambda: bool(receiver.messages))
    ((_, deaf),) = receiver.messages
    message = bytes(100_000)

    while server.send_train(Train(message, len(message)), deaf):  # noqa: ASYNC110  full when the socket is
        await asyncio.sleep(0)

    honest = await opened(server.url)
    await honest.send(b"hello", honest.peer)
    await receiver.until(lambda: len(receiver.messages) == 2)
    assert server.send_train(Train(b"answer", 6), receiver.messages[1][1])
    async with asyncio.timeout(PATIENCE):
        assert (await honest.receive())[0] == b"answer"
    reading = asyncio.create_task(client.receive_all())
    await receiver.until(lambda: bool(receiver.writable_calls))
    reading.cancel()


@pytest.mark.asyncio
async def test_a_client_that_does_not_answer_close_does_not_hold_up_the_end(opened: Opened, raw_client: Raw) -> None:
    server = await opened(LOCAL, listening=True, close_timeout=0.2)
    client = await raw_client(server.url)

    async with asyncio.timeout(PATIENCE):
        await server.close()

    assert await client.receive_frame() == (Opcode.CLOSE, encode_close(CloseCode.GOING_AWAY, ""))


@pytest.mark.asyncio
async def test_a_reset_in_mid_message_is_told(opened: Opened, raw_client: Raw, recorder: Any) -> None:
    server = await opened(LOCAL, listening=True)
    receiver = recorder()
    server.start(receiver)
    client = await raw_client(server.url)
    await client.send(encode_header(Opcode.BINARY, 1000, KEY) + bytes(10))

    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.sock.close()

    await receiver.until(lambda: bool(receiver.unreachable))
    assert "reset" in receiver.unreachable[0][1].lower()
    assert not receiver.messages


@pytest.mark.asyncio
async def test_a_reset_while_this_side_sends_is_told(opened: Opened, raw_client: Raw, recorder: Any) -> None:
    server = await opened(LOCAL, listening=True)
    receiver = recorder()
    server.start(receiver)
    client = await raw_client(server.url)
    await client.send(frame(Opcode.BINARY, b"who"))
    await receiver.until(lambda: bool(receiver.messages))
    ((_, address),) = receiver.messages
    message = bytes(1_000_000)
    while server.send_train(Train(message, len(message)), address):  # noqa: ASYNC110  full when the socket is
        await asyncio.sleep(0)

    client.sock.close()  # with bytes unread: the kernel sends a reset

    await receiver.until(lambda: bool(receiver.unreachable))
    assert receiver.unreachable[0][0] == address
    assert server.send_train(Train(b"late", 4), address)
    await receiver.until(lambda: len(receiver.unreachable) == 2)


@pytest.mark.asyncio
async def test_an_end_of_stream_without_close_is_told(opened: Opened, raw_client: Raw, recorder: Any) -> None:
    server = await opened(LOCAL, listening=True)
    receiver = recorder()
    server.start(receiver)
    client = await raw_client(server.url)

    client.end()

    await receiver.until(lambda: bool(receiver.unreachable))
    assert "without a Close frame" in receiver.unreachable[0][1]


@pytest.mark.asyncio
async def test_a_client_that_floods_after_its_close_is_cut_off(opened: Opened, raw_client: Raw, recorder: Any) -> None:
    server = await opened(LOCAL, listening=True)
    receiver = recorder()
    server.start(receiver)
    client = await raw_client(server.url)
    await client.send(b"\xff\xff")

    with pytest.raises(ConnectionError):
        await flood(client)

    assert "broke the protocol" in receiver.unreachable[0][1]
    assert not receiver.messages


async def flood(client: Any) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            await client.send(bytes(100_000))
            await asyncio.sleep(0)


@pytest.mark.asyncio
@pytest.mark.usefixtures("traced", "many_descriptors")
async def test_1000_idle_clients_take_little_memory_and_hold_up_nobody(
    opened: Opened, raw_client: Raw, recorder: Any
) -> None:
    server = await opened(LOCAL, listening=True)
    receiver = recorder()
    clients = [await raw_client(server.url) for _ in range(100)]
    before, _ = tracemalloc.get_traced_memory()
    clients += [await raw_client(server.url) for _ in range(900)]
    after, _ = tracemalloc.get_traced_memory()

    assert (after - before) / 900 < 10_000
    assert await is_served(server, opened)
    server.start(receiver)
    for client in clients:
        await client.send(frame(Opcode.CLOSE))
    await receiver.until(lambda: len(receiver.unreachable) >= 1000)
