from __future__ import annotations

import os

import pytest

from stt_core.engine.ephemeral import EphemeralKeys


def test_pairs_are_made_when_asked_for_and_kept_for_their_lifetime() -> None:
    keys = EphemeralKeys(1.0)
    keys.advance(10.0)
    assert keys.expires_at is None

    x25519, ml_kem = keys.x25519(), keys.ml_kem()
    keys.advance(10.999)

    assert keys.expires_at == 11.0
    assert keys.x25519() is x25519
    assert keys.ml_kem() is ml_kem


def test_both_pairs_are_erased_a_second_after_the_first_was_made() -> None:
    keys = EphemeralKeys(1.0)
    keys.advance(10.0)
    x25519 = keys.x25519()
    keys.advance(10.5)
    ml_kem = keys.ml_kem()

    keys.advance(11.0)

    assert keys.expires_at is None
    assert keys.x25519().public_bytes != x25519.public_bytes
    assert keys.ml_kem().public_bytes != ml_kem.public_bytes


def test_without_a_lifetime_each_use_has_its_own_pairs() -> None:
    keys = EphemeralKeys(0.0)
    keys.advance(10.0)
    first = keys.x25519()

    keys.advance(10.0)

    assert keys.x25519() is not first


def test_an_encapsulated_secret_comes_out_of_the_pair() -> None:
    pair = EphemeralKeys(1.0).ml_kem()
    secret, ciphertext = pair.private_key.public_key().encapsulate()

    assert pair.private_key.decapsulate(ciphertext) == secret
    assert len(pair.public_bytes) == 1184


@pytest.mark.parametrize("kind", ["x25519", "ml_kem"])
def test_pairs_show_no_secret(kind: str) -> None:
    drawn = []

    def random(size: int) -> bytes:
        drawn.append(os.urandom(size))
        return drawn[-1]

    keys = EphemeralKeys(1.0, random)
    pair = getattr(keys, kind)()

    assert drawn
    for secret in drawn:
        for shown in (repr(pair), repr(keys)):
            assert repr(secret)[2:-1] not in shown
            assert secret.hex() not in shown
