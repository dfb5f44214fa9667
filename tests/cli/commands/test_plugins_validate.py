"""Does ``stt plugins validate`` find what is wrong with a plugin, without a network and without other plugins?"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from stt_cli.main import stt

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import CliRunner, Result

HEAD = """
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from stt_core import hookimpl
from stt_core.interfaces import CongestionController, CryptoSuite, StorageCapabilities, TransportCapabilities
from stt_core.interfaces.frame import FrameType

async def handle(message):
    return None

def plain(message):
    return None

class Capable:
    capabilities = TransportCapabilities(reliable=True, max_message_size=4096)

class Store:
    capabilities = StorageCapabilities(durable=True, atomic_commit=True, shared=False)

class Suite(CryptoSuite):
    name = "a suite"
    authenticated = True
    max_frames = max_forgeries = 1000
    def cipher(self, key):
        return ChaCha20Poly1305(key)

class Careless:
    def __init__(self, key):
        self.real = ChaCha20Poly1305(key)
    def encrypt(self, nonce, data, associated_data):
        return data + bytes(16)
    def decrypt(self, nonce, data, associated_data):
        return bytes(data[:-16])

class Controller(CongestionController):
    name = "acme"
    window = 12000
    def pacing_rate(self, smoothed_rtt): return None
    def sent(self, size, bytes_in_flight, now): pass
    def acknowledged(self, sample): pass
    def lost(self, size, newest_sent_at, bytes_in_flight, now): pass
    def congestion_persisted(self, now): pass
"""
TRANSPORTS = "@hookimpl\ndef stt_register_transports(register): register({})"
STORAGE = "@hookimpl\ndef stt_register_storage(register): register({})"
SUITES = "@hookimpl\ndef stt_register_crypto_suites(register): register({})"
CONTROLLERS = "@hookimpl\ndef stt_register_congestion_controllers(register): register({})"
FRAME_TYPES = "@hookimpl\ndef stt_register_frame_types(register): register({})"
ENDPOINTS = "@hookimpl\ndef stt_register_endpoints(register): register({})"
COMMANDS = "@hookimpl\ndef stt_register_commands(register): register({})"


def validate(runner: CliRunner, tmp_path: Path, code: str, *options: str) -> Result:
    path = tmp_path / "acme_plugin.py"
    path.write_text(HEAD + code)
    return runner.invoke(stt, ["plugins", "validate", str(path), *options])


@pytest.mark.parametrize(
    "code",
    [
        TRANSPORTS.format("'acme', Capable"),
        TRANSPORTS.format("'acme', lambda url, listening: Capable()"),
        STORAGE.format("'acme', Store"),
        SUITES.format("0x8001, Suite()"),
        CONTROLLERS.format("'acme', Controller"),
        FRAME_TYPES.format("FrameType('acme.telemetry', 0x90, handle)"),
        ENDPOINTS.format("'acme.clock', handle"),
        ENDPOINTS.format("'acme.clock', plain"),
        COMMANDS.format("'acme', 'Help.', 'stt_cli.commands.keygen:keygen'"),
    ],
)
def test_what_is_right_passes(runner: CliRunner, tmp_path: Path, code: str) -> None:
    result = validate(runner, tmp_path, code)

    assert result.exit_code == 0, result.stdout
    assert "failed" not in result.stdout


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import acme_absent", "No module named 'acme_absent'"),
        ("", "implements no hook"),
        ("@hookimpl\ndef stt_register_transport(register): pass", "there is no hook stt_register_transport"),
        ("@hookimpl\ndef stt_register_transports(registry): pass", "does not fit stt_register_transports"),
        ("def stt_register_transports(register): pass", "is not marked with @hookimpl"),
        (TRANSPORTS.format("'acme'"), "was called wrongly"),
        (TRANSPORTS.format("'memory', Capable"), "claimed by plugin core"),
        (TRANSPORTS.format("'Acme', Capable"), "RFC 3986"),
        (TRANSPORTS.format("'acme', str"), "`capabilities` is None"),
        (
            TRANSPORTS.format(
                "'acme', type('T', (), {'capabilities': TransportCapabilities(reliable=True, max_message_size=1199)})"
            ),
            "1200",
        ),
        (STORAGE.format("'acme', Capable"), "`capabilities` is Transport"),
        (SUITES.format("7, Suite()"), "0x8000"),
        (SUITES.format("0x8001, type('S', (Suite,), {'authenticated': False})()"), "not authenticated"),
        (SUITES.format("0x8001, type('S', (Suite,), {'post_quantum': False})()"), "post_quantum"),
        (SUITES.format("0x8001, type('S', (Suite,), {'max_frames': 0})()"), "max_frames"),
        (SUITES.format("0x8001, type('S', (Suite,), {'metadata_size': 3})()"), "bytes become"),
        (
            SUITES.format("0x8001, type('S', (Suite,), {'cipher': lambda self, key: Careless(key)})()"),
            "it opens although",
        ),
        (CONTROLLERS.format("'acme', print"), "no CongestionController"),
        (CONTROLLERS.format("'acme', type('C', (Controller,), {'window': 0})"), "first window"),
        (FRAME_TYPES.format("FrameType('acme.telemetry', 0x10, handle)"), "0x80 to 0xff"),
        (FRAME_TYPES.format("FrameType('telemetry', 0x90, handle)"), "owner in front"),
        (FRAME_TYPES.format("'acme.telemetry', 0x90, handle"), "was called wrongly"),
        (ENDPOINTS.format("'stt.clock', handle"), "the owner stt"),
        (ENDPOINTS.format("'acme.' + 'a' * 300, handle"), "256"),
        (COMMANDS.format("'acme', 'Help.', 'stt_cli.absent:keygen'"), "stt_cli.absent"),
        (COMMANDS.format("'acme', 'Help.', 'stt_cli.commands.keygen:write_seed_file'"), "not a click.Command"),
    ],
)
def test_what_is_wrong_is_named(runner: CliRunner, tmp_path: Path, code: str, reason: str) -> None:
    result = validate(runner, tmp_path, code)

    assert result.exit_code == 1, result.stdout
    assert isinstance(result.exception, SystemExit)
    (*_, line) = (line for line in result.stdout.splitlines() if line.startswith("failed"))
    assert reason in result.stdout
    assert "acme_plugin" in line


def test_programs_get_each_check_and_the_traceback_if_asked(runner: CliRunner, tmp_path: Path) -> None:
    result = validate(runner, tmp_path, "1 / 0", "--json", "-v")

    (event,) = map(json.loads, result.stdout.splitlines())
    assert "Traceback" in event.pop("traceback")
    assert event == {
        "event": "check",
        "plugin": "acme_plugin",
        "check": "imports",
        "state": "failed",
        "detail": "ZeroDivisionError: division by zero",
    }


@pytest.mark.parametrize("name", ["udp", "streaming", "websocket"])
@pytest.mark.usefixtures("every_plugin")
def test_the_plugins_of_this_project_are_valid(runner: CliRunner, name: str) -> None:
    result = runner.invoke(stt, ["plugins", "validate", name])

    assert result.exit_code == 0, result.stdout


def test_what_is_disabled_is_not_imported(runner: CliRunner, tmp_path: Path) -> None:
    path = tmp_path / "acme_disabled.py"
    path.write_text("raise SystemError('imported')")

    result = runner.invoke(stt, ["--disable-plugin", "acme_disabled", "plugins", "validate", str(path)])

    assert result.exit_code == 1
    assert "it is disabled by" in result.stdout


def test_what_is_not_there_is_said(runner: CliRunner, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "pyproject.toml").write_text("[project]\nname = 'other'\n")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "pyproject.toml").write_text("[project")

    for target, reason in {
        "absent": "there are:",
        str(tmp_path / "absent.py"): "no such file",
        str(tmp_path / "empty"): "cannot be read",
        str(tmp_path / "other"): "no entry point",
        str(tmp_path / "broken"): "cannot be read",
    }.items():
        result = runner.invoke(stt, ["plugins", "validate", target])
        assert result.exit_code == 1
        assert reason in result.stdout


def test_nothing_stays_importable(runner: CliRunner, tmp_path: Path) -> None:
    before = sys.path[:]

    validate(runner, tmp_path, "1 / 0")

    assert sys.path == before
