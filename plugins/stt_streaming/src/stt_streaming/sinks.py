"""Where bytes go to: into memory, files, descriptors and async functions."""

from __future__ import annotations

import asyncio
import os
import select
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from stt_core.errors import LocalError
from stt_streaming.sources import is_pollable
from stt_streaming.transfer.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from stt_core.interfaces.transport import Buffer


class WritableFile(Protocol):
    """A binary file that is open."""

    def write(self, data: Buffer, /) -> int | None:
        """Write bytes; return how many of them."""


Sink: TypeAlias = "bytearray | memoryview | int | WritableFile | Callable[[Buffer], Awaitable[object]]"
"""A bytearray, which grows; memory that is filled; a file descriptor; an open binary file; an async function."""

PIPE_WRITE_SIZE: Final = select.PIPE_BUF
"""Bytes that a pipe which polls as writable takes without blocking (POSIX, pipe(7))."""


def writer(sink: Sink) -> Callable[[Buffer], Awaitable[object]]:
    """Return the async function that writes all of some bytes to a sink, behind those that it wrote before.

    It raises OSError where a file cannot be written, and LocalError where memory is full.

    Raises:
        LocalError: It is no sink.
    """
    if isinstance(sink, bytearray):
        return _Growing(sink).write
    if isinstance(sink, memoryview):
        return _Filling(sink).write
    if isinstance(sink, int):
        return _PolledDescriptor(sink).write if is_pollable(sink) else _File(_DescriptorFile(sink)).write
    if callable(getattr(sink, "write", None)):
        return _File(sink).write  # type: ignore[arg-type]  # what has a write() is taken for a file
    if callable(sink):
        return sink
    raise LocalError(f"no sink of bytes: {type(sink).__name__}")


# Internals


class _Growing:
    def __init__(self, memory: bytearray) -> None:
        self._memory = memory

    async def write(self, data: Buffer) -> None:
        self._memory += data


class _Filling:
    def __init__(self, memory: memoryview) -> None:
        if memory.readonly or not memory.c_contiguous:
            raise LocalError("the memory is read-only or not contiguous")
        self._free = memory.cast("B")

    async def write(self, data: Buffer) -> None:
        size = len(data)
        if size > len(self._free):
            raise LocalError(f"{size} bytes do not fit into the {len(self._free)} that are left")
        self._free[:size] = data
        self._free = self._free[size:]


class _DescriptorFile:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: Buffer) -> int:
        return os.write(self._descriptor, data)


class _File:
    def __init__(self, file: WritableFile) -> None:
        self._file = file

    async def write(self, data: Buffer) -> None:
        await in_thread(self._write_all, memoryview(data))

    def _write_all(self, rest: memoryview) -> None:
        while rest:
            written = self._file.write(rest)
            if written is None:
                raise LocalError("the file is in non-blocking mode")
            rest = rest[written:]


class _PolledDescriptor:
    """A pipe, terminal or socket: its reader may be slow, and a thread that waits for it could not be cancelled."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    async def write(self, data: Buffer) -> None:
        rest = memoryview(data)
        while rest:
            if not self._poll.poll(0):
                await self._wait_writable()
            rest = rest[os.write(self._descriptor, rest[:PIPE_WRITE_SIZE]) :]

    async def _wait_writable(self) -> None:
        loop = asyncio.get_running_loop()
        writable = asyncio.Event()
        loop.add_writer(self._descriptor, writable.set)
        try:
            await writable.wait()
        finally:
            loop.remove_writer(self._descriptor)
