"""What it costs to send a large file, and a folder of small ones, from one process to another, beside other programs.

    python -m benchmarks.file_transfer --mebibytes 512 --files 20000

`stt send` and `stt receive`; SFTP and scp of asyncssh; `wormhole send` and `wormhole receive`, with servers of their
own; and `tar` at both ends of a TCP connection, which neither encrypts nor checks anything: the limit. What is not
installed is left out. The clock runs from the start of the sending command until both ends are done; a server that
receives is started before. What arrived is compared by its SHA-256.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.machine import describe_load, describe_machine, versions

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT: Final = Path(__file__).resolve().parent.parent
_COMMANDS: Final = Path(sys.executable).parent
_INTERVAL: Final = 0.01
_START_TIMEOUT: Final = 20.0
_TIMEOUT: Final = 300.0
_FILES_PER_FOLDER: Final = 100


class TransferError(Exception):
    """A transfer failed, or what it brought is not what was sent."""


@dataclass(frozen=True)
class Figures:
    """What a transfer took; CPU in seconds, memory in bytes."""

    wall: float
    sender_cpu: float
    sender_memory: int
    receiver_cpu: float
    receiver_memory: int


class End:
    """A process of a transfer, and what it used.

    Args:
        command: What to run.
        folder: Takes what it prints.
        stdin: A descriptor, or none.
        stdout: A descriptor, or else a file in the folder.
    """

    def __init__(self, command: list[str], folder: Path, stdin: int | None = None, stdout: int | None = None) -> None:
        name = secrets.token_hex(4)
        self._output, self._errors = folder / f"{name}.out", folder / f"{name}.err"
        with self._output.open("wb") as output, self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL if stdin is None else stdin,
                stdout=output if stdout is None else stdout,
                stderr=errors,
                cwd=ROOT,
            )
        self._name = " ".join(command[:4])
        self.cpu = 0.0
        """Seconds, with those of children; once it has ended."""
        self.memory = 0
        """VmHWM in bytes. The kernel forgets it when the process ends: it is what was seen last."""

    def has_ended(self) -> bool:
        """Look at the process.

        Raises:
            TransferError: It failed.
        """
        if self._process.returncode is not None:
            return True
        with contextlib.suppress(OSError):
            if found := re.search(r"VmHWM:\s*(\d+)", Path(f"/proc/{self._process.pid}/status").read_text("utf-8")):
                self.memory = int(found[1]) * 1024
        pid, status, usage = os.wait4(self._process.pid, os.WNOHANG)
        if not pid:
            return False
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self.cpu = usage.ru_utime + usage.ru_stime
        if self._process.returncode not in (0, -signal.SIGTERM):
            raise TransferError(f"{self._name}: {self._errors.read_text('utf-8', 'replace')[-2000:]}")
        return True

    def first_line(self) -> str:
        """Wait for the first line that it prints, and return it."""
        until = time.monotonic() + _START_TIMEOUT
        while "\n" not in (text := self._output.read_text("utf-8")):
            if self.has_ended() or time.monotonic() > until:
                raise TransferError(f"{self._name}: does not start")
            time.sleep(_INTERVAL)
        return text.partition("\n")[0]

    def stop(self) -> None:
        """End the process, if it is still there."""
        if self._process.returncode is None:
            self._process.terminate()
            until = time.monotonic() + _START_TIMEOUT
            while not self.has_ended():
                if time.monotonic() > until:
                    self._process.kill()
                time.sleep(_INTERVAL)


class Transfer:
    """One transfer, with all processes that it needs.

    Args:
        source: The file or folder to send.
        inbox: The folder that shall have it.
        folder: Takes keys, and what the processes print.
    """

    def __init__(self, source: Path, inbox: Path, folder: Path) -> None:
        self.source, self.inbox, self.folder = source, inbox, folder
        self._stack = contextlib.ExitStack()

    def start(self, command: list[str], stdin: int | None = None, stdout: int | None = None) -> End:
        end = End(command, self.folder, stdin, stdout)
        self._stack.callback(end.stop)
        return end

    def run(
        self, receiver: End, command: list[str], stdout: int | None = None, *, receiver_is_server: bool = False
    ) -> Figures:
        """Start the sender, and return what it took until both are done."""
        started_at = time.monotonic()
        sender = self.start(command, stdout=stdout)
        if stdout is not None:
            os.close(stdout)  # else the connection would not end with the sender
        while not all([sender.has_ended(), receiver.has_ended() or receiver_is_server]):
            if time.monotonic() - started_at > _TIMEOUT:
                raise TransferError(f"not done within {_TIMEOUT:.0f} s")
            time.sleep(_INTERVAL)
        wall = time.monotonic() - started_at
        receiver.stop()
        return Figures(wall, sender.cpu, sender.memory, receiver.cpu, receiver.memory)

    def close(self) -> None:
        self._stack.close()


def run_stt(transfer: Transfer) -> Figures:
    stt = str(_COMMANDS / "stt")
    seeds = {name: str(transfer.folder / f"{name}.seed") for name in ("shared", "receiver", "sender")}
    for path in seeds.values():
        subprocess.run([stt, "keygen", "--out", path], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    common = ["--seed", seeds["shared"], "--json", "--node-seed"]
    receiving = [stt, "receive", "udp://127.0.0.1:0", "--once", "--dir", str(transfer.inbox), *common]
    receiver = transfer.start([*receiving, seeds["receiver"]])
    url = json.loads(receiver.first_line())["url"]
    return transfer.run(receiver, [stt, "send", url, str(transfer.source), *common, seeds["sender"]])


def run_sftp(transfer: Transfer) -> Figures:
    return _run_asyncssh(transfer, "put")


def run_scp(transfer: Transfer) -> Figures:
    return _run_asyncssh(transfer, "copy")


def run_wormhole(transfer: Transfer) -> Figures:
    """The servers are no ends: what they use does not count, and the bytes go past the relay where they can."""
    mailbox, relay = _free_port(), _free_port()
    twist = str(_COMMANDS / "twist")
    state = str(transfer.folder / "mailbox.sqlite")
    transfer.start([twist, "wormhole-mailbox", f"--port=tcp:{mailbox}:interface=127.0.0.1", f"--channel-db={state}"])
    transfer.start([twist, "transitrelay", f"--port=tcp:{relay}:interface=127.0.0.1"])
    for port in (mailbox, relay):
        _wait_for(port)
    wormhole = [str(_COMMANDS / "wormhole"), "--relay-url", f"ws://127.0.0.1:{mailbox}/v1"]
    wormhole += ["--transit-helper", f"tcp:127.0.0.1:{relay}"]
    code = "7-benchmark-transfer"
    receiver = transfer.start(
        [*wormhole, "receive", "--accept-file", "--hide-progress", "-o", f"{transfer.inbox}", code]
    )
    return transfer.run(receiver, [*wormhole, "send", "--hide-progress", "--code", code, str(transfer.source)])


def run_tar(transfer: Transfer) -> Figures:
    """Each `tar` has its end of the connection as standard input or output."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sending = socket.create_connection(listener.getsockname())
        receiving, _ = listener.accept()
    with receiving:
        receiver = transfer.start(
            ["tar", "--extract", "--read-full-records", "--file=-", f"--directory={transfer.inbox}"],
            stdin=receiving.fileno(),
        )
    source = transfer.source
    command = ["tar", "--create", "--file=-", f"--directory={source.parent}", source.name]
    return transfer.run(receiver, command, stdout=sending.detach())


@dataclass(frozen=True)
class Program:
    """What transfers files."""

    title: str
    run: Callable[[Transfer], Figures]
    distributions: tuple[str, ...] = ()


PROGRAMS: Final = (
    Program("stt send, udp://", run_stt, ("stt-cli", "stt-streaming", "stt-udp")),
    Program("asyncssh, SFTP", run_sftp, ("asyncssh",)),
    Program("asyncssh, scp", run_scp, ("asyncssh",)),
    Program(
        "magic-wormhole",
        run_wormhole,
        ("magic-wormhole", "magic-wormhole-mailbox-server", "magic-wormhole-transit-relay"),
    ),
    Program("tar over TCP", run_tar),
)


def measure(program: Program, source: Path, digest: str) -> Figures:
    """Have a program transfer something, beside where it is.

    Raises:
        TransferError: It failed, or what came is something else.
    """
    folder = Path(tempfile.mkdtemp(dir=source.parent.parent))
    inbox = folder / "inbox"
    inbox.mkdir()
    os.sync()  # what others have still to write is not to delay a program that waits for the disk
    transfer = Transfer(source, inbox, folder)
    try:
        figures = program.run(transfer)
    finally:
        transfer.close()
    arrived = inbox / source.name
    if not arrived.exists() or digest_of(arrived) != digest:
        raise TransferError("what came is not what was sent")
    if arrived.is_file():
        # A folder stays until the end: ext4 is slow to make files for some minutes after many were removed.
        arrived.unlink()
    return figures


def make_file(path: Path, size: int) -> None:
    with path.open("wb") as file:
        for _ in range(size // 2**20):
            file.write(os.urandom(2**20))


def make_folder(path: Path, count: int) -> None:
    """Make files of 2 to 6 KiB, 100 to a folder."""
    source = random.Random(0)
    for number in range(count):
        folder = path / f"{number // _FILES_PER_FOLDER:04}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:06}").write_bytes(source.randbytes(source.randrange(2048, 6145)))


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and digests of all files in a folder."""
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    files = sorted(each for each in path.rglob("*") if each.is_file())
    names = "".join(f"{digest_of(each)} {each.relative_to(path)}\n" for each in files)
    return hashlib.sha256(names.encode()).hexdigest()


def size_of(path: Path) -> int:
    return sum(each.stat().st_size for each in [path, *path.rglob("*")] if each.is_file())


def compare(title: str, source: Path, programs: list[Program], repetitions: int) -> None:
    """Let the programs take turns, and print the table: of each the fastest run, with the slowest one's seconds."""
    size, digest = size_of(source), digest_of(source)
    runs: dict[str, list[Figures]] = {}
    for _ in range(repetitions):
        for program in programs:
            try:
                figures = measure(program, source, digest)
            except TransferError as error:
                print(f"{program.title}: {error}", file=sys.stderr)
            else:
                print(f"{program.title}: {figures}", file=sys.stderr)
                runs.setdefault(program.title, []).append(figures)
    print(f"\n| {title} | seconds | MB/s | sender, CPU s | receiver, CPU s | sender, MiB | receiver, MiB |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, each in runs.items():
        best, worst = (choose(each, key=lambda run: run.wall) for choose in (min, max))
        print(
            f"| {name} | {best.wall:.2f} ({worst.wall:.2f}) | {size / best.wall / 1e6:.0f} | {best.sender_cpu:.2f} "
            f"| {best.receiver_cpu:.2f} | {best.sender_memory / 2**20:.0f} | {best.receiver_memory / 2**20:.0f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mebibytes", type=int, default=512, help="size of the one file")
    parser.add_argument("--files", type=int, default=20_000, help="in the folder, some 4 KiB each")
    parser.add_argument("--repetitions", type=int, default=2)
    arguments = parser.parse_args()
    programs = []
    for program in PROGRAMS:
        installed = versions(set(program.distributions))
        if len(installed) == len(program.distributions) and (program.distributions or shutil.which("tar")):
            programs.append(program)
        else:
            print(f"{program.title}: not installed", file=sys.stderr)
    machine = describe_machine()
    names = {name for program in programs for name in program.distributions}
    print(f"{machine['date']}: {machine['cores']} cores of {machine['processor']}, {machine['system']}, ", end="")
    print(f"Python {machine['python']};", ", ".join(f"{name} {each}" for name, each in versions(names).items()))
    print("Load average", describe_load(), "before")
    with tempfile.TemporaryDirectory() as name:
        sources = Path(name, "sources")
        sources.mkdir()
        make_file(sources / "file", arguments.mebibytes * 2**20)
        compare(f"a file of {arguments.mebibytes} MiB", sources / "file", programs, arguments.repetitions)
        (sources / "file").unlink()
        make_folder(sources / "folder", arguments.files)
        compare(f"{arguments.files:,} files", sources / "folder", programs, arguments.repetitions)
    print("\nLoad average", describe_load(), "after")


# Internals


def _run_asyncssh(transfer: Transfer, what: str) -> Figures:
    module = [sys.executable, "-m", "benchmarks.ssh_files"]
    receiver = transfer.start([*module, "serve"])
    arguments = [what, *receiver.first_line().split(), str(transfer.source), str(transfer.inbox)]
    return transfer.run(receiver, [*module, *arguments], receiver_is_server=True)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _wait_for(port: int) -> None:
    until = time.monotonic() + _START_TIMEOUT
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            if time.monotonic() > until:
                raise TransferError(f"nothing listens at port {port}") from None
            time.sleep(_INTERVAL)
        else:
            break


if __name__ == "__main__":
    main()
