"""TCP connections at the ends of a tunnel: addresses as they are written, and the relay to a stream."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import struct
from typing import TYPE_CHECKING, Any, Final

import attrs

from stt_core.errors import ConfigError, FrameError
from stt_streaming.tunnel.relay import relay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from stt_core import STTStream
    from stt_core.interfaces.transport import Buffer

MAX_HOST_SIZE: Final = 255
"""Letters of the longest name of a host (RFC 1035 section 2.3.4)."""

READ_SIZE: Final = 256 * 1024
"""Bytes of a connection that are read ahead, and go over the stream at a time."""

_NO_LINGER: Final = struct.pack("ii", 1, 0)  # struct linger: close() resets the connection


def _spelt(host: str) -> str:
    """Return the one spelling of a host: an address as in RFC 5952, a name in the small letters of DNS (RFC 3490)."""
    # What is no name of DNS stays as it is: it equals itself alone, and cannot be connected to.
    with contextlib.suppress(UnicodeError):
        host = host if host.isascii() else host.encode("idna").decode()
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.lower()


def _without_root(host: str) -> str:
    return host.removesuffix(".")


@attrs.frozen
class HostPort:
    """A host and a TCP port. Two are equal if they are other spellings of one; no name is looked up for that."""

    host: str = attrs.field(converter=_spelt, eq=_without_root)
    """An address, or a name in the letters of DNS; with a dot at its end, it is looked up without search domains."""

    port: int

    @classmethod
    def parse(cls, text: str) -> HostPort:
        """Return what ``HOST:PORT`` or ``[IPV6]:PORT`` names.

        Raises:
            ConfigError: It names none.
        """
        host, _, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise ConfigError(f"{text!r} is no HOST:PORT: an IPv6 address is written in brackets")
        if not (port.isascii() and port.isdigit() and int(port) <= 65_535 and _is_host(host)):
            raise ConfigError(f"{text!r} is no HOST:PORT")
        return cls(host, int(port))

    @classmethod
    def of_metadata(cls, metadata: Any) -> HostPort:
        """Return what the metadata of a peer's stream names.

        Raises:
            FrameError: It names none.
        """
        match metadata:
            case {"host": str(host), "port": int(port)} if 0 <= port <= 65_535 and _is_host(host):
                return cls(host, port)
        raise FrameError("the peer names no host and port")

    def metadata(self) -> dict[str, object]:
        """Return the metadata that names it to the peer."""
        return {"host": self.host, "port": self.port}

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


async def connect(target: HostPort) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a target, to the first of its addresses that answers.

    Whoever answers for a name could have it lead to what listens on this machine for itself alone. So a name other than
    ``localhost`` does not lead to addresses of this machine or of its link: such a target is written as an address.

    Raises:
        OSError: It cannot be found or connected to, or leads there.
        UnicodeError: It is no name.
    """
    try:
        ipaddress.ip_address(target.host)
    except ValueError:
        pass
    else:
        return await asyncio.open_connection(target.host, target.port, limit=READ_SIZE)
    found = await asyncio.get_running_loop().getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(where[0]) for *_, where in found))
    failed: OSError = OSError(f"it leads to {', '.join(addresses)}, where only an address as the target may lead")
    for address in addresses:
        if _is_local_name(target.host) or not _is_local(address):
            try:
                return await asyncio.open_connection(address, target.port, limit=READ_SIZE)
            except OSError as error:
                failed = error
    raise failed


async def relay_connection(stream: STTStream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Join a TCP connection to a stream until both directions have ended, and close it.

    A half-close of either side reaches the other. Where one of the two breaks off, the other one is reset.

    Raises:
        StreamClosed: The stream broke off.
        SessionClosed: As above, with its session.
        OSError: The connection broke off.
    """

    async def write(data: Buffer) -> None:
        writer.write(data)
        await writer.drain()

    try:
        await relay(stream, _read(reader), write, writer.write_eof)
        writer.close()
        # Whoever reads slowly is waited for, but not when this is cancelled.
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    except BaseException:
        abort(writer)
        raise


def abort(writer: asyncio.StreamWriter) -> None:
    """Reset a connection, so that its other end does not take what came for all there was."""
    connection: socket.socket | None = writer.get_extra_info("socket")
    if connection is not None and connection.fileno() >= 0:  # else it is closed, of which uvloop makes a ValueError
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    writer.transport.abort()


async def _read(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while data := await reader.read(READ_SIZE):
        yield data


def _is_local_name(host: str) -> bool:
    return _without_root(host).rpartition(".")[2] == "localhost"  # RFC 6761 section 6.3


def _is_local(text: str) -> bool:
    """Say whether only this machine or its link has an address."""
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast


def _is_host(host: str) -> bool:
    return 0 < len(host) <= MAX_HOST_SIZE and host.isprintable() and not any(letter in "/@[] " for letter in host)
