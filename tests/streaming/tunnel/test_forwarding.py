"""Do TCP connections go through a session as if it were not there, and only where the other side allows it?"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from stt_core import ConfigError, SessionClosed, StreamClosed, STTNode
from stt_core.errors import FrameError
from stt_streaming.tunnel.connections import HostPort, abort, relay_connection
from stt_streaming.tunnel.forwarding import CONNECT_LABEL, LISTEN_LABEL, Forwarder, ForwardError
from stt_streaming.tunnel.limits import Places
from stt_streaming.tunnel.relay import TunnelCode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from stt_core import STTSession

HERE = HostPort("127.0.0.1", 0)
DATA = bytes(range(256)) * 8192


@attrs.define
class Ends:
    """Both ends of a session, and what they were told of connections that broke."""

    here: STTSession
    there: STTSession
    open: contextlib.AsyncExitStack
    broken_here: asyncio.Queue[str] = attrs.field(factory=asyncio.Queue)
    broken_there: asyncio.Queue[str] = attrs.field(factory=asyncio.Queue)

    def forwarder(self, **allowed: Any) -> Forwarder:
        """Return the forwarder of this end, the other one serving with what is allowed."""
        there = Forwarder(self.there, broken=lambda _, reason: self.broken_there.put_nowait(reason), **allowed)
        self.keep(there.serve())
        return Forwarder(self.here, broken=lambda _, reason: self.broken_here.put_nowait(reason))

    def keep(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self.open.push_async_callback(_finish, task)
        return task

    async def target(self, talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> HostPort:
        """Return where a TCP server listens."""
        server = await self.open.enter_async_context(await asyncio.start_server(talk, "127.0.0.1", 0))
        return HostPort("127.0.0.1", server.sockets[0].getsockname()[1])

    async def dial(self, at: HostPort) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(at.host, at.port)
        self.open.callback(writer.close)
        return reader, writer


async def _finish(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest_asyncio.fixture
async def ends() -> AsyncIterator[Ends]:
    nodes = [STTNode(node_seed=bytes([number]) * 32, shared_seed=bytes(32)) for number in (1, 2)]
    async with nodes[0], nodes[1], contextlib.AsyncExitStack() as stack:
        await nodes[1].listen("memory://forwarding")
        here = await nodes[0].connect("memory://forwarding")
        yield Ends(here, await anext(nodes[1].sessions()), stack)


async def echo_at_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer only once the other side has said all: what a broken half-close would hang on."""
    data = await reader.read()
    writer.write(data)
    writer.close()


def test_a_connection_can_be_aborted_again_on_uvloop() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        server = await asyncio.start_server(echo_at_end, "127.0.0.1", 0)
        async with server:
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            abort(writer)
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            abort(writer)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


# Both directions


@pytest.mark.asyncio
async def test_connections_go_through_with_their_half_closes(ends: Ends) -> None:
    target = await ends.target(echo_at_end)

    async with ends.forwarder(targets=[target]).forward(HERE, target) as at:
        connections = [await ends.dial(at) for _ in range(3)]
        for number, (_, writer) in enumerate(connections):
            writer.write(bytes([number]) + DATA)
            writer.write_eof()
        answers = [await reader.read() for reader, _ in connections]

    assert answers == [bytes([number]) + DATA for number in range(3)]
    assert ends.broken_here.empty()
    assert ends.broken_there.empty()


@pytest.mark.asyncio
async def test_a_server_that_ends_first_can_still_be_sent_to(ends: Ends) -> None:
    received = asyncio.get_running_loop().create_future()

    async def say_and_listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"welcome")
        writer.write_eof()
        received.set_result(await reader.read())
        writer.close()

    target = await ends.target(say_and_listen)
    async with ends.forwarder(targets=[target]).forward(HERE, target) as at:
        reader, writer = await ends.dial(at)
        assert await reader.read() == b"welcome"
        writer.write(DATA)
        writer.write_eof()
        assert await received == DATA


@pytest.mark.asyncio
async def test_the_reverse_connects_from_here(ends: Ends) -> None:
    target = await ends.target(echo_at_end)
    listening = asyncio.get_running_loop().create_future()
    forwarder = ends.forwarder(listens=[HERE])
    ends.keep(forwarder.serve())

    forwarding = ends.keep(forwarder.forward_reverse(HERE, target, listening.set_result))
    at = await listening
    reader, writer = await ends.dial(at)
    writer.write(DATA)
    writer.write_eof()
    assert await reader.read() == DATA

    ends.there.close()
    with pytest.raises(SessionClosed):
        await forwarding


@pytest.mark.asyncio
async def test_the_peer_listens_no_longer_than_it_is_asked_to(ends: Ends) -> None:
    listening = asyncio.get_running_loop().create_future()
    forwarder = ends.forwarder(listens=[HERE])
    forwarding = ends.keep(forwarder.forward_reverse(HERE, HERE, listening.set_result))
    at = await listening

    forwarding.cancel()

    with contextlib.suppress(ConnectionError):
        while True:  # until it is refused
            _, writer = await asyncio.open_connection(at.host, at.port)
            writer.close()


# Slow, broken, ended


@pytest.mark.asyncio
async def test_a_slow_reader_holds_up_the_sender_and_nothing_else(ends: Ends) -> None:
    sent = 0
    blocked = asyncio.Event()

    async def send_endlessly(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(bytes(1 << 20))
                sent += 1 << 20
                try:
                    await asyncio.wait_for(writer.drain(), 0.5)
                except TimeoutError:
                    blocked.set()
                    await writer.drain()

    endless, echo = await ends.target(send_endlessly), await ends.target(echo_at_end)
    forwarder = ends.forwarder(targets=[endless, echo])
    async with forwarder.forward(HERE, endless) as slow, forwarder.forward(HERE, echo) as quick:
        await ends.dial(slow)
        await blocked.wait()
        assert sent < 64 << 20

        reader, writer = await ends.dial(quick)
        writer.write(b"still there?")
        writer.write_eof()
        assert await reader.read() == b"still there?"


@pytest.mark.asyncio
@pytest.mark.parametrize("who", ["client", "target"])
async def test_a_connection_that_is_reset_is_reset_at_the_other_end(ends: Ends, who: str) -> None:
    accepted = asyncio.get_running_loop().create_future()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set_result((reader, writer))

    target = await ends.target(accept)
    async with ends.forwarder(targets=[target]).forward(HERE, target) as at:
        client = await ends.dial(at)
        pairs = {"client": client, "target": await accepted}
        (breaking, other) = (pairs.pop(who), *pairs.values())
        breaking[1].write(b"a part")
        assert await other[0].readexactly(6) == b"a part"

        breaking[1].get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        breaking[1].transport.abort()

        with pytest.raises(ConnectionResetError):
            await other[0].read()
        for queue in (ends.broken_here, ends.broken_there):
            assert await queue.get()
        other[1].close()


@pytest.mark.asyncio
async def test_the_end_of_the_session_resets_its_connections(ends: Ends) -> None:
    target = await ends.target(echo_at_end)
    async with ends.forwarder(targets=[target]).forward(HERE, target) as at:
        reader, writer = await ends.dial(at)
        writer.write(b"a part")
        await writer.drain()
        await asyncio.sleep(0)

        ends.here.close()

        with pytest.raises(ConnectionResetError):
            await reader.read()


@pytest.mark.asyncio
async def test_leaving_resets_the_connections_and_listens_no_more(ends: Ends) -> None:
    target = await ends.target(echo_at_end)
    async with ends.forwarder(targets=[target]).forward(HERE, target) as at:
        reader, writer = await ends.dial(at)
        writer.write(DATA)
        await writer.drain()

    with pytest.raises(ConnectionResetError):
        await reader.read()
    with pytest.raises(ConnectionError):
        await asyncio.open_connection(at.host, at.port)


@pytest.mark.asyncio
@pytest.mark.parametrize("steps", range(3, 7))  # of the loop, from where asyncio hands the connection over
async def test_leaving_resets_a_connection_that_has_just_come(ends: Ends, steps: int) -> None:
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        async with Forwarder(ends.here).forward(HERE, HERE) as at:
            client.connect((at.host, at.port))
            client.setblocking(False)
            for _ in range(steps):
                await asyncio.sleep(0)

        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(loop.sock_recv(client, 1), 20)


@pytest.mark.asyncio
async def test_a_connection_whose_reader_is_slow_to_the_end_can_be_left(ends: Ends) -> None:
    here, client = socket.socketpair()
    with client:
        here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        client.setblocking(False)
        client.shutdown(socket.SHUT_WR)
        connection = await asyncio.open_connection(sock=here)
        sending = await ends.there.open_stream()
        await sending.send(bytes(50_000))
        sending.end()
        relaying = ends.keep(relay_connection(await ends.here.accept_stream(), *connection))
        while not connection[1].is_closing():  # noqa: ASYNC110  nothing tells but looking
            await asyncio.sleep(0)

        await _finish(relaying)

        received = 0
        while part := await asyncio.get_running_loop().sock_recv(client, 1 << 20):
            received += len(part)
        assert received < 50_000


# What is refused


@pytest.mark.asyncio
async def test_all_listening_of_a_session_shares_its_bound_of_connections(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stt_streaming.tunnel.forwarding.CONNECTIONS_AT_ONCE", 2)
    forwarder = Forwarder(ends.here)
    async with forwarder.forward(HERE, HERE) as one, forwarder.forward(HERE, HERE) as other:
        for at in (one, other):
            await ends.dial(at)
            await ends.there.accept_stream()
        reader, _ = await ends.dial(other)

        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), 20)


@pytest.mark.asyncio
async def test_a_target_is_allowed_no_longer_than_the_peer_listens_for_it(ends: Ends) -> None:
    target = await ends.target(echo_at_end)
    listening = asyncio.get_running_loop().create_future()
    forwarder = ends.forwarder(listens=[HERE])
    ends.keep(forwarder.serve())
    forwarding = ends.keep(forwarder.forward_reverse(HERE, target, listening.set_result))
    await listening
    await _finish(forwarding)

    stream = await ends.there.open_stream(CONNECT_LABEL, metadata=target.metadata())

    stream.end()
    with pytest.raises(StreamClosed) as caught:
        await stream.receive()
    assert caught.value.code == TunnelCode.REFUSED


@pytest.mark.asyncio
async def test_a_peer_that_wants_no_more_listening_is_answered(ends: Ends) -> None:
    ends.forwarder(listens=[HERE])
    stream = await ends.here.open_stream(LISTEN_LABEL, metadata={"at": HERE.metadata(), "to": HERE.metadata()})
    await stream.receive_exactly(2)

    stream.reset()

    with pytest.raises(StreamClosed) as caught:
        await asyncio.wait_for(stream.receive(), 20)
    assert caught.value.code == TunnelCode.BROKEN


@pytest.mark.asyncio
async def test_a_target_that_is_not_allowed_is_refused(ends: Ends) -> None:
    target = await ends.target(echo_at_end)
    async with ends.forwarder(targets=[HostPort("127.0.0.1", 1)]).forward(HERE, target) as at:
        reader, _ = await ends.dial(at)

        with pytest.raises(ConnectionResetError):
            await reader.read()

    assert await ends.broken_here.get() == "the peer does not allow that"
    assert await ends.broken_there.get() == "the peer asked for it, but it is not allowed"


async def ask(ends: Ends, target: dict[str, object]) -> bytes | TunnelCode:
    """Ask for a target as the peer may spell it; return its answer to nothing, or why it is refused."""
    stream = await ends.here.open_stream(CONNECT_LABEL, metadata=target)
    stream.end()
    try:
        return await stream.receive()
    except StreamClosed as error:
        return TunnelCode(error.code)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("allowed", "asked"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "\uff11\uff12\uff17.0.0.1"),  # wide digits
        ("localhost", "LocalHost."),
    ],
)
async def test_another_spelling_of_an_allowed_target_is_allowed(ends: Ends, allowed: str, asked: str) -> None:
    target = await ends.target(echo_at_end)
    ends.forwarder(targets=[HostPort(allowed, target.port)])

    assert await ask(ends, {"host": asked, "port": target.port}) == b""


@pytest.mark.asyncio
@pytest.mark.parametrize("asked", ["127.1", "2130706433", "0177.0.0.1", "0x7f.1", "::ffff:127.0.0.1", "localhost", "0"])
async def test_what_only_leads_to_an_allowed_target_is_refused(ends: Ends, asked: str) -> None:
    target = await ends.target(echo_at_end)
    ends.forwarder(targets=[target])

    assert await ask(ends, {"host": asked, "port": target.port}) is TunnelCode.REFUSED


def answer_with(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    """Have all names lead to these addresses; return the list of names that are looked up."""
    names = []

    async def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        names.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, port)) for address in addresses]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    return names


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "0.0.0.0", "169.254.169.254", "fe80::1", "::ffff:127.0.0.1", "224.0.0.1", "::"]
)
async def test_a_name_cannot_be_made_to_lead_to_what_only_this_machine_or_its_link_has(
    ends: Ends, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    target = await ends.target(echo_at_end)
    ends.forwarder(targets=[HostPort("service.example", target.port)])
    answer_with(monkeypatch, address)

    asked = await ask(ends, {"host": "service.example", "port": target.port})

    assert asked is TunnelCode.UNREACHABLE
    assert await ends.broken_there.get() == f"it leads to {address}, where only an address as the target may lead"


@pytest.mark.asyncio
async def test_of_the_addresses_of_a_name_those_that_answer_are_taken_but_no_local_ones(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = await ends.target(echo_at_end)
    ends.forwarder(targets=[HostPort(name, target.port) for name in ("db.localhost.", "db.example")])
    names = answer_with(monkeypatch, "127.0.0.2", "127.0.0.1")

    assert await ask(ends, {"host": "DB.localhost", "port": target.port}) == b""
    assert await ask(ends, {"host": "db.example.", "port": target.port}) is TunnelCode.UNREACHABLE
    assert names == ["db.localhost.", "db.example"]  # as they were allowed, not as they were asked for


@pytest.mark.asyncio
async def test_all_sessions_of_a_serving_side_share_a_bound_of_connections(ends: Ends) -> None:
    target = await ends.target(echo_at_end)
    shared = Places(2)
    forwarder = ends.forwarder(targets=[target], listens=[HERE], shared=shared)
    assert shared.take()
    assert shared.take()  # by other sessions

    assert await ask(ends, target.metadata()) is TunnelCode.BUSY
    with pytest.raises(ForwardError, match="too many connections"):
        await forwarder.forward_reverse(HERE, HERE, lambda _: None)

    shared.give_back()
    for _ in range(3):  # one after another
        assert await ask(ends, target.metadata()) == b""
    listening = asyncio.get_running_loop().create_future()
    forwarding = ends.keep(forwarder.forward_reverse(HERE, HERE, listening.set_result))
    await listening
    assert await ask(ends, target.metadata()) is TunnelCode.BUSY
    forwarding.cancel()


@pytest.mark.asyncio
async def test_a_target_where_nobody_listens_is_told(ends: Ends) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        target = HostPort("127.0.0.1", unused.getsockname()[1])
        async with ends.forwarder(targets=[target]).forward(HERE, target) as at:
            reader, _ = await ends.dial(at)

            with pytest.raises(ConnectionResetError):
                await reader.read()

    assert await ends.broken_here.get() == "the peer cannot connect or listen there"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("listens", "reason"), [([], "does not allow"), ([HostPort("192.0.2.1", 9)], "cannot connect or listen")]
)
async def test_listening_that_is_not_allowed_or_possible_is_refused(
    ends: Ends, listens: list[HostPort], reason: str
) -> None:
    forwarder = ends.forwarder(listens=listens)

    with pytest.raises(ForwardError, match=reason):
        await forwarder.forward_reverse(HostPort("192.0.2.1", 9), HERE, lambda _: None)


@pytest.mark.asyncio
async def test_an_address_that_is_taken_here_is_an_error(ends: Ends) -> None:
    taken = await ends.target(echo_at_end)

    with pytest.raises(ForwardError, match=str(taken)):
        async with ends.forwarder().forward(taken, HERE):
            raise AssertionError


@pytest.mark.asyncio
@pytest.mark.parametrize("label", [CONNECT_LABEL, LISTEN_LABEL, "something else"])
@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {},
        {"host": "127.0.0.1"},
        {"host": b"127.0.0.1", "port": 1},
        {"host": "127.0.0.1", "port": 65_536},
        {"host": "", "port": 1},
        {"at": {}, "to": {"host": "127.0.0.1", "port": 1}},
    ],
)
async def test_streams_that_no_tunnel_opens_are_refused(ends: Ends, label: str, metadata: Any) -> None:
    ends.forwarder(targets=[HERE], listens=[HERE])
    stream = await ends.here.open_stream(label, metadata=metadata)

    with pytest.raises(StreamClosed) as caught:
        await stream.receive()

    assert caught.value.code == TunnelCode.MALFORMED


# Addresses


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("example.org:80", "example.org", 80),
        ("Example.ORG:80", "example.org", 80),
        ("127.0.0.1:0", "127.0.0.1", 0),
        ("[::1]:65535", "::1", 65_535),
    ],
)
def test_addresses_are_read_and_written(text: str, host: str, port: int) -> None:
    address = HostPort.parse(text)

    assert address == HostPort(host, port)
    assert str(address) == text.lower()
    assert HostPort.of_metadata(address.metadata()) == address


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Example.ORG:80", "example.org.:80"),
        ("[0:0:0:0:0:0:0:1]:80", "[::1]:80"),
        ("[2001:DB8::0:1]:80", "[2001:db8::1]:80"),
        ("b\xfccher.example:80", "xn--bcher-kva.EXAMPLE:80"),
        ("b\xdcCHER\u3002example:80", "xn--bcher-kva.example:80"),
    ],
)
def test_spellings_of_one_host_are_equal(one: str, other: str) -> None:
    assert HostPort.parse(one) == HostPort.parse(other)
    assert len({HostPort.parse(one), HostPort.parse(other)}) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("example.org:80", "example.org:81"),
        ("example.org:80", "www.example.org:80"),
        ("example.org..:80", "example.org:80"),
        ("[::ffff:127.0.0.1]:80", "127.0.0.1:80"),
        ("[fe80::1%eth0]:80", "[fe80::1%eth1]:80"),
        ("127.0.0.01:80", "127.0.0.1:80"),
        ("xn--bcher-kva.example:80", "bucher.example:80"),
    ],
)
def test_hosts_that_only_look_alike_are_told_apart(one: str, other: str) -> None:
    assert HostPort.parse(one) != HostPort.parse(other)


@given(st.text(min_size=1, max_size=80))
def test_any_host_is_spelt_in_one_way(host: str) -> None:
    address = HostPort(host, 1)

    assert HostPort(address.host, 1).host == address.host


@pytest.mark.parametrize(
    "text", ["", "host", ":80", "host:", "host:x", "host:65536", "::1:80", "[]:80", "a/b:80", "a b:1"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="HOST:PORT"):
        HostPort.parse(text)


@given(
    st.dictionaries(st.sampled_from(["host", "port", "to"]), st.none() | st.text() | st.integers(65_536) | st.binary())
)
def test_any_metadata_is_an_address_or_refused(metadata: Any) -> None:
    with pytest.raises(FrameError):
        HostPort.of_metadata(metadata)
