"""Does every claim of the threat model name tests that exist?"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "explanation" / "threat-model.md").read_text(encoding="utf-8")

TESTS = {
    name
    for path in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
}
CLAIMS = re.findall(r"^- (\*\*.*?)(?=^- |^$)", PAGE.partition("## What is not protected")[0], re.DOTALL | re.MULTILINE)


def test_there_are_claims() -> None:
    assert len(CLAIMS) > 15


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.split("**")[1])
def test_a_claim_names_the_tests_that_guard_it(claim: str) -> None:
    assert re.search(r"\sGuarded\s+by\s+`test_", claim)


@pytest.mark.parametrize("name", re.findall(r"`(test_\w+)`", PAGE))
def test_a_test_that_the_page_names_exists(name: str) -> None:
    assert name in TESTS
