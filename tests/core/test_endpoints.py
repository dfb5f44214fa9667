"""Endpoints between real nodes: requests, errors, large bodies, relays."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import TYPE_CHECKING

import pytest

from stt_core import STTConfig, STTNode
from stt_core.endpoints import ROUTE_LABEL, EndpointManager, EndpointService
from stt_core.errors import EndpointError, EndpointErrorCode, LocalError, RequestTimeout, SessionClosed, StreamClosed
from stt_core.interfaces.endpoint import endpoint_address
from stt_core.wire.frame import FrameType
from stt_core.wire.messages import EndpointResolve, ResolveKind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from stt_core.interfaces.endpoint import EndpointRequest
    from stt_core.session import STTSession

SHARED = secrets.token_bytes(32)
LARGE = secrets.token_bytes(300_000)
ADDRESS = endpoint_address("acme.echo")


async def echo(request: EndpointRequest) -> bytes:
    return b"echo " + request.body


async def nothing(_: EndpointRequest) -> None:
    return None


async def large(_: EndpointRequest) -> bytes:
    return LARGE


async def broken(_: EndpointRequest) -> bytes:
    raise KeyError("a detail that is nobody's business")


def make_node(config: STTConfig | None = None) -> STTNode:
    return STTNode(node_seed=secrets.token_bytes(32), shared_seed=SHARED, config=config)


@contextlib.asynccontextmanager
async def two_nodes(config: STTConfig | None = None) -> AsyncIterator[tuple[STTNode, STTSession]]:
    """Yield a serving node, and the session of another with it."""
    async with make_node(config) as server, make_node(config) as client:
        (url,) = await server.listen(f"memory://{secrets.token_hex(8)}")
        yield server, await client.connect(url)


@pytest.mark.asyncio
async def test_a_request_is_answered_by_the_handler_of_its_name() -> None:
    async with two_nodes() as (server, session):
        server.endpoints.register("acme.echo", echo)
        server.endpoints.register("acme.nothing", nothing)

        assert await session.request("acme.echo", b"hello") == b"echo hello"
        assert await session.request("acme.nothing") == b""


@pytest.mark.asyncio
async def test_the_handler_learns_who_asks() -> None:
    seen: list[EndpointRequest] = []

    async def remember(request: EndpointRequest) -> None:
        seen.append(request)

    async with two_nodes() as (server, session):
        server.endpoints.register("acme.who", remember)
        await session.request("acme.who", b"body")

    (request,) = seen
    assert (request.endpoint, request.body, request.one_way) == ("acme.who", b"body", False)
    assert request.peer.session_id == session.session_id


@pytest.mark.asyncio
async def test_both_sides_of_a_session_may_ask() -> None:
    async with make_node() as server, make_node() as client:
        client.endpoints.register("acme.echo", echo)
        (url,) = await server.listen(f"memory://{secrets.token_hex(8)}")
        await client.connect(url)
        session = await anext(server.sessions())

        assert await session.request("acme.echo", b"back") == b"echo back"


@pytest.mark.asyncio
async def test_large_bodies_go_and_come_back_over_streams() -> None:
    async with two_nodes() as (server, session):
        server.endpoints.register("acme.echo", echo)

        assert await session.request("acme.echo", LARGE) == b"echo " + LARGE


@pytest.mark.asyncio
async def test_too_large_a_body_is_an_error_for_the_one_who_asked() -> None:
    async with two_nodes(STTConfig(max_body_size=100_000)) as (server, session):
        server.endpoints.register("acme.echo", echo)

        with pytest.raises(EndpointError) as caught:
            await session.request("acme.echo", LARGE)

    assert caught.value.code == EndpointErrorCode.TOO_LARGE


@pytest.mark.asyncio
async def test_too_large_an_answer_is_an_error_for_the_one_who_asked() -> None:
    async with make_node() as server, make_node(STTConfig(max_body_size=100_000)) as client:
        server.endpoints.register("acme.large", large)
        server.endpoints.register("acme.echo", echo)
        (url,) = await server.listen(f"memory://{secrets.token_hex(8)}")
        session = await client.connect(url)

        with pytest.raises(EndpointError, match="longer than 100000 bytes") as caught:
            await session.request("acme.large")

        assert caught.value.code == EndpointErrorCode.TOO_LARGE
        assert await session.request("acme.echo", b"on") == b"echo on"


@pytest.mark.asyncio
async def test_too_large_a_body_that_is_sent_one_way_is_dropped() -> None:
    came: asyncio.Queue[EndpointRequest] = asyncio.Queue()

    async with two_nodes(STTConfig(max_body_size=100_000)) as (server, session):
        server.endpoints.register("acme.telemetry", came.put)

        await session.notify("acme.telemetry", LARGE)
        await session.notify("acme.telemetry", b"small")

        assert (await came.get()).body == b"small"


@pytest.mark.asyncio
async def test_a_session_that_ends_while_a_body_is_sent_ends_the_request() -> None:
    async with two_nodes() as (server, session):
        far = await anext(server.sessions())
        asking = asyncio.ensure_future(session.request("acme.echo", bytes(16 << 20)))
        await session.ping()
        far.close()

        with pytest.raises(SessionClosed):
            await asking


@pytest.mark.asyncio
async def test_an_unknown_endpoint_is_an_error_with_its_code() -> None:
    async with two_nodes() as (_, session):
        with pytest.raises(EndpointError) as caught:
            await session.request("acme.nowhere")

    assert caught.value.code == EndpointErrorCode.UNKNOWN


@pytest.mark.asyncio
async def test_a_handler_that_raises_tells_the_peer_no_details_and_the_session_lives(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with two_nodes() as (server, session):
        server.endpoints.register("acme.broken", broken)
        server.endpoints.register("acme.echo", echo)

        with pytest.raises(EndpointError) as caught:
            await session.request("acme.broken")

        assert caught.value.code == EndpointErrorCode.FAILED
        assert "nobody's business" not in str(caught.value)
        assert "acme.broken" in caplog.text
        assert await session.request("acme.echo", b"on") == b"echo on"


@pytest.mark.asyncio
async def test_a_handler_that_lets_a_cancellation_escape_is_one_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    async def cancelled(_: EndpointRequest) -> None:
        task = asyncio.ensure_future(asyncio.Event().wait())
        task.cancel()
        await task

    async with two_nodes() as (server, session):
        server.endpoints.register("acme.cancelled", cancelled)
        server.endpoints.register("acme.echo", echo)

        for _ in range(300):  # more than the peer has room for, if each of them kept its place
            with pytest.raises(EndpointError) as caught:
                await session.request("acme.cancelled")
            assert caught.value.code == EndpointErrorCode.FAILED
        assert await session.request("acme.echo", b"on") == b"echo on"
    assert "acme.cancelled" in caplog.text


@pytest.mark.asyncio
async def test_a_slow_endpoint_runs_into_the_time_out_of_the_request() -> None:
    release = asyncio.Event()

    async def slow(_: EndpointRequest) -> None:
        await release.wait()

    async with two_nodes() as (server, session):
        server.endpoints.register("acme.slow", slow)

        with pytest.raises(RequestTimeout):
            await session.request("acme.slow", timeout=0.02)
        release.set()


@pytest.mark.asyncio
async def test_a_request_ends_with_its_session() -> None:
    async def slow(_: EndpointRequest) -> None:
        await asyncio.Event().wait()

    async with two_nodes() as (server, session):
        server.endpoints.register("acme.slow", slow)
        waiting = asyncio.ensure_future(session.request("acme.slow"))
        await session.ping()
        session.close()

        with pytest.raises(SessionClosed):
            await waiting


@pytest.mark.asyncio
async def test_what_is_sent_one_way_arrives_and_is_not_answered() -> None:
    came: asyncio.Queue[EndpointRequest] = asyncio.Queue()

    async with two_nodes() as (server, session):
        server.endpoints.register("acme.telemetry", came.put)

        await session.notify("acme.telemetry", b"21.5")
        request = await came.get()

    assert (request.body, request.one_way) == (b"21.5", True)


@pytest.mark.asyncio
async def test_more_requests_than_the_peer_has_room_for_wait_and_are_all_answered() -> None:
    async with two_nodes() as (server, session):
        server.endpoints.register("acme.echo", echo)

        answers = await asyncio.gather(*(session.request("acme.echo", b"%d" % number) for number in range(1000)))

    assert answers == [b"echo %d" % number for number in range(1000)]


# Floods: 256 messages may be under way before the first is handled (wire-format.md, "Messages")


async def settled(session: STTSession, count: Callable[[], int]) -> int:
    """Return a number once it no longer grows from one round trip to another."""
    before = -1
    while count() != before:
        before = count()
        await session.ping()
    return before


class Flood:
    """Calls something over and over, and counts how often it was taken."""

    def __init__(self, send: Callable[[], Awaitable[None]], times: int) -> None:
        self.taken = 0
        self.done = asyncio.ensure_future(self._run(send, times))

    async def _run(self, send: Callable[[], Awaitable[None]], times: int) -> None:
        for _ in range(times):
            await send()
            self.taken += 1


@pytest.mark.asyncio
async def test_a_flood_of_what_is_sent_one_way_waits_for_the_handler() -> None:
    release = asyncio.Event()
    running = most = handled = 0

    async def slow(_: EndpointRequest) -> None:
        nonlocal running, most, handled
        running += 1
        most = max(most, running)
        await release.wait()
        running -= 1
        handled += 1

    async with two_nodes() as (server, session):
        server.endpoints.register("acme.slow", slow)
        flood = Flood(lambda: session.notify("acme.slow"), 1000)

        assert await settled(session, lambda: flood.taken) == 256
        release.set()
        await flood.done
        await settled(session, lambda: handled)

    assert handled == 1000
    assert most <= 256


@pytest.mark.asyncio
async def test_a_flood_through_a_relay_waits_for_the_handler_behind_it() -> None:
    release = asyncio.Event()
    handled = 0

    async def slow(_: EndpointRequest) -> None:
        nonlocal handled
        await release.wait()
        handled += 1

    async with make_node(STTConfig(relay_endpoints=True)) as hub, make_node() as sensor, make_node() as viewer:
        (url,) = await hub.listen(f"memory://{secrets.token_hex(8)}")
        sensor.endpoints.register("acme.slow", slow)
        uplink = await sensor.connect(url)
        await uplink.ping()
        session = await viewer.connect(url)
        flood = Flood(lambda: session.notify("acme.slow"), 1000)

        assert await settled(session, lambda: flood.taken) == 2 * 256  # at the sensor, and at the relay
        release.set()
        await flood.done
        await settled(session, lambda: handled)

    assert handled == 1000


class Deaf(EndpointService):
    """Takes no answer off its peer's hands, and so gives no room for others."""

    def receive(self, session: STTSession, frame_type: int, message: bytes) -> bool:
        return False


@pytest.mark.asyncio
async def test_a_flood_of_questions_whose_answers_nobody_takes_waits() -> None:
    question = EndpointResolve(ResolveKind.ASK, 1, endpoint_address("acme.nowhere")).encode()

    async with make_node() as server, make_node() as client:
        client.endpoint_service = Deaf(
            client.endpoints,
            relays=False,
            max_message_size=1024,
            max_body_size=1024,
            sessions=lambda _: None,
            spawn=lambda work: work.close(),
            clock=lambda: 0.0,
        )
        (url,) = await server.listen(f"memory://{secrets.token_hex(8)}")
        session = await client.connect(url)
        flood = Flood(lambda: session.send_frame(FrameType.ENDPOINT_RESOLVE, question), 1000)

        # As many answers wait in the session as it has room for, and as many questions for their answers to be taken.
        assert await settled(session, lambda: flood.taken) == 2 * 256
        flood.done.cancel()


# Bodies over streams


@pytest.mark.asyncio
async def test_few_bodies_of_a_session_are_kept_at_a_time() -> None:
    release = asyncio.Event()
    running = 0

    async def slow(_: EndpointRequest) -> None:
        nonlocal running
        running += 1
        await release.wait()

    async with two_nodes() as (server, session):
        server.endpoints.register("acme.slow", slow)
        requests = [asyncio.ensure_future(session.request("acme.slow", LARGE)) for _ in range(12)]

        while running < 4:
            await session.ping()
        assert await settled(session, lambda: running) == 4
        release.set()
        await asyncio.gather(*requests)

    assert running == 12


@pytest.mark.asyncio
async def test_large_answers_come_while_all_large_requests_wait_for_one() -> None:
    async with make_node() as server, make_node() as client:
        (url,) = await server.listen(f"memory://{secrets.token_hex(8)}")
        session = await client.connect(url)
        back = await anext(server.sessions())

        async def ask_back(request: EndpointRequest) -> bytes:
            return await back.request("acme.echo", request.body)

        client.endpoints.register("acme.echo", echo)
        server.endpoints.register("acme.back", ask_back)

        answers = await asyncio.gather(*(session.request("acme.back", LARGE) for _ in range(12)))

    assert answers == [b"echo " + LARGE] * 12


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "metadata",
    [
        None,
        "route",
        {"kind": 0},
        [],
        [0, 0, 4],
        [0, 0, 4, ADDRESS, 0],
        [True, 0, 4, ADDRESS],
        [0.0, 0, 4, ADDRESS],
        [99, 0, 4, ADDRESS],
        [-1, 0, 4, ADDRESS],
        [0, -1, 4, ADDRESS],
        [0, (1 << 64) - 1, 4, ADDRESS],
        [0, 0, 256, ADDRESS],
        [0, 0, 4, ADDRESS.hex()],
        [0, 0, 4, ADDRESS[:-1]],
        [[0], 0, 4, ADDRESS],
    ],
    ids=repr,
)
async def test_a_stream_with_the_label_of_a_route_and_metadata_of_none_is_dropped(
    metadata: object, caplog: pytest.LogCaptureFixture
) -> None:
    async with two_nodes() as (server, session):
        server.endpoints.register("acme.echo", echo)
        stream = await session.open_stream(ROUTE_LABEL, metadata=metadata)
        stream.end()

        assert await stream.receive() == b""
        with contextlib.suppress(StreamClosed):  # its reader wants no more
            await stream.wait_delivered()
        assert await session.request("acme.echo", LARGE) == b"echo " + LARGE
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []


@pytest.mark.asyncio
async def test_a_relay_passes_requests_on_to_whoever_announced_the_endpoint() -> None:
    async with make_node(STTConfig(relay_endpoints=True)) as hub, make_node() as sensor, make_node() as viewer:
        (url,) = await hub.listen(f"memory://{secrets.token_hex(8)}")
        sensor.endpoints.register("acme.early", echo)
        uplink = await sensor.connect(url)
        sensor.endpoints.register("acme.late", echo)
        await uplink.ping()
        session = await viewer.connect(url)

        assert await session.resolve("acme.early")
        assert not await session.resolve("acme.never")
        assert await session.request("acme.early", b"1") == b"echo 1"
        assert await session.request("acme.late", LARGE) == b"echo " + LARGE
        sensor.endpoints.unregister("acme.late")
        await uplink.ping()
        assert not await session.resolve("acme.late")


@pytest.mark.asyncio
async def test_a_node_relays_nothing_unless_told_to() -> None:
    async with make_node() as hub, make_node() as sensor, make_node() as viewer:
        (url,) = await hub.listen(f"memory://{secrets.token_hex(8)}")
        sensor.endpoints.register("acme.echo", echo)
        await sensor.connect(url)
        session = await viewer.connect(url)

        assert not await session.resolve("acme.echo")


def test_endpoints_are_registered_listed_and_unregistered_without_a_node() -> None:
    manager = EndpointManager()

    address = manager.register("sensor.telemetry", echo)

    assert address == endpoint_address("sensor.telemetry")
    assert manager.list() == {"sensor.telemetry": address}
    manager.unregister("sensor.telemetry")
    assert manager.list() == {}


@pytest.mark.parametrize("name", ["", "x" * 257])
def test_a_name_has_bounds(name: str) -> None:
    with pytest.raises(LocalError, match="1 to 256 bytes"):
        EndpointManager().register(name, echo)


def test_a_name_has_one_handler() -> None:
    manager = EndpointManager()
    manager.register("acme.echo", echo)

    with pytest.raises(LocalError, match="has a handler already"):
        manager.register("acme.echo", nothing)
    with pytest.raises(LocalError, match="has no handler"):
        manager.unregister("acme.other")
