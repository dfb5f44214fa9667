from __future__ import annotations

import gc
import os
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stt_core import events
from stt_core.config import STTConfig
from stt_core.engine.demux import Demux, SessionBegun, SessionEvents, SessionOffered
from stt_core.engine.handshake_events import HandshakeCompleted, HandshakeDropped, HandshakeFailed
from stt_core.engine.paths import Link as Transport
from stt_core.engine.paths import PathKey
from stt_core.engine.status import State
from stt_core.errors import ConnectReason, ErrorCode
from stt_core.identity import Identity
from stt_core.testing.link import ADDRESSES, DATAGRAMS, MESSAGES, Link
from stt_core.testing.sessions import RoguePeer, make_demux, make_half_open
from stt_core.wire.frame import FrameType, encode_frame, split_frames
from stt_core.wire.messages import Disconnect, StreamMode, StreamOpen, encode_data

if TYPE_CHECKING:
    from stt_core.engine.session import Session
    from stt_core.testing.link import End, Event

MIB = 1024 * 1024
TIMEOUT = 10.0  # seconds, of the handshake
RETRY = 0.25  # seconds until a message is repeated


def stands(session: Session, state: State) -> bool:
    """Return whether a session is in a state; asked this way, because it changes between two questions."""
    return session.state is state


class Nodes:
    """Two nodes and what lies between them; an application at each accepts everybody, and reads and echoes streams.

    Sessions appear in ``begun`` of the one that connects, and in ``accepted`` of the other.
    """

    def __init__(self, *, alice: Demux | None = None, bob: Demux | None = None, **conditions: Any) -> None:
        self.alice = alice or make_demux("alice")
        self.bob = bob or make_demux("bob")
        self.link = Link(self.alice, self.bob, on_event=self.handle, **{"latency": 0.02, "mtu": 1472} | conditions)
        self.begun: list[Session] = []
        self.accepted: list[Session] = []
        self.offers: list[HandshakeCompleted] = []
        self.failed: list[HandshakeFailed] = []
        self.told: dict[Session, list[events.Event]] = {}
        self.received: dict[tuple[Session, int], bytearray] = {}
        self.refuse = False
        self.hesitate = False

    def connect(self, expect: bytes | None = None) -> int:
        return self.alice.connect(self.link.path(self.alice), expect, self.link.now)

    def handle(self, end: End, event: Event) -> None:
        assert isinstance(end, Demux)
        match event:
            case SessionBegun(_, session):
                self.begun.append(session)
            case SessionOffered(offer):
                self.offers.append(offer)
                if not self.hesitate:
                    self.decide(end, offer)
            case HandshakeFailed():
                self.failed.append(event)
            case SessionEvents(session, happened):
                self.told.setdefault(session, []).extend(happened)
                for each in happened:
                    if isinstance(each, events.StreamReadable):
                        self.read(end, session, each.stream_id)

    def decide(self, end: Demux, offer: HandshakeCompleted) -> None:
        if self.refuse:
            end.refuse(offer, ErrorCode.REFUSED, "not you", self.link.now)
            return
        session = end.accept(offer, self.link.now)
        if session is not None:
            self.accepted.append(session)

    def read(self, end: Demux, session: Session, stream_id: int) -> None:
        stream = session.stream(stream_id)
        if stream is None:
            return  # over, with all of it read
        data = session.read(stream_id, 10 * MIB)
        self.received.setdefault((session, stream_id), bytearray()).extend(data)
        if session in self.accepted and data:
            session.write(stream_id, data)
        if stream.receiving.at_end:
            session.end_stream(stream_id)
        end.touch(session)

    def established(self, within: float = 5.0) -> tuple[Session, Session]:
        """Connect and wait until both ends have a session."""
        before = len(self.begun), len(self.accepted)
        self.connect()
        self.link.wait_for(
            lambda: (
                len(self.begun) > before[0]
                and self.begun[-1].state is not State.HANDSHAKE
                and len(self.accepted) > before[1]
            ),
            within=within,
        )
        return self.begun[-1], self.accepted[-1]

    def echo(self, session: Session, data: bytes, within: float = 60.0) -> None:
        """Send bytes on a stream and wait until they have come back."""
        stream_id = session.open_stream()
        assert stream_id is not None
        session.write(stream_id, data)
        session.end_stream(stream_id)
        self.alice.touch(session)
        self.link.wait_for(
            lambda: events.StreamForgotten(stream_id) in self.told.get(session, []) if stream_id else None,
            within=within,
        )
        assert self.received[session, stream_id] == data


def drop_types(*types: int) -> Any:
    """Return a rule that drops datagrams whose first frame has one of these types."""
    return lambda data: split_frames(data)[0].type in types


# Handshakes


def test_a_handshake_takes_two_round_trips_and_makes_a_session_at_each_end() -> None:
    nodes = Nodes(latency=0.1)

    initiator, responder = nodes.established()

    assert nodes.link.now == pytest.approx(0.4)
    assert initiator.session_id == responder.session_id
    assert (initiator.is_initiator, responder.is_initiator) == (True, False)
    assert initiator.peer_node_id == Identity.from_seed(b"bob".ljust(32, b".")).node_id
    assert responder.peer_node_id == Identity.from_seed(b"alice".ljust(32, b".")).node_id
    assert nodes.told[responder] == [events.SessionActivated()]


def test_what_a_handshake_has_to_say_can_leave_before_anything_else() -> None:
    nodes = Nodes()
    assert not nodes.alice.has_handshake_output
    nodes.connect()
    assert nodes.alice.has_handshake_output

    [(path, train)] = nodes.alice.handshake_trains(())

    assert path == nodes.link.path(nodes.alice)
    assert [frame.type for frame in split_frames(train.data)] == [FrameType.HANDSHAKE_INIT]
    assert not nodes.alice.has_handshake_output
    assert nodes.alice.drain((), 0.0) == ([], [])


def test_sessions_carry_streams_both_ways() -> None:
    nodes = Nodes(rate=5e6)
    initiator, _ = nodes.established()

    nodes.echo(initiator, os.urandom(300_000))


def test_what_was_written_at_once_leaves_with_the_confirmation() -> None:
    nodes = Nodes()
    nodes.connect()
    nodes.link.wait_for(lambda: nodes.begun)
    session = nodes.begun[0]
    assert stands(session, State.HANDSHAKE)

    nodes.echo(session, b"early")

    assert nodes.link.now < 0.2


@pytest.mark.parametrize("seed", range(5))
def test_a_handshake_survives_a_bad_network(seed: int) -> None:
    nodes = Nodes(loss=0.2, duplication=0.1, reordering=0.3, corruption=0.05, seed=seed)

    initiator, _ = nodes.established(within=TIMEOUT)
    nodes.echo(initiator, os.urandom(20_000))


@pytest.mark.parametrize(
    "lost", [FrameType.HANDSHAKE_INIT, FrameType.HANDSHAKE_CHALLENGE, FrameType.HANDSHAKE_RESPONSE]
)
def test_a_message_of_the_handshake_that_is_lost_is_repeated(lost: FrameType) -> None:
    nodes = Nodes()
    nodes.link.forth.drop = nodes.link.back.drop = lambda data: nodes.link.now < RETRY and drop_types(lost)(data)

    nodes.established()

    assert RETRY < nodes.link.now < 2 * RETRY + 0.1


def test_a_confirmation_that_is_lost_is_repeated_and_makes_no_second_session() -> None:
    nodes = Nodes()
    nodes.link.back.drop = lambda data: nodes.link.now < RETRY and drop_types(FrameType.HANDSHAKE_CONFIRM)(data)
    # The responder's first frames would confirm as well.
    nodes.link.back.outages.append((0.06, RETRY))

    nodes.established()
    nodes.link.run(5.0)

    assert len(nodes.offers) == 1


def test_the_handshake_tells_the_round_trip() -> None:
    nodes = Nodes(latency=0.1)
    initiator, responder = nodes.established()

    for session in (initiator, responder):
        session.ping()
    sent = nodes.link.forth.sent, nodes.link.back.sent
    nodes.alice.touch(initiator)
    nodes.bob.touch(responder)
    nodes.link.forth.loss = nodes.link.back.loss = 1.0
    nodes.link.run(nodes.link.now + 0.9)

    # Without it, the first probe time-out would be after a second.
    assert nodes.link.forth.sent > sent[0] + 1
    assert nodes.link.back.sent > sent[1] + 1


def test_a_sealed_frame_confirms_as_well() -> None:
    nodes = Nodes()
    nodes.link.back.drop = drop_types(FrameType.HANDSHAKE_CONFIRM)
    nodes.connect()
    nodes.link.wait_for(lambda: nodes.accepted)
    [initiator], [responder] = nodes.begun, nodes.accepted

    responder.ping()
    nodes.bob.touch(responder)
    nodes.link.run(30.0)

    assert (initiator.state, responder.state) == (State.ACTIVE, State.ACTIVE)
    assert nodes.failed == []


def test_two_that_call_each_other_get_a_session_each() -> None:
    nodes = Nodes()
    nodes.connect()
    nodes.bob.connect(nodes.link.path(nodes.bob), None, nodes.link.now)

    nodes.link.run(1.0)

    assert len(nodes.begun) == len(nodes.accepted) == 2
    assert {session.state for session in (*nodes.begun, *nodes.accepted)} == {State.ACTIVE}


def test_one_node_in_two_processes_reaches_itself() -> None:
    nodes = Nodes(alice=make_demux("same"), bob=make_demux("same"))

    initiator, _ = nodes.established()
    nodes.echo(initiator, b"hello me")


def test_many_handshakes_at_once_all_come_about() -> None:
    nodes = Nodes()
    for _ in range(40):
        nodes.connect()

    nodes.link.wait_for(lambda: len(nodes.accepted) == 40 and all(each.state is State.ACTIVE for each in nodes.begun))

    assert len({session.session_id for session in nodes.begun}) == 40


# Handshakes that fail


def test_another_seed_fails_by_silence() -> None:
    nodes = Nodes(bob=make_demux("bob", shared_seed=b"the shared seed of somebody else, long enough"))
    key = nodes.connect()

    nodes.link.run(TIMEOUT + 0.1)

    (failed,) = nodes.failed
    assert (failed.key, failed.reason) == (key, ConnectReason.NO_ANSWER)
    assert "seed" in failed.text
    assert nodes.link.back.sent == 0
    assert nodes.bob.statistics.handshakes_dropped == nodes.link.forth.sent
    assert nodes.alice.statistics.handshakes_failed == 1
    assert (nodes.begun, nodes.offers) == ([], [])


def test_nobody_there_fails_by_silence() -> None:
    nodes = Nodes(loss=1.0)
    nodes.connect()

    nodes.link.run(TIMEOUT - 0.1)
    assert nodes.failed == []
    nodes.link.run(TIMEOUT + 0.1)

    assert [failed.reason for failed in nodes.failed] == [ConnectReason.NO_ANSWER]
    assert nodes.alice.next_timeout() is None


def test_another_node_than_the_expected_one_is_told_apart() -> None:
    nodes = Nodes()
    nodes.connect(expect=bytes(32))

    nodes.link.run(1.0)

    assert [failed.reason for failed in nodes.failed] == [ConnectReason.WRONG_PEER]
    assert (nodes.begun, nodes.offers) == ([], [])


def test_the_expected_node_is_taken() -> None:
    nodes = Nodes()
    nodes.connect(expect=Identity.from_seed(b"bob".ljust(32, b".")).node_id)

    nodes.link.run(1.0)

    assert [session.state for session in nodes.begun] == [State.ACTIVE]


def test_a_host_that_says_nobody_listens_fails_the_handshake_at_once() -> None:
    nodes = Nodes(loss=1.0)
    nodes.connect()
    nodes.link.run(0.05)

    nodes.alice.peer_unreachable(nodes.link.path(nodes.alice), "connection refused", nodes.link.now)
    nodes.link.run(0.05)

    assert [(failed.reason, failed.text) for failed in nodes.failed] == [
        (ConnectReason.UNREACHABLE, "connection refused")
    ]


def test_a_peer_that_is_refused_learns_it_and_was_never_in() -> None:
    nodes = Nodes()
    nodes.refuse = True
    nodes.connect()

    nodes.link.run(1.0)

    (session,) = nodes.begun
    assert nodes.told[session] == [events.SessionEnded(ErrorCode.REFUSED, "not you", by_peer=True)]
    assert stands(session, State.CLOSED)
    assert nodes.link.back.sent == 3  # two of CHALLENGE, and the refusal instead of CONFIRM


def test_a_refusal_that_is_lost_is_told_again() -> None:
    nodes = Nodes()
    nodes.refuse = True
    nodes.link.back.drop = lambda data: nodes.link.now < 0.5 and drop_types(FrameType.DISCONNECT)(data)
    nodes.connect()

    nodes.link.run(2.0)

    assert [session.state for session in nodes.begun] == [State.CLOSED]
    assert len(nodes.offers) == 1


def test_a_refused_session_is_forgotten_after_draining() -> None:
    nodes = Nodes()
    nodes.refuse = True
    nodes.connect()
    nodes.link.run(20.0)
    unknown = nodes.bob.statistics.unknown_session

    nodes.link.inject(encode_frame(FrameType.DATA, nodes.begun[0].session_id, 1, 0, 0, bytes(20)), nodes.bob)
    nodes.link.run(20.1)

    assert nodes.bob.statistics.unknown_session == unknown + 1


def test_who_hesitates_too_long_has_nobody_to_accept() -> None:
    nodes = Nodes()
    nodes.hesitate = True
    nodes.connect()
    nodes.link.run(TIMEOUT + 1.0)

    (offer,) = nodes.offers

    assert nodes.bob.accept(offer, nodes.link.now) is None
    assert [failed.reason for failed in nodes.failed] == [ConnectReason.NO_ANSWER]


def test_who_hesitates_a_little_is_waited_for() -> None:
    nodes = Nodes()
    nodes.hesitate = True
    nodes.connect()
    nodes.link.run(TIMEOUT / 2)
    assert stands(nodes.begun[0], State.HANDSHAKE)

    nodes.decide(nodes.bob, nodes.offers[0])
    nodes.link.run(TIMEOUT / 2 + 1.0)

    assert stands(nodes.begun[0], State.ACTIVE)
    nodes.echo(nodes.begun[0], b"hello")


def test_a_session_whose_response_never_arrives_is_dropped() -> None:
    nodes = Nodes()
    nodes.link.forth.drop = drop_types(FrameType.HANDSHAKE_RESPONSE)
    nodes.connect()
    nodes.link.run(1.0)
    (session,) = nodes.begun
    stream_id = session.open_stream()
    assert stream_id is not None
    session.write(stream_id, b"early")
    nodes.alice.touch(session)

    nodes.link.run(TIMEOUT + 1.0)

    assert [failed.session_id for failed in nodes.failed] == [session.session_id]
    assert nodes.alice.next_timeout() is None
    sent = nodes.link.forth.sent
    nodes.alice.touch(session)
    nodes.link.run(TIMEOUT + 2.0)
    assert nodes.link.forth.sent == sent
    assert nodes.alice.next_timeout() is None


def test_a_handshake_that_is_cancelled_ends_without_an_event() -> None:
    nodes = Nodes()
    key = nodes.connect()
    nodes.link.run(0.03)

    nodes.alice.cancel(key, nodes.link.now)
    nodes.link.run(TIMEOUT + 5.0)

    assert (nodes.begun, nodes.failed, nodes.offers) == ([], [], [])
    assert nodes.alice.next_timeout() is None


def test_cancelling_when_there_is_a_session_tells_the_peer() -> None:
    nodes = Nodes()
    key = nodes.connect()
    nodes.link.wait_for(lambda: nodes.begun)

    nodes.alice.cancel(key, nodes.link.now)
    nodes.link.run(5.0)

    assert [session.state for session in (*nodes.begun, *nodes.accepted)] == [State.CLOSED, State.CLOSED]


# Sealed frames that overtake RESPONSE, or the decision


class EarlyBird:
    """An initiator that does not wait, at the door of a node."""

    def __init__(self, bob: Demux) -> None:
        self.bob = bob
        self.transport = Transport("sim://", DATAGRAMS)
        self.table = make_half_open("alice")
        self.table.connect("bob", 0.0)
        ((_, init),) = self.table.datagrams_to_send()
        self.receive(init)
        output, _ = bob.drain((), 0.0)
        for _, train in output:
            for segment in train.segments():
                for frame in split_frames(segment):
                    self.table.receive_frame(frame, "bob", 0.0)
        (completed,) = self.table.events()
        assert isinstance(completed, HandshakeCompleted)
        result = completed.result
        self.response = [datagram for _, datagram in self.table.datagrams_to_send()]
        self.rogue = RoguePeer(
            is_initiator=True,
            session_id=result.session_id,
            secrets=(result.initiator_secret, result.responder_secret),
        )

    def receive(self, *datagrams: bytes, address: object = ADDRESSES[0]) -> None:
        self.bob.receive_messages([(datagram, address) for datagram in datagrams], self.transport, 0.0)

    def offered(self) -> HandshakeCompleted:
        _, happened = self.bob.drain((), 0.0)
        (offered,) = [event for event in happened if isinstance(event, SessionOffered)]
        return offered.offer

    def heard(self) -> list[events.Event]:
        _, happened = self.bob.drain((), 0.0)
        (told,) = [event for event in happened if isinstance(event, SessionEvents)]
        return told.events


def test_frames_that_overtake_the_response_are_kept() -> None:
    bird = EarlyBird(make_demux("bob"))
    bird.receive(bird.rogue.seal(FrameType.DATAGRAM, b"early"))
    bird.receive(*bird.response)

    assert bird.bob.accept(bird.offered(), 0.0) is not None

    assert bird.heard() == [events.SessionActivated(), events.DatagramReceived(b"early")]
    assert bird.bob.statistics.unknown_session == 0


def test_frames_that_come_before_the_decision_are_kept() -> None:
    bird = EarlyBird(make_demux("bob"))
    bird.receive(*bird.response)
    offer = bird.offered()
    bird.receive(bird.rogue.seal(FrameType.DATAGRAM, b"early"))

    session = bird.bob.accept(offer, 0.0)

    assert session is not None
    assert bird.heard() == [events.SessionActivated(), events.DatagramReceived(b"early")]
    assert session.statistics().bytes_received == 44 + 5


def test_no_more_than_sixteen_early_frames_are_kept() -> None:
    bird = EarlyBird(make_demux("bob"))
    bird.receive(*(bird.rogue.seal(FrameType.DATAGRAM, bytes([index])) for index in range(40)))
    bird.receive(*bird.response)

    bird.bob.accept(bird.offered(), 0.0)

    assert len(bird.heard()) == 1 + 16
    assert bird.bob.statistics.unknown_session == 24


def test_early_frames_from_elsewhere_are_not_kept() -> None:
    bird = EarlyBird(make_demux("bob"))
    bird.receive(bird.rogue.seal(FrameType.DATAGRAM, b"early"), address="elsewhere")
    bird.receive(*bird.response)

    bird.bob.accept(bird.offered(), 0.0)

    assert bird.heard() == [events.SessionActivated()]
    assert bird.bob.statistics.unknown_session == 1


def test_early_frames_of_a_peer_that_is_refused_reach_nobody() -> None:
    bird = EarlyBird(make_demux("bob"))
    bird.receive(*bird.response)
    offer = bird.offered()
    bird.receive(bird.rogue.seal(FrameType.DATAGRAM, b"early"))

    bird.bob.refuse(offer, ErrorCode.REFUSED, "not you", 0.0)

    output, happened = bird.bob.drain((), 0.0)
    ((_, kind, _, plaintext),) = bird.rogue.read(output)
    assert (kind, plaintext[0]) == (FrameType.DISCONNECT, ErrorCode.REFUSED)
    (told,) = [event for event in happened if isinstance(event, SessionEvents)]
    assert events.DatagramReceived(b"early") not in told.events


# Strangers


def test_a_reflected_init_is_dropped() -> None:
    nodes = Nodes(record=True)
    nodes.connect()
    nodes.link.run(0.0)
    (init,) = nodes.link.forth.crossed

    nodes.link.inject(init.data, nodes.alice)
    nodes.link.run(0.01)

    assert nodes.alice.statistics.handshakes_dropped == 1
    assert nodes.link.forth.sent == 1


def test_a_replayed_init_is_not_answered() -> None:
    nodes = Nodes(record=True)
    nodes.established()
    init = nodes.link.forth.crossed[0]
    nodes.link.run(1.0)
    sent = nodes.link.back.sent

    for _ in range(10):
        nodes.link.inject(init.data, nodes.bob, source=("10.6.6.6", 6))
    nodes.link.run(1.1)

    assert nodes.link.back.sent == sent
    assert nodes.bob.statistics.handshakes_dropped == 10


def test_a_whole_recorded_session_replayed_makes_no_second_one() -> None:
    nodes = Nodes(record=True)
    initiator, responder = nodes.established()
    nodes.echo(initiator, os.urandom(10_000))
    nodes.link.run(20.0)
    received = responder.statistics().frames_received

    for crossing in nodes.link.forth.crossed:
        if crossing.arrives_at is not None:
            nodes.link.inject(crossing.data, nodes.bob, source=("10.6.6.6", 6))
    nodes.link.run(nodes.link.now + 1.0)

    assert len(nodes.offers) == 1
    assert responder.statistics().frames_received == received
    assert responder.path.address == ADDRESSES[0]


def test_garbage_is_counted_and_not_answered() -> None:
    nodes = Nodes()
    for data in (b"", b"x", b"ST", bytes(1200), os.urandom(1200), b"GET / HTTP/1.1\r\n\r\n"):
        nodes.link.inject(data, nodes.bob)

    nodes.link.run(1.0)

    assert nodes.bob.statistics.malformed == 6
    assert nodes.link.back.sent == 0
    assert nodes.bob.next_timeout() is None


def test_frames_of_unknown_sessions_are_counted_and_not_answered() -> None:
    nodes = Nodes()
    nodes.link.inject(encode_frame(FrameType.DATA, b"unknown!", 1, 0, 0, bytes(100)), nodes.bob)

    nodes.link.run(1.0)

    assert nodes.bob.statistics.unknown_session == 1
    assert nodes.link.back.sent == 0


def test_truncated_messages_of_the_handshake_change_nothing() -> None:
    nodes = Nodes(record=True)
    nodes.established()
    for crossing in nodes.link.forth.crossed[:4]:
        for size in range(0, len(crossing.data), 50):
            nodes.link.inject(crossing.data[:size], nodes.bob)
    sent = nodes.link.back.sent

    nodes.link.run(nodes.link.now)

    assert nodes.link.back.sent == sent
    assert len(nodes.offers) == 1


@settings(max_examples=50)
@given(
    st.lists(
        st.binary(max_size=100)
        | st.builds(
            encode_frame,
            st.integers(1, 255) | st.integers(1, 4),
            st.binary(min_size=8, max_size=8),
            st.integers(0, 2**32 - 1),
            st.integers(0, 2**32 - 1),
            st.integers(0, 255),
            st.binary(max_size=100),
        ),
        max_size=10,
    )
)
def test_never_raises_and_never_answers_whatever_strangers_send(messages: list[bytes]) -> None:
    demux = make_demux("bob")
    transport = Transport("sim://", DATAGRAMS)

    demux.receive_messages([(data, "somewhere") for data in messages], transport, 0.0)
    output, happened = demux.drain((), 0.0)

    assert output == []
    assert all(isinstance(event, HandshakeDropped) for event in happened)
    assert demux.next_timeout() is None


def test_a_flood_of_handshakes_is_bounded() -> None:
    config = STTConfig(half_open_limit=8, half_open_limit_per_address=2)
    bob = make_demux("bob", config=config)
    transport = Transport("sim://", DATAGRAMS)
    for number in range(30):
        table = make_half_open("alice")
        table.connect("bob", 0.0)
        ((_, init),) = table.datagrams_to_send()
        bob.receive_messages([(init, ("10.6.6.6", number // 3))], transport, 0.0)

    output, _ = bob.drain((), 0.0)

    assert len({key.address for key, _ in output}) == 4
    assert sum(len(train.segments()) for _, train in output) == 8 * 2
    assert bob.statistics.handshakes_dropped == 22


def test_a_flood_of_forged_frames_for_a_session_leaves_it_alone() -> None:
    nodes = Nodes()
    initiator, responder = nodes.established()
    for number in range(500):
        forged = encode_frame(FrameType.DATA, responder.session_id, 1, number, number & 3, bytes(100))
        nodes.link.inject(forged, nodes.bob, source=("10.6.6.6", number))

    nodes.echo(initiator, os.urandom(10_000))

    assert responder.path.address == ADDRESSES[0]
    assert responder.statistics().frames_dropped == 500


# Many sessions


def test_one_message_may_hold_frames_of_several_sessions() -> None:
    nodes = Nodes()
    sessions = [nodes.established() for _ in range(3)]
    nodes.link.run(5.0)
    before = [responder.statistics() for _, responder in sessions]
    parts = []
    for index, (initiator, _) in enumerate(sessions):
        for number in range(4):
            initiator.send_datagram(bytes([index, number]))
        ((_, train),) = initiator.trains_to_send(5.0)
        parts.append(bytes(train.data))

    nodes.bob.receive_messages([(b"".join(parts), ADDRESSES[0])], nodes.link.path(nodes.bob).link, 5.0)
    nodes.link.run(5.0)

    for index, (_, responder) in enumerate(sessions):
        received = [each.data for each in nodes.told[responder] if isinstance(each, events.DatagramReceived)]
        assert received == [bytes([index, number]) for number in range(4)]
        assert responder.statistics().bytes_received - before[index].bytes_received == len(parts[index])


def test_runs_of_messages_are_told_apart_by_session_and_by_address() -> None:
    bird = EarlyBird(make_demux("bob"))
    bird.receive(*bird.response)
    session = bird.bob.accept(bird.offered(), 0.0)
    assert session is not None
    seal = bird.rogue.seal
    stranger = RoguePeer(is_initiator=True)
    messages = [
        (seal(FrameType.DATAGRAM, b"1"), ADDRESSES[0]),
        (seal(FrameType.DATAGRAM, b"2") + seal(FrameType.DATAGRAM, b"3"), ADDRESSES[0]),
        (b"garbage", ADDRESSES[0]),
        (seal(FrameType.DATAGRAM, b"4"), "elsewhere"),
        (stranger.seal(FrameType.DATAGRAM, b"x"), "elsewhere"),
        (seal(FrameType.DATAGRAM, b"5"), "elsewhere"),
        (bird.response[0], ADDRESSES[0]),
        (seal(FrameType.DATAGRAM, b"6"), ADDRESSES[0]),
    ]

    bird.bob.receive_messages(messages, bird.transport, 0.0)
    _, happened = bird.bob.drain((), 0.0)

    told = [event for each in happened if isinstance(each, SessionEvents) for event in each.events]
    received = [event.data for event in told if isinstance(event, events.DatagramReceived)]
    assert received == [b"1", b"2", b"3", b"4", b"5", b"6"]
    assert session.statistics().bytes_received == 6 * 45
    assert (bird.bob.statistics.malformed, bird.bob.statistics.unknown_session) == (1, 1)
    assert session.path.address == ADDRESSES[0]


def test_frames_larger_than_the_settings_allow_are_malformed() -> None:
    nodes = Nodes(bob=make_demux("bob", config=STTConfig(max_frame_size=2000)))

    nodes.link.inject(encode_frame(FrameType.DATA, b"whatever", 1, 0, 0, bytes(2000)), nodes.bob)
    nodes.link.run(0.1)

    assert nodes.bob.statistics.malformed == 1


def test_a_quiet_session_costs_nothing_but_its_timer() -> None:
    nodes = Nodes()
    nodes.established()
    nodes.link.run(10.0)
    nodes.alice.drain((), 10.0)

    assert nodes.alice.drain((), 10.0) == ([], [])
    due = nodes.alice.next_timeout()
    assert due is not None
    assert due > 10.0


def clear(nodes: Nodes) -> None:
    """Forget what happened so far, so that only the nodes themselves hold anything."""
    for demux in (nodes.alice, nodes.bob):
        nodes.link.events(demux).clear()
    for kept in (nodes.begun, nodes.accepted, nodes.offers, nodes.told, nodes.received):
        kept.clear()


def test_sessions_that_are_over_are_let_go() -> None:
    nodes = Nodes()
    alive: weakref.WeakSet[Session] = weakref.WeakSet()
    for _ in range(100):
        alive.update(nodes.established())
    nodes.link.run(nodes.link.now + 3.0)
    for session in nodes.begun:
        session.close(0, "", nodes.link.now)
        nodes.alice.touch(session)
    del session
    nodes.link.run(nodes.link.now + 3.0)

    clear(nodes)
    gc.collect()
    assert len(alive) < 100


def test_a_timer_of_what_is_no_more_only_gives_way_to_the_next() -> None:
    nodes = Nodes()
    initiator, _ = nodes.established()
    nodes.link.run(nodes.link.now + 3.0)
    now = nodes.link.now
    initiator.ping()
    nodes.alice.touch(initiator)
    nodes.alice.drain((), now)
    early = nodes.alice.next_timeout()  # the answer is missed
    initiator.close(0, "", now)
    nodes.alice.touch(initiator)
    nodes.alice.drain((), now)
    assert early is not None
    assert nodes.alice.next_timeout() == early

    nodes.alice.handle_timeout(early)

    assert not nodes.alice.has_output
    assert nodes.alice.next_timeout() == initiator.next_timeout()


def test_a_busy_session_leaves_no_heap_of_timers() -> None:
    # Each acknowledgement sets a timer that is sooner than the idle timeout, which then lies behind those of others.
    nodes = Nodes()
    nodes.established()
    busy, _ = nodes.established()

    def objects_after(seconds: float) -> int:
        until = nodes.link.now + seconds
        while nodes.link.now < until:
            busy.send_datagram(b"x")
            nodes.alice.touch(busy)
            nodes.link.run(nodes.link.now + 0.05)
        clear(nodes)
        gc.collect()
        return len(gc.get_objects())

    first = objects_after(5.0)

    assert objects_after(15.0) < first + 150


def test_a_session_that_is_over_is_kept_by_none_of_its_timers() -> None:
    bob = make_demux("bob")
    bird = EarlyBird(bob)
    bird.receive(*bird.response)
    session = bob.accept(bird.offered(), 0.0)
    assert session is not None
    bob.drain((), 0.0)
    first = bob.next_timeout()
    session.close(0, "", 0.0)
    bob.touch(session)
    bob.drain((), 0.0)
    over_at = session.next_timeout()
    assert first is not None
    assert over_at is not None

    bob.handle_timeout(over_at)
    bob.drain((), over_at)
    alive = weakref.ref(session)
    del session, bird
    gc.collect()

    assert alive() is None


# Links


def test_a_blocked_link_is_waited_for_without_spinning() -> None:
    nodes = Nodes()
    initiator, _ = nodes.established()
    transport = initiator.path.link
    nodes.link.run(1.0)
    stream_id = initiator.open_stream()
    assert stream_id is not None
    initiator.write(stream_id, bytes(MIB))
    nodes.alice.touch(initiator)
    initiator.ping()

    wakes = 0
    now = 1.0
    while now < 3.0:
        output, _ = nodes.alice.drain([transport], now)
        assert output == []
        due = nodes.alice.next_timeout()
        assert due is not None
        assert due > now
        now = min(due, 3.0)
        nodes.alice.handle_timeout(now)
        wakes += 1

    assert wakes <= 25
    nodes.alice.link_writable(transport)
    output, _ = nodes.alice.drain((), now)
    assert sum(len(train.data) for _, train in output) > 1200


def test_another_path_is_probed_while_the_link_in_use_is_blocked() -> None:
    # Else a link that takes nothing, but is not lost, would keep the session from a path that works.
    nodes = Nodes()
    initiator, _ = nodes.established()
    blocked = initiator.path
    other = PathKey(Transport("sim://", DATAGRAMS), blocked.address)
    initiator.add_path(blocked, 0, nodes.link.now)
    initiator.add_path(other, 1, nodes.link.now)
    nodes.alice.touch(initiator)
    initiator.ping()

    probed: list[PathKey] = []
    now = nodes.link.now
    for _ in range(100):
        output, _ = nodes.alice.drain([blocked.link], now)
        probed += [key for key, _ in output]
        due = nodes.alice.next_timeout()
        assert due is not None
        now = max(now, due)
        nodes.alice.handle_timeout(now)
        if probed:
            break

    assert set(probed) == {other}
    assert nodes.alice.drain([blocked.link, other.link], now)[0] == []


def test_a_session_on_a_blocked_link_still_times_out() -> None:
    nodes = Nodes()
    initiator, _ = nodes.established()
    now = nodes.link.now
    nodes.alice.touch(initiator)
    while initiator.state is not State.CLOSED and now < 60.0:
        nodes.alice.drain([initiator.path.link], now)
        due = nodes.alice.next_timeout()
        assert due is not None
        now = due
        nodes.alice.handle_timeout(now)

    assert now == pytest.approx(30.0, abs=1.0)
    nodes.alice.drain([], now)
    nodes.alice.link_writable(initiator.path.link)
    assert nodes.alice.drain([], now) == ([], [])


def test_the_end_of_a_session_is_given_once_to_a_link_that_is_blocked() -> None:
    nodes = Nodes()
    initiator, responder = nodes.established()
    now = nodes.link.now
    stream_id = initiator.open_stream()
    assert stream_id is not None
    initiator.write(stream_id, bytes(MIB))
    nodes.alice.touch(initiator)
    assert nodes.alice.drain([initiator.path.link], now)[0] == []

    initiator.close(7, "enough", now)
    nodes.alice.touch(initiator)
    ((_, train),) = nodes.alice.drain([initiator.path.link], now)[0]
    initiator.tell_end_again()
    nodes.alice.touch(initiator)
    assert nodes.alice.drain([initiator.path.link], now)[0] == []

    nodes.bob.receive_messages([(train.data, responder.path.address)], responder.path.link, now)
    _, happened = nodes.bob.drain((), now)
    (told,) = [each for each in happened if isinstance(each, SessionEvents)]
    assert told.events == [events.SessionEnded(7, "enough", by_peer=True)]


def test_a_link_that_is_lost_leaves_its_sessions_waiting_for_another() -> None:
    nodes = Nodes()
    initiator, _ = nodes.established()
    now = nodes.link.now

    nodes.alice.link_lost(initiator.path.link, "unplugged", now)
    nodes.alice.drain((), now)
    for second in range(1, 60):
        nodes.alice.handle_timeout(now + second)
        nodes.alice.drain((), now + second)
    assert stands(initiator, State.ACTIVE)

    nodes.alice.handle_timeout(now + 61)
    _, happened = nodes.alice.drain((), now + 61)
    (told,) = [event for event in happened if isinstance(event, SessionEvents)]
    assert told.events == [events.SessionEnded(ErrorCode.TIMEOUT, "unplugged", by_peer=False)]


def test_a_link_that_is_lost_while_it_was_blocked_is_not_waited_for() -> None:
    nodes = Nodes()
    initiator, _ = nodes.established()
    link = initiator.path.link
    nodes.alice.touch(initiator)
    nodes.alice.drain([link], nodes.link.now)

    nodes.alice.link_lost(link, "unplugged", nodes.link.now)
    nodes.alice.drain((), nodes.link.now)
    nodes.alice.link_writable(link)

    assert nodes.alice.drain((), nodes.link.now) == ([], [])


def test_a_link_that_was_blocked_and_lost_is_let_go() -> None:
    bob = make_demux("bob")
    bird = EarlyBird(bob)
    bird.receive(*bird.response)
    session = bob.accept(bird.offered(), 0.0)
    assert session is not None
    bob.drain([bird.transport], 0.0)
    alive = weakref.ref(bird.transport)

    bob.link_lost(bird.transport, "unplugged", 0.0)
    bob.handle_timeout(100.0)
    bob.drain((), 100.0)

    assert session.state is State.CLOSED
    del session, bird
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize(("capabilities", "after"), [(DATAGRAMS, 2.0), (MESSAGES, 60.0)])
def test_a_peer_that_the_host_calls_unreachable(capabilities: Any, after: float) -> None:
    # On a datagram path the message may be forged: the peer's silence has to agree. A reliable path is gone with it.
    nodes = Nodes(capabilities=capabilities, mtu=10**6)
    initiator, _ = nodes.established()
    now = nodes.link.now
    nodes.alice.drain((), now)
    other = initiator.path._replace(address="somebody else")

    nodes.alice.peer_unreachable(other, "connection refused", now)
    assert nodes.alice.drain((), now) == ([], [])
    nodes.alice.peer_unreachable(initiator.path, "connection refused", now)
    due = now
    while initiator.state is not State.CLOSED:
        nodes.alice.drain((), due)
        timeout = nodes.alice.next_timeout()
        assert timeout is not None
        due = timeout
        nodes.alice.handle_timeout(due)

    assert due - now == pytest.approx(after, abs=1.5)


def test_what_happens_to_an_address_or_a_link_concerns_nobody_else() -> None:
    nodes = Nodes()
    initiator, _ = nodes.established()
    now = nodes.link.now
    away = Transport("away://", MESSAGES)
    nodes.alice.drain((), now)

    nodes.alice.peer_unreachable(initiator.path._replace(address="somebody else"), "connection refused", now)
    nodes.alice.link_lost(away, "unplugged", now)

    assert nodes.alice.drain((), now) == ([], [])
    assert stands(initiator, State.ACTIVE)


def test_a_path_that_came_a_moment_ago_is_lost_with_its_link() -> None:
    nodes = Nodes()
    initiator, _ = nodes.established()
    now = nodes.link.now
    nodes.alice.drain((), now)
    added = initiator.path._replace(link=Transport("away://", MESSAGES))
    initiator.add_path(added, 1, now)
    nodes.alice.touch(initiator)

    nodes.alice.link_lost(added.link, "unplugged", now)

    assert initiator.path_keys == (initiator.path,)


def test_a_peer_that_is_heard_again_is_not_unreachable() -> None:
    nodes = Nodes()
    initiator, responder = nodes.established()
    nodes.alice.peer_unreachable(initiator.path, "forged", nodes.link.now)
    responder.send_datagram(b"I am here")
    nodes.bob.touch(responder)

    nodes.link.run(10.0)

    assert stands(initiator, State.ACTIVE)


def test_a_session_over_a_reliable_link() -> None:
    nodes = Nodes(capabilities=MESSAGES, mtu=10**6)
    initiator, _ = nodes.established()

    nodes.echo(initiator, os.urandom(MIB))


def test_a_disconnect_that_comes_with_the_first_frames_ends_the_session() -> None:
    bird = EarlyBird(make_demux("bob"))
    bird.receive(
        bird.rogue.seal(
            FrameType.STREAM_OPEN,
            StreamOpen(mode=StreamMode.RELIABLE, priority=3, label="", metadata=None).encode(),
            stream_id=1,
        ),
        bird.rogue.seal(FrameType.DATA, encode_data(0, b"all there is"), stream_id=1),
        bird.rogue.seal(FrameType.DISCONNECT, Disconnect(code=0, reason="").encode()),
    )
    bird.receive(*bird.response)

    session = bird.bob.accept(bird.offered(), 0.0)

    assert session is not None
    assert stands(session, State.CLOSED)
    assert bird.heard()[-1] == events.SessionEnded(0, "", by_peer=True)
    assert session.read(1, 100) == b"all there is"


# Turns


def test_sessions_with_too_much_for_one_turn_wait_for_the_next() -> None:
    nodes = Nodes(capabilities=MESSAGES, mtu=10**6)
    sessions = [nodes.established()[0] for _ in range(100)]
    nodes.link.run(nodes.link.now + 1.0)
    now = nodes.link.now
    for session in sessions:
        stream_id = session.open_stream()
        assert stream_id is not None
        session.write(stream_id, bytes(100_000))
        nodes.alice.touch(session)
    sessions[-1].close(0, "said in the first turn", now)

    turns: list[int] = []
    while not turns or nodes.alice.next_timeout() == now:
        assert len(turns) < 100
        nodes.alice.handle_timeout(now)
        output, happened = nodes.alice.drain((), now)
        turns.append(sum(len(train.data) for _, train in output))
        if len(turns) == 1:
            assert any(isinstance(event, SessionEvents) and event.session is sessions[-1] for event in happened)
            assert not nodes.alice.has_output  # time, and not a loop, brings the next turn

    assert all(turn <= MIB + 256 * 1024 for turn in turns)
    assert sum(turns) > 99 * 100_000
    assert all(session.statistics().bytes_sent > 100_000 for session in sessions[:-1])
