"""One open transport of a node: hands its messages in, and takes trains while the host takes them."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from stt_core.engine.paths import Link, PathKey
from stt_core.errors import PeerUnreachable, STTError, TransportError
from stt_core.foreign import ends_the_task
from stt_core.interfaces.transport import BatchTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from stt_core.interfaces.transport import Address, Buffer, Train, Transport, TransportFactory

_LOG = logging.getLogger("stt.node")

_QUEUE_SIZE: Final = 32  # trains in front of a transport without batches
_LEAVE_TIMEOUT: Final = 1.0  # seconds in which what is queued may still leave
_RELEASE_TIMEOUT: Final = 10.0  # seconds for a transport to close; longer than the 5 s of a WebSocket that waits
_TURN: Final = 64  # messages taken before others have their turn: a transport may never have to wait for the next


class LinkOwner(Protocol):
    """What a link tells its node."""

    def messages_received(self, link: Link, messages: Sequence[tuple[Buffer, Address]]) -> None:
        """Take a burst of messages."""

    def peer_unreachable(self, link: Link, address: Address, reason: str) -> None:
        """Learn that nobody listens at an address."""

    def link_blocked(self, link: OpenLink) -> None:
        """Learn that trains have to wait, as :attr:`OpenLink.blocked` says, until :meth:`link_writable`."""

    def link_writable(self, link: Link) -> None:
        """Learn that trains are taken again."""

    def link_lost(self, link: Link, reason: str) -> None:
        """Learn that the transport is of no more use; the owner closes the link."""


async def open_link(factory: TransportFactory, url: str, owner: LinkOwner, *, listening: bool) -> OpenLink:
    """Open a transport; when that fails or is cancelled, nothing of it stays.

    Raises:
        ConfigError: The URL cannot be used.
        PeerUnreachable: The host says that nobody listens there.
        TransportError: The host refused, or the transport failed in any other way.
    """
    transport: Transport | None = None
    try:
        transport = factory(url, listening=listening)
        await transport.open()
        if not listening and transport.peer is None:
            raise TypeError("it has no address of the peer")  # noqa: TRY301  it fails as any other way to break a promise
        return OpenLink(transport, owner)
    except BaseException as error:
        if transport is not None:
            await _release(transport, _public(url))
        if isinstance(error, STTError) or ends_the_task(error):
            raise
        # Somebody else's code: callers count on the errors that the interface promises.
        raise TransportError(f"{_public(url)}: the transport failed to open: {_describe(error)}") from error


class OpenLink:
    """A transport that was opened, whichever interface it has.

    Args:
        transport: It is open; this object closes it.
        owner: The node.
    """

    def __init__(self, transport: Transport, owner: LinkOwner) -> None:
        self.transport = transport
        self.link = Link(transport.url, transport.capabilities)
        self._name = _public(transport.url)
        self._owner = owner
        self._queues: dict[Address | None, deque[tuple[Train, Address]]] = {}
        self.blocked: set[Link | PathKey] = set()
        """What trains have to wait for: paths, or the whole link."""
        self._left = asyncio.Event()
        self._left.set()
        self._closed = False
        self._closing: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._batch = transport if isinstance(transport, BatchTransport) else None
        if self._batch is not None:
            self._batch.start(self)
        else:
            self._start(self._receive)

    def send(self, train: Train, address: Address) -> None:
        """Send a train, or keep it until the transport takes it; see :attr:`blocked` before making more."""
        if self._closed:
            return
        # A reliable transport has a connection for each peer, and one that does not read holds no other up.
        key = address if self.link.capabilities.reliable else None
        queue = self._queues.get(key)
        if queue is None:
            if self._batch is not None and self._hand_over(self._batch, train, address):
                return
            queue = self._queues[key] = deque()
            self._left.clear()
            if self._batch is None:
                self._start(partial(self._send, key, queue))
        queue.append((train, address))
        if self._batch is not None or len(queue) >= _QUEUE_SIZE:
            self.blocked.add(self._blocked_by(key))
            self._owner.link_blocked(self)

    def close(self) -> asyncio.Task[None]:
        """Begin to close the transport, once what is queued has left, or after a second; return the task that does."""
        if self._closing is None:
            self._closing = self._loop.create_task(self._close())
        return self._closing

    @property
    def is_closing(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closing is not None

    # What a batch transport calls

    def messages_received(self, messages: Sequence[tuple[Buffer, Address]]) -> None:
        """Take a burst of messages."""
        if not self._closed:
            self._owner.messages_received(self.link, messages)

    def peer_unreachable(self, address: Address, reason: str) -> None:
        """Learn that nobody listens at an address."""
        if not self._closed:
            self._owner.peer_unreachable(self.link, address, reason)

    def writable(self) -> None:
        """Send what waits; learn from the transport when it takes more."""
        assert self._batch is not None
        blocked = len(self.blocked)
        for key, queue in list(self._queues.items()):
            while queue and self._hand_over(self._batch, *queue[0]):
                queue.popleft()
            if not queue:
                self._forget(key)
        if len(self.blocked) < blocked and not self._closed:
            self._owner.link_writable(self.link)
        self._note_left()

    def failed(self, reason: str) -> None:
        """Learn that the transport is of no more use."""
        self._queues.clear()
        self.blocked.clear()
        self._left.set()
        if not self._closed:
            self._closed = True
            self._owner.link_lost(self.link, reason)

    # What stands in for batches

    async def _run(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """Run a task of the link; whatever the transport raises, this link is lost and not the node."""
        try:
            await work()
        except BaseException as error:
            if ends_the_task(error):
                raise
            self._fail(error)

    async def _receive(self) -> None:
        taken = 0
        while True:
            try:
                data, address = await self.transport.receive()
            except PeerUnreachable as error:
                self._owner.peer_unreachable(self.link, error.address, str(error))
            else:
                if not isinstance(data, (bytes, bytearray, memoryview)):
                    raise TypeError(f"receive() returned {type(data).__name__} where a message should be")
                self._owner.messages_received(self.link, ((data, address),))
            taken += 1
            if taken % _TURN == 0:
                await asyncio.sleep(0)

    async def _send(self, key: Address | None, queue: deque[tuple[Train, Address]]) -> None:
        while queue:
            train, address = queue.popleft()
            if len(queue) == _QUEUE_SIZE - 1:
                self.blocked.discard(self._blocked_by(key))
                self._owner.link_writable(self.link)
            await self._send_train(train, address)
        self._forget(key)
        self._note_left()

    async def _send_train(self, train: Train, address: Address) -> None:
        for segment in train.segments():
            try:
                await self.transport.send(segment, address)
            except PeerUnreachable as error:
                self._owner.peer_unreachable(self.link, address, str(error))
                return
            except TransportError as error:
                if self.link.capabilities.reliable:
                    # The peer could make nothing of what follows behind a gap: the path is over.
                    self._owner.peer_unreachable(self.link, address, str(error))
                    return
                _LOG.debug("%s: a message was not sent: %s", self._name, error)

    # Internals

    def _start(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        task = self._loop.create_task(self._run(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _blocked_by(self, key: Address | None) -> Link | PathKey:
        return PathKey(self.link, key) if self.link.capabilities.reliable else self.link

    def _forget(self, key: Address | None) -> None:
        self._queues.pop(key, None)
        self.blocked.discard(self._blocked_by(key))

    def _note_left(self) -> None:
        if not self._queues:
            self._left.set()

    def _hand_over(self, transport: BatchTransport, train: Train, address: Address) -> bool:
        try:
            return transport.send_train(train, address)
        except Exception as error:  # noqa: BLE001  somebody else's code: this link is lost and not the node
            self._fail(error)
            return True

    def _fail(self, error: BaseException) -> None:
        if isinstance(error, TransportError):
            self.failed(str(error))
            return
        _LOG.error("%s: the transport failed", self._name, exc_info=error)
        self.failed(_describe(error))

    async def _close(self) -> None:
        try:
            if not self._left.is_set():
                async with asyncio.timeout(_LEAVE_TIMEOUT):
                    # Again and again: what the owner held back while the link was blocked, such as the end of a
                    # session, comes once it is not.
                    while not self._left.is_set():
                        await self._left.wait()
        except TimeoutError:
            _LOG.debug("%s: closed with messages that had not left", self._name)
        finally:
            self._closed = True
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=_RELEASE_TIMEOUT)
            self._queues.clear()
            self.blocked.clear()
            await _release(self.transport, self._name)


async def _release(transport: Transport, name: str) -> None:
    try:
        async with asyncio.timeout(_RELEASE_TIMEOUT):
            await transport.close()
    except BaseException as error:
        if ends_the_task(error):
            raise
        _LOG.error("%s: the transport failed to close", name, exc_info=error)


def _public(url: str) -> str:
    """Return a URL without what may be a secret: a user, a password, a query."""
    scheme, separator, rest = url.partition("://")
    return scheme + separator + rest.partition("?")[0].rpartition("@")[2]


def _describe(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
