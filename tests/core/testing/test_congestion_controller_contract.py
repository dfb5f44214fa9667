"""Does each rule of the kit of congestion controllers find one that breaks it, and only that one?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stt_core.testing import CongestionControllerContract

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Outcomes = Mapping[str, Mapping[str, str]]

# What stands in the toy, and what is put there instead.
ACKNOWLEDGED = "        if sample.app_limited or sample.newest_sent_at <= self.reduced_at:\n"
LOST = "        if newest_sent_at <= self.reduced_at:\n"
PERSISTED = "        self.bytes = 2.0 * self.datagram_size\n"
REDUCED = "self.threshold = self.bytes = max(self.bytes / 2, 2.0 * self.datagram_size)"

BREACHES: dict[str, tuple[tuple[str, str], ...]] = {
    "test_it_has_a_name": (('name = "toy"', 'name = "a toy"'),),
    "test_it_knows_the_size_of_datagrams": (("        super().datagram_size_changed(size)\n", ""),),
    "test_the_first_window_is_at_most_that_of_rfc_9002": (("float(10 * min", "float(20 * min"),),
    "test_a_larger_datagram_fits_the_window": (("        self.bytes = max(self.bytes, 2.0 * size)\n", ""),),
    "test_window_and_rate_stay_sane_whatever_happens": (
        (ACKNOWLEDGED, f"        self.rtt = sample.rtt * 1\n{ACKNOWLEDGED}"),
    ),
    "test_controllers_share_nothing": (
        ("        self.bytes = float(10", "        type(self).bytes = float(10"),
        ("        self.bytes += sample", "        type(self).bytes += sample"),
        (PERSISTED, PERSISTED.replace("self.bytes", "type(self).bytes")),
        (REDUCED, REDUCED.replace("self.bytes =", "type(self).bytes =")),
        ("        self.bytes = max(", "        type(self).bytes = max("),
    ),
    "test_it_knows_no_time_but_what_it_is_told": (("growing = self", "growing = sample.now > 1000 or self"),),
    "test_losses_of_one_flight_count_once": ((LOST, "        if newest_sent_at <= self.reduced_at - 0.05:\n"),),
    "test_what_an_idle_sender_gets_through_means_nothing": (
        (ACKNOWLEDGED, ACKNOWLEDGED.replace("sample.app_limited or ", "")),
    ),
    "test_persistent_congestion_leaves_a_small_window": (
        (PERSISTED, "        self.bytes = 10.0 * self.datagram_size\n"),
    ),
    "test_it_uses_most_of_a_link": (
        ("return int(self.bytes)", "return int(min(self.bytes, max(24_000, 2 * self.datagram_size)))"),
    ),
    "test_it_does_not_flood_a_link": (
        (REDUCED, "self.threshold = self.bytes = max(self.bytes * 0.99, 2.0 * self.datagram_size)"),
    ),
    "test_it_comes_back_after_an_outage": ((PERSISTED, f"{PERSISTED}        self.reduced_at = now + 1000\n"),),
}


@pytest.fixture(scope="module")
def outcomes(outcomes_of: Callable[..., Outcomes]) -> Outcomes:
    return outcomes_of("congestion_controller", BREACHES)


def test_each_rule_has_a_breach() -> None:
    assert set(BREACHES) == set(CongestionControllerContract.rules())


def test_an_honest_controller_keeps_every_rule(outcomes: Outcomes) -> None:
    assert outcomes["honest"] == dict.fromkeys(CongestionControllerContract.rules(), "passed")


@pytest.mark.parametrize("rule", BREACHES)
def test_a_breach_is_found_by_its_rule_alone(rule: str, outcomes: Outcomes) -> None:
    assert broken(outcomes[rule]) == [rule], outcomes[rule]


def broken(outcomes: Mapping[str, str]) -> list[str]:
    return [rule for rule, outcome in outcomes.items() if outcome not in {"passed", "skipped"}]
