"""Does each rule of the kit of crypto suites find a suite that breaks it, and only that one?"""

# ruff: noqa: E501  what is replaced stands as it stands in the toy

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stt_core.testing import CryptoSuiteContract

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Outcomes = Mapping[str, Mapping[str, str]]

# What stands in the toy, and what is put there instead.
DECRYPT = "        sealed, tag = bytes(data[:-EXTRA]), bytes(data[-EXTRA:])\n"
OPENED = "        return self.mixed(nonce, sealed)\n"
SEALED = "        return sealed + self.tag(nonce, sealed, associated_data)\n"
TAG = 'shake_256(b"tag" + self.key + nonce + size + associated + sealed)'

BREACHES: dict[str, tuple[tuple[str, str], ...]] = {
    "test_its_number_is_one_for_suites": (("return 0x8001", "return 0x18001"),),
    "test_it_has_a_name": (('name = "SHAKE256"', 'name = "SHAKE\\n256"'),),
    "test_it_is_authenticated": (("authenticated = True", "authenticated = False"),),
    "test_that_of_a_plugin_is_post_quantum": (("post_quantum = True", "post_quantum = False"),),
    "test_its_limits_are_positive": (("max_forgeries = 1 << 20", "max_forgeries = 0"),),
    "test_its_metadata_leaves_room_in_a_datagram": (("METADATA_SIZE = 4\n", "METADATA_SIZE = 400\n"),),
    "test_opening_gives_back_what_was_sealed": ((OPENED, "        return self.mixed(nonce, sealed)[: 1 << 20]\n"),),
    "test_sealing_adds_the_tag_and_the_declared_metadata": (
        (SEALED, "        return sealed + self.tag(nonce, sealed, associated_data) + bytes(len(data) == 33)\n"),
        (DECRYPT, f"        data = data[:-1] if len(data) == 34 + EXTRA else data\n{DECRYPT}"),
    ),
    "test_another_object_with_the_same_key_opens": (
        ("import hmac\n", "import hmac\nimport os\n"),
        ("return ToyCipher(key)", "return ToyCipher(key + os.urandom(4))"),
    ),
    "test_frames_open_in_any_order": (
        (
            OPENED,
            (
                "        number = int.from_bytes(nonce, 'big')\n        if number < self.highest:\n            raise InvalidTag\n"
                f"        self.highest = number\n{OPENED}"
            ),
        ),
    ),
    "test_frames_open_where_they_lie": ((DECRYPT, f"        data = data + b''\n{DECRYPT}"),),
    "test_associated_data_may_be_absent": (
        ('associated_data or b""', 'b"none" if associated_data is None else associated_data'),
    ),
    "test_any_changed_bit_of_sealed_data_is_found": (
        (
            "compare_digest(tag, self.tag(nonce, sealed, associated_data))",
            "compare_digest(tag[:-1], self.tag(nonce, sealed, associated_data)[:-1])",
        ),
    ),
    "test_any_changed_bit_of_the_nonce_is_found": ((TAG, TAG.replace("nonce", "nonce[1:]")),),
    "test_any_changed_bit_of_the_associated_data_is_found": ((TAG, TAG.replace("associated ", "associated[:23] ")),),
    "test_sealed_data_of_another_length_does_not_open": (
        (DECRYPT, f"        if len(data) < EXTRA:\n            raise ValueError\n{DECRYPT}"),
    ),
    "test_whatever_a_peer_sends_raises_invalid_tag_alone": (
        (DECRYPT, f"        if len(data) == 100:\n            raise ValueError\n{DECRYPT}"),
    ),
    "test_another_key_does_not_open": (("return ToyCipher(key)", "return ToyCipher(key[:31])"),),
    "test_sealed_data_hides_the_plaintext": (
        ('int.from_bytes(data, "big") ^ int.from_bytes(stream, "big")', 'int.from_bytes(data, "big")'),
    ),
    "test_no_text_shows_the_key": (("attrs.field(repr=False)", "attrs.field()"),),
}


@pytest.fixture(scope="module")
def outcomes(outcomes_of: Callable[..., Outcomes]) -> Outcomes:
    return outcomes_of("crypto_suite", BREACHES)


def test_each_rule_has_a_breach() -> None:
    assert set(BREACHES) == set(CryptoSuiteContract.rules())


def test_an_honest_suite_keeps_every_rule(outcomes: Outcomes) -> None:
    assert outcomes["honest"] == dict.fromkeys(CryptoSuiteContract.rules(), "passed")


@pytest.mark.parametrize("rule", BREACHES)
def test_a_breach_is_found_by_its_rule_alone(rule: str, outcomes: Outcomes) -> None:
    assert broken(outcomes[rule]) == [rule], outcomes[rule]


def broken(outcomes: Mapping[str, str]) -> list[str]:
    return [rule for rule, outcome in outcomes.items() if outcome not in {"passed", "skipped"}]
