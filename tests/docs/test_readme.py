"""Is the README true?"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES_OUTSIDE_DOCS = sorted([*ROOT.glob("*.md"), *ROOT.glob("stt_core/*.md"), *ROOT.glob("plugins/*/*.md")])


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def test_its_python_is_an_example_that_a_test_runs_and_is_short() -> None:
    (code,) = blocks("python")

    assert code == (ROOT / "docs" / "examples" / "hello.py").read_text(encoding="utf-8")
    assert len([line for line in code.splitlines() if line]) <= 15


def test_ci_runs_its_test_command() -> None:
    test_command = blocks("sh")[1].strip()

    assert test_command.endswith("/tox run-parallel")
    assert f"\n{test_command}\n" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_its_two_commands_are_one_line_each() -> None:
    demo, tests = (block.strip() for block in blocks("sh")[:2])

    assert "\n" not in demo + tests
    assert demo.endswith("tox -q -e demo")


def test_it_names_every_distribution() -> None:
    for folder in ["stt_core", *(f"plugins/{path.name}" for path in ROOT.glob("plugins/*") if path.is_dir())]:
        assert f"]({folder}/README.md)" in README


@pytest.mark.parametrize("page", PAGES_OUTSIDE_DOCS, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_pages_that_sphinx_does_not_see_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target
