"""A transport that keeps every rule, as small as that goes: `toy://name`; the name 0 is any free one."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from typing import TYPE_CHECKING, ClassVar

import attrs
import pytest

from stt_core.errors import ConfigError, PeerUnreachable, TransportError
from stt_core.interfaces.transport import (
    Address,
    BatchTransport,
    Buffer,
    Train,
    TransportCapabilities,
    TransportReceiver,
    TransportStatistics,
)
from stt_core.testing import TransportContract

if TYPE_CHECKING:
    from stt_core.interfaces.transport import TransportFactory

QUEUE_SIZE = 16


@attrs.frozen
class Name:
    text: str

    def __str__(self) -> str:
        return self.text


class ToyTransport(BatchTransport):
    capabilities = TransportCapabilities(reliable=True, max_message_size=100_000)
    everybody: ClassVar[dict[str, ToyTransport]] = {}
    numbers: ClassVar[itertools.count[int]] = itertools.count(1)
    scratch: ClassVar[bytearray] = bytearray(1 << 20)

    def __init__(self, url: str, *, listening: bool) -> None:
        super().__init__(url, listening=listening)
        scheme, _, self.name = url.partition("://")
        if scheme != "toy" or not self.name.isalnum():
            raise ConfigError(f"{url} is not toy://name")
        self.state = "new"
        self.alone = False
        self.inbox: deque[tuple[bytes, Address]] = deque()
        self.receivers: set[asyncio.Future[None]] = set()
        self.senders: set[asyncio.Future[None]] = set()
        self.refused: set[ToyTransport] = set()
        self.receiver: TransportReceiver | None = None
        self.messages_sent = self.bytes_sent = 0

    async def open(self) -> None:
        self.loop = asyncio.get_running_loop()
        if self.listening:
            if self.name == "0":
                self.name = f"listener{next(self.numbers)}"
                self.url = f"toy://{self.name}"
            if self.name in self.everybody:
                raise TransportError(f"{self.url} is in use")
        else:
            if self.find(self.name) is None:
                raise PeerUnreachable(self.name, f"nobody listens at {self.url}")
            self.peer = Name(self.name)
            self.name = f"dialler{next(self.numbers)}"
        self.everybody[self.name] = self
        self.state = "open"

    def find(self, name: str) -> ToyTransport | None:
        found = self.everybody.get(name)
        return found if found is not None and found.state == "open" else None

    def check(self, size: int) -> None:
        if self.state != "open":
            raise TransportError(f"{self.url} is not open")
        if size > self.capabilities.max_message_size:
            raise TransportError(f"{size} bytes are too much")

    async def send(self, data: Buffer, address: Address) -> None:
        self.check(len(data))
        while True:
            peer = self.find(str(address))
            if peer is None:
                raise PeerUnreachable(address, f"{address} is gone")
            if len(peer.inbox) < QUEUE_SIZE:
                break
            await self.wait(peer.senders)
            self.check(len(data))
            if peer.state != "open":
                raise PeerUnreachable(address, f"{address} has gone")
        peer.put(bytes(data), Name(self.name))
        self.messages_sent += 1
        self.bytes_sent += len(data)

    async def receive(self) -> tuple[Buffer, Address]:
        self.check(0)
        while not self.inbox:
            if self.alone:
                raise TransportError("the listener is gone")
            await self.wait(self.receivers)
            self.check(0)
        data, address = self.inbox.popleft()
        self.make_room()
        return data, address

    async def close(self) -> None:
        if self.state != "open":
            return
        self.state = "closed"
        self.receiver = None
        del self.everybody[self.name]
        for other in self.everybody.values():
            self.wake(other.senders)
            if str(other.peer) == self.name:
                other.leave_alone()
            if other.receiver is not None:
                self.loop.call_soon(other.receiver.peer_unreachable, Name(self.name), "closed")
        self.wake(self.receivers)
        self.wake(self.senders)

    def statistics(self) -> TransportStatistics:
        return TransportStatistics(messages_sent=self.messages_sent, bytes_sent=self.bytes_sent)

    # Trains and bursts

    def start(self, receiver: TransportReceiver) -> None:
        self.receiver = receiver
        self.loop.call_soon(self.deliver)

    def send_train(self, train: Train, address: Address) -> bool:
        self.check(0)
        peer = self.find(str(address))
        if peer is None:
            return True
        if len(peer.inbox) >= QUEUE_SIZE:
            peer.refused.add(self)
            return False
        for segment in train.segments():
            peer.put(bytes(segment), Name(self.name))
        return True

    # What a peer calls

    def put(self, data: bytes, address: Address) -> None:
        self.inbox.append((data, address))
        self.wake(self.receivers)
        if self.receiver is not None:
            self.loop.call_soon(self.deliver)

    def leave_alone(self) -> None:
        self.alone = True
        self.wake(self.receivers)

    # The rest

    def deliver(self) -> None:
        if self.receiver is None or not self.inbox:
            return
        burst: list[tuple[Buffer, Address]] = list(self.inbox)
        self.inbox.clear()
        self.receiver.messages_received(burst)
        self.make_room()

    def make_room(self) -> None:
        self.wake(self.senders)
        for sender in self.refused:
            if sender.receiver is not None:
                self.loop.call_soon(sender.receiver.writable)
        self.refused.clear()

    async def wait(self, waiters: set[asyncio.Future[None]]) -> None:
        waiter = self.loop.create_future()
        waiters.add(waiter)
        try:
            await waiter
        finally:
            waiters.discard(waiter)

    def wake(self, waiters: set[asyncio.Future[None]]) -> None:
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class TestToyTransport(TransportContract):
    patience = 0.5  # many a broken one waits until it ends

    @pytest.fixture
    def factory(self) -> TransportFactory:
        return ToyTransport

    @pytest.fixture
    def url(self) -> str:
        return "toy://0"

    @pytest.fixture
    def unusable_url(self) -> str:
        return "toy://not usable"
