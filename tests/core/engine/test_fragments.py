from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_core.engine.fragments import DATAGRAM_SIZE, Reassembly, split_fragment, to_datagrams
from stt_core.errors import HandshakeError
from stt_core.wire.frame import FrameType, RawFrame, encode_frame, split_frames

NONCE = bytes(range(32))


def fragment(total: int, offset: int, data: bytes, **header: int) -> RawFrame:
    payload = total.to_bytes(2, "big") + offset.to_bytes(2, "big") + data
    return frame(payload, **header)


def frame(payload: bytes, stream_id: int = 0, sequence: int = 0, flags: int = 0, metadata: int = 0) -> RawFrame:
    encoded = encode_frame(
        FrameType.HANDSHAKE_RESPONSE, NONCE[:8], stream_id, sequence, flags, payload, bytes(metadata)
    )
    return split_frames(encoded)[0]


def fragments(message: bytes) -> list[tuple[int, int, memoryview]]:
    datagrams = to_datagrams(FrameType.HANDSHAKE_RESPONSE, NONCE, message)
    return [split_fragment(split_frames(datagram)[0], 8192) for datagram in datagrams]


@given(st.binary(min_size=1, max_size=5000))
def test_joining_inverts_cutting(message: bytes) -> None:
    datagrams = to_datagrams(FrameType.HANDSHAKE_CHALLENGE, NONCE, message)
    buffer = Reassembly()

    joined = [buffer.add(*split_fragment(raw, 5000)) for datagram in datagrams for raw in split_frames(datagram)]

    assert joined == [None] * (len(datagrams) - 1) + [message]
    assert all(len(datagram) <= DATAGRAM_SIZE for datagram in datagrams)
    assert {split_frames(datagram)[0].session_id for datagram in datagrams} == {NONCE[:8]}


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_fragments_come_in_any_order(order: tuple[int, ...]) -> None:
    message = bytes(range(250)) * 10
    parts = fragments(message)
    buffer = Reassembly()

    *before, last = [buffer.add(*parts[number]) for number in order]

    assert before == [None, None]
    assert last == message


@given(st.binary(min_size=2, max_size=60), st.data())
def test_fragments_may_be_cut_anywhere_and_overlap(message: bytes, data: st.DataObject) -> None:
    buffer = Reassembly()
    cuts = st.tuples(st.integers(0, len(message) - 1), st.integers(1, len(message)))
    known = bytearray(len(message))
    for start, size in data.draw(st.lists(cuts, max_size=30)):
        end = min(start + size, len(message))
        known[start:end] = b"\x01" * (end - start)
        whole = buffer.add(len(message), start, memoryview(message)[start:end])
        assert whole == (None if 0 in known else message)
        if whole is not None:
            known = bytearray(len(message))


def test_repeated_fragments_change_nothing() -> None:
    message = bytes(range(200)) * 8
    first, second = fragments(message)
    buffer = Reassembly()

    assert [buffer.add(*part) for part in (first, first, first, second)] == [None, None, None, message]


@pytest.mark.parametrize("total", [1600, 1601, 2000])
def test_a_forged_fragment_does_not_keep_a_repetition_from_getting_through(total: int) -> None:
    message = bytes(range(200)) * 8
    buffer = Reassembly()

    buffer.add(total, 0, memoryview(bytes(1000)))
    joined = [buffer.add(*part) for part in fragments(message)]

    assert joined == [None, message]


def test_a_buffer_begins_anew_once_the_message_is_whole() -> None:
    first, second = fragments(bytes(range(200)) * 8)
    buffer = Reassembly()
    buffer.add(*first)
    buffer.add(*second)

    assert buffer.add(*second) is None


@pytest.mark.parametrize("header", ["stream_id", "sequence", "flags", "metadata"])
def test_header_fields_that_are_not_zero_are_refused(header: str) -> None:
    with pytest.raises(HandshakeError, match="not zero"):
        split_fragment(fragment(10, 0, b"x", **{header: 1}), 10)


@pytest.mark.parametrize("size", range(5))
def test_a_frame_without_data_is_refused(size: int) -> None:
    with pytest.raises(HandshakeError, match="without data"):
        split_fragment(frame(bytes(size)), 10)


@pytest.mark.parametrize(
    ("total", "offset", "data"), [(11, 0, b"x"), (0xFFFF, 0, b"x"), (10, 10, b"x"), (10, 8, b"xyz"), (0, 0, b"x")]
)
def test_what_is_beyond_the_message_or_its_bound_is_refused(total: int, offset: int, data: bytes) -> None:
    with pytest.raises(HandshakeError, match="where 10 are possible"):
        split_fragment(fragment(total, offset, data), 10)
    assert split_fragment(fragment(10, 9, b"x"), 10) == (10, 9, memoryview(b"x"))
