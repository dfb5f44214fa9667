"""What a transport implements: it carries whole messages between addresses, and nothing more.

A simple transport gives :meth:`Transport.open`, :meth:`~Transport.send`, :meth:`~Transport.receive` and
:meth:`~Transport.close`. A fast one derives from :class:`BatchTransport` and works on trains of messages
without a task switch. Higher layers never ask which transport it is, only for its capabilities.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from typing import Protocol, TypeAlias

import attrs

Buffer: TypeAlias = bytes | bytearray | memoryview
Address: TypeAlias = Hashable
"""How a transport names a peer: any hashable value with a readable ``str``; opaque to all others."""


@attrs.frozen(kw_only=True)
class TransportCapabilities:
    """What a transport promises, declared on its class and checked by the conformance kit."""

    reliable: bool
    """Nothing that was accepted is lost, duplicated or reordered while the path lives."""

    max_message_size: int
    """Bytes that one message may hold."""

    initial_message_size: int = 0
    """Bytes that any path carries before anything is known of it; 0 means ``max_message_size``."""


@attrs.frozen(kw_only=True)
class TransportStatistics:
    """Counters of one transport since it was opened."""

    messages_sent: int = 0
    messages_received: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    messages_dropped: int = 0
    """Messages that the host refused or that did not fit."""

    send_waits: int = 0
    """Times that a send had to wait because the host's buffer was full."""

    receive_buffer_size: int | None = None
    """Bytes that the host granted for receiving; None where that is unknown."""

    send_buffer_size: int | None = None
    """Bytes that the host granted for sending; None where that is unknown."""


class Transport(ABC):
    """One endpoint of a transport: made from a URL, opened once, closed once.

    Args:
        url: The URL given to ``listen`` or ``connect``; its scheme is one that the factory was registered for.
        listening: Whether to wait for peers at that URL, or to reach the one peer that it names.

    Raises:
        ConfigError: The URL cannot be used.
    """

    capabilities: TransportCapabilities

    def __init__(self, url: str, *, listening: bool) -> None:
        self.url = url
        """After :meth:`open`, when listening: the real URL, with the port that was bound."""
        self.listening = listening
        self.peer: Address | None = None
        """After :meth:`open`, when not listening: the address of the peer that the URL names."""

    @abstractmethod
    async def open(self) -> None:
        """Bind or connect.

        Raises:
            TransportError: The host refused, or the name cannot be resolved.
            PeerUnreachable: The host says that nobody listens there.
        """

    @abstractmethod
    async def send(self, data: Buffer, address: Address) -> None:
        """Send one message; waits while the host takes no more.

        A transport may drop what cannot be delivered now, unless it is reliable.

        Raises:
            PeerUnreachable: The path to that address is gone.
            TransportError: The message is larger than ``max_message_size``, or the transport is closed.
        """

    @abstractmethod
    async def receive(self) -> tuple[Buffer, Address]:
        """Wait for one message; it comes whole, and is the caller's to keep.

        Raises:
            PeerUnreachable: The path to one address is gone; others go on.
            TransportError: The transport is closed or failed for good.
        """

    @abstractmethod
    async def close(self) -> None:
        """Release everything; calling it twice is allowed. A waiting :meth:`receive` raises TransportError."""

    def statistics(self) -> TransportStatistics:
        """Return the counters; a transport that keeps none returns zeros."""
        return TransportStatistics()


@attrs.frozen
class Train:
    """Messages for one address in one buffer: each ``segment_size`` bytes long, the last one at most that."""

    data: Buffer
    segment_size: int

    def segments(self) -> list[Buffer]:
        """Return the messages, as views of ``data``."""
        if len(self.data) <= self.segment_size:
            return [self.data]
        view = memoryview(self.data)
        return [view[start : start + self.segment_size] for start in range(0, len(view), self.segment_size)]


class TransportReceiver(Protocol):
    """What a batch transport calls, always from the event loop and never from within a call to itself."""

    def messages_received(self, messages: Sequence[tuple[Buffer, Address]]) -> None:
        """Take a burst of messages; the buffers are the receiver's to keep."""

    def peer_unreachable(self, address: Address, reason: str) -> None:
        """Learn that the path to an address is gone."""

    def writable(self) -> None:
        """Learn that :meth:`BatchTransport.send_train` takes messages again after it refused some."""

    def failed(self, reason: str) -> None:
        """Learn that the transport is of no more use."""


class BatchTransport(Transport):
    """A transport that sends trains and delivers bursts without a task switch."""

    @abstractmethod
    def start(self, receiver: TransportReceiver) -> None:
        """Deliver to ``receiver`` from now on, in place of :meth:`receive`; called once, after :meth:`open`."""

    @abstractmethod
    def send_train(self, train: Train, address: Address) -> bool:
        """Send the messages of a train, or say that the host takes none of them now.

        Returns:
            True when the train was taken (the transport may still hold a rest of it); False when nothing of it was
            taken: the caller keeps it, and :meth:`TransportReceiver.writable` will be called. Of a reliable transport
            that concerns this address alone, and of any other the whole transport.
        """


TransportFactory: TypeAlias = Callable[..., Transport]
"""Called as ``factory(url, listening=...)``; a :class:`Transport` class is one."""
