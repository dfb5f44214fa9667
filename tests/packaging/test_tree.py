"""Does the tree hold anything that belongs to one machine only?"""

from __future__ import annotations

import os
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Folders of a home or a work place, and hosts of package registries; in pieces, so that this file passes too.
PRIVATE = re.compile(
    rb"/(?:" + b"|".join([b"work/", b"root/", rb"home/(?!user\b)\w", b"Users/"]) + b")|"
    rb"(?:py" + rb"pi|python" + rb"hosted|npm" + rb"js|deb\.deb" + rb"ian|crates)\.(?:org|com|io)"
)


def tree() -> list[Path]:
    """Return the files of the tree, without what tools leave there."""
    left_behind = {"__pycache__", "build", "dist"}
    found = []
    for parent, folders, files in os.walk(ROOT):
        folders[:] = [
            name for name in folders if name == ".ci" or (name not in left_behind and not name.startswith("."))
        ]
        found += [Path(parent, name) for name in files if not name.startswith(".coverage")]
    return found


def test_no_file_names_a_path_of_one_machine_or_a_registry() -> None:
    traces = {
        f"{path.relative_to(ROOT)}: {match.group().decode()}"
        for path in tree()
        for match in PRIVATE.finditer(path.read_bytes())
    }

    assert traces == set()


def test_shell_scripts_and_configuration_end_with_a_newline_and_have_no_carriage_returns() -> None:
    for path in tree():
        content = path.read_bytes()
        if path.suffix in {".py", ".md", ".toml", ".ini", ".json"} or path.name == "run":
            assert b"\r\n" not in content, path
            assert not content or content.endswith(b"\n"), path
