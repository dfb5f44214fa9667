"""Do ``stt ping`` and ``stt echo`` find each other over UDP?"""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from stt_core import STTNode, decode_seed


def test_a_ping_tells_the_round_trips(stt: Any) -> None:
    echo = stt.listen("echo")

    asked = stt.run("ping", echo.url, "--seed", stt.seed, "-c", "2", "--json", node="asker")

    assert asked.returncode == 0
    events = [json.loads(line) for line in asked.stdout.splitlines()]
    assert [(event["event"], event["number"]) for event in events] == [("pong", 1), ("pong", 2)]
    assert all(0 < event["seconds"] < 10 for event in events)
    assert {event["peer"] for event in events} == {stt.run("id").stdout.strip()}
    assert "average" in asked.stderr


@pytest.mark.asyncio
async def test_an_echo_sends_back_what_comes_on_several_streams(stt: Any) -> None:
    echo = stt.listen("echo")
    seed = decode_seed(stt.seed.read_text())

    async with STTNode(node_seed=bytes(32), shared_seed=seed) as node:
        session = await node.connect(echo.url)
        streams = [await session.open_stream() for _ in range(3)]
        for number, stream in enumerate(streams):
            await stream.send(bytes([number]) * 100_000)
            stream.end()
        answers = [b"".join([data async for data in stream]) for stream in streams]

    assert answers == [bytes([number]) * 100_000 for number in range(3)]
    assert echo.end(signal.SIGINT, timeout=10)[0] == 130


def test_a_sender_of_files_finds_out_that_an_echo_is_no_receiver(stt: Any) -> None:
    echo = stt.listen("echo")

    sent = stt.send(echo.url, stt.seed)

    assert sent.returncode == 1
    assert "otherwise than a receiver of files" in sent.stderr


def test_a_listener_says_how_to_be_reached(stt: Any) -> None:
    echo = stt.listen("echo", url="udp://0.0.0.0:0")

    status, errors = echo.end(signal.SIGTERM, timeout=10)

    assert status == 143
    assert "udp://ADDRESS:" in errors
