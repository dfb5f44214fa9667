"""How long it takes to start: imports, and the command line's help."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

_ROUNDS = 5
_NEEDED = (
    "import asyncio, attrs, pluggy;"
    "from cryptography.hazmat.primitives.asymmetric import ed25519, mlkem, x25519;"
    "from cryptography.hazmat.primitives.ciphers import aead"
)


def measure_startup() -> dict[str, float]:
    """Return the milliseconds of each start, medians; what is not installed is left out."""
    commands = {
        "python": [sys.executable, "-c", "pass"],
        "dependencies": [sys.executable, "-c", _NEEDED],
        "stt_core": [sys.executable, "-c", f"{_NEEDED}; import stt_core"],
    }
    command_line = shutil.which("stt", path=str(Path(sys.executable).parent))
    if command_line is not None:
        commands["help"] = [command_line, "--help"]
    # An installer compiles what it installs; here the first round does, which is not counted.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(1 + _ROUNDS):
        for name, command in commands.items():
            started_at = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
            times[name].append((time.perf_counter() - started_at) * 1e3)
    figures = {name: statistics.median(each[1:]) for name, each in times.items()}
    figures["over_dependencies"] = figures["stt_core"] - figures["dependencies"]
    return figures
