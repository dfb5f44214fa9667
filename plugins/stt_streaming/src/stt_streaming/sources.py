"""Where bytes come from, and how they come in blocks: from memory, files, descriptors and async iterators."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from stt_core.errors import LocalError
from stt_streaming.transfer.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from stt_core.interfaces.transport import Buffer


class ReadableFile(Protocol):
    """A binary file that is open."""

    def read(self, size: int, /) -> bytes | None:
        """Return at most ``size`` bytes; none at the end."""


Source: TypeAlias = "Buffer | int | ReadableFile | AsyncIterable[Buffer]"
"""Bytes in memory, which are not copied; a file descriptor; an open binary file; an async iterator of bytes."""

READ_SIZE: Final = 64 * 1024
"""Bytes that one read of a pipe, terminal or socket returns at most: the size of a pipe on Linux."""


async def read_chunks(source: Source, size: int) -> AsyncIterator[Buffer]:
    """Iterate over the bytes of a source as they come, at most ``size`` at a time and never none.

    Raises:
        LocalError: It is no source, or not of bytes.
        OSError: A file cannot be read.
    """
    if isinstance(source, int):
        chunks = _read_descriptor(source, size)
    elif isinstance(source, bytes | bytearray | memoryview):
        chunks = _slice(source, size)
    elif isinstance(source, AsyncIterable):
        chunks = _slice_all(source, size)
    elif callable(getattr(source, "read", None)):
        chunks = _read_file(source.read, size)
    else:
        raise LocalError(f"no source of bytes: {type(source).__name__}")
    async for chunk in chunks:
        yield chunk


async def read_blocks(source: Source, size: int) -> AsyncIterator[Buffer]:
    """Iterate over the bytes of a source in blocks of ``size``; the last one may be smaller, but none is empty.

    Raises:
        LocalError: As :func:`read_chunks`.
        OSError: As above.
    """
    gathered = bytearray()
    async for chunk in read_chunks(source, size):
        if not gathered and len(chunk) == size:
            yield chunk
            continue
        missing = size - len(gathered)
        gathered += chunk[:missing]
        if len(gathered) == size:
            yield gathered
            gathered = bytearray(chunk[missing:])
    if gathered:
        yield gathered


async def wait_readable(descriptor: int) -> None:
    """Wait until a descriptor that can be polled has bytes, or its end."""
    loop = asyncio.get_running_loop()
    readable = loop.create_future()
    loop.add_reader(descriptor, _settle, readable)
    try:
        await readable
    finally:
        loop.remove_reader(descriptor)


def is_pollable(descriptor: int) -> bool:
    """Return whether a descriptor may let its reader wait: a pipe, a socket, a terminal."""
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or (stat.S_ISCHR(mode) and os.isatty(descriptor))


# Internals


async def _slice(data: Buffer, size: int) -> AsyncIterator[Buffer]:
    view = _view(data)
    if not view.c_contiguous:
        raise LocalError("the memory is not contiguous")
    view = view.cast("B")
    for start in range(0, len(view), size):
        yield view[start : start + size]


async def _slice_all(source: AsyncIterable[Buffer], size: int) -> AsyncIterator[Buffer]:
    async for data in source:
        # Who fills one buffer again and again changes it while the block before waits to be sent.
        async for chunk in _slice(data if isinstance(data, bytes) else bytes(_view(data)), size):
            yield chunk


async def _read_file(read: Callable[[int], bytes | None], size: int) -> AsyncIterator[Buffer]:
    while chunk := await in_thread(read, size):
        yield _view(chunk)
    if chunk is None:
        raise LocalError("the file is in non-blocking mode")


async def _read_descriptor(descriptor: int, size: int) -> AsyncIterator[Buffer]:
    if not is_pollable(descriptor):
        while chunk := await in_thread(os.read, descriptor, size):
            yield chunk
        return
    # A thread in a read that blocks could not be cancelled, and O_NONBLOCK would be set for other processes, too: the
    # flag belongs to the open file, which standard input shares with the shell.
    size = min(size, READ_SIZE)
    while True:
        await wait_readable(descriptor)
        chunk = os.read(descriptor, size)
        if not chunk:
            return
        yield chunk


def _view(data: Buffer) -> memoryview:
    try:
        return memoryview(data)
    except TypeError:
        raise LocalError(f"no bytes: {type(data).__name__}") from None


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
