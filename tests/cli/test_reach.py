"""Does a listener say how it is reached from elsewhere?"""

from __future__ import annotations

import pytest

from stt_cli.reach import advice_on_reach


@pytest.mark.parametrize(
    ("url", "everywhere"),
    [
        ("udp://127.0.0.1:4433", "udp://0.0.0.0:4433"),
        ("udp://127.5.0.1:1", "udp://0.0.0.0:1"),
        ("udp://[::1]:4433", "udp://[::]:4433"),
        ("ws://127.0.0.1:8080/stt", "ws://0.0.0.0:8080/stt"),
    ],
)
def test_a_loopback_address_is_explained(url: str, everywhere: str) -> None:
    advice = advice_on_reach(url)

    assert advice is not None
    assert url in advice
    assert everywhere in advice
    assert everywhere.replace("0.0.0.0", "ADDRESS").replace("[::]", "ADDRESS") in advice


@pytest.mark.parametrize("url", ["udp://0.0.0.0:4433", "udp://[::]:4433"])
def test_an_address_that_means_all_is_explained(url: str) -> None:
    assert "udp://ADDRESS:4433" in (advice_on_reach(url) or "")


@pytest.mark.parametrize(
    "url", ["udp://192.0.2.1:4433", "udp://[fe80::1%25eth0]:1", "udp://example.org:1", "memory://a"]
)
def test_any_other_address_speaks_for_itself(url: str) -> None:
    assert advice_on_reach(url) is None
