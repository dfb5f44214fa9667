from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from hypothesis import given
from hypothesis import strategies as st

from stt_core import seeds
from stt_core.errors import ConfigError
from stt_core.seeds import (
    SEED_TEXT_PREFIX,
    Keyring,
    check_distinct,
    decode_seed,
    encode_seed,
    generate_seed,
    seed_from_passphrase,
)

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "keys.json").read_text(encoding="utf-8"))
SEED = bytes(range(100, 132))
SEEDS = st.binary(min_size=32, max_size=80)


# Making and writing down


def test_generated_seeds_are_long_enough_and_differ() -> None:
    made = {generate_seed() for _ in range(100)}

    assert len(made) == 100
    assert {len(seed) for seed in made} == {32}


@given(SEEDS)
def test_decoding_a_seed_text_inverts_encoding(seed: bytes) -> None:
    assert decode_seed(encode_seed(seed)) == seed


@given(SEEDS)
def test_case_hyphens_and_white_space_do_not_matter(seed: bytes) -> None:
    text = encode_seed(seed)
    mangled = "  " + text.upper().replace("-", " - ").replace("STT - SEED - 1", "STT-SEED-1") + "\r\n"

    assert decode_seed(mangled) == seed


@pytest.mark.parametrize("vector", VECTORS["seed_texts"])
def test_seed_texts_of_the_vectors_hold_in_both_directions(vector: dict[str, str]) -> None:
    assert encode_seed(bytes.fromhex(vector["seed"])) == vector["text"]
    assert decode_seed(vector["text"]).hex() == vector["seed"]


@pytest.mark.parametrize("vector", VECTORS["malformed_seed_texts"], ids=lambda vector: vector["name"])
def test_malformed_seed_texts_are_refused_without_being_repeated(vector: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        decode_seed(vector["text"])

    groups = vector["text"].rpartition(":")[2].split("-")
    assert not any(group in str(caught.value) for group in groups if group)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@given(st.text())
def test_any_other_text_is_refused(text: str) -> None:
    for candidate in (text, SEED_TEXT_PREFIX + text):
        with pytest.raises(ConfigError):
            decode_seed(candidate)


@pytest.mark.parametrize("position", range(len(SEED_TEXT_PREFIX), len(encode_seed(SEED)), 5))
def test_a_mistyped_letter_is_found(position: int) -> None:
    text = encode_seed(SEED)
    other = "q" if text[position] != "q" else "w"

    with pytest.raises(ConfigError):
        decode_seed(text[:position] + other + text[position + 1 :])


def test_a_short_seed_cannot_be_written_down() -> None:
    with pytest.raises(ConfigError, match="the seed has 31 bytes"):
        encode_seed(bytes(31))


# Passphrases


@pytest.mark.parametrize("vector", VECTORS["passphrases"])
def test_seeds_of_passphrases_are_those_of_the_vectors(vector: dict[str, str]) -> None:
    salt = bytes.fromhex(vector["salt"])

    assert seed_from_passphrase(vector["passphrase"], salt).hex() == vector["seed"]
    decomposed = unicodedata.normalize("NFD", vector["passphrase"])
    assert seed_from_passphrase(decomposed, salt).hex() == vector["seed"]


def test_an_empty_passphrase_is_refused() -> None:
    with pytest.raises(ConfigError, match="empty"):
        seed_from_passphrase("", bytes(16))


def test_a_short_salt_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 16"):
        seed_from_passphrase("correct horse battery staple", bytes(15))


def test_a_build_without_argon2id_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(**_: Any) -> None:
        raise UnsupportedAlgorithm("This version of OpenSSL does not support argon2id")

    monkeypatch.setattr(seeds, "Argon2id", unsupported)

    with pytest.raises(ConfigError, match=r"OpenSSL 3\.2"):
        seed_from_passphrase("correct horse battery staple", bytes(16))


# Keyrings


@pytest.mark.parametrize("vector", VECTORS["pre_shared_keys"])
def test_pre_shared_keys_are_those_of_the_vectors(vector: dict[str, str]) -> None:
    keyring = Keyring.from_seeds(bytes.fromhex(vector["shared_seed"]))

    assert [key.hex() for key in keyring.pre_shared_keys] == [vector["pre_shared_key"]]


def test_a_keyring_keeps_the_order_of_its_seeds() -> None:
    given_seeds = [bytes([number]) * 32 for number in range(4)]

    keyring = Keyring.from_seeds(given_seeds)

    assert keyring.pre_shared_keys == tuple(Keyring.from_seeds(seed).pre_shared_keys[0] for seed in given_seeds)


@pytest.mark.parametrize("size", [0, 1, 27, 28, 30, 31])
def test_a_short_shared_seed_is_refused_and_told_how_to_make_one(size: int) -> None:
    seed = bytes(range(1, size + 1))

    with pytest.raises(ConfigError, match=f"has {size} bytes.*at least 32.*stt keygen") as caught:
        Keyring.from_seeds(seed)

    assert seed == b"" or seed.hex() not in str(caught.value)


@pytest.mark.parametrize("wrong", ["x" * 40, ["x" * 40], [bytearray(40)], [None]])
def test_a_shared_seed_that_is_not_bytes_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="not bytes"):
        Keyring.from_seeds(wrong)


def test_a_keyring_without_a_seed_is_refused() -> None:
    with pytest.raises(ConfigError, match="0 shared seeds"):
        Keyring.from_seeds([])


def test_a_keyring_beyond_its_limit_is_refused() -> None:
    five = [bytes([number]) * 32 for number in range(5)]

    with pytest.raises(ConfigError, match="5 shared seeds, but from 1 to 4"):
        Keyring.from_seeds(five)

    assert len(Keyring.from_seeds(five, limit=5).pre_shared_keys) == 5


def test_a_shared_seed_given_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="twice"):
        Keyring.from_seeds([SEED, SEED])


def test_a_node_seed_that_is_a_shared_seed_is_refused() -> None:
    keyring = Keyring.from_seeds([generate_seed(), SEED])

    with pytest.raises(ConfigError, match="same") as caught:
        check_distinct(SEED, keyring)

    assert SEED.hex() not in str(caught.value)
    check_distinct(bytes(32), keyring)


def test_a_keyring_shows_no_key() -> None:
    keyring = Keyring.from_seeds(SEED)

    shown = repr(keyring) + str(keyring)

    for secret in (SEED, *keyring.pre_shared_keys):
        assert repr(secret)[2:-1] not in shown
        assert secret.hex() not in shown
