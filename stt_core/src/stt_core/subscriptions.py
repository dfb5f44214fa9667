"""What happens in a node, told to whoever subscribes: typed events, and listeners that hold nobody up."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

DEFAULT_QUEUE_SIZE: Final = 256


@attrs.frozen
class NodeEvent:
    """Something that happened in a node; the types of events derive from it."""


@attrs.frozen
class SessionOpened(NodeEvent):
    """A session became active."""

    session_id: bytes
    peer_node_id: bytes
    path: str
    is_initiator: bool


@attrs.frozen
class SessionEnded(NodeEvent):
    """A session ended."""

    session_id: bytes
    peer_node_id: bytes
    code: int
    reason: str
    by_peer: bool


@attrs.frozen
class SessionMoved(NodeEvent):
    """A session goes over another path now."""

    session_id: bytes
    path: str


@attrs.frozen
class PeerRefused(NodeEvent):
    """A peer that has the seed was not let in."""

    peer_node_id: bytes
    path: str
    reason: str


@attrs.frozen
class LinkLost(NodeEvent):
    """A transport that was listened on failed for good."""

    url: str
    reason: str


@attrs.frozen
class PluginFailed(NodeEvent):
    """A plugin raised in an observer hook, and is asked no more."""

    name: str
    reason: str


EventT = TypeVar("EventT", bound=NodeEvent)


class Subscription(Generic[EventT]):
    """Events for one listener: iterate over it, and leave its ``async with`` to end it.

    When a listener is so slow that its queue is full, the oldest event is dropped and counted.
    """

    def __init__(
        self, kinds: tuple[type[EventT], ...], queue_size: int, end: Callable[[Subscription[EventT]], None]
    ) -> None:
        self._kinds = kinds
        self._queue: deque[EventT] = deque(maxlen=queue_size)
        self._came = asyncio.Event()
        self._end = end
        self._ended = False
        self.dropped = 0
        """Events that this listener was too slow for."""

    def offer(self, event: NodeEvent) -> None:
        """Take an event if it is of the kinds that are listened to."""
        if not isinstance(event, self._kinds):
            return
        if len(self._queue) == self._queue.maxlen:
            self.dropped += 1
        self._queue.append(event)
        self._came.set()

    def close(self) -> None:
        """End the subscription: iterating yields what is left, and ends."""
        if not self._ended:
            self._ended = True
            self._end(self)
            self._came.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> EventT:
        while not self._queue:
            if self._ended:
                raise StopAsyncIteration
            self._came.clear()
            await self._came.wait()
        return self._queue.popleft()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Subscriptions:
    """The listeners of a node."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription[Any]] = set()

    def subscribe(self, *kinds: type[EventT], queue_size: int = DEFAULT_QUEUE_SIZE) -> Subscription[EventT]:
        """Return a new subscription to events of some types."""
        subscription = Subscription(kinds, queue_size, self._subscriptions.discard)
        self._subscriptions.add(subscription)
        return subscription

    def publish(self, event: NodeEvent) -> None:
        """Tell all listeners; none of them can hold this up."""
        for subscription in self._subscriptions:
            subscription.offer(event)

    def close(self) -> None:
        """End all subscriptions."""
        for subscription in list(self._subscriptions):
            subscription.close()
