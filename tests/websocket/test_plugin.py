from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from stt_websocket import WebSocketOptions, WebSocketTransport, plugin

if TYPE_CHECKING:
    from stt_core.interfaces.transport import TransportFactory


def test_ws_and_wss_are_offered() -> None:
    offered: dict[str, object] = {}

    plugin.stt_register_transports(offered.__setitem__)

    assert offered == {"ws": WebSocketTransport, "wss": WebSocketTransport}


def test_the_plugin_is_found_by_its_entry_point() -> None:
    (entry_point,) = (entry for entry in entry_points(group="stt.v1") if entry.name == "websocket")

    assert entry_point.load() is plugin


def test_a_plugin_with_options_offers_transports_with_them() -> None:
    offered: dict[str, TransportFactory] = {}

    plugin.WebSocketPlugin(WebSocketOptions(max_message_size=1234)).stt_register_transports(offered.__setitem__)

    for scheme in ("ws", "wss"):
        transport = offered[scheme](f"{scheme}://127.0.0.1", listening=False)
        assert transport.capabilities.max_message_size == 1234
