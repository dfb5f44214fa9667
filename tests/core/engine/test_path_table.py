from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from stt_core import events
from stt_core.config import STTConfig
from stt_core.defaults.controllers import CONTROLLERS
from stt_core.engine.paths import Link as Transport
from stt_core.engine.paths import PathKey
from stt_core.engine.status import State
from stt_core.errors import ErrorCode
from stt_core.testing.link import ADDRESSES, DATAGRAMS, MESSAGES, Link, deliver
from stt_core.testing.sessions import Inbox, RoguePeer, make_session, session_pair
from stt_core.wire.frame import FrameType, split_frames
from stt_core.wire.messages import Ack, PathKind, PathProbe, decode_path_probe

if TYPE_CHECKING:
    from stt_core.engine.session import Session

REBOUND = ("10.0.0.1", 50_001)  # another port of the initiator's host
ELSEWHERE = ("10.7.7.7", 7)  # another host
ATTACKER = ("10.6.6.6", 6)


def pair(**conditions: Any) -> tuple[Session, Session, Link, Inbox]:
    initiator, responder = session_pair(controller=CONTROLLERS["bbr"], config=STTConfig(keepalive=True))
    inbox = Inbox()
    link = Link(
        initiator, responder, on_event=inbox, **{"latency": 0.02, "rate": 2e6, "mtu": 1472, "record": True} | conditions
    )
    return initiator, responder, link, inbox


def begin(session: Session, size: int) -> bytes:
    data = os.urandom(size)
    stream_id = session.open_stream()
    assert stream_id is not None
    session.write(stream_id, data)
    session.end_stream(stream_id)
    return data


def assert_amplification_was_limited(link: Link, address: object, validated_at: float) -> None:
    """Check that what the responder sent to an address never exceeded three times what had come from there."""
    came = [
        (crossing.arrives_at, len(crossing.data))
        for crossing in link.forth.crossed
        if crossing.source == address and crossing.arrives_at is not None
    ]
    sent = 0
    for crossing in link.back.crossed:
        if crossing.destination != address or crossing.sent_at >= validated_at:
            continue
        sent += len(crossing.data)
        received = sum(size for arrived_at, size in came if arrived_at <= crossing.sent_at)
        assert sent <= 3 * received


class Rogue:
    """A responder's session whose peer speaks from wherever it likes."""

    def __init__(self, **changes: Any) -> None:
        self.session = make_session(is_initiator=False, config=STTConfig(**{"max_datagram_size": 1200} | changes))
        self.session.events()
        self.home = self.session.path
        self.peer = RoguePeer(is_initiator=True)

    def at(self, address: object) -> PathKey:
        return self.home._replace(address=address)

    def send(
        self, address: object, plaintext: bytes = b"x", *, kind: int = FrameType.DATAGRAM, now: float = 0.0
    ) -> None:
        deliver(self.session, self.peer.seal(kind, plaintext), now=now, path=self.at(address))

    def sent(self, now: float = 0.0) -> list[tuple[object, int, bytes, int]]:
        """Return address, type, plaintext and size of the datagram of each frame that the session sends."""
        return [
            (key.address, kind, plaintext, len(segment))
            for key, train in self.session.trains_to_send(now)
            for segment in train.segments()
            for _, kind, _, plaintext in self.peer.read([(key, attrs.evolve(train, data=segment))])
        ]

    def probes(self, now: float = 0.0) -> list[tuple[object, PathProbe, int]]:
        return [
            (address, decode_path_probe(plaintext), size)
            for address, kind, plaintext, size in self.sent(now)
            if kind == FrameType.PATH
        ]

    def answer(self, address: object, now: float = 0.0) -> None:
        """Answer all challenges that an address is sent."""
        for at, probe, _ in self.probes(now):
            if at == address and probe.kind is PathKind.CHALLENGE:
                response = PathProbe(PathKind.RESPONSE, probe.token).encode(1156)
                self.send(address, response, kind=FrameType.PATH, now=now)

    def moves(self) -> list[str]:
        return [event.path for event in self.session.events() if isinstance(event, events.PathChanged)]


# Following


@pytest.mark.parametrize("address", [REBOUND, ELSEWHERE])
def test_the_responder_sends_where_the_newest_frame_came_from(address: object) -> None:
    rogue = Rogue()

    rogue.send(address)

    assert rogue.session.path.address == address
    assert rogue.moves() == [str(rogue.at(address))]


def test_a_late_frame_from_the_old_address_does_not_move_back() -> None:
    rogue = Rogue()
    late = rogue.peer.seal(FrameType.DATAGRAM, b"late")
    rogue.send(REBOUND)

    deliver(rogue.session, late, now=0.0, path=rogue.home)

    assert rogue.session.path.address == REBOUND


def test_a_path_frame_alone_moves_nothing() -> None:
    rogue = Rogue()

    rogue.send(ELSEWHERE, PathProbe(PathKind.CHALLENGE, bytes(8)).encode(1000), kind=FrameType.PATH)

    assert rogue.session.path == rogue.home
    assert [address for address, _, _ in rogue.probes()] == [ELSEWHERE]


def test_the_initiator_follows_nobody() -> None:
    session, peer = make_session(is_initiator=True), RoguePeer(is_initiator=False)
    home = session.path

    deliver(session, peer.seal(FrameType.DATAGRAM, b"x"), now=0.0, path=home._replace(address=ELSEWHERE))
    session.ping()

    assert session.path == home
    assert {key for key, _ in session.trains_to_send(0.0)} == {home}


def test_frames_that_do_not_open_move_nothing() -> None:
    rogue = Rogue()
    stranger = RoguePeer(is_initiator=True, secrets=(bytes(32), bytes(32)))

    deliver(rogue.session, stranger.seal(FrameType.DATAGRAM, b"x"), now=0.0, path=rogue.at(ELSEWHERE))

    assert rogue.session.path == rogue.home
    assert rogue.at(ELSEWHERE) not in rogue.session.path_keys


# Validation


def test_both_addresses_are_challenged_on_a_move() -> None:
    rogue = Rogue()
    rogue.send(REBOUND, bytes(1000))

    probes = rogue.probes()

    assert {(address, probe.kind) for address, probe, _ in probes} == {
        (REBOUND, PathKind.CHALLENGE),
        (ADDRESSES[0], PathKind.CHALLENGE),
    }
    assert len({probe.token for _, probe, _ in probes}) == 2
    assert {size for _, _, size in probes} == {1200}


def test_a_challenge_is_small_where_the_threefold_limit_forbids_more() -> None:
    rogue = Rogue()
    rogue.send(REBOUND, b"x")

    sizes = {address: size for address, _, size in rogue.probes()}

    assert sizes[REBOUND] <= 3 * 45
    assert sizes[ADDRESSES[0]] == 1200


def test_an_unanswered_challenge_is_tried_three_times_a_probe_timeout_apart() -> None:
    rogue = Rogue()
    rogue.send(REBOUND, bytes(1000))
    tries = []
    now = 0.0
    while now < 10.0:
        tries += [(now, address) for address, _, _ in rogue.probes(now) if address == REBOUND]
        due = rogue.session.next_timeout()
        assert due is not None
        assert due > now or rogue.session.trains_to_send(now) == []
        now = max(due, now + 0.001)
        rogue.session.handle_timeout(now)

    times = [at for at, _ in tries]
    assert len(times) == 3
    assert times[1] - times[0] == pytest.approx(times[2] - times[1], abs=0.01)
    assert 0.9 < times[1] - times[0] < 1.2  # 333 ms of round trip, and four times half of that, and 25 ms


def test_a_move_that_nobody_answers_for_is_undone() -> None:
    rogue = Rogue()
    rogue.send(ELSEWHERE, bytes(1000))
    rogue.answer(ADDRESSES[0])
    now = 0.0

    while rogue.session.path != rogue.home and now < 10.0:
        now += 0.1
        rogue.session.handle_timeout(now)
        rogue.session.trains_to_send(now)

    assert 2.5 < now < 4.0
    assert rogue.moves() == [str(rogue.at(ELSEWHERE)), str(rogue.home)]
    assert rogue.at(ELSEWHERE) not in rogue.session.path_keys


def test_a_move_that_is_answered_stays_and_the_old_address_is_dropped() -> None:
    rogue = Rogue()
    rogue.send(ELSEWHERE, bytes(1000))
    rogue.answer(ELSEWHERE)

    for step in range(60):
        rogue.session.handle_timeout(step / 10)
        rogue.session.trains_to_send(step / 10)

    assert rogue.session.path.address == ELSEWHERE
    assert rogue.home not in rogue.session.path_keys


@pytest.mark.parametrize("mistake", ["another token", "another path", "a challenge"])
def test_only_the_right_answer_on_the_right_path_validates(mistake: str) -> None:
    rogue = Rogue()
    rogue.send(ELSEWHERE, bytes(1000))
    tokens = {address: probe.token for address, probe, _ in rogue.probes()}
    kind, token, address = PathKind.RESPONSE, tokens[ELSEWHERE], ELSEWHERE
    if mistake == "another token":
        token = tokens[ADDRESSES[0]]
    elif mistake == "another path":
        address = ATTACKER
    else:
        kind = PathKind.CHALLENGE
    rogue.send(address, PathProbe(kind, token).encode(), kind=FrameType.PATH)
    rogue.answer(ADDRESSES[0])

    for step in range(60):
        rogue.session.handle_timeout(step / 10)
        rogue.session.trains_to_send(step / 10)

    assert rogue.session.path == rogue.home


def test_a_challenge_is_answered_where_it_came_from() -> None:
    rogue = Rogue()
    rogue.send(ELSEWHERE, PathProbe(PathKind.CHALLENGE, b"12345678").encode(1156), kind=FrameType.PATH)
    rogue.send(ADDRESSES[0], PathProbe(PathKind.CHALLENGE, b"abcdefgh").encode(1156), kind=FrameType.PATH)

    assert rogue.probes() == [
        (ELSEWHERE, PathProbe(PathKind.RESPONSE, b"12345678"), 1200),
        (ADDRESSES[0], PathProbe(PathKind.RESPONSE, b"abcdefgh"), 1200),
    ]


def test_a_flood_of_challenges_gets_few_answers() -> None:
    rogue = Rogue()
    challenges = [rogue.peer.seal(FrameType.PATH, PathProbe(PathKind.CHALLENGE, bytes(8)).encode()) for _ in range(100)]

    deliver(rogue.session, *challenges, now=0.0)

    assert len(rogue.probes()) == 8


def test_a_path_whose_challenges_were_lost_is_asked_again_once_the_peer_is_heard() -> None:
    # All tries fall into an outage; without another one the path would stay limited for ever.
    rogue = Rogue()
    rogue.send(REBOUND, bytes(1000))
    rogue.session.path_lost(rogue.home, "gone", 0.0)
    now = 0.0
    while now < 10.0:
        rogue.sent(now)
        now += 0.1
        rogue.session.handle_timeout(now)
    assert rogue.probes(now) == []

    rogue.send(rogue.session.path.address, bytes(1000), now=now)

    assert [probe.kind for _, probe, _ in rogue.probes(now)] == [PathKind.CHALLENGE]


def test_forged_addresses_displace_no_validated_path() -> None:
    rogue = Rogue()
    for number in range(40):
        rogue.send(("10.6.6.6", number), bytes(100))
        rogue.sent()

    assert rogue.home in rogue.session.path_keys
    assert len(rogue.session.path_keys) <= 8


# What a move costs


def test_another_port_of_the_same_host_keeps_what_was_learned() -> None:
    initiator, responder, link, _ = pair(rate=None)
    begin(responder, 500_000)
    link.run(2.0)
    before = responder.statistics()
    assert before.datagram_size == 1472

    link.move(initiator, REBOUND)
    initiator.send_datagram(b"from here")
    link.run(2.05)

    after = responder.statistics()
    assert responder.path.address == REBOUND
    assert after.datagram_size == 1472
    assert after.min_round_trip == pytest.approx(before.min_round_trip)


def test_another_host_begins_afresh() -> None:
    initiator, responder, link, _ = pair(rate=None)
    begin(responder, 500_000)
    link.run(2.0)
    assert responder.statistics().round_trip is not None

    link.move(initiator, ELSEWHERE)
    initiator.send_datagram(b"from here")
    link.run(2.025)

    after = responder.statistics()
    assert responder.path.address == ELSEWHERE
    assert after.round_trip is None
    assert after.datagram_size == 1200


def test_a_flapping_port_keeps_what_was_learned() -> None:
    rogue = Rogue()
    rogue.session.open_stream()
    rogue.session.write(2, bytes(5000))
    rogue.sent()
    in_flight = rogue.session.statistics().bytes_in_flight
    assert in_flight > 5000

    rogue.send(REBOUND, bytes(1000))
    assert rogue.session.statistics().bytes_in_flight == in_flight
    rogue.send(ADDRESSES[0], bytes(1000))

    assert rogue.session.path == rogue.home
    assert rogue.session.statistics().bytes_in_flight == in_flight


def test_figures_do_not_shrink_when_a_path_is_dropped() -> None:
    rogue = Rogue()
    rogue.session.open_stream()
    rogue.session.write(2, bytes(5000))
    rogue.sent()
    rogue.peer.send(rogue.session, FrameType.ACK, Ack(0, ((5, 5),)).encode(), now=0.1)
    rogue.send(ELSEWHERE, bytes(1000), now=0.1)
    before = rogue.session.statistics()
    assert before.frames_lost > 0

    rogue.session.path_lost(rogue.home, "gone", 0.1)

    after = rogue.session.statistics()
    assert after.bytes_sent >= before.bytes_sent > 5000
    assert after.frames_lost == before.frames_lost


# Whole transfers


@pytest.mark.parametrize("address", [REBOUND, ELSEWHERE])
@pytest.mark.parametrize("uploading", [True, False])
def test_a_transfer_survives_a_move(*, address: tuple[str, int], uploading: bool) -> None:
    initiator, responder, link, inbox = pair()
    sender, receiver, stream_id = (initiator, responder, 1) if uploading else (responder, initiator, 2)
    data = begin(sender, 1_000_000)
    link.run(0.25)
    link.move(initiator, address)

    link.wait_for(lambda: inbox.has_ended(receiver, stream_id), within=30.0)

    assert inbox.data(receiver, stream_id) == data
    assert responder.path.address == address
    answered = [
        crossing.arrives_at
        for crossing in link.forth.crossed
        if crossing.source == address and len(crossing.data) >= 1200 and crossing.arrives_at is not None
    ]
    assert_amplification_was_limited(link, address, min(answered, default=link.now))


@pytest.mark.parametrize("seed", range(3))
def test_a_transfer_survives_many_rebindings_on_a_bad_network(seed: int) -> None:
    initiator, responder, link, inbox = pair(loss=0.02, duplication=0.01, reordering=0.02, seed=seed, latency=0.01)
    sent = {1: begin(initiator, 1_000_000), 2: begin(responder, 1_000_000)}

    for number in range(6):
        link.run(link.now + 0.15)
        link.move(initiator, ("10.0.0.1", 50_000 + number) if number % 3 else (f"10.0.0.{100 + number}", 1))
    link.wait_for(lambda: inbox.has_ended(responder, 1) and inbox.has_ended(initiator, 2), within=60.0)

    assert inbox.data(responder, 1) == sent[1]
    assert inbox.data(initiator, 2) == sent[2]


def test_a_move_in_an_outage_is_noticed_when_it_is_over() -> None:
    initiator, responder, link, inbox = pair()
    data = begin(initiator, 1_000_000)
    link.run(0.2)
    for direction in (link.forth, link.back):
        direction.outages.append((0.2, 10.2))
    link.move(initiator, ELSEWHERE)

    link.wait_for(lambda: inbox.has_ended(responder, 1), within=60.0)

    assert inbox.data(responder, 1) == data


def test_a_download_survives_a_move_whose_challenges_are_all_lost() -> None:
    initiator, responder, link, inbox = pair()
    data = begin(responder, 1_000_000)
    link.run(0.2)
    link.move(initiator, ELSEWHERE)
    link.back.outages.append((0.2, 4.0))

    link.wait_for(lambda: inbox.has_ended(initiator, 2), within=60.0)

    assert inbox.data(initiator, 2) == data
    assert link.now < 30.0


class Forwarder:
    """Somebody beside the path who sends the initiator's datagrams on from an address of its own."""

    def __init__(self, link: Link, responder: Session, *, delay: float) -> None:
        self.active = True
        self.sent = 0

        def forward(data: bytes) -> bool:
            if self.active:
                self.sent += len(data)
                link.inject(data, responder, source=ATTACKER, delay=delay)
            return False

        link.forth.drop = forward

    def received(self, link: Link) -> int:
        return sum(len(crossing.data) for crossing in link.back.crossed if crossing.destination == ATTACKER)


def test_who_forwards_the_peers_datagrams_too_late_changes_nothing() -> None:
    initiator, responder, link, inbox = pair(latency=0.02)
    attacker = Forwarder(link, responder, delay=0.1)
    begin(initiator, 500_000)

    link.wait_for(lambda: inbox.has_ended(responder, 1))

    assert attacker.received(link) == 0
    assert responder.path.address == ADDRESSES[0]


@pytest.mark.parametrize("uploading", [True, False])
def test_who_forwards_the_peers_datagrams_in_time_gets_three_times_that_and_no_session(*, uploading: bool) -> None:
    initiator, responder, link, inbox = pair(latency=0.02)
    link.run(1.0)
    attacker = Forwarder(link, responder, delay=0.001)
    sender, receiver, stream_id = (initiator, responder, 1) if uploading else (responder, initiator, 2)
    data = begin(sender, 200_000)
    link.run(3.0)
    attacker.active = False

    assert attacker.received(link) <= 3 * attacker.sent
    link.wait_for(lambda: inbox.has_ended(receiver, stream_id), within=30.0)
    assert inbox.data(receiver, stream_id) == data
    assert responder.path.address == ADDRESSES[0]


def test_who_forwards_a_single_datagram_does_not_get_a_download() -> None:
    initiator, responder, link, inbox = pair(latency=0.02)
    begin(responder, 2_000_000)
    link.run(0.3)
    attacker = Forwarder(link, responder, delay=0.001)
    link.run(0.302)
    attacker.active = False

    link.wait_for(lambda: inbox.has_ended(initiator, 2), within=20.0)

    assert attacker.received(link) <= 3 * attacker.sent


def test_a_padded_session_keeps_the_threefold_limit() -> None:
    rogue = Rogue(padding=500)
    rogue.session.open_stream()
    rogue.session.write(2, bytes(50_000))
    frame = rogue.peer.seal(FrameType.DATAGRAM, b"x\x80" + bytes(98))
    deliver(rogue.session, frame, now=0.0, path=rogue.at(ELSEWHERE))

    assert sum(size for address, _, _, size in rogue.sent() if address == ELSEWHERE) <= 3 * len(frame)


@pytest.mark.parametrize("size", [1, 100, 365, 400, 1000, 1100])
def test_what_an_unvalidated_address_is_sent_is_at_most_three_times_what_came(size: int) -> None:
    rogue = Rogue()
    for number in range(100):
        rogue.session.send_datagram(bytes(number))
    for _ in range(3):
        stream_id = rogue.session.open_stream("x" * 900)
        assert stream_id is not None
        rogue.session.write(stream_id, bytes(50_000))
    received = sent = 0
    for step in range(30):
        if step % 3 == 0:
            rogue.send(ELSEWHERE, bytes(size), now=step / 5)
            received += size + 44
        trains = [train for key, train in rogue.session.trains_to_send(step / 5) if key.address == ELSEWHERE]
        sent += sum(len(train.data) for train in trains)
        assert sent <= 3 * received
        rogue.session.handle_timeout(step / 5)

    assert sent > 0


def test_an_unvalidated_address_hears_the_end_only_if_the_threefold_limit_allows_it() -> None:
    rogue = Rogue()
    rogue.send(ELSEWHERE, b"")
    rogue.session.close(0x100, "r" * 200, 0.0)

    assert rogue.sent() == []


# Paths that are lost


def test_a_session_without_a_path_waits_for_another_and_does_not_spin() -> None:
    rogue = Rogue(keepalive=True)
    rogue.send(ADDRESSES[0], bytes(8), kind=FrameType.KEEPALIVE)
    rogue.session.open_stream()
    rogue.session.write(2, bytes(5000))

    rogue.session.path_lost(rogue.home, "unplugged", 1.0)

    assert rogue.session.trains_to_send(1.0) == []
    rogue.session.handle_timeout(2.0)  # at rest
    assert rogue.session.next_timeout() == 61.0
    rogue.session.handle_timeout(60.9)
    assert rogue.session.state is State.ACTIVE
    rogue.session.handle_timeout(61.0)
    assert rogue.session.events() == [events.SessionEnded(ErrorCode.TIMEOUT, "unplugged", by_peer=False)]


def test_a_session_without_a_path_goes_on_where_the_peer_comes_back() -> None:
    rogue = Rogue()
    rogue.session.open_stream()
    rogue.session.write(2, bytes(1000))
    rogue.sent()
    rogue.session.path_lost(rogue.home, "unplugged", 1.0)
    key = PathKey(Transport("ws://", MESSAGES), "a new connection")

    deliver(rogue.session, rogue.peer.seal(FrameType.DATAGRAM, bytes(1000)), now=50.0, path=key)

    assert rogue.session.path == key
    assert FrameType.DATA in [kind for address, kind, _, _ in rogue.sent(50.0) if address == "a new connection"]
    due = rogue.session.next_timeout()
    assert due is not None
    assert due > 50.0


def test_losing_a_path_that_is_not_there_changes_nothing() -> None:
    rogue = Rogue()

    rogue.session.path_lost(rogue.at(ELSEWHERE), "whatever", 0.0)

    assert rogue.session.path == rogue.home
    assert rogue.moves() == []


def test_losing_the_path_in_use_goes_back_to_another_that_is_known() -> None:
    rogue = Rogue()
    rogue.send(ELSEWHERE, bytes(1000))
    rogue.session.open_stream()
    rogue.session.write(2, b"data")
    rogue.sent()

    rogue.session.path_lost(rogue.at(ELSEWHERE), "gone", 0.0)

    assert rogue.session.path == rogue.home
    assert [kind for _, kind, _, _ in rogue.sent()].count(FrameType.DATA) == 1


def test_a_challenge_on_a_path_that_was_lost_is_not_answered() -> None:
    rogue = Rogue()
    rogue.send(ELSEWHERE, PathProbe(PathKind.CHALLENGE, bytes(8)).encode(1000), kind=FrameType.PATH)

    rogue.session.path_lost(rogue.at(ELSEWHERE), "gone", 0.0)

    assert rogue.probes() == []


# Several paths


class Networks:
    """Two sessions that are joined by several transports, each with 20 ms each way while it works."""

    def __init__(self, count: int = 2) -> None:
        self.initiator, self.responder = session_pair()
        self.there = [self.initiator.path]
        self.back = [self.responder.path]
        for number in range(1, count):
            self.there.append(PathKey(Transport(f"network {number}", DATAGRAMS), f"responder {number}"))
            self.back.append(PathKey(Transport(f"network {number}", DATAGRAMS), f"initiator {number}"))
        self.works = [True] * count
        self.now = 0.0
        self.under_way: list[tuple[float, Session, PathKey, bytes]] = []

    def run(self, until: float) -> None:
        for _ in range(20_000):
            self.flush()
            times = [at for at, *_ in self.under_way]
            times += [at for end in self.ends if (at := end.next_timeout()) is not None]
            at = min(times, default=until + 1)
            if at > until:
                break
            self.now = max(self.now, at)
            arrived = [entry for entry in self.under_way if entry[0] <= self.now]
            self.under_way = [entry for entry in self.under_way if entry[0] > self.now]
            for _, end, key, data in arrived:
                deliver(end, data, now=self.now, path=key)
            for end in self.ends:
                end.handle_timeout(self.now)
        else:
            raise AssertionError(f"somebody spins at {self.now}: {[end.next_timeout() for end in self.ends]}")
        self.now = until

    def flush(self) -> None:
        for end, other, own, others in (
            (self.initiator, self.responder, self.there, self.back),
            (self.responder, self.initiator, self.back, self.there),
        ):
            for key, train in end.trains_to_send(self.now):
                number = own.index(key)
                if self.works[number]:
                    self.under_way += [
                        (self.now + 0.02, other, others[number], bytes(segment)) for segment in train.segments()
                    ]

    @property
    def ends(self) -> tuple[Session, Session]:
        return self.initiator, self.responder

    @property
    def used(self) -> tuple[int, int]:
        """The networks that the initiator and the responder send over."""
        return self.there.index(self.initiator.path), self.back.index(self.responder.path)

    def say(self, data: bytes) -> None:
        """Let the responder say something."""
        self.responder.send_datagram(data)

    def heard(self) -> list[bytes]:
        return [event.data for event in self.initiator.events() if isinstance(event, events.DatagramReceived)]


def test_an_initiator_without_a_path_comes_back_by_another() -> None:
    networks = Networks()
    networks.run(1.0)
    networks.works[0] = False
    networks.initiator.path_lost(networks.there[0], "unplugged", 1.0)
    networks.responder.path_lost(networks.back[0], "unplugged", 1.0)
    networks.initiator.open_stream()
    networks.initiator.write(1, b"goes on")
    networks.run(40.0)

    networks.initiator.add_path(networks.there[1], 0, 40.0)
    networks.run(41.0)

    assert networks.used == (1, 1)
    assert networks.responder.read(1, 100) == b"goes on"


def test_a_path_that_is_liked_better_is_used_once_it_answers_and_the_peer_follows() -> None:
    networks = Networks()
    networks.initiator.add_path(networks.there[0], 1, 0.0)
    networks.run(1.0)
    networks.initiator.add_path(networks.there[1], 0, 1.0)

    networks.run(2.0)

    assert networks.used == (1, 1)
    networks.works[0] = False
    networks.say(b"over the new one")
    networks.run(2.1)
    assert networks.heard() == [b"over the new one"]


def test_a_path_that_is_liked_less_is_kept_in_reserve() -> None:
    networks = Networks()
    networks.initiator.add_path(networks.there[0], 0, 0.0)
    networks.initiator.add_path(networks.there[1], 1, 0.0)

    networks.run(20.0)

    assert networks.used == (0, 0)
    assert networks.there[1] in networks.initiator.path_keys


def test_both_ends_leave_a_path_that_dies_and_come_back_when_it_works_again() -> None:
    networks = Networks()
    networks.initiator.add_path(networks.there[0], 0, 0.0)
    networks.initiator.add_path(networks.there[1], 1, 0.0)
    networks.run(5.0)

    networks.works[0] = False
    networks.say(b"lost for the moment")
    networks.run(10.0)
    assert networks.used == (1, 1)
    networks.say(b"over the reserve")
    networks.run(10.1)
    assert networks.heard()[-1] == b"over the reserve"

    networks.works[0] = True
    networks.run(20.0)
    assert networks.used == (0, 0)


def test_a_host_that_says_nobody_listens_moves_the_initiator_at_once() -> None:
    networks = Networks()
    networks.initiator.add_path(networks.there[0], 0, 0.0)
    networks.initiator.add_path(networks.there[1], 1, 0.0)
    networks.run(2.0)

    networks.initiator.path_unreachable(networks.there[0], "connection refused", 2.0)
    networks.run(2.1)

    assert networks.initiator.path == networks.there[1]
    assert networks.initiator.state is State.ACTIVE


def test_the_only_path_that_is_unreachable_ends_the_session_after_a_grace() -> None:
    rogue = Rogue()

    rogue.session.path_unreachable(rogue.home, "connection refused", 1.0)

    assert rogue.session.next_timeout() == pytest.approx(1.0 + 3 * 1.024, abs=0.01)
    rogue.session.handle_timeout(5.0)
    assert rogue.session.events() == [events.SessionEnded(ErrorCode.TIMEOUT, "connection refused", by_peer=False)]


def test_losing_a_reserve_changes_nothing() -> None:
    networks = Networks()
    networks.initiator.add_path(networks.there[0], 0, 0.0)
    networks.initiator.add_path(networks.there[1], 1, 0.0)
    networks.run(2.0)

    networks.initiator.path_lost(networks.there[1], "gone", 2.0)
    networks.run(20.0)

    assert networks.used[0] == 0


def test_an_initiator_that_has_lost_all_tries_each_path_that_it_is_given() -> None:
    networks = Networks(count=3)
    networks.run(1.0)
    networks.initiator.path_lost(networks.there[0], "unplugged", 1.0)
    networks.works[0] = networks.works[1] = False

    networks.initiator.add_path(networks.there[1], 0, 2.0)
    networks.initiator.add_path(networks.there[2], 1, 2.0)
    networks.initiator.path_lost(networks.there[1], "refused", 2.5)
    networks.run(4.0)

    assert networks.used == (2, 2)


def test_the_first_frame_of_each_datagram_says_nothing_of_paths_unless_it_moves() -> None:
    initiator, _, link, _ = pair()
    begin(initiator, 100_000)

    link.run(5.0)

    kinds = {split_frames(crossing.data)[0].type for crossing in (*link.forth.crossed, *link.back.crossed)}
    assert FrameType.PATH not in kinds
