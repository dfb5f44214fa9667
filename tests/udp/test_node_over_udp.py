"""Do nodes find each other, carry bytes and part over real sockets?"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import socket
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from stt_core import ConnectError, ConnectReason, SessionClosed, STTConfig, STTNode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def make_node() -> AsyncIterator[Callable[..., STTNode]]:
    """Makes nodes that share a seed; they stop behind the test, and leave no task and no error that nobody saw."""
    before = asyncio.all_tasks()
    unseen: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
    shared_seed = secrets.token_bytes(32)
    nodes: list[STTNode] = []

    def make(**options: Any) -> STTNode:
        options = {"shared_seed": shared_seed, "require_plugins": ["udp"], **options}
        nodes.append(STTNode(node_seed=secrets.token_bytes(32), **options))
        return nodes[-1]

    yield make
    for node in nodes:
        await node.stop()
    assert asyncio.all_tasks() - before <= {asyncio.current_task()}
    assert unseen == []


async def listening(node: STTNode) -> str:
    (url,) = await node.listen("udp://127.0.0.1:0")
    return url


async def test_a_node_listens_on_several_ports_and_families(make_node: Callable[..., STTNode], host: str) -> None:
    written = f"[{host}]" if ":" in host else host
    node = make_node()

    urls = await node.listen(f"udp://{written}:0", f"udp://{written}:0")

    assert len(set(urls)) == 2
    assert all(url.startswith(f"udp://{written}:") and not url.endswith(":0") for url in urls)
    for url in urls:
        session = await make_node().connect(url, expect=node.node_id)
        assert session.path == url


async def test_starting_binds_the_host_and_port_of_the_node(make_node: Callable[..., STTNode]) -> None:
    node = make_node(host="127.0.0.1", port=0)

    await node.start()

    (url,) = node.listening
    await make_node().connect(url)


async def test_bytes_come_whole_both_ways(make_node: Callable[..., STTNode]) -> None:
    listener = make_node()
    near = await make_node().connect(await listening(listener))
    far = await anext(listener.sessions())
    data = secrets.token_bytes(16 << 20)

    async def answer() -> None:
        stream = await far.accept_stream()
        digest = hashlib.sha3_256()
        async for chunk in stream:
            digest.update(chunk)
        await stream.send(digest.digest())
        stream.end()

    answering = asyncio.create_task(answer())
    stream = await near.open_stream()
    await stream.send(data)
    stream.end()

    assert await stream.receive_exactly(32) == hashlib.sha3_256(data).digest()
    await answering


async def test_datagrams_come_whole(make_node: Callable[..., STTNode]) -> None:
    listener = make_node()
    near = await make_node().connect(await listening(listener))
    far = await anext(listener.sessions())

    near.send_datagram(b"hello")

    assert await far.receive_datagram() == b"hello"


async def test_where_nobody_listens_the_host_says_so_at_once(make_node: Callable[..., STTNode]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    async with asyncio.timeout(5):  # half of the time-out of the handshake
        with pytest.raises(ConnectError) as caught:
            await make_node().connect(f"udp://127.0.0.1:{port}")

    assert caught.value.reason is ConnectReason.UNREACHABLE


async def test_silence_ends_in_no_answer(make_node: Callable[..., STTNode]) -> None:
    dialler = make_node(config=STTConfig(handshake_timeout=0.2, handshake_retry_interval=0.05))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))

        with pytest.raises(ConnectError) as caught:
            await dialler.connect(f"udp://127.0.0.1:{silent.getsockname()[1]}")

    assert caught.value.reason is ConnectReason.NO_ANSWER
    assert dialler.get_statistics().transports == ()


async def test_garbage_gets_no_answer_and_disturbs_nobody(make_node: Callable[..., STTNode]) -> None:
    listener = make_node()
    url = await listening(listener)
    session = await make_node().connect(url)
    address = ("127.0.0.1", int(url.rpartition(":")[2]))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.settimeout(0.0)

        for garbage in (b"", b"ST", secrets.token_bytes(1200), b"ST\x01" + bytes(1197)):
            stranger.sendto(garbage, address)
        await session.ping()

        with pytest.raises(BlockingIOError):
            stranger.recv(65_535)

    statistics = listener.get_statistics()
    assert statistics.messages_malformed + statistics.handshakes_dropped == 4
    assert statistics.sessions == 1


async def test_stopping_tells_the_peer(make_node: Callable[..., STTNode]) -> None:
    listener, dialler = make_node(), make_node()
    near = await dialler.connect(await listening(listener))
    far = await anext(listener.sessions())
    stream = await near.open_stream()
    await stream.send(b"hello")
    reading = asyncio.create_task(_read_all(await far.accept_stream()))

    await dialler.stop()

    closed = await far.wait_closed()
    assert (closed.reason, closed.by_peer) == ("the node stopped", True)
    with pytest.raises(SessionClosed):
        await reading


async def _read_all(stream: Any) -> bytes:
    return b"".join([chunk async for chunk in stream])


async def test_many_connect_at_once(make_node: Callable[..., STTNode]) -> None:
    listener, dialler = make_node(), make_node()
    url = await listening(listener)

    sessions = await asyncio.gather(*(dialler.connect(url) for _ in range(30)))

    assert len({session.session_id for session in sessions}) == 30
    assert {(await anext(listener.sessions())).session_id for _ in sessions} == {
        session.session_id for session in sessions
    }


async def test_connecting_can_be_cancelled_at_any_moment(make_node: Callable[..., STTNode]) -> None:
    listener, dialler = make_node(), make_node()
    url = await listening(listener)

    for moment in range(0, 40, 2):
        connecting = asyncio.create_task(dialler.connect(url))
        for _ in range(moment):
            await asyncio.sleep(0)
        connecting.cancel()
        await asyncio.wait([connecting])
        if not connecting.cancelled():
            connecting.result().close()
            await connecting.result().wait_closed()

    assert dialler.get_statistics().sessions == 0
    assert dialler.get_statistics().transports == ()
    async with asyncio.timeout(5):
        for session in listener.active_sessions():
            await session.wait_closed()
