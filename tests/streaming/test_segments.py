"""Are segments as the reference page and its vectors have them, and is what is not refused?"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_core import LocalError
from stt_streaming import segments
from stt_streaming.decoder import BinaryStreamDecoder
from stt_streaming.encoder import BinaryStreamEncoder
from stt_streaming.segments import Segment, SegmentCipher, SegmentError, decode_header, encode_plain

ROOT = Path(__file__).resolve().parents[2]
VECTORS: dict[str, Any] = json.loads((ROOT / "tests" / "vectors" / "segments.json").read_text(encoding="utf-8"))
KEY = bytes(range(32))


def cipher_of(vector: dict[str, Any]) -> SegmentCipher:
    return SegmentCipher(
        bytes.fromhex(vector["key"]), session_id=bytes.fromhex(vector["session_id"]), stream_id=vector["stream_id"]
    )


@pytest.mark.parametrize("vector", VECTORS["sealed"])
def test_sealing_and_opening_are_those_of_the_vectors(vector: dict[str, Any]) -> None:
    cipher = cipher_of(vector)

    for sequence, (data, encoded) in enumerate(zip(vector["data"], vector["segments"], strict=True)):
        segment = bytes.fromhex(encoded)
        final = sequence == len(vector["data"]) - 1
        assert cipher.seal(sequence, bytes.fromhex(data), final=final) == segment
        header = decode_header(segment)
        assert (header.sequence, header.final, header.sealed) == (sequence, final, True)
        assert cipher.open(header, segment).hex() == data


@pytest.mark.parametrize("vector", VECTORS["plain"])
def test_segments_inside_a_session_are_those_of_the_vectors(vector: dict[str, Any]) -> None:
    for sequence, (data, encoded) in enumerate(zip(vector["data"], vector["segments"], strict=True)):
        final = sequence == len(vector["data"]) - 1
        assert encode_plain(sequence, bytes.fromhex(data), final=final).hex() == encoded


@pytest.mark.parametrize("vector", VECTORS["malformed"], ids=lambda vector: vector["why"])
def test_what_is_malformed_is_refused_and_changes_nothing(vector: dict[str, str]) -> None:
    decoder = BinaryStreamDecoder(KEY, session_id=b"12345678", stream_id=1)

    with pytest.raises(SegmentError):
        decoder.feed(bytes.fromhex(vector["segment"]))

    good = SegmentCipher(KEY, session_id=b"12345678", stream_id=1).seal(0, b"Hello", final=True)
    assert decoder.feed(good) == [b"Hello"]


@given(st.binary(max_size=100))
def test_any_bytes_are_a_segment_or_refused(data: bytes) -> None:
    decoder = BinaryStreamDecoder(KEY, session_id=b"12345678", stream_id=1)

    with pytest.raises(SegmentError):
        decoder.feed(data)


@pytest.mark.parametrize(
    ("key", "session_id", "stream_id"),
    [(KEY[1:], b"12345678", 1), (KEY, b"1234567", 1), (KEY, b"12345678", -1), (KEY, b"12345678", 1 << 32)],
)
def test_keys_and_ids_of_another_size_are_refused(key: bytes, session_id: bytes, stream_id: int) -> None:
    for kind in (BinaryStreamEncoder, BinaryStreamDecoder):
        with pytest.raises(LocalError):
            kind(key, session_id=session_id, stream_id=stream_id)


@pytest.mark.parametrize("kind", [BinaryStreamEncoder, BinaryStreamDecoder])
def test_without_a_key_or_a_stream_nothing_is_sent_unsealed(kind: Any) -> None:
    with pytest.raises(LocalError, match="name one of the two"):
        kind(session_id=b"12345678", stream_id=1)


def test_neither_keys_nor_data_are_shown() -> None:
    cipher = SegmentCipher(KEY, session_id=b"12345678", stream_id=1)
    segment = Segment(sequence=0, final=True, size=6, data=encode_plain(0, b"secret", final=True))

    assert KEY.hex() not in repr(cipher)
    assert repr(segment) == "Segment(sequence=0, final=True, size=6, data=<19 bytes>)"


def test_the_constants_are_on_the_page() -> None:
    page = (ROOT / "docs" / "reference" / "segments.md").read_text(encoding="utf-8")
    documented = dict(re.findall(r"^\| `(\w+)` \| ([\d,]+) \|", page, re.MULTILINE))

    assert {name: int(value.replace(",", "")) for name, value in documented.items()} == {
        name: getattr(segments, name)
        for name in ("KEY_SIZE", "SESSION_ID_SIZE", "TAG_SIZE", "DEFAULT_SEGMENT_SIZE", "MAX_SEGMENT_SIZE")
    }
