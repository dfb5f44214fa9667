"""TLS contexts: which certificates a server shows, and which a client believes."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from stt_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def server_context(certificate: str | Path, key: str | Path | None = None) -> ssl.SSLContext:
    """Return a context for a server: TLS 1.2 and up.

    Args:
        certificate: A PEM file with the certificate and those between it and its authority.
        key: A PEM file with the private key, not encrypted; None where it is in the same file.

    Raises:
        ConfigError: The files cannot be read, or do not belong together.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key, password=_refuse_password)
    except (OSError, ValueError) as error:
        raise ConfigError(f"certificate {certificate} with key {key or certificate}: {error}") from error
    return _restricted(context)


def client_context(authorities: str | Path | None = None) -> ssl.SSLContext:
    """Return a context for a client: it verifies the server's certificate and name, TLS 1.2 and up.

    Args:
        authorities: A PEM file with authorities to believe besides the system's.

    Raises:
        ConfigError: The file cannot be read.
    """
    context = ssl.create_default_context()
    if authorities is not None:
        try:
            context.load_verify_locations(authorities)
        except OSError as error:
            raise ConfigError(f"authorities {authorities}: {error}") from error
    return _restricted(context)


def server_context_from(environment: Mapping[str, str]) -> ssl.SSLContext:
    """Return a server's context with the files that the environment names.

    Raises:
        ConfigError: None is named, or the files cannot be used.
    """
    certificate = environment.get("STT_WEBSOCKET_CERTIFICATE")
    if not certificate:
        raise ConfigError(
            "listening at wss needs a certificate: set STT_WEBSOCKET_CERTIFICATE and STT_WEBSOCKET_KEY to PEM files, "
            "pass WebSocketOptions(server_tls=...), or listen at ws behind a reverse proxy that does TLS"
        )
    return server_context(certificate, environment.get("STT_WEBSOCKET_KEY") or None)


def client_context_from(environment: Mapping[str, str]) -> ssl.SSLContext:
    """Return a client's context, with the authorities that the environment names besides the system's.

    Raises:
        ConfigError: The file cannot be read.
    """
    return client_context(environment.get("STT_WEBSOCKET_CA") or None)


def _restricted(context: ssl.SSLContext) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= (
        ssl.OP_NO_RENEGOTIATION
    )  # of TLS 1.2: nobody needs it, and writing would have to wait for reading
    context.set_alpn_protocols(["http/1.1"])  # a server that prefers HTTP/2 cannot upgrade to a WebSocket
    return context


def _refuse_password() -> str:
    # Without this, OpenSSL asks at the terminal and blocks the event loop.
    raise ValueError("the key is encrypted")
