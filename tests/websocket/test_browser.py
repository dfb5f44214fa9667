"""Chromium as a client of the plain echo, driven by the script that is kept beside this checkout."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "shared" / "tools" / "browser" / "ws_browser.py"
MISSING = [
    reason
    for is_there, reason in (
        (SCRIPT.exists(), "the script is not beside this checkout"),
        (shutil.which("chromium") and shutil.which("chromedriver"), "Chromium or its driver is not installed"),
        (importlib.util.find_spec("selenium"), "the library selenium is not installed"),
    )
    if not is_there
]

pytestmark = pytest.mark.skipif(bool(MISSING), reason="; ".join(MISSING))


@pytest.mark.parametrize("options", [[], ["--protocol", "stt.v1"]])
def test_chromium_exchanges_messages_of_all_sizes_and_closes_cleanly(options: list[str]) -> None:
    start = f"{sys.executable} -m stt_websocket.echo server {{port}}"

    done = subprocess.run(
        [sys.executable, str(SCRIPT), "ws://127.0.0.1:{port}/", "--start", start, *options],
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "10 of 10 checks passed" in done.stdout
