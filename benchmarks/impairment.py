"""A bad network on this machine: a UDP relay in a process of its own, with a rate, delay, loss and more.

    python -m benchmarks.impairment 127.0.0.1:4433 --rate 200 --delay 25 --loss 1

It prints the port to send to. What becomes of the n-th datagram of a direction depends on the seed, n, and the time at
which it came, so two runs with one seed lose the same datagrams.
"""

from __future__ import annotations

import argparse
import heapq
import random
import select
import socket
import time
from dataclasses import dataclass
from typing import Final

IP_HEADERS: Final = 28
_BURST: Final = 32  # datagrams that are read in one go before the due ones are sent
_BUFFER_SIZE: Final = 8 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What a link does, the same in both directions."""

    rate: float = 25e6
    """Bytes a second, headers of IP and UDP counted."""
    delay: float = 0.025
    """Seconds, one way."""
    queue: float = 1.25e6
    """Bytes that wait for the link; what comes then is dropped."""
    mtu: int = 1500
    """Bytes of a packet with its headers; larger ones are dropped."""
    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0
    reordering_delay: float = 0.004
    """Seconds by which a reordered datagram comes later than it would have."""
    rebindings: tuple[int, ...] = ()
    """Numbers of the datagrams from the first sender before which it gets another port, as behind a NAT that forgot."""
    seed: int = 1


@dataclass
class Counters:
    carried: int = 0
    lost: int = 0
    overflowed: int = 0
    too_large: int = 0
    duplicated: int = 0
    reordered: int = 0
    rebound: int = 0


class Direction:
    """One direction of a link: says when a datagram arrives, if it does. Reads no clock and does no I/O."""

    def __init__(self, conditions: Conditions, name: str) -> None:
        self._conditions = conditions
        self._random = random.Random(f"{conditions.seed} {name}")
        self._free_at = 0.0
        self.counters = Counters()

    def arrivals(self, size: int, now: float) -> list[float]:
        """Return the times at which a datagram that comes now reaches the other end: none, one or two."""
        conditions, counters = self._conditions, self.counters
        # Always three draws, so that the fate of one datagram does not change that of those behind it.
        lost, duplicated, reordered = (self._random.random() for _ in range(3))
        size += IP_HEADERS
        if size > conditions.mtu:
            counters.too_large += 1
            return []
        begins_at = max(now, self._free_at)
        if (begins_at - now) * conditions.rate > conditions.queue:
            counters.overflowed += 1
            return []
        self._free_at = begins_at + size / conditions.rate
        if lost < conditions.loss:
            counters.lost += 1
            return []
        counters.carried += 1
        arrives_at = self._free_at + conditions.delay
        if reordered < conditions.reordering:
            counters.reordered += 1
            arrives_at += conditions.reordering_delay
        if duplicated < conditions.duplication:
            counters.duplicated += 1
            return [arrives_at, arrives_at]
        return [arrives_at]


class Relay:
    """The relay between one sender, the first to send to :attr:`port`, and a target."""

    def __init__(self, target: tuple[str, int], conditions: Conditions) -> None:
        self._target = target
        self._conditions = conditions
        self._near = _open_socket()
        self._far = _open_socket()
        self._forgotten: list[socket.socket] = []
        self._sender: tuple[str, int] | None = None
        self._count = 0
        self._forward = Direction(conditions, "forward")
        self._backward = Direction(conditions, "backward")
        self._waiting: list[tuple[float, int, bool, bytes]] = []
        self._number = 0

    @property
    def port(self) -> int:
        """Where the sender sends to."""
        return int(self._near.getsockname()[1])

    @property
    def counters(self) -> tuple[Counters, Counters]:
        """What happened to the datagrams of the sender, and to those that it was sent."""
        return self._forward.counters, self._backward.counters

    def run(self) -> None:
        """Relay for ever."""
        while True:
            self._deliver()
            timeout = max(0.0, self._waiting[0][0] - time.monotonic()) if self._waiting else None
            readable, _, _ = select.select([self._near, self._far], [], [], timeout)
            for each in readable:
                self._take(each)

    def _take(self, source: socket.socket) -> None:
        is_forward = source is self._near
        direction = self._forward if is_forward else self._backward
        for _ in range(_BURST):
            try:
                data, address = source.recvfrom(65_535)
            except BlockingIOError:
                return
            except ConnectionRefusedError:
                continue
            if is_forward:
                self._sender = self._sender or address
                if address != self._sender:
                    continue
                self._count += 1
                if self._count in self._conditions.rebindings:
                    self._rebind()
            for arrives_at in direction.arrivals(len(data), time.monotonic()):
                self._number += 1
                heapq.heappush(self._waiting, (arrives_at, self._number, is_forward, data))

    def _rebind(self) -> None:
        # The old port stays open and unread: a NAT that forgot a sender drops what comes for it, and says nothing.
        self._forgotten.append(self._far)
        self._far = _open_socket()
        self._forward.counters.rebound += 1

    def _deliver(self) -> None:
        now = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            _, _, is_forward, data = heapq.heappop(self._waiting)
            source, target = (self._far, self._target) if is_forward else (self._near, self._sender)
            try:
                source.sendto(data, target)  # type: ignore[arg-type]  # there is a sender once something waits for it
            except (BlockingIOError, ConnectionRefusedError):
                direction = self._forward if is_forward else self._backward
                direction.counters.overflowed += 1


def _open_socket() -> socket.socket:
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_SIZE)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_SIZE)
    opened.bind(("127.0.0.1", 0))
    opened.setblocking(False)
    return opened


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", help="HOST:PORT")
    parser.add_argument("--rate", type=float, default=200.0, help="Mbit/s")
    parser.add_argument("--delay", type=float, default=25.0, help="ms, one way")
    parser.add_argument("--queue", type=float, help="bytes; by default what the link carries in a round trip")
    parser.add_argument("--mtu", type=int, default=1500, help="bytes")
    parser.add_argument("--loss", type=float, default=0.0, help="per cent")
    parser.add_argument("--duplication", type=float, default=0.0, help="per cent")
    parser.add_argument("--reordering", type=float, default=0.0, help="per cent")
    parser.add_argument("--rebind", type=int, nargs="*", default=[], help="before which datagrams of the sender")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    rate, delay = arguments.rate * 1e6 / 8, arguments.delay / 1e3
    host, _, port = arguments.target.rpartition(":")
    conditions = Conditions(
        rate=rate,
        delay=delay,
        queue=2 * rate * delay if arguments.queue is None else arguments.queue,
        mtu=arguments.mtu,
        loss=arguments.loss / 100,
        duplication=arguments.duplication / 100,
        reordering=arguments.reordering / 100,
        rebindings=tuple(arguments.rebind),
        seed=arguments.seed,
    )
    relay = Relay((host, int(port)), conditions)
    print(relay.port, flush=True)
    try:
        relay.run()
    except KeyboardInterrupt:
        print(*relay.counters, sep="\n")


if __name__ == "__main__":
    main()
