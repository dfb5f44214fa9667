from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_core.errors import LocalError
from stt_websocket.errors import ProtocolViolation
from stt_websocket.frames import (
    MAX_HEADER_SIZE,
    CloseCode,
    FrameHeader,
    Opcode,
    decode_close,
    decode_header,
    encode_close,
    encode_header,
)

KEY = b"\x37\xfa\x21\x3d"  # of the examples in RFC 6455 section 5.7
keys = st.one_of(st.just(b""), st.binary(min_size=4, max_size=4))


def violation_of(data: bytes, *, is_masked: bool = False) -> ProtocolViolation:
    with pytest.raises(ProtocolViolation) as caught:
        decode_header(data, 0, is_masked=is_masked)
    return caught.value


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (encode_header(Opcode.TEXT, 5), "8105"),
        (encode_header(Opcode.TEXT, 5, KEY), "818537fa213d"),
        (encode_header(Opcode.TEXT, 3, is_final=False), "0103"),
        (encode_header(Opcode.CONTINUATION, 2), "8002"),
        (encode_header(Opcode.BINARY, 125), "827d"),
        (encode_header(Opcode.BINARY, 126), "827e007e"),
        (encode_header(Opcode.BINARY, 256), "827e0100"),
        (encode_header(Opcode.BINARY, 65_535), "827effff"),
        (encode_header(Opcode.BINARY, 65_536), "827f0000000000010000"),
    ],
)
def test_headers_have_the_bytes_of_the_rfc(header: bytes, expected: str) -> None:
    assert header.hex() == expected


@given(
    opcode=st.sampled_from([Opcode.CONTINUATION, Opcode.TEXT, Opcode.BINARY]),
    size=st.one_of(st.integers(0, 70_000), st.integers(0, 2**63 - 1)),
    key=keys,
    is_final=st.booleans(),
    before=st.binary(max_size=3),
)
def test_decoding_inverts_encoding(opcode: Opcode, size: int, key: bytes, *, is_final: bool, before: bytes) -> None:
    header = encode_header(opcode, size, key, is_final=is_final)

    decoded = decode_header(before + header + b"rest", len(before), is_masked=bool(key))

    assert decoded == FrameHeader(is_final, opcode, key, size, len(before) + len(header))
    assert len(header) <= MAX_HEADER_SIZE


@given(size=st.one_of(st.integers(0, 70_000), st.integers(0, 2**63 - 1)), key=keys)
def test_a_header_is_not_decoded_before_its_last_byte(size: int, key: bytes) -> None:
    header = encode_header(Opcode.BINARY, size, key)

    for end in range(len(header)):
        assert decode_header(header[:end], 0, is_masked=bool(key)) is None


@given(data=st.binary(max_size=20), is_masked=st.booleans())
def test_any_bytes_are_decoded_or_refused_with_a_code(data: bytes, *, is_masked: bool) -> None:
    try:
        header = decode_header(data, 0, is_masked=is_masked)
    except ProtocolViolation as violation:
        assert violation.close_code == CloseCode.PROTOCOL_ERROR  # noqa: PT017  or nothing is raised
    else:
        assert (
            header is None
            or encode_header(header.opcode, header.size, header.key, is_final=header.is_final) == data[: header.end]
        )


@pytest.mark.parametrize("bit", [0x40, 0x20, 0x10])
def test_reserved_bits_are_refused(bit: int) -> None:
    assert "reserved bits" in violation_of(bytes((0x82 | bit, 0))).reason


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
def test_reserved_opcodes_are_refused(opcode: int) -> None:
    assert "reserved" in violation_of(bytes((0x80 | opcode, 0))).reason


@pytest.mark.parametrize("opcode", [Opcode.CLOSE, Opcode.PING, Opcode.PONG])
def test_a_control_frame_of_126_bytes_is_refused(opcode: Opcode) -> None:
    assert "above 125" in violation_of(encode_header(opcode, 126)).reason


@pytest.mark.parametrize("opcode", [Opcode.CLOSE, Opcode.PING, Opcode.PONG])
def test_a_fragmented_control_frame_is_refused(opcode: Opcode) -> None:
    assert "fragmented" in violation_of(encode_header(opcode, 5, is_final=False)).reason


@pytest.mark.parametrize(
    "header",
    [struct.pack(">BBH", 0x82, 126, 125), struct.pack(">BBQ", 0x82, 127, 65_535), struct.pack(">BBQ", 0x82, 127, 0)],
)
def test_a_length_that_is_not_minimal_is_refused(header: bytes) -> None:
    assert "more bytes than it needs" in violation_of(header).reason


def test_a_length_of_2_to_the_63_is_refused() -> None:
    assert "2^63" in violation_of(struct.pack(">BBQ", 0x82, 127, 2**63)).reason


def test_masking_is_enforced_both_ways() -> None:
    assert violation_of(encode_header(Opcode.BINARY, 1), is_masked=True).reason == "not masked"
    assert violation_of(encode_header(Opcode.BINARY, 1, KEY), is_masked=False).reason == "masked by a server"


def test_what_forbids_a_frame_is_found_in_its_first_two_bytes() -> None:
    for first_two in (b"\xf2\x00", b"\x83\x00", b"\x88\x7e", b"\x09\x00", b"\x82\x80"):
        violation_of(first_two)


@given(code=st.integers(-1, 70_000), reason=st.text(max_size=60))
def test_close_payloads_come_back_or_are_refused(code: int, reason: str) -> None:
    is_sendable = 3000 <= code <= 4999 or code in {1000, 1001, 1002, 1003, *range(1007, 1015)}
    if not is_sendable:
        with pytest.raises(LocalError):
            encode_close(code, reason)
        return

    payload = encode_close(code, reason)

    assert len(payload) <= 125
    decoded_code, decoded_reason = decode_close(payload)
    assert decoded_code == code
    assert reason.startswith(decoded_reason)


def test_a_long_reason_is_cut_between_characters() -> None:
    payload = encode_close(CloseCode.NORMAL, "é" * 100)

    assert decode_close(payload) == (CloseCode.NORMAL, "é" * 61)


def test_an_empty_close_has_no_code() -> None:
    assert decode_close(b"") == (CloseCode.NO_CODE, "")


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"\x03", CloseCode.PROTOCOL_ERROR),
        *[(struct.pack(">H", code), CloseCode.PROTOCOL_ERROR) for code in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000)],
        (struct.pack(">H", 1000) + b"\xff", CloseCode.INVALID_DATA),
    ],
)
def test_a_malformed_close_payload_is_refused(payload: bytes, code: CloseCode) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        decode_close(payload)

    assert caught.value.close_code == code


@given(payload=st.binary(max_size=125))
def test_any_close_payload_is_decoded_or_refused_with_a_code(payload: bytes) -> None:
    try:
        code, _ = decode_close(payload)
    except ProtocolViolation as violation:
        assert violation.close_code in {CloseCode.PROTOCOL_ERROR, CloseCode.INVALID_DATA}  # noqa: PT017  as above
    else:
        assert code == CloseCode.NO_CODE or code == int.from_bytes(payload[:2], "big")
