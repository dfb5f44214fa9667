from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_core.errors import ErrorCode, FrameError, LocalError
from stt_core.testing import strategies
from stt_core.wire.varint import MAX_VARINT, MAX_VARINT_SIZE, decode_varint, encode_varint, varint_size

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "varint.json").read_text())
VALID = [(int(vector["value"]), bytes.fromhex(vector["bytes"])) for vector in VECTORS["valid"]]
HUGE = pytest.param(1 << 20_000, id="huge")


@pytest.mark.parametrize(("value", "encoded"), VALID)
def test_vectors_hold_in_both_directions(value: int, encoded: bytes) -> None:
    assert encode_varint(value) == encoded
    assert decode_varint(encoded) == (value, len(encoded))
    assert varint_size(value) == len(encoded)


@pytest.mark.parametrize("encoded", [encoded for _, encoded in VALID])
def test_every_truncation_is_refused(encoded: bytes) -> None:
    for size in range(len(encoded)):
        with pytest.raises(FrameError):
            decode_varint(encoded[:size])


@pytest.mark.parametrize(("value", "encoded"), VALID)
def test_what_stands_before_and_behind_is_not_looked_at(value: int, encoded: bytes) -> None:
    for junk in (b"\x00", b"\x80", b"\xff" * 12):
        assert decode_varint(b"\xff\x80" + encoded + junk, 2) == (value, 2 + len(encoded))


@pytest.mark.parametrize("vector", VECTORS["invalid"], ids=lambda vector: vector["why"])
def test_malformed_vectors_are_refused(vector: dict[str, str]) -> None:
    with pytest.raises(FrameError) as caught:
        decode_varint(bytes.fromhex(vector["bytes"]))

    assert caught.value.code is ErrorCode.FRAME


def test_an_offset_behind_the_end_is_a_truncation() -> None:
    with pytest.raises(FrameError):
        decode_varint(b"\x01", 5)


@pytest.mark.parametrize("value", [-1, -(1 << 70), MAX_VARINT + 1, HUGE])
def test_what_does_not_fit_is_the_callers_mistake(value: int) -> None:
    with pytest.raises(LocalError):
        encode_varint(value)
    with pytest.raises(LocalError):
        varint_size(value)


@given(strategies.varints())
def test_decoding_inverts_encoding(value: int) -> None:
    encoded = encode_varint(value)

    assert len(encoded) == varint_size(value) <= MAX_VARINT_SIZE
    for buffer in (encoded, bytearray(encoded), memoryview(encoded)):
        assert decode_varint(buffer) == (value, len(encoded))


@given(st.binary(max_size=12) | strategies.corrupted(strategies.varints().map(encode_varint)))
def test_any_bytes_are_a_varint_in_its_one_form_or_refused(data: bytes) -> None:
    try:
        value, end = decode_varint(data)
    except FrameError:
        return

    assert encode_varint(value) == data[:end]
