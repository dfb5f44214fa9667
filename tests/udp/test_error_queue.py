from __future__ import annotations

import errno
import select
import socket
import struct
import sys
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from stt_udp.error_queue import DeliveryError, read_errors
from stt_udp.options import configure

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has an error queue")


def loopback_socket(host: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((host, 0))
    return sock


@pytest.fixture
def sock(host: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as made:
        configure(made, error_queue=True)
        made.bind((host, 0))
        yield made


def wait_for_error(sock: socket.socket) -> None:
    poll = select.poll()
    poll.register(sock, 0)  # errors are always waited for
    assert poll.poll(10_000)


def test_queue_is_empty_at_first(sock: socket.socket) -> None:
    assert read_errors(sock) == []


def test_refused_datagram_is_told_with_its_address_and_the_host_that_refused(sock: socket.socket, host: str) -> None:
    with loopback_socket(host) as gone:
        address = gone.getsockname()
    sock.sendto(b"anyone?", address)
    wait_for_error(sock)

    (error,) = read_errors(sock)

    assert error == DeliveryError(address, errno.ECONNREFUSED, host)
    assert str(error) == f"Connection refused, says {host}"


def test_reading_clears_the_error_that_the_socket_would_raise_next(sock: socket.socket, host: str) -> None:
    with loopback_socket(host) as gone, loopback_socket(host) as there:
        address = gone.getsockname()
        gone.close()
        sock.sendto(b"anyone?", address)
        wait_for_error(sock)

        read_errors(sock)

        assert sock.sendto(b"hello", there.getsockname()) == 5


def test_one_call_reads_a_bounded_number(sock: socket.socket, host: str) -> None:
    with loopback_socket(host) as gone:
        address = gone.getsockname()
    sent = 0
    while sent < 100:
        try:
            sock.sendto(b"anyone?", address)
            sent += 1
        except ConnectionRefusedError:
            continue
    wait_for_error(sock)

    assert len(read_errors(sock)) == 64
    assert len(read_errors(sock)) == 36


def test_local_errors_are_left_to_the_send_that_raised_them(sock: socket.socket, host: str) -> None:
    with loopback_socket(host) as there, pytest.raises(OSError, match="Message too long"):
        sock.sendto(bytes(65_528), there.getsockname())

    assert read_errors(sock) == []


@pytest.mark.parametrize("offender", [b"", bytes(16), struct.pack("=H", socket.AF_INET6) + bytes(14)])
def test_unknown_reporter_is_the_network(offender: bytes) -> None:
    class Queue(socket.socket):
        entries: ClassVar[list[bytes]] = [struct.pack("=IBBBxII", errno.EHOSTUNREACH, 2, 3, 1, 0, 0) + offender]

        def recvmsg(self, *_: Any) -> Any:
            if not self.entries:
                raise BlockingIOError
            return (
                b"",
                [(socket.IPPROTO_IP, 2, b"ttl"), (socket.IPPROTO_IP, 11, self.entries.pop())],
                0,
                ("192.0.2.1", 4433),
            )

    with Queue(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        (error,) = read_errors(sock)

    assert error == DeliveryError(("192.0.2.1", 4433), errno.EHOSTUNREACH, None)
    assert str(error) == "No route to host, says the network"
