"""Copies bytes both ways between a stream and something else, each direction until its own end."""

from __future__ import annotations

import asyncio
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable

    from stt_core import STTStream
    from stt_core.interfaces.transport import Buffer


class TunnelCode(IntEnum):
    """Why a stream of a tunnel was broken off: the code of its reset and of its stop."""

    BROKEN = 0x100  #: what is behind the tunnel broke off
    REFUSED = 0x101  #: the target, or the address to listen at, is not allowed there
    UNREACHABLE = 0x102  #: the target cannot be connected to, or the address not listened at
    BUSY = 0x103  #: too many connections
    MALFORMED = 0x104  #: a stream that no tunnel opens


async def relay(
    stream: STTStream,
    source: AsyncIterable[Buffer],
    write: Callable[[Buffer], Awaitable[object]],
    end: Callable[[], None],
) -> None:
    """Send a source over a stream, and write what the stream brings, until both have ended.

    The end of one direction leaves the other as it is. What breaks one direction off breaks off both, and the peer gets
    a reset: it cannot take what came for all there was.

    Args:
        stream: One that nobody else uses.
        source: What to send.
        write: Writes bytes; waits while there is no room.
        end: Called when all was written.

    Raises:
        StreamClosed: The peer broke the stream off.
        SessionClosed: The session is over.
        OSError: What the source or the function raises.
    """
    tasks = (asyncio.create_task(_send(stream, source)), asyncio.create_task(_receive(stream, write, end)))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            if task.done():
                task.result()
    except BaseException:
        break_off(stream, TunnelCode.BROKEN)
        raise
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def break_off(stream: STTStream, code: TunnelCode) -> None:
    """End both directions of a stream at once, and tell the peer why."""
    stream.reset(code)
    stream.stop(code)


async def _send(stream: STTStream, source: AsyncIterable[Buffer]) -> None:
    async for data in source:
        await stream.send(data)
    stream.end()


async def _receive(stream: STTStream, write: Callable[[Buffer], Awaitable[object]], end: Callable[[], None]) -> None:
    async for data in stream:
        await write(data)
    end()
