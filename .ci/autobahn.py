"""Run the Autobahn suite against the plain WebSocket echo, server and client: `tox -e autobahn`.

The suite needs Python 2.7 and is kept beside this checkout, in ../shared/tools/autobahn. Where either is missing
nothing is run, the last line says why, and the exit status is 0. Arguments are those of its run.sh: `--set quick`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

SUITE = Path(__file__).resolve().parents[2] / "shared" / "tools" / "autobahn"
VENV = Path(os.environ.get("AUTOBAHN_VENV", "/tmp/autobahn27"))  # noqa: S108  the default of the suite's install.sh


def main() -> int:
    reason = install()
    if reason:
        print(f"skipped: {reason}")
        return 0
    results = [run("server", "{port}"), run("client", "{url}")]
    return 0 if all(results) else 1


def install() -> str:
    """Install the suite where it is not; returns why that cannot be, or nothing."""
    if not SUITE.is_dir():
        return f"there is no {SUITE}"
    if (VENV / "bin" / "wstest").exists():
        return ""
    python = Path(os.environ.get("PY27", Path.home() / ".pyenv" / "versions" / "2.7.18" / "bin" / "python"))
    if not python.exists():
        return f"there is no Python 2.7 ({python})"
    done = subprocess.run(
        [str(SUITE / "install.sh"), str(VENV)], check=False, env=os.environ | {"PY27": str(python)}, timeout=600
    )
    return "" if done.returncode == 0 else "the suite could not be installed"


def run(side: str, argument: str) -> bool:
    """Run one side; it has passed only if no case is failed or non-strict."""
    command = [sys.executable, "-m", "stt_websocket.echo", side, argument]
    done = subprocess.run(
        [str(SUITE / "run.sh"), side, *sys.argv[1:], "--", *command],
        check=False,
        stdout=subprocess.PIPE,
        text=True,
    )
    print(done.stdout, end="", flush=True)
    return done.returncode == 0 and re.search(r"failed 0, non-strict 0,", done.stdout) is not None


if __name__ == "__main__":
    sys.exit(main())
