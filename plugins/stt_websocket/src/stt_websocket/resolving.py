"""Which socket addresses a host name has."""

from __future__ import annotations

import asyncio
import socket
from typing import TypeAlias

Endpoint: TypeAlias = tuple[socket.AddressFamily, tuple[object, ...]]


async def resolve(host: str, port: int) -> list[Endpoint]:
    """Return families and addresses of a host for TCP, each once, in the order that the system prefers.

    Raises:
        OSError: There are none.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:  # a name: to look it up may take long
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))
