"""Do ``stt send`` and ``stt receive`` bring files over UDP between processes, and end as they should if they cannot?"""

from __future__ import annotations

import hashlib
import json
import os
import pty
import resource
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

MEBIBYTE = 1024 * 1024


def sha3(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha3_256").hexdigest()


def make(path: Path, size: int) -> Path:
    path.write_bytes(os.urandom(size))
    return path


SLOWLY = ("--limit-rate", "2Mi")


def make_long(path: Path) -> Path:
    """Return a file that takes longer to send slowly than any test waits."""
    data = os.urandom(MEBIBYTE)
    with path.open("wb") as file:
        for _ in range(120):
            file.write(data)
    return path


def is_arriving(inbox: Path) -> bool:
    return any(path.stat().st_size for path in inbox.glob(".stt-*.part/item"))


def unfinished(inbox: Path) -> list[Path]:
    """Return what is kept to be gone on with; nothing else may be in the inbox."""
    assert all(path.name.startswith(".stt-") for path in inbox.iterdir())
    return list(inbox.glob(".stt-*.part/item"))


def events(output: str, *kinds: str) -> list[dict[str, Any]]:
    """Return the events of these kinds that a command told."""
    return [event for event in map(json.loads, output.splitlines()) if event["event"] in kinds]


# What arrives


@pytest.mark.parametrize("size", [0, 1, 64 * MEBIBYTE])
def test_a_file_arrives_and_both_sides_tell_the_same(stt: Any, tmp_path: Path, inbox: Path, size: int) -> None:
    source = make(tmp_path / "file.bin", size)
    receiver = stt.listen("receive", "--dir", inbox, "--once")

    sent = stt.send(receiver.url, source)
    arrived = receiver.event()
    status, _ = receiver.end()

    assert (sent.returncode, status) == (0, 0)
    assert sha3(inbox / "file.bin") == sha3(source)
    [told] = events(sent.stdout, "file")
    for event in (arrived, told):
        assert event["seconds"] > 0
        assert {key: event[key] for key in ("event", "name", "size", "sha3_256")} == {
            "event": "file",
            "name": "file.bin",
            "size": size,
            "sha3_256": sha3(source),
        }
    assert {arrived["peer"], told["peer"]} == {stt.run("id", node=node).stdout.strip() for node in ("sender", "node")}


def test_several_files_arrive_with_spaces_and_unicode_in_their_names(
    stt: Any, tmp_path: Path, inbox: Path, received: Callable[[], list[Path]]
) -> None:
    names = ["two  words.txt", "Überweisung März.pdf", "写真.jpg", "\U0001f468\u200d\U0001f469.txt", "plain"]
    sources = [make(tmp_path / name, 1000 * number) for number, name in enumerate(names)]
    receiver = stt.listen("receive", "--dir", inbox, "--once")

    sent = stt.send(receiver.url, *sources)
    status, _ = receiver.end()

    assert (sent.returncode, status) == (0, 0)
    assert {path.name: sha3(path) for path in received()} == {path.name: sha3(path) for path in sources}


def test_names_are_cleaned_and_existing_files_kept(stt: Any, tmp_path: Path, inbox: Path) -> None:
    (inbox / "_hidden").write_text("precious")
    source = make(tmp_path / ".hidden", 10)
    receiver = stt.listen("receive", "--dir", inbox, "--once")

    sent = stt.send(receiver.url, source)
    arrived = receiver.event()

    assert sent.returncode == 0
    assert json.loads(sent.stdout)["name"] == ".hidden"
    assert arrived["name"] == "_hidden (1)"
    assert (inbox / "_hidden").read_text() == "precious"
    assert sha3(inbox / "_hidden (1)") == sha3(source)


def test_a_file_has_the_permissions_of_the_umask(stt: Any, tmp_path: Path, inbox: Path) -> None:
    receiver = stt.listen("receive", "--dir", inbox, "--once", umask=0o027)

    assert stt.send(receiver.url, make(tmp_path / "a", 10)).returncode == 0

    assert (inbox / "a").stat().st_mode & 0o777 == 0o640


def test_several_senders_are_served_at_a_time(
    stt: Any, tmp_path: Path, inbox: Path, received: Callable[[], list[Path]]
) -> None:
    sources = [make(tmp_path / f"{number}.bin", 4 * MEBIBYTE) for number in range(3)]
    receiver = stt.listen("receive", "--dir", inbox)

    senders = [
        stt.start("send", receiver.url, source, "--seed", stt.seed, node=f"sender {source.name}") for source in sources
    ]
    ended = [sender.communicate(timeout=60) and sender.returncode for sender in senders]

    assert ended == [0, 0, 0]
    assert len({receiver.event()["peer"] for _ in sources}) == 3
    assert {path.name: sha3(path) for path in received()} == {path.name: sha3(path) for path in sources}
    assert receiver.end(signal.SIGTERM)[0] == 143


def test_one_users_two_terminals_can_talk_to_each_other(stt: Any, tmp_path: Path, inbox: Path) -> None:
    receiver = stt.listen("receive", "--dir", inbox, "--once")

    sent = stt.send(receiver.url, make(tmp_path / "a", 10), node="node")

    assert sent.returncode == 0
    assert json.loads(sent.stdout)["peer"] == stt.run("id").stdout.strip()


def test_seeds_can_come_from_the_environment(stt: Any, tmp_path: Path, inbox: Path) -> None:
    receiver = stt.listen("receive", "--dir", inbox, "--once")

    sent = stt.run("send", receiver.url, make(tmp_path / "a", 10), env={"STT_SEED": stt.seed.read_text()})

    assert sent.returncode == 0


def test_ipv6_works_as_well(stt: Any, tmp_path: Path, inbox: Path) -> None:
    receiver = stt.listen("receive", "--dir", inbox, "--once", url="udp://[::1]:0")

    assert stt.send(receiver.url, make(tmp_path / "a", 10)).returncode == 0


def test_where_udp_does_not_get_through_websocket_does(stt: Any, tmp_path: Path, inbox: Path) -> None:
    source = make(tmp_path / "file.bin", 3 * MEBIBYTE)
    receiver = stt.listen("receive", "--dir", inbox, "--once", url="ws://127.0.0.1:0")
    nobody = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    nobody.bind(("127.0.0.1", 0))  # takes datagrams and never answers

    sent = stt.send(f"udp://127.0.0.1:{nobody.getsockname()[1]},{receiver.url}", source)
    nobody.close()

    assert sent.returncode == 0, sent.stderr
    assert sha3(inbox / "file.bin") == sha3(source)


# What is said


def test_a_person_is_told_what_arrived_and_how_to_be_reached(stt: Any, tmp_path: Path, inbox: Path) -> None:
    source = make(tmp_path / "a.bin", 100)
    receiver = stt.listen("receive", "--dir", inbox, "--once")

    sent = stt.run("send", receiver.url, source, "--seed", stt.seed)
    _, errors = receiver.end()

    assert f"sent a.bin to {stt.run('id').stdout.strip()}: 100 bytes in" in sent.stdout
    assert f"SHA3-256 {sha3(source)}" in sent.stdout
    assert "listen on udp://0.0.0.0:" in errors
    assert f"node id {stt.run('id').stdout.strip()}" in errors


def test_a_terminal_shows_progress(stt: Any, tmp_path: Path, inbox: Path) -> None:
    source = make(tmp_path / "name [with] markup.bin", 8 * MEBIBYTE)
    receiver = stt.listen("receive", "--dir", inbox, "--once")
    master, slave = pty.openpty()

    sender = stt.start("send", receiver.url, source, "--seed", stt.seed, stderr=slave)
    os.close(slave)
    shown = b"".join(iter(lambda: read_terminal(master), b"")).decode()
    os.close(master)
    sender.communicate(timeout=30)

    assert sender.returncode == 0
    assert "name [with] markup.bin" in shown
    assert "MB" in shown
    assert "/s" in shown


def read_terminal(master: int) -> bytes:
    try:
        return os.read(master, 65_536)
    except OSError:
        return b""  # Linux says so when the other side is closed


# What cannot work


def test_with_another_seed_there_is_silence_and_the_receiver_goes_on(stt: Any, tmp_path: Path, inbox: Path) -> None:
    stt.run("keygen", "--out", tmp_path / "other.seed")
    source = make(tmp_path / "a", 10)
    receiver = stt.listen("receive", "--dir", inbox, "--once")

    stranger = stt.run("send", receiver.url, source, "--seed", tmp_path / "other.seed")
    friend = stt.send(receiver.url, source)
    _, errors = receiver.end()

    assert stranger.returncode == 3
    for cause in ("another seed", "the address", "a port"):
        assert cause in stranger.stderr
    assert friend.returncode == 0
    assert errors.count("handshake dropped") == 1


def test_where_nobody_listens_the_host_says_so_at_once(stt: Any, tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    began_at = time.monotonic()

    sent = stt.send(f"udp://127.0.0.1:{port}", make(tmp_path / "a", 10))

    assert sent.returncode == 4
    assert sent.stderr
    assert time.monotonic() - began_at < 8  # the handshake would be given up after 10


def test_another_node_than_expected_gets_nothing(stt: Any, tmp_path: Path, inbox: Path) -> None:
    receiver = stt.listen("receive", "--dir", inbox)

    sent = stt.send(receiver.url, make(tmp_path / "a", 10), "--expect", "ab" * 32)

    assert sent.returncode == 3
    assert list(inbox.iterdir()) == []


def test_a_node_that_is_not_allowed_is_refused_and_one_that_is_can_send(stt: Any, tmp_path: Path, inbox: Path) -> None:
    friend = stt.run("id", node="friend").stdout.strip()
    source = make(tmp_path / "a", 10)
    receiver = stt.listen("receive", "--dir", inbox, "--once", "--allow", friend, "--allow", "cd" * 32)

    refused = stt.send(receiver.url, source, node="stranger")
    sent = stt.send(receiver.url, source, node="friend")

    assert refused.returncode == 3
    assert sent.returncode == 0
    assert receiver.end()[0] == 0


def test_a_folder_that_cannot_be_written_is_found_out_before_anybody_sends(stt: Any) -> None:
    received = stt.run("receive", "udp://127.0.0.1:0", "--seed", stt.seed, "--dir", "/proc", "--json")

    assert received.returncode == 1
    assert "cannot be created" in received.stderr
    assert received.stdout == ""


def test_a_port_that_is_taken_is_an_error_that_names_it(stt: Any, inbox: Path) -> None:
    receiver = stt.listen("receive", "--dir", inbox)

    second = stt.run("receive", receiver.url, "--seed", stt.seed, "--dir", inbox)

    assert second.returncode == 1
    assert receiver.url.rpartition(":")[2] in second.stderr


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux sets limits of another process")
def test_a_disk_that_is_full_is_told_to_both_and_leaves_nothing(
    stt: Any, tmp_path: Path, inbox: Path, received: Callable[[], list[Path]]
) -> None:
    receiver = stt.listen("receive", "--dir", inbox, "--once")
    resource.prlimit(receiver.process.pid, resource.RLIMIT_FSIZE, (3 * MEBIBYTE, 3 * MEBIBYTE))

    sent = stt.send(receiver.url, make(tmp_path / "large", 16 * MEBIBYTE), make(tmp_path / "small", 10))
    status, errors = receiver.end()

    assert (sent.returncode, status) == (1, 1)
    assert "cannot be written: File too large" in sent.stderr
    assert "cannot be written: File too large" in errors
    assert [path.name for path in received()] == ["small"]


def test_what_is_more_than_the_quota_is_refused_at_once(
    stt: Any, tmp_path: Path, inbox: Path, received: Callable[[], list[Path]]
) -> None:
    receiver = stt.listen("receive", "--dir", inbox, "--once", "--quota", "1.5Mi")

    sent = stt.send(receiver.url, make(tmp_path / "small", MEBIBYTE), make(tmp_path / "large", MEBIBYTE))

    assert sent.returncode == 1
    assert "the quota leaves room for" in sent.stderr
    assert receiver.end()[0] == 1
    assert len(received()) == 1


# What is broken off


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_sender_that_is_ended_tells_the_receiver(
    stt: Any, tmp_path: Path, inbox: Path, wait_until: Callable[..., None], number: signal.Signals
) -> None:
    receiver = stt.listen("receive", "--dir", inbox, "--once")
    sender = stt.start("send", receiver.url, make_long(tmp_path / "long"), *SLOWLY, "--seed", stt.seed, node="sender")
    wait_until(lambda: is_arriving(inbox))

    sender.send_signal(number)
    sender.communicate(timeout=10)
    status, errors = receiver.end(timeout=10)

    assert sender.returncode == 128 + number
    assert status == 1
    assert "long from" in errors
    assert "the sender was stopped" in errors or "cancelled by the peer" in errors
    assert len(unfinished(inbox)) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_receiver_that_is_ended_tells_the_sender(
    stt: Any, tmp_path: Path, inbox: Path, wait_until: Callable[..., None], number: signal.Signals
) -> None:
    receiver = stt.listen("receive", "--dir", inbox)
    sender = stt.start("send", receiver.url, make_long(tmp_path / "long"), *SLOWLY, "--seed", stt.seed, node="sender")
    wait_until(lambda: is_arriving(inbox))

    status, _ = receiver.end(number, timeout=10)
    _, errors = sender.communicate(timeout=10)

    assert status == 128 + number
    assert sender.returncode == 1
    assert "the receiver was stopped" in errors
    assert len(unfinished(inbox)) == 1


def test_a_receiver_that_waits_is_ended_by_a_signal(stt: Any, inbox: Path) -> None:
    receiver = stt.listen("receive", "--dir", inbox)

    status, errors = receiver.end(signal.SIGINT, timeout=10)

    assert status == 130
    assert "Traceback" not in errors


def test_a_receiver_whose_output_nobody_reads_any_more_ends(stt: Any, tmp_path: Path, inbox: Path) -> None:
    receiver = stt.listen("receive", "--dir", inbox)
    receiver.process.stdout.close()

    stt.send(receiver.url, make(tmp_path / "a", 10))
    receiver.process.wait(10)

    assert receiver.process.returncode == 143
    assert receiver.process.stderr.read().count("Traceback") == 0


def test_a_sender_whose_handshake_is_not_answered_is_ended_by_a_signal(stt: Any, tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        url = f"udp://127.0.0.1:{silent.getsockname()[1]}"
        sender = stt.start("send", url, make(tmp_path / "a", 10), "--seed", stt.seed)
        silent.recv(2048)

        sender.send_signal(signal.SIGTERM)
        _, errors = sender.communicate(timeout=5)

    assert sender.returncode == 143
    assert "Traceback" not in errors


def test_a_receiver_that_is_killed_fails_the_sender_in_time(
    stt: Any, tmp_path: Path, inbox: Path, wait_until: Callable[..., None]
) -> None:
    receiver = stt.listen("receive", "--dir", inbox)
    sender = stt.start("send", receiver.url, make_long(tmp_path / "long"), *SLOWLY, "--seed", stt.seed, node="sender")
    wait_until(lambda: is_arriving(inbox))

    receiver.process.kill()
    _, errors = sender.communicate(timeout=45)

    assert sender.returncode == 1
    assert "long was not sent" in errors
    assert len(unfinished(inbox)) == 1


def test_a_sender_that_is_killed_leaves_something_and_ends_receive_once(
    stt: Any, tmp_path: Path, inbox: Path, wait_until: Callable[..., None]
) -> None:
    receiver = stt.listen("receive", "--dir", inbox, "--once")
    sender = stt.start("send", receiver.url, make_long(tmp_path / "long"), *SLOWLY, "--seed", stt.seed, node="sender")
    wait_until(lambda: is_arriving(inbox))

    sender.kill()
    status, errors = receiver.end(timeout=45)

    assert status == 1
    assert "long from" in errors
    assert len(unfinished(inbox)) == 1


def test_with_once_a_sender_that_was_killed_may_come_again_at_once_and_go_on(
    stt: Any, tmp_path: Path, inbox: Path, wait_until: Callable[..., None]
) -> None:
    source = make(tmp_path / "file.bin", 20 * MEBIBYTE)
    receiver = stt.listen("receive", "--dir", inbox, "--once")
    sender = stt.start("send", receiver.url, source, "--limit-rate", "10Mi", "--seed", stt.seed, node="sender")
    wait_until(lambda: is_arriving(inbox))

    sender.kill()
    sent = stt.send(receiver.url, source)
    status, errors = receiver.end(timeout=20)

    assert (sent.returncode, status) == (0, 0), errors
    assert events(sent.stdout, "file")[0]["resumed"] > 0
    assert sha3(inbox / "file.bin") == sha3(source)


def test_with_once_a_second_sender_is_told_to_come_later(
    stt: Any, tmp_path: Path, inbox: Path, wait_until: Callable[..., None]
) -> None:
    receiver = stt.listen("receive", "--dir", inbox, "--once")
    stt.start("send", receiver.url, make_long(tmp_path / "long"), *SLOWLY, "--seed", stt.seed, node="sender")
    wait_until(lambda: is_arriving(inbox))

    second = stt.send(receiver.url, make(tmp_path / "a", 10), node="second")

    assert second.returncode == 1
    assert "another sender" in second.stderr


# Folders, and what options change


def make_tree(root: Path, number: int = 50) -> dict[str, str]:
    """Make a folder with files in folders; return the digests by their paths."""
    for each in range(number):
        path = root / f"day {each % 5}" / ("sub" if each % 2 else "") / f"{each}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(each * 300))
    return digests_in(root)


def digests_in(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): sha3(path) for path in root.rglob("*") if path.is_file()}


def test_a_folder_arrives_with_modes_and_times(stt: Any, tmp_path: Path, inbox: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    script = tmp_path / "tree" / "day 0" / "0.bin"
    script.chmod(0o755)
    os.utime(script, ns=(10**18, 10**18))
    receiver = stt.listen("receive", "--dir", inbox, "--once")

    sent = stt.send(receiver.url, tmp_path / "tree")
    arrived = receiver.event()

    assert sent.returncode == 0
    assert receiver.end()[0] == 0
    assert digests_in(inbox / "tree") == tree
    status = (inbox / "tree" / "day 0" / "0.bin").stat()
    assert status.st_mode & 0o700 == 0o700
    assert status.st_mtime_ns == 10**18
    [told] = events(sent.stdout, "folder")
    for event in (arrived, told):
        assert (event["event"], event["name"], event["files"], event["left_out"]) == ("folder", "tree", 50, 0)
    assert arrived["sha3_256"] == told["sha3_256"]


def test_the_same_command_goes_on_where_it_was_broken_off(
    stt: Any, tmp_path: Path, inbox: Path, received: Callable[[], list[Path]], wait_until: Callable[..., None]
) -> None:
    source = make(tmp_path / "file.bin", 40 * MEBIBYTE)
    receiver = stt.listen("receive", "--dir", inbox)
    sender = stt.start(
        "send", receiver.url, source, "--limit-rate", "20Mi", "--seed", stt.seed, "--json", node="sender"
    )
    wait_until(lambda: any(path.stat().st_size > 12 * MEBIBYTE for path in inbox.glob(".stt-*.part/item")))
    sender.send_signal(signal.SIGINT)
    output, _ = sender.communicate(timeout=10)

    sent = stt.send(receiver.url, source)
    arrived = receiver.event()

    assert sent.returncode == 0
    assert sha3(inbox / "file.bin") == sha3(source)
    [told] = events(sent.stdout, "file")
    assert told["resumed"] == arrived["resumed"] > 10 * MEBIBYTE
    assert [path.name for path in received()] == ["file.bin"]
    progress = events(output, "progress")
    assert progress
    for event in progress:
        assert event["name"] == "file.bin"
        assert 0 < event["done"] < event["size"] == 40 * MEBIBYTE


def test_without_resume_nothing_is_kept(stt: Any, tmp_path: Path, inbox: Path, wait_until: Callable[..., None]) -> None:
    receiver = stt.listen("receive", "--dir", inbox, "--once")
    long = make_long(tmp_path / "long")
    sender = stt.start("send", receiver.url, long, "--no-resume", *SLOWLY, "--seed", stt.seed, node="sender")
    wait_until(lambda: is_arriving(inbox))

    sender.send_signal(signal.SIGINT)
    sender.communicate(timeout=10)

    assert receiver.end(timeout=10)[0] == 1
    assert list(inbox.iterdir()) == []


def test_several_receivers_get_the_same_and_one_that_is_missing_does_not_hinder_the_others(
    stt: Any, tmp_path: Path
) -> None:
    source = make(tmp_path / "file.bin", 3 * MEBIBYTE)
    inboxes = [tmp_path / "one", tmp_path / "two"]
    for path in inboxes:
        path.mkdir()
    receivers = [stt.listen("receive", "--dir", path, "--once", node=path.name) for path in inboxes]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"udp://127.0.0.1:{free.getsockname()[1]}"

    sent = stt.send(receivers[0].url, source, "--also", receivers[1].url, "--also", nobody)

    assert sent.returncode == 1
    assert f"nothing was sent to {nobody}" in sent.stderr
    assert [receiver.end()[0] for receiver in receivers] == [0, 0]
    assert [sha3(path / "file.bin") for path in inboxes] == [sha3(source)] * 2
    assert len({event["peer"] for event in events(sent.stdout, "file")}) == 2


def test_expected_nodes_are_named_for_all_receivers_or_none(stt: Any, tmp_path: Path) -> None:
    sent = stt.send("udp://127.0.0.1:9", make(tmp_path / "a", 1), "--also", "udp://127.0.0.1:8", "--expect", "ab" * 32)

    assert sent.returncode == 2
    assert "once for each" in sent.stderr


@pytest.mark.parametrize(("policy", "status", "left"), [("skip", 1, b"old"), ("replace", 0, b"new")])
def test_what_exists_can_be_kept_or_replaced(
    stt: Any,
    tmp_path: Path,
    inbox: Path,
    received: Callable[[], list[Path]],
    policy: str,
    status: int,
    left: bytes,
) -> None:
    (inbox / "a").write_bytes(b"old")
    (tmp_path / "a").write_bytes(b"new")
    receiver = stt.listen("receive", "--dir", inbox, "--once", "--existing", policy)

    sent = stt.send(receiver.url, tmp_path / "a")

    assert (sent.returncode, receiver.end()[0]) == (status, status)
    assert {path.name: path.read_bytes() for path in received()} == {"a": left}


def test_links_and_other_files_are_left_out_unless_asked_for(stt: Any, tmp_path: Path, inbox: Path) -> None:
    make_tree(tmp_path / "tree", 3)
    (tmp_path / "tree" / "link").symlink_to("day 0/0.bin")
    receiver = stt.listen("receive", "--dir", inbox, "--links", "--only", "*/0.bin", "--only", "*/link")

    without = stt.send(receiver.url, tmp_path / "tree")
    with_links = stt.send(receiver.url, tmp_path / "tree", "--links")

    assert (without.returncode, with_links.returncode) == (0, 0)
    assert "link is a symbolic link and was left out" in without.stderr
    assert set(digests_in(inbox / "tree")) == {"day 0/0.bin"}
    assert set(digests_in(inbox / "tree (1)")) == {"day 0/0.bin", "link"}
    assert (inbox / "tree (1)" / "link").is_symlink()


@pytest.mark.parametrize("size", ["", "x", "0", "0.5", "-1", "1e3", "1KiK"])
def test_a_size_that_is_none_is_refused(stt: Any, tmp_path: Path, size: str) -> None:
    sent = stt.send("udp://127.0.0.1:9", make(tmp_path / "a", 1), "--limit-rate", size)

    assert sent.returncode == 2
    assert "is no number of bytes" in sent.stderr


# What it costs


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_memory_does_not_grow_with_the_file(stt: Any, tmp_path: Path, inbox: Path) -> None:
    peaks = []
    for size in (MEBIBYTE, 192 * MEBIBYTE):
        source = tmp_path / f"{size}.bin"
        with source.open("wb") as file:
            for _ in range(size // MEBIBYTE):
                file.write(os.urandom(MEBIBYTE))
        receiver = stt.listen("receive", "--dir", inbox, "--once")
        sender = stt.start("send", receiver.url, source, "--seed", stt.seed, node="sender")
        peaks.append(peaks_of(sender, receiver.process))

    (small_sender, small_receiver), (large_sender, large_receiver) = peaks
    assert large_sender - small_sender < 48 * 1024
    assert large_receiver - small_receiver < 48 * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="as above")
def test_a_sparse_file_stays_sparse_and_takes_no_memory(stt: Any, tmp_path: Path, inbox: Path) -> None:
    source = tmp_path / "sparse.img"
    with source.open("wb") as file:
        file.write(b"begin")
        file.seek(100 * MEBIBYTE)
        file.write(b"middle")
        file.truncate(250 * MEBIBYTE)
    receiver = stt.listen("receive", "--dir", inbox, "--once")
    sender = stt.start("send", receiver.url, source, "--seed", stt.seed, node="sender")

    peaks = peaks_of(sender, receiver.process)

    arrived = inbox / "sparse.img"
    assert arrived.stat().st_size == 250 * MEBIBYTE
    assert arrived.stat().st_blocks * 512 < MEBIBYTE
    with arrived.open("rb") as file:
        assert file.read(6) == b"begin\x00"
        file.seek(100 * MEBIBYTE)
        assert file.read(7) == b"middle\x00"
    assert max(peaks) < 120 * 1024


def peaks_of(*processes: subprocess.Popen[str]) -> list[int]:
    """Wait for the end of processes, which must be 0; return the KiB that each had at most.

    Not what wait4 tells: that begins with the peak of the process which made the new one, here pytest with all it has.
    """
    peaks = [0] * len(processes)
    running = True
    while running:
        running = False
        for index, process in enumerate(processes):
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.005)
            if process.returncode is None:
                running = True
                status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
                peaks[index] = int(status.partition("VmHWM:")[2].split()[0]) if "VmHWM:" in status else peaks[index]
    assert all(process.returncode == 0 for process in processes)
    assert all(peaks)
    return peaks
