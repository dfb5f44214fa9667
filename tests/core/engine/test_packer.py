"""Do bytes of streams fill datagrams and trains, whichever way they were written?"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_core.config import STTConfig
from stt_core.testing.sessions import RoguePeer, make_session
from stt_core.wire.frame import FrameType, split_frames
from stt_core.wire.messages import Ack, decode_data, encode_data, pad, unpad

if TYPE_CHECKING:
    from stt_core.interfaces.transport import Train

RELIABLE_LIMIT = 65_507  # bytes that one call of the kernel takes as a train
FULL = {1200, 1472}  # bytes of a full datagram before the path was probed, and after
NOISE = random.Random(3).randbytes(1 << 20)


class Receiver:
    """The other end of a session: keeps the trains that come, acknowledges all, and puts streams together."""

    def __init__(self, **changes: Any) -> None:
        config = STTConfig(max_datagram_size=1472, **changes)
        self.session = make_session(is_initiator=True, config=config)
        self.peer = RoguePeer(is_initiator=False)
        self.trains: list[Train] = []
        self.streams: dict[int, bytearray] = {}
        self.padded = bool(config.padding)
        self.now = 0.0

    def take(self, rounds: int) -> None:
        """Let the session send, a round trip at a time."""
        for _ in range(rounds):
            self.now += 0.01
            trains = self.session.trains_to_send(self.now)
            self.trains += [train for _, train in trains]
            numbers = []
            for number, kind, stream_id, sealed in self.peer.read(trains):
                numbers.append(number)
                plaintext = bytes(unpad(sealed)) if self.padded else sealed
                if kind == FrameType.DATA:
                    offset, data = decode_data(plaintext)
                    assert encode_data(offset, data) == plaintext  # the offset is in its shortest form
                    stream = self.streams.setdefault(stream_id, bytearray())
                    assert offset == len(stream)
                    stream += data
            if numbers:
                self.now += 0.01
                ack = Ack(0, ((numbers[0], numbers[-1]),)).encode()
                ack = pad(ack, 16) if self.padded else ack
                self.peer.send(self.session, FrameType.ACK, ack, now=self.now)

    @property
    def datagrams(self) -> list[bytes]:
        return [bytes(datagram) for train in self.trains for datagram in train.segments()]


@given(
    st.lists(st.integers(1, 70_000), min_size=1, max_size=12),
    st.sampled_from([0, 16, 256]),
    st.integers(0, 3),
)
def test_what_arrives_is_what_was_written(sizes: list[int], padding: int, pause: int) -> None:
    receiver = Receiver(padding=padding)
    stream_id = receiver.session.open_stream()
    assert stream_id is not None
    at = 0
    for index, size in enumerate(sizes):
        assert receiver.session.write(stream_id, NOISE[at : at + size])
        at += size
        if pause and index % pause == 0:
            receiver.take(1)
    receiver.take(60)

    assert receiver.streams[stream_id] == NOISE[:at]
    assert all(len(datagram) <= 1472 for datagram in receiver.datagrams)
    for train in receiver.trains:
        assert len(train.data) <= RELIABLE_LIMIT
        *full, last = (len(segment) for segment in train.segments())
        assert set(full) <= {train.segment_size}
        assert last <= train.segment_size


def test_a_large_write_leaves_in_full_datagrams() -> None:
    receiver = Receiver()
    stream_id = receiver.session.open_stream()
    assert stream_id is not None
    for start in range(0, len(NOISE), 100_000):
        assert receiver.session.write(stream_id, NOISE[start : start + 100_000])
    receiver.take(60)

    assert receiver.streams[stream_id] == NOISE
    sizes = [len(datagram) for datagram in receiver.datagrams if len(datagram) > 200]
    # Where bytes run out or the window does, a datagram is short: not at the seams of writes.
    assert sum(size not in FULL for size in sizes) <= 4
    assert max(len(train.data) for train in receiver.trains) > RELIABLE_LIMIT - 1472


@pytest.mark.parametrize("boundary", [1 << 7, 1 << 14])
def test_an_offset_that_takes_a_byte_more_still_fills_its_datagram(boundary: int) -> None:
    receiver = Receiver()
    stream_id = receiver.session.open_stream()
    assert stream_id is not None
    assert receiver.session.write(stream_id, NOISE[: boundary - 1])
    receiver.take(20)
    receiver.trains.clear()
    assert receiver.session.write(stream_id, NOISE[boundary - 1 : boundary + 60_000])
    receiver.take(20)

    assert receiver.streams[stream_id] == NOISE[: boundary + 60_000]
    assert {len(datagram) for datagram in receiver.datagrams[:3]} <= FULL


def test_streams_of_one_priority_take_turns() -> None:
    receiver = Receiver()
    first, second = (receiver.session.open_stream() for _ in range(2))
    assert first is not None
    assert second is not None
    assert receiver.session.write(first, NOISE[:400_000])
    assert receiver.session.write(second, NOISE[:400_000])
    while len(receiver.streams.get(first, b"")) < 200_000:
        receiver.take(1)

    sent = [len(receiver.streams.get(stream_id, b"")) for stream_id in (first, second)]
    assert abs(sent[0] - sent[1]) <= 2 * 16 * 1024 + 2 * 1472


def test_every_datagram_holds_whole_frames() -> None:
    receiver = Receiver()
    stream_id = receiver.session.open_stream()
    assert stream_id is not None
    assert receiver.session.write(stream_id, NOISE[:100_000])
    receiver.take(20)

    for datagram in receiver.datagrams:
        assert sum(28 + len(frame.payload) for frame in split_frames(datagram)) == len(datagram)
