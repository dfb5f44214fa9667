"""Runs contract kits on toys: honest ones, and ones that break a single rule."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias
from xml.etree import ElementTree as ET

import pytest

Breaches: TypeAlias = Mapping[str, tuple[tuple[str, str], ...]]
"""For each rule, what is replaced in the honest toy to break it."""

Outcomes: TypeAlias = Mapping[str, Mapping[str, str]]
"""For each toy, how each rule ended: passed, skipped, or why it failed."""

HONEST = "honest"
TOYS = Path(__file__).parent / "toys"


@pytest.fixture(scope="session")
def outcomes_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Breaches], Outcomes]:
    """Return what runs the kit on an honest toy and on those that are broken, in one process without any plugin."""

    def run(toy: str, breaches: Breaches) -> Outcomes:
        folder = tmp_path_factory.mktemp(toy)
        honest = (TOYS / f"{toy}.py").read_text(encoding="utf-8")
        for name, replacements in {HONEST: (), **breaches}.items():
            source = honest
            for old, new in replacements:
                assert source.count(old) == 1, f"{name}: the toy has {source.count(old)} times: {old}"
                source = source.replace(old, new)
            (folder / f"test_{name}.py").write_text(source, encoding="utf-8")
        report = folder / "report.xml"
        options = ["-q", "-Werror", "--tb=native", "--import-mode=importlib", f"--rootdir={folder}"]
        options += [f"--junit-xml={report}"]
        options += [f"-pno:{plugin}" for plugin in ("asyncio", "timeout", "hypothesispytest", "cacheprovider")]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, folder],
            check=False,
            capture_output=True,
            text=True,
            timeout=500,  # all toys of a kind, on a machine that may be busy
            cwd=folder,
            # With CI set, pytest draws up each difference whole: no rule may make that a matter of minutes.
            env=os.environ | {"CI": "1"},
        )
        assert done.returncode in {0, 1}, done.stdout + done.stderr
        outcomes: dict[str, dict[str, str]] = {}
        for case in ET.parse(report).iter("testcase"):
            module = case.attrib["classname"].split(".")[0].removeprefix("test_")
            outcomes.setdefault(module, {})[case.attrib["name"]] = _outcome(case)
        return outcomes

    return run


def _outcome(case: ET.Element) -> str:
    for element in case:
        if element.tag in {"failure", "error", "skipped"}:
            return "skipped" if element.tag == "skipped" else f"{element.tag}: {element.text}"
    return "passed"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each kit's run over all of its toys, which is one fixture, more time than a test."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(600))
