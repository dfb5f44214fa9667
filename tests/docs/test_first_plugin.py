"""Does the tutorial on plugins work when it is followed to the letter?"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "tutorials" / "first-plugin.md").read_text(encoding="utf-8")

BLOCK = re.compile(
    r"^```(?:\{code-block\} \w+\n:caption: (?P<path>\S+)\n\n|console\n)(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which `pip install` needs no network and leaves this one as it is."""
    if importlib.util.find_spec("hatchling") is None:
        assert "TOX_ENV_NAME" not in os.environ, "hatchling has to be among the dependencies of this environment"
        pytest.skip("hatchling, which builds the plugin, is not installed")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("STT_", "PYTEST_"))}
    return kept | {
        "HOME": str(tmp_path),
        "PATH": os.pathsep.join((sysconfig.get_path("scripts"), os.environ["PATH"])),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # as the option --no-build-isolation
        "PIP_NO_DEPS": "1",
        "PIP_NO_INDEX": "1",
        "PIP_TARGET": str(tmp_path / "installed"),
        "PIP_UPGRADE": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONPATH": str(tmp_path / "installed"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def test_following_it_leads_to_what_it_says(tmp_path: Path, environment: dict[str, str]) -> None:
    folder = tmp_path
    blocks = list(BLOCK.finditer(PAGE))
    assert len(blocks) == PAGE.count("\n```console") + PAGE.count("{code-block}") >= 10
    for block in blocks:
        if block["path"]:
            (folder / block["path"]).write_text(block["text"], encoding="utf-8")
            continue
        for command, wanted in re.findall(r"^\$ (.*)\n((?:[^$].*\n)*)", block["text"], re.MULTILINE):
            if command.startswith("cd "):
                folder /= command.removeprefix("cd ")
                continue
            done = subprocess.run(
                command,
                shell=True,
                check=False,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=60,
                cwd=folder,
                env=environment,
            )
            assert re.fullmatch(pattern(wanted), spaced(done.stdout)), f"{command} printed:\n{done.stdout}"


def pattern(wanted: str) -> str:
    """Return what matches output as the page shows it: `...` stands for anything, as a line for any lines."""
    return "".join(
        r"(?:.*\n)*?" if line == "..." else re.escape(line).replace(r"\.\.\.", ".*") + r"\n"
        for line in spaced(wanted).splitlines()
    )


def spaced(text: str) -> str:
    """Return a text with single spaces, since columns are as wide as the longest name."""
    return re.sub(r" +", " ", re.sub(r" +\n", "\n", text))
