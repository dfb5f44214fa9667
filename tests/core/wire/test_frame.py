from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

from stt_core.config import MAX_FRAME_SIZE
from stt_core.errors import CryptoError, ErrorCode, FrameError, LocalError
from stt_core.testing import strategies
from stt_core.wire.frame import (
    CUSTOM_FRAME_TYPES,
    FRAME_OVERHEAD,
    HEADER,
    FrameType,
    RawFrame,
    STTFrame,
    encode_frame,
    split_frames,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from stt_core.interfaces.crypto import FrameCipher
    from stt_core.interfaces.transport import Buffer

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "frame.json").read_text())
VALID = [
    pytest.param(bytes.fromhex(vector["bytes"]), vector["frames"], id=vector["name"]) for vector in VECTORS["valid"]
]
AEADS: dict[str, Callable[[bytes], FrameCipher]] = {"AES-256-GCM": AESGCM, "ChaCha20-Poly1305": ChaCha20Poly1305}

SESSION_ID = b"12345678"
KEY = bytes(range(32))
NONCE = bytes(12)


def hello(**changes: Any) -> STTFrame:
    fields: dict[str, Any] = {
        "frame_type": FrameType.DATA,
        "session_id": SESSION_ID,
        "stream_id": 1,
        "sequence": 7,
        "payload": b"Hello!",
    }
    return STTFrame(**(fields | changes))


def as_vector(frame: RawFrame) -> dict[str, Any]:
    fields: dict[str, Any] = frame._asdict()
    return {name: field if isinstance(field, int) else bytes(field).hex() for name, field in fields.items()}


# split_frames and encode_frame


@pytest.mark.parametrize(("message", "expected"), VALID)
def test_vectors_hold_in_both_directions(message: bytes, expected: list[dict[str, Any]]) -> None:
    frames = split_frames(message)

    assert [as_vector(frame) for frame in frames] == expected
    assert message == b"".join(
        encode_frame(
            frame.type, frame.session_id, frame.stream_id, frame.sequence, frame.flags, frame.payload, frame.metadata
        )
        for frame in frames
    )


@pytest.mark.parametrize(("message", "expected"), VALID)
def test_a_truncated_message_is_refused_unless_cut_between_frames(
    message: bytes, expected: list[dict[str, Any]]
) -> None:
    for size in range(len(message)):
        try:
            frames = split_frames(message[:size])
        except FrameError:
            continue
        assert 0 < len(frames) < len(expected)
        assert [as_vector(frame) for frame in frames] == expected[: len(frames)]


@pytest.mark.parametrize("message", [bytes.fromhex(vector["bytes"]) for vector in VECTORS["valid"]])
def test_junk_behind_the_last_frame_is_refused(message: bytes) -> None:
    for junk in (b"\x00", b"S", b"ST", bytes(28), b"\xff" * 40):
        with pytest.raises(FrameError):
            split_frames(message + junk)


@pytest.mark.parametrize("vector", VECTORS["invalid"], ids=lambda vector: vector["why"])
def test_malformed_vectors_are_refused(vector: dict[str, str]) -> None:
    with pytest.raises(FrameError) as caught:
        split_frames(bytes.fromhex(vector["bytes"]))

    assert caught.value.code is ErrorCode.FRAME


@pytest.mark.parametrize("vector", VECTORS["too_large"], ids=lambda vector: vector["why"])
def test_a_frame_above_the_limit_is_refused(vector: dict[str, Any]) -> None:
    message = bytes.fromhex(vector["bytes"])

    assert split_frames(message)
    with pytest.raises(FrameError):
        split_frames(message, vector["max_frame_size"])


def test_the_limit_is_of_each_frame_and_not_of_the_message() -> None:
    message = encode_frame(FrameType.DATA, SESSION_ID, 1, 0, 0, b"xy") * 3

    assert len(split_frames(message, len(message) // 3)) == 3


def test_a_frame_of_two_mebibytes_is_the_largest() -> None:
    largest = bytes(MAX_FRAME_SIZE - FRAME_OVERHEAD)
    message = encode_frame(FrameType.DATA, SESSION_ID, 1, 0, 0, largest)

    assert len(split_frames(message)[0].payload) == len(largest)
    with pytest.raises(LocalError):
        encode_frame(FrameType.DATA, SESSION_ID, 1, 0, 0, largest, b"m")
    with pytest.raises(FrameError, match="at most 2097152"):
        split_frames(HEADER.pack(0x5354, 0x10, SESSION_ID, 1, 0, 0, len(largest) + 1) + largest + bytes(5))


@pytest.mark.parametrize("size", [0, 10_000, 100_000, 1_000_000])
def test_payloads_of_all_sizes_come_back(size: int) -> None:
    payload = bytes(range(256)) * (size // 256 + 1)

    (frame,) = split_frames(encode_frame(FrameType.DATAGRAM, SESSION_ID, 0, 1, 0, payload[:size]))

    assert frame.payload == payload[:size]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_payloads_are_views_of_the_message(kind: type[bytes]) -> None:
    message = kind(encode_frame(FrameType.DATA, SESSION_ID, 1, 0, 0, b"payload", b"context"))

    (frame,) = split_frames(message)

    for view in (frame.header, frame.payload, frame.metadata):
        assert isinstance(view, memoryview)
        assert view.obj is (message.obj if isinstance(message, memoryview) else message)


@pytest.mark.parametrize(
    "fields",
    [
        (0x00, SESSION_ID, 1, 0, 0),
        (0x100, SESSION_ID, 1, 0, 0),
        (-1, SESSION_ID, 1, 0, 0),
        (0x10, SESSION_ID[:7], 1, 0, 0),
        (0x10, SESSION_ID + b"9", 1, 0, 0),
        (0x10, SESSION_ID, -1, 0, 0),
        (0x10, SESSION_ID, 1 << 32, 0, 0),
        (0x10, SESSION_ID, 1, -1, 0),
        (0x10, SESSION_ID, 1, 1 << 32, 0),
        (0x10, SESSION_ID, 1, 0, -1),
        (0x10, SESSION_ID, 1, 0, 0x100),
    ],
)
def test_fields_out_of_range_are_the_callers_mistake(fields: tuple[int, bytes, int, int, int]) -> None:
    with pytest.raises(LocalError):
        encode_frame(*fields, b"payload")
    with pytest.raises(LocalError):
        STTFrame(
            frame_type=fields[0],
            session_id=fields[1],
            stream_id=fields[2],
            sequence=fields[3],
            flags=fields[4],
            payload=b"payload",
        )


def test_types_of_the_core_and_of_plugins_do_not_overlap() -> None:
    assert not set(FrameType) & set(CUSTOM_FRAME_TYPES)
    assert (CUSTOM_FRAME_TYPES[0], CUSTOM_FRAME_TYPES[-1]) == (0x80, 0xFF)


@given(st.lists(strategies.frames(max_payload_size=64), min_size=1, max_size=5))
def test_splitting_inverts_joining(frames: list[STTFrame]) -> None:
    parts = split_frames(b"".join(frame.to_bytes() for frame in frames))

    assert [
        STTFrame(
            frame_type=part.type,
            session_id=part.session_id,
            stream_id=part.stream_id,
            sequence=part.sequence,
            flags=part.flags,
            payload=part.payload,
            metadata=part.metadata,
        )
        for part in parts
    ] == frames


@given(
    st.binary(max_size=64)
    | st.binary(max_size=64).map(lambda data: b"ST" + data)
    | strategies.corrupted(strategies.frames(max_payload_size=32).map(STTFrame.to_bytes))
)
def test_any_bytes_are_frames_in_their_one_form_or_refused(message: bytes) -> None:
    try:
        frames = split_frames(message)
    except FrameError:
        return

    assert message == b"".join(
        bytes(frame.header) + bytes(frame.payload) + len(frame.metadata).to_bytes(4, "big") + bytes(frame.metadata)
        for frame in frames
    )


# STTFrame


def test_the_call_of_the_seeds_makes_a_frame() -> None:
    frame = STTFrame.create_frame(frame_type=1, session_id=SESSION_ID, sequence=0, stream_id=1, payload=b"Hello!")

    assert STTFrame.from_bytes(frame.to_bytes()) == frame
    assert (frame.flags, frame.metadata) == (0, b"")


@given(strategies.frames())
def test_from_bytes_inverts_to_bytes(frame: STTFrame) -> None:
    assert STTFrame.from_bytes(frame.to_bytes()) == frame


def test_from_bytes_takes_exactly_one_frame() -> None:
    encoded = hello().to_bytes()

    for data in (b"", encoded[:-1], encoded + b"\x00", encoded * 2):
        with pytest.raises(FrameError):
            STTFrame.from_bytes(data)


@pytest.mark.parametrize(
    "vector", VECTORS["sealed"], ids=lambda vector: f"{vector['aead']}-{len(vector['plaintext']) // 2}"
)
def test_sealed_vectors_hold_in_both_directions(vector: dict[str, Any]) -> None:
    cipher = AEADS[vector["aead"]](bytes.fromhex(vector["key"]))
    nonce = bytes.fromhex(vector["nonce"])
    frame = STTFrame.create_frame(
        frame_type=vector["type"],
        session_id=bytes.fromhex(vector["session_id"]),
        stream_id=vector["stream_id"],
        sequence=vector["sequence"],
        flags=vector["flags"],
        payload=bytes.fromhex(vector["plaintext"]),
    )

    sealed = frame.encrypt(cipher, nonce)

    assert sealed.to_bytes().hex() == vector["bytes"]
    assert bytes(split_frames(sealed.to_bytes())[0].header).hex() == vector["associated_data"]
    assert STTFrame.from_bytes(bytes.fromhex(vector["bytes"])).decrypt(cipher, nonce) == frame


@pytest.mark.parametrize(
    "changed", ["frame_type", "session_id", "stream_id", "sequence", "flags", "payload", "metadata"]
)
def test_any_change_of_a_sealed_frame_is_found(changed: str) -> None:
    sealed = hello().encrypt(AESGCM(KEY), NONCE)
    value = getattr(sealed, changed)
    other: Any = value ^ 1 if isinstance(value, int) else value[:-1] + b"\xee"

    with pytest.raises(CryptoError):
        attrs.evolve(sealed, **{changed: other}).decrypt(AESGCM(KEY), NONCE)


def test_another_key_or_nonce_does_not_open_a_frame() -> None:
    sealed = hello().encrypt(AESGCM(KEY), NONCE)

    with pytest.raises(CryptoError):
        sealed.decrypt(AESGCM(bytes(32)), NONCE)
    with pytest.raises(CryptoError):
        sealed.decrypt(AESGCM(KEY), b"\x01" * 12)


@pytest.mark.parametrize("payload", [b"", b"x", b"never sealed, but longer than a tag"])
def test_a_frame_that_was_never_sealed_does_not_open(payload: bytes) -> None:
    with pytest.raises(CryptoError):
        hello(payload=payload).decrypt(AESGCM(KEY), NONCE)


def test_a_nonce_of_another_size_is_the_callers_mistake() -> None:
    for nonce in (b"", bytes(11), bytes(16)):
        with pytest.raises(LocalError):
            hello().encrypt(AESGCM(KEY), nonce)
        with pytest.raises(LocalError):
            hello().decrypt(AESGCM(KEY), nonce)


def test_a_frame_that_sealing_makes_too_large_is_refused() -> None:
    frame = hello(payload=bytes(MAX_FRAME_SIZE - FRAME_OVERHEAD))

    with pytest.raises(LocalError):
        frame.encrypt(AESGCM(KEY), NONCE)


class CipherWithMetadata:
    """As a suite does whose ``metadata_size`` is 4: AES-GCM with a second, authenticated, counter."""

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None, /) -> bytes:
        assert associated_data is not None
        return AESGCM(KEY).encrypt(nonce, data, associated_data + b"\x00\x00\x00\x09") + b"\x00\x00\x00\x09"

    def decrypt(self, nonce: bytes, data: Buffer, associated_data: Buffer | None, /) -> bytes:
        assert associated_data is not None
        if len(data) < 20:
            raise InvalidTag
        return AESGCM(KEY).decrypt(nonce, data[:-4], bytes(associated_data) + bytes(data[-4:]))


def test_what_a_suite_writes_behind_the_tag_travels_as_metadata() -> None:
    frame = hello()

    sealed = frame.encrypt(CipherWithMetadata(), NONCE)

    assert sealed.metadata == b"\x00\x00\x00\x09"
    assert len(sealed.payload) == len(frame.payload) + 16
    assert STTFrame.from_bytes(sealed.to_bytes()).decrypt(CipherWithMetadata(), NONCE) == frame
    with pytest.raises(CryptoError):
        attrs.evolve(sealed, metadata=b"\x00\x00\x00\x08").decrypt(CipherWithMetadata(), NONCE)


def test_a_payload_is_not_shown() -> None:
    assert "Hello" not in repr(hello())
    assert "<6 bytes>" in repr(hello())
