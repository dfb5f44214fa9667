"""Do the messages of the transfer survive their encoding, and do any bytes give a message or one error?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_core.errors import FrameError
from stt_core.wire.serialization import serialize_stt
from stt_streaming.transfer.manifest import Entry, EntryKind, encode_manifest
from stt_streaming.transfer.messages import (
    LENGTH,
    MAX_ENTRIES,
    MAX_MANIFEST_SIZE,
    MAX_MESSAGE_SIZE,
    MAX_PLAN_SIZE,
    MAX_SIZE,
    Answer,
    Offer,
    PlanSize,
    TransferStatus,
    cut,
    decode_plan_size,
    message_size,
)

PAGE = Path(__file__).resolve().parents[3].joinpath("docs", "reference", "file-transfer.md").read_text(encoding="utf-8")

texts = st.text(st.characters(codec="utf-8")).map(lambda text: cut(text, 256))
counts = st.integers(1, 2**32 - 1)
offers = counts.flatmap(
    lambda count: st.builds(
        Offer,
        entries=st.integers(1, MAX_ENTRIES),
        manifest_size=st.integers(1, MAX_MANIFEST_SIZE),
        size=st.integers(0, MAX_SIZE),
        disk_size=st.integers(0, MAX_SIZE),
        item_id=st.one_of(st.just(b""), st.binary(min_size=16, max_size=16)),
        index=st.integers(0, count - 1),
        count=st.just(count),
    )
)
plan_sizes = st.builds(PlanSize, st.integers(0, MAX_PLAN_SIZE), st.just(b"") | st.binary(min_size=32, max_size=32))
answers = st.one_of(
    st.builds(
        Answer,
        status=st.sampled_from([status for status in TransferStatus if status is not TransferStatus.STORED]),
        text=texts,
    ),
    st.builds(Answer, status=st.just(TransferStatus.STORED), sha3_256=st.binary(min_size=32, max_size=32)),
)

OFFER = {
    "entries": 1,
    "manifest_size": 30,
    "size": 1,
    "disk_size": 1,
    "item_id": bytes(16),
    "index": 0,
    "count": 1,
}
STORED = {"status": 1, "sha3_256": bytes(32)}


@given(st.one_of(offers, plan_sizes, answers))
def test_decoding_inverts_encoding(message: Offer | PlanSize | Answer) -> None:
    encoded = message.encode()
    size = message_size(encoded[: LENGTH.size])

    assert size == len(encoded) - LENGTH.size
    assert type(message).decode(encoded[LENGTH.size :]) == message


@given(st.sampled_from([Offer, PlanSize, Answer]), st.binary(max_size=100))
def test_any_bytes_are_a_message_or_a_frame_error(kind: type[Offer | PlanSize | Answer], body: bytes) -> None:
    try:
        message = kind.decode(body)
    except FrameError:
        return
    assert isinstance(message, kind)


@pytest.mark.parametrize(
    "change",
    [
        {"entries": 0},
        {"entries": MAX_ENTRIES + 1},
        {"manifest_size": 0},
        {"manifest_size": MAX_MANIFEST_SIZE + 1},
        {"item_id": bytes(15)},
        {"item_id": "text"},
        {"disk_size": -1},
        {"size": -1},
        {"size": 2**63},
        {"size": 1.0},
        {"size": True},
        {"count": 0},
        {"count": 2**32},
        {"index": 1},
        {"index": -1},
    ],
)
def test_an_offer_out_of_bounds_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(FrameError, match=next(iter(change))):
        Offer.decode(serialize_stt(OFFER | change))


@pytest.mark.parametrize("key", OFFER)
def test_an_offer_that_lacks_something_is_refused(key: str) -> None:
    with pytest.raises(FrameError):
        Offer.decode(serialize_stt({name: value for name, value in OFFER.items() if name != key}))


@pytest.mark.parametrize(
    "fields",
    [{"status": 99}, {"status": 1}, {"status": 1, "sha3_256": bytes(31)}, {"status": 2, "text": "x" * 257}, {}],
)
def test_an_answer_out_of_bounds_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(FrameError):
        Answer.decode(serialize_stt(fields))


@given(st.one_of(plan_sizes, answers))
def test_after_the_acceptance_comes_a_plan_or_a_refusal(message: PlanSize | Answer) -> None:
    body = message.encode()[LENGTH.size :]
    if isinstance(message, Answer) and message.status in (TransferStatus.ACCEPTED, TransferStatus.STORED):
        with pytest.raises(FrameError):
            decode_plan_size(body)
    else:
        assert decode_plan_size(body) == message


@pytest.mark.parametrize("sha3_256", [b"", bytes(31), bytes(33), "d" * 32, None])
def test_a_plan_size_with_what_is_no_digest_is_refused(sha3_256: object) -> None:
    with pytest.raises(FrameError):
        PlanSize.decode(serialize_stt({"size": 0, "sha3_256": sha3_256}))


def test_keys_of_later_versions_are_ignored() -> None:
    assert Offer.decode(serialize_stt(OFFER | {"zebra": [1, 2]})) == Offer.decode(serialize_stt(OFFER))
    assert Answer.decode(serialize_stt(STORED | {"aardvark": None})).status is TransferStatus.STORED


@pytest.mark.parametrize("value", [None, 1, [], "text"])
def test_what_is_no_dict_is_refused(value: object) -> None:
    with pytest.raises(FrameError):
        PlanSize.decode(serialize_stt(value))


@pytest.mark.parametrize("size", [0, MAX_MESSAGE_SIZE + 1, 0xFFFF])
def test_a_length_that_no_message_has_is_refused(size: int) -> None:
    with pytest.raises(FrameError):
        message_size(LENGTH.pack(size))


def test_an_offer_and_its_manifest_look_as_the_documentation_has_it() -> None:
    (example,) = re.findall(r"^```text\n(006d.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    entry = Entry(kind=EntryKind.FILE, name="ab.txt", size=300, mode=0o644, modified_at=1_700_000_000_000_000_000)
    manifest = encode_manifest([entry])

    offer = Offer(entries=1, manifest_size=len(manifest), size=300, disk_size=300)

    assert offer.encode() + manifest == bytes.fromhex(example)


def test_every_status_is_documented() -> None:
    documented = {int(number): name for number, name in re.findall(r"^\| (\d+) \| `(\w+)` \|", PAGE, re.MULTILINE)}

    assert documented == {status.value: status.name for status in TransferStatus}


@given(st.text(st.characters()), st.integers(0, 40))
def test_cutting_leaves_whole_characters_within_the_size(text: str, size: int) -> None:
    piece = cut(text, size)

    assert len(piece.encode()) <= size
    assert text.encode(errors="replace").decode().startswith(piece)
