"""Reliable messages: whole, once, whatever is lost, and within bounds."""

from __future__ import annotations

import contextlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_core.engine.mailbox import INITIAL_MESSAGES, IncomingMessages, OutgoingMessages
from stt_core.errors import ErrorCode, RemoteError
from stt_core.wire.messages import MessageFragment

TYPE = 0x90


def fragment(message_id: int, total: int, offset: int, data: bytes) -> bytes:
    return MessageFragment(message_id, total, offset, data).encode()


def drain(outgoing: OutgoingMessages, size: int) -> list[tuple[int, int, int, int, bytes]]:
    pieces = []
    while outgoing:
        message_id, frame_type, total, start, data = outgoing.take(size)
        pieces.append((message_id, frame_type, total, start, bytes(data)))
    return pieces


def test_a_message_is_cut_to_the_room_there_is() -> None:
    outgoing = OutgoingMessages()
    outgoing.put(TYPE, b"abcdefg")

    assert drain(outgoing, 3) == [(0, TYPE, 7, 0, b"abc"), (0, TYPE, 7, 3, b"def"), (0, TYPE, 7, 6, b"g")]


def test_an_empty_message_is_one_piece() -> None:
    outgoing = OutgoingMessages()
    outgoing.put(TYPE, b"")

    assert drain(outgoing, 100) == [(0, TYPE, 0, 0, b"")]


def test_a_lost_empty_message_is_sent_again_until_it_arrived() -> None:
    outgoing = OutgoingMessages()
    outgoing.put(TYPE, b"")
    drain(outgoing, 100)

    outgoing.lost(0, 0, 0)
    again = drain(outgoing, 100)
    outgoing.acknowledged(0, 0, 0)
    outgoing.lost(0, 0, 0)

    assert again == [(0, TYPE, 0, 0, b"")]
    assert not outgoing


def test_a_lost_piece_is_sent_again_and_may_be_cut_otherwise() -> None:
    outgoing = OutgoingMessages()
    outgoing.put(TYPE, b"abcdefgh")
    drain(outgoing, 4)

    outgoing.acknowledged(0, 4, 8)
    outgoing.lost(0, 0, 4)

    assert drain(outgoing, 3) == [(0, TYPE, 8, 0, b"abc"), (0, TYPE, 8, 3, b"d")]


def test_what_arrived_is_not_sent_again() -> None:
    outgoing = OutgoingMessages()
    outgoing.put(TYPE, b"abcdefgh")
    drain(outgoing, 4)

    outgoing.acknowledged(0, 0, 8)
    outgoing.lost(0, 0, 4)
    outgoing.acknowledged(0, 0, 8)

    assert not outgoing


def test_the_sender_waits_for_room_and_is_told_of_it_once() -> None:
    outgoing = OutgoingMessages()
    for _ in range(INITIAL_MESSAGES):
        assert outgoing.put(TYPE, b"x")

    assert not outgoing.put(TYPE, b"x")
    assert not outgoing.allow(INITIAL_MESSAGES)
    assert outgoing.allow(INITIAL_MESSAGES + 1)
    assert not outgoing.allow(INITIAL_MESSAGES + 2)
    assert outgoing.put(TYPE, b"x")


def test_a_message_is_delivered_once_it_is_whole() -> None:
    incoming = IncomingMessages(100)

    assert incoming.receive(TYPE, fragment(0, 6, 3, b"def")) is None
    assert incoming.receive(TYPE, fragment(0, 6, 0, b"abc")) == b"abcdef"


def test_a_message_is_delivered_once_only() -> None:
    incoming = IncomingMessages(100)
    incoming.receive(TYPE, fragment(0, 3, 0, b"abc"))

    assert incoming.receive(TYPE, fragment(0, 3, 0, b"abc")) is None


def test_a_message_does_not_wait_for_those_before_it() -> None:
    incoming = IncomingMessages(100)

    assert incoming.receive(TYPE, fragment(5, 3, 0, b"abc")) == b"abc"


@pytest.mark.parametrize(
    ("pieces", "code"),
    [
        ([(TYPE, fragment(INITIAL_MESSAGES, 1, 0, b"a"))], ErrorCode.FLOW_CONTROL),
        ([(TYPE, fragment(0, 101, 0, b"a"))], ErrorCode.LIMIT),
        ([(TYPE, fragment(0, 9, 0, b"a")), (TYPE + 1, fragment(0, 9, 1, b"b"))], ErrorCode.PROTOCOL),
        ([(TYPE, fragment(0, 9, 0, b"a")), (TYPE, fragment(0, 8, 1, b"b"))], ErrorCode.PROTOCOL),
    ],
    ids=["beyond the limit", "too long", "another type", "another length"],
)
def test_a_peer_that_breaks_the_rules_is_refused(pieces: list[tuple[int, bytes]], code: ErrorCode) -> None:
    incoming = IncomingMessages(100)

    for frame_type, plaintext in pieces[:-1]:
        incoming.receive(frame_type, plaintext)

    with pytest.raises(RemoteError) as caught:
        incoming.receive(*pieces[-1])

    assert caught.value.code is code


def test_a_peer_cannot_cut_a_message_into_any_number_of_pieces() -> None:
    incoming = IncomingMessages(65_536)

    for offset in range(0, 4096, 2):
        incoming.receive(TYPE, fragment(0, 65_536, offset, b"x"))

    with pytest.raises(RemoteError) as caught:
        incoming.receive(TYPE, fragment(0, 65_536, 5000, b"x"))

    assert caught.value.code is ErrorCode.LIMIT


def test_the_peer_is_told_of_room_after_a_quarter_was_handled() -> None:
    incoming = IncomingMessages(100)

    told = [incoming.handled() for _ in range(INITIAL_MESSAGES // 4)]

    assert told == [False] * (INITIAL_MESSAGES // 4 - 1) + [True]
    assert incoming.renew() == INITIAL_MESSAGES + INITIAL_MESSAGES // 4
    assert not incoming.handled()


@given(st.binary(max_size=60))
def test_any_bytes_are_a_piece_or_one_error(plaintext: bytes) -> None:
    incoming = IncomingMessages(1000)

    with contextlib.suppress(RemoteError):  # FrameError is one
        incoming.receive(TYPE, plaintext)


@given(
    messages=st.lists(st.binary(max_size=200), min_size=1, max_size=40),
    size=st.integers(1, 90),
    seed=st.integers(0, 2**32),
)
def test_every_message_arrives_once_whatever_is_lost_and_reordered(messages: list[bytes], size: int, seed: int) -> None:
    chance = random.Random(seed)
    outgoing, incoming = OutgoingMessages(), IncomingMessages(1000)
    for message in messages:
        outgoing.put(TYPE, message)
    delivered: list[bytes] = []

    while outgoing:
        pieces = drain(outgoing, size)
        chance.shuffle(pieces)
        for message_id, frame_type, total, start, data in pieces:
            stop = start + len(data)
            if chance.random() < 0.3:
                outgoing.lost(message_id, start, stop)
                continue
            for _ in range(chance.choice((1, 1, 2))):
                whole = incoming.receive(frame_type, fragment(message_id, total, start, data))
                if whole is not None:
                    delivered.append(whole)
            if chance.random() < 0.2:
                outgoing.lost(message_id, start, stop)  # declared lost although it arrived
            outgoing.acknowledged(message_id, start, stop)

    assert sorted(delivered) == sorted(messages)
