"""Where byte streams begin: tcp://host:port, or unix:///path of a socket."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from typing import TypeAlias
from urllib.parse import urlsplit

import attrs

from stt_core.errors import ConfigError

Connected: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]


@attrs.frozen
class TCPPlace:
    host: str
    port: int

    async def listen(self, connected: Connected) -> tuple[asyncio.Server, str]:
        server = await asyncio.start_server(connected, self.host, self.port)
        host = f"[{self.host}]" if ":" in self.host else self.host
        return server, f"tcp://{host}:{server.sockets[0].getsockname()[1]}"

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self.host, self.port)


@attrs.frozen
class UnixPlace:
    path: str

    async def listen(self, connected: Connected) -> tuple[asyncio.Server, str]:
        try:
            _, writer = await self.dial()
        except OSError:
            pass  # nobody listens; asyncio takes the place of a socket that was left behind
        else:
            writer.close()
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        return await asyncio.start_unix_server(connected, self.path), f"unix://{self.path}"

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(self.path)


def parse_url(url: str) -> TCPPlace | UnixPlace:
    """Return the place that a URL names.

    Raises:
        ConfigError: It names none.
    """
    try:
        parts = urlsplit(url)
        if parts.scheme == "unix" and not parts.netloc and len(parts.path) > 1:
            return UnixPlace(parts.path)
        if parts.scheme == "tcp" and parts.hostname and parts.port is not None and not parts.path:
            return TCPPlace(parts.hostname, parts.port)
    except ValueError:
        pass
    raise ConfigError("the URL is neither tcp://host:port nor unix:///path")
