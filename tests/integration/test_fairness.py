"""Do flows share a bottleneck, and sessions a node? Jain's index: 1 is equal shares, 1/n is one that has it all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stt_core import events
from stt_core.defaults.controllers import CONTROLLERS
from stt_core.engine.demux import SessionBegun, SessionEvents, SessionOffered
from stt_core.testing.link import Link
from stt_core.testing.sessions import make_demux

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stt_core.engine.session import Session
    from stt_core.testing.link import End, Event

ROUND_TRIP = 0.04
RATE = 1e6  # bytes a second
QUEUE = 80_000  # bytes: twice what is under way at that rate


def jain(shares: Sequence[float]) -> float:
    """Return the fairness index of R. Jain, D. Chiu and W. Hawe (DEC-TR-301, 1984)."""
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))


class Flows:
    """Two nodes with one link between them; what each session of the first one sends, the second one reads."""

    def __init__(self, controller: str, **conditions: Any) -> None:
        self.sender = make_demux("sender", controller=CONTROLLERS[controller])
        self.receiver = make_demux("receiver", controller=CONTROLLERS[controller])
        self.link = Link(
            self.sender,
            self.receiver,
            on_event=self._handle,
            **{"latency": ROUND_TRIP / 2, "rate": RATE, "queue_size": QUEUE, "mtu": 1472} | conditions,
        )
        self.begun: list[Session] = []
        self.received: dict[bytes, int] = {}

    def begin(self, size: int) -> Session:
        """Begin a session that sends so many bytes."""
        count = len(self.begun)
        self.sender.connect(self.link.path(self.sender), None, self.link.now)
        self.link.wait_for(lambda: len(self.begun) > count and self.begun[-1].state.value > 1)
        session = self.begun[-1]
        stream_id = session.open_stream()
        assert stream_id is not None
        session.write(stream_id, bytes(size))
        self.sender.touch(session)
        return session

    def shares(self, seconds: float) -> list[int]:
        """Let time pass; return what came of each session in it."""
        before = dict(self.received)
        self.link.run(self.link.now + seconds)
        return [self.received.get(each.session_id, 0) - before.get(each.session_id, 0) for each in self.begun]

    def _handle(self, end: End, event: Event) -> None:
        match event:
            case SessionBegun(_, session):
                self.begun.append(session)
            case SessionOffered(offer):
                self.receiver.accept(offer, self.link.now)
            case SessionEvents(session, happened) if end is self.receiver:
                for each in happened:
                    if isinstance(each, events.StreamReadable):
                        size = len(session.read(each.stream_id, 1 << 24))
                        self.received[session.session_id] = self.received.get(session.session_id, 0) + size
                        self.receiver.touch(session)


@pytest.mark.parametrize("controller", CONTROLLERS)
@pytest.mark.parametrize("late", [0.0, 3.0])
def test_two_flows_share_a_bottleneck(controller: str, late: float) -> None:
    flows = Flows(controller)
    flows.begin(40_000_000)
    flows.link.run(flows.link.now + late)
    flows.begin(40_000_000)
    flows.link.run(flows.link.now + 5.0)

    shares = flows.shares(8.0)

    assert sum(shares) > 0.85 * RATE * 8.0
    assert jain(shares) > 0.75


@pytest.mark.parametrize("controller", CONTROLLERS)
def test_a_thin_way_back_does_not_slow_the_way_there(controller: str) -> None:
    # Acknowledgements have a fiftieth of the rate.
    flows = Flows(controller)
    flows.link.back.rate = RATE / 50
    flows.begin(40_000_000)
    flows.link.run(flows.link.now + 4.0)

    [share] = flows.shares(4.0)

    assert share > 0.85 * RATE * 4.0


def test_many_flows_share_a_bottleneck() -> None:
    flows = Flows("bbr", rate=4 * RATE, queue_size=4 * QUEUE)
    for _ in range(20):
        flows.begin(10_000_000)
    flows.link.run(flows.link.now + 2.0)

    shares = flows.shares(3.0)

    assert sum(shares) > 0.8 * 4 * RATE * 3.0
    assert jain(shares) > 0.7
