from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_core.errors import ConfigError
from stt_websocket import WebSocketURL
from stt_websocket.proxy import Proxy, ProxyHandshake, find_proxy

PLAIN = WebSocketURL.parse("ws://host.example.org:8080/")
SECURE = WebSocketURL.parse("wss://host.example.org/")


def test_each_scheme_has_a_variable_of_its_own() -> None:
    environment = {"http_proxy": "http://a:1", "https_proxy": "http://b:2"}

    assert find_proxy(PLAIN, environment) == Proxy(host="a", port=1)
    assert find_proxy(SECURE, environment) == Proxy(host="b", port=2)
    assert find_proxy(PLAIN, {"https_proxy": "http://b:2"}) is None
    assert find_proxy(SECURE, {"http_proxy": "http://a:1"}) is None


@pytest.mark.parametrize(
    ("value", "proxy"),
    [
        ("http://proxy", Proxy(host="proxy", port=80)),
        ("proxy:3128", Proxy(host="proxy", port=3128)),
        ("HTTP://proxy:3128/", Proxy(host="proxy", port=3128)),
        ("http://[::1]:3128", Proxy(host="::1", port=3128)),
        ("http://user:pass%40word@proxy:3128", Proxy(host="proxy", port=3128, credentials=b"user:pass@word")),
    ],
)
def test_a_proxy_is_written_in_several_ways(value: str, proxy: Proxy) -> None:
    assert find_proxy(PLAIN, {"http_proxy": value}) == proxy


def test_the_lower_case_variable_wins() -> None:
    assert find_proxy(PLAIN, {"HTTP_PROXY": "http://upper:1"}) == Proxy(host="upper", port=1)
    both = {"HTTP_PROXY": "http://upper:1", "http_proxy": "http://lower:2"}
    assert find_proxy(PLAIN, both) == Proxy(host="lower", port=2)
    assert find_proxy(PLAIN, {"HTTP_PROXY": "http://upper:1", "http_proxy": ""}) is None
    assert find_proxy(PLAIN, {"HTTP_PROXY": "http://a:1", "NO_PROXY": "host.example.org"}) is None
    assert find_proxy(PLAIN, {"HTTP_PROXY": "http://a:1", "NO_PROXY": "*", "no_proxy": ""}) is not None


def test_a_clients_proxy_field_does_not_reach_a_cgi_program() -> None:
    cgi = {"REQUEST_METHOD": "GET", "HTTP_PROXY": "http://evil:1"}

    assert find_proxy(PLAIN, cgi) is None
    assert find_proxy(PLAIN, cgi | {"http_proxy": "http://good:1"}) == Proxy(host="good", port=1)


@pytest.mark.parametrize(
    ("host", "exempt", "is_direct"),
    [
        ("host.example.org", "*", True),
        ("host.example.org", "host.example.org", True),
        ("host.example.org", "example.org", True),
        ("host.example.org", ".example.org", True),
        ("host.example.org", "*.example.org", True),
        ("host.example.org", "a, EXAMPLE.org ,b", True),
        ("host.example.org", "example.org:8080", True),
        ("host.example.org", "example.org:8081", False),
        ("host.example.org", "ample.org", False),
        ("host.example.org", "other.org", False),
        ("host.example.org", "", False),
        ("host.example.org", " , .", False),
        ("127.0.0.1", "", False),
        ("localhost", "", False),
        ("127.0.0.1", "localhost", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.1:8080", True),
        ("127.0.0.1", "127.0.0.1:8081", False),
        ("127.0.0.1", "127.0.0.0/8", True),
        ("127.0.0.1", "10.0.0.0/8,not/a/network", False),
        ("[::1]", "::1", True),
        ("[::1]", "[::1]", True),
        ("[::1]", "[::1]:8080", True),
        ("[fe80::1%25eth0]", "fe80::/10", True),
    ],
)
def test_no_proxy_says_what_is_reached_directly(host: str, exempt: str, *, is_direct: bool) -> None:
    url = WebSocketURL.parse(f"ws://{host}:8080/")

    proxy = find_proxy(url, {"http_proxy": "http://proxy:3128", "no_proxy": exempt})

    assert (proxy is None) is is_direct


@pytest.mark.parametrize(
    "value",
    ["socks5://proxy:1080", "https://proxy:443", "http://", "http://proxy:99999", "http://a b", "http://p/path"],
)
def test_a_proxy_of_another_kind_is_a_config_error(value: str) -> None:
    with pytest.raises(ConfigError):
        find_proxy(PLAIN, {"http_proxy": value})


def test_a_password_shows_in_no_repr_and_no_error() -> None:
    proxy = find_proxy(PLAIN, {"http_proxy": "http://user:secret@proxy"})
    assert proxy is not None
    assert "secret" not in repr(proxy)

    with pytest.raises(ConfigError) as caught:
        find_proxy(PLAIN, {"http_proxy": "socks5://user:secret@proxy"})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "target"),
    [(PLAIN, b"host.example.org:8080"), (SECURE, b"host.example.org:443"), ("ws://[::1]:8080/", b"[::1]:8080")],
)
def test_a_tunnel_is_asked_for(url: WebSocketURL | str, target: bytes) -> None:
    parsed = WebSocketURL.parse(url) if isinstance(url, str) else url
    handshake = ProxyHandshake(Proxy(host="proxy", port=1, credentials=b"user:password"), parsed)

    assert b"".join(handshake.data_to_send()) == (
        b"CONNECT %b HTTP/1.1\r\nHost: %b\r\nProxy-Authorization: Basic dXNlcjpwYXNzd29yZA==\r\n\r\n" % (target, target)
    )


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 Connection established", b"HTTP/1.0 200 OK", b"HTTP/1.1 204 x"])
def test_a_tunnel_is_granted(answer: bytes) -> None:
    handshake = ProxyHandshake(Proxy(host="proxy", port=1), PLAIN)
    for byte in answer + b"\r\nVia: proxy\r\n\r\n":
        assert not handshake.is_complete
        handshake.receive_data(bytes((byte,)))

    assert handshake.is_complete


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", 407),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", 403),
        (b"HTTP/1.1 200 OK\r\n\r\nbytes of the proxy", 200),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", 0),
    ],
)
def test_a_tunnel_is_refused(answer: bytes, status: int) -> None:
    handshake = ProxyHandshake(Proxy(host="proxy", port=1), PLAIN)

    handshake.receive_data(answer)

    assert not handshake.is_complete
    assert handshake.refusal is not None
    assert handshake.refusal.status == status


@given(data=st.binary(max_size=100))
def test_any_answer_of_a_proxy_is_awaited_or_refused(data: bytes) -> None:
    handshake = ProxyHandshake(Proxy(host="proxy", port=1), PLAIN)

    handshake.receive_data(data)

    assert not handshake.is_complete
