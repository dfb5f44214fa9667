"""One of the two processes of a run: an end of one peer, for one measure."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import cProfile
import json
import resource
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measures import MEASURES, Limits
from benchmarks.peers import PEERS
from benchmarks.peers.base import Options
from benchmarks.serving import serve_channel

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from benchmarks.peers.base import Peer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=["accept", "connect", "both"])
    parser.add_argument("--peer", choices=PEERS, required=True)
    parser.add_argument("--measure", choices=MEASURES, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--controller")
    parser.add_argument("--address")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--settle", type=float, default=2.0)
    parser.add_argument("--profile", type=Path)
    arguments = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if arguments.profile:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that it is written
    entry = PEERS[arguments.peer]
    peer = entry.make(Options(arguments.measure, arguments.folder, arguments.controller))
    limits = Limits(arguments.seconds, arguments.sessions, arguments.settle)
    work: Coroutine[Any, Any, None]
    if arguments.role == "accept":
        work = peer.serve(serve_channel, announce)
    elif arguments.role == "connect":
        work = measure(peer, arguments.measure, arguments.address, limits)
    else:
        work = measure_in_one_process(peer, arguments.measure, limits)
    profile = cProfile.Profile() if arguments.profile else contextlib.nullcontext()
    try:
        with profile:
            run(work, entry.loop)
    finally:
        if isinstance(profile, cProfile.Profile):
            profile.dump_stats(arguments.profile)


def run(work: Coroutine[Any, Any, None], loop: str) -> None:
    factory = None
    if loop == "uvloop":
        factory = import_module("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(work)


def announce(address: str) -> None:
    print(address, flush=True)


async def measure(peer: Peer, name: str, address: str, limits: Limits) -> None:
    figures = await MEASURES[name](peer, address, limits)
    print(json.dumps(figures), flush=True)


async def measure_in_one_process(peer: Peer, name: str, limits: Limits) -> None:
    addresses: asyncio.Queue[str] = asyncio.Queue()
    serving = asyncio.create_task(peer.serve(serve_channel, addresses.put_nowait))
    await measure(peer, name, await addresses.get(), limits)
    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving


if __name__ == "__main__":
    main()
