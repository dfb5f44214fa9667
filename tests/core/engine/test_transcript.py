from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_core.engine.transcript import INITIAL_HASH, TAG_SIZE, Transcript
from stt_core.errors import HandshakeError

START = Transcript(bytes(range(32)))


def test_both_sides_reach_the_same_state_by_the_same_steps() -> None:
    sealed, after_sealing = START.mix_hash(b"clear").mix_key(b"secret").seal(b"init", b"plaintext")
    plaintext, after_opening = START.mix_hash(b"clear").mix_key(b"secret").open(b"init", sealed)

    assert plaintext == b"plaintext"
    assert len(sealed) == len(plaintext) + TAG_SIZE
    assert after_sealing.hash == after_opening.hash != START.hash
    assert after_sealing.derive(b"exporter") == after_opening.derive(b"exporter")


@given(st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=40))
def test_no_two_ways_to_split_the_same_bytes_agree(first: bytes, second: bytes, third: bytes, fourth: bytes) -> None:
    one = START.mix_hash(first).mix_hash(second)
    other = START.mix_hash(third).mix_hash(fourth)

    assert (one.hash == other.hash) == ((first, second) == (third, fourth))
    assert START.mix_hash(first + second).hash != one.hash


def test_each_step_changes_what_is_derived() -> None:
    states = [START, START.mix_hash(b""), START.mix_key(b""), START.seal(b"init", b"")[1], Transcript(bytes(32))]

    derived = {state.derive(label) for state in states for label in (b"traffic i", b"traffic r", b"exporter")}

    assert len(derived) == 3 * len(states)


def test_no_step_changes_the_state_it_starts_from() -> None:
    before = (START.chaining_key, START.hash)

    START.mix_hash(b"x").mix_key(b"y").seal(b"init", b"z")
    with pytest.raises(HandshakeError):
        START.open(b"init", bytes(40))

    assert (START.chaining_key, START.hash) == before == (bytes(range(32)), INITIAL_HASH)


@pytest.mark.parametrize("position", range(9 + TAG_SIZE))
def test_a_changed_byte_does_not_open(position: int) -> None:
    sealed = bytearray(START.seal(b"init", b"plaintext")[0])
    sealed[position] ^= 1

    with pytest.raises(HandshakeError, match="INIT does not open"):
        START.open(b"init", bytes(sealed))


@pytest.mark.parametrize(
    "other", [START.mix_hash(b""), START.mix_key(b""), Transcript(bytes(32)), Transcript(START.chaining_key, bytes(32))]
)
def test_another_state_does_not_open(other: Transcript) -> None:
    sealed, _ = START.seal(b"init", b"plaintext")

    with pytest.raises(HandshakeError):
        other.open(b"init", sealed)


def test_another_label_does_not_open() -> None:
    sealed, _ = START.seal(b"init", b"plaintext")

    with pytest.raises(HandshakeError, match="CONFIRM does not open"):
        START.open(b"confirm", sealed)


def test_the_initial_hash_names_the_protocol() -> None:
    assert hashlib.sha3_256(b"STT/1").digest() == INITIAL_HASH
