"""Runs measures: two fresh processes for each, a relay between them where the link is to be bad."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.peers import PEERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.measures import Figures, Limits

ROOT: Final = Path(__file__).resolve().parent.parent
_START_TIMEOUT: Final = 20.0
_LINKS: Final = {
    "link-loss": ["--rate", "200", "--delay", "25", "--loss", "1"],
    "link-hostile": [
        *("--rate", "200", "--delay", "10", "--loss", "2", "--duplication", "1", "--reordering", "2"),
        *("--rebind", "500", "1000", "1500"),
    ],
}


class RunError(Exception):
    """A run came to no figures."""


@dataclass(frozen=True)
class Run:
    """One measure of one peer."""

    measure: str
    peer: str
    controller: str | None = None
    """The congestion controller, where it is not the default."""

    @property
    def name(self) -> str:
        return f"{self.peer}+{self.controller}" if self.controller else self.peer

    @property
    def title(self) -> str:
        title = PEERS[self.peer].title
        return f"{title.split(',')[0]}, {self.controller}" if self.controller else title


def plan(measure: str, peers: list[str]) -> list[Run]:
    """Return the runs of a measure, of the peers that it says something of."""
    if measure == "link-loss":
        runs = [Run(measure, "stt-udp", controller) for controller in ("bbr", "cubic", "newreno")]
        runs += [Run(measure, peer) for peer in ("aioquic", "qh3")]
    elif measure == "link-hostile":
        runs = [Run(measure, peer) for peer in ("stt-udp", "aioquic", "qh3")]
    elif measure == "idle-10000":
        runs = [Run(measure, "stt-udp")]
    else:
        runs = [Run(measure, peer) for peer in peers if _says_something(measure, peer)]
    return [run for run in runs if run.peer in peers]


def perform(run: Run, limits: Limits, folder: Path, profiles: dict[str, Path] | None = None) -> Figures:
    """Perform a run.

    Args:
        run: Which.
        limits: How long.
        folder: Has the certificates, and takes what the processes say.
        profiles: Where to leave the profile of ``accept`` or ``connect``.

    Raises:
        RunError: It failed, or took too long.
    """
    profiles = profiles or {}
    command = [sys.executable, "-m", "benchmarks.side"]
    options = [f"--peer={run.peer}", f"--measure={run.measure}", f"--folder={folder}"]
    options += [f"--seconds={limits.seconds}", f"--sessions={limits.sessions}", f"--settle={limits.settle}"]
    if run.controller:
        options.append(f"--controller={run.controller}")
    timeout = 25 + 20 * limits.seconds + limits.opening_time + 4 * limits.settle
    log = folder / "log"
    with contextlib.ExitStack() as stack:
        errors = stack.enter_context(log.open("w+b"))
        if PEERS[run.peer].kind.in_one_process:
            connecting = [*command, "both", *options]
        else:
            accepting = [*command, "accept", *options, *_profile(profiles, "accept")]
            address = stack.enter_context(_started(accepting, errors.fileno()))
            link = _LINKS.get(run.measure)
            if link is not None:
                head, _, port = address.rpartition(":")
                relay = [sys.executable, "-m", "benchmarks.impairment", f"127.0.0.1:{port}", *link]
                address = f"{head}:{stack.enter_context(_started(relay, errors.fileno()))}"
            connecting = [*command, "connect", *options, f"--address={address}", *_profile(profiles, "connect")]
        try:
            done = subprocess.run(
                connecting, check=True, stdout=subprocess.PIPE, stderr=errors, timeout=timeout, cwd=ROOT
            )
        except subprocess.TimeoutExpired:
            raise RunError(f"not done within {timeout:.0f} s") from None
        except subprocess.CalledProcessError:
            raise RunError(_last_line(log)) from None
    figures: Figures = json.loads(done.stdout)
    return figures


# Internals


def _says_something(measure: str, peer: str) -> bool:
    entry = PEERS[peer]
    if entry.only is not None and measure not in entry.only:
        return False
    if measure.startswith("datagrams"):
        return entry.kind.has_datagrams
    return measure != "streams" or entry.kind.has_streams


def _profile(profiles: dict[str, Path], role: str) -> list[str]:
    return [f"--profile={profiles[role]}"] if role in profiles else []


@contextlib.contextmanager
def _started(command: list[str], errors: int) -> Iterator[str]:
    """Start a process; yield the first line that it says; end it."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, cwd=ROOT) as process:
        try:
            yield _first_line(process)
        finally:
            process.terminate()
            try:
                process.wait(_START_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()


def _first_line(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    line = b""
    until = time.monotonic() + _START_TIMEOUT
    while not line.endswith(b"\n"):
        readable, _, _ = select.select([process.stdout], [], [], max(0.0, until - time.monotonic()))
        more = os.read(process.stdout.fileno(), 4096) if readable else b""
        if not more:
            raise RunError("a process did not start")
        line += more
    return line.decode().strip()


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].strip()[:200] if lines else "it failed and did not say why"
