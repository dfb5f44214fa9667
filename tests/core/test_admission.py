"""Who is let in: allow and deny lists, limits, and plugins that decide."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Any

import pytest

from stt_core import STTConfig, STTNode, hookimpl
from stt_core.defaults.memory_transport import MemoryTransport
from stt_core.errors import ConnectError, ConnectReason
from stt_core.plugins import PluginState
from stt_core.subscriptions import PeerRefused, PluginFailed, SessionEnded, SessionOpened

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stt_core.interfaces.endpoint import PeerOffer
    from stt_core.session import STTSession

SHARED = secrets.token_bytes(32)


def make_node(**settings: Any) -> STTNode:
    return STTNode(node_seed=secrets.token_bytes(32), shared_seed=SHARED, **settings)


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


def cancelled(_: PeerOffer) -> bool:
    raise asyncio.CancelledError


async def cancelled_later() -> None:
    task = asyncio.ensure_future(never())
    task.cancel()
    await task


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
    [
        lambda _: False,
        lambda _: None,
        lambda _: "yes",
        lambda _: later(answer=False),
        fail,
        cancelled,
        lambda _: cancelled_later(),
        lambda _: never(),
    ],
    ids=[
        "False",
        "nothing",
        "something else",
        "async",
        "an exception",
        "a cancellation",
        "a cancelled task",
        "no answer in time",
    ],
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


# A plugin that decides, and fails before it is asked


class Clashes(Judge):
    """Would let everybody in, but claims a transport of the core's as well."""

    @hookimpl
    def stt_register_transports(self, register: Callable[..., None]) -> None:
        register("memory", MemoryTransport)


class Misspelt:
    """Means to decide."""

    @hookimpl
    def stt_authorise(self) -> bool:
        return True


class Unmarked:
    """Forgot the mark."""

    def stt_authorize(self) -> bool:
        return True


class Elsewhere:
    """Asks for what the hook does not give."""

    @hookimpl
    def stt_authorize(self, password: str) -> bool:
        return bool(password)


class Renamed:
    """Has the function under another name, and a mistake elsewhere."""

    @hookimpl(specname="stt_authorize")
    def is_a_friend(self) -> bool:
        return True

    @hookimpl
    def stt_register_transprots(self) -> None: ...


class Unlistable(Clashes):
    """Does not say what it has, once it was looked at for the first time."""

    looks = 0

    def __dir__(self) -> list[str]:
        self.looks += 1
        if self.looks > 1:
            raise RuntimeError("enough")
        return [*super().__dir__()]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "guard",
    [lambda: Clashes(lambda _: True), Misspelt, Unmarked, Elsewhere, Renamed, lambda: Unlistable(lambda _: True)],
    ids=["clashes", "misspelt", "unmarked", "another signature", "renamed", "unlistable"],
)
async def test_without_the_plugin_that_decides_nobody_is_let_in(
    guard: Callable[[], object], caplog: pytest.LogCaptureFixture
) -> None:
    async with make_node(plugins=[guard()]) as server, make_node() as peer:
        refusals = server.subscribe(PeerRefused)
        url = await listen(server)
        with pytest.raises(ConnectError) as caught:
            await peer.connect(url)
        refusal = await anext(refusals)
        outgoing = await server.connect(await listen(peer))  # whom it asks itself, it may talk to

        assert caught.value.reason is ConnectReason.REFUSED
        assert "not allowed in" in str(caught.value)
        assert isinstance(refusal, PeerRefused)
        assert "decides who is let in, and failed" in refusal.reason
        assert not outgoing.closed
    assert "nobody is let in: plugin" in caplog.text


@pytest.mark.asyncio
async def test_a_failed_plugin_that_decides_nothing_keeps_nobody_out() -> None:
    class Broken:
        @hookimpl
        def stt_register_transports(self) -> None:
            raise RuntimeError("out of order")

    async with make_node(plugins=[Broken()]) as server, make_node() as peer:
        assert not (await peer.connect(await listen(server))).closed


@pytest.fixture
def unimportable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Installs a plugin that cannot be imported; returns its name."""
    monkeypatch.syspath_prepend(tmp_path)
    name = f"unimportable_{secrets.token_hex(4)}"
    (tmp_path / f"{name}.py").write_text("import no_such_module\n")
    metadata = tmp_path / f"{name}-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(f"[stt.v1]\n{name} = {name}\n")
    return name


@pytest.mark.asyncio
async def test_a_node_says_that_a_plugin_it_could_not_import_may_have_been_to_decide(
    unimportable: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with make_node() as server, make_node() as peer:
        await peer.connect(await listen(server))
        await listen(server)

    said = [record for record in caplog.records if "everybody who has a shared seed is let in" in record.getMessage()]
    assert [record.levelname for record in said] == ["ERROR"]
    assert unimportable in said[0].getMessage()


@pytest.mark.asyncio
@pytest.mark.usefixtures("unimportable")
async def test_a_node_that_names_whom_it_lets_in_has_nothing_to_say(caplog: pytest.LogCaptureFixture) -> None:
    async with make_node(allow=[]) as server:
        await listen(server)

    assert "everybody" not in caplog.text


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
async def test_an_observer_may_close_a_session_of_which_more_is_to_be_told() -> None:
    class Chain:
        def __init__(self) -> None:
            self.next: list[STTSession] = []

        @hookimpl
        def stt_session_closed(self) -> None:
            for session in self.next:
                session.close(reason="and this one")

    chain = Chain()
    async with make_node() as server, make_node(plugins=[chain]) as peer:
        url = await listen(server)
        first, second = await peer.connect(url), await peer.connect(url)
        ended = peer.subscribe(SessionEnded)
        await second.ping()
        await first.ping()  # nothing of the second is left to do

        # Both have something to tell at once, the first that it is over.
        chain.next = [second]
        first.close()
        second.rotate_keys()

        assert (await second.wait_closed()).reason == "and this one"
        assert [(await anext(ended)).session_id for _ in range(2)] == [first.session_id, second.session_id]


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
        assert "out of order" in (await anext(events)).reason


@pytest.mark.asyncio
@pytest.mark.parametrize("is_async", [False, True])
async def test_an_observer_that_lets_a_cancellation_escape_cancels_nobody_else(*, is_async: bool) -> None:
    class Cancelled:
        @hookimpl
        def stt_session_opened(self) -> object:
            if is_async:
                return cancelled_later()
            raise asyncio.CancelledError

        @hookimpl
        def stt_node_stopped(self) -> object:
            raise AssertionError("it is asked no more")

    async with make_node() as server, make_node(plugins=[Cancelled()]) as peer:
        events = peer.subscribe(PluginFailed)
        session = await peer.connect(await listen(server))
        await session.ping()

        assert "CancelledError" in (await anext(events)).reason


@pytest.mark.asyncio
@pytest.mark.parametrize("is_async", [False, True])
async def test_a_node_stops_whatever_its_observers_let_escape(*, is_async: bool) -> None:
    class Cancelled:
        @hookimpl
        def stt_node_stopped(self) -> object:
            if is_async:
                return cancelled_later()
            raise asyncio.CancelledError

    async with make_node(plugins=[Cancelled()]) as node:
        await listen(node)

    (info,) = [info for info in node.plugins if info.name == "Cancelled"]
    assert "CancelledError" in info.reason


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
