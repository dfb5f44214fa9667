"""Every tunable of the WebSocket transport, with its unit and the reason for its default."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from stt_core.errors import ConfigError
from stt_websocket.connection import MAX_MESSAGE_SIZE
from stt_websocket.handshake import SUBPROTOCOL

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping


def _at_least(minimum: float) -> Any:
    def check(_: object, attribute: attrs.Attribute[float], value: float | None) -> None:
        if value is not None and not value >= minimum:
            raise ConfigError(f"{attribute.name} is {value!r}, but must be at least {minimum}")

    return check


def _lower(values: frozenset[str] | None) -> frozenset[str] | None:
    return None if values is None else frozenset(value.lower() for value in values)


@attrs.frozen(kw_only=True)
class WebSocketOptions:
    """The settings of a WebSocket transport; immutable, and refused when built wrong.

    Raises:
        ConfigError: A value is out of its range.
    """

    # TLS

    server_tls: ssl.SSLContext | None = attrs.field(default=None, repr=False)
    """For listening at wss: certificate and key, see :func:`~stt_websocket.tls.server_context`. None takes those that
    the environment names (``STT_WEBSOCKET_CERTIFICATE``, ``STT_WEBSOCKET_KEY``)."""

    client_tls: ssl.SSLContext | None = attrs.field(default=None, repr=False)
    """For connecting to wss. None verifies the server against the system's authorities, and against the file that
    ``STT_WEBSOCKET_CA`` names where it is set."""

    # Opening handshake

    subprotocol: str | None = SUBPROTOCOL
    """The sub-protocol: a client asks for it and insists, a server insists that it is asked for; None for none."""

    allowed_hosts: frozenset[str] | None = attrs.field(default=None, converter=_lower)
    """At a server: the values of the Host field that are taken, ``host`` with any port or ``host:port``; None all.
    It need not guard against rebinding of DNS: a browser is refused by its Origin already."""

    allowed_origins: frozenset[str] | None = attrs.field(default=frozenset(), converter=_lower)
    """At a server: the web origins whose pages may connect, such as ``https://example.org``; None all. By default none
    may. Clients that are no browsers send no Origin, and are not held back by this."""

    handshake_timeout: float = attrs.field(default=10.0, validator=_at_least(0.01))
    """Seconds that TCP, proxy, TLS and opening handshake may take together."""

    max_connections: int = attrs.field(default=10_000, validator=_at_least(1))
    """At a server: connections at a time, those in their handshake included; more are closed at once."""

    # Connection

    max_message_size: int = attrs.field(default=MAX_MESSAGE_SIZE, validator=_at_least(1))
    """Bytes of a message that is taken; a larger one closes the connection with 1009."""

    max_incomplete_size: int = attrs.field(default=256 * 1024 * 1024, validator=_at_least(1))
    """At a server: bytes of messages that have begun and not ended, of all connections together; beyond it, the
    connection that holds most of them is closed with 1013."""

    send_buffer_size: int = attrs.field(default=1024 * 1024, validator=_at_least(1))
    """Bytes that wait for a connection's socket before ``send_train`` refuses more; one message may go beyond."""

    receive_buffer_size: int = attrs.field(default=4 * 1024 * 1024, validator=_at_least(1))
    """Bytes that wait for ``receive`` before reading pauses; one message of each connection may go beyond."""

    ping_interval: float | None = attrs.field(default=20.0, validator=_at_least(0.01))
    """Seconds of silence after which the peer is pinged: below the 60 s after which nginx cuts an idle connection.
    None never pings."""

    ping_timeout: float = attrs.field(default=20.0, validator=_at_least(0.01))
    """Seconds without any byte after a ping until the peer counts as dead."""

    close_timeout: float = attrs.field(default=5.0, validator=_at_least(0.01))
    """Seconds that sending what waits, and the peer's part of the closing handshake, may take."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> WebSocketOptions:
        """Return the defaults, with the allow-lists that the environment names.

        ``STT_WEBSOCKET_HOSTS`` and ``STT_WEBSOCKET_ORIGINS`` are comma-separated; ``*`` allows all.
        """
        hosts = _listed(environment.get("STT_WEBSOCKET_HOSTS", "*"))
        origins = _listed(environment.get("STT_WEBSOCKET_ORIGINS", ""))
        return cls(allowed_hosts=hosts, allowed_origins=origins)


def _listed(text: str) -> frozenset[str] | None:
    values = frozenset(value.strip() for value in text.split(",") if value.strip())
    return None if "*" in values else values
