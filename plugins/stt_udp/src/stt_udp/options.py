"""What is asked of the kernel for a UDP socket, and what it granted."""

from __future__ import annotations

import socket
import struct
import sys
from typing import Final

import attrs

LINUX: Final = sys.platform == "linux"

# Numbers of Linux (include/uapi/linux: udp.h, in.h, in6.h, socket.h) that Python 3.11 does not name.
UDP_SEGMENT: Final = 103
UDP_GRO: Final = 104
IP_RECVERR: Final = 11
IPV6_RECVERR: Final = 25
_SO_MEMINFO: Final = 55
_MEMINFO: Final = struct.Struct("=9I")
_MEMINFO_DROPS: Final = 8

# What keeps datagrams in one piece, by system and family: level, option, value.
_NO_FRAGMENTS: Final = {
    # IP_MTU_DISCOVER and IPV6_MTU_DISCOVER to PMTUDISC_PROBE, rather than DO: sizes are probed end to end here, so the
    # kernel's own guess of a path's MTU, which anyone may lower by a forged ICMP message, is to decide nothing.
    ("linux", socket.AF_INET): (socket.IPPROTO_IP, 10, 3),
    ("linux", socket.AF_INET6): (socket.IPPROTO_IPV6, 23, 3),
    ("darwin", socket.AF_INET): (socket.IPPROTO_IP, 28, 1),  # IP_DONTFRAG of netinet/in.h
    ("darwin", socket.AF_INET6): (socket.IPPROTO_IPV6, 62, 1),  # IPV6_DONTFRAG of netinet6/in6.h
    ("win32", socket.AF_INET): (socket.IPPROTO_IP, 14, 1),  # IP_DONTFRAGMENT of ws2ipdef.h
    ("win32", socket.AF_INET6): (socket.IPPROTO_IPV6, 14, 1),  # IPV6_DONTFRAG of ws2ipdef.h
}

BUFFER_SIZE: Final = 4 * 1024 * 1024
"""Bytes asked for each socket buffer: Linux's default of 208 KiB overflows within a millisecond of a fast sender."""


@attrs.frozen(kw_only=True)
class Granted:
    """What the kernel gave a socket."""

    receive_buffer_size: int
    send_buffer_size: int

    segmentation: bool
    """Trains are cut by the kernel: UDP_SEGMENT, Linux 4.18."""

    coalescing: bool
    """Datagrams are joined by the kernel: UDP_GRO, Linux 5.0."""

    error_queue: bool
    """Undelivered datagrams are told with the address they were sent to: IP_RECVERR, Linux."""


def configure(sock: socket.socket, *, error_queue: bool) -> Granted:
    """Set everything a UDP socket of STT has, before it is bound; what the kernel does not have is done without.

    Args:
        sock: The socket.
        error_queue: Whether to ask for errors with the address that each is about.
    """
    sock.setblocking(False)
    ipv6 = sock.family == socket.AF_INET6
    if ipv6:
        # One family a socket: 0.0.0.0 and [::] can then be listened on with one port, and no IPv4 peer has two names.
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    unfragmented = _NO_FRAGMENTS.get((sys.platform, sock.family))
    if unfragmented is not None:
        _granted(sock, *unfragmented)  # RFC 8899 section 4.1 builds on it
    recverr = (socket.IPPROTO_IPV6, IPV6_RECVERR) if ipv6 else (socket.IPPROTO_IP, IP_RECVERR)
    return Granted(
        receive_buffer_size=_grow_buffer(sock, socket.SO_RCVBUF),
        send_buffer_size=_grow_buffer(sock, socket.SO_SNDBUF),
        segmentation=LINUX and _granted(sock, socket.IPPROTO_UDP, UDP_SEGMENT, 0),
        coalescing=LINUX and _granted(sock, socket.IPPROTO_UDP, UDP_GRO, 1),
        error_queue=error_queue and LINUX and _granted(sock, *recverr, 1),
    )


def receive_overflows(sock: socket.socket) -> int | None:
    """Return how many datagrams did not fit the receive buffer so far; None where the kernel does not tell."""
    if not LINUX:
        return None
    try:
        memory = sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
    except OSError:
        return None
    drops: int = _MEMINFO.unpack(memory)[_MEMINFO_DROPS]
    return drops


def _grow_buffer(sock: socket.socket, option: int) -> int:
    """Ask for ``BUFFER_SIZE``, and return the bytes that were granted."""
    size = BUFFER_SIZE
    while _buffer_size(sock, option) < size and not _granted(sock, socket.SOL_SOCKET, option, size):
        size //= 2  # BSD kernels refuse what is above their limit; Linux grants the limit
    return _buffer_size(sock, option)


def _buffer_size(sock: socket.socket, option: int) -> int:
    size = sock.getsockopt(socket.SOL_SOCKET, option)
    return size // 2 if LINUX else size  # Linux doubles what is asked, for its own bookkeeping (socket(7))


def _granted(sock: socket.socket, level: int, option: int, value: int) -> bool:
    try:
        sock.setsockopt(level, option, value)
    except OSError:
        return False
    return True
