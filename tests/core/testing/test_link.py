from __future__ import annotations

import re
from random import Random
from typing import TYPE_CHECKING

import pytest

from stt_core import events
from stt_core.config import STTConfig
from stt_core.engine.demux import SessionBegun, SessionEvents, SessionOffered
from stt_core.engine.session import Session
from stt_core.engine.status import State
from stt_core.testing.link import ADDRESSES, MESSAGES, Direction, Link, deliver, every
from stt_core.testing.sessions import RoguePeer, make_demux, make_session, session_pair
from stt_core.wire.frame import FrameType

if TYPE_CHECKING:
    from stt_core.testing.link import End, Event


def direction(**conditions: object) -> Direction:
    return Direction(source="somewhere", random=Random(1), **conditions)  # type: ignore[arg-type]  # by name


def datagrams(link: Link, end: End) -> list[bytes]:
    return [event.data for event in link.events(end) if isinstance(event, events.DatagramReceived)]


# One direction


def test_a_perfect_direction_delivers_at_once_and_unchanged() -> None:
    assert direction().fates(b"data", 3.0) == [(3.0, b"data")]


def test_latency_is_added() -> None:
    assert direction(latency=0.25).fates(b"data", 3.0) == [(3.25, b"data")]


def test_a_bottleneck_spaces_datagrams_by_their_size() -> None:
    narrow = direction(rate=1000.0)

    arrivals = [at for size in (100, 200, 300) for at, _ in narrow.fates(bytes(size), 0.0)]

    assert arrivals == pytest.approx([0.1, 0.3, 0.6])


def test_what_finds_the_queue_of_a_bottleneck_full_is_lost() -> None:
    narrow = direction(rate=1000.0, queue_size=250)

    passed = [bool(narrow.fates(bytes(100), 0.0)) for _ in range(5)]

    assert passed == [True, True, True, False, False]
    assert (narrow.sent, narrow.lost) == (5, 2)


def test_the_queue_of_a_bottleneck_empties_with_time() -> None:
    narrow = direction(rate=1000.0, queue_size=0)
    narrow.fates(bytes(100), 0.0)

    assert narrow.fates(bytes(100), 0.05) == []
    ((arrives_at, _),) = narrow.fates(bytes(100), 0.1)
    assert arrives_at == pytest.approx(0.2)


def test_datagrams_above_the_mtu_vanish() -> None:
    path = direction(mtu=1200)

    assert path.fates(bytes(1201), 0.0) == []
    assert path.fates(bytes(1200), 0.0) != []


def test_a_share_is_lost() -> None:
    lossy = direction(loss=0.25)

    passed = sum(len(lossy.fates(b"data", 0.0)) for _ in range(1000))

    assert 700 < passed < 800
    assert lossy.lost == 1000 - passed


def test_every_third_is_dropped() -> None:
    lossy = direction(drop=every(3))

    assert [len(lossy.fates(b"data", 0.0)) for _ in range(7)] == [1, 1, 0, 1, 1, 0, 1]


def test_a_share_arrives_twice() -> None:
    doubling = direction(duplication=0.25)

    assert 1200 < sum(len(doubling.fates(b"data", 0.0)) for _ in range(1000)) < 1300


def test_a_share_is_held_back() -> None:
    shuffling = direction(latency=0.1, reordering=0.25)

    late = [at for _ in range(1000) for at, _ in shuffling.fates(b"data", 0.0) if at > 0.1]

    assert 200 < len(late) < 300
    assert max(late) <= 0.2


def test_without_latency_reordering_takes_up_to_a_millisecond() -> None:
    shuffling = direction(reordering=1.0)

    assert 0.0005 < max(at for _ in range(100) for at, _ in shuffling.fates(b"data", 0.0)) <= 0.001


def test_a_share_has_one_bit_changed() -> None:
    corrupting = direction(corruption=0.25)

    arrived = [data for _ in range(1000) for _, data in corrupting.fates(bytes(8), 0.0)]

    changed = [int.from_bytes(data).bit_count() for data in arrived if any(data)]
    assert 200 < len(changed) < 300
    assert set(changed) == {1}


def test_what_is_sent_in_an_outage_is_lost() -> None:
    failing = direction(outages=[(1.0, 2.0), (5.0, 6.0)])

    passed = [bool(failing.fates(b"data", now)) for now in (0.9, 1.0, 1.9, 2.0, 5.5, 6.0)]

    assert passed == [True, False, False, True, False, True]


def test_the_same_seed_gives_the_same_run() -> None:
    def run(seed: int) -> list[tuple[float, float | None]]:
        alice, bob = session_pair()
        link = Link(alice, bob, latency=0.01, loss=0.3, reordering=0.3, seed=seed, record=True)
        for _ in range(40):
            alice.send_datagram(b"x")
            link.run(link.now + 0.01)
        return [(crossing.sent_at, crossing.arrives_at) for crossing in link.forth.crossed]

    assert run(7) == run(7)
    assert run(7) != run(8)


# Time


def test_the_clock_stands_where_run_was_told() -> None:
    link = Link(*session_pair())

    link.run(12.5)

    assert link.now == 12.5


def test_the_clock_never_goes_back() -> None:
    link = Link(*session_pair(now=10.0), now=10.0)

    link.run(5.0)

    assert link.now == 10.0


def test_time_jumps_to_what_happens_next() -> None:
    alice, bob = session_pair()
    link = Link(alice, bob, latency=0.05)
    alice.send_datagram(b"hello")

    link.wait_for(lambda: datagrams(link, bob))

    assert link.now == 0.05


def test_an_hour_passes_in_no_time() -> None:
    link = Link(*session_pair(config=STTConfig(keepalive=True)), latency=0.02)

    link.run(3600.0)

    assert 360 <= link.forth.sent <= 1200


def test_a_condition_that_holds_already_takes_no_time() -> None:
    link = Link(*session_pair())

    link.wait_for(lambda: True)

    assert link.now == 0.0


def test_a_condition_that_never_holds_is_an_error_when_the_time_is_over() -> None:
    link = Link(*session_pair())

    with pytest.raises(AssertionError, match=r"not within 3 s"):
        link.wait_for(lambda: False, within=3.0)

    assert link.now <= 3.0


class Spinner(Session):
    """A session whose timer is always due."""

    def next_timeout(self) -> float | None:
        return 0.0


class Creeper(Session):
    """A session whose timer is due again at once, but not at the same time."""

    due = 0.0

    def handle_timeout(self, now: float) -> None:
        super().handle_timeout(now)
        self.due = now + 1e-9

    def next_timeout(self) -> float | None:
        return self.due


@pytest.mark.parametrize("broken", [Spinner, Creeper])
def test_an_end_that_spins_is_an_error(broken: type[Session], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stt_core.testing.sessions.Session", broken)
    spinner = make_session(is_initiator=True)
    monkeypatch.undo()
    link = Link(spinner, make_session(is_initiator=False))

    with pytest.raises(AssertionError, match="spins"):
        link.run(1.0)


# Two sessions


def test_datagrams_that_arrive_at_one_moment_are_one_burst() -> None:
    alice, bob = session_pair()
    link = Link(alice, bob, latency=0.01)
    for _ in range(8):
        alice.send_datagram(bytes(1000))

    link.wait_for(lambda: datagrams(link, bob))

    assert datagrams(link, bob) == [bytes(1000)] * 8


def test_directions_are_changed_each_by_itself_and_while_running() -> None:
    alice, bob = session_pair()
    link = Link(alice, bob, latency=0.01)
    link.forth.latency = 0.2
    alice.send_datagram(b"slow")
    bob.send_datagram(b"fast")

    link.run(0.1)

    assert (datagrams(link, alice), datagrams(link, bob)) == ([b"fast"], [])
    link.run(0.2)
    assert datagrams(link, bob) == [b"slow"]


def test_an_application_answers_events() -> None:
    def echo(end: End, event: Event) -> None:
        if isinstance(event, events.DatagramReceived) and end is bob:
            bob.send_datagram(event.data.upper())

    alice, bob = session_pair()
    link = Link(alice, bob, on_event=echo, latency=0.01)
    alice.send_datagram(b"hello")

    link.run(0.05)

    assert datagrams(link, alice) == [b"HELLO"]


def test_what_crossed_is_recorded() -> None:
    alice, bob = session_pair()
    link = Link(alice, bob, latency=0.01, record=True)
    alice.send_datagram(b"first")
    link.run(0.0)
    link.forth.loss = 1.0
    alice.send_datagram(b"second")
    link.run(0.001)

    first, *_, second = link.forth.crossed

    assert (first.sent_at, first.arrives_at, first.source, first.destination) == (0.0, 0.01, *ADDRESSES)
    assert second.arrives_at is None
    assert first.data.startswith(b"ST")
    assert b"ST" not in repr(first).encode()


def test_nothing_is_recorded_unless_asked_for() -> None:
    alice, bob = session_pair()
    link = Link(alice, bob)
    alice.send_datagram(b"first")

    link.run(1.0)

    assert link.forth.sent
    assert link.forth.crossed == []


def test_an_end_that_moves_is_seen_elsewhere_and_no_longer_reached_where_it_was() -> None:
    alice, bob = session_pair()
    link = Link(alice, bob, latency=0.01)
    link.move(alice, ("10.9.9.9", 9))
    bob.send_datagram(b"to the old place")
    link.run(0.02)
    alice.send_datagram(b"from the new one")
    link.run(0.04)

    assert bob.path.address == ("10.9.9.9", 9)
    assert datagrams(link, alice) == []
    assert link.back.lost >= 1
    bob.send_datagram(b"to the new place")
    link.run(0.1)  # once the path there is validated
    assert datagrams(link, alice) == [b"to the new place"]


def test_an_end_that_keeps_its_address_is_reached_at_both() -> None:
    alice, bob = session_pair()
    link = Link(alice, bob, latency=0.01)
    link.move(alice, ("10.9.9.9", 9), keep=True)
    bob.send_datagram(b"to the old place")

    link.run(0.02)

    assert datagrams(link, alice) == [b"to the old place"]


def test_a_datagram_that_nobody_sent_is_injected() -> None:
    alice, bob = session_pair()
    rogue = RoguePeer(is_initiator=True)
    link = Link(alice, bob)
    link.back.loss = 1.0  # alice would wonder at acknowledgements of what she never sent
    link.inject(rogue.seal(FrameType.DATAGRAM, b"from nowhere", number=100), bob, delay=0.5)
    link.inject(rogue.seal(FrameType.DATAGRAM, b"from elsewhere", number=101), bob, source="elsewhere", delay=1.0)

    link.run(0.75)

    assert datagrams(link, bob) == [b"from nowhere"]
    assert bob.path.address == ADDRESSES[0]
    link.run(1.0)
    assert datagrams(link, bob) == [b"from nowhere", b"from elsewhere"]
    assert bob.path.address == "elsewhere"


def test_what_is_no_frame_or_of_no_session_reaches_nobody() -> None:
    alice, bob = session_pair()
    stranger = RoguePeer(is_initiator=True, session_id=b"another!")
    link = Link(alice, bob)
    link.inject(b"garbage", bob)
    link.inject(stranger.seal(FrameType.DATAGRAM, b"x"), bob)

    link.run(1.0)

    assert datagrams(link, bob) == []
    assert bob.statistics().frames_dropped == 0


def test_a_burst_is_delivered_to_a_session_by_hand() -> None:
    session = make_session(is_initiator=False)
    rogue = RoguePeer(is_initiator=True)

    deliver(session, b"garbage", rogue.seal(FrameType.DATAGRAM, b"1"), rogue.seal(FrameType.DATAGRAM, b"2"), now=0.0)

    deliver(session, b"garbage", now=0.0)

    assert session.statistics().frames_received == 2


def test_a_reliable_link_has_no_recovery() -> None:
    alice, bob = session_pair(capabilities=MESSAGES)
    link = Link(alice, bob, latency=0.01)
    alice.send_datagram(bytes(60_000))

    link.run(0.02)

    assert datagrams(link, bob) == [bytes(60_000)]
    assert alice.statistics().congestion_window is None


def test_a_link_shows_where_it_stands() -> None:
    alice, bob = session_pair()
    link = Link(alice, bob, latency=0.01)
    alice.send_datagram(b"x")
    link.run(0.0)

    assert re.match(r"<Link at 0\.000000, [1-9] datagrams under way, next time-outs [\d.]+, [\d.]+>", repr(link))


# Two nodes


def test_two_nodes_shake_hands_over_a_link() -> None:
    def accept(_: End, event: Event) -> None:
        if isinstance(event, SessionOffered):
            bob.accept(event.offer, link.now)

    alice, bob = make_demux("alice"), make_demux("bob")
    link = Link(alice, bob, on_event=accept, latency=0.05)
    alice.connect(link.path(alice), None, link.now)

    link.run(1.0)

    (begun,) = [event for event in link.events(alice) if isinstance(event, SessionBegun)]
    assert begun.session.state is State.ACTIVE
    told = [event for event in link.events(bob) if isinstance(event, SessionEvents)]
    assert told[0].events == [events.SessionActivated()]
    assert begun.session.path == link.path(alice)
