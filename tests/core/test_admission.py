"""Who is let in: allow and deny lists, limits, and plugins that decide."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING

import pytest

from stt_core import STTConfig, STTNode, hookimpl
from stt_core.errors import ConnectError, ConnectReason
from stt_core.plugins import PluginState
from stt_core.subscriptions import PeerRefused, PluginFailed, SessionEnded, SessionOpened

if TYPE_CHECKING:
    from collections.abc import Callable

    from stt_core.interfaces.endpoint import PeerOffer
    from stt_core.session import STTSession

SHARED = secrets.token_bytes(32)


def make_node(**settings: object) -> STTNode:
    return STTNode(node_seed=secrets.token_bytes(32), shared_seed=SHARED, **settings)  # type: ignore[arg-type]


async def listen(node: STTNode) -> str:
    (url,) = await node.listen(f"memory://{secrets.token_hex(8)}")
    return url


class Judge:
    """A plugin that lets in what a function says."""

    def __init__(self, decide: Callable[[PeerOffer], object]) -> None:
        self.decide = decide
        self.offers: list[PeerOffer] = []

    @hookimpl
    def stt_authorize(self, peer: PeerOffer) -> object:
        self.offers.append(peer)
        return self.decide(peer)


async def later(answer: object) -> object:
    await asyncio.sleep(0)
    return answer


async def never() -> None:
    await asyncio.Event().wait()


def fail(_: PeerOffer) -> bool:
    raise RuntimeError("the list of friends is gone")


@pytest.mark.asyncio
async def test_an_allow_list_lets_in_whom_it_names_alone() -> None:
    async with make_node() as friend, make_node() as stranger, make_node(allow=[friend.node_id]) as server:
        url = await listen(server)

        assert (await friend.connect(url)).peer_node_id == server.node_id
        with pytest.raises(ConnectError) as caught:
            await stranger.connect(url)

        assert caught.value.reason is ConnectReason.REFUSED
        assert server.get_statistics().sessions_refused == 1


@pytest.mark.asyncio
async def test_a_deny_list_wins() -> None:
    async with make_node() as peer, make_node(allow=[peer.node_id], deny=[peer.node_id]) as server:
        with pytest.raises(ConnectError) as caught:
            await peer.connect(await listen(server))

    assert caught.value.reason is ConnectReason.REFUSED


@pytest.mark.asyncio
@pytest.mark.parametrize("answer", [lambda _: True, lambda _: later(answer=True)], ids=["plain", "async"])
async def test_a_plugin_lets_a_peer_in_knowing_who_it_is(answer: Callable[[PeerOffer], object]) -> None:
    judge = Judge(answer)
    async with make_node(plugins=[judge]) as server, make_node(config=STTConfig(app_parameters=b"v2")) as peer:
        url = await listen(server)
        await peer.connect(url)

        (offer,) = judge.offers
        assert (offer.node_id, offer.transport, offer.app_parameters) == (peer.node_id, url, b"v2")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "answer",
    [lambda _: False, lambda _: None, lambda _: "yes", lambda _: later(answer=False), fail, lambda _: never()],
    ids=["False", "nothing", "something else", "async", "an exception", "no answer in time"],
)
async def test_anything_but_true_is_a_refusal(answer: Callable[[PeerOffer], object]) -> None:
    config = STTConfig(authorize_timeout=0.02)
    async with make_node(plugins=[Judge(answer)], config=config) as server, make_node() as peer:
        with pytest.raises(ConnectError) as caught:
            await peer.connect(await listen(server))

    assert caught.value.reason is ConnectReason.REFUSED
    assert "friends" not in str(caught.value)


@pytest.mark.asyncio
async def test_one_refusal_among_several_plugins_wins() -> None:
    judges = [Judge(lambda _: True), Judge(lambda _: False), Judge(lambda _: True)]
    async with make_node(plugins=judges) as server, make_node() as peer:
        with pytest.raises(ConnectError):
            await peer.connect(await listen(server))


@pytest.mark.asyncio
async def test_one_peer_has_a_bounded_number_of_sessions() -> None:
    config = STTConfig(max_sessions_per_peer=2)
    async with make_node(config=config) as server, make_node() as peer, make_node() as other:
        url = await listen(server)
        first = await peer.connect(url)
        await peer.connect(url)

        with pytest.raises(ConnectError, match="too many sessions of this node"):
            await peer.connect(url)
        await other.connect(url)
        ended = server.subscribe(SessionEnded)
        first.close()
        await anext(ended)
        await peer.connect(url)


class Observer:
    """A plugin that watches sessions come and go."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    @hookimpl
    def stt_session_opened(self, session: STTSession) -> None:
        self.seen.append(f"opened {session.session_id.hex()}")

    @hookimpl
    async def stt_session_closed(self, session: STTSession, reason: str) -> None:
        self.seen.append(f"closed {session.session_id.hex()} {reason}")

    @hookimpl
    def stt_node_started(self) -> None:
        self.seen.append("started")

    @hookimpl
    def stt_node_stopped(self) -> None:
        self.seen.append("stopped")


@pytest.mark.asyncio
async def test_observers_learn_of_nodes_and_sessions() -> None:
    observer = Observer()
    async with make_node() as server:
        url = await listen(server)
        async with make_node(plugins=[observer]) as peer:
            session = await peer.connect(url)
            session.close(reason="done")
            await session.wait_closed()

    label = session.session_id.hex()
    assert observer.seen == ["started", f"opened {label}", f"closed {label} done", "stopped"]


@pytest.mark.asyncio
async def test_an_observer_that_raises_is_quarantined_and_the_node_runs_on() -> None:
    class Broken:
        calls = 0

        @hookimpl
        def stt_session_opened(self) -> None:
            self.calls += 1
            raise RuntimeError("out of order")

    broken = Broken()
    async with make_node() as server, make_node(plugins=[broken]) as peer:
        events = peer.subscribe(PluginFailed)
        url = await listen(server)
        await peer.connect(url)
        await peer.connect(url)

        assert broken.calls == 1
        (info,) = [info for info in peer.plugins if info.name == "Broken"]
        assert info.state is PluginState.FAILED
        assert "out of order" in info.reason
        assert "Traceback" in info.traceback
        assert "out of order" in (await anext(events)).reason  # type: ignore[attr-defined]


@pytest.mark.asyncio
async def test_a_plugin_that_is_quarantined_still_refuses_whom_it_refused() -> None:
    class Both(Judge):
        @hookimpl
        def stt_session_opened(self) -> None:
            raise RuntimeError("out of order")

    plugin = Both(lambda peer: peer.app_parameters == b"friend")
    friend_config = STTConfig(app_parameters=b"friend")
    async with (
        make_node(plugins=[plugin]) as server,
        make_node(config=friend_config) as friend,
        make_node() as stranger,
    ):
        url = await listen(server)
        await friend.connect(url)

        with pytest.raises(ConnectError):
            await stranger.connect(url)


@pytest.mark.asyncio
async def test_subscribers_learn_of_sessions_and_refusals() -> None:
    async with make_node() as peer, make_node() as stranger, make_node(allow=[peer.node_id]) as server:
        events = server.subscribe(SessionOpened, SessionEnded, PeerRefused)
        url = await listen(server)
        session = await peer.connect(url)
        with pytest.raises(ConnectError):
            await stranger.connect(url)
        session.close(0x123, "enough")

        opened, refused, ended = [await anext(events) for _ in range(3)]

    assert isinstance(opened, SessionOpened)
    assert isinstance(refused, PeerRefused)
    assert isinstance(ended, SessionEnded)
    assert refused.peer_node_id == stranger.node_id
    assert (ended.code, ended.reason, ended.by_peer) == (0x123, "enough", True)


@pytest.mark.asyncio
async def test_bytes_go_to_all_sessions_with_a_result_for_each() -> None:
    async with make_node() as server, make_node() as first, make_node() as second:
        url = await listen(server)
        sessions = [await node.connect(url) for node in (first, second)]
        missing = b"no such!"

        to_all = asyncio.ensure_future(server.send_to_all(b"news", label="broadcast"))
        streams = [await session.accept_stream() for session in sessions]
        received = [await stream.receive() for stream in streams]
        for stream in streams:
            stream.end()
        results = await to_all
        some = await server.send_to_sessions([missing], b"")

    assert received == [b"news", b"news"]
    assert results == {session.session_id: None for session in sessions}
    assert "no session" in str(some[missing])
