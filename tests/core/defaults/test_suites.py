from __future__ import annotations

from typing import ClassVar

import pytest
from cryptography.exceptions import InvalidTag

from stt_core.config import STTConfig
from stt_core.defaults.suites import SUITES, faster_first, select_suites
from stt_core.errors import ConfigError
from stt_core.interfaces.crypto import KEY_SIZE, NONCE_SIZE, TAG_SIZE, CryptoSuite, FrameCipher

EACH = pytest.mark.parametrize("suite", SUITES.values(), ids=[f"{number:#06x}" for number in SUITES])
KEY = bytes(range(KEY_SIZE))
NONCE = bytes(range(NONCE_SIZE))
HEADER = bytes(range(24))


def test_the_core_brings_the_four_suites_of_the_wire_format() -> None:
    assert {number: (suite.name, suite.post_quantum) for number, suite in SUITES.items()} == {
        0x0001: ("X25519MLKEM768 + AES-256-GCM", True),
        0x0002: ("X25519MLKEM768 + ChaCha20-Poly1305", True),
        0x0003: ("X25519 + AES-256-GCM", False),
        0x0004: ("X25519 + ChaCha20-Poly1305", False),
    }


@EACH
@pytest.mark.parametrize("size", [0, 1, 1472, 100_000])
def test_what_is_sealed_opens(suite: CryptoSuite, size: int) -> None:
    plaintext = bytes(size)

    sealed = suite.cipher(KEY).encrypt(NONCE, plaintext, HEADER)

    assert len(sealed) == size + TAG_SIZE + suite.metadata_size
    assert suite.cipher(KEY).decrypt(NONCE, sealed, HEADER) == plaintext


@EACH
def test_every_changed_byte_of_data_header_nonce_and_key_is_found(suite: CryptoSuite) -> None:
    assert suite.authenticated is True
    sealed = suite.cipher(KEY).encrypt(NONCE, b"plaintext", HEADER)

    parts = {"data": sealed, "header": HEADER, "nonce": NONCE, "key": KEY}
    for name, part in parts.items():
        for position in range(len(part)):
            changed = parts | {name: part[:position] + bytes([part[position] ^ 0x80]) + part[position + 1 :]}
            with pytest.raises(InvalidTag):
                suite.cipher(changed["key"]).decrypt(changed["nonce"], changed["data"], changed["header"])


@EACH
def test_every_cut_is_found(suite: CryptoSuite) -> None:
    sealed = suite.cipher(KEY).encrypt(NONCE, b"plaintext", HEADER)

    for size in range(len(sealed)):
        with pytest.raises(InvalidTag):
            suite.cipher(KEY).decrypt(NONCE, sealed[:size], HEADER)


@EACH
def test_equal_plaintexts_look_different_under_different_nonces(suite: CryptoSuite) -> None:
    cipher = suite.cipher(KEY)

    assert cipher.encrypt(NONCE, b"plaintext", HEADER) != cipher.encrypt(bytes(NONCE_SIZE), b"plaintext", HEADER)


@EACH
def test_limits_hold_for_frames_of_the_largest_size(suite: CryptoSuite) -> None:
    # RFC 9001 section 6.6 and appendix B with 2^18 blocks a frame, for advantages of 2^-57.
    blocks = 1 << 18
    if "AES" in suite.name:
        assert suite.max_frames * blocks <= 1 << 35
        assert suite.max_forgeries * blocks <= 1 << 64
    else:
        assert suite.max_forgeries * blocks <= 1 << 46
    assert suite.max_frames > STTConfig().rotate_after_frames


def test_the_default_suites_are_post_quantum_and_the_faster_comes_first() -> None:
    assert sorted(faster_first()) == [0x0001, 0x0002]
    assert tuple(select_suites(SUITES, STTConfig())) == faster_first()


def test_configured_suites_keep_their_order() -> None:
    selected = select_suites(SUITES, STTConfig(suites=(4, 2, 3), require_post_quantum=False))

    assert selected == {4: SUITES[4], 2: SUITES[2], 3: SUITES[3]}
    assert list(selected) == [4, 2, 3]


def test_a_suite_that_is_not_installed_is_refused() -> None:
    with pytest.raises(ConfigError, match="0x8000 is not installed"):
        select_suites(SUITES, STTConfig(suites=(0x8000,)))


@pytest.mark.parametrize("number", [0x0003, 0x0004])
def test_a_suite_without_post_quantum_exchange_is_refused_by_default(number: int) -> None:
    with pytest.raises(ConfigError, match="not post-quantum"):
        select_suites(SUITES, STTConfig(suites=(1, number)))


class _Toy(CryptoSuite):
    name = "toy"
    authenticated = True
    max_frames = 1
    max_forgeries = 1

    def cipher(self, key: bytes) -> FrameCipher:
        return SUITES[1].cipher(key)


class _Unauthenticated(_Toy):
    authenticated: ClassVar[bool] = False


class _Truthy(_Toy):
    authenticated: ClassVar[bool] = "yes"  # type: ignore[assignment]  # a claim that is not True is none


class _Classic(_Toy):
    post_quantum: ClassVar[bool] = False


def test_a_plugin_suite_is_offered_when_configured() -> None:
    suite = _Toy()

    assert select_suites(SUITES | {0x8000: suite}, STTConfig(suites=(0x8000, 1))) == {0x8000: suite, 1: SUITES[1]}


@pytest.mark.parametrize("kind", [_Unauthenticated, _Truthy])
def test_a_suite_that_is_not_authenticated_is_refused(kind: type[CryptoSuite]) -> None:
    with pytest.raises(ConfigError, match=r"0x8000 \(toy\) is not authenticated"):
        select_suites(SUITES | {0x8000: kind()}, STTConfig(suites=(0x8000,)))


def test_a_plugin_suite_cannot_do_without_the_hybrid_exchange() -> None:
    config = STTConfig(suites=(0x8000,), require_post_quantum=False)

    with pytest.raises(ConfigError, match="plugin"):
        select_suites(SUITES | {0x8000: _Classic()}, config)
