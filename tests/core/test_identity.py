from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_core.errors import ConfigError, HandshakeError
from stt_core.identity import Identity, node_id_of, verify

if TYPE_CHECKING:
    from collections.abc import Iterator

VECTORS: list[dict[str, str]] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "keys.json").read_text(encoding="utf-8")
)["identities"]
SEED = bytes(range(100, 132))


# The points of small order, found by arithmetic on the curve (RFC 8032 section 5.1) instead of copied from a list.

PRIME = (1 << 255) - 19
ORDER = (1 << 252) + 27742317777372353535851937790883648493
CONSTANT = -121665 * pow(121666, -1, PRIME) % PRIME


def add(first: tuple[int, int], second: tuple[int, int]) -> tuple[int, int]:
    (x1, y1), (x2, y2) = first, second
    product = CONSTANT * x1 * x2 * y1 * y2 % PRIME
    x = (x1 * y2 + x2 * y1) * pow(1 + product, -1, PRIME) % PRIME
    return x, (y1 * y2 + x1 * x2) * pow(1 - product, -1, PRIME) % PRIME


def multiply(point: tuple[int, int], factor: int) -> tuple[int, int]:
    result = (0, 1)
    for bit in f"{factor:b}":
        result = add(result, result)
        if bit == "1":
            result = add(result, point)
    return result


def points() -> Iterator[tuple[int, int]]:
    """Yield points of the whole curve, not only of its large subgroup."""
    for y in itertools.count(2):
        square = (y * y - 1) * pow(CONSTANT * y * y + 1, -1, PRIME) % PRIME
        root = pow(square, (PRIME + 3) // 8, PRIME)
        for x in (root, root * pow(2, (PRIME - 1) // 4, PRIME) % PRIME):
            if x * x % PRIME == square:
                yield x, y


def small_order_keys() -> list[bytes]:
    """Return all encodings of the eight points: each sign bit, and each y below 2^255, reduced or not."""
    found: set[int] = set()
    for point in points():
        found.add(multiply(point, ORDER)[1])
        if len(found) == 5:  # the eight points have five y: 1, -1, 0 and two of order 8
            break
    return sorted(
        (y | sign << 255).to_bytes(32, "little")
        for reduced in found
        for y in (reduced, reduced + PRIME)
        if y < 1 << 255
        for sign in (0, 1)
    )


SMALL_ORDER_KEYS = small_order_keys()


@pytest.mark.parametrize("vector", VECTORS)
def test_identities_are_those_of_the_vectors(vector: dict[str, str]) -> None:
    identity = Identity.from_seed(bytes.fromhex(vector["node_seed"]))
    message = bytes.fromhex(vector["message"])

    assert identity.public_key.hex() == vector["public_key"]
    assert identity.node_id.hex() == vector["node_id"]
    assert identity.sign(message).hex() == vector["signature"]
    verify(identity.public_key, bytes.fromhex(vector["signature"]), message)


def test_a_node_id_is_the_hash_of_the_public_key() -> None:
    identity = Identity.from_seed(SEED)

    assert identity.node_id == node_id_of(identity.public_key) == hashlib.sha3_256(identity.public_key).digest()


def test_different_seeds_are_different_nodes() -> None:
    assert len({Identity.from_seed(bytes([number]) * 32).node_id for number in range(20)}) == 20


@pytest.mark.parametrize("size", [0, 31])
def test_a_short_node_seed_is_refused_and_told_how_to_make_one(size: int) -> None:
    with pytest.raises(ConfigError, match=f"node_seed has {size} bytes.*stt keygen"):
        Identity.from_seed(bytes(size))


def test_a_node_seed_that_is_text_is_refused() -> None:
    text: Any = "x" * 40

    with pytest.raises(ConfigError, match="not bytes"):
        Identity.from_seed(text)


def test_a_signature_of_another_message_or_key_is_refused() -> None:
    alice, bob = Identity.from_seed(SEED), Identity.from_seed(bytes(32))
    signature = alice.sign(b"message")

    verify(alice.public_key, signature, b"message")
    for public_key, message in ((alice.public_key, b"massage"), (bob.public_key, b"message")):
        with pytest.raises(HandshakeError, match="signature"):
            verify(public_key, signature, message)


@pytest.mark.parametrize("position", range(64))
def test_a_changed_signature_is_refused(position: int) -> None:
    identity = Identity.from_seed(SEED)
    signature = bytearray(identity.sign(b"message"))
    signature[position] ^= 1

    with pytest.raises(HandshakeError):
        verify(identity.public_key, bytes(signature), b"message")


def test_there_are_fourteen_encodings_of_small_order() -> None:
    assert len(SMALL_ORDER_KEYS) == 14


@pytest.mark.parametrize("public_key", SMALL_ORDER_KEYS, ids=bytes.hex)
def test_small_order_keys_are_refused_whatever_is_signed(public_key: bytes) -> None:
    # With s = 0 a signature is right if R = -h A: among eight points some R fits each message.
    for point in SMALL_ORDER_KEYS:
        with pytest.raises(HandshakeError, match="small order"):
            verify(public_key, point + bytes(32), b"message")


@given(st.binary(max_size=70), st.binary(max_size=70), st.binary(max_size=70))
def test_any_bytes_raise_the_one_error(public_key: bytes, signature: bytes, message: bytes) -> None:
    with pytest.raises(HandshakeError):
        verify(public_key, signature, message)


@given(st.binary(min_size=32, max_size=32))
def test_any_key_of_the_right_size_raises_the_one_error(public_key: bytes) -> None:
    with pytest.raises(HandshakeError):
        verify(public_key, bytes(64), b"message")


def test_an_identity_shows_no_secret() -> None:
    identity = Identity.from_seed(SEED)
    private_key = bytes.fromhex(next(iter(VECTORS))["ed25519_private_key"])
    vector_identity = Identity.from_seed(bytes.fromhex(VECTORS[0]["node_seed"]))

    for secret in (SEED, private_key):
        for shown in (repr(identity), repr(vector_identity)):
            assert repr(secret)[2:-1] not in shown
            assert secret.hex() not in shown
    assert repr(identity.public_key) in repr(identity)
