"""Transports that are open for one scenario: a listener, those that dialled it, and the ways between them."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, Self

import attrs

from stt_core.errors import PeerUnreachable, TransportError
from stt_core.interfaces.transport import BatchTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from stt_core.interfaces.transport import Address, Buffer, Train, Transport, TransportFactory

BULK: Final = 64 * 1024
"""Bytes of a message of those that fill a transport."""

TOO_MUCH: Final = 64 * 1024 * 1024
"""Bytes that no transport takes for a peer that takes none."""

LAST: Final = b"the last message"

CALM: Final = 200
"""The part of a kit's patience after which nothing more is expected to happen."""

_LOST_AFTER: Final = 0.25  # seconds
_REPEAT_INTERVAL: Final = 0.1  # seconds after which a message that may get lost is sent again


def message(number: int, size: int) -> bytes:
    """Return bytes that no other message has anywhere: random ones from a number."""
    return random.Random(number).randbytes(size)


@attrs.frozen
class Way:
    """From one transport to another."""

    sender: Transport
    address: Address
    """The receiver, as the sender names it."""
    receiver: Transport

    @property
    def reliable(self) -> bool:
        """Whether nothing may get lost on it."""
        return self.sender.capabilities.reliable

    @property
    def bulk_size(self) -> int:
        """Bytes of a large message that is not the largest."""
        capabilities = self.sender.capabilities
        size = capabilities.max_message_size if self.reliable else capabilities.initial_message_size
        return min(size or capabilities.max_message_size, BULK)

    async def send(self, data: Buffer) -> None:
        """Send a message."""
        await self.sender.send(data, self.address)

    async def receive(self) -> bytes:
        """Wait for a message and copy it."""
        data, _ = await self.receiver.receive()
        return bytes(data)

    async def next(self) -> tuple[Buffer, Address] | None:
        """Wait for a message, for a second where it may have got lost."""
        receiving = asyncio.ensure_future(self.receiver.receive())
        await asyncio.wait({receiving}, timeout=None if self.reliable else _LOST_AFTER)
        if receiving.done():
            return receiving.result()
        receiving.cancel()
        return None

    async def carry(self, data: Buffer) -> None:
        """Send a message until it comes, once where nothing may get lost; what else comes must have been sent."""
        receiving = asyncio.ensure_future(self.receive())
        try:
            await self.send(data)
            while True:
                timeout = None if self.reliable else _REPEAT_INTERVAL
                if not (await asyncio.wait({receiving}, timeout=timeout))[0]:
                    await self.send(data)
                elif (came := await receiving) == bytes(data):
                    return
                else:
                    assert not self.reliable, f"{shown(data)} was sent, and {shown(came)} came"
                    receiving = asyncio.ensure_future(self.receive())
        finally:
            give_up(receiving)

    async def carry_all(self, messages: Iterable[bytes], senders: int = 1) -> list[bytes]:
        """Send messages while they are received; return what came, which is all where nothing may get lost.

        Args:
            messages: What to send, none of it ``LAST``.
            senders: How many tasks send at a time.
        """
        waiting = iter(messages)
        receiving = asyncio.ensure_future(self._receive_until_last())

        async def send() -> None:
            for data in waiting:
                await self.send(data)

        try:
            await asyncio.gather(*(send() for _ in range(senders)))
            while not receiving.done():
                await self.send(LAST)
                await asyncio.wait({receiving}, timeout=None if self.reliable else _REPEAT_INTERVAL)
            return await receiving
        finally:
            give_up(receiving)

    async def _receive_until_last(self) -> list[bytes]:
        came: list[bytes] = []
        while (data := await self.receive()) != LAST:
            came.append(data)
        return came

    async def fill(self, still: float) -> Stalled | None:
        """Send until the sender has to wait, because nobody receives.

        Args:
            still: Seconds without progress after which a send is taken to wait.

        Returns:
            The messages that were taken, and the send that waits; None where far too much was taken.
        """
        taken: list[bytes] = []
        size = self.bulk_size
        filler = message(0, size)[4:]
        while len(taken) * size < TOO_MUCH:
            data = len(taken).to_bytes(4, "big") + filler  # told apart by their numbers: there may be a thousand
            sending = asyncio.ensure_future(self.send(data))
            if not (await asyncio.wait({sending}, timeout=still))[0]:
                return Stalled(self, taken, data, sending)
            await sending
            taken.append(data)
        return None


@attrs.frozen
class Stalled:
    """A way that takes no more."""

    way: Way
    taken: list[bytes]
    """The messages that were taken, in order."""
    data: bytes
    """The message that waits."""
    sending: asyncio.Future[None]
    """Its send."""


@attrs.frozen
class Pair:
    """A listener and one that dialled it."""

    there: Way
    """From the one that dialled to the listener."""
    back: Way
    """From the listener to the one that dialled."""


class Place:
    """Opens transports at one URL, and closes those that are open when its context ends.

    Args:
        factory: Makes them.
        url: Where to listen.
    """

    def __init__(self, factory: TransportFactory, url: str) -> None:
        self.factory = factory
        self.url = url
        self._open: list[Transport] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *reason: object) -> None:
        while self._open:
            await self.close(self._open[-1])

    async def listen(self, url: str | None = None) -> Transport:
        """Open a listener."""
        return await self._opened(self.factory(url or self.url, listening=True))

    async def dial(self, url: str) -> Transport:
        """Open a transport to a listener."""
        return await self._opened(self.factory(url, listening=False))

    async def close(self, transport: Transport) -> None:
        """Close a transport now, and not again."""
        self._open.remove(transport)
        await transport.close()

    async def meet(self, listener: Transport, number: int = 0) -> Pair:
        """Dial a listener and let it learn by which address it is to answer."""
        dialler = await self.dial(listener.url)
        assert dialler.peer is not None, "after open, `peer` is the address of the peer that was dialled"
        there = Way(dialler, dialler.peer, listener)
        greeting = b"greeting %d" % number
        greeted = asyncio.ensure_future(_until(greeting, listener))
        try:
            await there.send(greeting)
            while not (await asyncio.wait({greeted}, timeout=None if there.reliable else _REPEAT_INTERVAL))[0]:
                await there.send(greeting)
            return Pair(there, Way(listener, await greeted, dialler))
        finally:
            give_up(greeted)

    @asynccontextmanager
    async def pair(self) -> AsyncIterator[Pair]:
        """Give a listener and one that dialled it, in a context that closes both."""
        async with self:
            yield await self.meet(await self.listen())

    async def _opened(self, transport: Transport) -> Transport:
        self._open.append(transport)
        await transport.open()
        return transport


async def _until(data: bytes, receiver: Transport) -> Address:
    while True:
        with suppress(PeerUnreachable):  # of somebody who only knocked
            came, address = await receiver.receive()
            if bytes(came) == data:
                return address


def give_up(waiting: asyncio.Future[Any]) -> None:
    """Cancel something, whatever it raises."""
    waiting.cancel()
    waiting.add_done_callback(lambda done: done.cancelled() or done.exception())


def shown(data: Buffer) -> str:
    """Return a message as a failure shows it."""
    return f"{bytes(data[:16])!r}{'...' if len(data) > 16 else ''} ({len(data)} bytes)"


async def end_of(transport: Transport) -> TransportError:
    """Receive until the transport raises for good."""
    while True:
        try:
            await transport.receive()
        except PeerUnreachable:
            await asyncio.sleep(0)
        except TransportError as error:
            return error


class Recorder:
    """What a batch transport calls: keeps what it is told, and whether it was told from within a call.

    Args:
        transport: What calls it.
    """

    def __init__(self, transport: Transport) -> None:
        assert isinstance(transport, BatchTransport)
        self.transport = transport
        self.bursts: list[Sequence[tuple[Buffer, Address]]] = []
        self.messages: list[tuple[bytes, Address]] = []
        self.unreachable: list[Address] = []
        self.failures: list[str] = []
        self.times_writable = 0
        self.told_within: list[str] = []
        """The methods by which it was told something before a call of its own had returned."""
        self.on_message: Callable[[bytes, Address], object] = lambda _data, _address: None
        self._calling = False

    def start(self) -> None:
        """Start the transport with this receiver."""
        self._call(self.transport.start, self)

    def send(self, train: Train, address: Address) -> bool:
        """Send a train."""
        return bool(self._call(self.transport.send_train, train, address))

    async def send_all(self, train: Train, address: Address) -> None:
        """Send a train, again whenever the transport says that it takes some."""
        while True:
            told = self.times_writable
            if self.send(train, address):
                return
            while self.times_writable == told:  # noqa: ASYNC110  it counts, and is no event
                await asyncio.sleep(0)

    @property
    def data(self) -> list[bytes]:
        """The messages that came, in order."""
        return [data for data, _ in self.messages]

    @property
    def told(self) -> int:
        """How often it was told something."""
        return len(self.bursts) + len(self.unreachable) + len(self.failures) + self.times_writable

    # What the transport calls

    def messages_received(self, messages: Sequence[tuple[Buffer, Address]]) -> None:
        """Take a burst."""
        self._told("messages_received")
        self.bursts.append(messages)
        copies = [(bytes(data), address) for data, address in messages]
        self.messages += copies
        for data, address in copies:
            self.on_message(data, address)

    def peer_unreachable(self, address: Address, reason: str) -> None:  # noqa: ARG002  the text is for people
        """Learn that an address is gone."""
        self._told("peer_unreachable")
        self.unreachable.append(address)

    def writable(self) -> None:
        """Learn that trains are taken again."""
        self._told("writable")
        self.times_writable += 1

    def failed(self, reason: str) -> None:
        """Learn that the transport is of no more use."""
        self._told("failed")
        self.failures.append(reason)

    def _told(self, method: str) -> None:
        if self._calling:
            self.told_within.append(method)

    def _call(self, method: Callable[..., Any], *arguments: Any) -> Any:
        # A receiver may send while it is told something: that call ends within the other.
        before, self._calling = self._calling, True
        try:
            return method(*arguments)
        finally:
            self._calling = before
