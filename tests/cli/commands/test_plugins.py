"""Do ``stt plugins list`` and ``why`` tell what became of each plugin?"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from stt_cli.main import stt

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import CliRunner


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Install a distribution whose plugin cannot be imported, and return the plugin's name."""
    info = tmp_path / "site" / "acme_broken.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-broken\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text("[stt.v1]\nbroken = acme_broken.plugin\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    return "broken"


@pytest.mark.usefixtures("every_plugin")
def test_plugins_are_listed_for_people_and_for_programs(runner: CliRunner, broken: str) -> None:
    for_people = runner.invoke(stt, ["plugins", "list"])
    for_programs = runner.invoke(stt, ["plugins", "list", "--json"])

    assert "stt-streaming" in for_people.stdout
    assert "No module named 'acme_broken'" in for_people.stdout
    events = {event["name"]: event for event in map(json.loads, for_programs.stdout.splitlines())}
    assert events["streaming"].pop("version")
    assert {"command send", "command receive"} <= set(events["streaming"].pop("offers"))
    assert events["streaming"] == {
        "event": "plugin",
        "name": "streaming",
        "distribution": "stt-streaming",
        "source": "stt_streaming.plugin",
        "state": "active",
        "reason": "",
        "hooks": ["stt_register_commands"],
    }
    assert events["core"]["distribution"] == "stt-core"
    assert (events[broken]["version"], events[broken]["state"]) == ("1.5", "failed")


@pytest.mark.usefixtures("every_plugin")
def test_an_active_plugin_is_explained(runner: CliRunner) -> None:
    result = runner.invoke(stt, ["plugins", "why", "udp"])

    assert result.exit_code == 0
    for part in ("udp is active", "stt_udp.plugin", "stt-udp", "stt_register_transports", "transport udp"):
        assert part in result.stdout


def test_a_failed_plugin_is_explained_with_its_traceback_if_asked(runner: CliRunner, broken: str) -> None:
    short = runner.invoke(stt, ["plugins", "why", broken])
    long = runner.invoke(stt, ["plugins", "why", broken, "-v"])
    (event,) = map(json.loads, runner.invoke(stt, ["plugins", "why", broken, "-v", "--json"]).stdout.splitlines())

    assert short.exit_code == long.exit_code == 1
    for part in ("broken is failed: ModuleNotFoundError", "acme_broken.plugin", "acme-broken 1.5"):
        assert part in short.stdout
    assert "Traceback" not in short.stdout
    assert "Traceback" in long.stdout
    assert "Traceback" in event["traceback"]


@pytest.mark.parametrize("by", ["option", "environment"])
def test_a_blocked_plugin_is_explained(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch, broken: str, by: str
) -> None:
    options = ["--disable-plugin", broken] if by == "option" else []
    if by == "environment":
        monkeypatch.setenv("STT_DISABLE_PLUGINS", broken)

    result = runner.invoke(stt, [*options, "plugins", "why", broken])

    assert result.exit_code == 1
    assert "broken is blocked: disabled by STT_DISABLE_PLUGINS" in result.stdout


@pytest.mark.usefixtures("every_plugin")
def test_what_is_disabled_for_one_command_is_not_for_the_next(runner: CliRunner) -> None:
    assert runner.invoke(stt, ["--disable-plugin", "udp", "plugins", "why", "udp"]).exit_code == 1
    assert runner.invoke(stt, ["plugins", "why", "udp"]).exit_code == 0


@pytest.mark.usefixtures("every_plugin")
def test_a_plugin_that_is_not_there_is_told_from_others(runner: CliRunner) -> None:
    result = runner.invoke(stt, ["plugins", "why", "absent"])
    for_programs = runner.invoke(stt, ["plugins", "why", "absent", "--json"])

    assert result.exit_code == for_programs.exit_code == 1
    assert "absent is not found" in result.stdout
    assert "streaming, udp" in result.stdout
    assert json.loads(for_programs.stdout) == {"event": "plugin", "name": "absent", "state": "missing"}


@pytest.mark.parametrize("name", ["long.name" * 40, ""])
def test_where_no_node_can_be_made_the_plugins_are_listed_all_the_same(
    runner: CliRunner, tmp_path: Path, broken: str, name: str
) -> None:
    (tmp_path / "site" / "acme_broken.dist-info" / "entry_points.txt").write_text("[stt.v1]\nbroken = acme_endpoints\n")
    (tmp_path / "site" / "acme_endpoints.py").write_text(
        "from stt_core import hookimpl\n@hookimpl\ndef stt_register_endpoints(register):\n"
        f"    register({name!r}, print)\n"
    )

    result = runner.invoke(stt, ["plugins", "list"])

    assert result.exit_code == 0
    assert broken in result.stdout
