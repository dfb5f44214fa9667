"""Does each rule of the kit of frame types find one that breaks it, and only that one?"""

# ruff: noqa: E501  what is replaced stands as it stands in the toy

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stt_core.testing import FrameTypeContract

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Outcomes = Mapping[str, Mapping[str, str]]

# What stands in the toy, and what is put there instead.
ADDED = "        self.by_session[session] = self.by_session.get(session, 0) + number\n"
SESSION = "        session = message.peer.session_id\n"
REFUSED = '            raise FrameError("no number") from None\n'
WAIT = "        await asyncio.sleep(0)\n"

BREACHES: dict[str, tuple[tuple[str, str], ...]] = {
    "test_its_name_has_its_owner_in_front": (("toys.sum", "sum"),),
    "test_it_returns_what_is_promised": ((ADDED, f"{ADDED}        return b'sum'\n"),),
    "test_whatever_a_peer_sends_raises_nothing_but_stt_errors": ((REFUSED, "            raise\n"),),
    "test_what_it_refuses_harms_nothing_else": (
        (REFUSED, f"            self.handling.add(message.peer.session_id)\n{REFUSED}"),
        (SESSION, f"{SESSION}        if session in self.handling:\n            raise FrameError('busy')\n"),
    ),
    "test_sessions_are_handled_at_a_time": (
        (
            WAIT,
            (
                "        if self.handling:\n            raise FrameError('busy')\n        self.handling.add(session)\n"
                "        try:\n            await asyncio.sleep(0)\n        finally:\n            self.handling.clear()\n"
            ),
        ),
    ),
    "test_it_ends_when_it_is_cancelled": (
        (
            WAIT,
            "        try:\n            await asyncio.sleep(0)\n        except asyncio.CancelledError:\n            pass\n",
        ),
    ),
    "test_no_task_outlives_its_call": ((WAIT, f"        self.task = asyncio.create_task(asyncio.sleep(10))\n{WAIT}"),),
}


@pytest.fixture(scope="module")
def outcomes(outcomes_of: Callable[..., Outcomes]) -> Outcomes:
    return outcomes_of("frame_type", BREACHES)


def test_each_rule_has_a_breach() -> None:
    assert set(BREACHES) == set(FrameTypeContract.rules())


def test_an_honest_frame_type_keeps_every_rule(outcomes: Outcomes) -> None:
    assert outcomes["honest"] == dict.fromkeys(FrameTypeContract.rules(), "passed")


@pytest.mark.parametrize("rule", BREACHES)
def test_a_breach_is_found_by_its_rule_alone(rule: str, outcomes: Outcomes) -> None:
    assert broken(outcomes[rule]) == [rule], outcomes[rule]


def broken(outcomes: Mapping[str, str]) -> list[str]:
    return [rule for rule, outcome in outcomes.items() if outcome not in {"passed", "skipped"}]
