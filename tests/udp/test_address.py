from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_core.errors import ConfigError, TransportError
from stt_udp.address import format_url, parse_url, resolve

if TYPE_CHECKING:
    from stt_udp.address import SocketAddress


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("udp://127.0.0.1:4433", ("127.0.0.1", 4433)),
        ("UDP://peer.example:1", ("peer.example", 1)),
        ("udp://peer.example.:65535", ("peer.example.", 65_535)),
        ("udp://bücher.example:4433", ("bücher.example", 4433)),
        ("udp://[::1]:4433", ("::1", 4433)),
        ("udp://[fe80::1%25eth0]:4433", ("fe80::1%eth0", 4433)),
        ("udp://[fe80::1%eth0]:4433", ("fe80::1%eth0", 4433)),
    ],
)
@pytest.mark.parametrize("listening", [True, False])
def test_url_names_host_and_port(url: str, expected: tuple[str, int], *, listening: bool) -> None:
    assert parse_url(url, listening=listening) == expected


@pytest.mark.parametrize("url", ["udp://0.0.0.0:4433", "udp://[::]:4433", "udp://127.0.0.1:0", "udp://[::1]:00"])
def test_what_can_only_be_listened_on_is_refused_when_connecting(url: str) -> None:
    parse_url(url, listening=True)

    with pytest.raises(ConfigError, match="listen"):
        parse_url(url, listening=False)


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("tcp://127.0.0.1:4433", "begin with udp://"),
        ("127.0.0.1:4433", "begin with udp://"),
        ("udp:127.0.0.1:4433", "begin with udp://"),
        ("", "begin with udp://"),
        ("udp://", "names no host"),
        ("udp://:4433", "names no host"),
        ("udp://127.0.0.1", "names no port"),
        ("udp://127.0.0.1:", "names no port"),
        ("udp://[::1]", "names no port"),
        ("udp://::1:4433", "brackets"),
        ("udp://[::1]4433", "brackets"),
        ("udp://[::1:4433", "brackets"),
        ("udp://[]:4433", "no IPv6 address in its brackets"),
        ("udp://[127.0.0.1]:4433", "no IPv6 address in its brackets"),
        ("udp://[::g]:4433", "no IPv6 address in its brackets"),
        ("udp://127.0.0.1:65536", "no number from 0 to 65535"),
        ("udp://127.0.0.1:-1", "no number from 0 to 65535"),
        ("udp://127.0.0.1:http", "no number from 0 to 65535"),
        ("udp://127.0.0.1: 1", "no number from 0 to 65535"),
        ("udp://127.0.0.1:٤٤", "no number from 0 to 65535"),
        ("udp://127.0.0.1:000001", "no number from 0 to 65535"),
        ("udp://a..b:4433", "is no name"),
        ("udp://" + "a" * 64 + ":4433", "is no name"),
        ("udp://a b:4433", "is no name"),
        ("udp://a\0b:4433", "is no name"),
        ("udp://127.0.0.1:4433/", "no path"),
        ("udp://127.0.0.1:4433/path", "no path"),
        ("udp://127.0.0.1:4433?mtu=1500", "no query"),
        ("udp://127.0.0.1:4433#fragment", "no fragment"),
        ("udp://user@127.0.0.1:4433", "no user"),
    ],
)
@pytest.mark.parametrize("listening", [True, False])
def test_other_forms_are_refused_by_name(url: str, what: str, *, listening: bool) -> None:
    with pytest.raises(ConfigError, match=what):
        parse_url(url, listening=listening)


@pytest.mark.parametrize(
    "url", ["udp://me:hunter2@host:1", "hunter2@udp://host:1", "udp://host:1/?token=hunter2", "hunter2://host:1"]
)
def test_what_may_be_secret_is_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_url(url, listening=False)

    assert "hunter2" not in str(caught.value)


@given(
    st.one_of(
        st.text(), st.text().map("udp://{}".format), st.text(alphabet="udp:/[]0123456789.%a").map("udp://{}:1".format)
    )
)
def test_any_text_is_parsed_or_refused(url: str) -> None:
    try:
        host, port = parse_url(url, listening=True)
    except ConfigError:
        return
    assert host
    assert 0 <= port <= 65_535


@pytest.mark.parametrize(
    ("address", "url"),
    [
        (("127.0.0.1", 4433), "udp://127.0.0.1:4433"),
        (("::1", 4433, 0, 0), "udp://[::1]:4433"),
        (("fe80::1", 4433, 0, 2), "udp://[fe80::1%252]:4433"),
    ],
)
def test_address_becomes_a_url_that_can_be_parsed(address: SocketAddress, url: str) -> None:
    assert format_url(address) == url
    assert parse_url(url, listening=True)[1] == address[1]


@pytest.mark.asyncio
async def test_numeric_host_resolves_to_itself(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET

    found = await resolve(host, 4433)

    assert [(family, address[:2]) for family, address in found] == [(family, (host, 4433))]


@pytest.mark.asyncio
async def test_names_resolve_to_numbers() -> None:
    assert {address[0] for _, address in await resolve("localhost", 4433)} <= {"127.0.0.1", "::1"}


@pytest.mark.asyncio
async def test_unknown_name_is_a_transport_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody_knows(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody_knows)

    with pytest.raises(TransportError, match=r"cannot resolve 'peer\.invalid': Name or service not known"):
        await resolve("peer.invalid", 4433)
