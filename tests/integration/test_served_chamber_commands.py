"""Do ``stt chamber serve`` and ``stt chamber sync`` keep two replicas the same, between real processes over UDP?"""

from __future__ import annotations

import json
import os
import re
import signal
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

Serve = Any
SECRET = "chamber.seed"


@pytest.fixture
def owner(stt: Any) -> str:
    """Return the node id of the one who has the seed of the chamber."""
    return str(stt.run("id", node="owner").stdout.strip())


@pytest.fixture
def run(stt: Any, tmp_path: Path) -> Callable[..., Any]:
    """Return what runs a sub-command as the owner, on a chamber in a SQLite file."""
    assert stt.run("keygen", "--out", tmp_path / SECRET).returncode == 0

    def run(*words: str | Path, store: str = f"sqlite://{tmp_path}/mine.db", node: str = "owner") -> Any:
        seeds = ("--seed", tmp_path / SECRET, "--session-seed", stt.seed)
        return stt.run("chamber", *words, "--store", store, *seeds, node=node)

    return run


@pytest.fixture
def serve(stt: Any, tmp_path: Path) -> Callable[..., tuple[subprocess.Popen[str], str]]:
    """Return what begins to serve a store, and tells the URL of it."""

    def serve(*words: str, url: str = "udp://127.0.0.1:0") -> tuple[subprocess.Popen[str], str]:
        store = f"sqlite://{tmp_path}/held.db"
        process = stt.start(
            *("chamber", "serve", url, "--store", store, "--seed", stt.seed, "--json"),
            *words,
            node="holder",
        )
        line = process.stdout.readline()
        assert line, process.communicate()
        url = json.loads(line)["url"]
        [node_id] = re.findall("node id ([0-9a-f]{64})", process.stderr.readline() + process.stderr.readline())
        return process, url.replace("udp://", f"stt+udp://{node_id}@")

    return serve


def events(done: Any) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_peer_holds_a_replica_that_it_cannot_read(
    run: Any, serve: Serve, stt: Any, owner: str, tmp_path: Path
) -> None:
    holder, url = serve("--allow", f"{owner}:rw", "--quota", "100M")
    secret = tmp_path / "secret"
    secret.write_bytes(b"nobody else reads this\n" * 10_000)
    run("init")
    run("put", "a", secret)

    [done] = events(run("sync", url, "--json"))
    assert (done["event"], done["received"], done["conflicts"]) == ("synchronised", 0, 0)
    assert done["sent"] > 230_000
    assert run("get", "a", store=url).stdout == secret.read_text()
    assert run("check", store=url).returncode == 0
    # Each side changes something, and one thing both.
    run("put", "of mine", stt.seed)
    run("put", "of theirs", stt.seed, store=url)
    run("put", "b", stt.seed)
    run("put", "b", secret, store=url)
    conflict, done = events(run("sync", url, "--json"))

    assert (conflict["event"], conflict["key"], done["conflicts"]) == ("conflict", "b", 1)
    for store in (f"sqlite://{tmp_path}/mine.db", url):
        keys = run("list", store=store).stdout.splitlines()
        assert keys == ["a", "b", conflict["kept_as"], "of mine", "of theirs"]
    assert run("get", "b").stdout == secret.read_text()
    assert run("get", conflict["kept_as"], store=url).stdout == stt.seed.read_text()
    assert b"nobody else" not in b"".join(path.read_bytes() for path in tmp_path.glob("held.db*"))
    holder.send_signal(signal.SIGTERM)
    assert holder.wait(30) == 128 + signal.SIGTERM
    assert run("list", store=f"sqlite://{tmp_path}/held.db").stdout.splitlines() == keys


def test_a_peer_whose_session_the_chambers_seed_opens_is_warned_of(
    run: Any, serve: Serve, stt: Any, owner: str
) -> None:
    holder, url = serve("--allow", f"{owner}:rw", "--quota", "100M")

    warned = stt.run("chamber", "init", "--store", url, "--seed", stt.seed, node="owner")
    quiet = run("init", "--name", "other", store=url)
    stop(holder)

    assert (warned.returncode, quiet.returncode) == (0, 0)
    assert "--session-seed" in warned.stderr
    assert "--session-seed" not in quiet.stderr


def test_who_is_not_allowed_gets_nothing(run: Any, serve: Serve, stt: Any, owner: str) -> None:
    assert serve_fails(stt, "--allow", f"{owner}:rw") == 2  # without a bound
    assert serve_fails(stt, "--allow", "nobody") == 2
    assert serve_fails(stt) == 2
    _, url = serve("--allow", owner)
    run("init")

    refused = run("sync", url)
    assert refused.returncode == 3
    assert "may only read" in refused.stderr
    assert run("sync", url, node="stranger").returncode == 3
    assert run("list", store=url, node="stranger").returncode == 3
    other_id = "00" * 32
    assert run("list", store=re.sub("[0-9a-f]{64}", other_id, url)).returncode == 3
    assert run("list", store="stt+udp://host@nowhere:1").returncode == 2


def serve_fails(stt: Any, *words: str) -> int:
    store = "memory://"
    command = ("chamber", "serve", "udp://127.0.0.1:0", "--store", store, "--seed", stt.seed, *words)
    return int(stt.run(*command, node="holder").returncode)


def test_a_full_holder_says_so_and_is_whole(run: Any, serve: Serve, owner: str, tmp_path: Path) -> None:
    _, url = serve("--allow", f"{owner}:rw", "--quota", "1M")
    run("init")
    run("sync", url)
    large = tmp_path / "large"
    large.write_bytes(os.urandom(2_000_000))
    run("put", "large", large)

    full = run("sync", url)

    assert full.returncode == 1
    assert "the store may hold 1000000 bytes" in full.stderr
    assert run("check", store=url).returncode == 0


def test_a_holder_that_is_put_back_is_found_out(run: Any, serve: Serve, stt: Any, owner: str, tmp_path: Path) -> None:
    holder, url = serve("--allow", f"{owner}:rw", "--quota", "100M")
    run("init")
    run("sync", url)
    stop(holder)
    earlier = {path: path.read_bytes() for path in tmp_path.glob("held.db*")}
    holder, url = serve_again(serve, url, owner)
    run("put", "key", stt.seed)
    assert run("sync", url).returncode == 0
    stop(holder)
    for path in tmp_path.glob("held.db*"):
        path.unlink()
    for path, content in earlier.items():
        path.write_bytes(content)

    holder, url = serve_again(serve, url, owner)
    for done in (run("sync", url), run("list", store=url)):
        assert done.returncode == 1
        assert "earlier state" in done.stderr


def serve_again(serve: Serve, url: str, owner: str) -> tuple[subprocess.Popen[str], str]:
    """Serve at the URL that was served at before: what was seen there is known by it."""
    port = url.rpartition(":")[2]
    again: tuple[subprocess.Popen[str], str] = serve(
        "--allow", f"{owner}:rw", "--quota", "100M", url=f"udp://127.0.0.1:{port}"
    )
    return again


def stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    process.wait(30)


@pytest.mark.parametrize("killed", ["owner", "holder"])
def test_what_was_killed_goes_on(
    run: Any, serve: Serve, stt: Any, owner: str, tmp_path: Path, wait_until: Any, killed: str
) -> None:
    words = ("--allow", f"{owner}:rw", "--quota", "1G")
    holder, url = serve(*words)
    large = tmp_path / "large"
    large.write_bytes(os.urandom(24_000_000))
    run("init")
    run("put", "large", large)
    seeds = ("--seed", tmp_path / SECRET, "--session-seed", stt.seed)
    mine = f"sqlite://{tmp_path}/mine.db"

    syncing = stt.start("chamber", "sync", url, "--store", mine, *seeds, node="owner")
    wait_until(lambda: sum(path.stat().st_size for path in tmp_path.glob("held.db*")) > 8_000_000)
    process = syncing if killed == "owner" else holder
    process.kill()
    process.wait()
    if killed == "holder":
        syncing.kill()
        syncing.wait()
        holder, url = serve(*words)
    [done] = events(run("sync", url, "--json"))

    assert done["sent"] < 22_000_000
    assert run("check", store=url).returncode == 0
    assert run("get", "large", "--out", tmp_path / "got", store=url).returncode == 0
    assert (tmp_path / "got").read_bytes() == large.read_bytes()
