"""Which HTTP proxy the environment names for a URL, and how to ask it for a tunnel (RFC 9110 section 9.3.6)."""

from __future__ import annotations

import base64
import ipaddress
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

import attrs

from stt_core.errors import ConfigError
from stt_websocket.errors import UpgradeRefused
from stt_websocket.handshake import Handshake, encode_head, parse_status
from stt_websocket.heads import HeadReader

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stt_websocket.heads import Head
    from stt_websocket.urls import WebSocketURL

_PROXY = re.compile(
    r"""
    (?: (?P<scheme> [a-z][a-z0-9+.-]* ) :// )?
    (?: (?P<user> [^@/]* ) @ )?
    (?: \[ (?P<address> [0-9a-f:.]+ ) \] | (?P<name> [0-9a-z._~-]+ ) )
    (?: : (?P<port> [0-9]{1,5} ) )?
    /?
    """,
    re.VERBOSE | re.IGNORECASE,
)
_DEFAULT_PORT: Final = 80


@attrs.frozen(kw_only=True)
class Proxy:
    """An HTTP proxy."""

    host: str
    port: int
    credentials: bytes | None = attrs.field(default=None, repr=False)
    """``user:password``, for Basic authentication; None where the environment has none."""


def find_proxy(url: WebSocketURL, environment: Mapping[str, str]) -> Proxy | None:
    """Return the proxy for a URL, or None when it is to be reached directly.

    ``http_proxy`` is for ws, ``https_proxy`` for wss; ``no_proxy`` lists what is reached directly: ``*``, names (which
    cover the names below them), addresses, networks, each with ``:port`` or without. The lower-case form of a variable
    wins over the upper-case form. Loopback is not special: only ``no_proxy`` exempts it.

    Raises:
        ConfigError: The variable names something other than an HTTP proxy; its text does not repeat the value, which
            may hold a password.
    """
    name = "https_proxy" if url.is_secure else "http_proxy"
    value = environment.get(name)
    if value is None and not (name == "http_proxy" and "REQUEST_METHOD" in environment):
        # A CGI server sets HTTP_PROXY from a client's field "Proxy" (CVE-2016-5385).
        value = environment.get(name.upper())
    exempt = environment.get("no_proxy", environment.get("NO_PROXY", ""))
    if not value or any(_is_exempt(url, entry.strip().lower()) for entry in exempt.split(",") if entry.strip()):
        return None
    match = _PROXY.fullmatch(value)
    if match is None or (match["scheme"] or "http").lower() != "http" or int(match["port"] or _DEFAULT_PORT) > 65_535:
        raise ConfigError(f"{name} must be http://host:port or http://user:password@host:port: no other proxy is known")
    return Proxy(
        host=match["address"] or match["name"],
        port=int(match["port"] or _DEFAULT_PORT),
        credentials=None if match["user"] is None else unquote_to_bytes(match["user"]),
    )


def _is_exempt(url: WebSocketURL, entry: str) -> bool:
    if entry == "*":
        return True
    host = url.host.partition("%")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name, _, port = entry.partition(":")
        name = name.removeprefix("*").removeprefix(".")
        return bool(name) and (not port or port == str(url.port)) and (host == name or host.endswith("." + name))
    for candidate in (entry, entry.removesuffix(f":{url.port}")):
        try:
            if address in ipaddress.ip_network(candidate.strip("[]"), strict=False):
                return True
        except ValueError:
            continue
    return False


class ProxyHandshake(Handshake):
    """Asks a proxy for a tunnel to a host; driven like :class:`~stt_websocket.handshake.ClientHandshake`."""

    def __init__(self, proxy: Proxy, url: WebSocketURL) -> None:
        host = f"[{url.host}]" if ":" in url.host else url.host
        lines = [f"CONNECT {host}:{url.port} HTTP/1.1", f"Host: {host}:{url.port}"]
        if proxy.credentials is not None:
            lines.append(f"Proxy-Authorization: Basic {base64.b64encode(proxy.credentials).decode()}")
        super().__init__(HeadReader(), [encode_head(lines)])
        self.is_complete = False

    # Internals

    def _receive_head(self, head: Head) -> None:
        status = parse_status(head)
        if not 200 <= status <= 299:
            raise UpgradeRefused(status, f"the proxy answered {head.start_line[9:109]!r}")
        if self.rest:
            raise UpgradeRefused(status, "the proxy sent bytes of its own into the tunnel")
        self.is_complete = True
