"""Is each hook on its page as it is in the code, and does a real plugin use it?"""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stt_core import hookspecs
from stt_core.defaults import plugin as core_plugin
from stt_core.plugins import PluginState, load_plugins

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "reference" / "hooks.md").read_text(encoding="utf-8")
SOURCE = Path(inspect.getfile(hookspecs)).read_text(encoding="utf-8")
EXAMPLE = ROOT / "docs" / "examples" / "stt_framed" / "src"

HOOKS = {name: hook for name, hook in vars(hookspecs).items() if name.startswith("stt_")}


def written(hook: str) -> str:
    """Return a hook as the page has it, from its signature."""
    signature = inspect.signature(HOOKS[hook])
    arguments = ", ".join(f"{each.name}: {each.annotation}" for each in signature.parameters.values())
    return f"{hook}({arguments}) -> {signature.return_annotation}"


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_is_on_the_page_with_its_signature(hook: str) -> None:
    assert f"\n### `{written(hook)}`\n" in PAGE


def test_the_page_has_no_other_hooks() -> None:
    assert set(re.findall(r"^### `(\w+)\(", PAGE, re.MULTILINE)) == set(HOOKS)


@pytest.mark.parametrize("hook", HOOKS)
def test_the_signature_is_what_the_file_says(hook: str) -> None:
    assert f"\n@hookspec\ndef {written(hook)}:\n" in SOURCE


def test_each_hook_is_used_by_a_real_plugin() -> None:
    """By the core's own, by installed ones, or by the example."""
    infos = load_plugins(core=[core_plugin]).plugins
    used = {hook for info in infos if info.state is PluginState.ACTIVE for hook in info.hooks}
    script = (
        "from stt_framed import plugin; from stt_core import load_plugins;"
        "(info,) = load_plugins(extra=[plugin], discover=False).plugins; print(*info.hooks)"
    )
    used |= set(
        subprocess.run(
            [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(EXAMPLE)!r}); {script}"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split()
    )

    assert set(HOOKS) - used == set()
