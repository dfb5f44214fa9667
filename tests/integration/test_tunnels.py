"""Do ``stt pipe``, ``stt forward``, ``stt stream`` and ``stt watch`` work between real processes?"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import http.server
import json
import os
import signal
import socket
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest

from stt_core import StreamClosed, STTNode, decode_seed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

URL = "udp://127.0.0.1:0"
DATA = os.urandom(3_000_000)


# pipe


@pytest.fixture
def pipe_ends(stt: Any) -> tuple[Any, Any]:
    """Return both ends of a pipe, the listening one first."""
    listening = stt.start("pipe", URL, "--listen", "--seed", stt.seed, stdin=subprocess.PIPE)
    line = listening.stderr.readline()
    assert line.startswith("listening on udp://"), line
    return listening, stt.start("pipe", line.split()[-1], "--seed", stt.seed, node="other", stdin=subprocess.PIPE)


def ended(*processes: Any) -> list[int]:
    return [process.wait(timeout=30) for process in processes]


@pytest.mark.parametrize("first", [0, 1])
def test_a_pipe_goes_both_ways_and_each_ends_by_itself(pipe_ends: tuple[Any, Any], first: int) -> None:
    one, other = pipe_ends[first], pipe_ends[1 - first]
    writing = threading.Thread(target=lambda: (one.stdin.buffer.write(DATA), one.stdin.close()))

    writing.start()
    assert other.stdout.buffer.read() == DATA  # to its end, though the other direction goes on
    writing.join()
    other.stdin.buffer.write(DATA[::-1])
    other.stdin.close()

    assert one.stdout.buffer.read() == DATA[::-1]
    assert ended(one, other) == [0, 0]


def test_a_pipe_brings_what_is_written_at_once(pipe_ends: tuple[Any, Any]) -> None:
    one, other = pipe_ends
    for word in (b"question\n", b"another\n"):
        one.stdin.buffer.write(word)
        one.stdin.buffer.flush()
        assert other.stdout.buffer.readline() == word
        other.stdin.buffer.write(b"answer\n")
        other.stdin.buffer.flush()
        assert one.stdout.buffer.readline() == b"answer\n"

    one.stdin.close()
    other.stdin.close()
    assert ended(one, other) == [0, 0]


def test_a_pipe_can_be_filled_from_files(stt: Any, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(DATA)
    with (tmp_path / "in").open("rb") as given, (tmp_path / "out").open("wb") as taken:
        listening = stt.start("pipe", URL, "--listen", "--seed", stt.seed, stdin=subprocess.DEVNULL, stdout=taken)
        url = listening.stderr.readline().split()[-1]
        connecting = stt.start("pipe", url, "--seed", stt.seed, node="other", stdin=given, stdout=subprocess.DEVNULL)

        assert ended(connecting, listening) == [0, 0]
    assert (tmp_path / "out").read_bytes() == DATA


def test_a_reader_of_a_pipe_that_leaves_ends_both_sides(pipe_ends: tuple[Any, Any]) -> None:
    one, other = pipe_ends
    one.stdin.buffer.write(b"first")
    one.stdin.buffer.flush()
    assert other.stdout.buffer.read(5) == b"first"

    other.stdout.close()
    with contextlib.suppress(BrokenPipeError):
        while True:
            one.stdin.buffer.write(DATA)

    assert ended(one, other) == [1, 1]
    assert "the peer broke off" in one.stderr.read()
    assert "standard input or output" in other.stderr.read()
    with contextlib.suppress(BrokenPipeError):
        one.stdin.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_pipe_ends_with_a_signal_while_it_waits(pipe_ends: tuple[Any, Any], number: signal.Signals) -> None:
    one, other = pipe_ends
    one.stdin.buffer.write(b"connected")
    one.stdin.buffer.flush()
    assert other.stdout.buffer.read(9) == b"connected"

    one.send_signal(number)

    assert ended(one, other) == [128 + number, 1]


def test_a_pipe_whose_session_ends_says_so(stt: Any) -> None:
    listening = stt.start("pipe", URL, "--listen", "--seed", stt.seed, stdin=subprocess.PIPE)
    url = listening.stderr.readline().split()[-1]
    seed = decode_seed(stt.seed.read_text().strip())
    listening.stdin.write("a part")
    listening.stdin.flush()

    async def open_and_leave() -> None:
        async with STTNode(node_seed=bytes(32), shared_seed=seed) as node:
            session = await node.connect(url)
            stream = await session.open_stream("stt-pipe/1")
            assert await stream.receive_exactly(6) == b"a part"
            session.close(0x200, "enough")
            await session.wait_closed()

    asyncio.run(open_and_leave())

    assert ended(listening) == [1]
    errors = listening.stderr.read()
    assert "enough" in errors
    assert "Traceback" not in errors


def test_a_second_peer_of_a_pipe_is_refused(pipe_ends: tuple[Any, Any], stt: Any) -> None:
    one, other = pipe_ends
    one.stdin.buffer.write(b"connected")
    one.stdin.buffer.flush()
    assert other.stdout.buffer.read(9) == b"connected"

    third = stt.run("pipe", other.args[2], "--seed", stt.seed, node="third")

    assert third.returncode == 1
    assert "broke off" in third.stderr
    for process in pipe_ends:
        process.stdin.close()
    assert ended(*pipe_ends) == [0, 0]


# forward


class Files(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(DATA)

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  as the base class has it
        """Keep standard error to the tests."""


@pytest.fixture
def web() -> Iterator[str]:
    """Return the HOST:PORT of a web server in this process."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    serving.join()
    server.server_close()


def start_forward(stt: Any, local: str, url: str, remote: str, *words: str) -> tuple[Any, str]:
    """Return a running ``stt forward``, and where its connections are taken."""
    process = stt.start("forward", local, url, remote, "--seed", stt.seed, "--json", *words, node="client")
    line = process.stdout.readline()
    assert line, process.stderr.read()
    event = json.loads(line)
    assert event["event"] == "forwarding"
    return process, event["at"]


def check_web(at: str) -> None:
    with contextlib.closing(http.client.HTTPConnection(at, timeout=30)) as connection:
        connection.request("GET", "/")
        assert connection.getresponse().read() == DATA
    with contextlib.closing(http.client.HTTPConnection(at, timeout=30)) as connection:
        connection.request("POST", "/", body=DATA[::-1])
        assert connection.getresponse().read() == DATA[::-1]


@pytest.mark.parametrize("url", [URL, "ws://127.0.0.1:0"])
def test_a_web_server_is_reached_through_a_forwarded_port(stt: Any, web: str, url: str) -> None:
    server = stt.listen("forward-server", "--target", web, url=url)
    process, at = start_forward(stt, "127.0.0.1:0", server.url, web)

    check_web(at)

    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 143
    assert server.end(signal.SIGTERM)[0] == 143


def test_a_web_server_here_is_reached_from_there(stt: Any, web: str) -> None:
    server = stt.listen("forward-server", "--bind", "127.0.0.1:0")
    _, at = start_forward(stt, web, server.url, "127.0.0.1:0", "--reverse")

    check_web(at)


def test_what_the_serving_side_does_not_name_is_refused(stt: Any, web: str) -> None:
    server = stt.listen("forward-server", "--target", "127.0.0.1:9")
    process, at = start_forward(stt, "127.0.0.1:0", server.url, web)
    host, _, port = at.rpartition(":")

    with socket.create_connection((host, int(port)), timeout=30) as connection, pytest.raises(ConnectionResetError):
        connection.recv(1)
    refused = stt.run("forward", web, server.url, "127.0.0.1:0", "--reverse", "--seed", stt.seed, node="client")

    assert refused.returncode == 1
    assert "the peer does not allow that" in refused.stderr
    process.send_signal(signal.SIGINT)
    assert "the peer does not allow that" in process.communicate(timeout=30)[1]
    _, errors = server.end(signal.SIGINT)
    assert f"{web} for {stt.run('id', node='client').stdout.strip()}: the peer asked for it" in errors


def test_a_peer_cannot_fill_the_log_of_a_serving_side(stt: Any) -> None:
    server = stt.listen("forward-server", "--target", "127.0.0.1:9")
    seed = decode_seed(stt.seed.read_text().strip())

    async def ask_and_ask() -> None:
        async with STTNode(node_seed=bytes(32), shared_seed=seed) as node:
            for _ in range(3):
                session = await node.connect(server.url)
                for port in range(100):
                    stream = await session.open_stream("stt-forward/1", metadata={"host": "192.0.2.1", "port": port})
                    with pytest.raises(StreamClosed):
                        await stream.receive()
                session.close()

    asyncio.run(ask_and_ask())

    _, errors = server.end(signal.SIGTERM)
    assert 10 <= errors.count("it is not allowed") < 30  # ten in a minute, of three hundred


def test_a_server_that_allows_nothing_is_a_mistake(stt: Any) -> None:
    done = stt.run("forward-server", URL, "--seed", stt.seed)

    assert done.returncode == 2
    assert "--target or a --bind" in done.stderr


def test_an_address_that_is_taken_is_told(stt: Any) -> None:
    server = stt.listen("forward-server", "--target", "127.0.0.1:9")

    second = stt.run("forward-server", server.url, "--target", "127.0.0.1:9", "--seed", stt.seed)

    assert second.returncode != 0
    assert second.stderr.startswith("stt: ")


def test_the_end_of_the_serving_side_ends_the_forwarding(stt: Any, web: str) -> None:
    server = stt.listen("forward-server", "--target", web)
    process, _ = start_forward(stt, "127.0.0.1:0", server.url, web)

    server.end(signal.SIGTERM)

    assert process.wait(timeout=30) == 1


# stream and watch


def test_a_live_stream_reaches_several_and_those_who_come_later(stt: Any) -> None:
    publisher = stt.listen("stream", "--deadline", "20", stdin=subprocess.PIPE)
    assert publisher.process.stdin is not None
    words = iter(range(1_000_000))

    def watch(name: str) -> Any:
        return stt.start("watch", publisher.url, "--seed", stt.seed, node=name)

    def say_until_heard(*watchers: Any) -> list[int]:
        """Publish numbers until each has one more; return the first that each has."""
        heard: dict[int, int] = {}
        threads = [
            threading.Thread(
                target=lambda place=place, watcher=watcher: heard.update({place: int(watcher.stdout.readline())})
            )
            for place, watcher in enumerate(watchers)
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            publisher.process.stdin.write(f"{next(words)}\n")
            publisher.process.stdin.flush()
            for thread in threads:
                thread.join(0.005)
        return [heard[place] for place in range(len(watchers))]

    one, two = watch("one"), watch("two")
    first = say_until_heard(one, two)
    late = watch("late")
    [joined] = say_until_heard(late)
    assert joined > max(first)
    publisher.process.stdin.close()
    publisher.process.stdin = None
    last = next(words) - 1

    for watcher, begun in zip((one, two, late), (*first, joined), strict=True):
        assert [int(line) for line in watcher.stdout] == list(range(begun + 1, last + 1))
        assert "0 lost" in watcher.stderr.read()
        assert watcher.wait(timeout=30) == 0
    events = [publisher.event() for _ in range(3)]
    assert {event["event"] for event in events} == {"subscriber"}
    assert {event["late"] + event["dropped"] for event in events} == {0}
    assert publisher.end()[0] == 0
