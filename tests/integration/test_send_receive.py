"""Do ``stt send`` and ``stt receive`` bring files over UDP between processes, and end as they should if they cannot?"""

from __future__ import annotations

import hashlib
import json
import os
import pty
import resource
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

MEBIBYTE = 1024 * 1024


def sha3(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha3_256").hexdigest()


def make(path: Path, size: int) -> Path:
    path.write_bytes(os.urandom(size))
    return path


def make_endless(path: Path) -> Path:
    """Return a file that takes longer to send than any test waits, and no room on the disk."""
    path.touch()
    os.truncate(path, 1 << 36)
    return path


def is_arriving(inbox: Path) -> bool:
    return any(path.name.endswith(".part") and path.stat().st_size for path in inbox.iterdir())


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
    told = json.loads(sent.stdout)
    for event in (arrived, told):
        assert event["seconds"] > 0
        assert {key: event[key] for key in ("event", "name", "size", "sha3_256")} == {
            "event": "file",
            "name": "file.bin",
            "size": size,
            "sha3_256": sha3(source),
        }
    assert {arrived["peer"], told["peer"]} == {stt.run("id", node=node).stdout.strip() for node in ("sender", "node")}


def test_several_files_arrive_with_spaces_and_unicode_in_their_names(stt: Any, tmp_path: Path, inbox: Path) -> None:
    names = ["two  words.txt", "Überweisung März.pdf", "写真.jpg", "\U0001f468\u200d\U0001f469.txt", "plain"]
    sources = [make(tmp_path / name, 1000 * number) for number, name in enumerate(names)]
    receiver = stt.listen("receive", "--dir", inbox, "--once")

    sent = stt.send(receiver.url, *sources)
    status, _ = receiver.end()

    assert (sent.returncode, status) == (0, 0)
    assert {path.name: sha3(path) for path in inbox.iterdir()} == {path.name: sha3(path) for path in sources}


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


def test_several_senders_are_served_at_a_time(stt: Any, tmp_path: Path, inbox: Path) -> None:
    sources = [make(tmp_path / f"{number}.bin", 4 * MEBIBYTE) for number in range(3)]
    receiver = stt.listen("receive", "--dir", inbox)

    senders = [
        stt.start("send", receiver.url, source, "--seed", stt.seed, node=f"sender {source.name}") for source in sources
    ]
    ended = [sender.communicate(timeout=60) and sender.returncode for sender in senders]

    assert ended == [0, 0, 0]
    assert len({receiver.event()["peer"] for _ in sources}) == 3
    assert {path.name: sha3(path) for path in inbox.iterdir()} == {path.name: sha3(path) for path in sources}
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
def test_a_disk_that_is_full_is_told_to_both_and_leaves_nothing(stt: Any, tmp_path: Path, inbox: Path) -> None:
    receiver = stt.listen("receive", "--dir", inbox, "--once")
    resource.prlimit(receiver.process.pid, resource.RLIMIT_FSIZE, (3 * MEBIBYTE, 3 * MEBIBYTE))

    sent = stt.send(receiver.url, make(tmp_path / "large", 16 * MEBIBYTE), make(tmp_path / "small", 10))
    status, errors = receiver.end()

    assert (sent.returncode, status) == (1, 1)
    assert "cannot be written: File too large" in sent.stderr
    assert "cannot be written: File too large" in errors
    assert [path.name for path in inbox.iterdir()] == ["small"]


def test_a_file_that_the_disk_has_no_room_for_is_refused_at_once(stt: Any, tmp_path: Path, inbox: Path) -> None:
    source = tmp_path / "huge"
    source.touch()
    os.truncate(source, 1 << 43)
    receiver = stt.listen("receive", "--dir", inbox, "--once")

    sent = stt.send(receiver.url, source)

    assert sent.returncode == 1
    assert "no room" in sent.stderr
    assert receiver.end()[0] == 1


# What is broken off


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_sender_that_is_ended_tells_the_receiver(
    stt: Any, tmp_path: Path, inbox: Path, wait_until: Callable[..., None], number: signal.Signals
) -> None:
    receiver = stt.listen("receive", "--dir", inbox, "--once")
    sender = stt.start("send", receiver.url, make_endless(tmp_path / "endless"), "--seed", stt.seed, node="sender")
    wait_until(lambda: is_arriving(inbox))

    sender.send_signal(number)
    sender.communicate(timeout=10)
    status, errors = receiver.end(timeout=10)

    assert sender.returncode == 128 + number
    assert status == 1
    assert "endless from" in errors
    assert "the sender was stopped" in errors or "cancelled by the peer" in errors
    assert list(inbox.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_receiver_that_is_ended_tells_the_sender(
    stt: Any, tmp_path: Path, inbox: Path, wait_until: Callable[..., None], number: signal.Signals
) -> None:
    receiver = stt.listen("receive", "--dir", inbox)
    sender = stt.start("send", receiver.url, make_endless(tmp_path / "endless"), "--seed", stt.seed, node="sender")
    wait_until(lambda: is_arriving(inbox))

    status, _ = receiver.end(number, timeout=10)
    _, errors = sender.communicate(timeout=10)

    assert status == 128 + number
    assert sender.returncode == 1
    assert "the receiver was stopped" in errors
    assert list(inbox.iterdir()) == []


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
    sender = stt.start("send", receiver.url, make_endless(tmp_path / "endless"), "--seed", stt.seed, node="sender")
    wait_until(lambda: is_arriving(inbox))

    receiver.process.kill()
    _, errors = sender.communicate(timeout=45)

    assert sender.returncode == 1
    assert "endless was not sent" in errors
    assert all(path.name.startswith(".stt-") for path in inbox.iterdir())


def test_a_sender_that_is_killed_leaves_nothing_and_ends_receive_once(
    stt: Any, tmp_path: Path, inbox: Path, wait_until: Callable[..., None]
) -> None:
    receiver = stt.listen("receive", "--dir", inbox, "--once")
    sender = stt.start("send", receiver.url, make_endless(tmp_path / "endless"), "--seed", stt.seed, node="sender")
    wait_until(lambda: is_arriving(inbox))

    sender.kill()
    status, errors = receiver.end(timeout=45)

    assert status == 1
    assert "endless from" in errors
    assert list(inbox.iterdir()) == []


def test_with_once_a_second_sender_is_told_to_come_later(
    stt: Any, tmp_path: Path, inbox: Path, wait_until: Callable[..., None]
) -> None:
    receiver = stt.listen("receive", "--dir", inbox, "--once")
    stt.start("send", receiver.url, make_endless(tmp_path / "endless"), "--seed", stt.seed, node="sender")
    wait_until(lambda: is_arriving(inbox))

    second = stt.send(receiver.url, make(tmp_path / "a", 10), node="second")

    assert second.returncode == 1
    assert "another sender" in second.stderr


# What it costs


@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss differs between systems")
def test_memory_does_not_grow_with_the_file(stt: Any, tmp_path: Path, inbox: Path) -> None:
    peaks = []
    for size in (MEBIBYTE, 192 * MEBIBYTE):
        # Without data of its own: a new process begins with the peak of the one that made it.
        source = tmp_path / f"{size}.bin"
        source.touch()
        os.truncate(source, size)
        receiver = stt.listen("receive", "--dir", inbox, "--once")
        sender = stt.start("send", receiver.url, source, "--seed", stt.seed, node="sender")
        peaks.append((peak_of(sender), peak_of(receiver.process)))

    (small_sender, small_receiver), (large_sender, large_receiver) = peaks
    assert large_sender - small_sender < 48 * 1024
    assert large_receiver - small_receiver < 48 * 1024


def peak_of(process: subprocess.Popen[str]) -> int:
    """Wait for the end of a process, which must be 0; return the KiB that it had at most."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss
