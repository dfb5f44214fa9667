from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from stt_websocket import WebSocketOptions, WebSocketURL
from stt_websocket.channel import Channel
from stt_websocket.connection import Event, Role
from stt_websocket.dialing import dial
from stt_websocket.echo import Echo, run_cases
from stt_websocket.handshake import UpgradePolicy
from stt_websocket.listener import ClientAddress, Listener

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 20  # seconds, for what takes milliseconds


class Asker:
    """Keeps the answers of an echo."""

    def __init__(self) -> None:
        self.answers: list[Event] = []
        self.is_writable = asyncio.Event()
        self._changed = asyncio.Event()

    def events_received(self, channel: Channel, events: list[Event]) -> None:
        self.answers += events
        self._changed.set()

    def writable(self, channel: Channel) -> None:
        self.is_writable.set()

    def closed(self, channel: Channel, reason: str) -> None: ...

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


async def ask(url: str, asker: Asker, **options: Any) -> Channel:
    with_options = WebSocketOptions(**options)
    link, rest, _ = await dial(WebSocketURL.parse(url), with_options)
    channel = Channel(link, Role.CLIENT, asker, with_options)
    channel.start(rest)
    return channel


@pytest.fixture
def echo_url(free_port: int) -> Iterator[str]:
    """The URL of an echo server in a process of its own."""
    with subprocess.Popen([sys.executable, "-m", "stt_websocket.echo", "server", str(free_port)]) as server:
        try:
            until_listening(free_port)
            yield f"ws://127.0.0.1:{free_port}"
        finally:
            server.send_signal(signal.SIGINT)
    assert server.returncode == 130


def until_listening(port: int) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.05)
        else:
            return


@pytest.mark.asyncio
@pytest.mark.parametrize("subprotocol", [None, "stt.v1"])
async def test_text_and_bytes_come_back_whether_the_subprotocol_is_asked_for_or_not(
    echo_url: str, subprotocol: str | None
) -> None:
    asker = Asker()
    channel = await ask(f"{echo_url}/any/path?any=query", asker, subprotocol=subprotocol)
    messages: list[bytes | str] = ["text", b"bytes", "", b"", os.urandom(300_000)]

    channel.send(messages)

    await asker.until(lambda: len(asker.answers) == len(messages))
    assert asker.answers == messages
    channel.close()
    await channel.released


@pytest.mark.asyncio
async def test_an_echo_takes_no_more_than_its_peer_takes_back(echo_url: str) -> None:
    asker = Asker()
    channel = await ask(echo_url, asker)
    channel.pause_reading()
    message = os.urandom(1_000_000)
    sent = 0
    while channel.send([message]):
        sent += 1
        await asyncio.sleep(0.01)
    channel.resume_reading()

    await asker.until(lambda: len(asker.answers) == sent)

    assert sent > 2
    assert all(answer == message for answer in asker.answers)
    channel.abort()


class FuzzingServer(Echo):
    """What the client expects of an Autobahn server: the number of cases, two cases, a report."""

    def __init__(self) -> None:
        super().__init__()
        self.connections = 0
        self.answers: list[Event] = []

    def opened(self, channel: Channel, address: ClientAddress) -> None:
        self.connections = address[2]
        if self.connections == 1:
            channel.send(["2"])
        elif self.connections < 4:
            channel.send([f"case {self.connections - 1}"])
        if self.connections in {1, 4}:
            channel.close()

    def events_received(self, channel: Channel, events: list[Event]) -> None:
        self.answers += events
        channel.close()


@pytest.mark.asyncio
async def test_the_client_runs_all_cases_of_a_fuzzing_server_and_asks_for_the_report() -> None:
    server = FuzzingServer()
    url = WebSocketURL.parse("ws://127.0.0.1:0", listening=True)
    policy = UpgradePolicy(subprotocol=None)
    listener = Listener(url, server, options=WebSocketOptions(), policy=policy, context=None)
    await listener.open()

    async with asyncio.timeout(PATIENCE):
        assert await run_cases(f"ws://127.0.0.1:{listener.port}") == 2

    assert server.connections == 4
    assert [answer for answer in server.answers if answer != "2"] == ["case 1", "case 2"]
    await listener.close()


def test_the_command_line_says_what_is_wrong(free_port: int) -> None:
    command = [sys.executable, "-m", "stt_websocket.echo"]
    with socket.create_server(("127.0.0.1", free_port)):
        taken = subprocess.run(
            [*command, "server", str(free_port)], capture_output=True, text=True, check=False, timeout=PATIENCE
        )
    unreachable = subprocess.run(
        [*command, "client", f"ws://127.0.0.1:{free_port}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )

    assert (taken.returncode, unreachable.returncode) == (1, 1)
    assert "in use" in taken.stderr
    assert f"port {free_port}" in unreachable.stderr
