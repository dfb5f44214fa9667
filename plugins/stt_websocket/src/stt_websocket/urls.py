"""What a ws or wss URL says (RFC 6455 section 3)."""

from __future__ import annotations

import re

import attrs

from stt_core.errors import ConfigError

_URL = re.compile(
    r"""
    (?P<scheme> wss?) ://
    (?: \[ (?P<address> [0-9a-fA-F:.]+ (?: %25 [0-9a-zA-Z._~-]+ )? ) \] | (?P<name> [0-9a-zA-Z._~-]+ ) )
    (?: : (?P<port> [0-9]{0,5} ) )?
    (?P<path> / [^?\#]* )?
    (?: \? (?P<query> [^\#]* ) )?
    """,
    re.VERBOSE | re.IGNORECASE,
)
_PRINTABLE = re.compile(r"[\x21-\x7e]+")
_DEFAULT_PORTS = {False: 80, True: 443}


@attrs.frozen(kw_only=True)
class WebSocketURL:
    """The parts of a URL."""

    is_secure: bool
    """Whether TLS is under it: the scheme is wss."""

    host: str
    """A name, or an address without brackets."""

    port: int
    path: str = "/"
    query: str | None = attrs.field(default=None, repr=False)
    """What stands behind the question mark; None where there is none. It may hold a secret."""

    @classmethod
    def parse(cls, text: str, *, listening: bool = False) -> WebSocketURL:
        """Parse a URL.

        Args:
            text: The URL, in ASCII: other characters of a path percent-encoded, of a host name in its xn-- form.
            listening: Whether it is to be bound: only then may the port be 0.

        Raises:
            ConfigError: It is no ws or wss URL, or has a user name or a fragment. The text does not repeat the URL,
                which may hold a secret.
        """
        match = _URL.fullmatch(text) if _PRINTABLE.fullmatch(text) else None
        if match is None:
            raise ConfigError(
                "not a WebSocket URL: write wss://host:port/path?query or ws://host:port, in ASCII, with an IPv6 "
                "address in brackets, without user name and fragment"
            )
        is_secure = match["scheme"].lower() == "wss"
        port = int(match["port"]) if match["port"] else _DEFAULT_PORTS[is_secure]
        if port > 65_535 or (port == 0 and not listening):
            raise ConfigError(f"port {port} of a WebSocket URL cannot be used: it must be from 1 to 65535")
        host = (match["address"] or match["name"]).replace("%25", "%").lower()
        return cls(is_secure=is_secure, host=host, port=port, path=match["path"] or "/", query=match["query"])

    @property
    def resource(self) -> str:
        """Path and query, as the request line has them."""
        return self.path if self.query is None else f"{self.path}?{self.query}"

    @property
    def authority(self) -> str:
        """Host and port as the Host field has them: a default port and the zone of an address are left out."""
        host = f"[{self.host.partition('%')[0]}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.is_secure] else f"{host}:{self.port}"

    @property
    def endpoint(self) -> str:
        """The URL without its query, for logs and errors."""
        host = f"[{self.host.replace('%', '%25')}]" if ":" in self.host else self.host
        return f"{'wss' if self.is_secure else 'ws'}://{host}:{self.port}{self.path}"

    def __str__(self) -> str:
        return self.endpoint if self.query is None else f"{self.endpoint}?{self.query}"
