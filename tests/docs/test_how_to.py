"""Do the how-to guides for plugins look alike, and does what they show keep the rules?"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stt_core import hookspecs, testing

ROOT = Path(__file__).resolve().parents[2]
GUIDES = sorted((ROOT / "docs" / "how-to").glob("write-a-*.md"))
HEADINGS = ["Before you begin", "Write it", "Register it", "Prove it", "What the rules find", "See also"]
EXAMPLES = ROOT / "docs" / "examples" / "how_to"


def test_there_is_a_guide_for_each_kit() -> None:
    kits = {name.removesuffix("Contract") for name in testing.__all__ if name.endswith("Contract")} - {""}

    assert {"".join(word.title() for word in guide.stem.split("-")[2:]) for guide in GUIDES} == kits


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
def test_the_guides_have_the_same_headings(guide: Path) -> None:
    assert re.findall(r"^## (.*)$", guide.read_text(encoding="utf-8"), re.MULTILINE) == HEADINGS


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
def test_a_guide_shows_the_hook_and_the_kit(guide: Path) -> None:
    text = guide.read_text(encoding="utf-8")

    assert [hook for hook in vars(hookspecs) if f"def {hook}(" in text and hook.startswith("stt_register_")]
    assert len(re.findall(r"^class Test\w+\((\w+Contract)\):$", text, re.MULTILINE)) == 1


def test_what_the_guides_show_keeps_the_rules(tmp_path: Path) -> None:
    folder = tmp_path / "how_to"
    shutil.copytree(EXAMPLES, folder, ignore=shutil.ignore_patterns("__pycache__"))

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-Werror", "-pno:cacheprovider", "-pno:asyncio", f"--rootdir={folder}"],
        check=False,
        capture_output=True,
        text=True,
        timeout=110,
        cwd=folder,
    )

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("test_*.py")), ids=lambda example: example.stem)
def test_each_plugin_of_the_guides_registers(example: Path) -> None:
    module = example.stem.removeprefix("test_")
    script = (
        f"import {module}; from stt_core import load_plugins;"
        f"(info,) = load_plugins(extra=[{module}], discover=False).plugins;"
        "print(info.state.value, info.offers, info.reason)"
    )

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], check=True, capture_output=True, text=True, cwd=EXAMPLES
    )

    assert done.stdout.startswith("active")
