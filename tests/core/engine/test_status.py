from __future__ import annotations

import os

import attrs
import pytest

from stt_core.config import STTConfig
from stt_core.defaults.controllers import CONTROLLERS
from stt_core.engine.status import SessionStatistics, State
from stt_core.testing.link import ADDRESSES, MESSAGES, Link, deliver
from stt_core.testing.sessions import SESSION_ID, Inbox, RoguePeer, make_session, session_pair
from stt_core.wire.frame import FrameType, encode_frame


def test_states_have_the_numbers_of_the_wire_format() -> None:
    assert [(state.name, int(state)) for state in State] == [
        ("INIT", 0),
        ("HANDSHAKE", 1),
        ("ACTIVE", 2),
        ("KEY_ROTATING", 3),
        ("CLOSING", 4),
        ("CLOSED", 5),
    ]


def test_statistics_are_frozen() -> None:
    statistics = make_session(is_initiator=True).statistics()

    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        statistics.streams = 7  # type: ignore[misc]  # what is tested


def test_a_fresh_session_has_done_nothing() -> None:
    session = make_session(is_initiator=True)

    assert session.statistics() == SessionStatistics(
        state=State.ACTIVE,
        path="sim://10.0.0.2:40002",
        bytes_sent=0,
        bytes_received=0,
        frames_sent=0,
        frames_received=0,
        frames_lost=0,
        frames_dropped=0,
        datagrams_dropped=0,
        round_trip=None,
        min_round_trip=None,
        congestion_window=12_000,
        bytes_in_flight=0,
        datagram_size=1200,
        streams=0,
        send_epoch=0,
        receive_epoch=0,
        waiting_for="application",
    )


def test_figures_add_up_at_both_ends() -> None:
    initiator, responder = session_pair()
    link = Link(initiator, responder, latency=0.02, mtu=1472, loss=0.05, on_event=Inbox(), record=True)
    initiator.open_stream()
    initiator.write(1, os.urandom(200_000))

    link.run(15.0)

    sent, received = initiator.statistics(), responder.statistics()
    assert sent.bytes_sent == sum(len(crossing.data) for crossing in link.forth.crossed)
    assert received.bytes_received == sum(
        len(crossing.data) for crossing in link.forth.crossed if crossing.arrives_at is not None
    )
    assert sent.frames_sent > received.frames_received > 140
    assert 0 < sent.frames_lost <= sent.frames_sent - received.frames_received + 20
    assert sent.round_trip == pytest.approx(0.04, abs=0.03)
    assert sent.min_round_trip == pytest.approx(0.04, abs=0.001)
    assert sent.datagram_size == 1472
    assert (sent.streams, received.streams) == (1, 1)
    assert sent.path == f"sim://{ADDRESSES[1][0]}:{ADDRESSES[1][1]}"  # type: ignore[index]  # a pair


def test_frames_that_do_not_open_or_come_again_are_counted_as_dropped() -> None:
    session, rogue = make_session(is_initiator=False), RoguePeer(is_initiator=True)
    frame = rogue.send(session, FrameType.DATAGRAM, b"x")

    deliver(session, frame, encode_frame(FrameType.DATA, SESSION_ID, 1, 9, 0, bytes(40)), now=0.0)

    assert session.statistics().frames_dropped == 2


# Who waits for whom


def test_a_sender_with_nothing_to_say_waits_for_its_application() -> None:
    initiator, responder = session_pair()
    Link(initiator, responder).run(1.0)

    assert initiator.statistics().waiting_for == "application"


def test_a_sender_whose_peer_does_not_read_waits_for_credit() -> None:
    initiator, responder = session_pair(config=STTConfig(stream_credit=1000))
    initiator.open_stream()
    initiator.write(1, bytes(5000))

    Link(initiator, responder).run(1.0)

    assert initiator.statistics().waiting_for == "credit"


def test_a_sender_that_fills_its_window_waits_for_congestion() -> None:
    initiator, responder = session_pair()
    initiator.open_stream()
    initiator.write(1, bytes(100_000))

    Link(initiator, responder, latency=0.1).run(0.0)

    assert initiator.statistics().waiting_for == "congestion"


def test_a_sender_that_spreads_its_bursts_waits_for_pacing() -> None:
    initiator, responder = session_pair(controller=CONTROLLERS["cubic"])
    link = Link(initiator, responder, latency=0.1, mtu=1472, on_event=Inbox())
    initiator.open_stream()
    initiator.write(1, bytes(3_000_000))
    seen = set()

    for step in range(200):
        link.run(step / 100)
        seen.add(initiator.statistics().waiting_for)

    assert "pacing" in seen


def test_a_sender_on_a_reliable_path_waits_for_the_socket() -> None:
    session = make_session(is_initiator=True, capabilities=MESSAGES)
    session.open_stream()
    session.write(1, bytes(3_000_000))

    session.trains_to_send(0.0)

    assert session.statistics().waiting_for == "socket"
    assert session.statistics().congestion_window is None
