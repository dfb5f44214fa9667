"""A network between two engines, without sockets, on a clock that only the test moves.

Minutes of protocol time take milliseconds: the clock jumps from one event to the next. A test makes two ends, joins
them, and says how bad the network is::

    alice, bob = session_pair()
    link = Link(alice, bob, latency=0.05, loss=0.01, drop=every(3))
    alice.open_stream("video")
    link.run(until=60.0)

Rules: an end's outputs are taken after every input, in the order that its class names; datagrams that arrive at one
moment arrive as one burst; the same seed gives the same run.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from random import Random
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs

from stt_core import events
from stt_core.engine import paths
from stt_core.engine.demux import Demux, DemuxEvent
from stt_core.engine.session import Session
from stt_core.errors import FrameError
from stt_core.interfaces.transport import TransportCapabilities
from stt_core.wire.frame import split_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stt_core.interfaces.transport import Address, Buffer, Train

End: TypeAlias = Session | Demux
"""What a link joins two of."""

Event: TypeAlias = events.Event | DemuxEvent
"""What an end tells."""

DATAGRAMS: Final = TransportCapabilities(reliable=False, max_message_size=65_507, initial_message_size=1200)
"""What UDP promises."""

MESSAGES: Final = TransportCapabilities(reliable=True, max_message_size=16 * 1024 * 1024)
"""What WebSocket promises, about."""

ADDRESSES: Final[tuple[Address, Address]] = (("10.0.0.1", 40_001), ("10.0.0.2", 40_002))
"""Where the first and the second end are, unless a test says otherwise."""

_MAX_ROUNDS: Final = 10_000
_SPIN_TIME: Final = 0.001  # seconds that so many rounds have to take


def every(count: int) -> Callable[[bytes], bool]:
    """Return a rule that drops each datagram whose turn it is: ``every(3)`` drops the third, the sixth, and so on."""
    seen = 0

    def drop(_: bytes) -> bool:
        nonlocal seen
        seen += 1
        return seen % count == 0

    return drop


def deliver(session: Session, *datagrams: Buffer, now: float, path: paths.PathKey | None = None) -> None:
    """Hand datagrams of one path, by default the one in use, to a session as one burst; it takes what is its own."""
    frames = []
    for datagram in datagrams:
        with suppress(FrameError):
            frames += [frame for frame in split_frames(datagram) if frame.session_id == session.session_id]
    if frames:
        session.receive_frames(frames, path or session.path, sum(map(len, datagrams)), now)


@attrs.frozen
class Crossing:
    """A datagram that an end sent, and what became of it."""

    sent_at: float
    """Seconds."""
    arrives_at: float | None
    """Seconds; None when it was lost."""
    source: Address
    """Where the receiver sees it come from."""
    destination: Address
    """Where the sender sent it to."""
    data: bytes = attrs.field(repr=False)


@attrs.define(eq=False, kw_only=True)
class Direction:
    """What happens to datagrams one way; every field may be changed while the link runs.

    Shares are probabilities from 0 to 1.
    """

    latency: float = 0.0
    """Seconds that each datagram takes."""
    rate: float | None = None
    """Bytes a second that pass; None for any number."""
    queue_size: int = 128 * 1024
    """Bytes that wait in front of the bottleneck that ``rate`` makes; what finds it full is lost."""
    mtu: int = 65_507
    """Bytes of the largest datagram; larger ones vanish without a word."""
    loss: float = 0.0
    """Share that is lost."""
    drop: Callable[[bytes], bool] | None = None
    """Called with each datagram; those for which it returns True are lost."""
    duplication: float = 0.0
    """Share that arrives twice."""
    reordering: float = 0.0
    """Share that is held back by up to another latency, or a millisecond."""
    corruption: float = 0.0
    """Share of which one bit arrives changed."""
    outages: list[tuple[float, float]] = attrs.field(factory=list)
    """Times, from and to, in seconds of the link's clock, in which all that is sent is lost."""
    source: Address
    """Where the receiver sees datagrams come from; see :meth:`Link.move`."""

    sent: int = attrs.field(default=0, init=False)
    """Datagrams that were sent."""
    lost: int = attrs.field(default=0, init=False)
    """Datagrams of these that did not arrive."""
    crossed: list[Crossing] = attrs.field(factory=list, init=False)
    """Every datagram, if the link records."""

    _random: Random = attrs.field(alias="random")
    _busy_until: float = attrs.field(default=0.0, init=False)

    def fates(self, data: bytes, now: float) -> list[tuple[float, bytes]]:
        """Return when a datagram that is sent now arrives, and as what: nothing, once, or twice."""
        self.sent += 1
        leaves_at = self._leave(data, now)
        if leaves_at is None:
            self.lost += 1
            return []
        chance = self._random.random
        copies = 2 if self.duplication and chance() < self.duplication else 1
        return [(leaves_at + self._delay(), self._corrupt(data)) for _ in range(copies)]

    def _leave(self, data: bytes, now: float) -> float | None:
        if len(data) > self.mtu or any(start <= now < stop for start, stop in self.outages):
            return None
        if self.drop is not None and self.drop(data):
            return None
        if self.loss and self._random.random() < self.loss:
            return None
        if self.rate is None:
            return now
        start = max(now, self._busy_until)
        if (start - now) * self.rate > self.queue_size:
            return None
        self._busy_until = start + len(data) / self.rate
        return self._busy_until

    def _delay(self) -> float:
        delay = self.latency
        if self.reordering and self._random.random() < self.reordering:
            delay += self._random.random() * max(self.latency, 0.001)
        return delay

    def _corrupt(self, data: bytes) -> bytes:
        if not self.corruption or self._random.random() >= self.corruption:
            return data
        changed = bytearray(data)
        changed[self._random.randrange(len(data))] ^= 1 << self._random.randrange(8)
        return bytes(changed)


class Link:
    """Joins two sessions, or the sessions of two nodes.

    Commands to an end may be given between calls of :meth:`run` and :meth:`wait_for`, and in ``on_event``. The two
    directions begin alike and are then each its own: :attr:`forth` and :attr:`back`.

    Args:
        first: An end.
        second: The other one, of the same kind.
        on_event: Called with the end and each of its events, as an application would be.
        seed: What all chance comes from.
        now: What the clock shows at first, in seconds.
        record: Whether to keep every datagram in :attr:`Direction.crossed`.
        capabilities: What the transports of two demuxes promise; sessions bring their own.
        latency: See :class:`Direction`, as for all that follow.
        rate: As above.
        queue_size: As above.
        mtu: As above.
        loss: As above.
        drop: As above; both directions ask the same rule.
        duplication: As above.
        reordering: As above.
        corruption: As above.
    """

    def __init__(  # noqa: PLR0913  a network is bad in many ways, by name
        self,
        first: End,
        second: End,
        *,
        on_event: Callable[[End, Event], None] | None = None,
        seed: int = 0,
        now: float = 0.0,
        record: bool = False,
        capabilities: TransportCapabilities = DATAGRAMS,
        latency: float = 0.0,
        rate: float | None = None,
        queue_size: int = 128 * 1024,
        mtu: int = 65_507,
        loss: float = 0.0,
        drop: Callable[[bytes], bool] | None = None,
        duplication: float = 0.0,
        reordering: float = 0.0,
        corruption: float = 0.0,
    ) -> None:
        self.now = now
        """Seconds; moved by :meth:`run` and :meth:`wait_for` alone."""
        self.on_event = on_event
        self._record = record
        ends = (_attach(first, 1, capabilities), _attach(second, 0, capabilities))
        directions = [
            Direction(
                latency=latency,
                rate=rate,
                queue_size=queue_size,
                mtu=mtu,
                loss=loss,
                drop=drop,
                duplication=duplication,
                reordering=reordering,
                corruption=corruption,
                source=receiver.home.address,
                random=Random(f"{seed} {name}"),
            )
            for name, receiver in (("forth", ends[1]), ("back", ends[0]))
        ]
        self.forth, self.back = directions
        ends[0].output, ends[1].output = self.forth, self.back
        ends[0].input, ends[1].input = self.back, self.forth
        for end in ends:
            end.reached_at.add(end.output.source)
        self._ends = ends
        self._under_way: list[tuple[float, int, _Attached, bytes, Address]] = []
        self._count = 0
        self._rounds = 0
        self._rounds_since = now

    # Commands

    def run(self, until: float) -> None:
        """Let everything happen that happens up to a time; the clock then shows it.

        Raises:
            AssertionError: The ends do ever more without any time passing.
        """
        while self._step(until):
            pass
        self.now = max(self.now, until)

    def wait_for(self, condition: Callable[[], object], *, within: float = 60.0) -> None:
        """Let things happen until a condition holds, which is asked after each of them.

        Args:
            condition: Asked for a true value.
            within: Seconds from now.

        Raises:
            AssertionError: It does not hold in time, or the ends do ever more without any time passing.
        """
        deadline = self.now + within
        self._flush()
        while not condition():
            if not self._step(deadline):
                raise AssertionError(f"not within {within:g} s: the clock shows {self.now:.6f}, {self!r}")

    def move(self, end: End, address: Address, *, keep: bool = False) -> None:
        """Let an end's datagrams come from another address from now on: a rebinding, or another network.

        Args:
            end: Which one.
            address: Where it is seen from now on.
            keep: Whether what is sent to the addresses before still reaches it.
        """
        attached = self._attached(end)
        if not keep:
            attached.reached_at.clear()
        attached.reached_at.add(address)
        attached.output.source = address

    def inject(self, data: bytes, to: End, *, source: Address | None = None, delay: float = 0.0) -> None:
        """Let a datagram arrive that the other end did not send.

        Args:
            data: Its bytes.
            to: Where it arrives.
            source: Where it seems to come from; the other end's address by default.
            delay: Seconds from now.
        """
        attached = self._attached(to)
        self._deliver_at(self.now + delay, attached, data, attached.input.source if source is None else source)

    # Queries

    def events(self, end: End) -> list[Event]:
        """Return all that an end has told so far."""
        return self._attached(end).events

    def path(self, end: End) -> paths.PathKey:
        """Return the path by which an end reaches the other one, for :meth:`Demux.connect`."""
        return self._attached(end).home

    def __repr__(self) -> str:
        timers = ", ".join(str(end.next_timeout()) for end in self._ends)
        return f"<Link at {self.now:.6f}, {len(self._under_way)} datagrams under way, next time-outs {timers}>"

    # Internals

    def _attached(self, end: End) -> _Attached:
        return self._ends[0] if end is self._ends[0].end else self._ends[1]

    def _step(self, until: float) -> bool:
        """Go to the next event and let it happen; return whether there was one in time."""
        self._flush()
        times = [at for end in self._ends if (at := end.next_timeout()) is not None]
        if self._under_way:
            times.append(self._under_way[0][0])
        at = max(min(times, default=until + 1), self.now)
        if at > until:
            return False
        self._guard(at)
        self.now = at
        arrived: dict[_Attached, list[tuple[Buffer, Address]]] = {}
        while self._under_way and self._under_way[0][0] <= at:
            _, _, end, data, source = heapq.heappop(self._under_way)
            arrived.setdefault(end, []).append((data, source))
        for end, messages in arrived.items():
            end.receive(messages, at)
        for end in self._ends:
            timeout = end.next_timeout()
            if timeout is not None and timeout <= at:
                end.handle_timeout(at)
        self._flush()
        return True

    def _guard(self, at: float) -> None:
        if at >= self._rounds_since + _SPIN_TIME:
            self._rounds = 0
            self._rounds_since = at
        self._rounds += 1
        if self._rounds > _MAX_ROUNDS:
            raise AssertionError(f"{_MAX_ROUNDS} rounds took less than {_SPIN_TIME:g} s: somebody spins in {self!r}")

    def _flush(self) -> None:
        busy = True
        while busy:
            busy = False
            for end in self._ends:
                trains, happened = end.drain(self.now)
                for key, train in trains:
                    self._send(end, key, train)
                end.events += happened
                if happened and self.on_event is not None:
                    busy = True  # the application may have given commands
                    for event in happened:
                        self.on_event(end.end, event)

    def _send(self, sender: _Attached, key: paths.PathKey, train: Train) -> None:
        direction = sender.output
        receiver = self._ends[1] if sender is self._ends[0] else self._ends[0]
        for segment in train.segments():
            data = bytes(segment)
            fates = direction.fates(data, self.now)
            if fates and key.address not in receiver.reached_at:
                direction.lost += 1
                fates = []
            for at, arriving in fates:
                self._deliver_at(at, receiver, arriving, direction.source)
            if self._record:
                arrives_at = fates[0][0] if fates else None
                direction.crossed.append(Crossing(self.now, arrives_at, direction.source, key.address, data))

    def _deliver_at(self, at: float, end: _Attached, data: bytes, source: Address) -> None:
        self._count += 1
        heapq.heappush(self._under_way, (at, self._count, end, data, source))


class _Attached(ABC):
    """One end as the link sees it."""

    output: Direction
    input: Direction

    def __init__(self, home: paths.PathKey) -> None:
        self.home = home
        """The other end's place at the beginning."""
        self.events: list[Event] = []
        self.reached_at: set[Address] = set()

    @property
    @abstractmethod
    def end(self) -> End:
        """The session or demux."""

    @abstractmethod
    def receive(self, messages: list[tuple[Buffer, Address]], now: float) -> None:
        """Take messages that arrived at one moment."""

    def handle_timeout(self, now: float) -> None:
        self.end.handle_timeout(now)

    def next_timeout(self) -> float | None:
        return self.end.next_timeout()

    @abstractmethod
    def drain(self, now: float) -> tuple[list[tuple[paths.PathKey, Train]], Sequence[Event]]:
        """Return what is to be sent, and what happened."""


class _AttachedSession(_Attached):
    def __init__(self, session: Session) -> None:
        super().__init__(session.path)
        self._session = session

    @property
    def end(self) -> Session:
        return self._session

    def receive(self, messages: list[tuple[Buffer, Address]], now: float) -> None:
        for source, group in groupby(messages, key=itemgetter(1)):
            datagrams = [data for data, _ in group]
            deliver(self._session, *datagrams, now=now, path=paths.PathKey(self.home.link, source))

    def drain(self, now: float) -> tuple[list[tuple[paths.PathKey, Train]], Sequence[Event]]:
        return self._session.trains_to_send(now), self._session.events()


class _AttachedDemux(_Attached):
    def __init__(self, demux: Demux, home: paths.PathKey) -> None:
        super().__init__(home)
        self._demux = demux

    @property
    def end(self) -> Demux:
        return self._demux

    def receive(self, messages: list[tuple[Buffer, Address]], now: float) -> None:
        self._demux.receive_messages(messages, self.home.link, now)

    def drain(self, now: float) -> tuple[list[tuple[paths.PathKey, Train]], Sequence[Event]]:
        return self._demux.drain((), now)


def _attach(end: End, peer: int, capabilities: TransportCapabilities) -> _Attached:
    if isinstance(end, Session):
        return _AttachedSession(end)
    return _AttachedDemux(end, paths.PathKey(paths.Link("sim://", capabilities), ADDRESSES[peer]))
