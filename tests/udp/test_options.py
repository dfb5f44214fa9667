from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from stt_udp.options import BUFFER_SIZE, configure, receive_overflows

if TYPE_CHECKING:
    from collections.abc import Iterator

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has it")


@pytest.fixture
def sock(host: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as made:
        yield made


def test_socket_does_not_block(sock: socket.socket) -> None:
    configure(sock, error_queue=True)

    assert not sock.getblocking()


@on_linux
def test_linux_grants_trains_and_the_error_queue(sock: socket.socket) -> None:
    granted = configure(sock, error_queue=True)

    assert granted.segmentation
    assert granted.coalescing
    assert granted.error_queue


def test_granted_buffers_are_those_of_the_socket(sock: socket.socket) -> None:
    granted = configure(sock, error_queue=True)

    doubled = 2 if sys.platform == "linux" else 1
    assert granted.receive_buffer_size * doubled == sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    assert granted.send_buffer_size * doubled == sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    assert 0 < granted.receive_buffer_size <= BUFFER_SIZE
    assert 0 < granted.send_buffer_size <= BUFFER_SIZE


def test_kernel_that_refuses_large_buffers_is_asked_for_smaller_ones() -> None:
    limit = 128 * 1024

    class SmallBuffers(socket.socket):
        asked: list[int]

        def setsockopt(self, level: int, option: int, *value: Any) -> None:
            if (level, option) == (socket.SOL_SOCKET, socket.SO_RCVBUF):
                self.asked.append(value[0])
                if value[0] > limit:
                    raise OSError("No buffer space available")
            super().setsockopt(level, option, *value)

    with SmallBuffers(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        super(SmallBuffers, sock).setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.asked = []

        granted = configure(sock, error_queue=True)

    assert sock.asked == [BUFFER_SIZE >> shift for shift in range(6)]
    assert granted.receive_buffer_size == limit


def test_larger_buffers_are_left_as_they_are() -> None:
    class LargeBuffers(socket.socket):
        def getsockopt(self, level: int, option: int, *size: Any) -> Any:
            if (level, option) == (socket.SOL_SOCKET, socket.SO_RCVBUF):
                return 64 * 1024 * 1024
            return super().getsockopt(level, option, *size)

        def setsockopt(self, level: int, option: int, *value: Any) -> None:
            assert (level, option) != (socket.SOL_SOCKET, socket.SO_RCVBUF)
            super().setsockopt(level, option, *value)

    with LargeBuffers(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        assert configure(sock, error_queue=True).receive_buffer_size >= 32 * 1024 * 1024


def test_kernel_without_any_option_still_gives_a_socket() -> None:
    class OldSocket(socket.socket):
        def setsockopt(self, *_: Any) -> None:
            raise OSError("Protocol not available")

    with OldSocket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        granted = configure(sock, error_queue=True)

    assert not granted.segmentation
    assert not granted.coalescing
    assert not granted.error_queue
    assert granted.receive_buffer_size > 0


def test_other_systems_are_asked_for_nothing_of_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    class Watched(socket.socket):
        asked: ClassVar[list[tuple[int, int]]] = []

        def setsockopt(self, level: int, option: int, *value: Any) -> None:
            self.asked.append((level, option))
            super().setsockopt(level, option, *value)

    monkeypatch.setattr("stt_udp.options.LINUX", False)
    monkeypatch.setattr(sys, "platform", "sunos5")

    with Watched(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        granted = configure(sock, error_queue=True)
        assert receive_overflows(sock) is None
        assert granted.receive_buffer_size == sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    assert {level for level, _ in Watched.asked} == {socket.SOL_SOCKET}
    assert not granted.segmentation
    assert not granted.coalescing
    assert not granted.error_queue


@on_linux
def test_datagrams_are_never_fragmented(sock: socket.socket) -> None:
    configure(sock, error_queue=True)

    level, option = (socket.IPPROTO_IPV6, 23) if sock.family == socket.AF_INET6 else (socket.IPPROTO_IP, 10)
    assert sock.getsockopt(level, option) == 3


@on_linux
def test_overflows_are_read_from_the_kernel(sock: socket.socket) -> None:
    assert receive_overflows(sock) == 0


def test_overflows_are_unknown_where_the_kernel_does_not_tell() -> None:
    class OldSocket(socket.socket):
        def getsockopt(self, *_: Any) -> Any:
            raise OSError("Protocol not available")

    with OldSocket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        assert receive_overflows(sock) is None
