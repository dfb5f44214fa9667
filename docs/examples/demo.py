"""Sends a file of 64 MiB from one process to another over UDP on this machine, with the command `stt`."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

SIZE = 64 * 1024 * 1024
STT = Path(sysconfig.get_path("scripts"), "stt")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="stt-demo-") as folder:
        show(Path(folder))


def show(folder: Path) -> None:
    """Make a seed and a file, receive in one process, send in another, compare what arrived."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STT_")}
    environment["XDG_DATA_HOME"] = str(folder)  # the node's own seed is made here, not in the user's data folder
    seed, source, inbox = folder / "demo.seed", folder / "random.bin", folder / "inbox"
    inbox.mkdir()
    source.write_bytes(os.urandom(SIZE))

    def command(*words: str | Path) -> list[str]:
        print("$", shlex.join(["stt", *map(str, words)]), flush=True)
        return [str(STT), *map(str, words)]

    subprocess.run(command("keygen", "--out", seed), env=environment, check=True)

    words = command("receive", "udp://127.0.0.1:0", "--seed", seed, "--dir", inbox, "--once", "--json")
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as receiver:
        try:
            assert receiver.stdout is not None
            url = json.loads(receiver.stdout.readline())["url"]
            print("  listening at", url)
            subprocess.run(command("send", url, source, "--seed", seed), env=environment, check=True, timeout=120)
            # Before the file, there may be events that tell how far it is.
            arrived = next(event for event in map(json.loads, receiver.stdout) if event["event"] == "file")
            receiver.wait(timeout=30)
        finally:
            receiver.kill()

    sent_hash = hashlib.sha3_256(source.read_bytes()).hexdigest()
    received_hash = hashlib.sha3_256((inbox / arrived["name"]).read_bytes()).hexdigest()
    print()
    print("sent      SHA3-256", sent_hash)
    print("received  SHA3-256", received_hash)
    print(f"{SIZE // 1024**2} MiB in {arrived['seconds']:.2f} s: {SIZE / arrived['seconds'] / 1e6:.0f} MB/s, encrypted")
    if received_hash != sent_hash:
        sys.exit("the file that arrived is another one")


if __name__ == "__main__":
    main()
