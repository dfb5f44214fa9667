"""Does the page show the layers that import-linter holds?"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_layers_on_the_page_are_those_that_are_checked() -> None:
    page = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = (each for each in settings["tool"]["importlinter"]["contracts"] if each["type"] == "layers")

    (table,) = re.findall(r"^\| layer \|.*\n.*\n((?:\|.*\n)+)", page, re.MULTILINE)

    shown = [set(re.findall(r"`(\w+)`", line.split("|")[1])) for line in table.splitlines()]
    assert shown == [set(layer.split(" : ")) for layer in contract["layers"]]
