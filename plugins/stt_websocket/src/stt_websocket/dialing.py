"""How a client reaches a server: name, proxy, TCP, TLS, opening handshake."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Final

from stt_core.errors import PeerUnreachable, TransportError
from stt_websocket.handshake import ClientHandshake
from stt_websocket.links import Link, PlainLink, TLSLink, describe
from stt_websocket.masking import fastest_mask
from stt_websocket.proxy import ProxyHandshake, find_proxy
from stt_websocket.resolving import Endpoint, resolve
from stt_websocket.tls import client_context_from

if TYPE_CHECKING:
    from stt_websocket.options import WebSocketOptions
    from stt_websocket.urls import WebSocketURL

ATTEMPT_DELAY: Final = 0.25
"""Seconds until the next address of a name is tried beside the one before (RFC 8305 section 5)."""


async def dial(url: WebSocketURL, options: WebSocketOptions) -> tuple[Link, bytes, tuple[str, int]]:
    """Open a WebSocket.

    Returns:
        The byte stream behind the opening handshake, what came on it already, and whose it is: the server's host and
        port, or the proxy's.

    Raises:
        TransportError: It failed; the text says at which step.
        PeerUnreachable: Nobody listens there.
        ConfigError: The environment names a proxy or authorities that cannot be used.
    """
    fastest_mask()  # may import much: better now than amid a connection
    try:
        async with asyncio.timeout(options.handshake_timeout):
            return await _dial(url, options)
    except TimeoutError:
        raise TransportError(f"{url.endpoint}: no WebSocket within {options.handshake_timeout:g} s") from None


async def _dial(url: WebSocketURL, options: WebSocketOptions) -> tuple[Link, bytes, tuple[str, int]]:
    proxy = find_proxy(url, os.environ)
    context = (options.client_tls or client_context_from(os.environ)) if url.is_secure else None
    sock = await _connect(url.host, url.port) if proxy is None else await _connect(proxy.host, proxy.port)
    try:
        link: Link = PlainLink(sock)
        if proxy is not None:
            await _shake_hands(url, link, ProxyHandshake(proxy, url))
        if context is not None:
            link = TLSLink(sock, context, url.host.partition("%")[0])
            await link.shake_hands()
        handshake = ClientHandshake(url, subprotocol=options.subprotocol)
        await _shake_hands(url, link, handshake)
        host, port, *_ = sock.getpeername()
    except ssl.SSLCertVerificationError as error:
        sock.close()
        raise TransportError(
            f"{url.endpoint}: the server's certificate is not accepted: {error.verify_message}"
        ) from error
    except OSError as error:
        sock.close()
        raise TransportError(f"{url.endpoint}: {describe(error)}") from error
    except BaseException:
        sock.close()
        raise
    return link, handshake.rest, (host, port)


async def _shake_hands(url: WebSocketURL, link: Link, handshake: ClientHandshake | ProxyHandshake) -> None:
    await link.send(b"".join(handshake.data_to_send()))
    while not handshake.is_complete:
        data = await link.receive()
        if not data:
            raise TransportError(f"{url.endpoint}: the connection ended in the opening handshake")
        handshake.receive_data(data)
        if handshake.refusal is not None:
            raise TransportError(f"{url.endpoint}: {handshake.refusal.reason}") from handshake.refusal


async def _connect(host: str, port: int) -> socket.socket:
    """Connect to the first address of a name that answers, IPv6 and IPv4 by turns (RFC 8305)."""
    try:
        waiting = _by_turns(await resolve(host, port))
    except OSError as error:
        raise TransportError(f"{host}: {error.strerror or error}") from error
    attempts: set[asyncio.Task[socket.socket]] = set()
    errors: list[OSError] = []
    try:
        while waiting or attempts:
            if waiting:
                attempts.add(asyncio.create_task(_attempt(*waiting.pop(0))))
            done, _ = await asyncio.wait(
                attempts, timeout=ATTEMPT_DELAY if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for attempt in done:
                attempts.remove(attempt)
                try:
                    return attempt.result()
                except OSError as error:
                    errors.append(error)
    finally:
        await _give_up(attempts)
    text = f"{host} port {port}: {describe(errors[0])}"
    if all(isinstance(error, ConnectionRefusedError) for error in errors):
        raise PeerUnreachable((host, port), text)
    raise TransportError(text)


def _by_turns(endpoints: list[Endpoint]) -> list[Endpoint]:
    """Return the endpoints with the families by turns, else in the order that the resolver prefers."""
    first = [endpoint for endpoint in endpoints if endpoint[0] == endpoints[0][0]]
    others = [endpoint for endpoint in endpoints if endpoint[0] != endpoints[0][0]]
    return [endpoint for endpoint in chain(*zip_longest(first, others)) if endpoint is not None]


async def _attempt(family: socket.AddressFamily, address: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


async def _give_up(attempts: set[asyncio.Task[socket.socket]]) -> None:
    for attempt in attempts:
        attempt.cancel()
    for result in await asyncio.gather(*attempts, return_exceptions=True):
        if isinstance(result, socket.socket):
            result.close()
