from __future__ import annotations

import asyncio
import errno
import json
import shutil
import socket
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
import pytest
import pytest_asyncio

from stt_core.errors import ConfigError, LocalError, PeerUnreachable, TransportError
from stt_core.interfaces.transport import BatchTransport, Train
from stt_udp import UDPStatistics, UDPTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from stt_core.interfaces.transport import Address, Buffer

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who refused")
PATIENCE = 20  # seconds, for what takes milliseconds


class FullSocket(socket.socket):
    """A socket whose kernel buffer is full when a test says so, or after a number of sends."""

    room: ClassVar[float] = float("inf")

    def sendto(self, *arguments: Any) -> int:
        self._take_room()
        return super().sendto(*arguments)

    def sendmsg(self, *arguments: Any) -> int:
        self._take_room()
        return super().sendmsg(*arguments)

    def _take_room(self) -> None:
        if FullSocket.room < 1:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        FullSocket.room -= 1


class BrokenSocket(socket.socket):
    """A socket that breaks when a test says so."""

    broken: ClassVar[bool] = False

    def recvmsg(self, *arguments: Any) -> Any:
        self._break()
        return super().recvmsg(*arguments)

    def recvfrom(self, *arguments: Any) -> Any:
        self._break()
        return super().recvfrom(*arguments)

    def sendto(self, *arguments: Any) -> int:
        self._break()
        return super().sendto(*arguments)

    def _break(self) -> None:
        if BrokenSocket.broken:
            raise OSError(errno.EBADF, "Bad file descriptor")


@pytest.fixture
def full_sockets(monkeypatch: pytest.MonkeyPatch) -> type[FullSocket]:
    monkeypatch.setattr(socket, "socket", FullSocket)
    monkeypatch.setattr(FullSocket, "room", float("inf"))
    return FullSocket


@pytest.fixture
def broken_sockets(monkeypatch: pytest.MonkeyPatch) -> type[BrokenSocket]:
    monkeypatch.setattr(socket, "socket", BrokenSocket)
    monkeypatch.setattr(BrokenSocket, "broken", False)
    return BrokenSocket


class Recorder:
    """A receiver that remembers what it was told, and lets tests wait for it."""

    def __init__(self) -> None:
        self.messages: list[tuple[bytes, Address]] = []
        self.bursts: list[int] = []
        self.unreachable: list[tuple[Address, str]] = []
        self.failures: list[str] = []
        self.told_writable = 0
        self.on_messages: Callable[[Sequence[tuple[Buffer, Address]]], object] | None = None
        self.on_writable: Callable[[], object] | None = None
        self._told = asyncio.Event()

    def messages_received(self, messages: Sequence[tuple[Buffer, Address]]) -> None:
        self.messages += [(bytes(data), address) for data, address in messages]
        self.bursts.append(len(messages))
        if self.on_messages is not None:
            self.on_messages(messages)
        self._told.set()

    def peer_unreachable(self, address: Address, reason: str) -> None:
        self.unreachable.append((address, reason))
        self._told.set()

    def writable(self) -> None:
        self.told_writable += 1
        if self.on_writable is not None:
            self.on_writable()
        self._told.set()

    def failed(self, reason: str) -> None:
        self.failures.append(reason)
        self._told.set()

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._told.clear()
                await self._told.wait()


@attrs.define
class Opener:
    """Opens transports on one loopback address, and closes them."""

    stack: AsyncExitStack
    host: str

    async def listening(self) -> UDPTransport:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return await self.open(f"udp://{host}:0", listening=True)

    async def connected(self, to: UDPTransport) -> UDPTransport:
        return await self.open(to.url, listening=False)

    async def open(self, url: str, *, listening: bool) -> UDPTransport:
        transport = UDPTransport(url, listening=listening)
        self.stack.push_async_callback(transport.close)
        await transport.open()
        return transport

    async def pair(self) -> tuple[UDPTransport, UDPTransport]:
        """A listening transport, and one that is connected to it."""
        listening = await self.listening()
        return listening, await self.connected(listening)

    def gone(self) -> Address:
        """An address that nobody listens at."""
        with socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((self.host, 0))
            address: Address = sock.getsockname()
            return address


@pytest_asyncio.fixture
async def opener(host: str) -> AsyncIterator[Opener]:
    async with AsyncExitStack() as stack:
        yield Opener(stack, host)


@pytest_asyncio.fixture
async def ipv4() -> AsyncIterator[Opener]:
    async with AsyncExitStack() as stack:
        yield Opener(stack, "127.0.0.1")


# Opening


def test_it_is_a_batch_transport_that_promises_no_delivery() -> None:
    assert issubclass(UDPTransport, BatchTransport)
    assert not UDPTransport.capabilities.reliable
    assert UDPTransport.capabilities.max_message_size == 65_507
    assert UDPTransport.capabilities.initial_message_size == 1200


@pytest.mark.parametrize("url", ["udp://127.0.0.1", "udp://:4433", "ws://127.0.0.1:80", "udp://u:p@127.0.0.1:4433"])
def test_unusable_url_is_refused_before_anything_is_opened(url: str) -> None:
    with pytest.raises(ConfigError):
        UDPTransport(url, listening=True)


@pytest.mark.asyncio
async def test_listening_on_port_0_gives_the_real_url(opener: Opener) -> None:
    transport = await opener.listening()

    host, _, port = transport.url.removeprefix("udp://").rpartition(":")
    assert host.strip("[]") == opener.host
    assert int(port) > 0
    assert transport.peer is None


@pytest.mark.asyncio
async def test_connecting_gives_the_peer_and_keeps_the_url(opener: Opener) -> None:
    listening, connected = await opener.pair()

    assert connected.url == listening.url
    assert isinstance(connected.peer, tuple)
    assert connected.peer[0] == opener.host


@pytest.mark.asyncio
async def test_host_names_are_resolved(ipv4: Opener) -> None:
    listening = await ipv4.open("udp://localhost:0", listening=True)
    connected = await ipv4.open(
        listening.url.replace("[::1]", "localhost").replace("127.0.0.1", "localhost"), listening=False
    )

    await connected.send(b"hello", connected.peer)

    assert (await listening.receive())[0] == b"hello"


@pytest.mark.asyncio
async def test_one_port_can_be_listened_on_for_both_families(ipv4: Opener, ipv6_host: str) -> None:
    wildcard = await ipv4.open("udp://0.0.0.0:0", listening=True)
    port = wildcard.url.rpartition(":")[2]

    both = await ipv4.open(f"udp://[::]:{port}", listening=True)

    for host, transport in (("127.0.0.1", wildcard), (f"[{ipv6_host}]", both)):
        peer = await ipv4.open(f"udp://{host}:{port}", listening=False)
        await peer.send(host.encode(), peer.peer)
        assert (await transport.receive())[0] == host.encode()


@pytest.mark.asyncio
async def test_address_in_use_is_a_transport_error(opener: Opener) -> None:
    taken = await opener.listening()

    with pytest.raises(TransportError, match=r"cannot listen on udp://.*: Address already in use"):
        await opener.open(taken.url, listening=True)


@pytest.mark.asyncio
async def test_address_of_another_host_cannot_be_listened_on(ipv4: Opener) -> None:
    with pytest.raises(TransportError, match="cannot listen on"):
        await ipv4.open("udp://192.0.2.1:0", listening=True)


@pytest.mark.asyncio
async def test_peer_without_a_route_is_a_transport_error(ipv4: Opener) -> None:
    # A broadcast address: no socket reaches it unless it asks to.
    with pytest.raises(TransportError, match=r"cannot reach udp://255\.255\.255\.255:4433: "):
        await ipv4.open("udp://255.255.255.255:4433", listening=False)


@pytest.mark.asyncio
async def test_opening_twice_is_the_callers_mistake(opener: Opener) -> None:
    transport = await opener.listening()

    with pytest.raises(LocalError, match="opened before"):
        await transport.open()


@pytest.mark.asyncio
async def test_use_before_opening_is_the_callers_mistake() -> None:
    transport = UDPTransport("udp://127.0.0.1:0", listening=True)

    with pytest.raises(LocalError, match="not open"):
        await transport.receive()
    with pytest.raises(LocalError, match="not open"):
        await transport.send(b"hello", ("127.0.0.1", 4433))
    with pytest.raises(LocalError, match="not open"):
        transport.send_train(Train(b"hello", 5), ("127.0.0.1", 4433))
    with pytest.raises(LocalError, match="not open"):
        transport.start(Recorder())
    assert transport.statistics() == UDPStatistics()


def test_loop_that_cannot_watch_sockets_is_named() -> None:
    class ProactorLike(asyncio.SelectorEventLoop):
        def remove_reader(self, fd: Any) -> bool:
            raise NotImplementedError

    transport = UDPTransport("udp://127.0.0.1:0", listening=True)
    with (
        asyncio.Runner(loop_factory=ProactorLike) as runner,
        pytest.raises(TransportError, match=r"ProactorLike cannot watch sockets: run on asyncio\.SelectorEventLoop"),
    ):
        runner.run(transport.open())


# Without a receiver


@pytest.mark.asyncio
async def test_messages_go_both_ways(opener: Opener) -> None:
    listening, connected = await opener.pair()

    await connected.send(b"ping", connected.peer)
    data, address = await listening.receive()
    await listening.send(b"pong", address)

    assert data == b"ping"
    assert await connected.receive() == (b"pong", connected.peer)


@pytest.mark.asyncio
@pytest.mark.parametrize("size", [0, 1, 1472, 65_488])
async def test_message_boundaries_are_kept(opener: Opener, size: int) -> None:
    listening, connected = await opener.pair()

    await connected.send(bytes(size), connected.peer)
    await connected.send(b"next", connected.peer)

    assert [len((await listening.receive())[0]) for _ in range(2)] == [size, 4]


@pytest.mark.asyncio
async def test_message_above_the_limit_is_refused(ipv4: Opener) -> None:
    listening, connected = await ipv4.pair()

    await connected.send(bytes(65_507), connected.peer)
    with pytest.raises(TransportError, match="holds 65507 bytes, not 65508"):
        await connected.send(bytes(65_508), connected.peer)

    assert len((await listening.receive())[0]) == 65_507


@pytest.mark.asyncio
async def test_receive_waits_and_several_may(opener: Opener) -> None:
    listening, connected = await opener.pair()
    receiving = [asyncio.ensure_future(listening.receive()) for _ in range(3)]
    await asyncio.wait(receiving, timeout=0)

    for number in range(3):
        await connected.send(bytes([number]), connected.peer)

    async with asyncio.timeout(PATIENCE):
        received = await asyncio.gather(*receiving)
    assert sorted(bytes(data) for data, _ in received) == [b"\0", b"\1", b"\2"]


@pytest.mark.asyncio
async def test_cancelled_receive_loses_nothing(opener: Opener) -> None:
    listening, connected = await opener.pair()
    receiving = asyncio.ensure_future(listening.receive())
    await asyncio.wait([receiving], timeout=0)
    await connected.send(b"hello", connected.peer)
    receiving.cancel()
    await asyncio.wait([receiving])

    async with asyncio.timeout(PATIENCE):
        assert (await listening.receive())[0] == b"hello"


@on_linux
@pytest.mark.asyncio
async def test_receive_names_the_peer_that_is_gone_and_goes_on(opener: Opener) -> None:
    listening, connected = await opener.pair()
    gone = opener.gone()
    receiving = asyncio.ensure_future(listening.receive())
    await asyncio.wait([receiving], timeout=0)

    await listening.send(b"anyone?", gone)
    with pytest.raises(PeerUnreachable, match="Connection refused") as caught:
        await asyncio.wait_for(receiving, PATIENCE)
    await connected.send(b"hello", connected.peer)

    assert caught.value.address == gone
    assert (await listening.receive())[0] == b"hello"


@on_linux
@pytest.mark.asyncio
async def test_send_names_the_peer_that_is_gone_and_serves_others(opener: Opener) -> None:
    listening, connected = await opener.pair()
    gone = opener.gone()

    async def send_to_both() -> None:
        for _ in range(1000):
            await connected.send(b"anyone?", gone)
            await connected.send(b"hello", connected.peer)

    with pytest.raises(PeerUnreachable) as caught:
        await send_to_both()

    assert caught.value.address == gone
    assert (await listening.receive())[0] == b"hello"


@on_linux
@pytest.mark.asyncio
async def test_unreported_peers_are_bounded(ipv4: Opener) -> None:
    listening, connected = await ipv4.pair()
    asked = 1500
    for port in range(1, asked + 1):
        listening.send_train(Train(b"anyone?", 7), ("127.0.0.1", port))
    await connected.send(b"hello", connected.peer)

    reported = 0
    while True:
        try:
            await listening.receive()
            break
        except PeerUnreachable:
            reported += 1

    assert 0 < reported <= 1024 + 64


@pytest.mark.asyncio
async def test_send_waits_while_the_buffer_is_full(opener: Opener, full_sockets: type[FullSocket]) -> None:
    listening, connected = await opener.pair()
    full_sockets.room = 0
    sending = [asyncio.ensure_future(connected.send(b"hello", connected.peer)) for _ in range(2)]

    done, _ = await asyncio.wait(sending, timeout=0.05)
    assert not done
    full_sockets.room = 10

    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*sending)
    assert [(await listening.receive())[0] for _ in range(2)] == [b"hello"] * 2
    assert connected.statistics().send_waits >= 1


# With a receiver


@pytest.mark.asyncio
async def test_train_is_delivered_as_messages(opener: Opener) -> None:
    listening, connected = await opener.pair()
    recorder = Recorder()
    listening.start(recorder)
    messages = [bytes([number]) * 1472 for number in range(100)] + [b"last"]

    assert connected.send_train(Train(b"".join(messages), 1472), connected.peer)

    await recorder.wait_until(lambda: len(recorder.messages) == 101)
    assert [data for data, _ in recorder.messages] == messages
    assert len({address for _, address in recorder.messages}) == 1


@pytest.mark.asyncio
async def test_answers_reach_the_sender_from_within_the_delivery(opener: Opener) -> None:
    listening, connected = await opener.pair()
    here, there = Recorder(), Recorder()
    there.on_messages = lambda messages: listening.send_train(Train(b"pong", 4), messages[0][1])
    listening.start(there)
    connected.start(here)

    connected.send_train(Train(b"ping", 4), connected.peer)

    await here.wait_until(lambda: bool(here.messages))
    assert here.messages == [(b"pong", connected.peer)]


@pytest.mark.asyncio
async def test_other_tasks_run_between_bursts(opener: Opener) -> None:
    listening, connected = await opener.pair()
    for _ in range(40):
        connected.send_train(Train(bytes(50 * 64), 50), connected.peer)
    recorder = Recorder()
    turns: list[int] = []
    recorder.on_messages = lambda _: asyncio.get_running_loop().call_soon(turns.append, len(recorder.bursts))

    listening.start(recorder)

    await recorder.wait_until(lambda: len(recorder.messages) == 40 * 64)
    assert max(recorder.bursts) < 256 + 128
    assert turns[0] < len(recorder.bursts)


@pytest.mark.asyncio
async def test_what_came_before_the_receiver_is_delivered_to_it(opener: Opener) -> None:
    listening, connected = await opener.pair()
    for number in range(5):
        await connected.send(bytes([number]), connected.peer)
    first, _ = await listening.receive()
    recorder = Recorder()

    listening.start(recorder)

    assert recorder.messages == []
    await recorder.wait_until(lambda: len(recorder.messages) == 4)
    assert [first] + [data for data, _ in recorder.messages] == [bytes([number]) for number in range(5)]


@on_linux
@pytest.mark.asyncio
async def test_peer_found_gone_before_the_receiver_came_is_reported_to_it(opener: Opener) -> None:
    transport = await opener.listening()
    gone = opener.gone()
    for _ in range(2):
        transport.send_train(Train(b"anyone?", 7), gone)
    recorder = Recorder()

    transport.start(recorder)

    await recorder.wait_until(lambda: bool(recorder.unreachable))
    assert {address for address, _ in recorder.unreachable} == {gone}


@pytest.mark.asyncio
async def test_receiver_takes_the_place_of_receive(opener: Opener) -> None:
    transport = await opener.listening()
    receiving = asyncio.ensure_future(transport.receive())
    await asyncio.wait([receiving], timeout=0)

    transport.start(Recorder())

    with pytest.raises(LocalError, match="receiver"):
        await asyncio.wait_for(receiving, PATIENCE)
    with pytest.raises(LocalError, match="receiver"):
        await transport.receive()
    with pytest.raises(LocalError, match="started before"):
        transport.start(Recorder())


@on_linux
@pytest.mark.asyncio
async def test_exactly_the_refused_peers_are_reported(opener: Opener) -> None:
    listening, connected = await opener.pair()
    here, there = Recorder(), Recorder()
    listening.start(there)
    connected.start(here)
    gone = {opener.gone() for _ in range(10)}

    for address in gone:
        connected.send_train(Train(bytes(30), 10), address)
        connected.send_train(Train(bytes(30), 10), connected.peer)
        assert here.unreachable == []

    await there.wait_until(lambda: len(there.messages) == 30)
    await here.wait_until(lambda: len(here.unreachable) >= 10)
    assert {address for address, _ in here.unreachable} == gone
    assert connected.statistics().messages_dropped == 0


@on_linux
@pytest.mark.asyncio
async def test_send_beside_a_receiver_raises_and_the_receiver_is_told(opener: Opener) -> None:
    transport = await opener.listening()
    recorder = Recorder()
    transport.start(recorder)
    gone = opener.gone()
    await transport.send(b"anyone?", gone)

    with pytest.raises(PeerUnreachable) as caught:
        await transport.send(b"anyone?", gone)

    assert caught.value.address == gone
    await recorder.wait_until(lambda: bool(recorder.unreachable))
    assert {address for address, _ in recorder.unreachable} == {gone}


@pytest.mark.asyncio
async def test_refused_train_is_announced_when_there_is_room(opener: Opener, full_sockets: type[FullSocket]) -> None:
    listening, connected = await opener.pair()
    here, there = Recorder(), Recorder()
    listening.start(there)
    connected.start(here)
    train = Train(bytes(3000), 1000)
    full_sockets.room = 0

    assert not connected.send_train(train, connected.peer)
    assert not connected.send_train(train, connected.peer)
    assert here.told_writable == 0
    full_sockets.room = 100
    await here.wait_until(lambda: here.told_writable == 1)
    assert connected.send_train(train, connected.peer)

    await there.wait_until(lambda: len(there.messages) == 3)
    assert connected.statistics().send_waits == 1
    assert here.told_writable == 1


@pytest.mark.asyncio
async def test_partly_sent_train_is_kept_although_its_buffer_is_used_again(
    opener: Opener, full_sockets: type[FullSocket]
) -> None:
    listening, connected = await opener.pair()
    here, there = Recorder(), Recorder()
    listening.start(there)
    connected.start(here)
    messages = [number.to_bytes(2, "big") * 500 for number in range(200)]
    buffer = bytearray(b"".join(messages))
    full_sockets.room = 1

    assert connected.send_train(Train(buffer, 1000), connected.peer)
    buffer[:] = bytes(len(buffer))
    assert not connected.send_train(Train(b"after", 5), connected.peer)
    here.on_writable = lambda: connected.send_train(Train(b"after", 5), connected.peer)
    await there.wait_until(lambda: len(there.messages) > 0)
    assert here.told_writable == 0
    full_sockets.room = 1
    await there.wait_until(lambda: len(there.messages) > 64)
    full_sockets.room = 1000

    await there.wait_until(lambda: len(there.messages) == 201)
    assert [data for data, _ in there.messages] == [*messages, b"after"]
    assert here.told_writable == 1
    assert connected.statistics().messages_dropped == 0


@pytest.mark.asyncio
async def test_room_is_not_announced_to_whom_nothing_was_refused(
    opener: Opener, full_sockets: type[FullSocket]
) -> None:
    listening, connected = await opener.pair()
    here, there = Recorder(), Recorder()
    listening.start(there)
    connected.start(here)
    full_sockets.room = 1
    assert connected.send_train(Train(bytes(200_000), 1000), connected.peer)
    full_sockets.room = 1000

    await there.wait_until(lambda: len(there.messages) == 200)

    assert here.told_writable == 0


@pytest.mark.skipif(
    sys.platform != "linux" or not (shutil.which("unshare") and shutil.which("tc") and shutil.which("ip")),
    reason="needs a network namespace of its own, with unshare, tc and ip",
)
def test_full_kernel_buffer_holds_the_sender_and_loses_nothing() -> None:
    slow_loopback = "ip link set lo up && tc qdisc add dev lo root tbf rate 800mbit burst 200kb limit 64mb"
    isolated = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c"]
    if subprocess.run([*isolated, slow_loopback], capture_output=True, check=False).returncode:
        pytest.skip("this host gives no network namespace with a token bucket filter")
    script = Path(__file__).with_name("throttled_link.py")

    done = subprocess.run(
        [*isolated, f'{slow_loopback} && exec "$0" "$1"', sys.executable, str(script)],
        capture_output=True,
        check=False,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["sizes"] == [1000]
    assert seen["refused"] == seen["told_writable"] > 0
    assert seen["send_waits"] > 0
    assert seen["messages_dropped"] == 0
    assert seen["messages_sent"] == 16_000


@pytest.mark.asyncio
async def test_a_thousand_peers_are_served_each_at_its_address(opener: Opener) -> None:
    listening = await opener.listening()
    recorder = Recorder()
    listening.start(recorder)
    recorder.on_messages = lambda messages: (
        [listening.send_train(Train(data, max(1, len(data))), address) for data, address in messages]
    )
    addresses = set()

    # 250 at a time, as a process may have no more than 256 files by default.
    for batch in range(4):
        peers = [await opener.connected(listening) for _ in range(250)]
        for number, peer in enumerate(peers):
            await peer.send(f"{batch} {number}".encode(), peer.peer)
        async with asyncio.timeout(PATIENCE):
            for number, peer in enumerate(peers):
                assert await peer.receive() == (f"{batch} {number}".encode(), peer.peer)
        addresses |= {address for _, address in recorder.messages}
        for peer in peers:
            await peer.close()

    assert len(recorder.messages) == 1000
    assert len(addresses) > 900  # a port may be given out again


# Ending


@pytest.mark.asyncio
async def test_closing_twice_is_allowed(opener: Opener) -> None:
    transport = await opener.listening()

    await transport.close()
    await transport.close()


@pytest.mark.asyncio
async def test_closed_transport_refuses_everything(opener: Opener) -> None:
    listening, connected = await opener.pair()
    await connected.close()

    for use in (connected.receive(), connected.send(b"hello", connected.peer), connected.open()):
        with pytest.raises((TransportError, LocalError)):
            await use
    with pytest.raises(TransportError, match="is closed"):
        connected.send_train(Train(b"hello", 5), connected.peer)
    with pytest.raises(TransportError, match="is closed"):
        connected.start(Recorder())
    await listening.close()


@pytest.mark.asyncio
async def test_close_ends_a_waiting_receive(opener: Opener) -> None:
    transport = await opener.listening()
    receiving = [asyncio.ensure_future(transport.receive()) for _ in range(2)]
    await asyncio.wait(receiving, timeout=0)

    await transport.close()

    for waiting in receiving:
        with pytest.raises(TransportError, match="is closed"):
            await asyncio.wait_for(waiting, PATIENCE)


@pytest.mark.asyncio
async def test_close_may_follow_a_cancelled_receive_at_once(opener: Opener) -> None:
    transport = await opener.listening()
    receiving = asyncio.ensure_future(transport.receive())
    await asyncio.wait([receiving], timeout=0)
    receiving.cancel()

    await transport.close()

    with pytest.raises(asyncio.CancelledError):
        await receiving


@pytest.mark.asyncio
async def test_close_ends_a_waiting_send(opener: Opener, full_sockets: type[FullSocket]) -> None:
    _, connected = await opener.pair()
    full_sockets.room = 0
    sending = asyncio.ensure_future(connected.send(b"hello", connected.peer))
    await asyncio.wait([sending], timeout=0)

    await connected.close()

    with pytest.raises(TransportError, match="is closed"):
        await asyncio.wait_for(sending, PATIENCE)


@pytest.mark.asyncio
async def test_close_drops_and_counts_the_rest_of_a_train(opener: Opener, full_sockets: type[FullSocket]) -> None:
    _, connected = await opener.pair()
    full_sockets.room = 1
    connected.send_train(Train(bytes(100_000), 1000), connected.peer)

    await connected.close()

    statistics = connected.statistics()
    assert statistics.messages_sent + statistics.messages_dropped == 100
    assert statistics.messages_dropped > 0


@pytest.mark.asyncio
async def test_close_while_opening_opens_nothing() -> None:
    transport = UDPTransport("udp://localhost:0", listening=True)
    opening = asyncio.ensure_future(transport.open())
    await asyncio.wait([opening], timeout=0)

    await transport.close()

    with pytest.raises(TransportError, match="is closed"):
        await asyncio.wait_for(opening, PATIENCE)


@pytest.mark.asyncio
async def test_closed_transport_tells_its_receiver_nothing_more(opener: Opener) -> None:
    listening, connected = await opener.pair()
    recorder, witness = Recorder(), Recorder()
    listening.start(recorder)
    second = await opener.listening()
    second.start(witness)
    gone = opener.gone()
    for _ in range(2):
        listening.send_train(Train(b"anyone?", 7), gone)
    connected.send_train(Train(b"late", 4), connected.peer)
    other = await opener.connected(second)

    await listening.close()
    other.send_train(Train(b"later still", 11), other.peer)

    await witness.wait_until(lambda: bool(witness.messages))
    assert recorder.messages == []
    assert recorder.unreachable == []
    assert recorder.failures == []


@pytest.mark.asyncio
async def test_last_statistics_stay_after_close(opener: Opener) -> None:
    listening, connected = await opener.pair()
    await connected.send(bytes(1000), connected.peer)
    await listening.receive()

    await connected.close()
    await listening.close()

    assert (connected.statistics().messages_sent, connected.statistics().bytes_sent) == (1, 1000)
    assert (listening.statistics().messages_received, listening.statistics().bytes_received) == (1, 1000)
    assert listening.statistics().receive_buffer_size


@pytest.mark.asyncio
async def test_port_is_free_after_close(opener: Opener) -> None:
    first = await opener.listening()
    await first.close()

    again = await opener.open(first.url, listening=True)

    assert again.url == first.url


@pytest.mark.asyncio
async def test_broken_socket_is_told_to_the_receiver(opener: Opener, broken_sockets: type[BrokenSocket]) -> None:
    listening, connected = await opener.pair()
    recorder = Recorder()
    listening.start(recorder)
    connected.send_train(Train(b"hello", 5), connected.peer)
    broken_sockets.broken = True

    await recorder.wait_until(lambda: bool(recorder.failures))

    assert recorder.failures == ["the UDP socket failed: Bad file descriptor"]
    with pytest.raises(TransportError, match="Bad file descriptor"):
        listening.send_train(Train(b"hello", 5), connected.peer)


@pytest.mark.asyncio
async def test_broken_socket_fails_send_and_is_told_later(opener: Opener, broken_sockets: type[BrokenSocket]) -> None:
    _, connected = await opener.pair()
    recorder = Recorder()
    connected.start(recorder)
    broken_sockets.broken = True

    with pytest.raises(TransportError, match="Bad file descriptor"):
        connected.send_train(Train(b"hello", 5), connected.peer)

    assert recorder.failures == []
    await recorder.wait_until(lambda: bool(recorder.failures))


@pytest.mark.asyncio
async def test_broken_socket_ends_receive(opener: Opener, broken_sockets: type[BrokenSocket]) -> None:
    transport = await opener.listening()
    broken_sockets.broken = True

    with pytest.raises(TransportError, match="Bad file descriptor"):
        await transport.receive()
    with pytest.raises(TransportError, match="Bad file descriptor"):
        await transport.receive()


@pytest.mark.asyncio
async def test_socket_that_breaks_with_a_rest_unsent_is_told(
    ipv4: Opener, full_sockets: type[FullSocket], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, connected = await ipv4.pair()
    recorder = Recorder()
    connected.start(recorder)
    full_sockets.room = 1
    assert connected.send_train(Train(bytes(100_000), 1000), connected.peer)

    def broken(*_: object) -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(full_sockets, "_take_room", broken)

    await recorder.wait_until(lambda: bool(recorder.failures))
    assert connected.statistics().messages_dropped > 0
