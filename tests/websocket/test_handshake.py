from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_websocket import ClientHandshake, ServerHandshake, UpgradePolicy, WebSocketURL
from stt_websocket.handshake import accept_value

if TYPE_CHECKING:
    from collections.abc import Mapping

URL = WebSocketURL.parse("ws://server.example.com/chat?a=b")
KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # of the example in RFC 6455 section 1.3
REQUEST = {
    "Host": "server.example.com",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Protocol": "stt.v1",
}
RESPONSE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
    "Sec-WebSocket-Protocol": "stt.v1",
}


def head(start_line: str, fields: dict[str, str], changes: Mapping[str, str | None]) -> bytes:
    """Write a head; a change to None leaves a field out, and a name with a blank behind it repeats one."""
    lines = [f"{name}: {value}" for name, value in {**fields, **changes}.items() if value is not None]
    return "\r\n".join([start_line, *lines, "", ""]).encode("latin-1")


def request(
    changes: Mapping[str, str | None] | None = None, line: str = "GET /chat?a=b HTTP/1.1", **policy: Any
) -> ServerHandshake:
    handshake = ServerHandshake(UpgradePolicy(**policy))
    handshake.receive_data(head(line, REQUEST, changes or {}))
    return handshake


def respond(
    changes: Mapping[str, str | None] | None = None,
    line: str = "HTTP/1.1 101 Switching Protocols",
    subprotocol: str | None = "stt.v1",
) -> ClientHandshake:
    handshake = ClientHandshake(URL, subprotocol=subprotocol, random=lambda _: base64.b64decode(KEY))
    handshake.data_to_send()
    handshake.receive_data(head(line, RESPONSE, changes or {}))
    return handshake


def test_the_accept_value_is_that_of_the_rfc() -> None:
    assert accept_value(KEY) == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@given(cut=st.integers(1, 50), behind=st.binary(max_size=10))
def test_client_and_server_agree_however_their_bytes_are_cut(cut: int, behind: bytes) -> None:
    client, server = ClientHandshake(URL), ServerHandshake(UpgradePolicy())
    data = b"".join(client.data_to_send()) + behind
    for start in range(0, len(data), cut):
        if server.request is None:
            server.receive_data(data[start : start + cut])
            taken = start + cut
    assert server.request is not None
    assert server.rest + data[taken:] == behind
    data = b"".join(server.data_to_send()) + behind
    for start in range(0, len(data), cut):
        if not client.is_complete:
            client.receive_data(data[start : start + cut])
            taken = start + cut

    assert client.is_complete
    assert client.rest + data[taken:] == behind
    assert server.request.path == "/chat"
    assert server.request.query == "a=b"
    assert server.request.host == "server.example.com"
    assert server.request.origin is None
    assert server.request.subprotocol == "stt.v1"


def test_each_client_draws_a_key_of_its_own() -> None:
    first, second = ClientHandshake(URL).data_to_send(), ClientHandshake(URL).data_to_send()

    assert first != second


# The server


@pytest.mark.parametrize(
    "changes",
    [
        {"Upgrade": "WebSocket"},
        {"Upgrade": "other, websocket"},
        {"Connection": "keep-alive, Upgrade"},
        {"Content-Length": "0"},
        {"Sec-WebSocket-Protocol": "other, stt.v1"},
        {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"},
        {"Host": "[::1]:8080"},
    ],
)
def test_a_request_is_granted(changes: Mapping[str, str | None]) -> None:
    handshake = request(changes)

    assert handshake.request is not None
    response = b"".join(handshake.data_to_send())
    assert response.startswith(b"HTTP/1.1 101 ")
    assert b"extensions" not in response.lower()


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"Host": None}, 400),
        ({"Host ": "two"}, 400),
        ({"host": "two.example.com"}, 400),
        ({"Host": "a b"}, 400),
        ({"Host": "user@example.com"}, 400),
        ({"Upgrade": None}, 426),
        ({"Upgrade": "h2c"}, 426),
        ({"Connection": None}, 400),
        ({"Connection": "keep-alive"}, 400),
        ({"Sec-WebSocket-Version": None}, 426),
        ({"Sec-WebSocket-Version": "8"}, 426),
        ({"Sec-WebSocket-Version": "13, 8"}, 426),
        ({"Sec-WebSocket-Key": None}, 400),
        ({"Sec-WebSocket-Key": "short"}, 400),
        ({"Sec-WebSocket-Key": base64.b64encode(bytes(15)).decode()}, 400),
        ({"Sec-WebSocket-Key": "\xe9" * 24}, 400),
        ({"sec-websocket-key": KEY}, 400),
        ({"Sec-WebSocket-Protocol": None}, 400),
        ({"Sec-WebSocket-Protocol": "stt.v2"}, 400),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Content-Length": "5"}, 400),
        ({"Transfer-Encoding": "chunked"}, 400),
    ],
)
def test_a_request_is_refused(changes: Mapping[str, str | None], status: int) -> None:
    handshake = request(changes)

    assert handshake.request is None
    assert handshake.refusal is not None
    assert handshake.refusal.status == status
    assert b"".join(handshake.data_to_send()).startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("POST /chat HTTP/1.1", 405),
        ("GET /chat HTTP/1.0", 505),
        ("GET /chat HTTP/2.0", 505),
        ("GET /chat", 400),
        ("GET chat HTTP/1.1", 400),
        ("GET /ch at HTTP/1.1", 400),
        ("GET /chat#fragment HTTP/1.1", 400),
        ("GET * HTTP/1.1", 400),
        ("\x16\x03\x01", 400),
    ],
)
def test_a_request_line_is_refused(line: str, status: int) -> None:
    refusal = request(line=line).refusal

    assert refusal is not None
    assert refusal.status == status


@pytest.mark.parametrize("line", ["GET http://server.example.com/chat?a=b HTTP/1.1", "GET /chat?a=b HTTP/1.1"])
def test_a_target_may_be_a_whole_url(line: str) -> None:
    granted = request(line=line).request

    assert granted is not None
    assert (granted.path, granted.query) == ("/chat", "a=b")


def test_only_the_path_of_the_policy_is_served() -> None:
    assert request(path="/chat").request is not None
    refusal = request(path="/other").refusal

    assert refusal is not None
    assert refusal.status == 404


@pytest.mark.parametrize("allowed", ["server.example.com", "server.example.com:8080"])
def test_a_host_of_the_allow_list_is_served(allowed: str) -> None:
    changes = {"Host": "Server.Example.COM:8080"}

    assert request(changes, allowed_hosts=frozenset({allowed})).request is not None


@pytest.mark.parametrize("host", ["server.example.com:8081", "evil.example", "server.example.com.evil.example"])
def test_a_host_that_is_not_on_the_allow_list_is_refused(host: str) -> None:
    refusal = request({"Host": host}, allowed_hosts=frozenset({"server.example.com:8080"})).refusal

    assert refusal is not None
    assert refusal.status == 403


def test_an_origin_of_the_allow_list_is_taken() -> None:
    allowed = frozenset({"https://example.org"})
    granted = request({"Origin": "https://Example.org"}, allowed_origins=allowed).request

    assert granted is not None
    assert granted.origin == "https://example.org"
    assert request({"Origin": "https://example.org.evil.example"}, allowed_origins=allowed).refusal is not None
    assert request({"Origin": "https://example.org", "origin": "x"}, allowed_origins=allowed).refusal is not None
    assert request({"Origin": "https://anybody.example"}, allowed_origins=None).request is not None


def test_a_subprotocol_may_be_left_to_the_client() -> None:
    without = request({"Sec-WebSocket-Protocol": None}, subprotocol_required=False).request
    offered = request(subprotocol_required=False).request
    unknown = request(subprotocol=None).request

    assert without is not None
    assert without.subprotocol is None
    assert offered is not None
    assert offered.subprotocol == "stt.v1"
    assert unknown is not None
    assert unknown.subprotocol is None


def test_a_refusal_says_which_version_is_spoken() -> None:
    response = b"".join(request({"Sec-WebSocket-Version": "8"}).data_to_send())

    assert b"Sec-WebSocket-Version: 13\r\n" in response
    assert b"Connection: close\r\n" in response


@given(data=st.binary(max_size=300))
def test_any_request_is_granted_awaited_or_refused(data: bytes) -> None:
    handshake = ServerHandshake(UpgradePolicy(max_head_size=100))

    handshake.receive_data(data)

    assert handshake.request is None


# The client


def test_a_request_has_what_the_rfc_asks_for() -> None:
    handshake = ClientHandshake(URL, random=lambda _: base64.b64decode(KEY))

    assert b"".join(handshake.data_to_send()) == head("GET /chat?a=b HTTP/1.1", REQUEST, {})
    assert handshake.data_to_send() == []


def test_a_client_may_ask_for_no_subprotocol() -> None:
    handshake = respond({"Sec-WebSocket-Protocol": None}, subprotocol=None)

    assert handshake.is_complete


@pytest.mark.parametrize("changes", [{}, {"Upgrade": "WebSocket"}, {"Connection": "keep-alive, upgrade"}])
def test_a_response_is_taken(changes: Mapping[str, str | None]) -> None:
    assert respond(changes).is_complete


@pytest.mark.parametrize(
    "changes",
    [
        {"Upgrade": None},
        {"Upgrade": "websocket, h2c"},
        {"Connection": None},
        {"Sec-WebSocket-Accept": None},
        {"Sec-WebSocket-Accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOp="},
        {"Sec-WebSocket-Accept": "\xe9"},
        {"sec-websocket-accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="},
        {"Sec-WebSocket-Extensions": "permessage-deflate"},
        {"Sec-WebSocket-Protocol": None},
        {"Sec-WebSocket-Protocol": "other"},
        {"Sec-WebSocket-Protocol": "stt.v1, other"},
    ],
)
def test_a_response_is_refused(changes: Mapping[str, str | None]) -> None:
    handshake = respond(changes)

    assert not handshake.is_complete
    assert handshake.refusal is not None


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("HTTP/1.1 200 OK", 200),
        ("HTTP/1.1 302 Found", 302),
        ("HTTP/1.1 401 Unauthorized", 401),
        ("HTTP/1.1 502", 502),
        ("HTTP/2 101 x", 0),
        ("SSH-2.0-OpenSSH_9.2", 0),
    ],
)
def test_another_answer_is_refused_with_its_status(line: str, status: int) -> None:
    refusal = respond(line=line).refusal

    assert refusal is not None
    assert refusal.status == status


@given(data=st.binary(max_size=300))
def test_any_response_is_taken_awaited_or_refused(data: bytes) -> None:
    handshake = ClientHandshake(URL)

    handshake.receive_data(data)

    assert not handshake.is_complete
