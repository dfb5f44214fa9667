from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_core.defaults.suites import SUITES
from stt_core.engine.keys import ReceiveKeys
from stt_core.engine.opener import OpenedFrame, open_frames
from stt_core.engine.replay import ReplayWindow
from stt_core.testing.sessions import RoguePeer
from stt_core.wire.frame import FrameType, encode_frame, split_frames

SECRETS = (b"\1" * 32, b"\2" * 32)
SESSION_ID = b"a label!"


class Opener:
    """The receiving side of one direction, and somebody who seals for it."""

    def __init__(self) -> None:
        self.keys = ReceiveKeys(SECRETS[0], SUITES[1])
        self.replay = ReplayWindow(65_536)
        self.sealer = RoguePeer(is_initiator=True, session_id=SESSION_ID, secrets=SECRETS)

    def seal(self, number: int, epoch: int = 0, flags: int | None = None) -> bytes:
        plaintext = number.to_bytes(8, "big")
        return self.sealer.seal(FrameType.DATAGRAM, plaintext, number=number, epoch=epoch, flags=flags)

    def open(self, *datagrams: bytes, now: float = 0.0, keep: float = 0.0) -> list[OpenedFrame]:
        frames = [frame for datagram in datagrams for frame in split_frames(datagram)]
        return open_frames(frames, self.keys, self.replay, keep, now)

    def numbers(self, *datagrams: bytes) -> list[int]:
        opened = self.open(*datagrams)
        assert all(int.from_bytes(plaintext, "big") == number for number, _, _, plaintext in opened)
        return [number for number, *_ in opened]


def test_frames_open_with_number_type_stream_and_plaintext() -> None:
    opener = Opener()
    frame = opener.sealer.seal(FrameType.DATA, b"plaintext", stream_id=9, number=4)

    assert opener.open(frame) == [(4, FrameType.DATA, 9, b"plaintext")]


def test_frames_open_in_the_order_in_which_they_came() -> None:
    opener = Opener()

    assert opener.numbers(opener.seal(5), opener.seal(2), opener.seal(9)) == [5, 2, 9]


def test_no_frames_are_none() -> None:
    assert Opener().open() == []


def test_a_frame_opens_once() -> None:
    opener = Opener()
    frame = opener.seal(7)

    assert opener.numbers(frame, frame) == [7]
    assert opener.numbers(frame) == []


def test_those_that_do_not_open_leave_no_trace() -> None:
    opener = Opener()
    forged = [encode_frame(FrameType.DATA, SESSION_ID, 1, number, number & 3, bytes(40)) for number in range(1000)]

    assert opener.open(*forged) == []

    assert opener.replay.highest == -1
    assert opener.keys.epoch == 0
    assert opener.numbers(opener.seal(0)) == [0]


def test_a_forgery_does_not_use_its_number_up() -> None:
    opener = Opener()
    forged = bytearray(opener.seal(3))
    forged[-5] ^= 1

    assert opener.numbers(bytes(forged), opener.seal(3)) == [3]


@pytest.mark.parametrize("bit", range(2, 8))
def test_a_flag_that_must_be_zero_drops_a_frame_before_it_is_opened(bit: int) -> None:
    opener = Opener()

    assert opener.open(opener.seal(0, flags=1 << bit)) == []
    assert opener.keys.forgeries == 0


def test_a_frame_that_is_too_old_is_not_opened() -> None:
    opener = Opener()
    old = opener.seal(10)
    opener.open(opener.seal(10 + 65_536))

    assert opener.open(old) == []
    assert opener.keys.forgeries == 0


def test_the_next_epoch_is_followed_and_its_predecessor_kept_for_ten_seconds() -> None:
    opener = Opener()

    opener.open(opener.seal(5, epoch=1), now=100.0)

    assert opener.keys.epoch == 1
    assert opener.keys.next_expiry == 110.0


def test_the_predecessor_is_kept_longer_where_probe_timeouts_are_long() -> None:
    opener = Opener()

    opener.open(opener.seal(5, epoch=1), now=100.0, keep=25.0)

    assert opener.keys.next_expiry == 125.0


@pytest.mark.parametrize(
    ("seen", "number"),
    [
        (0, 2**31),  # as far ahead as the bits can tell
        (2**31, 1),
        (2**32 - 1, 2**32),
        (2**32, 2**32 - 1),
        (2**32 + 5, 2**32 + 2**31),
        (2**40 + 2**31, 2**40 + 2**32),
        (2**33 - 1, 2**33 + 2**31),  # half of the range ahead or behind: the RFC takes it for ahead
    ],
)
def test_numbers_are_rebuilt_on_both_sides_of_what_is_expected(seen: int, number: int) -> None:
    opener = Opener()
    opener.replay.add(seen)

    distance = abs(number - seen)
    expected = [number] if number > seen or distance < 65_536 else []
    assert opener.numbers(opener.seal(number)) == expected


def test_a_number_is_never_rebuilt_below_zero() -> None:
    opener = Opener()

    # The first frame could as well be one of 2^32 - 1 sent before the first: there are none.
    assert opener.numbers(opener.seal(2**32 - 1)) == [2**32 - 1]


@given(st.integers(0, 2**62), st.integers(-(2**31) + 1, 2**31 - 1))
def test_every_number_within_half_the_range_of_what_is_expected_is_rebuilt(highest: int, distance: int) -> None:
    opener = Opener()
    opener.replay.add(highest)
    number = highest + 1 + distance
    if number < 0:
        return

    opened = opener.numbers(opener.seal(number))

    fresh = number > highest or number > highest - 60_000
    if number != highest and fresh:
        assert opened == [number]
    else:
        assert opened in ([], [number])


@given(st.lists(st.integers(0, 200), max_size=60))
def test_each_number_opens_exactly_once_in_any_order(order: list[int]) -> None:
    opener = Opener()

    opened = [
        number
        for start in range(0, len(order), 7)
        for number in opener.numbers(*map(opener.seal, order[start : start + 7]))
    ]

    assert sorted(opened) == sorted(set(order))
