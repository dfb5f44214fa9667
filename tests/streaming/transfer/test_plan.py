"""Does a plan survive its encoding, and is one that fits no manifest refused?"""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_core.errors import FrameError
from stt_streaming.transfer import plan as plan_module
from stt_streaming.transfer.manifest import Entry, EntryKind
from stt_streaming.transfer.plan import MARK_INTERVAL, MAX_MARKS, Mark, Plan, decode_plan, encode_plan, mark_offsets

ENTRIES = [
    Entry(kind=EntryKind.FOLDER, name="f"),
    Entry(kind=EntryKind.FILE, name="a", size=1000),
    Entry(kind=EntryKind.LINK, name="l", size=3),
    Entry(kind=EntryKind.FILE, name="b", size=1 << 40),
]

digests = st.binary(min_size=32, max_size=32)


def marks(size: int) -> st.SearchStrategy[tuple[Mark, ...]]:
    offsets = st.sets(st.integers(1, size), max_size=MAX_MARKS)
    return offsets.flatmap(
        lambda chosen: st.tuples(*(st.builds(Mark, st.just(each), digests) for each in sorted(chosen)))
    )


plans = st.fixed_dictionaries({}, optional={1: marks(1000), 2: st.just(()), 3: marks(1 << 40)})


@given(plans)
def test_decoding_inverts_encoding(plan: Plan) -> None:
    assert decode_plan(encode_plan(plan), ENTRIES) == plan


@given(st.binary(max_size=200))
def test_any_bytes_are_a_plan_or_a_frame_error(data: bytes) -> None:
    try:
        plan = decode_plan(data, ENTRIES)
    except FrameError:
        return
    assert all(mark.offset <= ENTRIES[index].size for index, found in plan.items() for mark in found)


@pytest.mark.parametrize(
    "data",
    [
        b"\x00",
        struct.pack(">IB", 4, 0),
        struct.pack(">IB", 1, 1),
        struct.pack(">IB", 2, 1) + bytes(7) + b"\x01" + bytes(32),
        struct.pack(">IB", 1, 1) + bytes(40),
        struct.pack(">IBQ", 1, 1, 1001) + bytes(32),
        struct.pack(">IBQ", 1, 2, 5) + bytes(32) + struct.pack(">Q", 5) + bytes(32),
        struct.pack(">IB", 1, 0) * 2,
        struct.pack(">IB", 3, 0) + struct.pack(">IB", 1, 0),
        struct.pack(">IB", 3, 65) + b"".join(struct.pack(">Q", n) + bytes(32) for n in range(1, 66)),
    ],
)
def test_a_plan_against_the_rules_is_refused(data: bytes) -> None:
    with pytest.raises(FrameError):
        decode_plan(data, ENTRIES)


def test_marks_for_which_there_is_no_room_are_left_out_but_not_what_is_unwanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plan_module, "MAX_PLAN_SIZE", 60)

    data = encode_plan({1: (Mark(5, bytes(32)),), 2: (), 3: (Mark(5, bytes(32)),)})

    assert decode_plan(data, ENTRIES) == {1: (Mark(5, bytes(32)),), 2: ()}


@given(st.integers(0, 1 << 50))
def test_marks_are_few_and_reach_to_the_end(size: int) -> None:
    offsets = mark_offsets(size)

    assert len(offsets) <= MAX_MARKS
    assert offsets == sorted(set(offsets))
    assert offsets[-1:] == ([size] if size else [])
    steps = [after - before for before, after in zip([0, *offsets], offsets, strict=False)]
    assert all(step <= max(MARK_INTERVAL, -(-size // MAX_MARKS)) for step in steps)
