"""A node with WebSocket options of its own."""

from __future__ import annotations

from pathlib import Path

from stt_websocket import WebSocketOptions, client_context, server_context
from stt_websocket.plugin import WebSocketPlugin


def main() -> None:
    if not Path("peer.example.org.pem").exists():
        print("no certificate here")
        return
    options = WebSocketOptions(
        server_tls=server_context("peer.example.org.pem", "peer.example.org.key"),
        client_tls=client_context("my-authority.pem"),
    )
    plugin = WebSocketPlugin(options)
    print(plugin)


if __name__ == "__main__":
    main()
