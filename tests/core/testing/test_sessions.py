from __future__ import annotations

import pytest

from stt_core import events
from stt_core.config import STTConfig
from stt_core.defaults.suites import SUITES
from stt_core.engine.demux import SessionBegun, SessionOffered
from stt_core.engine.status import State
from stt_core.testing.link import ADDRESSES, MESSAGES, Link
from stt_core.testing.sessions import SESSION_ID, Inbox, RoguePeer, make_demux, make_session, session_pair
from stt_core.wire.frame import FrameType, split_frames


def test_a_pair_is_two_ends_of_one_session() -> None:
    initiator, responder = session_pair()

    assert (initiator.is_initiator, responder.is_initiator) == (True, False)
    assert initiator.session_id == responder.session_id == SESSION_ID
    assert (initiator.path.address, responder.path.address) == ADDRESSES[::-1]
    assert (initiator.state, responder.state) == (State.ACTIVE, State.ACTIVE)


def test_an_initiator_may_still_wait_for_its_confirmation() -> None:
    assert make_session(is_initiator=True, confirmed=False).state is State.HANDSHAKE


def test_each_end_knows_the_settings_of_the_other() -> None:
    initiator, responder = session_pair(
        config=STTConfig(app_parameters=b"initiator", max_streams=1),
        responder_config=STTConfig(app_parameters=b"responder"),
    )

    assert (initiator.peer_app_parameters, responder.peer_app_parameters) == (b"responder", b"initiator")
    assert responder.open_stream() is not None
    assert responder.open_stream() is None


def test_nodes_of_one_name_are_the_same_node() -> None:
    nodes = [make_demux("alice"), make_demux("bob")]
    offers: list[SessionOffered] = []
    link = Link(*nodes, on_event=lambda _, event: offers.append(event) if isinstance(event, SessionOffered) else None)
    nodes[0].connect(link.path(nodes[0]), None, 0.0)
    link.run(0.1)

    (begun,) = [event for event in link.events(nodes[0]) if isinstance(event, SessionBegun)]
    assert begun.session.peer_node_id != offers[0].offer.result.peer_node_id


def test_nodes_of_different_seeds_do_not_meet() -> None:
    alice = make_demux("alice")
    link = Link(alice, make_demux("bob", shared_seed=b"another seed, as long as seeds have to be"))
    alice.connect(link.path(alice), None, 0.0)

    link.run(5.0)

    assert link.events(alice) == []


# The rogue


def test_a_rogue_says_whatever_it_likes() -> None:
    session = make_session(is_initiator=False)
    session.events()
    rogue = RoguePeer(is_initiator=True)

    rogue.send(session, FrameType.DATAGRAM, b"hello", now=1.0)
    rogue.send(session, FrameType.DATAGRAM, b"again", number=7, epoch=1, now=2.0)

    assert session.events() == [
        events.DatagramReceived(b"hello"),
        events.KeysRotated(1, sending=False),
        events.DatagramReceived(b"again"),
    ]
    assert rogue.next_number == 8


def test_a_rogue_sets_every_field_of_a_frame() -> None:
    rogue = RoguePeer(is_initiator=True, session_id=b"an id...")

    (frame,) = split_frames(rogue.seal(0x99, b"plaintext", stream_id=5, number=2**32 + 3, flags=0x84))

    assert (frame.type, frame.session_id, frame.stream_id, frame.sequence, frame.flags) == (
        0x99,
        b"an id...",
        5,
        3,
        0x84,
    )


@pytest.mark.parametrize("is_initiator", [True, False])
def test_a_rogue_reads_what_it_is_told(*, is_initiator: bool) -> None:
    session = make_session(is_initiator=not is_initiator, capabilities=MESSAGES)
    rogue = RoguePeer(is_initiator=is_initiator)
    session.send_datagram(b"hello")

    assert rogue.read(session.trains_to_send(0.0)) == [(0, FrameType.DATAGRAM, 0, b"hello")]


def test_a_rogue_reads_what_comes_under_later_keys() -> None:
    session = make_session(is_initiator=True, capabilities=MESSAGES, config=STTConfig(rotate_after_frames=1))
    rogue = RoguePeer(is_initiator=False)
    link = Link(session, make_session(is_initiator=False, capabilities=MESSAGES), mtu=10**6)
    for _ in range(10):
        session.send_datagram(b"hello")
        session.ping()
        link.run(link.now + 0.2)
    assert session.statistics().send_epoch > 4

    session.send_datagram(b"hello")
    frames = rogue.read(session.trains_to_send(link.now))

    assert frames[-1][1:] == (FrameType.DATAGRAM, 0, b"hello")


def test_a_rogue_does_not_read_what_is_not_for_it() -> None:
    session = make_session(is_initiator=True, capabilities=MESSAGES)
    session.send_datagram(b"hello")

    with pytest.raises(AssertionError, match="does not open"):
        RoguePeer(is_initiator=True).read(session.trains_to_send(0.0))


def test_a_rogue_uses_the_suite_that_it_is_given() -> None:
    session = make_session(is_initiator=True, capabilities=MESSAGES, suite=SUITES[2])
    session.send_datagram(b"hello")

    frames = RoguePeer(is_initiator=False, suite=SUITES[2]).read(session.trains_to_send(0.0))

    assert frames == [(0, FrameType.DATAGRAM, 0, b"hello")]


# The inbox


def test_an_inbox_reads_streams_and_ends_them_in_return() -> None:
    initiator, responder = session_pair()
    inbox = Inbox()
    link = Link(initiator, responder, latency=0.01, on_event=inbox)
    initiator.open_stream()
    initiator.write(1, b"some ")
    link.run(1.0)
    assert inbox.data(responder) == b"some "
    assert not inbox.has_ended(responder)

    initiator.write(1, b"bytes")
    initiator.end_stream(1)
    link.run(2.0)

    assert inbox.data(responder, 1) == b"some bytes"
    assert inbox.has_ended(responder, 1)
    assert (initiator.stream(1), responder.stream(1)) == (None, None)


def test_an_inbox_has_nothing_of_a_stream_that_nobody_wrote_to() -> None:
    assert Inbox().data(make_session(is_initiator=True), 5) == b""


def test_an_inbox_leaves_alone_what_is_no_stream() -> None:
    inbox = Inbox()
    session = make_session(is_initiator=True)

    inbox(session, events.DatagramReceived(b"x"))
    inbox(session, events.StreamReadable(5))
    inbox(make_demux("bob"), events.StreamReadable(5))

    assert inbox.data(session, 5) == b""
