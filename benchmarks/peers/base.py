"""What every peer offers, so that one set of measures fits them all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Options:
    """What an end is made for."""

    measure: str
    folder: Path
    """Where :mod:`benchmarks.certificates` has left its files."""
    controller: str | None = None
    """The congestion controller, where there is a choice."""


class Channel(ABC):
    """One ordered flow of bytes, or of messages, in both directions."""

    @abstractmethod
    async def send(self, data: bytes) -> None:
        """Send; waits while too much is under way."""

    @abstractmethod
    async def receive(self) -> bytes:
        """Return what came: a message, or some bytes; none at the end."""

    def end(self) -> None:
        """Send no more, where the library can say so."""

    async def send_many(self, data: bytes, count: int) -> None:
        """Send the same data several times, as the library does it fastest."""
        for _ in range(count):
            await self.send(data)

    async def discard(self, size: int) -> None:
        """Receive that many bytes, as the library does it fastest."""
        while size > 0:
            chunk = await self.receive()
            if not chunk:
                raise EOFError("the sender ended early")
            size -= len(chunk)

    async def receive_exactly(self, size: int) -> bytes:
        """Receive that many bytes; the other end sends no more than these before it is answered."""
        data = await self.receive()
        while data and len(data) < size:
            more = await self.receive()
            if not more:
                break
            data += more
        if len(data) != size:
            raise EOFError(f"{len(data)} bytes came, not {size}")
        return data


class Connection(ABC):
    """A connection, once its handshake is done."""

    @abstractmethod
    async def open_channel(self) -> Channel:
        """Open a channel; a library without streams has one, and returns that."""

    @abstractmethod
    async def close(self) -> None:
        """Tell the other end that it is over, and wait for no more than the library makes one wait for."""

    async def echo_datagram(self, data: bytes) -> None:
        """Send a datagram beside the channels, and wait until it comes back."""
        raise NotImplementedError

    def describe(self) -> dict[str, float]:
        """Return figures that explain a result."""
        return {}


OnChannel: TypeAlias = Callable[[Channel], Awaitable[None]]
"""Called with each channel that the other end opens; runs until it has ended."""


class Peer(ABC):
    """A library, in the fastest way that it documents."""

    has_streams = False
    """Whether a connection has more channels than one."""
    has_datagrams = False
    """Whether messages that may get lost go beside the channels."""
    in_one_process = False
    """Whether both ends share a process, so that its time is that of both."""

    def __init__(self, options: Options) -> None:
        self.options = options

    @abstractmethod
    async def serve(self, on_channel: OnChannel, announce: Callable[[str], None]) -> None:
        """Announce the address, ending in ``:PORT``, then serve for ever."""

    @abstractmethod
    async def connect(self, address: str) -> Connection:
        """Connect to what :meth:`serve` announced."""


def split_address(address: str) -> tuple[str, int]:
    """Return host and port."""
    host, _, port = address.rpartition(":")
    return host, int(port)
