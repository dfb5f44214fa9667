"""The opening handshake of RFC 6455 section 4, of both sides: bytes in, bytes out; no I/O, no clock.

It declines every extension. Above all permessage-deflate: what STT sends is sealed, and sealed bytes do not compress.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
from abc import ABC, abstractmethod
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import attrs

from stt_websocket.errors import UpgradeRefused
from stt_websocket.heads import MAX_FIELDS, MAX_HEAD_SIZE, Head, HeadReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from stt_core.interfaces.transport import Buffer
    from stt_websocket.urls import WebSocketURL

SUBPROTOCOL: Final = "stt.v1"
"""The sub-protocol of STT: a server that does not speak it is none of ours."""

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_REQUEST_LINE = re.compile(
    r"(?P<method>[!#$%&'*+\-.^_`|~0-9A-Za-z]+) (?P<target>[\x21-\x7e]+) HTTP/(?P<version>\d\.\d)"
)
_TARGET = re.compile(r"(?:https?://[^/?#]+)?(?P<path>/[^?#]*)?(?:\?(?P<query>[^#]*))?", re.IGNORECASE)
_STATUS_LINE = re.compile(r"HTTP/1\.[01] (?P<status>\d{3})(?: .*)?")  # proxies still answer CONNECT with HTTP/1.0
_HOST = re.compile(r"(?P<host>\[[0-9a-f:.]+\]|[0-9a-z._~%-]+)(?::[0-9]{0,5})?")


@attrs.frozen(kw_only=True)
class UpgradePolicy:
    """What a server takes."""

    path: str | None = None
    """The path that is served; others get 404. None serves every path."""

    subprotocol: str | None = SUBPROTOCOL
    """The sub-protocol that is selected when a client offers it; None selects none."""

    subprotocol_required: bool = True
    """Whether a client that does not offer the sub-protocol is refused."""

    allowed_hosts: frozenset[str] | None = None
    """Values of the Host field, in lower case, that are taken: ``host`` with any port, or ``host:port``; None all."""

    allowed_origins: frozenset[str] | None = frozenset()
    """Values of the Origin field, in lower case, that are taken; None all. A request without one is taken always: only
    browsers send it, for the page that a script came from."""

    max_head_size: int = MAX_HEAD_SIZE
    max_fields: int = MAX_FIELDS


@attrs.frozen(kw_only=True)
class UpgradeRequest:
    """What a client asked for, once it is granted."""

    path: str
    query: str | None
    host: str
    origin: str | None
    subprotocol: str | None
    """The sub-protocol that was selected."""


class Handshake(ABC):
    """One side of an exchange of heads, as far as all of them are alike.

    Args:
        reader: Collects the head of the other side.
        outgoing: What is to be sent at once.
    """

    def __init__(self, reader: HeadReader, outgoing: Iterable[bytes] = ()) -> None:
        self._reader = reader
        self._outgoing = list(outgoing)
        self.refusal: UpgradeRefused | None = None

    @property
    def rest(self) -> bytes:
        """What the other side sent behind its head."""
        return self._reader.rest

    # Inputs

    def receive_data(self, data: Buffer) -> None:
        """Take bytes of the other side, cut anywhere; only until the handshake has ended one way or the other."""
        try:
            head = self._reader.receive_data(data)
            if head is not None:
                self._receive_head(head)
        except UpgradeRefused as refusal:
            self._refuse(refusal)

    # Outputs

    def data_to_send(self) -> list[bytes]:
        """Return what is to be sent, and forget it."""
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    # Internals

    @abstractmethod
    def _receive_head(self, head: Head) -> None: ...

    def _refuse(self, refusal: UpgradeRefused) -> None:
        self.refusal = refusal


class ServerHandshake(Handshake):
    """The server's side of one opening handshake.

    Drive it in this order after every input: :meth:`data_to_send`, :attr:`request`, :attr:`refusal`. Once ``request``
    is set, :attr:`rest` is the first input of the connection; once ``refusal`` is set, end the byte stream.
    """

    def __init__(self, policy: UpgradePolicy) -> None:
        super().__init__(HeadReader(max_size=policy.max_head_size, max_fields=policy.max_fields))
        self._policy = policy
        self.request: UpgradeRequest | None = None

    # Commands

    def refuse(self, refusal: UpgradeRefused) -> None:
        """Answer with an error, for a reason of the caller's own."""
        self.request = None
        self.refusal = refusal
        body = f"{refusal.reason}\n".encode()
        fields = [
            f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}",
            "Connection: close",
            "Content-Type: text/plain; charset=utf-8",
            f"Content-Length: {len(body)}",
            *_REFUSAL_FIELDS.get(refusal.status, ()),
        ]
        self._outgoing.append(encode_head(fields) + body)

    # Internals

    def _refuse(self, refusal: UpgradeRefused) -> None:
        self.refuse(refusal)

    def _receive_head(self, head: Head) -> None:
        policy = self._policy
        path, query = _check_request_line(head.start_line)
        host = _check_host(head, policy.allowed_hosts)
        _check_no_body(head)
        if "websocket" not in (token.lower() for token in head.tokens("upgrade")):
            raise UpgradeRefused(426, "this is a WebSocket server")
        if "upgrade" not in (token.lower() for token in head.tokens("connection")):
            raise UpgradeRefused(400, "Connection does not say Upgrade")
        if head.values("sec-websocket-version") != ["13"]:
            raise UpgradeRefused(426, "Sec-WebSocket-Version is not 13")
        key = _check_key(head)
        origin = _check_origin(head, policy.allowed_origins)
        if policy.path is not None and path != policy.path:
            raise UpgradeRefused(404, "no such path")
        subprotocol = policy.subprotocol if policy.subprotocol in head.tokens("sec-websocket-protocol") else None
        if subprotocol is None and policy.subprotocol is not None and policy.subprotocol_required:
            raise UpgradeRefused(400, f"sub-protocol {policy.subprotocol} is not offered")
        fields = [
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {accept_value(key)}",
        ]
        if subprotocol is not None:
            fields.append(f"Sec-WebSocket-Protocol: {subprotocol}")
        self._outgoing.append(encode_head(fields))
        self.request = UpgradeRequest(path=path, query=query, host=host, origin=origin, subprotocol=subprotocol)


class ClientHandshake(Handshake):
    """The client's side of one opening handshake.

    Drive it in this order, also before the first input: :meth:`data_to_send`, :attr:`is_complete`, :attr:`refusal`.
    Once ``is_complete`` is set, :attr:`rest` is the first input of the connection; once ``refusal`` is set, end the
    byte stream. Redirects are not followed.

    Args:
        url: What to ask for.
        subprotocol: The sub-protocol to ask for, which the server must then select; None asks for none.
        random: Source of the request's key.
    """

    def __init__(
        self,
        url: WebSocketURL,
        *,
        subprotocol: str | None = SUBPROTOCOL,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._subprotocol = subprotocol
        self._key = base64.b64encode(random(16)).decode()
        fields = [
            f"GET {url.resource} HTTP/1.1",
            f"Host: {url.authority}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {self._key}",
            "Sec-WebSocket-Version: 13",
        ]
        if subprotocol is not None:
            fields.append(f"Sec-WebSocket-Protocol: {subprotocol}")
        super().__init__(HeadReader(), [encode_head(fields)])
        self.is_complete = False

    # Internals

    def _receive_head(self, head: Head) -> None:
        status = parse_status(head)
        if status != HTTPStatus.SWITCHING_PROTOCOLS:
            raise UpgradeRefused(status, f"the server answered {head.start_line[9:109]!r}")
        if [token.lower() for token in head.tokens("upgrade")] != ["websocket"]:
            raise UpgradeRefused(status, "the server upgrades to something else")
        if "upgrade" not in (token.lower() for token in head.tokens("connection")):
            raise UpgradeRefused(status, "the server's Connection does not say Upgrade")
        accepted = head.values("sec-websocket-accept")
        if len(accepted) != 1 or not hmac.compare_digest(accepted[0].encode(), accept_value(self._key).encode()):
            raise UpgradeRefused(
                status, "Sec-WebSocket-Accept does not answer the key: no WebSocket server, or a cache"
            )
        if head.tokens("sec-websocket-extensions"):
            raise UpgradeRefused(status, "the server uses an extension that was not offered")
        selected = head.values("sec-websocket-protocol")
        if selected != ([] if self._subprotocol is None else [self._subprotocol]):
            raise UpgradeRefused(status, f"the server does not select sub-protocol {self._subprotocol}")
        self.is_complete = True


def accept_value(key: str) -> str:
    """Return the Sec-WebSocket-Accept that answers a Sec-WebSocket-Key (section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode()


def parse_status(head: Head) -> int:
    """Return the status of a response.

    Raises:
        UpgradeRefused: It is not an HTTP/1.x response.
    """
    match = _STATUS_LINE.fullmatch(head.start_line)
    if match is None:
        raise UpgradeRefused(0, "the answer is not HTTP")
    return int(match["status"])


def encode_head(lines: list[str]) -> bytes:
    """Return the bytes of a start line and fields."""
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


_REFUSAL_FIELDS: Final = {
    405: ("Allow: GET",),
    426: ("Upgrade: websocket", "Sec-WebSocket-Version: 13"),
}


def _check_request_line(line: str) -> tuple[str, str | None]:
    match = _REQUEST_LINE.fullmatch(line)
    target = _TARGET.fullmatch(match["target"]) if match else None
    if match is None or target is None:
        raise UpgradeRefused(400, "a malformed request line")
    if match["version"] != "1.1":
        raise UpgradeRefused(505, "not HTTP/1.1")
    if match["method"] != "GET":
        raise UpgradeRefused(405, "not a GET")
    return target["path"] or "/", target["query"]


def _check_host(head: Head, allowed: frozenset[str] | None) -> str:
    hosts = [value.lower() for value in head.values("host")]
    match = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
    if match is None:
        raise UpgradeRefused(400, "not one Host field that names a host")
    if allowed is not None and hosts[0] not in allowed and match["host"] not in allowed:
        raise UpgradeRefused(403, "this host is not served here")
    return hosts[0]


def _check_no_body(head: Head) -> None:
    if head.values("transfer-encoding") or any(value != "0" for value in head.values("content-length")):
        raise UpgradeRefused(400, "a request with a body")


def _check_key(head: Head) -> str:
    keys = head.values("sec-websocket-key")
    try:
        is_key = len(keys) == 1 and len(base64.b64decode(keys[0], validate=True)) == 16
    except (binascii.Error, ValueError):
        is_key = False
    if not is_key:
        raise UpgradeRefused(400, "not one Sec-WebSocket-Key of 16 bytes")
    return keys[0]


def _check_origin(head: Head, allowed: frozenset[str] | None) -> str | None:
    origins = [value.lower() for value in head.values("origin")]
    if not origins:
        return None
    if len(origins) > 1:
        raise UpgradeRefused(400, "more than one Origin field")
    if allowed is not None and origins[0] not in allowed:
        raise UpgradeRefused(403, "this origin is not allowed")
    return origins[0]
