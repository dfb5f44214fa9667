"""A plain WebSocket echo, server and client, for conformance suites and browsers; nothing of STT is in it.

python -m stt_websocket.echo server PORT
python -m stt_websocket.echo client URL       runs the cases that the Autobahn suite's fuzzing server has at URL
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys

from stt_core.errors import STTError
from stt_websocket.channel import Channel
from stt_websocket.connection import Event, Role
from stt_websocket.dialing import dial
from stt_websocket.handshake import UpgradePolicy
from stt_websocket.listener import ClientAddress, Listener
from stt_websocket.options import WebSocketOptions
from stt_websocket.tls import server_context_from
from stt_websocket.urls import WebSocketURL

AGENT = "testee"


class Echo:
    """Sends each message back, and reads no more while its peer does not take the answers."""

    def __init__(self) -> None:
        self._held: dict[Channel, list[bytes | bytearray | str]] = {}

    def opened(self, channel: Channel, address: ClientAddress) -> None:
        """Need nothing of a new client."""

    def events_received(self, channel: Channel, events: list[Event]) -> None:
        """Answer messages."""
        messages = [event for event in events if isinstance(event, bytes | bytearray | str)]
        if channel.can_send and not channel.send(messages):
            self._held[channel] = messages
            channel.pause_reading()

    def writable(self, channel: Channel) -> None:
        """Send what was held back."""
        channel.send(self._held.pop(channel))
        channel.resume_reading()

    def closed(self, channel: Channel, reason: str) -> None:  # noqa: ARG002  no matter why
        """Forget what was held back."""
        self._held.pop(channel, None)


async def serve(url: str) -> None:
    """Serve echo at a URL until cancelled."""
    parsed = WebSocketURL.parse(url, listening=True)
    options = WebSocketOptions.from_environment(os.environ)
    listener = Listener(
        parsed,
        Echo(),
        options=options,
        policy=UpgradePolicy(subprotocol_required=False, allowed_origins=None),
        context=server_context_from(os.environ) if parsed.is_secure else None,
    )
    await listener.open()
    try:
        await asyncio.Event().wait()
    finally:
        await listener.close()


class Case(Echo):
    """One connection of the fuzzing server: echoes, and keeps the last text."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def events_received(self, channel: Channel, events: list[Event]) -> None:
        """Answer messages, and remember text."""
        self.text = next((event for event in reversed(events) if isinstance(event, str)), self.text)
        super().events_received(channel, events)


async def run_cases(url: str) -> int:
    """Run all cases of a fuzzing server and let it write its report; returns how many there were."""
    number = int(await _run(f"{url}/getCaseCount"))
    for case in range(1, number + 1):
        await _run(f"{url}/runCase?case={case}&agent={AGENT}")
    await _run(f"{url}/updateReports?agent={AGENT}")
    return number


async def _run(url: str) -> str:
    options = WebSocketOptions(subprotocol=None)
    link, rest, _ = await dial(WebSocketURL.parse(url), options)
    case = Case()
    channel = Channel(link, Role.CLIENT, case, options)
    channel.start(rest)
    await channel.released
    return case.text


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m stt_websocket.echo", description="A plain WebSocket echo.")
    sides = parser.add_subparsers(dest="side", required=True)
    server = sides.add_parser("server", help="echo on 127.0.0.1 until interrupted")
    server.add_argument("port", type=int)
    server.add_argument("--host", default="127.0.0.1", help="address to listen at")
    server.add_argument("--tls", action="store_true", help="wss, with the certificate that the environment names")
    client = sides.add_parser("client", help="run the cases of an Autobahn fuzzing server")
    client.add_argument("url")
    arguments = parser.parse_args()
    try:
        if arguments.side == "client":
            print(f"{asyncio.run(run_cases(arguments.url))} cases")  # noqa: T201  the command's result
        else:
            scheme = "wss" if arguments.tls else "ws"
            asyncio.run(serve(f"{scheme}://{arguments.host}:{arguments.port}"))
    except KeyboardInterrupt:
        return 130
    except STTError as error:
        print(error, file=sys.stderr)  # noqa: T201  as above
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
