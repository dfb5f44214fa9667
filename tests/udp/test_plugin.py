from __future__ import annotations

from importlib.metadata import entry_points

from stt_udp import UDPTransport, plugin


def test_udp_is_offered_under_its_scheme() -> None:
    offered: dict[str, object] = {}

    plugin.stt_register_transports(offered.__setitem__)

    assert offered == {"udp": UDPTransport}


def test_plugin_is_found_by_its_entry_point() -> None:
    (entry_point,) = (entry for entry in entry_points(group="stt.v1") if entry.name == "udp")

    assert entry_point.load() is plugin
