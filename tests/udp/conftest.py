from __future__ import annotations

import socket

import pytest


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.fixture(
    params=[
        "127.0.0.1",
        pytest.param("::1", marks=pytest.mark.skipif(not _has_ipv6(), reason="this host has no IPv6 loopback")),
    ]
)
def host(request: pytest.FixtureRequest) -> str:
    """A loopback address of each family."""
    value: str = request.param
    return value


@pytest.fixture
def ipv6_host() -> str:
    if not _has_ipv6():
        pytest.skip("this host has no IPv6 loopback")
    return "::1"
