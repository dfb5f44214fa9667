"""Does every piece of Python in the documentation run?"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
EXAMPLES = sorted(DOCS.glob("examples/*.py"))
SOURCES = sorted(DOCS.glob("examples/**/*.py"))  # with those of plugins, which tests of their own run
PAGES = sorted([*ROOT.glob("stt_core/*.md"), *ROOT.glob("plugins/*/*.md"), *DOCS.rglob("*.md")])

# `tox -e demo` runs this one: 64 MiB are too much for a test of each Python.
RUN_BY_TOX = {"demo.py"}


@pytest.mark.parametrize(
    "example", [path for path in EXAMPLES if path.name not in RUN_BY_TOX], ids=lambda path: path.name
)
def test_an_example_runs_and_says_something(example: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(example)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_paragraph_of_python_on_a_page_is_part_of_an_example(page: Path) -> None:
    examples = [unindented(path.read_text(encoding="utf-8")) for path in SOURCES]

    for code in re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        paragraphs = unindented(code).split("\n\n")
        assert any(all(paragraph in example for paragraph in paragraphs) for example in examples), code


def unindented(code: str) -> str:
    """Return code without its indentation: a page shows what is inside a function."""
    return "\n".join(line.strip() for line in code.strip().splitlines())
