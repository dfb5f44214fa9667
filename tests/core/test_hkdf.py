from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_core.hkdf import expand, extract

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "keys.json").read_text(encoding="utf-8"))


def mac(key: bytes, data: bytes) -> bytes:
    return hmac.new(key, data, hashlib.sha3_256).digest()


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_extract_is_one_hmac_with_the_salt_as_key(salt: bytes, key_material: bytes) -> None:
    assert extract(salt, key_material) == mac(salt, key_material)


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=60), st.integers(1, 100))
def test_expand_chains_hmacs_as_rfc_5869_says(secret: bytes, info: bytes, size: int) -> None:
    blocks, block = b"", b""
    for number in range(1, 5):
        block = mac(secret, block + info + bytes((number,)))
        blocks += block

    assert expand(secret, info, size) == blocks[:size]


@pytest.mark.parametrize("vector", VECTORS["stream_keys"])
def test_stream_keys_and_nonces_of_the_vectors_follow_from_the_direction_secret(vector: dict[str, Any]) -> None:
    info = b"stt1 stream" + vector["stream_id"].to_bytes(4, "big")

    material = expand(bytes.fromhex(vector["direction_secret"]), info, 44)

    assert material[:32].hex() == vector["key"]
    assert material[32:].hex() == vector["iv"]
    assert int(vector["iv"], 16) ^ vector["frame_number"] == int(vector["nonce"], 16)


@pytest.mark.parametrize("vector", VECTORS["rotations"])
def test_rotated_secrets_of_the_vectors_follow_from_the_secret_before(vector: dict[str, str]) -> None:
    secret = bytes.fromhex(vector["direction_secret"])

    assert expand(secret, b"stt1 rotate", 32).hex() == vector["next_direction_secret"]


def test_no_two_streams_or_epochs_share_a_key() -> None:
    keys = [vector["key"] for vector in VECTORS["stream_keys"]]
    secrets = [vector["next_direction_secret"] for vector in VECTORS["rotations"]]

    assert len(set(keys + secrets)) == len(keys + secrets)
