from __future__ import annotations

import gc
import os
import tracemalloc
import weakref
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stt_core.config import STTConfig
from stt_core.defaults.suites import SUITES
from stt_core.engine import incoming
from stt_core.engine.half_open import HalfOpenTable
from stt_core.engine.handshake import STTHandshake
from stt_core.engine.handshake_events import (
    HandshakeCompleted,
    HandshakeConfirmed,
    HandshakeDropped,
    HandshakeFailed,
)
from stt_core.engine.incoming import (
    MAX_ADDRESSES,
    MAX_EARLY_FRAMES,
    MAX_EARLY_SIZE,
    NonceMemory,
)
from stt_core.errors import ConfigError, ConnectReason
from stt_core.identity import Identity
from stt_core.seeds import Keyring
from stt_core.wire.frame import FrameType, RawFrame, encode_frame, split_frames
from stt_core.wire.messages import Parameters

if TYPE_CHECKING:
    from collections.abc import Hashable

    from stt_core.engine.handshake_events import HandshakeEvent

KEYRING = Keyring.from_seeds(b"the shared seed of the group of this test")
STRANGERS = Keyring.from_seeds(b"the shared seed of some other group")
ALICE = Identity.from_seed(b"the node seed of alice, 32 bytes long")
BOB = Identity.from_seed(b"the node seed of bob, also 32 bytes long")
PARAMETERS = Parameters(credit=(1000, 100, 10), idle=30_000, max_frame=65_536)
TIMEOUT = 10.0
INIT, CHALLENGE, RESPONSE, CONFIRM = range(1, 5)


class Node:
    """A table, the clock that it is told, what it drew, sent and said."""

    def __init__(self, identity: Identity, address: str, **changes: Any) -> None:
        self.address = address
        self.drawn = 0
        self.taken: set[bytes] = set()
        self.said: list[HandshakeEvent] = []
        self.sent: list[tuple[Hashable, bytes]] = []
        options: dict[str, Any] = {
            "keyring": KEYRING,
            "config": STTConfig(),
            "suites": {number: SUITES[number] for number in (1, 2)},
            "parameters": PARAMETERS,
            "is_session_id_taken": self.taken.__contains__,
        }
        self.table = HalfOpenTable(
            identity=identity,
            random=self.draw,
            **options | changes,
        )

    def draw(self, size: int) -> bytes:
        self.drawn += 1
        return os.urandom(size)

    def receive(self, datagram: bytes, path: Hashable, now: float) -> None:
        for frame in split_frames(datagram):
            self.table.receive_frame(frame, path, now)

    def drain(self) -> list[tuple[Hashable, bytes]]:
        """Return what is to be sent, having checked what holds for all of it."""
        datagrams = self.table.datagrams_to_send()
        assert all(len(datagram) <= 1200 for _, datagram in datagrams)
        assert self.table.datagrams_to_send() == []
        self.sent += datagrams
        self.hear()
        return datagrams

    def hear(self) -> None:
        self.said += self.table.events()
        assert self.table.events() == []

    def events(self, kind: type) -> list[Any]:
        self.hear()
        return [event for event in self.said if isinstance(event, kind)]

    def dropped(self) -> list[str]:
        return [event.reason for event in self.events(HandshakeDropped)]


def alice(**changes: Any) -> Node:
    return Node(ALICE, "alice", **changes)


def bob(**changes: Any) -> Node:
    return Node(BOB, "bob", **changes)


def kinds(datagrams: list[tuple[Hashable, bytes]]) -> list[int]:
    return [split_frames(datagram)[0].type for _, datagram in datagrams]


def deliver(sender: Node, receiver: Node, now: float) -> list[tuple[Hashable, bytes]]:
    datagrams = sender.drain()
    for _, datagram in datagrams:
        receiver.receive(datagram, sender.address, now)
    return datagrams


def accept_all(node: Node) -> None:
    for event in node.events(HandshakeCompleted):
        if event.key is None:
            node.table.accept(event.result.session_id)


def exchange(one: Node, other: Node, now: float) -> None:
    """Deliver everything, and what comes of it, until both are silent; each accepts what the other began."""
    while deliver(one, other, now) or deliver(other, one, now):
        accept_all(one)
        accept_all(other)


def stepped(now: float = 0.0) -> tuple[Node, Node, list[bytes], list[bytes]]:
    """Return alice and bob, half-way: her INIT and his CHALLENGE, which is on its way."""
    one, other = alice(), bob()
    one.table.connect("bob", now)
    init = [datagram for _, datagram in deliver(one, other, now)]
    challenge = [datagram for _, datagram in other.drain()]
    return one, other, init, challenge


# The round trip


def test_both_ends_tell_the_round_trip_of_the_handshake() -> None:
    one, other, _, challenge = stepped(now=0.0)

    for datagram in challenge:
        one.receive(datagram, "bob", 0.1)
    deliver(one, other, 0.25)

    assert [event.round_trip for event in one.events(HandshakeCompleted)] == [0.1]
    assert [event.round_trip for event in other.events(HandshakeCompleted)] == [0.25]


def test_what_was_repeated_tells_no_round_trip() -> None:
    # Nobody knows which INIT the CHALLENGE answers, nor which CHALLENGE the RESPONSE.
    one, other, _, challenge = stepped(now=0.0)
    one.table.handle_timeout(0.25)
    deliver(one, other, 0.3)

    for datagram in challenge:
        one.receive(datagram, "bob", 0.31)
    deliver(one, other, 0.4)

    assert [event.round_trip for event in one.events(HandshakeCompleted)] == [None]
    assert [event.round_trip for event in other.events(HandshakeCompleted)] == [None]


def response_of(one: Node, challenge: list[bytes], now: float = 0.0) -> list[bytes]:
    for datagram in challenge:
        one.receive(datagram, "bob", now)
    return [datagram for _, datagram in one.drain()]


# A handshake without trouble


def test_both_sides_complete_and_the_initiator_learns_that_it_is_accepted() -> None:
    one, other = alice(), bob()

    key = one.table.connect("bob", now=0.0)
    exchange(one, other, now=0.0)

    mine, confirmed = one.said
    (theirs,) = other.said
    assert isinstance(mine, HandshakeCompleted)
    assert isinstance(theirs, HandshakeCompleted)
    assert (mine.key, mine.path, theirs.key, theirs.path) == (key, "bob", None, "alice")
    assert confirmed == HandshakeConfirmed(key, mine.result.session_id)
    assert mine.result.session_id == theirs.result.session_id
    assert mine.result.initiator_secret == theirs.result.initiator_secret
    assert (mine.result.peer_node_id, theirs.result.peer_node_id) == (BOB.node_id, ALICE.node_id)
    assert kinds(one.sent) == [INIT, RESPONSE, RESPONSE]
    assert kinds(other.sent) == [CHALLENGE, CHALLENGE, CONFIRM]


def test_nothing_is_left_once_the_time_outs_are_over() -> None:
    one, other = alice(), bob()
    one.table.connect("bob", now=0.0)
    exchange(one, other, now=0.0)

    assert one.table.next_timeout() is None
    assert other.table.next_timeout() == 1.0  # the ephemeral keys
    other.table.handle_timeout(1.0)
    assert other.table.next_timeout() == TIMEOUT  # the CONFIRM for repeated RESPONSEs
    other.table.handle_timeout(TIMEOUT)
    assert other.table.next_timeout() is None
    assert repr(one.table) == repr(other.table) == "<HalfOpenTable 0 outgoing, 0 incoming>"


def test_the_initiator_may_use_the_session_right_behind_response() -> None:
    one, _, _, challenge = stepped()

    response = response_of(one, challenge)

    assert [split_frames(datagram)[0].type for datagram in response] == [RESPONSE, RESPONSE]
    assert len(one.events(HandshakeCompleted)) == 1
    assert one.events(HandshakeConfirmed) == []


def test_both_sides_may_begin_at_a_time() -> None:
    one, other = alice(), bob()

    one.table.connect("bob", now=0.0)
    other.table.connect("alice", now=0.0)
    exchange(one, other, now=0.0)

    for node in (one, other):
        assert sorted(event.result.is_initiator for event in node.events(HandshakeCompleted)) == [False, True]
        assert len(node.events(HandshakeConfirmed)) == 1


def test_suites_without_post_quantum_exchange_work_where_both_sides_allow_them() -> None:
    options = {"config": STTConfig(require_post_quantum=False), "suites": {3: SUITES[3]}}
    one, other = alice(**options), bob(**options)

    one.table.connect("bob", now=0.0)
    exchange(one, other, now=0.0)

    assert [event.result.suite for event in one.events(HandshakeCompleted)] == [3]


def test_a_table_without_suites_is_refused() -> None:
    with pytest.raises(ConfigError, match="0 suites"):
        bob(suites={3: SUITES[3]})


def test_an_expected_node_id_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(ConfigError):
        alice().table.connect("bob", now=0.0, expect=b"bob")


# Loss


def test_init_and_response_are_repeated_after_a_quarter_second_doubling_until_the_time_out() -> None:
    one, _, init, challenge = stepped()
    times = []
    while (now := one.table.next_timeout()) is not None and now < 3:
        one.table.handle_timeout(now)
        times.append(now)
        assert [datagram for _, datagram in one.drain()] == init
    response = response_of(one, challenge, now=3.0)
    while (now := one.table.next_timeout()) is not None and not one.events(HandshakeFailed):
        one.table.handle_timeout(now)
        repeated = [datagram for _, datagram in one.drain()]
        assert repeated == (response if now < TIMEOUT else [])
        times.append(now)

    assert times == [0.25, 0.75, 1.75, 3.25, 3.75, 4.75, 6.75, 10.0]


def test_a_timer_that_comes_early_does_nothing() -> None:
    one, other, _, _ = stepped()

    for node in (one, other):
        node.table.handle_timeout(0.2)
        assert node.drain() == []


@pytest.mark.parametrize("lost", range(7))
def test_each_lost_datagram_is_made_up_for(lost: int) -> None:
    one, other = alice(), bob()
    nodes = {"alice": one, "bob": other}
    key = one.table.connect("bob", now=0.0)
    now, count = 0.0, 0
    while not one.events(HandshakeConfirmed):
        under_way = [(node.address, path, datagram) for node in nodes.values() for path, datagram in node.drain()]
        for source, path, datagram in under_way:
            if count != lost:
                nodes[str(path)].receive(datagram, source, now)
            count += 1
        accept_all(other)
        if not under_way:
            now = min(time for time in (one.table.next_timeout(), other.table.next_timeout()) if time is not None)
            one.table.handle_timeout(now)
            other.table.handle_timeout(now)

    assert now <= 1.0
    assert one.events(HandshakeConfirmed)[0].key == key
    assert len(other.events(HandshakeCompleted)) == 1


@settings(max_examples=30)
@given(st.randoms(use_true_random=False), st.floats(0.0, 0.4))
def test_a_link_that_loses_repeats_and_reorders_does_not_keep_them_apart(random: Any, loss: float) -> None:
    one, other = alice(), bob()
    nodes = {"alice": one, "bob": other}
    one.table.connect("bob", now=0.0)
    now = 0.0
    while not (one.events(HandshakeConfirmed) or one.events(HandshakeFailed)):
        under_way = [(node.address, path, datagram) for node in nodes.values() for path, datagram in node.drain()]
        under_way += [item for item in under_way if random.random() < 0.2]
        random.shuffle(under_way)
        for source, path, datagram in under_way:
            if random.random() >= loss:
                nodes[str(path)].receive(datagram, source, now)
        accept_all(other)
        if not under_way:
            now = min(time for time in (one.table.next_timeout(), other.table.next_timeout()) if time is not None)
            one.table.handle_timeout(now)
            other.table.handle_timeout(now)

    assert len(other.events(HandshakeCompleted)) <= 1
    if one.events(HandshakeConfirmed):
        (mine,), (theirs,) = one.events(HandshakeCompleted), other.events(HandshakeCompleted)
        assert mine.result.responder_secret == theirs.result.responder_secret
    if not loss:
        assert one.events(HandshakeConfirmed)


def test_repeated_messages_are_answered_byte_for_byte() -> None:
    one, other, init, challenge = stepped()

    other.receive(init[0], "alice", 0.3)
    assert [datagram for _, datagram in other.drain()] == challenge

    response = response_of(one, challenge)
    for datagram in response:
        other.receive(datagram, "alice", 0.4)
    accept_all(other)
    ((_, confirm),) = other.drain()
    for now in (0.5, 1.0, 9.9):
        for datagram in response:
            other.receive(datagram, "alice", now)
        assert other.drain() == [("alice", confirm)]
    assert len(other.events(HandshakeCompleted)) == 1


def test_repeated_challenges_and_confirms_change_nothing() -> None:
    one, other, _, challenge = stepped()
    for datagram in response_of(one, challenge):
        other.receive(datagram, "alice", 0.0)
    accept_all(other)
    ((_, confirm),) = other.drain()
    said = len(one.said)

    response_of(one, challenge)
    for _ in range(3):
        one.receive(confirm, "bob", 0.0)
    one.drain()

    assert [type(event) for event in one.said[said:]] == [HandshakeConfirmed]
    assert one.table.next_timeout() is None


def test_a_repeated_response_is_no_longer_answered_after_the_time_out() -> None:
    one, other, _, challenge = stepped()
    response = response_of(one, challenge)
    for datagram in response:
        other.receive(datagram, "alice", 0.0)
    accept_all(other)
    other.drain()

    other.table.handle_timeout(TIMEOUT)
    for datagram in response:
        other.receive(datagram, "alice", TIMEOUT)

    assert other.drain() == []


def test_a_fragment_that_is_not_the_end_of_the_repeated_response_gets_no_confirm() -> None:
    one, other, _, challenge = stepped()
    response = response_of(one, challenge)
    for datagram in response:
        other.receive(datagram, "alice", 0.0)
    accept_all(other)
    other.drain()

    forged = response[1][:-5] + bytes([response[1][-5] ^ 1]) + response[1][-4:]
    for datagram in (response[0], forged):
        other.receive(datagram, "alice", 0.5)
    assert other.drain() == []
    other.receive(response[1], "somewhere else", 0.5)
    assert other.drain() == []


def test_a_sealed_frame_that_opened_counts_as_confirm() -> None:
    one, _, _, challenge = stepped()
    response_of(one, challenge)
    (completed,) = one.events(HandshakeCompleted)

    one.table.confirmed(bytes(8), now=0.1)
    assert one.table.next_timeout() is not None
    one.table.confirmed(completed.result.session_id, now=0.1)

    assert one.table.next_timeout() is None
    assert one.events(HandshakeConfirmed) == []
    one.table.confirmed(completed.result.session_id, now=0.2)


# Ends without a session


def test_silence_ends_with_no_answer_and_the_usual_causes() -> None:
    one = alice()
    key = one.table.connect("bob", now=5.0)
    while (now := one.table.next_timeout()) is not None:
        one.table.handle_timeout(now)

    (failed,) = one.events(HandshakeFailed)
    assert (failed.key, failed.path, failed.reason, failed.session_id) == (key, "bob", ConnectReason.NO_ANSWER, None)
    for cause in ("10 s", "another seed", "address is wrong", "port is blocked"):
        assert cause in failed.text
    assert now is None
    assert repr(one.table) == "<HalfOpenTable 0 outgoing, 0 incoming>"


def test_a_peer_that_falls_silent_after_its_proof_ends_the_session_too() -> None:
    one, _, _, challenge = stepped()
    response_of(one, challenge)

    one.table.handle_timeout(TIMEOUT)

    (completed,), (failed,) = one.events(HandshakeCompleted), one.events(HandshakeFailed)
    assert failed.reason is ConnectReason.NO_ANSWER
    assert failed.session_id == completed.result.session_id
    assert "fell silent" in failed.text


def test_the_text_of_no_answer_tells_what_was_refused() -> None:
    one, _, _, challenge = stepped()
    damaged = [challenge[0], challenge[1][:-10] + bytes(6) + challenge[1][-4:]]
    response_of(one, damaged)

    one.table.handle_timeout(TIMEOUT)

    (failed,) = one.events(HandshakeFailed)
    assert "CHALLENGE does not open" in failed.text
    assert any("CHALLENGE does not open" in reason for reason in one.dropped())


def test_another_seed_looks_like_nobody() -> None:
    one, other = alice(keyring=STRANGERS), bob()

    one.table.connect("bob", now=0.0)
    exchange(one, other, now=0.0)
    one.table.handle_timeout(TIMEOUT)

    assert other.sent == []
    assert [failed.reason for failed in one.events(HandshakeFailed)] == [ConnectReason.NO_ANSWER]


def test_another_node_than_the_expected_one_fails_at_once_and_is_told_nothing() -> None:
    one, other = alice(), bob()

    key = one.table.connect("bob", now=0.0, expect=ALICE.node_id)
    exchange(one, other, now=0.0)

    (failed,) = one.events(HandshakeFailed)
    assert (failed.key, failed.reason, failed.session_id) == (key, ConnectReason.WRONG_PEER, None)
    assert BOB.node_id.hex() in failed.text
    assert kinds(one.sent) == [INIT]
    assert one.table.next_timeout() is None
    assert other.events(HandshakeCompleted) == []


def test_the_expected_node_is_taken() -> None:
    one, other = alice(), bob()

    one.table.connect("bob", now=0.0, expect=BOB.node_id)
    exchange(one, other, now=0.0)

    assert len(one.events(HandshakeConfirmed)) == 1


@pytest.mark.parametrize("stage", ["INIT", "RESPONSE"])
def test_a_cancelled_handshake_says_and_sends_nothing_more(stage: str) -> None:
    one, _, _, challenge = stepped()
    if stage == "RESPONSE":
        response_of(one, challenge)
    one.drain()
    said = len(one.said)

    one.table.cancel(1, now=0.1)
    one.table.cancel(1, now=0.1)
    one.table.cancel(999, now=0.1)
    response_of(one, challenge, now=0.2)

    assert one.table.next_timeout() is None
    assert {type(event) for event in one.said[said:]} <= {HandshakeDropped}


def test_a_path_on_which_nobody_is_reached_fails_what_was_begun_there() -> None:
    one = alice(config=STTConfig(half_open_limit_per_address=2))
    keys = [one.table.connect("bob", now=0.0) for _ in range(3)]
    elsewhere = one.table.connect("carol", now=0.0)
    one.drain()

    one.table.path_lost("bob", "connection refused", now=0.1)

    failed = one.events(HandshakeFailed)
    assert sorted(event.key for event in failed) == keys
    assert {(event.reason, event.text) for event in failed} == {(ConnectReason.UNREACHABLE, "connection refused")}
    assert kinds(one.sent) == [INIT] * 3
    one.table.handle_timeout(0.25)
    assert one.drain()[0][0] == "carol"
    one.table.cancel(elsewhere, now=0.3)


# The decision of the responder


def completed_at_responder() -> tuple[Node, Node, list[bytes], bytes]:
    one, other, _, challenge = stepped()
    response = response_of(one, challenge)
    for datagram in response:
        other.receive(datagram, "alice", 0.0)
    (completed,) = other.events(HandshakeCompleted)
    return one, other, response, completed.result.session_id


def test_no_confirm_goes_out_before_the_decision() -> None:
    _, other, response, session_id = completed_at_responder()
    for now in (0.25, 0.75):
        for datagram in response:
            other.receive(datagram, "alice", now)
    assert other.drain() == []
    assert other.dropped() == []

    assert other.table.accept(session_id) is True

    assert kinds(other.drain()) == [CONFIRM]
    assert len(other.events(HandshakeCompleted)) == 1


def test_a_refused_peer_never_gets_confirm() -> None:
    one, other, response, session_id = completed_at_responder()

    other.table.refuse(session_id)
    other.table.refuse(session_id)
    for datagram in response:
        other.receive(datagram, "alice", 0.5)

    assert other.drain() == []
    assert other.table.accept(session_id) is False
    assert one.events(HandshakeConfirmed) == []


def test_a_decision_for_no_handshake_is_told_so() -> None:
    other = bob()

    other.table.refuse(bytes(8))

    assert other.table.accept(bytes(8)) is False


def test_a_decision_that_takes_longer_than_the_time_out_comes_too_late() -> None:
    _, other, _, session_id = completed_at_responder()

    other.table.handle_timeout(TIMEOUT)

    assert other.table.accept(session_id) is False
    assert other.drain() == []


def test_an_init_repeated_while_the_decision_is_awaited_is_not_answered() -> None:
    one, other, init, challenge = stepped()
    for datagram in response_of(one, challenge):
        other.receive(datagram, "alice", 0.0)
    other.drain()

    other.receive(init[0], "alice", 0.3)

    assert other.drain() == []


# Session ids that are taken


def test_an_initiator_whose_session_id_is_taken_begins_again() -> None:
    asked: list[bytes] = []

    def is_taken(session_id: bytes) -> bool:
        asked.append(session_id)
        return len(asked) == 1

    one, other = alice(is_session_id_taken=is_taken), bob()
    key = one.table.connect("bob", now=0.0)
    exchange(one, other, now=0.0)

    assert kinds(one.sent) == [INIT, INIT, RESPONSE, RESPONSE]
    first, second = (split_frames(datagram)[0].session_id for _, datagram in one.sent[:2])
    assert first != second
    assert one.dropped() == ["the session id is taken: the handshake begins again"]
    (completed,), (confirmed,) = one.events(HandshakeCompleted), one.events(HandshakeConfirmed)
    assert [completed.result.session_id] == asked[1:]
    assert (completed.key, confirmed.key) == (key, key)


def test_a_responder_whose_session_id_is_taken_drops_the_handshake() -> None:
    one, other, _, challenge = stepped()
    response = response_of(one, challenge)
    (completed,) = one.events(HandshakeCompleted)
    other.taken.add(completed.result.session_id)

    for datagram in response:
        other.receive(datagram, "alice", 0.0)

    assert other.events(HandshakeCompleted) == []
    assert other.dropped() == ["the session id is taken"]
    assert "0 incoming" in repr(other.table)


# Strangers, floods and replays


def init_of(keyring: Keyring = KEYRING, **changes: Any) -> bytes:
    node = Node(ALICE, "alice", keyring=keyring, **changes)
    node.table.connect("bob", now=0.0)
    ((_, datagram),) = node.drain()
    return datagram


def test_a_stranger_gets_no_answer_leaves_no_state_and_costs_no_key() -> None:
    other = bob()

    for _ in range(50):
        other.receive(init_of(STRANGERS), "stranger", 0.0)

    assert other.drain() == []
    assert other.drawn == 0
    assert other.table.next_timeout() is None
    assert set(other.dropped()) == {"INIT opens with no shared seed of this node"}


def test_an_init_of_1200_bytes_causes_at_most_three_times_that() -> None:
    custom = {f"acme.{number:02}{'x' * 44}": (0x80 + number, True) for number in range(6)}
    largest = attrs.evolve(PARAMETERS, app=bytes(512), custom=custom)
    assert 1000 < len(largest.encode()) <= 1024
    init = init_of()
    other = bob(parameters=largest)
    assert len(init) == 1200

    for number in range(1, 40):
        other.receive(init, "alice", number * 0.1)
        other.drain()
        assert sum(len(datagram) for _, datagram in other.sent) <= 3 * 1200 * number


def test_nothing_but_init_gets_an_answer_from_an_address_that_proved_nothing() -> None:
    one, other, _, challenge = stepped()
    response = response_of(one, challenge)

    for datagram in (*challenge, response[0], response[0], response[1][:-20] + bytes(20)):
        for path in ("alice", "somewhere else"):
            other.receive(datagram, path, 0.1)

    assert other.drain() == []


@pytest.mark.parametrize("waited", [0.0, 5.0, TIMEOUT + 1, 3600.0])
def test_a_replayed_init_gets_no_answer_and_costs_no_public_key_work(waited: float) -> None:
    one, other = alice(), bob()
    one.table.connect("bob", now=0.0)
    init = one.drain()[0][1]
    other.receive(init, "alice", 0.0)
    for _, datagram in other.drain():
        one.receive(datagram, "bob", 0.0)
    exchange(one, other, now=0.0)
    other.table.handle_timeout(waited)
    drawn, sent = other.drawn, len(other.sent)

    for path in ("alice", "mallory"):
        other.receive(init, path, waited)

    other.drain()
    assert (other.drawn, len(other.sent)) == (drawn, sent)
    assert other.dropped() == ["INIT was answered before: a replay"] * 2


def test_a_replayed_init_that_was_never_completed_is_not_answered_after_its_time_out() -> None:
    other, init = bob(), init_of()
    other.receive(init, "alice", 0.0)
    other.drain()
    drawn = other.drawn

    other.table.handle_timeout(TIMEOUT)
    other.receive(init, "alice", TIMEOUT)

    assert other.drain() == []
    assert other.drawn == drawn


def test_as_many_inits_are_remembered_as_configured() -> None:
    other = bob(config=STTConfig(replay_memory=3))
    inits = [init_of() for _ in range(4)]
    for init in inits:
        other.receive(init, "alice", 0.0)
    other.table.handle_timeout(TIMEOUT)
    other.drain()

    answered = []
    for init in reversed(inits):
        other.receive(init, "alice", TIMEOUT)
        answered.append(bool(other.drain()))

    assert answered == [False, False, False, True]


def test_a_nonce_memory_forgets_the_oldest() -> None:
    memory = NonceMemory(2)

    for nonce in (b"1", b"2", b"3"):
        memory.add(nonce)

    assert [nonce in memory for nonce in (b"1", b"2", b"3")] == [False, True, True]


def test_half_open_handshakes_are_limited_in_all() -> None:
    other = bob(config=STTConfig(half_open_limit=3))
    for number in range(5):
        other.receive(init_of(), f"address {number}", 0.0)

    assert kinds(other.drain()) == [CHALLENGE] * 6
    assert other.dropped() == ["3 handshakes are half open"] * 2
    other.table.handle_timeout(TIMEOUT)
    other.receive(init_of(), "address 9", TIMEOUT)
    assert kinds(other.drain()) == [CHALLENGE] * 2


def test_half_open_handshakes_are_limited_by_address() -> None:
    other = bob(config=STTConfig(half_open_limit_per_address=2))
    for _ in range(3):
        other.receive(init_of(), "mallory", 0.0)
    assert other.dropped() == ["2 handshakes are half open from this address"]

    other.receive(init_of(), "alice", 0.0)

    assert len(other.dropped()) == 1


def test_completed_handshakes_do_not_count_against_the_limits() -> None:
    config = STTConfig(half_open_limit=2, half_open_limit_per_address=2)
    one, other = alice(), bob(config=config)

    for number in range(10):
        one.table.connect("bob", now=number * 0.01)
        exchange(one, other, now=number * 0.01)

    assert len(one.events(HandshakeConfirmed)) == 10


def test_confirms_are_kept_for_the_newest_handshakes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "MAX_ANSWERED", 2)
    one, other = alice(), bob()
    for _ in range(3):
        one.table.connect("bob", now=0.0)
        exchange(one, other, now=0.0)
    ends = [datagram for _, datagram in one.sent if len(datagram) < 1200 and kinds([("", datagram)]) == [RESPONSE]]
    confirms = [datagram for _, datagram in other.sent if kinds([("", datagram)]) == [CONFIRM]]

    repeated = []
    for end in ends:
        other.receive(end, "alice", 0.0)
        repeated.append([datagram for _, datagram in other.drain()])

    assert repeated == [[], [confirms[1]], [confirms[2]]]


def test_more_handshakes_than_a_peer_takes_from_one_address_wait_for_their_turn() -> None:
    one, other = alice(), bob()
    keys = [one.table.connect("bob", now=0.0) for _ in range(50)]
    assert kinds(one.table.datagrams_to_send()) == [INIT] * 16
    one.table.handle_timeout(0.25)

    exchange(one, other, now=0.25)

    assert sorted(event.key for event in one.events(HandshakeConfirmed)) == keys
    assert other.dropped() == []
    assert one.table.next_timeout() is None


def test_a_handshake_that_waits_for_its_turn_can_be_cancelled_and_times_out() -> None:
    one = alice(config=STTConfig(half_open_limit_per_address=1))
    first, second, third = (one.table.connect("bob", now=0.0) for _ in range(3))

    one.table.cancel(second, now=1.0)
    assert kinds(one.drain()) == [INIT]
    one.table.handle_timeout(TIMEOUT)

    assert sorted(event.key for event in one.events(HandshakeFailed)) == [first, third]
    assert one.table.next_timeout() is None


def test_the_next_in_line_begins_when_one_is_cancelled() -> None:
    one = alice(config=STTConfig(half_open_limit_per_address=1))
    first, _ = (one.table.connect("bob", now=0.0) for _ in range(2))
    one.drain()

    one.table.cancel(first, now=1.0)

    assert kinds(one.drain()) == [INIT]
    assert one.table.next_timeout() == 1.25


# Memory


class Place:
    """A path that can be watched."""


def run_at(place: Place, one: Node, other: Node, end: str) -> None:
    key = one.table.connect(place, now=0.0)
    ((_, init),) = one.table.datagrams_to_send()
    other.receive(init, place, 0.0)
    other.table.keep_early(sealed(bytes(8)), place)
    if end == "cancelled":
        one.table.cancel(key, now=0.0)
    if end in {"accepted", "refused"}:
        for _, datagram in other.table.datagrams_to_send():
            one.receive(datagram, place, 0.0)
        for _, datagram in one.table.datagrams_to_send():
            other.receive(datagram, place, 0.0)
        (event,) = other.table.events()
        assert isinstance(event, HandshakeCompleted)
        decide = other.table.accept if end == "accepted" else other.table.refuse
        decide(event.result.session_id)


@pytest.mark.parametrize("end", ["accepted", "refused", "silent", "cancelled"])
def test_no_path_is_held_once_its_handshakes_are_over(end: str) -> None:
    one, other = alice(), bob()
    places = [Place() for _ in range(4)]
    watched = [weakref.ref(place) for place in places]
    while places:
        run_at(places.pop(), one, other, end)
    for node in (one, other):
        node.table.handle_timeout(TIMEOUT)
        node.table.datagrams_to_send()
        node.table.events()
        assert node.table.next_timeout() is None

    gc.collect()

    assert [reference() for reference in watched] == [None] * 4


def test_the_memory_of_answered_inits_is_as_large_as_the_settings_say() -> None:
    tracemalloc.start()
    try:
        memory = NonceMemory(65_536)
        for number in range(70_000):
            memory.add(number.to_bytes(32, "big"))
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert size < 12_000_000
    assert (4463).to_bytes(32, "big") not in memory
    assert (4464).to_bytes(32, "big") in memory


# Reflection


def test_an_init_that_is_reflected_to_its_sender_is_dropped() -> None:
    one = alice()
    one.table.connect("mirror", now=0.0)
    ((_, init),) = one.drain()
    drawn = one.drawn

    for path in ("mirror", "somewhere else"):
        one.receive(init, path, 0.0)

    assert one.drain() == []
    assert one.drawn == drawn
    assert all("reflection" in reason for reason in one.dropped())
    assert len(one.dropped()) == 2


def test_an_init_of_this_node_that_is_no_longer_under_way_is_no_reflection() -> None:
    # It leads nowhere, and a set of all nonces ever drawn would have no bound.
    one = alice()
    one.table.cancel(one.table.connect("mirror", now=0.0), now=0.0)
    ((_, init),) = one.drain()

    one.receive(init, "mirror", 0.1)

    assert kinds(one.drain()) == [CHALLENGE] * 2


def test_an_init_under_another_label_than_its_nonce_is_dropped() -> None:
    other, init = bob(), init_of()
    payload = split_frames(init)[0].payload

    other.receive(encode_frame(INIT, bytes(8), 0, 0, 0, payload), "alice", 0.0)
    assert other.drain() == []
    assert other.dropped() == ["INIT has another label than its nonce"]

    other.receive(init, "alice", 0.0)
    assert kinds(other.drain()) == [CHALLENGE] * 2


def test_messages_of_one_direction_are_refused_in_the_other() -> None:
    one, other, init, challenge = stepped()
    response = response_of(one, challenge)

    for datagram in (*init, *response):
        one.receive(datagram, "bob", 0.0)
    for datagram in challenge:
        other.receive(datagram, "alice", 0.0)

    assert one.drain() == []
    assert other.drain() == []
    exchange_rest(other, one, response)


def exchange_rest(other: Node, one: Node, response: list[bytes]) -> None:
    for datagram in response:
        other.receive(datagram, "alice", 0.0)
    accept_all(other)
    deliver(other, one, 0.0)
    assert len(one.events(HandshakeConfirmed)) == 1


# One INIT from several addresses


def test_an_initiator_whose_address_changes_after_init_completes_from_the_new_one() -> None:
    one, other, init, challenge = stepped()
    drawn = other.drawn
    other.receive(init[0], "alice, moved", 0.3)
    assert other.drain() == [("alice, moved", datagram) for datagram in challenge]
    assert other.drawn == drawn

    for datagram in response_of(one, challenge):
        other.receive(datagram, "alice, moved", 0.3)
    accept_all(other)

    assert [event.path for event in other.events(HandshakeCompleted)] == ["alice, moved"]
    assert other.sent[-1][0] == "alice, moved"
    assert "0 incoming" in repr(other.table)


def test_a_copy_of_init_that_arrives_first_does_not_lock_its_sender_out() -> None:
    one, other = alice(), bob()
    one.table.connect("bob", now=0.0)
    ((_, init),) = one.drain()
    other.receive(init, "mallory", 0.0)
    other.drain()

    other.receive(init, "alice", 0.0)
    exchange(one, other, now=0.0)
    exchange(other, one, now=0.0)
    one.table.handle_timeout(0.25)
    exchange(one, other, now=0.25)

    assert len(one.events(HandshakeConfirmed)) == 1
    assert [event.path for event in other.events(HandshakeCompleted)] == ["alice"]


def test_one_init_is_answered_to_a_few_addresses_only() -> None:
    other, init = bob(), init_of()

    for number in range(MAX_ADDRESSES + 3):
        other.receive(init, number, 0.0)

    assert len({path for path, _ in other.drain()}) == MAX_ADDRESSES
    assert len(other.dropped()) == 3


def test_addresses_that_copy_an_init_are_limited_like_others() -> None:
    other = bob(config=STTConfig(half_open_limit_per_address=1))
    other.receive(init_of(), "mallory", 0.0)
    init = init_of()
    other.receive(init, "alice", 0.0)

    other.receive(init, "mallory", 0.0)

    assert other.dropped() == ["1 handshakes are half open from this address"]


def test_another_init_under_the_nonce_of_one_that_is_half_open_is_dropped() -> None:
    nonce = os.urandom(32)

    def init() -> bytes:
        message = STTHandshake(
            identity=ALICE, keyring=KEYRING, is_initiator=True, random=lambda size: nonce if size == 32 else b""
        ).create_hello()
        return encode_frame(INIT, message[6:14], 0, 0, 0, (1168).to_bytes(2, "big") + bytes(2) + message)

    other = bob()
    genuine = init()
    changed = genuine[:-20] + bytes(20)
    other.receive(genuine, "alice", 0.0)
    other.drain()

    for frame in split_frames(changed[:-4] + bytes(4)):
        other.table.receive_frame(frame, "alice", 0.0)

    assert other.drain() == []
    assert other.dropped() == ["INIT has the nonce of another one"]


def test_a_label_is_used_once_at_an_address() -> None:
    label = os.urandom(8)

    def init() -> bytes:
        message = STTHandshake(
            identity=ALICE, keyring=KEYRING, is_initiator=True, random=lambda size: label + os.urandom(size - 8)
        ).create_hello()
        return encode_frame(INIT, label, 0, 0, 0, (1168).to_bytes(2, "big") + bytes(2) + message)

    other = bob()
    other.receive(init(), "alice", 0.0)
    other.receive(init(), "alice", 0.0)
    other.receive(init(), "somewhere else", 0.0)

    assert other.dropped() == ["INIT has the label of another handshake from this address"]
    assert {path for path, _ in other.drain()} == {"alice", "somewhere else"}


# Fragments


def test_fragments_come_in_any_order_and_repeatedly() -> None:
    one, other, _, challenge = stepped()
    response = response_of(one, [challenge[1], challenge[1], challenge[0]])

    for datagram in (response[1], response[1], response[0]):
        other.receive(datagram, "alice", 0.0)

    assert len(other.events(HandshakeCompleted)) == 1


def test_any_message_but_init_may_come_in_fragments_of_any_size() -> None:
    def cut(datagrams: list[bytes]) -> list[bytes]:
        frames = [split_frames(datagram)[0] for datagram in datagrams]
        total = frames[0].payload[:2]
        message = b"".join(frame.payload[4:] for frame in frames)
        return [
            encode_frame(
                frames[0].type, frames[0].session_id, 0, 0, 0, bytes(total) + offset.to_bytes(2, "big") + piece
            )
            for offset in range(0, len(message), 10)
            if (piece := message[offset : offset + 10])
        ]

    one, other, init, challenge = stepped()
    response = response_of(one, cut(challenge))
    for datagram in cut(response):
        other.receive(datagram, "alice", 0.0)
    accept_all(other)
    for datagram in cut([datagram for _, datagram in other.drain()]):
        one.receive(datagram, "bob", 0.0)

    assert len(one.events(HandshakeConfirmed)) == 1
    stranger = bob()
    for datagram in cut(init):
        stranger.receive(datagram, "alice", 0.0)
    assert stranger.drain() == []
    assert stranger.table.next_timeout() is None


def test_a_message_that_does_not_open_is_thrown_away_and_its_repetition_taken() -> None:
    one, other, _, challenge = stepped()
    response_of(one, [challenge[0], challenge[1][:-10] + bytes(6) + challenge[1][-4:]])
    response = response_of(one, challenge)
    for datagram in (response[0], response[1][:-10] + bytes(6) + response[1][-4:]):
        other.receive(datagram, "alice", 0.0)
    assert other.events(HandshakeCompleted) == []

    exchange_rest(other, one, response)


def test_fragments_are_kept_only_for_a_handshake_from_its_address() -> None:
    one, other, _, challenge = stepped()
    for datagram in challenge:
        one.receive(datagram, "mallory", 0.0)
    response = response_of(one, challenge)
    for datagram in response:
        other.receive(datagram, "mallory", 0.0)

    assert other.events(HandshakeCompleted) == []
    assert set(one.dropped()) == {"CHALLENGE to no INIT"}
    assert set(other.dropped()) == {"RESPONSE to no CHALLENGE"}
    exchange_rest(other, one, response)


@pytest.mark.parametrize("kind", [INIT, CHALLENGE, RESPONSE, CONFIRM, FrameType.DATA, 0x05, 0x7F])
@pytest.mark.parametrize(
    ("payload", "header"),
    [
        (b"", {}),
        (bytes(4), {}),
        (b"\x00\x01\x00\x00", {}),
        (b"\x00\x01\x00\x01x", {}),
        (b"\xff\xff\x00\x00x", {}),
        (b"\x04\x90\x00\x00" + bytes(1167), {}),
        (b"\x04\x90\x00\x00" + b"\xff" * 1168, {}),
        (b"\x00\x01\x00\x00x", {"stream_id": 1}),
        (b"\x00\x01\x00\x00x", {"sequence": 1}),
        (b"\x00\x01\x00\x00x", {"flags": 1}),
    ],
    ids=range(10),
)
def test_malformed_frames_are_dropped(kind: int, payload: bytes, header: dict[str, int]) -> None:
    one, other, init, challenge = stepped()
    label = split_frames(init[0])[0].session_id
    fields = {"stream_id": 0, "sequence": 0, "flags": 0} | header
    for node, path in ((one, "bob"), (other, "alice")):
        for session_id in (label, bytes(8)):
            frame = encode_frame(kind, session_id, fields["stream_id"], fields["sequence"], fields["flags"], payload)
            node.receive(frame, path, 0.0)
        assert node.drain() == []

    exchange_rest(other, one, response_of(one, challenge))


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 5),
            st.booleans(),
            st.integers(0, 3),
            st.integers(0, 2600) | st.integers(0, 0xFFFF),
            st.integers(0, 2600) | st.integers(0, 0xFFFF),
            st.binary(max_size=40),
        ),
        max_size=30,
    )
)
def test_never_raises_or_answers_whatever_comes(frames: list[tuple[int, bool, int, int, int, bytes]]) -> None:
    one, other, init, _ = stepped()
    label = split_frames(init[0])[0].session_id

    for kind, known, path, total, offset, data in frames:
        payload = total.to_bytes(2, "big") + offset.to_bytes(2, "big") + data
        frame = encode_frame(kind, label if known else bytes(8), 0, 0, 0, payload)
        for node in (one, other):
            node.receive(frame, ("alice", "bob", "mallory", None)[path], 0.1)

    assert one.drain() == []
    assert other.drain() == []


# Frames that overtake RESPONSE


def sealed(session_id: bytes, number: int = 0, size: int = 100) -> RawFrame:
    return split_frames(encode_frame(FrameType.DATA, session_id, 1, number, 0, bytes([number % 256]) * size))[0]


def test_sealed_frames_that_overtake_response_come_back_with_it() -> None:
    one, other, _, challenge = stepped()
    response = response_of(one, challenge)
    session_id = one.events(HandshakeCompleted)[0].result.session_id
    frames = [sealed(session_id, number) for number in range(3)]

    kept = [other.table.keep_early(frame, "alice") for frame in (*frames, sealed(b"another!"))]
    for datagram in response:
        other.receive(datagram, "alice", 0.0)

    assert kept == [True] * 4
    (completed,) = other.events(HandshakeCompleted)
    assert list(completed.early_frames) == frames


def test_sealed_frames_that_come_during_the_decision_are_kept_too() -> None:
    # A reliable transport repeats nothing, so these would be lost for good.
    _, other, _, session_id = completed_at_responder()
    (completed,) = other.events(HandshakeCompleted)
    frames = [sealed(session_id, number) for number in range(MAX_EARLY_FRAMES + 1)]

    kept = [other.table.keep_early(frame, "alice") for frame in frames]
    assert not other.table.keep_early(sealed(session_id), "mallory")
    other.table.accept(session_id)

    assert kept == [True] * MAX_EARLY_FRAMES + [False]
    assert list(completed.early_frames) == frames[:-1]
    assert not other.table.keep_early(sealed(session_id), "alice")


def test_early_frames_are_copies() -> None:
    one, other, _, challenge = stepped()
    response = response_of(one, challenge)
    session_id = one.events(HandshakeCompleted)[0].result.session_id
    buffer = bytearray(encode_frame(FrameType.DATA, session_id, 1, 0, 0, b"payload"))
    other.table.keep_early(split_frames(buffer)[0], "alice")

    buffer[:] = bytes(len(buffer))
    for datagram in response:
        other.receive(datagram, "alice", 0.0)

    ((frame,),) = [event.early_frames for event in other.events(HandshakeCompleted)]
    assert bytes(frame.payload) == b"payload"
    assert bytes(frame.header[:2]) == b"ST"


def test_early_frames_are_kept_only_from_an_address_with_a_half_open_handshake() -> None:
    one, other, _, _ = stepped()

    assert not other.table.keep_early(sealed(bytes(8)), "mallory")
    assert not one.table.keep_early(sealed(bytes(8)), "bob")
    assert other.table.keep_early(sealed(bytes(8)), "alice")
    other.table.handle_timeout(TIMEOUT)
    assert not other.table.keep_early(sealed(bytes(8)), "alice")


def test_early_frames_are_limited_in_number_and_size() -> None:
    _, other, _, _ = stepped()
    _, another, _, _ = stepped()

    by_number = [other.table.keep_early(sealed(bytes(8), number), "alice") for number in range(20)]
    by_size = [another.table.keep_early(sealed(bytes(8), number, size=8000), "alice") for number in range(6)]

    assert by_number == [True] * MAX_EARLY_FRAMES + [False] * 4
    assert by_size == [True] * (MAX_EARLY_SIZE // 8028) + [False] * 2


def test_early_frames_of_several_handshakes_of_one_address_are_told_apart() -> None:
    one, other = alice(), bob()
    for _ in range(2):
        one.table.connect("bob", now=0.0)
    deliver(one, other, 0.0)
    deliver(other, one, 0.0)
    ids = [event.result.session_id for event in one.events(HandshakeCompleted)]
    for number in range(6):
        other.table.keep_early(sealed(ids[number % 2], number), "alice")

    deliver(one, other, 0.0)

    found = {
        event.result.session_id: [frame.sequence for frame in event.early_frames]
        for event in other.events(HandshakeCompleted)
    }
    assert found == {ids[0]: [0, 2, 4], ids[1]: [1, 3, 5]}


# Ephemeral keys


def test_ephemeral_keys_serve_the_handshakes_of_a_second_and_no_more() -> None:
    other = bob()

    def offered(now: float) -> bytes:
        other.receive(init_of(), now, now)
        first, _ = [split_frames(datagram)[0] for _, datagram in other.drain()]
        return bytes(first.payload[4 + 35 : 4 + 67])

    keys = [offered(now) for now in (0.0, 0.5, 0.999, 1.0, 1.5, 2.0)]

    assert keys[0] == keys[1] == keys[2] != keys[3] == keys[4] != keys[5]
    assert other.table.next_timeout() == 3.0


def test_without_a_lifetime_each_handshake_has_ephemeral_keys_of_its_own() -> None:
    other = bob(config=STTConfig(ephemeral_key_lifetime=0.0))
    for number in range(3):
        other.receive(init_of(), number, 0.0)

    first_fragments = [split_frames(datagram)[0] for _, datagram in other.drain()][::2]

    assert len({bytes(frame.payload[4 + 35 : 4 + 67]) for frame in first_fragments}) == 3


def test_a_handshake_completes_after_the_keys_it_was_offered_were_replaced() -> None:
    one, other, _, challenge = stepped()
    other.table.handle_timeout(1.0)

    exchange_rest(other, one, response_of(one, challenge))


# Secrets


def test_events_and_tables_show_no_secret() -> None:
    one, other = alice(), bob()
    one.table.connect("bob", now=0.0)
    exchange(one, other, now=0.0)
    shown = "".join(map(repr, (one.table, other.table, *one.said, *other.said)))

    for event in one.events(HandshakeCompleted):
        result = event.result
        for secret in (
            result.initiator_secret,
            result.responder_secret,
            result.exporter_secret,
            *KEYRING.pre_shared_keys,
        ):
            assert secret.hex() not in shown
            assert repr(secret)[2:-1] not in shown
