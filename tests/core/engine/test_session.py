from __future__ import annotations

import os
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given, settings
from hypothesis import strategies as st

from stt_core import events
from stt_core.config import STTConfig
from stt_core.defaults.controllers import CONTROLLERS
from stt_core.defaults.suites import SUITES
from stt_core.engine.session import Session
from stt_core.engine.status import State
from stt_core.errors import ErrorCode, LocalError, SessionClosed
from stt_core.interfaces.crypto import TAG_SIZE
from stt_core.testing import strategies
from stt_core.testing.link import DATAGRAMS, MESSAGES, Link, deliver
from stt_core.testing.sessions import SESSION_ID, Inbox, RoguePeer, make_session, session_pair
from stt_core.wire.frame import FrameType, encode_frame, split_frames
from stt_core.wire.messages import (
    Ack,
    CloseKind,
    Credit,
    CreditKind,
    Disconnect,
    Keepalive,
    MessageFragment,
    PathKind,
    PathProbe,
    StreamClose,
    StreamMode,
    StreamOpen,
    encode_data,
    pad,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from stt_core.interfaces.crypto import FrameCipher
    from stt_core.interfaces.transport import Buffer, TransportCapabilities

MIB = 1024 * 1024
OPEN = StreamOpen(mode=StreamMode.RELIABLE, priority=3, label="", metadata=None).encode()


def begin_mtu_search(session: Session) -> None:
    """Send so much that larger datagrams are worth a search."""
    for _ in range(4):
        session.send_datagram(bytes(1100))


def bob(**changes: Any) -> Session:
    """Return the responder's end, whose peer is whoever the test wants; it looks for no larger datagrams."""
    return _one_end(is_initiator=False, **changes)


def alice(**changes: Any) -> Session:
    """Return the initiator's end, likewise."""
    return _one_end(is_initiator=True, **changes)


def _one_end(*, is_initiator: bool, **changes: Any) -> Session:
    config = STTConfig(**{"max_datagram_size": 1200} | changes)
    session = make_session(is_initiator=is_initiator, config=config)
    assert session.events() == [events.SessionActivated()]
    return session


def datagrams_of(session: Session, now: float = 0.0) -> list[bytes]:
    return [bytes(segment) for _, train in session.trains_to_send(now) for segment in train.segments()]


def visible(session: Session) -> tuple[object, ...]:
    """Return all that a session shows, but for the counter of what it dropped."""
    return attrs.evolve(session.statistics(), frames_dropped=0), session.next_timeout(), session.path, session.events()


def stands(session: Session, state: State) -> bool:
    """Return whether a session is in a state; asked this way, because it changes between two questions."""
    return session.state is state


def ended(session: Session) -> events.SessionEnded:
    (event,) = [event for event in session.events() if isinstance(event, events.SessionEnded)]
    return event


def transfer(link: Link, sender: Session, receiver: Session, data: bytes, within: float = 60.0) -> float:
    """Send bytes on a fresh stream of a link whose application is an inbox; return the seconds that it took."""
    inbox = link.on_event
    assert isinstance(inbox, Inbox)
    begun_at = link.now
    stream_id = sender.open_stream()
    assert stream_id is not None
    assert sender.write(stream_id, data)
    sender.end_stream(stream_id)
    link.wait_for(lambda: inbox.has_ended(receiver, stream_id), within=within)
    assert inbox.data(receiver, stream_id) == data
    return link.now - begun_at


# What an outsider does changes nothing


def test_a_replayed_datagram_changes_nothing() -> None:
    sender, receiver = alice(), bob()
    sender.send_datagram(b"pay 100")
    (datagram,) = datagrams_of(sender)
    deliver(receiver, datagram, now=0.0)
    assert receiver.events() == [events.DatagramReceived(b"pay 100")]
    before = visible(receiver)

    deliver(receiver, datagram, now=1.0)
    deliver(receiver, datagram, datagram, now=2.0)

    assert visible(receiver) == before
    assert receiver.statistics().frames_dropped == 3


def test_a_replay_in_the_same_burst_is_taken_once() -> None:
    sender, receiver = alice(), bob()
    sender.send_datagram(b"pay 100")
    (datagram,) = datagrams_of(sender)

    deliver(receiver, datagram, datagram, now=0.0)

    assert receiver.events() == [events.DatagramReceived(b"pay 100")]


def test_a_replay_from_another_address_moves_nothing() -> None:
    sender, receiver = alice(), bob()
    sender.send_datagram(b"hello")
    (datagram,) = datagrams_of(sender)
    deliver(receiver, datagram, now=0.0)
    receiver.events()
    before = visible(receiver)

    deliver(receiver, datagram, now=0.0, path=receiver.path._replace(address=("6.6.6.6", 6)))

    assert visible(receiver) == before


def test_a_frame_from_before_the_replay_window_is_refused() -> None:
    receiver, rogue = bob(), RoguePeer(is_initiator=True)
    old = rogue.seal(FrameType.DATAGRAM, b"old", number=5)
    rogue.send(receiver, FrameType.DATAGRAM, b"new", number=5 + 65_536)
    receiver.events()

    deliver(receiver, old, now=0.0)

    assert receiver.events() == []
    assert receiver.statistics().frames_dropped == 1


def test_a_late_frame_inside_the_replay_window_is_taken() -> None:
    receiver, rogue = bob(), RoguePeer(is_initiator=True)
    old = rogue.seal(FrameType.DATAGRAM, b"old", number=5)
    rogue.send(receiver, FrameType.DATAGRAM, b"new", number=5 + 65_000)
    receiver.events()

    deliver(receiver, old, now=0.0)

    assert receiver.events() == [events.DatagramReceived(b"old")]


@pytest.mark.parametrize("is_initiator", [True, False])
def test_a_reflected_datagram_changes_nothing(*, is_initiator: bool) -> None:
    session = alice() if is_initiator else bob()
    session.send_datagram(b"to the other end")
    stream_id = session.open_stream()
    assert stream_id is not None
    session.write(stream_id, b"data")
    datagrams = datagrams_of(session)
    before = visible(session)

    deliver(session, *datagrams, now=0.0)

    assert visible(session) == before


def test_truncated_datagrams_change_nothing() -> None:
    sender, receiver = alice(), bob()
    sender.send_datagram(b"a datagram of some size")
    (datagram,) = datagrams_of(sender)
    before = visible(receiver)

    for size in range(len(datagram)):
        deliver(receiver, datagram[:size], now=0.0)

    assert visible(receiver) == before
    deliver(receiver, datagram, now=0.0)
    assert receiver.events() == [events.DatagramReceived(b"a datagram of some size")]


def test_a_frame_of_another_session_with_the_same_id_changes_nothing() -> None:
    receiver = bob()
    stranger = RoguePeer(is_initiator=True, secrets=(bytes(32), bytes(32)))
    before = visible(receiver)

    stranger.send(receiver, FrameType.DISCONNECT, Disconnect(code=0, reason="").encode())

    assert visible(receiver) == before
    assert receiver.statistics().frames_dropped == 1


def test_a_frame_sealed_for_one_stream_does_not_open_on_another() -> None:
    receiver, rogue = bob(), RoguePeer(is_initiator=True)
    frame = bytearray(rogue.seal(FrameType.DATA, encode_data(0, b"data"), stream_id=1))
    frame[11:15] = (3).to_bytes(4, "big")
    before = visible(receiver)

    deliver(receiver, bytes(frame), now=0.0)

    assert visible(receiver) == before


@pytest.mark.parametrize("flags", [0x04, 0x80, 0xFC])
def test_a_frame_with_other_flags_than_the_epoch_is_dropped_before_opening(flags: int) -> None:
    receiver, rogue = bob(), RoguePeer(is_initiator=True)
    frame = rogue.seal(FrameType.DATAGRAM, b"sealed with these very flags", flags=flags)
    before = visible(receiver)

    deliver(receiver, frame, now=0.0)

    assert visible(receiver) == before


def test_crypto_metadata_that_the_suite_does_not_have_is_dropped() -> None:
    receiver, rogue = bob(), RoguePeer(is_initiator=True)
    (raw,) = split_frames(rogue.seal(FrameType.DATAGRAM, b"x"))
    frame = encode_frame(raw.type, raw.session_id, 0, raw.sequence, raw.flags, bytes(raw.payload), b"metadata")
    before = visible(receiver)

    deliver(receiver, frame, now=0.0)

    assert visible(receiver) == before


def test_a_forged_disconnect_ends_nothing() -> None:
    receiver = bob()
    payload = Disconnect(code=0, reason="go away").encode()
    forged = encode_frame(FrameType.DISCONNECT, SESSION_ID, 0, 0, 0, payload + bytes(16))

    deliver(receiver, forged, now=0.0)

    assert stands(receiver, State.ACTIVE)
    assert receiver.statistics().frames_dropped == 1


def test_forgeries_do_not_keep_a_session_alive() -> None:
    receiver = bob()
    forged = encode_frame(FrameType.KEEPALIVE, SESSION_ID, 0, 0, 0, bytes(24))

    for second in range(30):
        deliver(receiver, forged, now=float(second))
        receiver.handle_timeout(float(second))
    receiver.handle_timeout(30.0)

    assert ended(receiver).code == ErrorCode.TIMEOUT


def test_nothing_is_answered_to_what_does_not_open() -> None:
    receiver = bob()
    forged = [encode_frame(FrameType.DATA, SESSION_ID, 1, number, 0, bytes(100)) for number in range(100)]
    datagrams_of(receiver)

    deliver(receiver, *forged, now=0.0)

    assert datagrams_of(receiver) == []


@given(st.lists(st.binary(max_size=200)))
def test_never_raises_and_never_changes_whatever_bytes_come(datagrams: list[bytes]) -> None:
    receiver = bob()
    before = visible(receiver)

    deliver(receiver, *datagrams, now=0.0)

    assert visible(receiver) == before


@given(
    st.lists(
        st.builds(
            encode_frame,
            st.integers(1, 255),
            st.just(SESSION_ID),
            st.integers(0, 2**32 - 1),
            st.integers(0, 2**32 - 1),
            st.integers(0, 255),
            st.binary(max_size=100),
            st.binary(max_size=20),
        )
    )
)
def test_never_raises_and_never_changes_whatever_unsealed_frames_come(frames: list[bytes]) -> None:
    receiver = bob()
    before = visible(receiver)

    deliver(receiver, *frames, now=0.0)

    assert visible(receiver) == before


def _genuine() -> list[bytes]:
    rogue = RoguePeer(is_initiator=True)
    return [
        rogue.seal(FrameType.STREAM_OPEN, OPEN, stream_id=1),
        rogue.seal(FrameType.DATA, encode_data(0, b"data" * 10), stream_id=1),
        rogue.seal(FrameType.KEEPALIVE, bytes(8)),
        rogue.seal(FrameType.DISCONNECT, Disconnect(code=0, reason="").encode()),
    ]


GENUINE = _genuine()


@given(st.sampled_from(GENUINE), st.sets(st.integers(0, 8 * 60), min_size=1, max_size=8))
def test_a_genuine_datagram_with_any_bits_changed_changes_nothing(genuine: bytes, bits: set[int]) -> None:
    changed = bytearray(genuine)
    for bit in bits:
        changed[bit // 8 % len(changed)] ^= 1 << bit % 8
    if bytes(changed) == genuine:
        return
    receiver = bob()
    before = visible(receiver)

    deliver(receiver, bytes(changed), now=0.0)

    assert visible(receiver) == before


@given(st.permutations(range(12)), st.lists(st.integers(0, 11), max_size=6))
def test_reordered_and_duplicated_datagrams_come_to_the_same(order: list[int], again: list[int]) -> None:
    rogue = RoguePeer(is_initiator=True)
    data = bytes(range(100))
    datagrams = [rogue.seal(FrameType.STREAM_OPEN, OPEN, stream_id=1)]
    datagrams += [
        rogue.seal(FrameType.DATA, encode_data(start, data[start : start + 10]), stream_id=1)
        for start in range(0, 100, 10)
    ]
    datagrams.append(rogue.seal(FrameType.STREAM_CLOSE, StreamClose(CloseKind.END, 0, 100).encode(), stream_id=1))
    receiver = bob()

    for index in [*order, *again]:
        deliver(receiver, datagrams[index], now=0.0)

    assert receiver.read(1, 1000) == data
    stream = receiver.stream(1)
    assert stream is not None
    assert stream.receiving.at_end
    assert receiver.statistics().frames_received == 12


# Frame numbers


@pytest.mark.parametrize("start", [0, 2**31 - 2, 2**32 - 2, 2**33 + 2**31, 2**36 - 2])
def test_frame_numbers_are_rebuilt_from_their_low_32_bits(start: int) -> None:
    receiver, rogue = bob(), RoguePeer(is_initiator=True)
    # Each step is less than half of what the bits can tell apart.
    for number in range(0, start, 2**30):
        rogue.send(receiver, FrameType.DATAGRAM, b"on the way", number=number)
    receiver.events()

    for number in range(start, start + 4):
        rogue.send(receiver, FrameType.DATAGRAM, b"there", number=number + 1)

    assert receiver.events() == [events.DatagramReceived(b"there")] * 4


def test_every_frame_has_a_number_of_its_own_over_all_streams() -> None:
    sender, rogue = alice(), RoguePeer(is_initiator=False)
    for _ in range(3):
        stream_id = sender.open_stream()
        assert stream_id is not None
        sender.write(stream_id, b"data")
        sender.end_stream(stream_id)
    sender.send_datagram(b"x")

    frames = rogue.read(sender.trains_to_send(0.0))

    assert [number for number, *_ in frames] == list(range(len(frames)))


# A peer that breaks the protocol

Frame = tuple[int, int, bytes]
"""Type, stream id and plaintext."""


def data(offset: int, size: int, stream_id: int = 1) -> Frame:
    return FrameType.DATA, stream_id, encode_data(offset, bytes(size))


def close(kind: CloseKind, final_size: int = 0, stream_id: int = 1, code: int = 0) -> Frame:
    return FrameType.STREAM_CLOSE, stream_id, StreamClose(kind, code, final_size).encode()


VIOLATIONS: dict[str, tuple[list[Frame], ErrorCode]] = {
    "more than the credit of a stream": ([data(1000, 1)], ErrorCode.FLOW_CONTROL),
    "more than the credit of a stream, in a hurry": ([data(0, 1001)], ErrorCode.FLOW_CONTROL),
    "an end beyond the credit of a stream": ([close(CloseKind.END, 1001)], ErrorCode.FLOW_CONTROL),
    "a reset beyond the credit of a stream": ([close(CloseKind.RESET, 1001)], ErrorCode.FLOW_CONTROL),
    "more than the credit of the session": (
        [data(999, 1), data(999, 1, stream_id=3), data(500, 1, stream_id=5)],
        ErrorCode.FLOW_CONTROL,
    ),
    "ends beyond the credit of the session": (
        [close(CloseKind.END, 1000, stream_id) for stream_id in (1, 3, 5)],
        ErrorCode.FLOW_CONTROL,
    ),
    "resets beyond the credit of the session": (
        # What was reset is read, and comes back as credit only once that was told.
        [close(CloseKind.RESET, 1000, stream_id) for stream_id in (1, 3, 5)],
        ErrorCode.FLOW_CONTROL,
    ),
    "more streams than allowed": ([data(0, 1, stream_id=9)], ErrorCode.FLOW_CONTROL),
    "an opening beyond the streams allowed": ([(FrameType.STREAM_OPEN, 9, OPEN)], ErrorCode.FLOW_CONTROL),
    "the highest stream id": ([data(0, 1, stream_id=2**32 - 1)], ErrorCode.FLOW_CONTROL),
    "stream 0": ([data(0, 1, stream_id=0)], ErrorCode.PROTOCOL),
    "credit of stream 0": ([(FrameType.CREDIT, 0, Credit(CreditKind.STREAM, 9).encode())], ErrorCode.PROTOCOL),
    "data on a stream of this side that was never opened": ([data(0, 1, stream_id=2)], ErrorCode.STREAM),
    "opening a stream of this side": ([(FrameType.STREAM_OPEN, 2, OPEN)], ErrorCode.STREAM),
    "closing a stream of this side that was never opened": ([close(CloseKind.END, 0, stream_id=4)], ErrorCode.STREAM),
    "bytes behind the end": ([close(CloseKind.END, 5), data(5, 1)], ErrorCode.STREAM),
    "bytes behind a reset": ([close(CloseKind.RESET, 5), data(5, 1)], ErrorCode.STREAM),
    "an end before what came": ([data(0, 10), close(CloseKind.END, 9)], ErrorCode.STREAM),
    "a reset before what came": ([data(0, 10), close(CloseKind.RESET, 9)], ErrorCode.STREAM),
    "two ends": ([close(CloseKind.END, 5), close(CloseKind.END, 6)], ErrorCode.STREAM),
    "a smaller second end": ([close(CloseKind.END, 5), close(CloseKind.END, 4)], ErrorCode.STREAM),
    "an end and another reset": ([close(CloseKind.END, 5), close(CloseKind.RESET, 6)], ErrorCode.STREAM),
    "two resets": ([close(CloseKind.RESET, 5), close(CloseKind.RESET, 6)], ErrorCode.STREAM),
    "a mode that is not there": (
        [
            (
                FrameType.STREAM_OPEN,
                1,
                StreamOpen(mode=StreamMode.UNRELIABLE, priority=3, label="", metadata=None).encode(),
            )
        ],
        ErrorCode.UNSUPPORTED,
    ),
    "an acknowledgement of a frame that was never sent": (
        [(FrameType.ACK, 0, Ack(0, ((0, 1000),)).encode())],
        ErrorCode.PROTOCOL,
    ),
    "an acknowledgement of the frame that is to be sent next": (
        [(FrameType.ACK, 0, Ack(0, ((0, 0),)).encode())],
        ErrorCode.PROTOCOL,
    ),
    "an acknowledgement of the highest number": (
        [(FrameType.ACK, 0, Ack(0, ((2**64 - 1, 2**64 - 1),)).encode())],
        ErrorCode.PROTOCOL,
    ),
    "a handshake frame inside": ([(FrameType.HANDSHAKE_INIT, 0, b"")], ErrorCode.UNSUPPORTED),
    "an unknown type": ([(0x7F, 0, b"")], ErrorCode.UNSUPPORTED),
    "a custom type that nobody claimed": ([(0x80, 0, b"")], ErrorCode.UNSUPPORTED),
    "empty data": ([(FrameType.DATA, 1, b"")], ErrorCode.FRAME),
    "bytes behind credit": (
        [(FrameType.CREDIT, 0, Credit(CreditKind.SESSION, 9).encode() + b"x")],
        ErrorCode.FRAME,
    ),
    "bytes behind an acknowledgement": ([(FrameType.ACK, 0, Ack(0, ((0, 0),)).encode() + b"x")], ErrorCode.FRAME),
    "bytes behind a close": (
        [(FrameType.STREAM_CLOSE, 1, StreamClose(CloseKind.END, 0, 0).encode() + b"x")],
        ErrorCode.FRAME,
    ),
    "bytes behind an opening": ([(FrameType.STREAM_OPEN, 1, OPEN + b"x")], ErrorCode.FRAME),
    "a keepalive of 9 bytes": ([(FrameType.KEEPALIVE, 0, bytes(9))], ErrorCode.FRAME),
    "a path frame padded with ones": (
        [(FrameType.PATH, 0, PathProbe(PathKind.CHALLENGE, bytes(8)).encode() + b"\1")],
        ErrorCode.FRAME,
    ),
    "a disconnect of no bytes": ([(FrameType.DISCONNECT, 0, b"")], ErrorCode.FRAME),
    "a closing kind that there is not": ([(FrameType.STREAM_CLOSE, 1, b"\3\0\0")], ErrorCode.FRAME),
    "a priority that there is not": (
        [(FrameType.STREAM_OPEN, 1, OPEN.replace(b"priority\x10\3", b"priority\x10\x08"))],
        ErrorCode.FRAME,
    ),
}


@pytest.mark.parametrize(("frames", "code"), VIOLATIONS.values(), ids=VIOLATIONS)
def test_a_violation_closes_with_its_code(frames: list[Frame], code: ErrorCode) -> None:
    receiver = bob(stream_credit=1000, session_credit=2400, max_streams=4)
    rogue = RoguePeer(is_initiator=True)
    datagrams = [rogue.seal(kind, plaintext, stream_id=stream_id) for kind, stream_id, plaintext in frames]

    deliver(receiver, *datagrams[:-1], now=0.0)
    assert stands(receiver, State.ACTIVE)
    deliver(receiver, datagrams[-1], now=0.0)

    event = ended(receiver)
    assert (event.code, event.by_peer) == (code, False)
    assert stands(receiver, State.CLOSING)
    ((_, kind, _, plaintext),) = rogue.read(receiver.trains_to_send(0.0))
    assert (kind, plaintext[0]) == (FrameType.DISCONNECT, code)


def test_what_exhausts_every_credit_exactly_is_no_violation() -> None:
    receiver, rogue = bob(stream_credit=1000, session_credit=2000, max_streams=2), RoguePeer(is_initiator=True)

    for stream_id in (1, 3):
        rogue.send(receiver, FrameType.DATA, encode_data(0, bytes(1000)), stream_id=stream_id)
        rogue.send(receiver, *close(CloseKind.END, 1000)[::2], stream_id=stream_id)

    assert stands(receiver, State.ACTIVE)


def test_frames_behind_a_violation_are_not_taken() -> None:
    receiver, rogue = bob(), RoguePeer(is_initiator=True)

    deliver(receiver, rogue.seal(0x7F), rogue.seal(FrameType.DATAGRAM, b"too late"), now=0.0)

    assert [type(event) for event in receiver.events()] == [events.SessionEnded]


def any_plaintexts() -> st.SearchStrategy[tuple[int, int, bytes]]:
    stream_ids = st.integers(0, 8) | st.integers(0, 2**32 - 1)
    encoded: dict[int, st.SearchStrategy[bytes]] = {
        FrameType.DATA: st.builds(encode_data, st.integers(0, 50) | strategies.varints(), st.binary(max_size=20)),
        FrameType.STREAM_OPEN: strategies.stream_opens().map(StreamOpen.encode),
        FrameType.STREAM_CLOSE: st.builds(StreamClose, st.sampled_from(CloseKind), st.integers(0, 9), st.just(0)).map(
            StreamClose.encode
        ),
        FrameType.ACK: strategies.acks().map(Ack.encode) | st.just(Ack(5, ((0, 0),)).encode()),
        FrameType.KEEPALIVE: strategies.keepalives().map(Keepalive.encode),
        FrameType.DISCONNECT: strategies.disconnects().map(Disconnect.encode),
        FrameType.CREDIT: strategies.credits().map(Credit.encode),
        FrameType.DATAGRAM: st.binary(max_size=20),
        FrameType.PATH: strategies.path_probes().map(PathProbe.encode),
        FrameType.MTU_PROBE: st.binary(max_size=20),
    }
    whole = st.sampled_from(list(encoded)).flatmap(lambda kind: st.tuples(st.just(kind), stream_ids, encoded[kind]))
    broken = st.tuples(st.integers(1, 255), stream_ids, st.binary(max_size=40))
    return whole | whole | whole | broken


def use(session: Session, now: float) -> None:
    """Do with a session what a node and an application would."""
    for event in session.events():
        if isinstance(event, events.StreamReadable):
            session.read(event.stream_id, 10)
    session.trains_to_send(now)
    session.handle_timeout(now)
    session.next_timeout()


@given(frames=st.lists(any_plaintexts(), max_size=12), is_initiator=st.booleans(), padding=st.sampled_from([0, 16]))
def test_never_raises_whatever_the_peer_seals(*, frames: list[Frame], is_initiator: bool, padding: int) -> None:
    session = alice(padding=padding) if is_initiator else bob(padding=padding)
    rogue = RoguePeer(is_initiator=not is_initiator)
    stream_id = session.open_stream()
    assert stream_id is not None
    session.write(stream_id, b"some data")
    use(session, 0.0)

    for index, (kind, on_stream, plaintext) in enumerate(frames):
        padded = pad(plaintext, padding) if padding and index % 4 else plaintext
        rogue.send(session, kind, padded, stream_id=on_stream, now=index / 10)
        use(session, index / 10)

    use(session, 100.0)
    assert session.state is State.CLOSED or session.next_timeout() is not None


# Life


def test_the_responder_is_active_at_once() -> None:
    session = make_session(is_initiator=False)

    assert stands(session, State.ACTIVE)
    assert session.events() == [events.SessionActivated()]


def test_the_initiator_becomes_active_with_the_confirmation() -> None:
    session = make_session(is_initiator=True, confirmed=False)
    assert stands(session, State.HANDSHAKE)
    assert session.events() == []

    session.confirmed()
    session.confirmed()

    assert stands(session, State.ACTIVE)
    assert session.events() == [events.SessionActivated()]


def test_the_initiator_becomes_active_with_a_sealed_frame_and_then_reads_it() -> None:
    session = make_session(is_initiator=True, confirmed=False)

    RoguePeer(is_initiator=False).send(session, FrameType.DATAGRAM, b"first")

    assert stands(session, State.ACTIVE)
    assert session.events() == [events.SessionActivated(), events.DatagramReceived(b"first")]


def test_a_forged_frame_does_not_make_the_initiator_active() -> None:
    session = make_session(is_initiator=True, confirmed=False)

    deliver(session, encode_frame(FrameType.KEEPALIVE, SESSION_ID, 0, 0, 0, bytes(24)), now=0.0)

    assert stands(session, State.HANDSHAKE)


def test_a_refused_initiator_was_never_active() -> None:
    session = make_session(is_initiator=True, confirmed=False)
    refusal = Disconnect(code=ErrorCode.REFUSED, reason="this node is not allowed in").encode()

    RoguePeer(is_initiator=False).send(session, FrameType.DISCONNECT, refusal)

    assert stands(session, State.CLOSED)
    assert session.events() == [events.SessionEnded(ErrorCode.REFUSED, "this node is not allowed in", by_peer=True)]


def test_nothing_leaves_and_no_time_is_due_before_the_confirmation() -> None:
    # What overtakes RESPONSE is kept in small numbers only, and a reliable path would never send it again.
    config = STTConfig(keepalive=True, idle_timeout=3.0)
    session = make_session(is_initiator=True, confirmed=False, config=config)
    stream_id = session.open_stream()
    assert stream_id is not None
    session.write(stream_id, bytes(1000))

    assert session.trains_to_send(2.0) == []
    assert session.next_timeout() == pytest.approx(3.0, abs=0.1)

    session.confirmed()
    assert session.trains_to_send(2.0) != []


def test_what_was_written_before_the_confirmation_arrives_after_it() -> None:
    initiator, responder = session_pair(confirmed=False)
    link = Link(initiator, responder, latency=0.02, on_event=Inbox())
    link.run(0.5)
    initiator.confirmed()

    assert transfer(link, initiator, responder, b"early") < 0.1


def test_closing_tells_the_peer() -> None:
    initiator, responder = session_pair()
    link = Link(initiator, responder, latency=0.02)
    link.run(1.0)
    initiator.close(0x1234, "that is all", link.now)
    assert stands(initiator, State.CLOSING)

    link.run(1.03)

    assert stands(responder, State.CLOSED)
    assert link.events(responder)[-1] == events.SessionEnded(0x1234, "that is all", by_peer=True)
    assert link.events(initiator)[-1] == events.SessionEnded(0x1234, "that is all", by_peer=False)


def test_who_closes_acknowledges_what_came_before() -> None:
    near, far = bob(), RoguePeer(is_initiator=True)
    datagrams = far.seal(FrameType.DATA, encode_data(0, b"the last"), stream_id=1)

    deliver(near, datagrams, now=0.0)
    near.close(0, "thank you", 0.0)

    kinds = [kind for _, kind, _, _ in far.read(near.trains_to_send(0.0))]
    assert kinds == [FrameType.ACK, FrameType.DISCONNECT]


def test_the_end_is_told_again_while_the_peer_has_not_heard_of_it() -> None:
    initiator, responder = session_pair()
    link = Link(initiator, responder, latency=0.02)
    link.run(1.0)
    initiator.close(0, "", link.now)
    link.forth.outages.append((1.0, 1.001))
    responder.send_datagram(b"are you there?")

    link.run(1.06)

    assert stands(responder, State.CLOSED)
    assert stands(initiator, State.CLOSING)


def test_the_end_is_told_once_for_a_burst_and_not_without_one() -> None:
    session, rogue = bob(), RoguePeer(is_initiator=True)
    session.close(0, "", 0.0)
    assert len(datagrams_of(session)) == 1
    assert datagrams_of(session) == []

    deliver(session, *(rogue.seal(FrameType.DATAGRAM, b"x") for _ in range(20)), now=0.1)

    assert len(datagrams_of(session, 0.1)) == 1
    assert datagrams_of(session, 0.1) == []


def test_two_ends_that_close_at_once_do_not_answer_each_other_for_ever() -> None:
    initiator, responder = session_pair(config=STTConfig(max_datagram_size=1200))
    link = Link(initiator, responder, latency=0.0001)
    link.run(1.0)
    sent = link.forth.sent + link.back.sent
    initiator.close(1, "mine", link.now)
    responder.close(2, "yours", link.now)

    link.run(10.0)

    assert link.forth.sent + link.back.sent == sent + 2
    assert (initiator.state, responder.state) == (State.CLOSED, State.CLOSED)


def test_draining_ends_after_three_probe_timeouts() -> None:
    initiator, responder = session_pair()
    link = Link(initiator, responder, latency=0.02)
    initiator.ping()
    link.run(1.0)
    link.forth.loss = 1.0
    initiator.close(0, "", link.now)

    # Round trip 40 ms, measured once, so that the variance is half of it; the peer may hold an acknowledgement 25 ms.
    link.run(1.4)
    assert stands(initiator, State.CLOSING)
    link.run(1.6)
    assert stands(initiator, State.CLOSED)


def test_a_reliable_path_needs_no_draining() -> None:
    initiator, responder = session_pair(capabilities=MESSAGES)
    link = Link(initiator, responder, latency=0.02)
    initiator.close(0, "", link.now)

    link.run(0.02)

    assert (initiator.state, responder.state) == (State.CLOSED, State.CLOSED)


def test_closing_twice_is_the_same_as_once() -> None:
    session = bob()

    session.close(7, "first", 0.0)
    session.close(8, "second", 1.0)

    assert session.events() == [events.SessionEnded(7, "first", by_peer=False)]


def test_no_event_follows_the_end() -> None:
    session, rogue = bob(), RoguePeer(is_initiator=True)
    rogue.send(session, FrameType.STREAM_OPEN, OPEN, stream_id=1)
    rogue.send(session, *close(CloseKind.END, 0)[::2], stream_id=1)
    session.events()
    session.close(0, "", 0.0)

    session.read(1, 100)
    session.reset_stream(1, 0)
    session.stop_stream(1, 0)
    session.path_lost(session.path, "gone", 0.0)
    rogue.send(session, FrameType.DATAGRAM, b"too late")

    assert session.events() == [events.SessionEnded(0, "", by_peer=False)]
    session.end_stream(1)
    assert session.events() == []


def test_what_came_before_the_peer_closed_can_be_read() -> None:
    session, rogue = bob(), RoguePeer(is_initiator=True)

    deliver(
        session,
        rogue.seal(FrameType.STREAM_OPEN, OPEN, stream_id=1),
        rogue.seal(FrameType.DATA, encode_data(0, b"last words"), stream_id=1),
        rogue.seal(FrameType.DISCONNECT, Disconnect(code=0, reason="").encode()),
        now=0.0,
    )

    assert session.events() == [
        events.StreamOpened(1),
        events.StreamReadable(1),
        events.SessionEnded(0, "", by_peer=True),
    ]
    assert session.read(1, 100) == b"last words"


COMMANDS: dict[str, Callable[[Session], object]] = {
    "open_stream": lambda session: session.open_stream(),
    "write": lambda session: session.write(1, b"x"),
    "send_datagram": lambda session: session.send_datagram(b"x"),
    "send_message": lambda session: session.send_message(0x80, b"x", reliable=True),
    "ping": lambda session: session.ping(),
    "rotate_keys": lambda session: session.rotate_keys(),
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_session_that_is_over_takes_no_commands(command: Callable[[Session], object]) -> None:
    session = bob()
    session.close(0x200, "enough", 0.0)

    with pytest.raises(SessionClosed) as raised:
        command(session)

    assert (raised.value.code, raised.value.reason, raised.value.by_peer) == (0x200, "enough", False)


def test_a_closed_session_is_quiet() -> None:
    session, rogue = bob(), RoguePeer(is_initiator=True)
    rogue.send(session, FrameType.DISCONNECT, Disconnect(code=0, reason="").encode())
    session.events()

    rogue.send(session, FrameType.DATAGRAM, b"x", now=1.0)
    session.handle_timeout(1.0)

    assert session.trains_to_send(1.0) == []
    assert session.next_timeout() is None
    assert session.events() == []


# Silence


def test_a_silent_peer_is_given_up_after_the_idle_timeout() -> None:
    initiator, responder = session_pair()
    link = Link(initiator, responder, latency=0.02)
    link.run(1.0)
    link.forth.loss = link.back.loss = 1.0

    link.run(35.0)

    assert (initiator.state, responder.state) == (State.CLOSED, State.CLOSED)
    for end in (initiator, responder):
        event = link.events(end)[-1]
        assert isinstance(event, events.SessionEnded)
        assert (event.code, event.by_peer) == (ErrorCode.TIMEOUT, False)


@pytest.mark.parametrize(("own", "others"), [(5.0, 30.0), (30.0, 5.0)])
def test_the_smaller_idle_timeout_of_both_holds(own: float, others: float) -> None:
    session = make_session(
        is_initiator=True, config=STTConfig(idle_timeout=own), peer_config=STTConfig(idle_timeout=others)
    )

    session.handle_timeout(4.9)
    assert stands(session, State.ACTIVE)
    session.handle_timeout(5.1)
    assert stands(session, State.CLOSED)


def test_any_frame_of_the_peer_puts_the_idle_timeout_off() -> None:
    session, rogue = bob(), RoguePeer(is_initiator=True)
    rogue.send(session, FrameType.DATAGRAM, b"x", now=29.0)

    session.handle_timeout(31.0)
    assert stands(session, State.ACTIVE)

    session.handle_timeout(59.1)
    assert stands(session, State.CLOSED)


def test_keepalive_keeps_an_idle_session() -> None:
    initiator, responder = session_pair(config=STTConfig(keepalive=True))
    link = Link(initiator, responder, latency=0.02)
    link.run(10.0)
    sent = link.forth.sent

    link.run(610.0)

    assert (initiator.state, responder.state) == (State.ACTIVE, State.ACTIVE)
    assert 60 <= link.forth.sent - sent <= 180


def test_without_keepalive_an_idle_session_ends() -> None:
    initiator, responder = session_pair()
    link = Link(initiator, responder, latency=0.02)

    link.run(32.0)

    assert (initiator.state, responder.state) == (State.CLOSED, State.CLOSED)


def test_one_end_that_keeps_alive_is_enough() -> None:
    initiator, responder = session_pair(config=STTConfig(keepalive=True), responder_config=STTConfig())
    link = Link(initiator, responder, latency=0.02)

    link.run(300.0)

    assert (initiator.state, responder.state) == (State.ACTIVE, State.ACTIVE)


def test_a_keepalive_is_acknowledged_and_never_echoed() -> None:
    session, rogue = bob(), RoguePeer(is_initiator=True)

    rogue.send(session, FrameType.KEEPALIVE, b"12345678")

    ((_, kind, _, _),) = rogue.read(session.trains_to_send(0.0))
    assert kind == FrameType.ACK


def test_an_acknowledgement_asks_for_none() -> None:
    session, rogue = alice(), RoguePeer(is_initiator=False)
    session.send_datagram(b"x")
    session.trains_to_send(0.0)

    rogue.send(session, FrameType.ACK, Ack(0, ((0, 0),)).encode(), now=0.1)

    assert session.trains_to_send(0.2) == []


@pytest.mark.parametrize(
    ("pause", "acknowledgements"), [(0.0005, range(5, 15)), (0.1, range(100, 101))], ids=["lively", "slow"]
)
def test_of_a_dialogue_of_short_messages_few_frames_are_acks_and_no_datagram_holds_one_alone(
    pause: float, acknowledgements: range
) -> None:
    session, rogue = bob(), RoguePeer(is_initiator=True)
    kinds: list[list[int]] = []

    for index in range(100):
        now = index * pause
        rogue.send(session, FrameType.DATAGRAM, bytes(64), now=now)
        session.send_datagram(bytes(64))
        kinds += [[frame.type for frame in split_frames(datagram)] for datagram in datagrams_of(session, now)]

    assert len(kinds) == 100
    assert all(FrameType.DATAGRAM in each for each in kinds)
    assert sum(each.count(FrameType.ACK) for each in kinds) in acknowledgements


@pytest.mark.parametrize(
    ("capabilities", "buffer_size", "size"),
    [(DATAGRAMS, 1024, 50_000), (MESSAGES, 64 * 1024, 4 * MIB)],
    ids=["unreliable", "reliable"],
)
def test_who_waits_for_room_in_a_small_buffer_waits_for_no_late_acknowledgement(
    capabilities: TransportCapabilities, buffer_size: int, size: int
) -> None:
    config = STTConfig(send_buffer_size=buffer_size)
    sender, receiver = session_pair(config=config, capabilities=capabilities)
    inbox = Inbox()
    link = Link(sender, receiver, latency=0.001, mtu=MIB, on_event=inbox)
    data = bytes(size)
    stream_id = sender.open_stream()
    assert stream_id is not None
    for start in range(0, size, buffer_size):
        while not sender.write(stream_id, data[start : start + buffer_size]):
            link.run(link.now + 0.001)
    sender.end_stream(stream_id)

    link.wait_for(lambda: inbox.has_ended(receiver, stream_id), within=60.0)

    round_trips = size / buffer_size
    assert link.now < round_trips * 0.004 + 0.1  # with an ACK that is late each time: 0.025 or 0.1 s


def test_a_ping_measures_the_round_trip() -> None:
    initiator, responder = session_pair()
    link = Link(initiator, responder, latency=0.03)
    link.run(1.0)
    token = initiator.ping()

    link.run(2.0)

    (answer,) = [event for event in link.events(initiator) if isinstance(event, events.PingAnswered)]
    assert answer.token == token
    assert answer.round_trip == pytest.approx(0.06)


def test_a_ping_that_is_lost_is_repeated() -> None:
    initiator, responder = session_pair()
    link = Link(initiator, responder, latency=0.03)
    link.run(1.0)
    link.forth.outages.append((1.0, 1.1))
    token = initiator.ping()

    link.run(3.0)

    answers = [event for event in link.events(initiator) if isinstance(event, events.PingAnswered)]
    assert [answer.token for answer in answers] == [token]


# Datagrams


def test_datagrams_come_as_they_were_sent() -> None:
    initiator, responder = session_pair()
    link = Link(initiator, responder, latency=0.02)
    sent = [b"", b"x", bytes(1000)]
    for data in sent:
        initiator.send_datagram(data)

    link.run(1.0)

    received = [event.data for event in link.events(responder) if isinstance(event, events.DatagramReceived)]
    assert received == sent


def test_a_lost_datagram_is_not_sent_again() -> None:
    initiator, responder = session_pair()
    link = Link(initiator, responder, latency=0.02)
    link.run(1.0)
    link.forth.outages.append((1.0, 1.001))
    initiator.send_datagram(b"lost")

    link.run(20.0)

    assert events.DatagramReceived(b"lost") not in link.events(responder)


def test_the_oldest_datagram_is_dropped_when_too_many_wait() -> None:
    session = alice(datagram_queue_size=4)
    for index in range(10):
        session.send_datagram(bytes([index]))

    frames = RoguePeer(is_initiator=False).read(session.trains_to_send(0.0))

    assert [plaintext for *_, plaintext in frames] == [bytes([index]) for index in range(6, 10)]
    assert session.statistics().datagrams_dropped == 6


@pytest.mark.parametrize("padding", [0, 16, 64, 1000, 4096])
def test_the_largest_datagram_is_what_the_path_carries(padding: int) -> None:
    initiator, responder = session_pair(config=STTConfig(max_datagram_size=1200, padding=padding))
    link = Link(initiator, responder, latency=0.02, mtu=1200)
    size = initiator.max_datagram_payload
    assert size > 1100

    initiator.send_datagram(bytes(size))
    link.run(1.0)

    assert link.events(responder)[-1] == events.DatagramReceived(bytes(size))
    with pytest.raises(LocalError, match=f"this path carries {size}"):
        initiator.send_datagram(bytes(size + 1))


def test_a_datagram_that_no_longer_fits_is_dropped_and_counted() -> None:
    initiator, responder = session_pair()
    link = Link(initiator, responder, latency=0.02, mtu=1472)
    begin_mtu_search(initiator)
    link.run(3.0)
    assert initiator.max_datagram_payload == 1472 - 44
    link.forth.mtu = 1200
    stream_id = initiator.open_stream()
    assert stream_id is not None
    initiator.write(stream_id, bytes(20_000))
    link.run(3.0)
    for _ in range(3):
        initiator.send_datagram(bytes(1428))  # waits behind what fills the window

    link.run(20.0)

    assert initiator.statistics().datagram_size == 1200
    assert events.DatagramReceived(bytes(1428)) not in link.events(responder)


# Keys


def epochs(session: Session) -> tuple[int, int]:
    statistics = session.statistics()
    return statistics.send_epoch, statistics.receive_epoch


def test_keys_rotate_on_command_and_the_peer_follows() -> None:
    initiator, responder = session_pair()
    link = Link(initiator, responder, latency=0.02)
    initiator.ping()
    link.run(1.0)
    initiator.rotate_keys()

    initiator.send_datagram(b"under new keys")
    link.run(2.0)

    assert (epochs(initiator), epochs(responder)) == ((1, 0), (0, 1))
    assert events.KeysRotated(1, sending=True) in link.events(initiator)
    assert link.events(responder)[-2:] == [
        events.KeysRotated(1, sending=False),
        events.DatagramReceived(b"under new keys"),
    ]


def test_a_session_at_rest_keeps_no_ciphers() -> None:
    alive: weakref.WeakSet[Cipher] = weakref.WeakSet()

    class Cipher:
        def __init__(self, key: bytes) -> None:
            self._cipher = SUITES[1].cipher(key)
            alive.add(self)

        def encrypt(self, nonce: bytes, plaintext: bytes, associated: bytes) -> bytes:
            return self._cipher.encrypt(nonce, plaintext, associated)

        def decrypt(self, nonce: bytes, sealed: bytes, associated: bytes) -> bytes:
            return self._cipher.decrypt(nonce, sealed, associated)

    class Counting(type(SUITES[1])):  # type: ignore[misc]  # the class behind suite 1
        def cipher(self, key: bytes) -> Cipher:
            return Cipher(key)

    initiator, responder = session_pair(suite=Counting())
    link = Link(initiator, responder, latency=0.02, on_event=Inbox())
    transfer(link, initiator, responder, b"x" * 1000)
    assert alive

    link.run(link.now + 2.0)
    assert not alive

    transfer(link, initiator, responder, b"y" * 1000)


def test_a_rotation_waits_until_the_peer_has_followed() -> None:
    initiator, responder = session_pair()
    link = Link(initiator, responder, latency=0.02)
    initiator.ping()
    link.run(1.0)
    initiator.rotate_keys()
    link.run(1.001)
    initiator.rotate_keys()

    link.run(1.002)
    assert stands(initiator, State.KEY_ROTATING)
    assert epochs(initiator) == (1, 0)

    link.run(2.0)
    assert stands(initiator, State.ACTIVE)
    assert epochs(initiator) == (2, 0)


def test_an_idle_session_rotates_by_itself_asking_for_the_acknowledgement() -> None:
    session, rogue = alice(), RoguePeer(is_initiator=False)
    session.rotate_keys()

    ((number, kind, _, _),) = rogue.read(session.trains_to_send(0.0))
    assert kind == FrameType.KEEPALIVE
    assert stands(session, State.KEY_ROTATING)
    rogue.send(session, FrameType.ACK, Ack(0, ((number, number),)).encode(), now=0.1)
    session.trains_to_send(0.1)

    assert epochs(session) == (1, 0)


def test_an_acknowledgement_from_before_the_epoch_does_not_let_it_rotate_again() -> None:
    session, rogue = alice(), RoguePeer(is_initiator=False)
    session.send_datagram(b"x")
    session.trains_to_send(0.0)
    rogue.send(session, FrameType.ACK, Ack(0, ((0, 0),)).encode(), now=0.1)
    session.rotate_keys()
    session.trains_to_send(0.1)
    session.rotate_keys()

    rogue.send(session, FrameType.ACK, Ack(0, ((0, 0),)).encode(), now=0.2)
    session.trains_to_send(0.2)

    assert epochs(session) == (1, 0)


@pytest.mark.parametrize(
    "limit", [{"rotate_after_bytes": 100_000}, {"rotate_after_frames": 100}, {"rotate_after_seconds": 1.0}]
)
def test_both_directions_rotate_at_their_limits_under_loss_and_reordering(limit: dict[str, Any]) -> None:
    initiator, responder = session_pair(config=STTConfig(**limit), controller=CONTROLLERS["bbr"])
    link = Link(
        initiator, responder, latency=0.02, mtu=1472, loss=0.02, reordering=0.1, duplication=0.02, on_event=Inbox()
    )
    link.forth.rate = link.back.rate = 400_000

    transfer(link, initiator, responder, os.urandom(MIB))
    transfer(link, responder, initiator, os.urandom(MIB))

    assert initiator.statistics().send_epoch >= 2
    assert responder.statistics().send_epoch >= 2
    assert epochs(initiator) == epochs(responder)[::-1]


def test_frames_of_an_old_epoch_open_for_a_while_and_then_no_more() -> None:
    session, rogue = bob(), RoguePeer(is_initiator=True)
    late = [rogue.seal(FrameType.DATAGRAM, b"late") for _ in range(2)]
    rogue.send(session, FrameType.DATAGRAM, b"new", epoch=1, now=1.0)
    session.events()

    deliver(session, late[0], now=10.9)
    assert session.events() == [events.DatagramReceived(b"late")]

    session.handle_timeout(11.0)
    deliver(session, late[1], now=11.0)
    assert session.events() == []
    assert session.statistics().frames_dropped == 1


def test_the_erasing_of_an_old_epoch_has_a_timer() -> None:
    session, rogue = bob(idle_timeout=100.0), RoguePeer(is_initiator=True)
    rogue.send(session, FrameType.DATAGRAM, b"new", epoch=1, now=1.0)
    session.trains_to_send(2.0)
    session.handle_timeout(5.0)  # at rest

    assert session.next_timeout() == 11.0
    session.handle_timeout(11.0)
    assert session.next_timeout() == 101.0


def test_a_session_at_rest_goes_on_where_it_was() -> None:
    session, rogue = bob(), RoguePeer(is_initiator=True)
    stream_id = session.open_stream()
    assert stream_id is not None
    for text, at in ((b"before", 1.0), (b"after", 3.0)):
        rogue.send(session, FrameType.DATAGRAM, b"here", now=at)
        session.write(stream_id, text)
        session.handle_timeout(at + 0.25)  # at rest, with something to send

        types = [kind for _, kind, _, _ in rogue.read(session.trains_to_send(at + 0.25))]

        assert types[-1] == FrameType.DATA
        session.send_datagram(b"more")
        session.handle_timeout(at + 0.75)  # at rest, with a stream that has nothing to send
        assert rogue.read(session.trains_to_send(at + 0.75))[-1][3] == b"more"


def test_two_epochs_at_once_are_not_followed() -> None:
    session, rogue = bob(), RoguePeer(is_initiator=True)

    rogue.send(session, FrameType.DATAGRAM, b"too new", epoch=2)

    assert epochs(session) == (0, 0)
    assert session.statistics().frames_dropped == 1


def test_an_outsider_does_not_make_a_session_follow() -> None:
    session = bob()

    deliver(session, encode_frame(FrameType.DATA, SESSION_ID, 1, 0, 1, bytes(100)), now=0.0)

    assert epochs(session) == (0, 0)


class Weak(type(SUITES[1])):  # type: ignore[misc]  # the class behind suite 1
    """A suite that wears out soon."""

    max_frames = 40
    max_forgeries = 10


def test_at_the_hard_limit_nothing_more_is_sealed() -> None:
    session = make_session(is_initiator=True, suite=Weak(), config=STTConfig(max_datagram_size=1200))
    rogue = RoguePeer(is_initiator=False)
    for _ in range(200):
        session.send_datagram(bytes(1000))

    frames = [frame for step in range(100) for frame in rogue.read(session.trains_to_send(step / 10))]

    assert len(frames) <= Weak.max_frames
    assert session.statistics().waiting_for in {"keys", "congestion"}


def test_sending_stops_at_the_hard_limit_and_goes_on_once_the_peer_followed() -> None:
    initiator, responder = session_pair(suite=Weak(), config=STTConfig(max_datagram_size=1200))
    link = Link(initiator, responder, latency=0.02, on_event=Inbox())

    transfer(link, initiator, responder, os.urandom(300_000))

    assert initiator.statistics().send_epoch >= 300_000 // 1200 // Weak.max_frames


def test_a_session_whose_keys_are_worn_out_waits_for_nothing_but_its_end() -> None:
    session, rogue = make_session(is_initiator=False, suite=Weak()), RoguePeer(is_initiator=True)
    session.events()
    now = 0.0
    # Each KEEPALIVE draws an ACK; none of them is ever acknowledged, so that the keys may not rotate.
    for step in range(60):
        now = step / 100
        rogue.send(session, FrameType.KEEPALIVE, bytes(8), now=now)
        session.trains_to_send(now)

    assert session.statistics().waiting_for == "keys"
    assert session.statistics().frames_sent <= Weak.max_frames
    session.handle_timeout(now + 2.0)  # at rest
    assert session.next_timeout() == pytest.approx(now + 30.0, abs=0.1)
    session.handle_timeout(now + 31.0)
    assert ended(session).code == ErrorCode.TIMEOUT


def test_too_many_forgeries_end_the_session() -> None:
    session = make_session(is_initiator=False, suite=Weak())
    session.events()
    forged = [encode_frame(FrameType.DATA, SESSION_ID, 1, number, 0, bytes(32)) for number in range(10)]

    deliver(session, *forged[:9], now=0.0)
    assert stands(session, State.ACTIVE)
    deliver(session, forged[9], now=0.0)

    assert ended(session).code == ErrorCode.LIMIT


def test_a_suite_with_metadata_carries_a_transfer() -> None:
    suite = Sandwich()
    initiator, responder = session_pair(suite=suite)
    link = Link(initiator, responder, latency=0.02, mtu=1472, on_event=Inbox(), record=True)

    transfer(link, initiator, responder, os.urandom(200_000))

    assert max(len(crossing.data) for crossing in link.forth.crossed if crossing.arrives_at) == 1472
    assert initiator.max_datagram_payload == 1472 - 44 - 8


class Sandwich(type(SUITES[1])):  # type: ignore[misc]  # the class behind suite 1
    """A suite that writes eight bytes behind each tag."""

    metadata_size = 8

    def cipher(self, key: bytes) -> FrameCipher:
        return SandwichCipher(super().cipher(key))


class SandwichCipher:
    def __init__(self, inner: FrameCipher) -> None:
        self._inner = inner

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None, /) -> bytes:
        return self._inner.encrypt(nonce, data, associated_data) + nonce[-8:]

    def decrypt(self, nonce: bytes, data: Buffer, associated_data: Buffer | None, /) -> bytes:
        if bytes(data[-8:]) != nonce[-8:]:
            raise InvalidTag
        return self._inner.decrypt(nonce, data[:-8], associated_data)


# Padding


@pytest.mark.parametrize("capabilities", [DATAGRAMS, MESSAGES])
@pytest.mark.parametrize("padding", [1, 16, 256, 1156, 4096, 65_536])
def test_padding_hides_sizes_whoever_asks_for_it(padding: int, capabilities: TransportCapabilities) -> None:
    initiator, responder = session_pair(
        config=STTConfig(padding=padding), responder_config=STTConfig(), capabilities=capabilities
    )
    link = Link(initiator, responder, latency=0.02, mtu=1472, on_event=Inbox(), record=True)
    link.forth.mtu = link.back.mtu = 262_144 if capabilities is MESSAGES else 1472

    transfer(link, initiator, responder, os.urandom(100_000))
    transfer(link, responder, initiator, os.urandom(100_000))

    for crossing in (*link.forth.crossed, *link.back.crossed):
        full = len(crossing.data) in {1200, 1472, 65_507, 262_144}
        for frame in split_frames(crossing.data):
            assert full or (len(frame.payload) - TAG_SIZE) % padding == 0


def test_who_says_little_searches_no_larger_datagrams() -> None:
    initiator, responder = session_pair()
    link = Link(initiator, responder, latency=0.02, mtu=1472)
    initiator.send_datagram(bytes(1000))

    link.run(5.0)

    assert initiator.statistics().datagram_size == responder.statistics().datagram_size == 1200
    assert link.forth.sent + link.back.sent == 2


@pytest.mark.parametrize("padding", [0, 100, 256, 2000])
def test_an_mtu_probe_is_as_large_as_it_says_whatever_the_padding(padding: int) -> None:
    initiator, responder = session_pair(config=STTConfig(padding=padding))
    link = Link(initiator, responder, latency=0.02, mtu=1464, record=True)

    begin_mtu_search(initiator)
    link.run(5.0)

    probes = {len(crossing.data) for crossing in link.forth.crossed if split_frames(crossing.data)[0].type == 0x19}
    assert {1464, 1472} <= probes
    assert initiator.statistics().datagram_size == 1464


def test_without_padding_that_was_agreed_on_a_frame_is_malformed() -> None:
    session, rogue = bob(padding=16), RoguePeer(is_initiator=True)

    rogue.send(session, FrameType.DATAGRAM, bytes(16))

    assert ended(session).code == ErrorCode.FRAME


# Bad networks


# Each with the seconds within which a megabyte has to be there.
NETWORKS: dict[str, tuple[dict[str, Any], float]] = {
    "perfect": ({"latency": 0.01}, 1),
    "without latency": ({}, 1),
    "200 Mbit/s": ({"latency": 0.025, "rate": 25e6}, 1),
    "200 Mbit/s and 1 % loss": ({"latency": 0.025, "rate": 25e6, "loss": 0.01}, 2),
    "5 % loss, 2 % duplicates, reordering, 50 ms": (
        {"latency": 0.05, "loss": 0.05, "duplication": 0.02, "reordering": 0.1},
        10,
    ),
    "a third lost": ({"latency": 0.01, "loss": 1 / 3}, 20),
    "50 ms of every 350 lost": (
        {"latency": 0.02, "rate": 1e6, "outages": [(start * 0.35, start * 0.35 + 0.05) for start in range(100)]},
        15,
    ),
    "2 % corrupted": ({"latency": 0.02, "rate": 5e6, "corruption": 0.02}, 5),
    "every datagram twice": ({"latency": 0.02, "rate": 5e6, "duplication": 1.0}, 5),
    "half of all reordered": ({"latency": 0.02, "rate": 5e6, "reordering": 0.5}, 10),
    "a modem with a short queue": ({"latency": 0.05, "rate": 100_000, "queue_size": 8_000}, 30),
    "a modem with a long queue": ({"latency": 0.05, "rate": 100_000, "queue_size": 500_000}, 30),
    "MTU 1200": ({"latency": 0.02, "rate": 5e6, "mtu": 1200}, 5),
    "MTU 1352 and loss": ({"latency": 0.02, "rate": 5e6, "mtu": 1352, "loss": 0.02}, 10),
    "jumbo frames": ({"latency": 0.005, "rate": 50e6, "mtu": 8972}, 2),
    "loopback": ({"latency": 0.0001, "mtu": 65_507}, 1),
    "satellite": ({"latency": 0.3, "rate": 5e6, "loss": 0.001}, 15),
}


def bad_link(first: Session, second: Session, conditions: dict[str, Any]) -> Link:
    """Return a link of Ethernet's MTU, unless the conditions say otherwise, between two inboxes."""
    link = Link(first, second, on_event=Inbox())
    for name, value in ({"mtu": 1472} | conditions).items():
        setattr(link.forth, name, value)
        setattr(link.back, name, value)
    return link


@pytest.mark.parametrize(("network", "within"), NETWORKS.values(), ids=NETWORKS)
def test_a_transfer_arrives_whole_over(network: dict[str, Any], within: float) -> None:
    initiator, responder = session_pair(controller=CONTROLLERS["bbr"])
    link = bad_link(initiator, responder, network)

    transfer(link, initiator, responder, os.urandom(1_000_000), within=within)

    assert initiator.statistics().bytes_sent < 2_000_000
    assert responder.statistics().frames_received <= initiator.statistics().frames_sent


@pytest.mark.parametrize("controller", ["cubic", "newreno"])
@pytest.mark.parametrize("name", ["200 Mbit/s", "a third lost", "a modem with a short queue", "satellite"])
def test_a_transfer_arrives_whole_with_any_controller_over(name: str, controller: str) -> None:
    initiator, responder = session_pair(controller=CONTROLLERS[controller])
    link = bad_link(initiator, responder, NETWORKS[name][0])

    transfer(link, initiator, responder, os.urandom(300_000), within=300)


@pytest.mark.parametrize("begins", [0.0, 0.03, 0.2])
def test_a_transfer_survives_an_outage_of_ten_seconds(begins: float) -> None:
    initiator, responder = session_pair(controller=CONTROLLERS["bbr"])
    link = Link(initiator, responder, latency=0.02, rate=5e6, mtu=1472, on_event=Inbox())
    for direction in (link.forth, link.back):
        direction.outages.append((begins, begins + 10.0))

    taken = transfer(link, initiator, responder, os.urandom(1_000_000))

    # Probe time-outs double: the last one may come as late again as the outage was long.
    assert 10.0 < taken < 22.0


@pytest.mark.parametrize("direction", ["forth", "back"])
def test_a_transfer_survives_an_outage_of_one_direction(direction: str) -> None:
    initiator, responder = session_pair(controller=CONTROLLERS["bbr"])
    link = Link(initiator, responder, latency=0.02, rate=5e6, mtu=1472, on_event=Inbox())
    getattr(link, direction).outages.append((0.1, 5.1))

    assert transfer(link, initiator, responder, os.urandom(1_000_000)) < 12.0


@pytest.mark.parametrize(("forth", "back"), [(5e6, 20_000), (50_000, 5e6)])
def test_rates_may_differ_by_direction(forth: float, back: float) -> None:
    initiator, responder = session_pair(controller=CONTROLLERS["bbr"])
    link = Link(initiator, responder, latency=0.02, mtu=1472, on_event=Inbox())
    link.forth.rate, link.back.rate = forth, back

    taken = transfer(link, initiator, responder, os.urandom(500_000), within=120)

    assert taken < 3 * 500_000 / forth + 3.0


def test_both_directions_carry_at_once() -> None:
    initiator, responder = session_pair(controller=CONTROLLERS["bbr"])
    inbox = Inbox()
    link = Link(initiator, responder, latency=0.02, rate=5e6, mtu=1472, loss=0.01, on_event=inbox)
    sent = {end: os.urandom(MIB) for end in (initiator, responder)}
    for end, data in sent.items():
        stream_id = end.open_stream()
        assert stream_id is not None
        end.write(stream_id, data)
        end.end_stream(stream_id)

    link.wait_for(lambda: inbox.has_ended(responder, 1) and inbox.has_ended(initiator, 2))

    assert inbox.data(responder, 1) == sent[initiator]
    assert inbox.data(initiator, 2) == sent[responder]


@pytest.mark.parametrize("at", [0.0, 0.05, 0.5])
def test_an_mtu_black_hole_in_mid_transfer_is_found(at: float) -> None:
    initiator, responder = session_pair(controller=CONTROLLERS["bbr"])
    inbox = Inbox()
    link = Link(initiator, responder, latency=0.02, rate=1e6, mtu=1472, on_event=inbox)
    begin_mtu_search(initiator)
    link.run(2.0)
    assert initiator.statistics().datagram_size == 1472
    data = os.urandom(1_000_000)
    initiator.open_stream()
    initiator.write(1, data)
    initiator.end_stream(1)

    link.run(2.0 + at)
    link.forth.mtu = link.back.mtu = 1300
    link.wait_for(lambda: inbox.has_ended(responder))

    assert inbox.data(responder) == data
    assert initiator.statistics().datagram_size <= 1300


@pytest.mark.parametrize("latency", [0.0, 0.02])
def test_a_reliable_link_carries_a_transfer(latency: float) -> None:
    initiator, responder = session_pair(capabilities=MESSAGES)
    link = Link(initiator, responder, latency=latency, mtu=10**6, on_event=Inbox())

    transfer(link, initiator, responder, os.urandom(10 * MIB))
    transfer(link, responder, initiator, os.urandom(10 * MIB))

    statistics = initiator.statistics()
    assert statistics.frames_lost == 0
    assert statistics.bytes_sent < 10.1 * MIB
    assert link.back.sent < 2 * 10 * MIB / 60_000


def test_acknowledgements_are_rare_on_a_reliable_link() -> None:
    initiator, responder = session_pair(capabilities=MESSAGES)
    link = Link(initiator, responder, latency=0.001, mtu=10**6, on_event=Inbox())

    transfer(link, initiator, responder, os.urandom(10 * MIB))

    # One for each 256 KiB, and what credit asks for.
    assert link.back.sent < 2 * 10 * MIB / (256 * 1024)


def test_a_reliable_link_sends_no_frame_that_the_peer_would_refuse() -> None:
    initiator, responder = session_pair(
        config=STTConfig(), responder_config=STTConfig(max_frame_size=5_000), capabilities=MESSAGES
    )
    link = Link(initiator, responder, latency=0.001, mtu=10**6, on_event=Inbox(), record=True)

    transfer(link, initiator, responder, os.urandom(100_000))

    assert max(len(crossing.data) for crossing in link.forth.crossed) == 5_000


def test_a_small_limit_of_datagrams_does_not_shrink_reliable_messages() -> None:
    initiator, responder = session_pair(config=STTConfig(max_datagram_size=1200), capabilities=MESSAGES)
    link = Link(initiator, responder, latency=0.001, mtu=10**6, on_event=Inbox(), record=True)

    transfer(link, initiator, responder, os.urandom(100_000))

    assert max(len(crossing.data) for crossing in link.forth.crossed) > 60_000


def test_a_transfer_takes_few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    # A timer that is always due would show here: each round is an input, or time that was asked for.
    rounds = 0
    original = Session.handle_timeout

    def handle_timeout(end: Session, now: float) -> None:
        nonlocal rounds
        rounds += 1
        due = end.next_timeout()
        assert due is None or due <= now
        original(end, now)

    monkeypatch.setattr(Session, "handle_timeout", handle_timeout)
    initiator, responder = session_pair(controller=CONTROLLERS["bbr"])
    link = Link(initiator, responder, latency=0.02, rate=5e6, mtu=1472, loss=0.02, on_event=Inbox())

    transfer(link, initiator, responder, os.urandom(1_000_000))

    assert rounds < 2 * (link.forth.sent + link.back.sent)


# Messages

CUSTOM = {0x90: True, 0x91: False}


def messages(link: Link, end: Session) -> list[tuple[int, bytes, bool]]:
    return [
        (event.frame_type, event.data, event.reliable)
        for event in link.events(end)
        if isinstance(event, events.MessageReceived)
    ]


def test_messages_come_under_their_type_and_as_reliably_as_was_asked() -> None:
    initiator, responder = session_pair(custom=CUSTOM)
    link = Link(initiator, responder, latency=0.02, mtu=1472)

    assert initiator.send_message(0x90, b"reliable", reliable=True)
    assert initiator.send_message(0x91, b"bare", reliable=False)
    assert initiator.send_message(FrameType.ENDPOINT_ROUTE, b"of the endpoints", reliable=True)
    assert initiator.send_message(0x90, b"", reliable=True)
    link.run(1.0)

    assert sorted(messages(link, responder)) == [
        (FrameType.ENDPOINT_ROUTE, b"of the endpoints", True),
        (0x90, b"", True),
        (0x90, b"reliable", True),
        (0x91, b"bare", False),
    ]


def test_reliable_messages_come_once_and_whole_whatever_the_network_does() -> None:
    initiator, responder = session_pair(custom=CUSTOM)
    link = bad_link(initiator, responder, {"latency": 0.02, "loss": 0.1, "duplication": 0.1, "reordering": 0.2})
    sent = [os.urandom(size) for size in (0, 1, 1000, 2000, 65_536) for _ in range(5)]
    for data in sent:
        assert initiator.send_message(0x90, data, reliable=True)

    link.run(30.0)

    assert sorted(data for _, data, _ in messages(link, responder)) == sorted(sent)


@pytest.mark.parametrize(("reliable", "size"), [(True, 65_536), (False, 1156)])
def test_a_message_that_is_too_long_is_refused(*, reliable: bool, size: int) -> None:
    session = alice()

    assert session.send_message(0x90, bytes(size), reliable=reliable)
    with pytest.raises(LocalError, match=f"{size} is the most"):
        session.send_message(0x90, bytes(size + 1), reliable=reliable)


def test_more_messages_are_taken_as_the_peer_handles_them() -> None:
    initiator, responder = session_pair(custom=CUSTOM)
    link = Link(initiator, responder, latency=0.02, mtu=1472)
    sent = 0
    while initiator.send_message(0x90, b"x", reliable=True):
        sent += 1
    assert sent == 256
    link.run(1.0)
    assert events.MessagesAllowed() not in link.events(initiator)

    for _ in range(100):
        responder.message_handled()
    link.run(2.0)

    assert events.MessagesAllowed() in link.events(initiator)
    assert initiator.send_message(0x90, b"x", reliable=True)


def test_a_peer_that_sends_more_messages_than_are_handled_breaks_the_protocol() -> None:
    session = make_session(is_initiator=False, custom=CUSTOM)
    session.events()
    rogue = RoguePeer(is_initiator=True)

    rogue.send(session, 0x90, MessageFragment(255, 1, 0, b"x").encode())
    assert stands(session, State.ACTIVE)
    rogue.send(session, 0x90, MessageFragment(256, 1, 0, b"x").encode())

    assert ended(session).code == ErrorCode.FLOW_CONTROL


# Where the peer is; more in the tests of the path table


def test_a_session_goes_where_its_peer_moves() -> None:
    initiator, responder = session_pair(controller=CONTROLLERS["bbr"])
    link = Link(initiator, responder, latency=0.02, mtu=1472, on_event=Inbox())
    link.run(1.0)
    link.move(initiator, ("10.0.0.1", 50_001))

    transfer(link, initiator, responder, os.urandom(300_000))
    link.move(initiator, ("10.9.9.9", 9))
    transfer(link, initiator, responder, os.urandom(300_000))

    assert responder.path.address == ("10.9.9.9", 9)
    assert responder.path in responder.path_keys


def test_a_path_frame_from_elsewhere_is_answered_there_and_moves_nothing() -> None:
    session, rogue = bob(), RoguePeer(is_initiator=True)
    elsewhere = session.path._replace(address="elsewhere")
    home = session.path

    challenge = rogue.seal(FrameType.PATH, PathProbe(PathKind.CHALLENGE, b"12345678").encode(1156))
    deliver(session, challenge, now=0.0, path=elsewhere)

    assert session.path == home
    trains = session.trains_to_send(0.0)
    ((_, kind, _, plaintext),) = rogue.read([(key, train) for key, train in trains if key == elsewhere])
    assert (kind, plaintext[:9]) == (FrameType.PATH, b"\x0112345678")


def test_an_initiator_adds_a_path_and_moves_when_the_host_says_that_nobody_listens() -> None:
    session, rogue = alice(), RoguePeer(is_initiator=False)
    first = session.path
    second = first._replace(address="elsewhere")
    session.add_path(first, 0, 0.0)
    session.add_path(second, 1, 0.0)
    session.handle_timeout(0.0)
    probes = rogue.read([(key, train) for key, train in session.trains_to_send(0.0) if key == second])
    token = probes[0][3][1:9]
    response = rogue.seal(FrameType.PATH, PathProbe(PathKind.RESPONSE, token).encode())
    deliver(session, response, now=0.1, path=second)

    session.path_unreachable(first, "connection refused", 0.2)

    assert session.path == second


def test_a_session_without_a_path_is_kept_for_a_while_without_spinning() -> None:
    session, rogue = bob(keepalive=True, resume_timeout=45.0), RoguePeer(is_initiator=True)
    rogue.send(session, FrameType.KEEPALIVE, bytes(8))  # whose acknowledgement can no longer leave

    session.path_lost(session.path, "unplugged", 1.0)

    assert session.trains_to_send(1.0) == []
    session.handle_timeout(2.0)  # at rest
    assert session.next_timeout() == 46.0
    session.handle_timeout(46.0)
    assert ended(session) == events.SessionEnded(ErrorCode.TIMEOUT, "unplugged", by_peer=False)


def test_a_peer_that_the_host_calls_unreachable_has_a_grace_to_be_heard() -> None:
    session, rogue = bob(), RoguePeer(is_initiator=True)
    session.path_unreachable(session.path, "connection refused", 1.0)
    rogue.send(session, FrameType.DATAGRAM, b"I am here", now=2.0)
    session.handle_timeout(10.0)
    assert stands(session, State.ACTIVE)

    session.path_unreachable(session.path, "connection refused", 10.0)
    session.handle_timeout(20.0)
    assert ended(session) == events.SessionEnded(ErrorCode.TIMEOUT, "connection refused", by_peer=False)


def test_an_unvalidated_address_gets_three_times_what_came_and_the_end_only_within_that() -> None:
    session, rogue = bob(), RoguePeer(is_initiator=True)
    session.open_stream()
    session.write(2, bytes(50_000))
    elsewhere = session.path._replace(address="elsewhere")
    deliver(session, rogue.seal(FrameType.DATAGRAM, bytes(1000)), now=0.0, path=elsewhere)

    sent = sum(len(train.data) for key, train in session.trains_to_send(0.0) if key == elsewhere)
    assert 1200 < sent <= 3 * 1044

    session.close(0, "r" * 256, 0.0)
    sent += sum(len(train.data) for _, train in session.trains_to_send(0.0))
    assert sent <= 3 * 1044


def test_a_challenge_is_small_or_waits_where_little_came() -> None:
    session, rogue = bob(), RoguePeer(is_initiator=True)
    elsewhere = session.path._replace(address="elsewhere")
    deliver(session, rogue.seal(FrameType.DATAGRAM, b"x"), now=0.0, path=elsewhere)
    sizes = []
    for step in range(40):
        trains = session.trains_to_send(step / 10)
        sizes += [len(train.data) for key, train in trains if key == elsewhere]
        session.handle_timeout(step / 10)

    assert sizes == [53, 53]  # a third would be more than three times 45 bytes


def test_an_end_that_does_not_fit_into_the_threefold_limit_is_not_told() -> None:
    session, rogue = bob(), RoguePeer(is_initiator=True)
    elsewhere = session.path._replace(address="elsewhere")
    deliver(session, rogue.seal(FrameType.DATAGRAM, b"x"), now=0.0, path=elsewhere)
    session.close(0, "r" * 256, 0.0)

    assert session.trains_to_send(0.0) == []


def test_hints_about_paths_that_are_not_in_use_change_nothing() -> None:
    session = bob()
    elsewhere = session.path._replace(address="elsewhere")
    before = visible(session)

    session.path_unreachable(elsewhere, "connection refused", 0.0)
    session.path_lost(elsewhere, "unplugged", 0.0)

    assert visible(session) == before


def test_a_sender_on_a_reliable_path_waits_for_the_socket() -> None:
    session = make_session(is_initiator=True, capabilities=MESSAGES)
    session.open_stream()
    session.write(1, bytes(3_000_000))
    session.trains_to_send(0.0)

    assert session.statistics().waiting_for == "socket"
    assert session.next_timeout() == 0.0  # there is more, once others had their turn


def test_the_end_is_repeated_on_demand() -> None:
    session = bob()
    session.close(0, "", 0.0)
    assert len(datagrams_of(session)) == 1

    session.tell_end_again()

    assert len(datagrams_of(session)) == 1


# Anything in any order


def settle(session: Session, now: float) -> None:
    """Do what is due; whatever happened, nothing may then be due again at the same time."""
    for _ in range(4):
        session.trains_to_send(now)
        due = session.next_timeout()
        if due is None or due > now:
            return
        session.handle_timeout(now)
    raise AssertionError(f"due at {due}, and again, at {now}")


NUDGES: dict[str, Callable[[Session, float], object]] = {
    "write": lambda session, _: session.write(2, bytes(500)),
    "end": lambda session, _: session.end_stream(2),
    "reset": lambda session, _: session.reset_stream(2, 1),
    "stop": lambda session, _: session.stop_stream(1, 1),
    "read": lambda session, _: session.read(1, 10),
    "datagram": lambda session, _: session.send_datagram(b"x"),
    "message": lambda session, _: session.send_message(0x20, b"x" * 3000, reliable=True),
    "ping": lambda session, _: session.ping(),
    "rotate": lambda session, _: session.rotate_keys(),
    "lose": lambda session, now: session.path_lost(session.path, "unplugged", now),
    "unreachable": lambda session, now: session.path_unreachable(session.path, "refused", now),
    "close": lambda session, now: session.close(0, "", now),
}


@given(
    st.lists(
        st.tuples(
            st.floats(0, 3) | st.just(0.0),
            st.sampled_from(sorted(NUDGES)) | any_plaintexts() | any_plaintexts(),
            st.sampled_from(["home", "home", "rebound", "elsewhere"]),
        ),
        max_size=20,
    )
)
def test_time_never_stands_still(steps: list[tuple[float, str | Frame, str]]) -> None:
    session, rogue = bob(keepalive=True), RoguePeer(is_initiator=True)
    places = {"home": session.path}
    places |= {place: session.path._replace(address=place) for place in ("rebound", "elsewhere")}
    session.open_stream()
    now = 0.0

    for delay, step, place in steps:
        while (due := session.next_timeout()) is not None and due <= now + delay:
            now = max(now, due)
            session.handle_timeout(now)
            settle(session, now)
        now += delay
        if isinstance(step, str):
            with suppress(LocalError):
                NUDGES[step](session, now)
        else:
            kind, stream_id, plaintext = step
            deliver(session, rogue.seal(kind, plaintext, stream_id=stream_id), now=now, path=places[place])
        settle(session, now)
        session.events()


class Play:
    """Two applications and a bad network, which do one thing after the other; whatever is chosen is up to chance."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        config = STTConfig(
            max_streams=4, stream_credit=20_000, session_credit=50_000, rotate_after_frames=30, keepalive=True
        )
        self.ends = session_pair(config=config, controller=CONTROLLERS["bbr"])
        self.inbox = Inbox()
        self.link = Link(*self.ends, on_event=self.inbox, latency=0.01, mtu=1472, loss=0.05, reordering=0.05)
        self.written: dict[tuple[Session, int], bytearray] = {}
        self.going: list[tuple[Session, int]] = []
        self.messages = dict.fromkeys(self.ends, 0)

    def open(self) -> None:
        end = self.chance.choice(self.ends)
        stream_id = end.open_stream(priority=self.chance.randrange(8))
        if stream_id is not None:
            self.written[end, stream_id] = bytearray()
            self.going.append((end, stream_id))

    def write(self) -> None:
        if self.going:
            end, stream_id = self.chance.choice(self.going)
            data = self.chance.randbytes(self.chance.choice([0, 1, 100, 5000, 50_000]))
            if end.write(stream_id, data):
                self.written[end, stream_id] += data

    def end(self) -> None:
        if self.going:
            end, stream_id = self.going.pop(self.chance.randrange(len(self.going)))
            end.end_stream(stream_id)

    def datagram(self) -> None:
        self.chance.choice(self.ends).send_datagram(b"x")

    def message(self) -> None:
        end = self.chance.choice(self.ends)
        self.messages[end] += end.send_message(0x20, bytes(3000), reliable=True)

    def ping(self) -> None:
        self.chance.choice(self.ends).ping()

    def rotate(self) -> None:
        self.chance.choice(self.ends).rotate_keys()

    def move(self) -> None:
        host = self.chance.choice(["10.0.0.1", "10.9.9.9"])
        self.link.move(self.ends[0], (host, self.chance.randrange(65_536)))

    def fail(self) -> None:
        direction = self.chance.choice((self.link.forth, self.link.back))
        direction.outages.append((self.link.now, self.link.now + self.chance.random()))

    def wait(self) -> None:
        self.link.run(self.link.now + self.chance.choice([0.001, 0.05, 0.5]))

    def finish(self) -> None:
        """End all streams, and check that everything has arrived."""
        while self.going:
            self.end()
        self.link.run(self.link.now + 25.0)
        for (end, stream_id), data in self.written.items():
            reader = self.ends[1] if end is self.ends[0] else self.ends[0]
            assert self.inbox.has_ended(reader, stream_id)
            assert self.inbox.data(reader, stream_id) == data
        assert [end.statistics().streams for end in self.ends] == [0, 0]
        assert [len(messages(self.link, end)) for end in self.ends] == [*self.messages.values()][::-1]


OPERATIONS = ["open", "write", "write", "end", "datagram", "message", "ping", "rotate", "move", "fail", "wait", "wait"]


@settings(max_examples=40)
@given(st.lists(st.sampled_from(OPERATIONS), max_size=40), st.randoms(use_true_random=False))
def test_whatever_applications_and_the_network_do_everything_arrives(operations: list[str], chance: Random) -> None:
    play = Play(chance)

    for operation in operations:
        getattr(play, operation)()

    play.finish()
