"""How the bytes of one connection move: a non-blocking TCP socket, plain or with TLS upon it.

asyncio's own streams are not used: they keep 256 KiB for each TLS connection, copy what a full socket does not take,
and on Python 3.11 join gathered writes. Here memory is held only while bytes wait, and large buffers move uncopied.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import threading
from abc import ABC, abstractmethod
from collections import deque
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from stt_core.interfaces.transport import Buffer

READ_SIZE: Final = 64 * 1024
"""Bytes that a turn of reads takes from the socket: it bounds the work that a peer causes before others get theirs."""

BULK_READ_SIZE: Final = 512 * 1024
"""The same while the peer sends so much that each turn brings more than half of :data:`READ_SIZE`."""

_SEAL_SIZE: Final = 256 * 1024  # plaintext that TLS seals at a time: it stays in the processor's second cache
_GATHERED: Final = 64 if hasattr(socket.socket, "sendmsg") else 1  # buffers a system call; the limit of Linux is 1024


class _Scratch(threading.local):
    """Where bytes stand for the time of one call: sealed ones before TLS opens them, and what it makes of them.

    Memory of this size made anew for each read would cost more than the read. Each thread has its own, as a read lets
    other threads run, from its first read on.
    """

    @cached_property
    def sealed(self) -> memoryview:
        return memoryview(bytearray(BULK_READ_SIZE))

    @cached_property
    def opened(self) -> memoryview:
        return memoryview(bytearray(BULK_READ_SIZE))


_scratch = _Scratch()


class Link(ABC):
    """One connection's bytes. The synchronous methods never wait; ``OSError`` says that the connection failed."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.unsent_size = 0
        """Bytes that :meth:`write` took and that wait for the socket."""

    @abstractmethod
    def begin_wake(self, *, is_bulk: bool) -> None:
        """Start a turn of reads, of :data:`READ_SIZE` or :data:`BULK_READ_SIZE` at most."""

    @abstractmethod
    def read(self) -> bytes | None:
        """Return bytes, b"" at the end of the stream, or None when this turn has no more."""

    @abstractmethod
    def read_into(self, buffer: memoryview) -> int | None:
        """Fill a buffer from its start; as :meth:`read`, with the number of bytes."""

    @abstractmethod
    def write(self, queue: deque[Buffer]) -> int:
        """Take what is possible from the left of ``queue``; returns the number of bytes taken."""

    @abstractmethod
    def end_writing(self) -> None:
        """Tell the peer that no more comes, as far as the socket takes it now."""

    @abstractmethod
    async def receive(self) -> bytes:
        """Wait for bytes; b"" at the end of the stream."""

    @abstractmethod
    async def send(self, data: bytes) -> None:
        """Wait until all bytes are handed to the socket."""

    def close(self) -> None:
        """Release the socket."""
        self.sock.close()


class PlainLink(Link):
    """Bytes over TCP as they are."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._size_left = 0  # bytes that this turn may still read

    def begin_wake(self, *, is_bulk: bool) -> None:
        """Start a turn of reads."""
        self._size_left = BULK_READ_SIZE if is_bulk else READ_SIZE

    def read(self) -> bytes | None:
        """Return bytes, b"" at the end of the stream, or None when this turn has no more."""
        size, self._size_left = self._size_left, 0
        if not size:
            return None
        try:
            return self.sock.recv(size)
        except BlockingIOError:
            return None

    def read_into(self, buffer: memoryview) -> int | None:
        """Fill a buffer from its start; as :meth:`read`, with the number of bytes."""
        asked = min(self._size_left, len(buffer))
        if not asked:
            return None
        try:
            size = self.sock.recv_into(buffer, asked)
        except BlockingIOError:
            return None
        self._size_left = self._size_left - size if size == asked else 0
        return size

    def write(self, queue: deque[Buffer]) -> int:
        """Take what is possible from the left of ``queue``; returns the number of bytes taken."""
        total = 0
        with contextlib.suppress(BlockingIOError):
            while queue:
                is_single = len(queue) == 1 or _GATHERED == 1
                sent = self.sock.send(queue[0]) if is_single else self.sock.sendmsg(islice(queue, _GATHERED))
                total += sent
                while queue and sent >= len(queue[0]):
                    sent -= len(queue.popleft())
                if sent:
                    queue[0] = memoryview(queue[0])[sent:]
        return total

    def end_writing(self) -> None:
        """Tell the peer that no more comes."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    async def receive(self) -> bytes:
        """Wait for bytes; b"" at the end of the stream."""
        return await asyncio.get_running_loop().sock_recv(self.sock, READ_SIZE)

    async def send(self, data: bytes) -> None:
        """Wait until all bytes are handed to the socket."""
        await asyncio.get_running_loop().sock_sendall(self.sock, data)


class TLSLink(Link):
    """Bytes over TLS over TCP.

    Args:
        sock: The connected socket.
        context: Certificates and settings.
        server_name: At a client: the name that the server's certificate must have. None at a server.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, server_name: str | None) -> None:
        super().__init__(sock)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_name is None, server_hostname=server_name
        )
        self._sealed = memoryview(b"")
        self._fill_size = 0  # bytes that this turn may still read from the socket, in one call
        self._is_over = False  # the peer has said in TLS that no more comes

    async def shake_hands(self) -> None:
        """Set up TLS.

        Raises:
            ssl.SSLError: The peer's certificate is not accepted, or both sides have nothing in common.
            OSError: The connection failed.
        """
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._send_sealed()
                await self._fill_waiting()
            except ssl.SSLError:
                self.write(deque())  # the alert that tells the peer why
                raise
            else:
                await self._send_sealed()
                return

    def begin_wake(self, *, is_bulk: bool) -> None:
        """Start a turn of reads: one from the socket, and all that it brings."""
        self._fill_size = BULK_READ_SIZE if is_bulk else READ_SIZE

    def read(self) -> bytes | None:
        """Return bytes, b"" at the end of the stream, or None when this turn has no more."""
        opened = _scratch.opened
        size = self.read_into(opened)
        return None if size is None else bytes(opened[:size])

    def read_into(self, buffer: memoryview) -> int | None:
        """Fill a buffer from its start; as :meth:`read`, with the number of bytes."""
        filled = 0
        try:
            # Each call returns one record at most; to parse them together spares work.
            while filled < len(buffer) and self._has_more():
                size = cast("int", self._tls.read(len(buffer) - filled, buffer[filled:]))
                if not size:
                    self._is_over = True
                    return filled
                filled += size
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLEOFError:
            return filled
        return filled or None

    def write(self, queue: deque[Buffer]) -> int:
        """Take what is possible from the left of ``queue``; returns the number of bytes taken."""
        total = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                while self._sealed:
                    self._sealed = self._sealed[self.sock.send(self._sealed) :]
                taken = self._seal(queue)
                total += taken
                if not taken and not self._outgoing.pending:
                    break
                self._sealed = memoryview(self._outgoing.read())
        self.unsent_size = len(self._sealed) + self._outgoing.pending
        return total

    def end_writing(self) -> None:
        """Tell the peer that no more comes, as far as the socket takes it now."""
        with contextlib.suppress(ssl.SSLError):  # it wants to wait for the peer's close_notify; or TLS failed before
            self._tls.unwrap()
        with contextlib.suppress(OSError):
            self.write(deque())
            self.sock.shutdown(socket.SHUT_WR)

    async def receive(self) -> bytes:
        """Wait for bytes; b"" at the end of the stream."""
        while True:
            with contextlib.suppress(ssl.SSLWantReadError):
                try:
                    return self._tls.read(READ_SIZE)
                except ssl.SSLEOFError:
                    return b""
            await self._fill_waiting()

    async def send(self, data: bytes) -> None:
        """Wait until all bytes are handed to the socket."""
        self._tls.write(data)
        await self._send_sealed()

    def _seal(self, queue: deque[Buffer]) -> int:
        total = 0
        while queue and total < _SEAL_SIZE:
            piece = queue[0]
            taken = self._tls.write(piece if len(piece) <= _SEAL_SIZE else memoryview(piece)[:_SEAL_SIZE])
            total += taken
            if taken == len(piece):
                queue.popleft()
            else:
                queue[0] = memoryview(piece)[taken:]
        return total

    def _has_more(self) -> bool:
        """Read from the socket, once in a turn; False when there is nothing to open, which spares an exception."""
        if self._fill_size:
            size, self._fill_size = self._fill_size, 0
            with contextlib.suppress(BlockingIOError):
                self._put(_scratch.sealed[: self.sock.recv_into(_scratch.sealed, size)])
            return True
        return bool(self._incoming.pending or self._tls.pending() or self._incoming.eof or self._is_over)

    async def _fill_waiting(self) -> None:
        self._put(await asyncio.get_running_loop().sock_recv(self.sock, READ_SIZE))

    def _put(self, data: Buffer) -> None:
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _send_sealed(self) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, self._outgoing.read())


def describe(error: OSError) -> str:
    """Say in words why a link failed, without the addresses that asyncio adds."""
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or error}"
    return os.strerror(error.errno) if error.errno else str(error) or type(error).__name__
