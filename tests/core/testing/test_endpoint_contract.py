"""Does each rule of the kit of endpoints find one that breaks it, and only that one?"""

# ruff: noqa: E501  what is replaced stands as it stands in the toy

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stt_core.testing import EndpointContract

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Outcomes = Mapping[str, Mapping[str, str]]

# What stands in the toy, and what is put there instead.
ANSWER = '        return b"%d" % len(text) if text else None\n'
DECODED = "            text = request.body.decode()\n"
REFUSED = '            raise LocalError("no text") from None\n'
WAIT = "        await asyncio.sleep(0)\n"

BREACHES: dict[str, tuple[tuple[str, str], ...]] = {
    "test_its_name_has_its_owner_in_front": (("toys.count", "stt.count"),),
    "test_what_nobody_waits_for_is_handled_too": ((WAIT, f"{WAIT}        assert not request.one_way\n"),),
    "test_it_returns_what_is_promised": ((ANSWER, ANSWER.replace("len(text)", "len(request.body)")),),
    "test_whatever_a_peer_sends_raises_nothing_but_stt_errors": ((REFUSED, "            raise\n"),),
    "test_what_it_refuses_harms_nothing_else": (
        (REFUSED, f"            self.peers.add(request.peer.node_id)\n{REFUSED}"),
        (WAIT, f"{WAIT}        if request.peer.node_id in self.peers:\n            return b''\n"),
    ),
    "test_sessions_are_handled_at_a_time": (
        (DECODED, f"{DECODED}            self.text = text\n"),
        (ANSWER, ANSWER.replace("len(text)", "len(self.text)")),
    ),
    "test_it_ends_when_it_is_cancelled": (
        (
            WAIT,
            "        try:\n            await asyncio.sleep(0)\n        except asyncio.CancelledError:\n            return b''\n",
        ),
    ),
    "test_no_task_outlives_its_call": ((WAIT, f"        self.task = asyncio.create_task(asyncio.sleep(10))\n{WAIT}"),),
}


@pytest.fixture(scope="module")
def outcomes(outcomes_of: Callable[..., Outcomes]) -> Outcomes:
    return outcomes_of("endpoint", BREACHES)


def test_each_rule_has_a_breach() -> None:
    assert set(BREACHES) == set(EndpointContract.rules())


def test_an_honest_endpoint_keeps_every_rule(outcomes: Outcomes) -> None:
    assert outcomes["honest"] == dict.fromkeys(EndpointContract.rules(), "passed")


@pytest.mark.parametrize("rule", BREACHES)
def test_a_breach_is_found_by_its_rule_alone(rule: str, outcomes: Outcomes) -> None:
    assert broken(outcomes[rule]) == [rule], outcomes[rule]


def broken(outcomes: Mapping[str, str]) -> list[str]:
    return [rule for rule, outcome in outcomes.items() if outcome not in {"passed", "skipped"}]
