"""What a datagram of an outsider costs a node that has sessions: CPU time, memory, and whether it gets an answer.

    python -m benchmarks.flood

Outsiders send from as many addresses as they like: no seed, no keys. Measured in the engine, without the kernel's part.
"""

from __future__ import annotations

import gc
import os
import time
import tracemalloc
from typing import TYPE_CHECKING, Final

from stt_core.engine.fragments import to_datagrams
from stt_core.engine.handshake import INIT_SIZE, STTHandshake
from stt_core.engine.paths import Link
from stt_core.testing.link import DATAGRAMS
from stt_core.testing.sessions import SHARED_SEED, make_demux
from stt_core.wire.frame import FrameType, encode_frame

if TYPE_CHECKING:
    from collections.abc import Callable

_COUNT: Final = 4096
_BURST: Final = 64
_ROUNDS: Final = 3


def stranger_init(_: int) -> bytes:
    """A well-formed INIT under another seed: what a scanner or an attacker sends."""
    nonce = os.urandom(32)
    clear = bytes((1, 2, 0, 1, 0, 2)) + nonce + os.urandom(32)
    [datagram] = to_datagrams(FrameType.HANDSHAKE_INIT, nonce, clear + os.urandom(INIT_SIZE - len(clear)))
    return datagram


def noise(_: int) -> bytes:
    """Random bytes of Ethernet's size."""
    return os.urandom(1472)


def unknown_session(number: int) -> bytes:
    """A sealed frame of a session that is not there."""
    return encode_frame(FrameType.DATA, os.urandom(8), 1, number, 0, os.urandom(1400))


def unasked_response(_: int) -> bytes:
    """A RESPONSE to no CHALLENGE."""
    return to_datagrams(FrameType.HANDSHAKE_RESPONSE, os.urandom(32), os.urandom(1369))[0]


def insider_init(_: int) -> bytes:
    """An INIT of somebody who has the seed and never goes on: for comparison, and bounded by the half-open limits."""
    handshake = STTHandshake(is_initiator=True, node_seed=os.urandom(32), shared_seed=SHARED_SEED)
    message = handshake.create_hello()
    [datagram] = to_datagrams(FrameType.HANDSHAKE_INIT, handshake.nonce_i, message)
    return datagram


def measure(make: Callable[[int], bytes], count: int) -> tuple[float, float, int]:
    """Return microseconds of CPU and bytes kept for each datagram, and how many were answered."""
    link = Link("flood://", DATAGRAMS)
    messages = [(make(number), (f"10.0.{number >> 8 & 255}.{number & 255}", 4433)) for number in range(count)]
    best, answers = float("inf"), 0
    for _ in range(_ROUNDS):
        demux = make_demux("victim")
        answers = 0
        started_at = time.process_time()
        for first in range(0, count, _BURST):
            demux.receive_messages(messages[first : first + _BURST], link, 0.0)
            output, _ = demux.drain((), 0.0)
            answers += len(output)
        best = min(best, time.process_time() - started_at)
    demux = make_demux("victim")
    gc.collect()
    tracemalloc.start()
    for first in range(0, count, _BURST):
        demux.receive_messages(messages[first : first + _BURST], link, 0.0)
        demux.drain((), 0.0)
    gc.collect()
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return best / count * 1e6, kept / count, answers


def main() -> None:
    """Print a line for each kind."""
    print(f"{'':60} us CPU  bytes kept  answers")
    for make, count in (
        (noise, _COUNT),
        (unknown_session, _COUNT),
        (unasked_response, _COUNT),
        (stranger_init, _COUNT),
        (insider_init, 256),
    ):
        cpu, kept, answers = measure(make, count)
        what = (make.__doc__ or "").partition(":")[0].rstrip(".")
        print(f"{what:60} {cpu:6.1f} {kept:11.1f} {answers:8}")


if __name__ == "__main__":
    main()
