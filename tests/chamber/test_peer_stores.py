"""Is the URL of a peer's store read as it is written, and refused where it cannot be one?"""

from __future__ import annotations

import pytest

from stt_chamber.peer_stores import PeerStore
from stt_core.errors import ConfigError

NODE_ID = bytes(range(32))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stt+udp://host:4433", PeerStore("udp://host:4433", None, "")),
        (f"stt+udp://{NODE_ID.hex()}@[::1]:4433", PeerStore("udp://[::1]:4433", NODE_ID, "")),
        (f"stt+wss://{NODE_ID.hex()}@host/stt#photos", PeerStore("wss://host/stt", NODE_ID, "photos")),
    ],
)
def test_a_url_tells_the_peer_its_id_and_the_store(text: str, expected: PeerStore) -> None:
    assert PeerStore.parse(text) == expected


@pytest.mark.parametrize("text", ["stt+", "stt+udp:host", "stt+udp://", "stt+udp://@host:1", "stt+udp://00@host:1"])
def test_what_is_no_such_url_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        PeerStore.parse(text)


def test_a_node_id_without_a_host_is_refused() -> None:
    with pytest.raises(ConfigError, match="no store of a peer"):
        PeerStore.parse(f"stt+udp://{NODE_ID.hex()}@")
