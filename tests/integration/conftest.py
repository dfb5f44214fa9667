"""Real processes of the command ``stt``, each with an environment and a data folder of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
import time
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

import attrs
import pytest

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Iterator, Mapping

STT = Path(sysconfig.get_path("scripts"), "stt")


@attrs.define
class Listener:
    """A command that listens, such as ``stt receive``."""

    process: subprocess.Popen[str]
    url: str

    def event(self) -> dict[str, Any]:
        """Return the next event that it tells, not counting how far something is."""
        assert self.process.stdout is not None
        while True:
            event: dict[str, Any] = json.loads(self.process.stdout.readline())
            if event["event"] != "progress":
                return event

    def end(self, number: signal.Signals | None = None, timeout: float = 30.0) -> tuple[int, str]:
        """Wait for its end, after a signal if one is given; return its status and its standard error."""
        if number is not None:
            self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=timeout)
        return self.process.returncode, errors


@attrs.define
class Stt:
    """Runs ``stt``; made by the fixture."""

    folder: Path
    seed: Path
    _running: ExitStack
    variables: dict[str, str] = attrs.field(factory=dict)
    """What the environment of each command has besides."""

    def environment(self, node: str = "node") -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("STT_")}
        return kept | {"HOME": str(self.folder), "XDG_DATA_HOME": str(self.folder / node)} | self.variables

    def start(self, *words: str | Path, node: str = "node", **options: Any) -> subprocess.Popen[str]:
        """Begin a command; it is killed with the test at the latest."""
        process = subprocess.Popen(
            [STT, *words],
            env=self.environment(node),
            text=True,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options,
        )
        self._running.callback(_kill, process)
        return process

    def run(self, *words: str | Path, node: str = "node", env: Mapping[str, str] | None = None) -> Any:
        """Run a command to its end."""
        return subprocess.run(
            [STT, *words],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
            env=self.environment(node) | dict(env or {}),
        )

    def send(self, url: str, *words: str | Path, node: str = "sender") -> Any:
        return self.run("send", url, *words, "--seed", self.seed, "--json", node=node)

    def listen(self, command: str, *words: str | Path, url: str = "udp://127.0.0.1:0", **options: Any) -> Listener:
        """Begin a command that listens, and wait until it does."""
        process = self.start(command, url, "--seed", self.seed, "--json", *words, **options)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()
        event = json.loads(line)
        assert event["event"] == "listening"
        return Listener(process, event["url"])


def _kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    pipes: tuple[IO[str] | None, ...] = (process.stdin, process.stdout, process.stderr)
    for pipe in pipes:
        if pipe is not None:
            pipe.close()


@pytest.fixture
def stt(tmp_path: Path) -> Iterator[Stt]:
    with ExitStack() as running:
        stt = Stt(tmp_path, tmp_path / "our.seed", running)
        assert stt.run("keygen", "--out", stt.seed).returncode == 0
        yield stt


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


@pytest.fixture
def received(inbox: Path) -> Callable[[], list[Path]]:
    """Return a function that returns what is in the inbox, besides the memory of what was stored."""
    return lambda: [path for path in inbox.iterdir() if path.name != ".stt-stored"]


class WaitUntil(Protocol):
    def __call__(self, condition: Callable[[], bool], timeout: float = 20.0) -> None: ...


@pytest.fixture
def wait_until() -> WaitUntil:
    """Return a function that waits for what another process does, which nothing but looking can tell."""

    def wait(condition: Callable[[], bool], timeout: float = 20.0) -> None:
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.005)

    return wait
