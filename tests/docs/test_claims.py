"""Does each test that a page names as the guard of a claim exist?"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GUARDS = [
    (page.name, *guard)
    for page in sorted((ROOT / "docs" / "explanation").glob("*.md"))
    for guard in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text(encoding="utf-8"))
]


def test_the_page_of_the_handshake_names_guards() -> None:
    assert sum(page == "handshake.md" for page, _, _ in GUARDS) > 40


@pytest.mark.parametrize(("page", "path", "name"), GUARDS)
def test_the_guard_of_a_claim_exists(page: str, path: str, name: str) -> None:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))

    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}, page
