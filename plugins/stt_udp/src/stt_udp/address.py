"""UDP URLs to socket addresses and back."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from typing import TypeAlias, cast

from stt_core.errors import ConfigError, TransportError

SocketAddress: TypeAlias = tuple[str, int] | tuple[str, int, int, int]
"""``(host, port)`` of IPv4, ``(host, port, flow, scope)`` of IPv6; hosts are numeric. Names a peer in all of STT."""

_FORMS = "write udp://host:port, or udp://[address]:port for IPv6"
_HOST_AND_PORT = re.compile(r"(?:\[(?P<address>[^\[\]]*)\]|(?P<host>[^\[\]:]*))(?::(?P<port>[^:]*))?")
_UNSPECIFIED = "0.0.0.0"  # noqa: S104  refused here, not bound


def parse_url(url: str, *, listening: bool) -> tuple[str, int]:
    """Return the host and the port that a URL names; the host of ``udp://[...]`` without its brackets.

    Raises:
        ConfigError: It is no UDP URL, or names what cannot be listened on or reached. Says what to write, and repeats
            nothing that may be a secret.
    """
    if "@" in url:
        raise ConfigError(f"a UDP URL holds no user and no password: {_FORMS}")
    scheme, separator, rest = url.partition("://")
    if scheme.lower() != "udp" or not separator:
        raise ConfigError(f"not a UDP URL, as it does not begin with udp://; {_FORMS}")
    if any(mark in rest for mark in "/?#"):
        raise ConfigError(f"a UDP URL has no path, no query and no fragment: {_FORMS}")
    match = _HOST_AND_PORT.fullmatch(rest)
    if match is None:
        raise ConfigError(f"{url!r} is ambiguous, as an IPv6 address needs its brackets; {_FORMS}")
    return _host(url, match, listening=listening), _port(url, match["port"], listening=listening)


def format_url(address: SocketAddress) -> str:
    """Return the URL that names a socket address."""
    if len(address) == 2:
        return f"udp://{address[0]}:{address[1]}"
    host, port, _, scope = address
    # RFC 6874: the "%" before the zone of a link-local address is itself written %25.
    return f"udp://[{host}%25{scope}]:{port}" if scope else f"udp://[{host}]:{port}"


async def resolve(host: str, port: int) -> list[tuple[socket.AddressFamily, SocketAddress]]:
    """Return the addresses of a host, the preferred one first (RFC 6724).

    Raises:
        TransportError: The name is not known, or nobody could be asked.
    """
    try:
        # A numeric host needs no thread to be looked up in.
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        except OSError as error:
            raise TransportError(f"cannot resolve {host!r}: {error.strerror or error}") from error
    return [(family, cast("SocketAddress", address)) for family, _, _, _, address in found]


def _host(url: str, match: re.Match[str], *, listening: bool) -> str:
    host: str
    if match["address"] is not None:
        host = match["address"].replace("%25", "%", 1)
        try:
            unspecified = ipaddress.IPv6Address(host).is_unspecified
        except ValueError as error:
            raise ConfigError(f"{url!r} has no IPv6 address in its brackets; {_FORMS}") from error
    else:
        host = match["host"]
        unspecified = host == _UNSPECIFIED
        if not host:
            raise ConfigError(f"{url!r} names no host; {_FORMS}")
        try:
            host.encode("idna")  # what the resolver does first; it refuses empty and overlong labels
        except UnicodeError as error:
            raise ConfigError(f"{url!r} has a host that is no name; {_FORMS}") from error
        if not host.isprintable() or " " in host:
            raise ConfigError(f"{url!r} has a host that is no name; {_FORMS}")
    if unspecified and not listening:
        raise ConfigError(f"{url!r} names every address of this host: good to listen on, but no peer to reach")
    return host


def _port(url: str, text: str | None, *, listening: bool) -> int:
    if not text:
        raise ConfigError(f"{url!r} names no port; {_FORMS}")
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65_535):
        raise ConfigError(f"{url!r} has a port that is no number from 0 to 65535; {_FORMS}")
    if text.strip("0") == "" and not listening:
        raise ConfigError(f"{url!r} has port 0, which asks for any free port when listening, but reaches nobody")
    return int(text)
