from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_core.errors import ConfigError
from stt_websocket import WebSocketURL


@pytest.mark.parametrize(
    ("text", "expected", "authority", "resource"),
    [
        ("ws://example.org", ("example.org", 80, False), "example.org", "/"),
        ("wss://example.org", ("example.org", 443, True), "example.org", "/"),
        ("WSS://Example.ORG:/x", ("example.org", 443, True), "example.org", "/x"),
        ("ws://example.org:443/a/b?c=d&e", ("example.org", 443, False), "example.org:443", "/a/b?c=d&e"),
        ("wss://example.org:80?", ("example.org", 80, True), "example.org:80", "/?"),
        ("ws://127.0.0.1:8080?a/b", ("127.0.0.1", 8080, False), "127.0.0.1:8080", "/?a/b"),
        ("ws://[::1]:8080/", ("::1", 8080, False), "[::1]:8080", "/"),
        ("ws://[FE80::1%25eth0]/", ("fe80::1%eth0", 80, False), "[fe80::1]", "/"),
        ("ws://h/%C3%A9;a=b", ("h", 80, False), "h", "/%C3%A9;a=b"),
    ],
)
def test_a_url_says_where_to_go(text: str, expected: tuple[str, int, bool], authority: str, resource: str) -> None:
    url = WebSocketURL.parse(text)

    assert (url.host, url.port, url.is_secure) == expected
    assert url.authority == authority
    assert url.resource == resource
    assert WebSocketURL.parse(str(url)) == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "http://example.org",
        "udp://example.org:1",
        "ws:/example.org",
        "ws://",
        "ws://:80",
        "ws:///path",
        "ws://user:password@example.org",
        "ws://example.org/#fragment",
        "ws://example.org:port",
        "ws://example.org:65536",
        "ws://example.org:0",
        "ws://example.org:-1",
        "ws://::1/",
        "ws://[::1",
        "ws://exa mple.org/",
        "ws://example.org/a\r\nInjected: b",
        "ws://example.org/\x00",
        "ws://exämple.org/",
        "ws://example.org/é",
        "ws://example.org\n",
    ],
)
def test_what_is_no_websocket_url_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        WebSocketURL.parse(text)


def test_port_0_is_for_listening_only() -> None:
    assert WebSocketURL.parse("ws://127.0.0.1:0", listening=True).port == 0


@given(text=st.text())
def test_any_text_is_a_url_or_refused(text: str) -> None:
    try:
        url = WebSocketURL.parse("ws://" + text)
    except ConfigError:
        return
    assert "\n" not in url.resource


def test_secrets_of_a_url_do_not_show() -> None:
    url = WebSocketURL.parse("wss://example.org/path?token=secret")

    assert "secret" not in repr(url) + url.endpoint
    with pytest.raises(ConfigError) as caught:
        WebSocketURL.parse("ws://user:secret@example.org")
    assert "secret" not in str(caught.value)
