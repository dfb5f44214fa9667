"""Does a node listen, connect, accept and stop, whatever peers, transports and impatient callers do?"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from stt_core import (
    ConfigError,
    ConnectError,
    ConnectReason,
    LocalError,
    PeerUnreachable,
    RequestTimeout,
    SessionClosed,
    State,
    StorageError,
    StreamClosed,
    STTConfig,
    STTNode,
    STTSession,
    TransportError,
    hookimpl,
)
from stt_core.defaults.controllers import NewReno
from stt_core.defaults.memory_storage import MemoryStorage
from stt_core.defaults.memory_transport import MemoryTransport
from stt_core.interfaces import BatchTransport, Train, Transport, TransportCapabilities
from stt_core.interfaces.frame import FrameType
from stt_core.subscriptions import LinkLost

if TYPE_CHECKING:
    from collections.abc import Callable

    from stt_core.interfaces import Address, Buffer, TransportReceiver
    from stt_core.interfaces.endpoint import EndpointRequest

pytestmark = pytest.mark.asyncio

HASTY = STTConfig(handshake_timeout=0.1, handshake_retry_interval=0.02)


def url_of(scheme: str = "memory") -> str:
    return f"{scheme}://{secrets.token_hex(8)}"


async def listening(node: STTNode, scheme: str = "memory") -> str:
    (url,) = await node.listen(url_of(scheme))
    return url


async def next_session(node: STTNode) -> STTSession:
    return await anext(node.sessions())


async def refused(connecting: Any) -> ConnectError:
    with pytest.raises(ConnectError) as caught:
        await connecting
    return caught.value


class Offering:
    """A plugin with transports for tests."""

    def __init__(self, **transports: Callable[..., Transport]) -> None:
        self._transports = transports

    @hookimpl
    def stt_register_transports(self, register: Callable[..., None]) -> None:
        for scheme, factory in self._transports.items():
            register(scheme, factory)


class Renamed(MemoryTransport):
    """A memory transport under another scheme."""

    def __init__(self, url: str, *, listening: bool) -> None:
        super().__init__(f"memory://{url.partition('://')[2]}", listening=listening)
        self.url = url


# Life


async def test_a_node_is_who_its_seed_makes_it(make_node: Callable[..., STTNode]) -> None:
    node = make_node()

    assert len(node.node_id) == 32
    assert node.node_id.hex()[:16] in repr(node)
    assert node.listening == ()


async def test_listening_gives_the_real_urls(make_node: Callable[..., STTNode]) -> None:
    node = make_node()
    urls = [url_of(), url_of()]

    assert await node.listen(*urls) == urls
    assert node.listening == tuple(urls)


async def test_what_was_listened_on_before_one_fails_stays(make_node: Callable[..., STTNode]) -> None:
    node, other = make_node(), make_node()
    taken = await listening(other)
    first = url_of()

    with pytest.raises(TransportError, match="taken"):
        await node.listen(first, taken, url_of())

    assert node.listening == (first,)
    await other.connect(first)


@pytest.mark.parametrize("url", ["carrier-pigeon://loft", "no url at all", "memory://", "memory://a/b"])
async def test_a_url_that_cannot_be_used_is_refused(make_node: Callable[..., STTNode], url: str) -> None:
    node = make_node()

    with pytest.raises(ConfigError):
        await node.listen(url)
    with pytest.raises(ConfigError):
        await node.connect(url)
    assert node.get_statistics().transports == ()


async def test_a_scheme_that_nobody_serves_is_refused_beside_good_urls(make_node: Callable[..., STTNode]) -> None:
    good = await listening(make_node())

    with pytest.raises(ConfigError, match="carrier-pigeon"):
        await make_node().connect([good, "carrier-pigeon://loft"])


async def test_there_has_to_be_a_url_to_connect_to(make_node: Callable[..., STTNode]) -> None:
    with pytest.raises(ConfigError, match="no URL"):
        await make_node().connect([])


@pytest.mark.parametrize(("host", "url"), [("127.0.0.1", "toy://127.0.0.1:7"), ("::1", "toy://[::1]:7")])
async def test_starting_listens_with_a_datagram_transport(
    make_node: Callable[..., STTNode], host: str, url: str
) -> None:
    class Datagrams(Renamed):
        capabilities = TransportCapabilities(reliable=False, max_message_size=1452)

    node = make_node(host=host, port=7, plugins=[Offering(toy=Datagrams)])

    await asyncio.gather(node.start(), node.start())
    await node.start()

    assert node.listening == (url,)


async def test_starting_changes_nothing_for_a_node_that_listens(make_node: Callable[..., STTNode]) -> None:
    node = make_node()
    url = await listening(node)

    await node.start()

    assert node.listening == (url,)


async def test_starting_without_a_datagram_transport_says_what_to_install(make_node: Callable[..., STTNode]) -> None:
    with pytest.raises(ConfigError, match="stt-udp"):
        await make_node().start()


async def test_a_node_that_was_never_used_can_be_stopped(make_node: Callable[..., STTNode]) -> None:
    node = make_node()

    await node.stop()
    await node.stop()

    with pytest.raises(LocalError, match="was stopped"):
        await listening(node)


async def test_a_stopped_node_does_nothing_more(make_node: Callable[..., STTNode]) -> None:
    node, other = make_node(), make_node()
    url = await listening(other)
    await listening(node)

    await asyncio.gather(node.stop(), node.stop())
    await node.stop()

    assert node.listening == ()
    for use in (node.connect(url), node.listen(url_of()), node.start()):
        with pytest.raises(LocalError, match="was stopped"):
            await use
    assert [session async for session in node.sessions()] == []
    assert [packet async for packet in node.receive()] == []
    assert node.get_statistics().sessions == 0


async def test_leaving_the_context_stops_the_node_whatever_happened(make_node: Callable[..., STTNode]) -> None:
    url = url_of()
    failing = fail_with(make_node(), url)

    with pytest.raises(ZeroDivisionError):
        await failing

    assert await make_node().listen(url) == [url]


async def fail_with(node: STTNode, url: str) -> None:
    async with node:
        await node.listen(url)
        raise ZeroDivisionError


async def test_a_node_belongs_to_one_event_loop(make_node: Callable[..., STTNode]) -> None:
    node = make_node()
    await listening(node)

    with pytest.raises(LocalError, match="another event loop"):
        await asyncio.to_thread(asyncio.run, node.listen(url_of()))


@pytest.mark.parametrize("name", ["allow", "deny"])
@pytest.mark.parametrize("node_id", ["a" * 64, b"short", bytes(33), 7])
async def test_lists_of_nodes_hold_node_ids(make_node: Callable[..., STTNode], name: str, node_id: object) -> None:
    with pytest.raises(ConfigError, match=f"{name} holds node ids"):
        make_node(**{name: [node_id]})


async def test_an_unknown_controller_is_told_with_the_known_ones(make_node: Callable[..., STTNode]) -> None:
    with pytest.raises(ConfigError, match=r"no congestion controller 'warp'.*cubic.*newreno"):
        make_node(config=STTConfig(congestion_controller="warp"))


# Connecting


async def test_connecting_gives_a_session_at_both_ends(make_node: Callable[..., STTNode]) -> None:
    listener, dialler = make_node(), make_node()
    url = await listening(listener)

    near = await dialler.connect(url, expect=listener.node_id)
    far = await anext(listener.sessions())

    assert near.session_id == far.session_id
    assert dialler.get_statistics().sessions == listener.get_statistics().sessions == 1


async def test_many_connect_at_once(make_node: Callable[..., STTNode]) -> None:
    listener, diallers = make_node(), [make_node() for _ in range(4)]
    url = await listening(listener)

    near = await asyncio.gather(*(node.connect(url) for node in diallers for _ in range(5)))

    far = {(await anext(listener.sessions())).session_id for _ in near}
    assert far == {session.session_id for session in near}
    assert len(far) == 20


async def test_two_nodes_may_connect_to_each_other_at_once(make_node: Callable[..., STTNode]) -> None:
    first, second = make_node(), make_node()
    urls = await listening(first), await listening(second)

    near, far = await asyncio.gather(first.connect(urls[1]), second.connect(urls[0]))

    assert near.session_id != far.session_id
    assert first.get_statistics().sessions == second.get_statistics().sessions == 2


async def test_where_nobody_listens_nobody_is_reached(make_node: Callable[..., STTNode]) -> None:
    node = make_node()

    error = await refused(node.connect(url_of()))

    assert error.reason is ConnectReason.UNREACHABLE
    assert "nobody listens" in str(error)
    assert node.get_statistics().transports == ()


async def test_a_listener_that_goes_away_during_the_handshake_is_unreachable(make_node: Callable[..., STTNode]) -> None:
    url = url_of()
    listener = MemoryTransport(url, listening=True)
    await listener.open()
    connecting = asyncio.create_task(make_node().connect(url))

    await listener.receive()
    await listener.close()

    assert (await refused(connecting)).reason is ConnectReason.UNREACHABLE


async def test_another_node_than_the_expected_one_is_refused(make_node: Callable[..., STTNode]) -> None:
    listener, dialler = make_node(), make_node()
    url = await listening(listener)

    error = await refused(dialler.connect(url, expect=dialler.node_id))

    assert error.reason is ConnectReason.WRONG_PEER
    assert dialler.get_statistics().transports == ()
    assert dialler.get_statistics().handshakes_failed == 1
    assert listener.get_statistics().sessions == 0


@pytest.mark.parametrize("expect", [b"", b"short", bytes(33)])
async def test_a_node_id_that_cannot_be_is_an_error_that_leaves_nothing(
    make_node: Callable[..., STTNode], expect: bytes
) -> None:
    dialler = make_node()
    url = await listening(make_node())

    with pytest.raises(ConfigError):
        await dialler.connect(url, expect=expect)

    assert dialler.get_statistics().transports == ()


async def test_with_another_seed_there_is_only_silence(
    make_node: Callable[..., STTNode], caplog: pytest.LogCaptureFixture
) -> None:
    listener = make_node(shared_seed=secrets.token_bytes(32))
    dialler = make_node(config=HASTY)
    url = await listening(listener)

    error = await refused(dialler.connect(url))

    assert error.reason is ConnectReason.NO_ANSWER
    assert "another seed" in str(error)
    assert dialler.get_statistics().transports == ()
    statistics = listener.get_statistics()
    assert statistics.handshakes_dropped > 1
    assert statistics.sessions == 0
    assert caplog.text.count("handshake dropped") == 1


async def test_a_caller_may_be_less_patient_than_the_handshake(make_node: Callable[..., STTNode]) -> None:
    dialler = make_node()
    url = await listening(make_node(shared_seed=secrets.token_bytes(32)))

    error = await refused(dialler.connect(url, timeout=0.05))

    assert error.reason is ConnectReason.NO_ANSWER
    assert "within 0.05 s" in str(error)
    assert dialler.get_statistics().transports == ()


async def test_a_node_that_is_not_allowed_in_is_told_so(make_node: Callable[..., STTNode]) -> None:
    dialler = make_node()
    listener = make_node(allow=[secrets.token_bytes(32)])
    url = await listening(listener)

    error = await refused(dialler.connect(url))

    assert error.reason is ConnectReason.REFUSED
    assert "not allowed" in str(error)
    assert dialler.get_statistics().transports == ()
    assert dialler.get_statistics().sessions == 0
    assert listener.get_statistics().sessions == 0
    assert listener.get_statistics().sessions_refused == 1


async def test_a_node_that_is_allowed_in_gets_in(make_node: Callable[..., STTNode]) -> None:
    dialler = make_node()
    url = await listening(make_node(allow=[dialler.node_id]))

    await dialler.connect(url)


async def test_refusals_do_not_fill_the_log(
    make_node: Callable[..., STTNode], caplog: pytest.LogCaptureFixture
) -> None:
    url = await listening(make_node(allow=[]))
    dialler = make_node()

    for _ in range(5):
        await refused(dialler.connect(url))

    assert caplog.text.count("was refused") == 1


async def test_a_node_has_so_many_sessions_and_no_more(make_node: Callable[..., STTNode]) -> None:
    listener = make_node(config=STTConfig(max_sessions=2))
    url = await listening(listener)
    dialler = make_node()
    sessions = [await dialler.connect(url) for _ in range(2)]

    error = await refused(dialler.connect(url))
    sessions[0].close()
    await (await anext(listener.sessions())).wait_closed()
    await dialler.connect(url)

    assert error.reason is ConnectReason.REFUSED
    assert "too many sessions" in str(error)


async def test_the_limits_hold_while_plugins_take_their_time(make_node: Callable[..., STTNode]) -> None:
    deciding = asyncio.Event()

    class Slow:
        @hookimpl
        async def stt_authorize(self) -> bool:
            await deciding.wait()
            return True

    listener = make_node(config=STTConfig(max_sessions=2), plugins=[Slow()])
    url = await listening(listener)
    dialler = make_node()
    connecting = [asyncio.create_task(dialler.connect(url)) for _ in range(5)]

    await asyncio.sleep(0.05)  # long enough for the offers to come; too short would only make the test easier
    deciding.set()
    outcomes = await asyncio.gather(*connecting, return_exceptions=True)

    assert sum(isinstance(outcome, STTSession) for outcome in outcomes) == 2
    assert listener.get_statistics().sessions == 2


# Connecting to several URLs


class Silent(Renamed):
    """A datagram transport on which nobody ever answers."""

    capabilities = TransportCapabilities(reliable=False, max_message_size=1452)
    opened: ClassVar[list[Silent]] = []
    two_are_open: ClassVar[asyncio.Event]

    async def open(self) -> None:
        self.peer = "nobody"
        self.closed = False
        self._end = asyncio.Event()
        self.opened.append(self)
        if len(self.opened) == 2:
            self.two_are_open.set()

    async def send(self, data: Buffer, address: Address) -> None:
        pass

    async def receive(self) -> tuple[Buffer, Address]:
        await self._end.wait()
        raise TransportError("closed")

    async def close(self) -> None:
        self.closed = True
        self._end.set()


@pytest.fixture
def silence() -> Offering:
    Silent.opened.clear()
    Silent.two_are_open = asyncio.Event()
    return Offering(silent=Silent)


async def test_of_several_urls_the_first_to_answer_wins(make_node: Callable[..., STTNode], silence: Offering) -> None:
    dialler = make_node(plugins=[silence])
    url = await listening(make_node())

    session = await dialler.connect([url, "silent://a"])

    assert session.path == url.replace("//", "")
    assert len(Silent.opened) >= 1, "datagram transports come first"


async def test_the_next_url_is_tried_at_once_when_one_fails(make_node: Callable[..., STTNode]) -> None:
    dialler = make_node()
    url = await listening(make_node())

    async with asyncio.timeout(0.2):  # less than the interval between two attempts
        session = await dialler.connect([url_of(), url])

    assert session.path == url.replace("//", "")


async def test_a_url_may_be_given_twice(make_node: Callable[..., STTNode]) -> None:
    listener = make_node()
    url = await listening(listener)

    session = await make_node().connect([url, url])

    await session.ping()
    assert listener.get_statistics().sessions == 1


async def test_when_all_urls_fail_the_most_telling_error_is_raised(
    make_node: Callable[..., STTNode], silence: Offering
) -> None:
    dialler = make_node(config=HASTY, plugins=[silence])
    url = await listening(make_node())

    wrong = await refused(dialler.connect(["silent://a", url_of(), url], expect=dialler.node_id))
    gone = await refused(dialler.connect(["silent://a", url_of()]))

    assert wrong.reason is ConnectReason.WRONG_PEER
    assert gone.reason is ConnectReason.UNREACHABLE
    assert dialler.get_statistics().transports == ()
    assert all(transport.closed for transport in Silent.opened)


async def test_a_race_may_be_cancelled(make_node: Callable[..., STTNode], silence: Offering) -> None:
    dialler = make_node(plugins=[silence])
    connecting = asyncio.create_task(dialler.connect(["silent://a", "silent://b"]))
    await Silent.two_are_open.wait()

    connecting.cancel()
    await asyncio.wait([connecting])

    assert connecting.cancelled()
    assert dialler.get_statistics().transports == ()


# Cancellation


async def test_connecting_can_be_cancelled_at_any_moment(make_node: Callable[..., STTNode]) -> None:
    listener, dialler = make_node(), make_node()
    url = await listening(listener)
    connected = 0

    for moment in range(60):
        connecting = asyncio.create_task(dialler.connect(url))
        for _ in range(moment):
            await asyncio.sleep(0)
        connecting.cancel()
        await asyncio.wait([connecting])
        if not connecting.cancelled():
            connecting.result().close()
            await connecting.result().wait_closed()
            connected += 1
        assert dialler.get_statistics().sessions == 0

    assert 0 < connected < 60
    assert dialler.get_statistics().transports == ()
    async with asyncio.timeout(5):
        for session in listener.active_sessions():
            await session.wait_closed()
    assert listener.get_statistics().sessions == 0


async def test_a_race_can_be_cancelled_at_any_moment(make_node: Callable[..., STTNode]) -> None:
    listener, dialler = make_node(), make_node()
    urls = [await listening(listener), url_of(), await listening(listener)]

    for moment in range(60):
        connecting = asyncio.create_task(dialler.connect(urls))
        for _ in range(moment):
            await asyncio.sleep(0)
        connecting.cancel()
        await asyncio.wait([connecting])
        if not connecting.cancelled():
            connecting.result().close()

    async with asyncio.timeout(5):
        for session in [*dialler.active_sessions(), *listener.active_sessions()]:
            await session.wait_closed()
    assert dialler.get_statistics().sessions == 0
    assert listener.get_statistics().sessions == 0


async def test_who_stops_waiting_for_a_session_takes_none_away(make_node: Callable[..., STTNode]) -> None:
    listener = make_node()
    url = await listening(listener)
    waiting = asyncio.create_task(next_session(listener))
    await asyncio.sleep(0)

    waiting.cancel()
    near = await make_node().connect(url)
    await asyncio.wait([waiting])

    assert (await anext(listener.sessions())).session_id == near.session_id


async def test_stopping_that_is_cancelled_goes_on(make_node: Callable[..., STTNode]) -> None:
    node = make_node()
    url = await listening(node)
    stopping = asyncio.create_task(node.stop())
    await asyncio.sleep(0)

    stopping.cancel()
    await asyncio.wait([stopping])
    await node.stop()

    assert stopping.cancelled()
    await make_node().listen(url)


# Stopping meanwhile


@pytest.mark.parametrize("moment", range(0, 40, 3))
async def test_stopping_ends_a_connection_attempt(make_node: Callable[..., STTNode], moment: int) -> None:
    listener, dialler = make_node(), make_node()
    url = await listening(listener)
    connecting = asyncio.create_task(dialler.connect(url))
    await asyncio.sleep(0)
    for _ in range(moment):
        await asyncio.sleep(0)

    async with asyncio.timeout(5):
        await dialler.stop()

    with contextlib.suppress(ConnectError):
        session = await connecting
        assert session.closed
        return
    assert (await refused(connecting)).reason is ConnectReason.CANCELLED


async def test_stopping_ends_an_attempt_that_gets_no_answer(
    make_node: Callable[..., STTNode], silence: Offering
) -> None:
    dialler = make_node(plugins=[silence])
    attempts = [
        asyncio.create_task(dialler.connect("silent://a")),
        asyncio.create_task(dialler.connect(["silent://b", "silent://c"])),
    ]
    await Silent.two_are_open.wait()

    await dialler.stop()

    for attempt in attempts:
        assert attempt.done(), "who stops a node may close the event loop next"
        assert (await refused(attempt)).reason is ConnectReason.CANCELLED
    assert all(transport.closed for transport in Silent.opened)


class Opening(Renamed):
    """A transport that takes its time to open."""

    opening: ClassVar[asyncio.Event]
    may_open: ClassVar[asyncio.Event]
    closed: ClassVar[int]

    async def open(self) -> None:
        self.opening.set()
        await self.may_open.wait()
        await super().open()

    async def close(self) -> None:
        Opening.closed += 1
        await super().close()


@pytest.fixture
def slow_to_open() -> Offering:
    Opening.opening, Opening.may_open, Opening.closed = asyncio.Event(), asyncio.Event(), 0
    return Offering(slow=Opening)


@pytest.mark.parametrize("use", ["listen", "connect"])
async def test_stopping_ends_the_opening_of_transports(
    make_node: Callable[..., STTNode], slow_to_open: Offering, use: str
) -> None:
    node = make_node(plugins=[slow_to_open])
    using = asyncio.create_task(node.listen("slow://a") if use == "listen" else node.connect("slow://a"))
    await Opening.opening.wait()

    await node.stop()

    assert using.done()
    with pytest.raises(LocalError if use == "listen" else ConnectError, match="was stopped"):
        await using
    assert Opening.closed == 1


async def test_a_caller_who_is_cancelled_while_a_transport_opens_leaves_nothing(
    make_node: Callable[..., STTNode], slow_to_open: Offering
) -> None:
    node = make_node(plugins=[slow_to_open])
    opening = asyncio.create_task(node.listen("slow://a"))
    await Opening.opening.wait()

    opening.cancel()
    await asyncio.wait([opening])

    assert opening.cancelled()
    assert Opening.closed == 1
    assert node.listening == ()


async def test_stopping_tells_the_peers_and_whoever_waits(make_node: Callable[..., STTNode]) -> None:
    listener, dialler = make_node(config=STTConfig(stream_credit=1024)), make_node()
    url = await listening(listener)
    near = await dialler.connect(url)
    far = await anext(listener.sessions())
    stream = await near.open_stream()
    waits = [
        asyncio.create_task(work)
        for work in (
            stream.send(bytes(8 << 20)),
            stream.receive(),
            near.accept_stream(),
            near.receive_datagram(),
            far.accept_stream(),
            anext(dialler.sessions(), None),
            anext(dialler.receive(), None),
        )
    ]
    await near.ping()

    await dialler.stop()

    closed = await far.wait_closed()
    assert (closed.reason, closed.by_peer) == ("the node stopped", True)
    outcomes = await asyncio.gather(*waits, return_exceptions=True)
    assert [type(outcome).__name__ for outcome in outcomes[:4]] == ["SessionClosed"] * 4
    assert outcomes[5:] == [None, None]


async def test_stopping_both_at_once_is_no_matter(make_node: Callable[..., STTNode]) -> None:
    listener, dialler = make_node(), make_node()
    session = await dialler.connect(await listening(listener))

    async with asyncio.timeout(5):
        await asyncio.gather(listener.stop(), dialler.stop())

    assert session.closed


async def test_a_node_may_be_stopped_from_one_of_its_own_handlers(make_node: Callable[..., STTNode]) -> None:
    listener, dialler = make_node(), make_node()
    session = await dialler.connect(await listening(listener))

    async def stop(_: object) -> None:
        await listener.stop()

    listener.endpoints.register("toy.stop", stop)
    await session.notify("toy.stop")

    assert (await session.wait_closed()).reason == "the node stopped"
    async with asyncio.timeout(5):
        await listener.stop()


# Sessions that peers begin


async def test_sessions_are_shared_by_those_who_wait(make_node: Callable[..., STTNode]) -> None:
    listener, dialler = make_node(), make_node()
    url = await listening(listener)
    waiting = [asyncio.create_task(next_session(listener)) for _ in range(3)]

    near = {(await dialler.connect(url)).session_id for _ in range(3)}

    assert {(await each).session_id for each in waiting} == near


async def test_a_session_that_ended_before_it_was_taken_still_has_what_it_brought(
    make_node: Callable[..., STTNode],
) -> None:
    listener, dialler = make_node(), make_node()
    near = await dialler.connect(await listening(listener))
    stream = await near.open_stream()
    await stream.send(b"hello")
    stream.end()
    await stream.wait_delivered()
    near.close()
    async with asyncio.timeout(5):
        for session in listener.active_sessions():
            await session.wait_closed()

    far = await anext(listener.sessions())

    assert far.closed
    assert await (await far.accept_stream()).receive() == b"hello"


async def test_sessions_that_nobody_takes_do_not_fill_memory(make_node: Callable[..., STTNode]) -> None:
    listener, dialler = make_node(), make_node()
    url = await listening(listener)
    begun = []
    for _ in range(70):
        session = await dialler.connect(url)
        begun.append(session.session_id)
        session.close()
    alive = await dialler.connect(url)
    await alive.ping()

    await listener.stop()

    kept = [session.session_id async for session in listener.sessions()]
    assert kept[:-1] == begun[-64 + 1 :] or kept[:-1] == begun[-64:]
    assert kept[-1] == alive.session_id


# Sending to several


async def test_bytes_for_several_sessions_tell_what_became_of_each(make_node: Callable[..., STTNode]) -> None:
    sender, listener = make_node(), make_node()
    url = await listening(listener)
    good, over = await sender.connect(url), await sender.connect(url)
    packets = listener.receive()
    over.close()
    await over.wait_closed()

    results = await sender.send_to_sessions([good.session_id, over.session_id, b"no such "], b"hello", label="news")

    assert results[good.session_id] is None
    assert isinstance(results[over.session_id], LocalError)
    assert isinstance(results[b"no such "], LocalError)
    assert (await anext(packets)).data == b"hello"


async def test_bytes_for_all_reach_all(make_node: Callable[..., STTNode]) -> None:
    listener = make_node()
    url = await listening(listener)
    near = [await make_node().connect(url) for _ in range(3)]
    streams = [asyncio.create_task(session.accept_stream()) for session in near]

    results = await listener.send_to_all(b"hello")

    assert set(results) == {session.session_id for session in near}
    assert set(results.values()) == {None}
    assert [await (await stream).receive() for stream in streams] == [b"hello"] * 3


async def test_a_session_that_ends_meanwhile_is_told(make_node: Callable[..., STTNode]) -> None:
    listener = make_node(config=STTConfig(stream_credit=1024))
    near = await (dialler := make_node()).connect(await listening(listener))
    sending = asyncio.create_task(dialler.send_to_all(bytes(8 << 20)))
    far = await anext(listener.sessions())
    await far.accept_stream()

    far.close(0x123)

    assert isinstance((await sending)[near.session_id], SessionClosed)


async def test_who_stops_sending_to_all_leaves_no_half_stream(make_node: Callable[..., STTNode]) -> None:
    listener = make_node(config=STTConfig(stream_credit=1024))
    dialler = make_node()
    await dialler.connect(await listening(listener))
    sending = asyncio.create_task(dialler.send_to_all(bytes(8 << 20)))
    stream = await (await anext(listener.sessions())).accept_stream()

    sending.cancel()
    await asyncio.wait([sending])

    assert sending.cancelled()
    with pytest.raises(StreamClosed):
        await stream.receive_exactly(8 << 20)


# What nobody accepts


async def test_packets_of_all_sessions_and_streams_are_received(make_node: Callable[..., STTNode]) -> None:
    listener = make_node()
    url = await listening(listener)
    packets = listener.receive()
    sent = set()
    for number in range(3):
        session = await make_node().connect(url)
        for _ in range(2):
            stream = await session.open_stream()
            await stream.send(bytes([number]))
            stream.end()
            sent.add((session.session_id, stream.stream_id, bytes([number])))

    received = [await anext(packets) for _ in range(6)]

    assert {(packet.session_id, packet.stream_id, packet.data) for packet in received} == sent


async def test_packets_come_on_sessions_that_this_node_began_as_well(make_node: Callable[..., STTNode]) -> None:
    listener, dialler = make_node(), make_node()
    url = await listening(listener)
    packets = dialler.receive()
    await dialler.connect(url)
    far = await anext(listener.sessions())

    await (await far.open_stream()).send(b"hello")

    assert (await anext(packets)).data == b"hello"


async def test_what_came_before_anybody_received_is_received(make_node: Callable[..., STTNode]) -> None:
    listener = make_node()
    session = await make_node().connect(await listening(listener))
    await (await session.open_stream()).send(b"hello")
    await session.ping()

    assert (await anext(listener.receive())).data == b"hello"


async def test_a_stream_that_never_ends_holds_no_other_up(make_node: Callable[..., STTNode]) -> None:
    listener = make_node()
    url = await listening(listener)
    packets = listener.receive()
    first = await (await make_node().connect(url)).open_stream()
    await first.send(b"1")
    assert (await anext(packets)).data == b"1"

    second = await (await make_node().connect(url)).open_stream()
    await second.send(b"2")
    assert (await anext(packets)).data == b"2"
    await first.send(b"3")

    assert (await anext(packets)).data == b"3"


async def test_a_flood_on_one_session_lets_others_have_their_turn(make_node: Callable[..., STTNode]) -> None:
    listener = make_node()
    url = await listening(listener)
    flood = await (await make_node().connect(url)).open_stream()
    flooding = asyncio.create_task(flood.send(bytes(32 << 20)))
    await flood.session.ping()
    other = await (await make_node().connect(url)).open_stream()
    await other.send(b"me, too")
    await other.session.ping()

    packets = listener.receive()
    first = [(await anext(packets)).data for _ in range(4)]

    assert b"me, too" in first
    flooding.cancel()


async def test_streams_that_are_reset_and_sessions_that_end_do_not_end_the_packets(
    make_node: Callable[..., STTNode],
) -> None:
    listener = make_node()
    url = await listening(listener)
    packets = listener.receive()
    rude = await make_node().connect(url)
    streams = [await rude.open_stream() for _ in range(2)]
    for stream in streams:
        await stream.send(b"rude")
        assert (await anext(packets)).data == b"rude"

    streams[0].reset(0x123)
    await rude.ping()
    rude.close(0x123)
    polite = await make_node().connect(url)
    await (await polite.open_stream()).send(b"polite")

    assert (await anext(packets)).data == b"polite"


async def test_a_packet_stream_that_ended_is_ended_from_this_side(make_node: Callable[..., STTNode]) -> None:
    listener = make_node()
    session = await make_node().connect(await listening(listener))
    packets = listener.receive()
    reading = asyncio.create_task(_collect(packets, 300))

    for number in range(300):  # more than may be open at a time
        stream = await session.open_stream()
        await stream.send(number.to_bytes(2, "big"))
        stream.end()
        assert await stream.receive() == b""

    assert await reading == [number.to_bytes(2, "big") for number in range(300)]


async def _collect(packets: Any, count: int) -> list[bytes]:
    return [(await anext(packets)).data for _ in range(count)]


async def test_packets_have_one_reader_at_a_time(make_node: Callable[..., STTNode]) -> None:
    listener = make_node()
    session = await make_node().connect(await listening(listener))
    waiting = asyncio.create_task(_collect(listener.receive(), 1))
    await asyncio.sleep(0)

    with pytest.raises(LocalError, match="has a reader"):
        await anext(listener.receive())
    await (await session.open_stream()).send(b"hello")

    assert await waiting == [b"hello"]


async def test_a_loop_over_packets_can_be_left_and_taken_up_again(make_node: Callable[..., STTNode]) -> None:
    listener = make_node()
    session = await make_node().connect(await listening(listener))
    stream = await session.open_stream()
    await stream.send(b"one")

    async for packet in listener.receive():
        assert packet.data == b"one"
        break
    await stream.send(b"two")
    async for packet in listener.receive():
        assert packet.data == b"two"
        break


async def test_a_session_whose_streams_are_accepted_is_left_alone(make_node: Callable[..., STTNode]) -> None:
    listener, dialler = make_node(), make_node()
    url = await listening(listener)
    packets = listener.receive()
    near = await dialler.connect(url)
    far = await anext(listener.sessions())
    accepting = asyncio.create_task(far.accept_stream())
    await asyncio.sleep(0)

    for text in (b"accepted", b"accepted later"):
        await (await near.open_stream()).send(text)
    await (await (await dialler.connect(url)).open_stream()).send(b"a packet")

    assert (await anext(packets)).data == b"a packet"
    assert await (await accepting).receive() == b"accepted"
    assert await (await far.accept_stream()).receive() == b"accepted later"


async def test_packets_of_sessions_that_ended_do_not_fill_memory(make_node: Callable[..., STTNode]) -> None:
    listener, dialler = make_node(), make_node()
    url = await listening(listener)
    packets = listener.receive()
    for number in range(70):
        session = await dialler.connect(url)
        stream = await session.open_stream()
        await stream.send(bytes([number]))
        await session.ping()
        session.close()
        await session.wait_closed()
    await (await dialler.connect(url)).ping()
    await listener.stop()

    received = [packet.data[0] async for packet in packets]

    assert received == list(range(7, 70)), "the last of the 64 is the session that had nothing to say"


async def test_what_had_come_when_the_node_stopped_is_still_received(make_node: Callable[..., STTNode]) -> None:
    listener = make_node()
    session = await make_node().connect(await listening(listener))
    packets = listener.receive()
    await (await session.open_stream()).send(b"the last")
    await session.ping()

    await listener.stop()

    assert [packet.data async for packet in packets] == [b"the last"]


# Transports of all kinds


class Slow(Renamed):
    """A transport that sends while its gate is open."""

    gate: ClassVar[asyncio.Event]

    async def send(self, data: Buffer, address: Address) -> None:
        await self.gate.wait()
        await super().send(data, address)


async def test_a_link_that_takes_nothing_for_a_while_loses_nothing(make_node: Callable[..., STTNode]) -> None:
    Slow.gate = asyncio.Event()
    Slow.gate.set()
    plugins = [Offering(slow=Slow)]
    listener, dialler = make_node(plugins=plugins), make_node(plugins=plugins)
    near = await dialler.connect(await listening(listener, "slow"))
    stream = await near.open_stream()
    data = secrets.token_bytes(6 << 20)
    Slow.gate.clear()

    sending = asyncio.create_task(stream.send(data))
    for _ in range(100):
        await asyncio.sleep(0)
    assert not sending.done()
    Slow.gate.set()
    far = await (await anext(listener.sessions())).accept_stream()

    assert await far.receive_exactly(len(data)) == data
    await sending


async def test_a_session_closed_while_its_link_takes_nothing_is_over_for_the_peer_once_it_does(
    make_node: Callable[..., STTNode],
) -> None:
    Slow.gate = asyncio.Event()
    Slow.gate.set()
    plugins = [Offering(slow=Slow)]
    listener, dialler = make_node(plugins=plugins), make_node(plugins=plugins)
    near = await dialler.connect(await listening(listener, "slow"))
    far = await anext(listener.sessions())
    Slow.gate.clear()
    for _ in range(100):
        near.send_datagram(b"one train each, more than a link keeps")
        await asyncio.sleep(0)

    near.close(7, "enough")
    while near.state is not State.CLOSED:  # noqa: ASYNC110  nothing tells when draining is over
        await asyncio.sleep(0.01)
    Slow.gate.set()

    async with asyncio.timeout(10):  # a peer that learns nothing waits for 30 s
        end = await far.wait_closed()
    assert (end.code, end.reason, end.by_peer) == (7, "enough", True)


async def test_stopping_while_a_link_takes_nothing_does_not_wait_for_it(make_node: Callable[..., STTNode]) -> None:
    Slow.gate = asyncio.Event()
    Slow.gate.set()
    plugins = [Offering(slow=Slow)]
    listener, dialler = make_node(plugins=plugins), make_node(plugins=plugins)
    near = await dialler.connect(await listening(listener, "slow"))
    stream = await near.open_stream()
    Slow.gate.clear()
    sending = asyncio.create_task(stream.send(bytes(64 << 20)))
    for _ in range(100):
        await asyncio.sleep(0)

    async with asyncio.timeout(10):
        await dialler.stop()

    with pytest.raises(SessionClosed):
        await sending
    Slow.gate.set()


class Deaf(Renamed):
    """A transport that receives while its gate is open."""

    gate: ClassVar[asyncio.Event]

    async def receive(self) -> tuple[Buffer, Address]:
        await self.gate.wait()
        return await super().receive()


async def test_a_peer_that_reads_nothing_holds_no_other_up(make_node: Callable[..., STTNode]) -> None:
    Deaf.gate = asyncio.Event()
    Deaf.gate.set()
    listener, dialler = make_node(), make_node(plugins=[Offering(deaf=Deaf)])
    url = await listening(listener)
    await dialler.connect(url.replace("memory", "deaf"))
    deaf = await anext(listener.sessions())
    good = await dialler.connect(url)
    Deaf.gate.clear()

    streams = [await deaf.open_stream() for _ in range(8)]
    sending = [asyncio.create_task(stream.send(bytes(8 << 20))) for stream in streams]
    for _ in range(100):
        deaf.send_datagram(bytes(1000))
        assert await good.ping(timeout=5) > 0

    assert deaf.get_statistics().waiting_for == "socket"
    Deaf.gate.set()
    for each in sending:
        each.cancel()


class Lossy(Renamed):
    """Datagrams of which some are lost, some come twice, and some come late."""

    capabilities = TransportCapabilities(reliable=False, max_message_size=1452, initial_message_size=1200)
    dice: ClassVar[random.Random]

    def __init__(self, url: str, *, listening: bool) -> None:
        super().__init__(url, listening=listening)
        self._late: list[tuple[Buffer, Address]] = []

    async def send(self, data: Buffer, address: Address) -> None:
        cast = self.dice.random()
        if cast < 0.05:
            return
        if cast < 0.10:
            self._late.append((bytes(data), address))
            return
        await super().send(data, address)
        if cast < 0.12:
            await super().send(data, address)
        while self._late:
            await super().send(*self._late.pop())


async def test_over_a_lossy_transport_everything_comes_once_and_in_order(make_node: Callable[..., STTNode]) -> None:
    Lossy.dice = random.Random(7)
    plugins = [Offering(lossy=Lossy)]
    listener, dialler = make_node(plugins=plugins), make_node(plugins=plugins)
    near = await dialler.connect(await listening(listener, "lossy"))
    far = await anext(listener.sessions())
    data = secrets.token_bytes(1 << 20)

    async def answer() -> None:
        stream = await far.accept_stream()
        await stream.send(b"".join([chunk async for chunk in stream]))
        stream.end()

    answering = asyncio.create_task(answer())
    stream = await near.open_stream()
    sending = asyncio.create_task(stream.send(data))
    received = bytearray()
    await sending
    stream.end()
    async for chunk in stream:
        received += chunk

    await answering
    assert received == data
    assert near.get_statistics().frames_lost > 0


class Unruly(Renamed):
    """A transport that raises where and what a test wants."""

    faults: ClassVar[dict[str, BaseException]] = {}

    def _misbehave(self, where: str) -> None:
        fault = self.faults.get(f"{where} {'listening' if self.listening else 'dialling'}")
        if fault is not None:
            raise fault

    def __init__(self, url: str, *, listening: bool) -> None:
        self.listening = listening
        self._misbehave("init")
        super().__init__(url, listening=listening)

    async def open(self) -> None:
        self._misbehave("open")
        await super().open()

    async def send(self, data: Buffer, address: Address) -> None:
        self._misbehave("send")
        await super().send(data, address)

    async def receive(self) -> tuple[Buffer, Address]:
        self._misbehave("receive")
        return await super().receive()

    async def close(self) -> None:
        await super().close()
        self._misbehave("close")


@pytest.fixture
def unruly() -> Offering:
    Unruly.faults.clear()
    return Offering(unruly=Unruly)


FAULTS = [OSError("no such device"), KeyError("what"), TimeoutError(), asyncio.CancelledError()]


@pytest.mark.parametrize("fault", FAULTS, ids=repr)
@pytest.mark.parametrize("where", ["init", "open"])
async def test_a_transport_that_cannot_be_opened_is_a_transport_error(
    make_node: Callable[..., STTNode], unruly: Offering, where: str, fault: BaseException
) -> None:
    Unruly.faults.update({f"{where} listening": fault, f"{where} dialling": fault})
    node = make_node(plugins=[unruly])

    with pytest.raises(TransportError, match=type(fault).__name__):
        await node.listen("unruly://a")
    with pytest.raises(TransportError, match=type(fault).__name__):
        await node.connect("unruly://a")

    other = await listening(make_node())
    await node.connect(other)


@pytest.mark.parametrize("fault", [*FAULTS, TransportError("cut")], ids=repr)
@pytest.mark.parametrize("where", ["send dialling", "receive dialling"])
async def test_a_transport_that_fails_while_connecting_ends_the_attempt(
    make_node: Callable[..., STTNode], unruly: Offering, where: str, fault: BaseException
) -> None:
    listener, dialler = make_node(plugins=[unruly]), make_node(plugins=[unruly], config=HASTY)
    url = await listening(listener, "unruly")
    Unruly.faults[where] = fault

    error = await refused(dialler.connect(url))

    assert error.reason in (ConnectReason.UNREACHABLE, ConnectReason.NO_ANSWER)
    assert dialler.get_statistics().transports == ()
    Unruly.faults.clear()
    await dialler.connect(url)


@pytest.mark.parametrize("fault", [*FAULTS, TransportError("cut")], ids=repr)
async def test_a_listener_that_fails_is_closed_and_logged_and_the_others_go_on(
    make_node: Callable[..., STTNode], unruly: Offering, fault: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    listener, dialler = make_node(plugins=[unruly]), make_node(plugins=[unruly])
    good, bad = await listening(listener), await listening(listener, "unruly")
    over_good = await dialler.connect(good)

    Unruly.faults["receive listening"] = fault
    with contextlib.suppress(ConnectError, TransportError):
        await dialler.connect(bad, timeout=1)

    assert listener.listening == (good,)
    assert f"{bad}: no longer listening" in caplog.text
    assert await over_good.ping() > 0
    await dialler.connect(good)


@pytest.mark.parametrize("fault", FAULTS, ids=repr)
async def test_a_transport_that_fails_to_close_does_not_keep_the_node_from_stopping(
    make_node: Callable[..., STTNode], unruly: Offering, fault: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    listener, dialler = make_node(plugins=[unruly]), make_node(plugins=[unruly])
    await dialler.connect(await listening(listener, "unruly"))
    Unruly.faults.update({"close listening": fault, "close dialling": fault})

    async with asyncio.timeout(5):
        await dialler.stop()
        await listener.stop()

    assert "failed to close" in caplog.text


class Burst(BatchTransport):
    """A batch transport over a memory transport, which takes trains while the gate is open."""

    capabilities = TransportCapabilities(reliable=True, max_message_size=1 << 20)

    def __init__(self, url: str, *, listening: bool) -> None:
        super().__init__(url, listening=listening)
        self._inner = Renamed(url, listening=listening)
        self._waiting: asyncio.Queue[tuple[Train, Address]] = asyncio.Queue(4)
        self._tasks: list[asyncio.Task[None]] = []
        self._refused = False

    async def open(self) -> None:
        await self._inner.open()
        self.peer = self._inner.peer

    def start(self, receiver: TransportReceiver) -> None:
        self._tasks = [asyncio.create_task(self._deliver(receiver)), asyncio.create_task(self._carry(receiver))]

    async def _deliver(self, receiver: TransportReceiver) -> None:
        while True:
            try:
                message = await self._inner.receive()
            except PeerUnreachable as error:
                receiver.peer_unreachable(error.address, str(error))
            except TransportError as error:
                receiver.failed(str(error))
                return
            else:
                receiver.messages_received([message])

    async def _carry(self, receiver: TransportReceiver) -> None:
        while True:
            train, address = await self._waiting.get()
            with contextlib.suppress(PeerUnreachable):
                for segment in train.segments():
                    await self._inner.send(segment, address)
            if self._refused:
                self._refused = False
                receiver.writable()

    def send_train(self, train: Train, address: Address) -> bool:
        if self._waiting.full():
            self._refused = True
            return False
        self._waiting.put_nowait((Train(bytes(train.data), train.segment_size), address))
        return True

    async def send(self, data: Buffer, address: Address) -> None:
        raise AssertionError

    async def receive(self) -> tuple[Buffer, Address]:
        raise AssertionError

    async def close(self) -> None:
        await asyncio.sleep(0)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._inner.close()


async def test_a_batch_transport_that_refuses_trains_loses_nothing(make_node: Callable[..., STTNode]) -> None:
    plugins = [Offering(burst=Burst)]
    listener, dialler = make_node(plugins=plugins), make_node(plugins=plugins)
    near = await dialler.connect(await listening(listener, "burst"))
    stream = await near.open_stream()
    data = secrets.token_bytes(10 << 20)

    sending = asyncio.create_task(stream.send(data))
    far = await (await anext(listener.sessions())).accept_stream()

    assert await far.receive_exactly(len(data)) == data
    await sending


class Cut(Renamed):
    """A transport whose dialled end a test can cut."""

    cuts: ClassVar[list[asyncio.Event]] = []

    async def open(self) -> None:
        await super().open()
        self._cut = asyncio.Event()
        if not self.listening:
            self.cuts.append(self._cut)

    async def receive(self) -> tuple[Buffer, Address]:
        receiving = asyncio.ensure_future(super().receive())
        cutting = asyncio.ensure_future(self._cut.wait())
        try:
            await asyncio.wait([receiving, cutting], return_when=asyncio.FIRST_COMPLETED)
            if self._cut.is_set():
                raise TransportError("the cable is cut")
            return receiving.result()
        finally:
            receiving.cancel()
            cutting.cancel()


async def test_a_connection_that_is_lost_is_made_again(make_node: Callable[..., STTNode]) -> None:
    Cut.cuts.clear()
    plugins = [Offering(cut=Cut)]
    listener, dialler = make_node(plugins=plugins), make_node(plugins=plugins)
    near = await dialler.connect(await listening(listener, "cut"))
    far = await anext(listener.sessions())
    stream = await near.open_stream()
    await stream.send(b"before ")
    await near.ping()

    Cut.cuts[0].set()
    await stream.send(b"behind")
    stream.end()

    assert await (await far.accept_stream()).receive_exactly(13) == b"before behind"
    await near.ping()  # nothing comes back on the first one
    assert len(Cut.cuts) == 2


async def test_a_session_waits_for_a_listener_that_comes_back(
    make_node: Callable[..., STTNode], unruly: Offering
) -> None:
    listener, dialler = make_node(plugins=[unruly]), make_node(plugins=[unruly])
    url = await listening(listener, "unruly")
    near = await dialler.connect(url)
    far = await anext(listener.sessions())
    gone = listener.subscribe(LinkLost)

    Unruly.faults["receive listening"] = TransportError("the cable is cut")
    near.send_datagram(b"this one makes it notice")
    await anext(gone)
    Unruly.faults.clear()
    stream = await near.open_stream()
    await stream.send(b"hello again")
    await listener.listen(url)

    assert await (await far.accept_stream()).receive() == b"hello again"


async def test_a_node_that_has_too_much_to_say_is_not_made(make_node: Callable[..., STTNode]) -> None:
    class Talkative:
        @hookimpl
        def stt_register_frame_types(self, register: Callable[..., None]) -> None:
            for number in range(60):
                register(FrameType(f"toy.frames.of.a.very.talkative.plugin.{number}", 0x80 + number, handle))

    async def handle(_: object) -> None: ...

    with pytest.raises(ConfigError, match="too much"):
        make_node(plugins=[Talkative()])


async def test_a_fault_in_a_plugins_controller_costs_no_other_session(
    make_node: Callable[..., STTNode], caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(NewReno):
        name = "broken"

        def acknowledged(self, *_: object) -> None:
            raise ZeroDivisionError("a controller that divides by zero")

    class Plugin(Offering):
        @hookimpl
        def stt_register_congestion_controllers(self, register: Callable[..., None]) -> None:
            register("broken", Broken)

    Lossy.dice = random.Random(7)
    config = STTConfig(congestion_controller="broken")
    listener = make_node(plugins=[Offering(lossy=Lossy)])
    dialler = make_node(plugins=[Plugin(lossy=Lossy)], config=config)
    lossy = await dialler.connect(await listening(listener, "lossy"))
    reliable = await dialler.connect(await listening(listener))

    stream = await lossy.open_stream()
    await stream.send(bytes(10_000))
    with contextlib.suppress(SessionClosed, RequestTimeout):
        await lossy.ping(timeout=0.2)

    assert await reliable.ping() > 0
    assert "divides by zero" in caplog.text


async def test_endpoints_of_plugins_answer(make_node: Callable[..., STTNode]) -> None:
    async def answer(request: EndpointRequest) -> bytes:
        return request.body[::-1]

    class Plugin:
        @hookimpl
        def stt_register_endpoints(self, register: Callable[..., None]) -> None:
            register("toy.reverse", answer)

    listener = make_node(plugins=[Plugin()])
    session = await make_node().connect(await listening(listener))

    assert await session.request("toy.reverse", b"abc") == b"cba"


# The rest


async def test_the_figures_of_a_node_add_up(make_node: Callable[..., STTNode]) -> None:
    listener, dialler = make_node(), make_node()
    url = await listening(listener)
    for _ in range(2):
        await dialler.connect(url)

    there, here = listener.get_statistics(), dialler.get_statistics()

    assert (there.sessions, here.sessions) == (2, 2)
    assert [each for each, _ in there.transports] == [url]
    assert [each for each, _ in here.transports] == [url, url]
    assert there.transports[0][1].messages_received > 0
    assert (there.messages_malformed, there.frames_unknown, there.handshakes_dropped) == (0, 0, 0)


@pytest.mark.parametrize(
    "garbage", [b"", b"garbage", bytes(1200), b"ST\x10" + bytes(40), b"ST\x01" + bytes(1197)], ids=len
)
async def test_garbage_is_counted_and_gets_no_answer(make_node: Callable[..., STTNode], garbage: bytes) -> None:
    listener = make_node()
    url = await listening(listener)
    stranger = MemoryTransport(url, listening=False)
    await stranger.open()

    await stranger.send(garbage, stranger.peer)
    session = await make_node().connect(url)
    await session.ping()

    statistics = listener.get_statistics()
    assert statistics.messages_malformed + statistics.frames_unknown + statistics.handshakes_dropped == 1
    await stranger.close()


async def test_the_store_is_opened_at_first_use_and_closed_with_the_node(make_node: Callable[..., STTNode]) -> None:
    node = make_node()
    await listening(node)
    store = node.storage
    await store.store(b"key", b"value")

    await node.stop()

    assert isinstance(store, MemoryStorage)
    assert node.storage is store
    with pytest.raises(StorageError):
        await store.retrieve(b"key")


async def test_a_store_is_not_opened_behind_the_end(make_node: Callable[..., STTNode]) -> None:
    node = make_node()
    await node.stop()

    with pytest.raises(LocalError, match="was stopped"):
        _ = node.storage


async def test_a_store_that_nobody_serves_is_told_with_those_there_are(make_node: Callable[..., STTNode]) -> None:
    with pytest.raises(ConfigError, match=r"no storage for granite:// is installed \(there are: memory\)"):
        _ = make_node(storage="granite://block").storage


async def test_a_store_that_fails_to_close_does_not_keep_the_node_from_stopping(
    make_node: Callable[..., STTNode], caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(MemoryStorage):
        async def close(self) -> None:
            raise OSError("the disk is gone")

    class Plugin:
        @hookimpl
        def stt_register_storage(self, register: Callable[..., None]) -> None:
            register("broken", Broken)

    node = make_node(storage="broken://", plugins=[Plugin()])
    await listening(node)
    _ = node.storage

    with caplog.at_level(logging.ERROR):
        await node.stop()

    assert "the disk is gone" in caplog.text


async def test_an_application_may_end_a_session_with_its_own_code(make_node: Callable[..., STTNode]) -> None:
    listener = make_node()
    near = await make_node().connect(await listening(listener))
    far = await anext(listener.sessions())

    far.close(0x1234, "enough")

    closed = await near.wait_closed()
    assert (closed.code, closed.reason, closed.by_peer) == (0x1234, "enough", True)
