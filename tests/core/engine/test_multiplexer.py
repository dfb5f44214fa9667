from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from stt_core import events
from stt_core.config import STTConfig
from stt_core.engine.status import State
from stt_core.errors import ErrorCode, LocalError, SerializationError, StreamClosed
from stt_core.testing.link import Link, deliver
from stt_core.testing.sessions import Inbox, RoguePeer, make_session, session_pair
from stt_core.wire.frame import FrameType
from stt_core.wire.messages import (
    Ack,
    CloseKind,
    Credit,
    CreditKind,
    StreamClose,
    StreamMode,
    StreamOpen,
    decode_credit,
    decode_data,
    decode_stream_close,
    decode_stream_open,
    encode_data,
)

if TYPE_CHECKING:
    from stt_core.engine.session import Session


def stands(session: Session, state: State) -> bool:
    """Return whether a session is in a state; asked this way, because it changes between two questions."""
    return session.state is state


class Rogue:
    """A peer that says of streams whatever it likes to one session, and understands the answers."""

    def __init__(self, **changes: Any) -> None:
        config = STTConfig(**{"max_datagram_size": 1200} | changes)
        self.session = make_session(is_initiator=False, config=config)
        self.session.events()
        self.peer = RoguePeer(is_initiator=True)
        self.now = 0.0

    def open(self, stream_id: int = 1, priority: int = 3, label: str = "", metadata: object = None) -> None:
        message = StreamOpen(mode=StreamMode.RELIABLE, priority=priority, label=label, metadata=metadata)
        self.peer.send(self.session, FrameType.STREAM_OPEN, message.encode(), stream_id=stream_id, now=self.now)

    def data(self, offset: int, data: bytes, stream_id: int = 1) -> None:
        self.peer.send(self.session, FrameType.DATA, encode_data(offset, data), stream_id=stream_id, now=self.now)

    def close(self, kind: CloseKind, final_size: int = 0, stream_id: int = 1, code: int = 0) -> None:
        message = StreamClose(kind, code, final_size)
        self.peer.send(self.session, FrameType.STREAM_CLOSE, message.encode(), stream_id=stream_id, now=self.now)

    def credit(self, kind: CreditKind, limit: int, stream_id: int = 0) -> None:
        self.peer.send(self.session, FrameType.CREDIT, Credit(kind, limit).encode(), stream_id=stream_id, now=self.now)

    def frames(self, *types: FrameType) -> list[tuple[int, bytes]]:
        """Return stream id and plaintext of the frames of these types that the session sends now; all are acked."""
        frames = self.peer.read(self.session.trains_to_send(self.now))
        eliciting = [number for number, kind, _, _ in frames if kind != FrameType.ACK]
        if eliciting and self.session.state is State.ACTIVE:
            ack = Ack(0, ((eliciting[0], eliciting[-1]),)).encode()
            self.peer.send(self.session, FrameType.ACK, ack, now=self.now)
        return [(stream_id, plaintext) for _, kind, stream_id, plaintext in frames if kind in types]

    def credits(self, kind: CreditKind) -> list[tuple[int, int]]:
        """Return stream id and limit of the credits of a kind that the session gives now."""
        self.now += 1.0
        found = [(stream_id, decode_credit(plaintext)) for stream_id, plaintext in self.frames(FrameType.CREDIT)]
        return [(stream_id, credit.limit) for stream_id, credit in found if credit.kind is kind]


def opened(session: Session, label: str = "", priority: int = 3) -> int:
    stream_id = session.open_stream(label, priority)
    assert stream_id is not None
    return stream_id


def pair(**changes: Any) -> tuple[Session, Session, Link, Inbox]:
    initiator, responder = session_pair(config=STTConfig(**changes))
    inbox = Inbox()
    return initiator, responder, Link(initiator, responder, latency=0.01, mtu=1472, on_event=inbox), inbox


# Opening


def test_each_side_has_ids_of_its_own_without_gaps() -> None:
    initiator, responder = session_pair()

    assert [opened(initiator) for _ in range(3)] == [1, 3, 5]
    assert [opened(responder) for _ in range(3)] == [2, 4, 6]


def test_the_peer_learns_what_a_stream_is_for() -> None:
    initiator, responder = session_pair()
    link = Link(initiator, responder, latency=0.01)
    initiator.open_stream("video", 1, {"codec": "av1", "size": [640, 480]})

    link.run(1.0)

    assert events.StreamOpened(1) in link.events(responder)
    stream = responder.stream(1)
    assert stream is not None
    assert (stream.label, stream.priority, stream.metadata) == ("video", 1, {"codec": "av1", "size": [640, 480]})


def test_a_stream_is_announced_before_its_data_leaves() -> None:
    rogue = Rogue()
    opened(rogue.session, "first")
    rogue.session.write(2, b"data")

    frames = rogue.peer.read(rogue.session.trains_to_send(0.0))

    assert [kind for _, kind, _, _ in frames] == [FrameType.STREAM_OPEN, FrameType.DATA]
    assert decode_stream_open(frames[0][3]).label == "first"


@pytest.mark.parametrize("priority", [-1, 8])
def test_a_priority_that_there_is_not_is_refused(priority: int) -> None:
    with pytest.raises(LocalError):
        make_session(is_initiator=True).open_stream(priority=priority)


def test_a_label_that_is_too_long_is_refused_and_takes_no_id() -> None:
    session = make_session(is_initiator=True)

    with pytest.raises(LocalError):
        session.open_stream("x" * 1025)

    assert opened(session) == 1


def test_metadata_that_cannot_be_serialized_is_refused() -> None:
    with pytest.raises(SerializationError):
        make_session(is_initiator=True).open_stream(metadata=object())


def test_no_more_streams_than_the_peer_allows() -> None:
    session = make_session(is_initiator=True, config=STTConfig(max_streams=2))

    assert [session.open_stream() for _ in range(3)] == [1, 3, None]


def test_more_streams_are_allowed_as_the_old_ones_end() -> None:
    initiator, responder, link, inbox = pair(max_streams=4)
    for number in range(50):
        while (stream_id := initiator.open_stream()) is None:
            told = len(link.events(initiator))
            link.wait_for(lambda: events.StreamsAllowed() in link.events(initiator)[told:])  # noqa: B023  at once
        assert stream_id == 2 * number + 1
        initiator.write(stream_id, b"hello")
        initiator.end_stream(stream_id)

    link.wait_for(lambda: inbox.has_ended(responder, 99))
    link.run(link.now + 1.0)

    assert len([event for event in link.events(responder) if isinstance(event, events.StreamOpened)]) == 50
    assert (initiator.statistics().streams, responder.statistics().streams) == (0, 0)


def test_the_stream_limit_is_told_anew_after_a_quarter_has_ended() -> None:
    rogue = Rogue(max_streams=8)
    for stream_id in (1, 3):
        rogue.open(stream_id)
        rogue.close(CloseKind.END, 0, stream_id)
        rogue.session.read(stream_id, 1)
        rogue.session.end_stream(stream_id)
        rogue.frames()
        assert events.StreamForgotten(stream_id) in rogue.session.events()

    assert rogue.credits(CreditKind.STREAMS) == [(0, 10)]


def test_a_frame_makes_all_lower_streams_exist_and_none_is_opened_by_it() -> None:
    rogue = Rogue()

    rogue.data(0, b"data", stream_id=7)

    assert rogue.session.statistics().streams == 4
    assert rogue.session.events() == []


def test_data_that_overtakes_its_opening_waits_for_it() -> None:
    rogue = Rogue()

    rogue.data(0, b"early")
    assert rogue.session.events() == []
    rogue.open(label="late")

    assert rogue.session.events() == [events.StreamOpened(1), events.StreamReadable(1)]
    assert rogue.session.read(1, 100) == b"early"


def test_an_answer_that_overtakes_the_acknowledgement_of_the_opening_is_told() -> None:
    rogue = Rogue()
    stream_id = opened(rogue.session)
    rogue.session.write(stream_id, b"question")
    rogue.session.trains_to_send(0.0)

    rogue.data(0, b"answer", stream_id)

    assert events.StreamReadable(stream_id) in rogue.session.events()
    assert rogue.session.read(stream_id, 100) == b"answer"


def test_data_that_overtakes_its_opening_is_bounded_by_credit() -> None:
    rogue = Rogue(stream_credit=1000)

    rogue.data(0, bytes(1000))
    assert stands(rogue.session, State.ACTIVE)
    rogue.data(1000, b"x")

    assert stands(rogue.session, State.CLOSING)


def test_a_stream_that_ended_before_its_opening_is_told_of() -> None:
    rogue = Rogue()

    rogue.close(CloseKind.END)
    rogue.open()

    assert rogue.session.events() == [events.StreamOpened(1), events.StreamReadable(1)]
    assert rogue.session.read(1, 100) == b""
    stream = rogue.session.stream(1)
    assert stream is not None
    assert stream.receiving.at_end


def test_an_opening_that_comes_twice_is_told_of_once() -> None:
    rogue = Rogue()

    rogue.open(label="first", priority=1)
    rogue.open(label="second", priority=2)

    assert rogue.session.events() == [events.StreamOpened(1)]
    stream = rogue.session.stream(1)
    assert stream is not None
    assert (stream.label, stream.priority) == ("first", 1)


@pytest.mark.parametrize(
    ("stream_id", "mode", "code"),
    [(1, StreamMode.UNRELIABLE, ErrorCode.UNSUPPORTED), (2, StreamMode.RELIABLE, ErrorCode.STREAM)],
)
def test_an_opening_that_cannot_be_ends_the_session(stream_id: int, mode: StreamMode, code: ErrorCode) -> None:
    rogue = Rogue()
    opened(rogue.session)
    message = StreamOpen(mode=mode, priority=3, label="", metadata=None).encode()

    rogue.peer.send(rogue.session, FrameType.STREAM_OPEN, message, stream_id=stream_id)

    (event,) = rogue.session.events()
    assert isinstance(event, events.SessionEnded)
    assert event.code == code


# Bytes


def test_a_reader_is_told_once_for_a_burst() -> None:
    rogue = Rogue()
    rogue.open()
    rogue.session.events()
    frames = [rogue.peer.seal(FrameType.DATA, encode_data(index, b"x"), stream_id=1) for index in range(20)]

    deliver(rogue.session, *frames, now=0.0)

    assert rogue.session.events() == [events.StreamReadable(1)]
    assert rogue.session.read(1, 100) == b"x" * 20


def test_reading_takes_what_is_in_order_and_no_more_than_asked() -> None:
    rogue = Rogue()
    rogue.open()
    rogue.data(0, b"0123456789")
    rogue.data(20, b"gap before me")

    assert rogue.session.read(1, 4) == b"0123"
    assert rogue.session.read(1, 100) == b"456789"
    assert rogue.session.read(1, 100) == b""


def test_reading_a_stream_that_is_not_there_gives_nothing() -> None:
    assert make_session(is_initiator=True).read(1, 100) == b""


def test_a_write_to_a_full_buffer_takes_nothing_until_there_is_room() -> None:
    initiator, responder, link, inbox = pair(send_buffer_size=10_000)
    stream_id = opened(initiator)
    assert initiator.write(stream_id, bytes(10_000))
    assert not initiator.write(stream_id, b"more")

    link.wait_for(lambda: events.StreamWritable(stream_id) in link.events(initiator))

    assert initiator.write(stream_id, b"more")
    link.wait_for(lambda: len(inbox.data(responder)) == 10_004)


def test_writing_behind_the_end_is_refused() -> None:
    session = make_session(is_initiator=True)
    stream_id = opened(session)
    session.end_stream(stream_id)

    with pytest.raises(StreamClosed) as raised:
        session.write(stream_id, b"more")

    assert (raised.value.code, raised.value.by_peer) == (ErrorCode.NO_ERROR, False)


def test_writing_to_a_stream_that_is_over_is_refused() -> None:
    with pytest.raises(LocalError, match="stream 9 is over"):
        make_session(is_initiator=True).write(9, b"x")


def test_delivery_is_told_when_all_and_the_end_were_acknowledged() -> None:
    initiator, responder, link, inbox = pair()
    stream_id = opened(initiator)
    initiator.write(stream_id, bytes(50_000))
    link.run(5.0)
    assert events.StreamDelivered(stream_id) not in link.events(initiator)

    initiator.end_stream(stream_id)
    link.run(6.0)

    assert link.events(initiator).count(events.StreamDelivered(stream_id)) == 1
    assert inbox.has_ended(responder)


# Ending


def test_one_direction_ends_and_the_other_goes_on() -> None:
    initiator, responder = session_pair()
    link = Link(initiator, responder, latency=0.01)
    stream_id = opened(initiator)
    initiator.write(stream_id, b"question")
    initiator.end_stream(stream_id)
    link.run(1.0)
    assert responder.read(stream_id, 100) == b"question"
    stream = responder.stream(stream_id)
    assert stream is not None
    assert stream.receiving.at_end

    responder.write(stream_id, b"ans")
    link.run(2.0)
    responder.write(stream_id, b"wer")
    responder.end_stream(stream_id)
    link.run(3.0)

    assert initiator.read(stream_id, 100) == b"answer"
    assert events.StreamForgotten(stream_id) in initiator.events()
    assert initiator.stream(stream_id) is None


def test_the_end_of_an_empty_stream_is_told() -> None:
    initiator, responder, link, inbox = pair()
    stream_id = opened(initiator)
    initiator.end_stream(stream_id)

    link.run(1.0)

    assert inbox.has_ended(responder)
    assert (initiator.statistics().streams, responder.statistics().streams) == (0, 0)


def test_ending_twice_or_a_stream_that_is_not_there_changes_nothing() -> None:
    rogue = Rogue()
    stream_id = opened(rogue.session)
    rogue.session.end_stream(stream_id)
    rogue.session.end_stream(stream_id)
    rogue.session.end_stream(98)

    closes = rogue.frames(FrameType.STREAM_CLOSE)

    assert [decode_stream_close(plaintext) for _, plaintext in closes] == [StreamClose(CloseKind.END, 0, 0)]


def test_the_end_leaves_with_the_last_byte() -> None:
    rogue = Rogue()
    stream_id = opened(rogue.session)
    rogue.session.write(stream_id, b"data")
    rogue.session.end_stream(stream_id)

    kinds = [kind for _, kind, _, _ in rogue.peer.read(rogue.session.trains_to_send(0.0))]

    assert kinds == [FrameType.STREAM_OPEN, FrameType.DATA, FrameType.STREAM_CLOSE]


def test_the_end_waits_for_bytes_that_credit_holds_back() -> None:
    rogue = Rogue(stream_credit=100)
    stream_id = opened(rogue.session)
    rogue.session.write(stream_id, bytes(150))
    rogue.session.end_stream(stream_id)
    assert rogue.frames(FrameType.STREAM_CLOSE) == []

    rogue.credit(CreditKind.STREAM, 150, stream_id)

    ((_, plaintext),) = rogue.frames(FrameType.STREAM_CLOSE)
    assert decode_stream_close(plaintext) == StreamClose(CloseKind.END, 0, 150)


def test_a_reset_drops_what_was_not_read_and_tells_the_reader() -> None:
    initiator, responder = session_pair()
    link = Link(initiator, responder, latency=0.01)
    stream_id = opened(initiator)
    initiator.write(stream_id, bytes(1000))
    link.run(1.0)
    initiator.reset_stream(stream_id, 0x777)
    link.run(2.0)

    assert responder.read(stream_id, 100) == b""
    stream = responder.stream(stream_id)
    assert stream is not None
    assert stream.receiving.reset_code == 0x777
    readable = events.StreamReadable(stream_id)
    assert link.events(responder).count(readable) == 2


def test_writing_after_a_reset_is_refused_with_its_code() -> None:
    session = make_session(is_initiator=True)
    stream_id = opened(session)
    session.reset_stream(stream_id, 0x777)

    with pytest.raises(StreamClosed) as raised:
        session.write(stream_id, b"x")

    assert (raised.value.code, raised.value.by_peer) == (0x777, False)


def test_a_reset_tells_how_much_was_sent_and_not_what_was_written() -> None:
    rogue = Rogue(stream_credit=100)
    stream_id = opened(rogue.session)
    rogue.session.write(stream_id, bytes(150))
    rogue.frames()

    rogue.session.reset_stream(stream_id, 5)

    ((_, plaintext),) = rogue.frames(FrameType.STREAM_CLOSE)
    assert decode_stream_close(plaintext) == StreamClose(CloseKind.RESET, 5, 100)


def test_a_reset_overtakes_an_end_that_has_not_left() -> None:
    rogue = Rogue()
    stream_id = opened(rogue.session)
    rogue.session.end_stream(stream_id)
    rogue.session.reset_stream(stream_id, 5)

    ((_, plaintext),) = rogue.frames(FrameType.STREAM_CLOSE)

    assert decode_stream_close(plaintext).kind is CloseKind.RESET


def test_a_reset_of_what_was_delivered_changes_nothing() -> None:
    rogue = Rogue()
    stream_id = opened(rogue.session)
    rogue.session.end_stream(stream_id)
    rogue.frames()

    rogue.session.reset_stream(stream_id, 5)
    rogue.session.reset_stream(98, 5)

    assert rogue.frames(FrameType.STREAM_CLOSE) == []


def test_a_writer_that_waits_learns_of_a_reset() -> None:
    session = make_session(is_initiator=True, config=STTConfig(send_buffer_size=10))
    session.events()
    stream_id = opened(session)
    session.write(stream_id, bytes(10))
    assert not session.write(stream_id, b"x")

    session.reset_stream(stream_id, 5)

    assert session.events() == [events.StreamWritable(stream_id)]


def test_stop_makes_the_peer_reset_with_the_code() -> None:
    initiator, responder = session_pair()
    link = Link(initiator, responder, latency=0.01)
    stream_id = opened(initiator)
    initiator.write(stream_id, b"unwanted")
    link.run(1.0)
    responder.stop_stream(stream_id, 0x555)
    link.run(2.0)

    with pytest.raises(StreamClosed) as raised:
        initiator.write(stream_id, b"more")

    assert (raised.value.code, raised.value.by_peer) == (0x555, True)
    assert events.StreamWritable(stream_id) in link.events(initiator)
    responder.end_stream(stream_id)
    link.run(3.0)
    assert (initiator.statistics().streams, responder.statistics().streams) == (0, 0)


def test_stopping_drops_what_had_come_and_what_comes() -> None:
    rogue = Rogue()
    rogue.open()
    rogue.data(0, b"had come")
    rogue.session.events()

    rogue.session.stop_stream(1, 5)
    rogue.data(8, b"comes")

    assert rogue.session.events() == []
    assert rogue.session.read(1, 100) == b""
    ((stream_id, plaintext),) = rogue.frames(FrameType.STREAM_CLOSE)
    assert (stream_id, decode_stream_close(plaintext)) == (1, StreamClose(CloseKind.STOP_SENDING, 5))


def test_stopping_what_has_ended_or_is_not_there_says_nothing() -> None:
    rogue = Rogue()
    rogue.open()
    rogue.close(CloseKind.END)
    rogue.session.read(1, 100)

    rogue.session.stop_stream(1, 5)
    rogue.session.stop_stream(97, 5)

    assert rogue.frames(FrameType.STREAM_CLOSE) == []


def test_being_stopped_twice_resets_once() -> None:
    rogue = Rogue()
    stream_id = opened(rogue.session)
    rogue.close(CloseKind.STOP_SENDING, stream_id=stream_id, code=5)
    rogue.close(CloseKind.STOP_SENDING, stream_id=stream_id, code=6)

    closes = rogue.frames(FrameType.STREAM_CLOSE)

    assert [decode_stream_close(plaintext) for _, plaintext in closes] == [StreamClose(CloseKind.RESET, 5, 0)]


def test_a_stream_is_forgotten_once_both_halves_are_over() -> None:
    rogue = Rogue()
    rogue.open()
    rogue.close(CloseKind.RESET, 0, code=9)
    rogue.session.end_stream(1)
    assert rogue.session.stream(1) is not None

    rogue.frames()

    assert rogue.session.stream(1) is None
    assert rogue.session.events()[-2:] == [events.StreamDelivered(1), events.StreamForgotten(1)]


def test_late_frames_of_a_forgotten_stream_are_ignored() -> None:
    rogue = Rogue()
    own = opened(rogue.session)
    rogue.open()
    for stream_id in (1, own):
        rogue.close(CloseKind.END, 0, stream_id)
        rogue.session.read(stream_id, 1)
        rogue.session.end_stream(stream_id)
    rogue.frames()
    assert rogue.session.statistics().streams == 0
    rogue.session.events()

    for stream_id in (1, own):
        rogue.data(0, b"late", stream_id)
        rogue.open(stream_id)
        rogue.close(CloseKind.END, 99, stream_id)
        rogue.close(CloseKind.STOP_SENDING, 0, stream_id)
        rogue.credit(CreditKind.STREAM, 99, stream_id)

    assert rogue.session.events() == []
    assert rogue.session.statistics().streams == 0
    assert stands(rogue.session, State.ACTIVE)


def test_acknowledgements_of_a_forgotten_stream_are_ignored() -> None:
    rogue = Rogue()
    stream_id = opened(rogue.session)
    rogue.session.write(stream_id, b"data")
    rogue.session.end_stream(stream_id)
    rogue.close(CloseKind.END, 0, stream_id)
    first = rogue.peer.read(rogue.session.trains_to_send(0.0))
    rogue.now = 30.0
    rogue.session.handle_timeout(2.0)  # a probe repeats all of it
    again = rogue.peer.read(rogue.session.trains_to_send(2.0))
    rogue.session.read(stream_id, 1)
    for frames in (first, again):
        numbers = [number for number, *_ in frames]
        rogue.now = 2.1
        ack = Ack(0, ((numbers[0], numbers[-1]),)).encode()
        rogue.peer.send(rogue.session, FrameType.ACK, ack, now=2.1)

    assert rogue.session.statistics().streams == 0
    assert stands(rogue.session, State.ACTIVE)


# Credit


def test_credit_is_renewed_after_a_quarter_was_read() -> None:
    rogue = Rogue(stream_credit=1000, session_credit=10_000)
    rogue.open()
    rogue.data(0, bytes(1000))

    rogue.session.read(1, 249)
    assert rogue.credits(CreditKind.STREAM) == []
    rogue.session.read(1, 1)
    assert rogue.credits(CreditKind.STREAM) == [(1, 1250)]


def test_session_credit_is_renewed_over_all_streams() -> None:
    rogue = Rogue(stream_credit=1000, session_credit=2000)
    for stream_id in (1, 3):
        rogue.open(stream_id)
        rogue.data(0, bytes(1000), stream_id)

    rogue.session.read(1, 300)
    assert rogue.credits(CreditKind.SESSION) == []
    rogue.session.read(3, 300)
    assert rogue.credits(CreditKind.SESSION) == [(0, 2600)]


def test_a_stream_whose_size_is_known_needs_no_more_credit() -> None:
    rogue = Rogue(stream_credit=1000)
    rogue.open()
    rogue.data(0, bytes(1000))
    rogue.close(CloseKind.END, 1000)

    rogue.session.read(1, 1000)

    assert rogue.credits(CreditKind.STREAM) == []


def test_what_nobody_reads_any_more_comes_back_as_session_credit() -> None:
    rogue = Rogue(stream_credit=1000, session_credit=1000)
    rogue.open()
    rogue.data(0, bytes(400))
    rogue.session.stop_stream(1, 0)
    assert rogue.credits(CreditKind.SESSION) == [(0, 1400)]

    rogue.data(400, bytes(600))

    assert rogue.credits(CreditKind.SESSION) == [(0, 2000)]


@pytest.mark.parametrize("kind", [CloseKind.END, CloseKind.RESET])
def test_the_rest_of_a_stopped_stream_comes_back_once(kind: CloseKind) -> None:
    rogue = Rogue(stream_credit=1000, session_credit=1000)
    rogue.open()
    rogue.data(0, bytes(100))
    rogue.session.stop_stream(1, 0)

    rogue.close(kind, 500)

    assert rogue.credits(CreditKind.SESSION) == [(0, 1500)]


def test_what_a_reset_voids_comes_back_as_session_credit() -> None:
    rogue = Rogue(stream_credit=1000, session_credit=1000)
    rogue.open()
    rogue.data(0, bytes(100))
    rogue.session.read(1, 50)

    rogue.close(CloseKind.RESET, 900)
    rogue.close(CloseKind.RESET, 900)
    rogue.data(500, bytes(100))

    assert rogue.credits(CreditKind.SESSION) == [(0, 1900)]


def test_no_more_leaves_than_the_credit_of_a_stream() -> None:
    rogue = Rogue(stream_credit=1000)
    stream_id = opened(rogue.session)
    rogue.session.write(stream_id, bytes(3000))

    assert sum(len(decode_data(plaintext)[1]) for _, plaintext in rogue.frames(FrameType.DATA)) == 1000
    assert rogue.session.statistics().waiting_for == "credit"
    rogue.credit(CreditKind.STREAM, 1500, stream_id)
    assert sum(len(decode_data(plaintext)[1]) for _, plaintext in rogue.frames(FrameType.DATA)) == 500


def test_no_more_leaves_than_the_credit_of_the_session() -> None:
    rogue = Rogue(session_credit=1000)
    for _ in range(3):
        rogue.session.write(opened(rogue.session), bytes(3000))

    assert sum(len(decode_data(plaintext)[1]) for _, plaintext in rogue.frames(FrameType.DATA)) == 1000
    assert rogue.session.statistics().waiting_for == "credit"
    rogue.credit(CreditKind.SESSION, 1500)
    assert sum(len(decode_data(plaintext)[1]) for _, plaintext in rogue.frames(FrameType.DATA)) == 500


def test_credit_that_comes_late_takes_nothing_back() -> None:
    rogue = Rogue(stream_credit=1000, max_streams=2)
    stream_id = opened(rogue.session)
    rogue.session.write(stream_id, bytes(3000))
    rogue.frames()
    rogue.session.events()

    rogue.credit(CreditKind.STREAM, 10, stream_id)
    rogue.credit(CreditKind.SESSION, 10)
    rogue.credit(CreditKind.STREAMS, 1)

    assert rogue.session.events() == []
    assert rogue.frames(FrameType.DATA) == []
    assert rogue.session.open_stream() == 4


def test_more_streams_are_told_of_when_the_peer_allows_them() -> None:
    rogue = Rogue(max_streams=1)
    opened(rogue.session)
    assert rogue.session.open_stream() is None

    rogue.credit(CreditKind.STREAMS, 2)

    assert rogue.session.events() == [events.StreamsAllowed()]
    assert rogue.session.open_stream() == 4


def test_more_messages_are_told_of_when_somebody_waits_for_it() -> None:
    rogue = Rogue()
    rogue.credit(CreditKind.MESSAGES, 300)
    assert rogue.session.events() == []
    for _ in range(300):
        assert rogue.session.send_message(FrameType.ENDPOINT_ROUTE, b"x", reliable=True)
    assert not rogue.session.send_message(FrameType.ENDPOINT_ROUTE, b"x", reliable=True)

    rogue.credit(CreditKind.MESSAGES, 301)

    assert rogue.session.events() == [events.MessagesAllowed()]


def test_credit_for_a_stream_that_was_not_opened_yet_gives_it_no_place_in_the_queue() -> None:
    # It would keep the priority that it had before its opening told the real one.
    rogue = Rogue()
    rogue.credit(CreditKind.STREAM, 10_000_000, stream_id=1)
    rogue.open(1, priority=7)
    rogue.open(3, priority=0)
    for stream_id in (1, 3):
        rogue.session.write(stream_id, bytes(4_000_000))
    rogue.session.events()

    sizes = {1: 0, 3: 0}
    for step in range(8):
        rogue.now = step / 100
        for stream_id, plaintext in rogue.frames(FrameType.DATA):
            sizes[stream_id] += len(plaintext)

    assert sizes[3] > 20 * sizes[1]


def test_a_reader_that_does_not_read_bounds_what_is_kept_at_both_ends() -> None:
    initiator, responder = session_pair(config=STTConfig(stream_credit=100_000, send_buffer_size=50_000))
    link = Link(initiator, responder, latency=0.01, mtu=1472)
    stream_id = opened(initiator)
    written = 0
    for _ in range(200):
        while initiator.write(stream_id, bytes(10_000)):
            written += 10_000
        link.run(link.now + 0.05)

    assert written == 100_000 + 50_000
    assert responder.statistics().bytes_received < 130_000
    assert initiator.statistics().waiting_for == "credit"


def test_a_slow_reader_gets_it_all() -> None:
    initiator, responder = session_pair(config=STTConfig(stream_credit=10_000))
    link = Link(initiator, responder, latency=0.01, mtu=1472)
    stream_id = opened(initiator)
    data = os.urandom(100_000)
    initiator.write(stream_id, data)
    initiator.end_stream(stream_id)
    received = bytearray()

    for _ in range(200):
        link.run(link.now + 0.05)
        received += responder.read(stream_id, 1000)

    assert received == data


def test_one_stream_that_is_not_read_does_not_hold_the_others_back() -> None:
    initiator, responder = session_pair(config=STTConfig(stream_credit=10_000, session_credit=50_000))
    link = Link(initiator, responder, latency=0.01, mtu=1472)
    stuck, going = opened(initiator), opened(initiator)
    data = os.urandom(100_000)
    initiator.write(stuck, data)
    initiator.write(going, data)
    received = bytearray()

    for _ in range(100):
        link.run(link.now + 0.05)
        received += responder.read(going, 10_000)

    assert received == data


# Turns


@pytest.mark.parametrize(("first", "second", "ratio"), [(3, 3, 1.0), (0, 1, 2.0), (1, 3, 4.0)])
def test_priorities_share_what_there_is(first: int, second: int, ratio: float) -> None:
    initiator, responder, link, inbox = pair()
    link.forth.rate = 1_000_000.0
    for priority in (first, second):
        initiator.write(opened(initiator, priority=priority), bytes(3_000_000))

    link.run(1.5)

    got = [len(inbox.data(responder, stream_id)) for stream_id in (1, 3)]
    assert sum(got) > 500_000
    assert got[0] / got[1] == pytest.approx(ratio, rel=0.25)


def test_no_priority_starves() -> None:
    initiator, responder, link, inbox = pair()
    link.forth.rate = 2_000_000.0
    for priority in (0, 7):
        initiator.write(opened(initiator, priority=priority), bytes(4_000_000))

    link.run(1.5)

    assert len(inbox.data(responder, 3)) > 0


def test_an_end_that_comes_when_all_was_read_wakes_the_reader_before_the_stream_is_forgotten() -> None:
    initiator, responder = session_pair()
    link = Link(initiator, responder)
    stream_id = initiator.open_stream()
    assert stream_id is not None
    initiator.write(stream_id, b"all of it")
    link.run(until=1.0)
    assert responder.read(stream_id, 100) == b"all of it"
    responder.end_stream(stream_id)
    link.run(until=2.0)

    initiator.end_stream(stream_id)
    link.run(until=3.0)

    told = [
        event for event in link.events(responder) if isinstance(event, events.StreamReadable | events.StreamForgotten)
    ]
    assert told[-2:] == [events.StreamReadable(stream_id), events.StreamForgotten(stream_id)]
    assert len(told) == 3  # the first one told of the bytes
