"""Custom frame types between real nodes: agreed on by name, reliable or not, with handlers that may fail."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import TYPE_CHECKING

import pytest

from stt_core import STTConfig, STTNode, hookimpl
from stt_core.errors import ConfigError, LocalError
from stt_core.frame_types import FrameTypes
from stt_core.interfaces.frame import FrameHandler, FrameMessage, FrameType

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from stt_core.session import STTSession

SHARED = secrets.token_bytes(32)


class Offers:
    """A plugin that offers frame types."""

    def __init__(self, *types: FrameType) -> None:
        self.types = types

    @hookimpl
    def stt_register_frame_types(self, register: Callable[[FrameType], None]) -> None:
        for each in self.types:
            register(each)


async def ignore(_: FrameMessage) -> None:
    pass


def make_node(*plugins: object, config: STTConfig | None = None) -> STTNode:
    return STTNode(node_seed=secrets.token_bytes(32), shared_seed=SHARED, plugins=plugins, config=config)


@contextlib.asynccontextmanager
async def session_with(server: STTNode, *plugins: object) -> AsyncIterator[STTSession]:
    async with server, make_node(*plugins) as client:
        (url,) = await server.listen(f"memory://{secrets.token_hex(8)}")
        yield await client.connect(url)


@pytest.mark.asyncio
async def test_two_plugins_that_wish_for_one_code_work_in_one_session() -> None:
    came: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()

    def note(name: str) -> FrameHandler:
        async def handle(message: FrameMessage) -> None:
            await came.put((name, message.data))

        return handle

    one, two = (Offers(FrameType(name, 0x90, note(name))) for name in ("acme.one", "acme.two"))
    async with session_with(make_node(one, two), two, one) as session:
        await session.send_message("acme.one", b"1")
        await session.send_message("acme.two", b"2")

        assert {await came.get(), await came.get()} == {("acme.one", b"1"), ("acme.two", b"2")}


@pytest.mark.asyncio
async def test_messages_of_a_type_are_handled_one_at_a_time_in_order_and_hold_the_sender_back() -> None:
    handled: list[bytes] = []
    release = asyncio.Event()
    done = asyncio.Event()

    async def handle(message: FrameMessage) -> None:
        await release.wait()
        handled.append(message.data)
        if len(handled) == 600:
            done.set()

    async with session_with(make_node(Offers(FrameType("acme.slow", 0x80, handle)))) as session:
        sending = asyncio.ensure_future(send_numbers(session, "acme.slow", 600))
        await session.ping()
        assert not sending.done()  # the peer gave room for 256 only

        release.set()
        await sending
        await done.wait()

    assert handled == [b"%d" % number for number in range(600)]


async def send_numbers(session: STTSession, name: str, count: int) -> None:
    for number in range(count):
        await session.send_message(name, b"%d" % number)


@pytest.mark.asyncio
async def test_a_handler_that_raises_is_counted_and_logged_and_closes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    done = asyncio.Event()

    async def handle(message: FrameMessage) -> None:
        if message.data == b"last":
            done.set()
        else:
            raise ValueError("a broken handler")

    server = make_node(Offers(FrameType("acme.broken", 0xFF, handle)))
    async with session_with(server) as session:
        await session.send_message("acme.broken", b"first")
        await session.send_message("acme.broken", b"last")
        await done.wait()

        assert not session.closed
    assert server.frame_types.failures == 1
    assert "acme.broken" in caplog.text


@pytest.mark.asyncio
async def test_a_handler_that_lets_a_cancellation_escape_is_one_that_raises() -> None:
    handled: list[bytes] = []
    done = asyncio.Event()

    async def handle(message: FrameMessage) -> None:
        handled.append(message.data)
        if len(handled) == 600:
            done.set()
        task = asyncio.ensure_future(asyncio.Event().wait())
        task.cancel()
        await task

    server = make_node(Offers(FrameType("acme.cancelled", 0x80, handle)))
    async with session_with(server) as session:
        await send_numbers(session, "acme.cancelled", 600)  # more than there is room for, if each kept its place
        await done.wait()
        await session.ping()

        assert not session.closed
    assert server.frame_types.failures == 600


@pytest.mark.asyncio
async def test_an_unreliable_type_arrives_as_it_was_sent() -> None:
    came: asyncio.Queue[FrameMessage] = asyncio.Queue()
    offer = Offers(FrameType("acme.position", 0x81, came.put, reliable=False))

    async with session_with(make_node(offer)) as session:
        await session.send_message("acme.position", b"52.5 13.4")

        assert (await came.get()).data == b"52.5 13.4"


@pytest.mark.asyncio
async def test_a_full_queue_drops_messages_that_are_not_reliable_and_counts_them() -> None:
    release, done = asyncio.Event(), asyncio.Event()
    handled: list[bytes] = []

    async def handle(message: FrameMessage) -> None:
        await release.wait()
        handled.append(message.data)
        if message.data == b"end":
            done.set()

    server = make_node(Offers(FrameType("acme.flood", 0x82, handle, reliable=False, queue_size=4)))
    async with session_with(server) as session:
        for number in range(20):
            await session.send_message("acme.flood", b"%d" % number)
        await session.ping()
        release.set()
        while server.frame_types.dropped + len(handled) < 20:
            await session.ping()
        await session.send_message("acme.flood", b"end")
        await done.wait()

    assert server.frame_types.dropped >= 14
    assert handled[0] == b"0"


@pytest.mark.asyncio
async def test_a_type_that_the_peer_does_not_receive_is_an_error_at_the_sender() -> None:
    async with session_with(make_node(Offers(FrameType("acme.known", 0x80, ignore)))) as session:
        with pytest.raises(LocalError, match=r"does not receive .*acme\.unknown.*receives: acme\.known"):
            await session.send_message("acme.unknown", b"")


@pytest.mark.asyncio
async def test_plugins_that_disagree_on_reliability_are_an_error_at_the_sender() -> None:
    here = Offers(FrameType("acme.data", 0x80, ignore, reliable=False))

    async with session_with(make_node(Offers(FrameType("acme.data", 0x80, ignore))), here) as session:
        with pytest.raises(LocalError, match="reliable at the peer, but not here"):
            await session.send_message("acme.data", b"")


@pytest.mark.asyncio
async def test_too_long_a_message_is_refused_with_the_limit() -> None:
    async with session_with(make_node(Offers(FrameType("acme.data", 0x80, ignore)))) as session:
        with pytest.raises(LocalError, match="65536 is the most"):
            await session.send_message("acme.data", bytes(65_537))


def test_every_type_gets_a_code_of_its_own() -> None:
    types = {f"acme.{number}": FrameType(f"acme.{number}", 0x90, ignore) for number in range(128)}

    parameters = FrameTypes(types, lambda work: work.close()).parameters

    assert sorted(code for code, _ in parameters.values()) == list(range(0x80, 0x100))


def test_more_types_than_codes_are_refused() -> None:
    types = {f"acme.{number}": FrameType(f"acme.{number}", 0x90, ignore) for number in range(129)}

    with pytest.raises(ConfigError, match="128 codes"):
        FrameTypes(types, lambda work: work.close())


def test_more_types_than_the_handshake_can_name_are_refused_when_the_node_is_made() -> None:
    types = [FrameType(f"acme.{'x' * 50}.{number}", 0x90, ignore) for number in range(30)]

    with pytest.raises(ConfigError, match="handshake"):
        make_node(Offers(*types))


@pytest.mark.parametrize(
    ("name", "code", "queue_size"),
    [("", 0x80, 1), ("x" * 65, 0x80, 1), ("a", 0x7F, 1), ("a", 0x100, 1), ("a", 0x80, 0)],
)
def test_a_frame_type_that_cannot_be_is_refused(name: str, code: int, queue_size: int) -> None:
    with pytest.raises(ConfigError):
        FrameType(name, code, ignore, queue_size=queue_size)
