"""What a node costs that has many sessions: memory, timers, and turns."""

from __future__ import annotations

import gc
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from stt_core import STTConfig, STTNode, STTSession
from stt_core.engine.demux import Demux, SessionBegun, SessionEvents, SessionOffered
from stt_core.engine.status import State
from stt_core.events import StreamReadable
from stt_core.testing.link import DATAGRAMS, MESSAGES, Link
from stt_core.testing.sessions import make_demux

if TYPE_CHECKING:
    from stt_core.engine.session import Session
    from stt_core.interfaces.transport import TransportCapabilities
    from stt_core.testing.link import End, Event

SESSIONS = 50
CONFIG = STTConfig(idle_timeout=600.0)
ENGINE_LIMIT = 9_000  # bytes that Python allocates for one end of an idle session
NODE_LIMIT = 18_000  # with what an application holds of it, and with a link of its own where it connects


class Crowd:
    """Two nodes with many sessions between them, each of which was used once."""

    def __init__(self, capabilities: TransportCapabilities = DATAGRAMS) -> None:
        self.alice = make_demux("alice", config=CONFIG)
        self.bob = make_demux("bob", config=CONFIG)
        self.link = Link(self.alice, self.bob, latency=0.01, on_event=self._handle, capabilities=capabilities)
        self.begun: list[Session] = []

    def grow(self, count: int) -> None:
        for _ in range(count):
            self._grow()

    def rest(self) -> None:
        """Let time pass until nothing happens any more, and forget the past."""
        self.link.run(self.link.now + 15.0)
        for end in (self.alice, self.bob):
            self.link.events(end).clear()

    def _grow(self) -> None:
        count = len(self.begun)
        self.alice.connect(self.link.path(self.alice), None, self.link.now)
        self.link.wait_for(lambda: len(self.begun) > count and self.begun[-1].state is State.ACTIVE)
        session = self.begun[-1]
        stream_id = session.open_stream()
        assert stream_id is not None
        session.write(stream_id, b"m" * 64)
        session.end_stream(stream_id)
        self.alice.touch(session)
        self.link.wait_for(lambda: session.stream(stream_id) is None)

    def _handle(self, end: End, event: Event) -> None:
        assert isinstance(end, Demux)
        match event:
            case SessionBegun(_, session):
                self.begun.append(session)
            case SessionOffered(offer):
                end.accept(offer, self.link.now)
            case SessionEvents(session, happened):
                for each in happened:
                    if isinstance(each, StreamReadable):
                        session.read(each.stream_id, 100)
                        session.end_stream(each.stream_id)
                        end.touch(session)


def test_an_idle_session_takes_few_kilobytes() -> None:
    crowd = Crowd()
    crowd.grow(20)
    crowd.rest()
    tracemalloc.start()
    try:
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        crowd.grow(SESSIONS)
        crowd.rest()
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()

    assert grown / SESSIONS / 2 < ENGINE_LIMIT


@pytest.mark.asyncio
async def test_an_idle_session_of_a_node_takes_few_kilobytes() -> None:
    seed = b"the seed that both of them share"
    config = STTConfig(max_sessions_per_peer=1000)
    server = STTNode(node_seed=b"s" * 32, shared_seed=seed, config=config)
    client = STTNode(node_seed=b"c" * 32, shared_seed=seed, config=config)
    async with server, client:
        [url] = await server.listen("memory://scale")
        held: list[STTSession] = []

        async def grow(count: int) -> None:
            accepted = server.sessions()
            for _ in range(count):
                near = await client.connect(url)
                far = await anext(accepted)
                stream = await near.open_stream()
                await stream.send(b"m" * 64)
                stream.end()
                answer = await far.accept_stream()
                assert await answer.receive_exactly(64) == b"m" * 64
                answer.end()
                assert await stream.receive() == b""
                held.extend((near, far))

        await grow(20)
        tracemalloc.start()
        try:
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
            await grow(SESSIONS)
            gc.collect()
            grown = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()

    assert grown / SESSIONS / 2 < NODE_LIMIT


def test_idle_sessions_wake_nobody() -> None:
    crowd = Crowd()
    crowd.grow(SESSIONS)
    crowd.rest()
    wakes = 0
    until = crowd.link.now + 300.0

    for node in (crowd.alice, crowd.bob):
        while (due := node.next_timeout()) is not None and due < until:
            node.handle_timeout(due)
            assert node.drain((), due) == ([], [])
            wakes += 1

    assert wakes <= 2 * 2 * SESSIONS


def busy_crowd() -> Crowd:
    """Return sessions that all have a megabyte to send; a reliable link takes whatever comes."""
    crowd = Crowd(MESSAGES)
    crowd.grow(SESSIONS)
    crowd.rest()
    for session in crowd.begun:
        stream_id = session.open_stream()
        assert stream_id is not None
        session.write(stream_id, bytes(1_000_000))
        crowd.alice.touch(session)
    return crowd


def test_the_end_of_a_session_waits_for_no_turn() -> None:
    crowd = busy_crowd()
    last = crowd.begun[-1]

    last.close(0, "", crowd.link.now)
    output, _ = crowd.alice.drain((), crowd.link.now)

    assert sum(train.data[3:11] == last.session_id for _, train in output) == 1
    assert sum(len(train.data) for _, train in output) > 1024 * 1024


def test_many_busy_sessions_take_turns() -> None:
    crowd = busy_crowd()
    now = crowd.link.now
    sent = dict.fromkeys((session.session_id for session in crowd.begun), 0)
    largest = 0

    for _ in range(8):
        output, _ = crowd.alice.drain((), now)
        largest = max(largest, sum(len(train.data) for _, train in output))
        for _, train in output:
            sent[bytes(train.data[3:11])] += len(train.data)
        due = crowd.alice.next_timeout()
        assert due is not None
        assert due <= now  # there is more
        crowd.alice.handle_timeout(now)

    assert largest < 2 * 1024 * 1024
    assert max(sent.values()) < 2 * min(sent.values())
