"""Which datagrams the network could not deliver, as the error queue of a Linux socket tells (ip(7), IP_RECVERR)."""

from __future__ import annotations

import os
import socket
import struct
import sys
from typing import TYPE_CHECKING, Final, cast

import attrs

from stt_udp.options import IP_RECVERR, IPV6_RECVERR

if TYPE_CHECKING:
    from stt_udp.address import SocketAddress

_EXTENDED_ERROR: Final = struct.Struct("=IBBBxII")
"""``struct sock_extended_err``: errno, origin, ICMP type, ICMP code, info, data."""

_FROM_NETWORK: Final = (2, 3)  # SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6; a local error was raised by the send itself
_BATCH: Final = 64  # more are left for the next call, so that a flood of ICMP cannot hold the event loop


@attrs.frozen
class DeliveryError:
    """One datagram that came to nothing."""

    address: SocketAddress
    """Where it was sent to."""

    code: int
    """An ``errno``."""

    reporter: str | None
    """The host that says so; None where the kernel does not tell."""

    def __str__(self) -> str:
        return f"{os.strerror(self.code)}, says {self.reporter or 'the network'}"


def read_errors(sock: socket.socket) -> list[DeliveryError]:
    """Take up to 64 errors from the queue; reading them also clears the error pending on the socket."""
    errors = []
    for _ in range(_BATCH):
        try:
            # One byte of the returned datagram, as nothing of it is needed; the address is the one it was sent to.
            _, ancillary, _, address = sock.recvmsg(1, 512, socket.MSG_ERRQUEUE)
        except OSError:
            break
        for level, kind, data in ancillary:
            if (level, kind) not in ((socket.IPPROTO_IP, IP_RECVERR), (socket.IPPROTO_IPV6, IPV6_RECVERR)):
                continue
            code, origin, *_ = _EXTENDED_ERROR.unpack_from(data)
            if origin in _FROM_NETWORK:
                reporter = _reporter(data[_EXTENDED_ERROR.size :])
                errors.append(DeliveryError(cast("SocketAddress", address), code, reporter))
    return errors


def _reporter(data: bytes) -> str | None:
    """Return the host in a ``struct sockaddr``."""
    family = int.from_bytes(data[:2], sys.byteorder) if len(data) >= 16 else socket.AF_UNSPEC
    if family == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, data[4:8])
    if family == socket.AF_INET6 and len(data) >= 24:
        return socket.inet_ntop(socket.AF_INET6, data[8:24])
    return None
