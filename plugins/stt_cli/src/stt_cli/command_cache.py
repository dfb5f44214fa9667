"""Which commands the installed plugins offer, remembered so that no plugin is imported to list them.

The memory is one file in the user's cache folder. It holds names, help texts and ``module:object`` targets, nothing
else, and counts only while the installed entry points and the disabled names are what they were. A file that is broken
or cannot be written costs time, never a command.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from stt_cli._version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stt_core import Registries

# As in stt_core, which is not imported here: that takes longer than all of `stt --help`. A test compares them.
ENTRY_POINT_GROUP: Final = "stt.v1"
"""The entry points of plugins."""
DISABLE_VARIABLE: Final = "STT_DISABLE_PLUGINS"
"""Names of plugins that are not to be imported."""

_MAX_SIZE: Final = 1 << 20  # bytes of a file that is worth reading
# What broken files, broken metadata of distributions and a missing home raise; none of it is worth a failed command.
_FAILURES: Final = (OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError)


class CommandSource(NamedTuple):
    """Where a sub-command is."""

    help_text: str
    target: str
    """``module:object``, imported when the command runs."""

    by_plugin: bool = False
    """Whether a plugin offers it, so that the shared options must be added."""


Commands: TypeAlias = dict[str, CommandSource]
"""By name."""


def disable_plugins(names: Iterable[str]) -> None:
    """Keep plugins out of this process, besides those that the environment names already."""
    present = os.environ.get(DISABLE_VARIABLE, "")
    os.environ[DISABLE_VARIABLE] = ",".join(name for name in (present, *names) if name)


def cache_path() -> Path:
    """Return the file of the cache."""
    folder: Path = importlib.import_module("platformdirs").user_cache_path("stt")
    return folder / "commands.json"


def cached_commands() -> Commands | None:
    """Return what plugins offer, without importing one; None where that is not known, or not any more."""
    try:
        data = _read(cache_path())
        content = json.loads(data)
        if content["key"] != _key():
            return None
        return {
            _text(name): CommandSource(_text(help_text), _text(target), by_plugin=True)
            for name, (help_text, target) in content["commands"].items()
        }
    except _FAILURES:
        return None


def commands_of(registries: Registries) -> Commands:
    """Return what plugins offer, and remember it, unless one failed: that may be mended at any time."""
    commands = {
        command.name: CommandSource(command.help_text, command.target, by_plugin=True)
        for command in registries.commands.values()
    }
    if any(info.state.value == "failed" for info in registries.plugins):
        _forget()
    else:
        _remember(commands)
    return commands


def _key() -> list[object]:
    """Return all that the commands depend on, as JSON has it."""
    found = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
    points = [
        [point.name, point.value, *((point.dist.name, point.dist.version) if point.dist is not None else ("", ""))]
        for point in found
    ]
    disabled = {name.strip() for name in os.environ.get(DISABLE_VARIABLE, "").split(",")}
    return [__version__, sorted(points), sorted(disabled - {""})]


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MAX_SIZE)


def _remember(commands: Commands) -> None:
    temporary: Path | None = None
    try:
        path = cache_path()
        key = _key()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        content = {"key": key, "commands": {name: [each.help_text, each.target] for name, each in commands.items()}}
        # Under another name first: who reads meanwhile finds the old file or the new one, never a part.
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
            temporary = Path(file.name)
            json.dump(content, file)
        temporary.replace(path)
    except _FAILURES:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def _forget() -> None:
    with contextlib.suppress(*_FAILURES):
        cache_path().unlink(missing_ok=True)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
