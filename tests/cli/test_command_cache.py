"""Does ``stt --help`` import no plugin once it knows what they offer, and does it learn of every change?"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import attrs
import pytest

from stt_cli import command_cache
from stt_core import hookspecs, plugins

if TYPE_CHECKING:
    from pathlib import Path

HELP = ("--help",)
SHOW_MODULES = """
import sys
from stt_cli.main import main
try:
    main()
finally:
    print(*sys.modules, file=sys.stderr)
"""
PLUGIN = """
from pathlib import Path
from stt_core import hookimpl
Path(__file__).with_suffix(".imported").touch()
@hookimpl
def stt_register_commands(register):
    register("{name}", "Help of {name}, {text}.", "{target}:command")
"""
COMMAND = """
import click
@click.command()
def command():
    "Do it."
    click.echo("{text}")
"""


@attrs.frozen
class Machine:
    """Installed distributions, a home, and what runs there."""

    site: Path
    home: Path

    def install(self, name: str, version: str = "1.0", text: str = "first", target: str = "") -> None:
        info = self.site / f"fake_{name}.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: fake-{name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[stt.v1]\n{name} = fake_{name}\n")
        target = target or f"fake_{name}_command"
        (self.site / f"fake_{name}.py").write_text(PLUGIN.format(name=name, text=text, target=target))
        (self.site / f"{target}.py").write_text(COMMAND.format(text=text))

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run stt; standard error has the modules that were imported."""
        return subprocess.run(
            [sys.executable, "-B", "-c", SHOW_MODULES, *arguments],
            check=False,
            capture_output=True,
            text=True,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(self.site),
                "HOME": str(self.home),
                "XDG_CACHE_HOME": str(self.home / "cache"),
                **environment,
            },
        )

    def forget_imports(self) -> list[str]:
        """Return which plugins were imported since the last time."""
        markers = sorted(self.site.glob("*.imported"))
        for marker in markers:
            marker.unlink()
        return [marker.stem for marker in markers]

    @property
    def cache(self) -> Path:
        (path,) = self.home.rglob("commands.json")
        return path


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path / "site", tmp_path / "home")
    made.site.mkdir()
    made.home.mkdir()
    return made


def test_names_are_those_of_the_core() -> None:
    assert command_cache.ENTRY_POINT_GROUP == hookspecs.ENTRY_POINT_GROUP
    assert command_cache.DISABLE_VARIABLE == plugins.DISABLE_VARIABLE


def test_the_second_help_imports_no_plugin_of_ten_and_nothing_that_is_slow(machine: Machine) -> None:
    for number in range(10):
        machine.install(f"plugin{number}")

    first = machine.run(*HELP)
    imported = machine.forget_imports()
    second = machine.run(*HELP)

    assert len(imported) == 10
    assert machine.forget_imports() == []
    assert "Help of plugin9, first." in second.stdout
    assert second.stdout == first.stdout
    modules = set(second.stderr.split())
    assert "stt_cli.main" in modules
    assert not {
        name
        for name in modules
        if name.startswith(("fake_", "stt_chamber", "stt_streaming", "stt_udp", "stt_websocket"))
    }
    assert not {"stt_core", "stt_cli.context", "cryptography", "attrs", "asyncio", "rich"} & modules


def test_help_takes_less_than_300_ms_with_ten_plugins(machine: Machine) -> None:
    for number in range(10):
        machine.install(f"plugin{number}")
    machine.run(*HELP)

    seconds = []
    for _ in range(5):
        before = os.times()
        machine.run(*HELP)
        after = os.times()
        # Of the processor, not of the clock: others may be at work on this machine.
        seconds.append(after.children_user + after.children_system - before.children_user - before.children_system)

    assert min(seconds) < 0.3


def test_a_distribution_with_broken_metadata_is_no_obstacle(machine: Machine) -> None:
    machine.install("one")
    machine.install("two")
    (machine.site / "fake_one.dist-info" / "METADATA").unlink()

    results = [machine.run(*HELP) for _ in range(2)]

    assert all("Help of one" in result.stdout and result.returncode == 0 for result in results)


def test_a_command_of_a_plugin_runs_without_the_plugin_being_imported(machine: Machine) -> None:
    machine.install("greet")
    machine.run(*HELP)
    machine.forget_imports()

    assert machine.run("greet").stdout == "first\n"
    assert machine.forget_imports() == []


def test_another_version_another_plugin_or_one_less_is_noticed(machine: Machine) -> None:
    machine.install("one")
    machine.run(*HELP)

    machine.install("one", version="1.1", text="second")
    assert "Help of one, second." in machine.run(*HELP).stdout
    machine.install("two")
    assert "Help of two" in machine.run(*HELP).stdout
    (machine.site / "fake_one.dist-info" / "entry_points.txt").unlink()
    assert "Help of one" not in machine.run(*HELP).stdout


def test_a_plugin_that_is_disabled_is_not_imported_by_either_way(machine: Machine) -> None:
    machine.install("one")
    machine.install("two")

    by_option = machine.run("--help", "--disable-plugin", "one", "--disable-plugin", "streaming")
    assert machine.forget_imports() == ["fake_two"]
    by_environment = machine.run(*HELP, STT_DISABLE_PLUGINS="streaming,one")
    assert machine.forget_imports() == []
    all_of_them = machine.run("--disable-plugin", "*", *HELP)
    assert machine.forget_imports() == []

    assert by_option.stdout == by_environment.stdout
    assert "Help of two" in by_option.stdout
    assert "Help of one" not in by_option.stdout
    assert "Help of" not in all_of_them.stdout
    assert "Help of one" in machine.run(*HELP).stdout


def test_a_command_that_a_plugin_got_or_moved_under_its_old_version_is_found(machine: Machine) -> None:
    machine.install("one")
    machine.run(*HELP)

    machine.install("one", text="moved", target="fake_elsewhere")
    (machine.site / "fake_one_command.py").unlink()
    assert machine.run("one").stdout == "moved\n"
    plugin = machine.site / "fake_one.py"
    plugin.write_text(plugin.read_text().replace('register("one"', 'register("renamed"'))
    assert machine.run("renamed").stdout == "moved\n"


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"key": 1}', "\xff", "[" * 100_000, "KEY-1", "KEY-2"], ids=lambda content: content[:8]
)
def test_a_broken_cache_is_as_good_as_none(machine: Machine, content: str) -> None:
    machine.install("one")
    good = machine.run(*HELP).stdout
    kept = machine.cache.read_text()
    key = json.loads(kept)["key"]
    broken = {"KEY-1": json.dumps({"key": key, "commands": 5}), "KEY-2": json.dumps({"key": key, "commands": {"a": 1}})}

    machine.cache.write_bytes(broken.get(content, content).encode("latin-1"))

    assert machine.run(*HELP).stdout == good
    assert machine.cache.read_text() == kept


def test_a_cache_that_cannot_be_written_is_done_without(machine: Machine) -> None:
    machine.install("one")
    (machine.home / "cache").write_text("no folder")

    results = [machine.run(*HELP) for _ in range(2)]

    assert all("Help of one" in result.stdout and result.returncode == 0 for result in results)


def test_what_a_failed_plugin_leaves_is_not_remembered(machine: Machine) -> None:
    machine.install("one")
    good = (machine.site / "fake_one.py").read_text()
    (machine.site / "fake_one.py").write_text("raise ValueError('broken')")
    assert "Help of one" not in machine.run(*HELP).stdout

    (machine.site / "fake_one.py").write_text(good)

    assert "Help of one" in machine.run(*HELP).stdout


def test_the_cache_holds_commands_and_no_secret(machine: Machine) -> None:
    machine.install("one")
    machine.run(*HELP, STT_SEED="a secret")

    text = machine.cache.read_text()
    assert set(json.loads(text)) == {"key", "commands"}
    assert "a secret" not in text
    assert stat.S_IMODE(machine.cache.stat().st_mode) == 0o600
    assert len(list(machine.cache.parent.iterdir())) == 1
