"""Are the rules of all contract kits on their page, as the kits have them?"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from stt_core import testing

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "reference" / "testing.md").read_text(encoding="utf-8")
SECTIONS = {section.partition("\n")[0]: section for section in PAGE.split("\n## ")}
KITS = {
    "Transports": testing.TransportContract,
    "Storage": testing.StorageContract,
    "Crypto suites": testing.CryptoSuiteContract,
    "Congestion controllers": testing.CongestionControllerContract,
    "Frame types": testing.FrameTypeContract,
    "Endpoints": testing.EndpointContract,
}


def rows(section: str) -> list[list[str]]:
    table = section.partition("and checks:")[2]
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in re.findall(r"^\| .*$", table, re.MULTILINE)
    ][2:]


def test_each_kit_has_a_section() -> None:
    assert {kit.__name__ for kit in KITS.values()} == {
        name for name in testing.__all__ if name.endswith("Contract") and name != "Contract"
    }


@pytest.mark.parametrize(("title", "kit"), KITS.items(), ids=KITS)
def test_the_rules_of_a_kit_are_on_its_page(title: str, kit: type[testing.Contract]) -> None:
    wanted = [
        [name.removeprefix("test_").replace("_", " "), " ".join((getattr(kit, name).__doc__ or "").split()), relaxed]
        for name, relaxed in kit.rules().items()
    ]

    assert [[cell.replace("`", "") for cell in row] for row in rows(SECTIONS[title])] == [
        [cell.replace("`", "") for cell in row] for row in wanted
    ]


@pytest.mark.parametrize(("title", "kit"), KITS.items(), ids=KITS)
def test_the_fixtures_to_be_given_are_on_its_page(title: str, kit: type[testing.Contract]) -> None:
    asked = set(re.findall(r'to_be_given\(\s*"(\w+)"', inspect.getsource(kit)))
    described = set(re.findall(r"^\| `(\w+)` \| .* \|$", SECTIONS[title].partition("and checks:")[0], re.MULTILINE))

    assert asked <= described <= asked | {"break_store"}
