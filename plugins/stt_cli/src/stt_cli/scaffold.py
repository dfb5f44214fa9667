"""What ``stt plugins new`` writes: a plugin's distribution whose tests pass as written."""

from __future__ import annotations

import hashlib
import importlib.resources
import keyword
import re
import sys
from string import Template
from typing import TYPE_CHECKING, Final

import attrs

from stt_core.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_MAX_NAME_SIZE: Final = 40  # of a name that is part of others: a frame type's has at most 64 bytes
_CORE: Final = '"stt-core>=0.1,<0.2"'


@attrs.frozen(kw_only=True)
class Kind:
    """What a plugin can add."""

    module: str
    """The module of the package that has it; its tests are of that name, too."""
    summary: str
    offer: str
    """As the plugin's offers are listed."""
    usage: str
    tests: str = "the rules of the kit in `stt_core.testing`, and one test that it registers"
    dependencies: tuple[str, ...] = ()
    """Besides stt-core."""


KINDS: Final = {
    "transport": Kind(
        module="transport",
        summary="An STT transport for $entry_point:// URLs",
        offer="transport $entry_point",
        usage="Then every node listens and connects at URLs such as `$entry_point://127.0.0.1:4433`.",
    ),
    "storage": Kind(
        module="storage",
        summary="An STT store for $entry_point:// URLs",
        offer="storage $entry_point",
        usage='Then `STTNode(storage="$entry_point://", ...)` uses it.',
    ),
    "crypto-suite": Kind(
        module="suite",
        summary="An STT crypto suite",
        offer="suite $suite_label",
        usage="Then `STTConfig(suites=($suite_number, 0x0001))` prefers it, where the peer has it as well.",
        dependencies=('"cryptography>=48"',),
    ),
    "congestion-controller": Kind(
        module="controller",
        summary="An STT congestion controller",
        offer="controller $identifier",
        usage='Then `STTConfig(congestion_controller="$identifier")` uses it.',
    ),
    "frame-type": Kind(
        module="frame_type",
        summary="An STT frame type",
        offer="frame type $qualified_name",
        usage='Then `await session.send_message("$qualified_name", b"1")` reaches the handler at the peer.',
    ),
    "endpoint": Kind(
        module="endpoint",
        summary="An STT endpoint",
        offer="endpoint $qualified_name",
        usage='Then `await session.request("$qualified_name", b"a text")` returns its answer.',
    ),
    "command": Kind(
        module="command",
        summary="A command of stt",
        offer="command $entry_point",
        usage="Then `stt $entry_point --help` shows it.",
        tests="the command against a peer in the same process, and one test that it registers",
        dependencies=('"click>=8.2"',),
    ),
}
"""By the name that is given to ``stt plugins new``."""


def write_plugin(kind_name: str, name: str, parent: Path) -> Path:
    """Write a distribution into a new folder of its name, and return that folder.

    Args:
        kind_name: One of ``KINDS``.
        name: The distribution's; ``stt-`` in front of it is no part of what the plugin's things are called.
        parent: Where the folder is made; it must be there.

    Raises:
        ConfigError: The name cannot be used.
        FileExistsError: There is something of that name.
        OSError: The folder cannot be written.
    """
    kind = KINDS[kind_name]
    values = _values(name)
    for field in ("summary", "offer", "usage", "tests"):
        values[field] = Template(getattr(kind, field)).substitute(values)
    values["module"] = kind.module
    values["dependencies"] = ", ".join((_CORE, *kind.dependencies))
    source = f"src/{values['package']}"
    files = {
        "pyproject.toml": "common/pyproject.toml",
        "README.md": "common/README.md",
        "CHANGELOG.md": "common/CHANGELOG.md",
        f"{source}/plugin.py": f"{kind_name}/plugin.py",
        f"{source}/{kind.module}.py": f"{kind_name}/{kind.module}.py",
        "tests/test_plugin.py": "common/test_plugin.py",
        f"tests/test_{kind.module}.py": f"{kind_name}/test_{kind.module}.py",
    }
    templates = importlib.resources.files("stt_cli").joinpath("templates")
    texts = {
        path: Template(templates.joinpath(f"{template}.txt").read_text(encoding="utf-8")).substitute(values)
        for path, template in files.items()
    }
    texts[f"{source}/__init__.py"] = f'"""{values["summary"]}."""\n'
    texts[f"{source}/py.typed"] = ""
    folder = parent / name
    folder.mkdir()  # raises where there is something already: nothing is ever overwritten
    for path, text in texts.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return folder


def _values(name: str) -> dict[str, str]:
    package = name.replace("-", "_")
    short = name.removeprefix("stt-")
    identifier = short.replace("-", "_")
    if not _NAME.fullmatch(name) or not short[0].isalpha() or len(name) > _MAX_NAME_SIZE:
        raise ConfigError(
            f"{name!r} is no name for a plugin: small letters and digits in words with a hyphen between them, such as "
            f"acme-clock, at most {_MAX_NAME_SIZE} in all"
        )
    taken = {
        *sys.stdlib_module_names,
        "stt",
        "stt_core",
        "stt_cli",
        "stt_udp",
        "stt_chamber",
        "stt_streaming",
        "stt_websocket",
    }
    if package in taken or short in {"stt", "core"} or keyword.iskeyword(package) or keyword.iskeyword(identifier):
        raise ConfigError(f"{name!r} is the name of something else")
    owner, _, rest = short.partition("-")
    number = int.from_bytes(hashlib.sha3_256(name.encode()).digest()[:4], "big")
    suite_number = 0x8000 + number % 0x8000
    return {
        "distribution": name,
        "package": package,
        "entry_point": short,
        "identifier": identifier,
        "class_name": "".join(word.capitalize() for word in short.split("-")),
        "qualified_name": f"{owner}.{rest or owner}",
        # From the name, so that two plugins seldom wish for the same ones.
        "suite_number": f"0x{suite_number:04X}",
        "suite_label": f"{suite_number:#06x}",
        "frame_code": f"0x{0x80 + number % 0x80:02X}",
    }
