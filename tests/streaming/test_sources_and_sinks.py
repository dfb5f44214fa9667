"""Do bytes come from and go to memory, files, descriptors and coroutines alike, and does a slow end hold up nobody?"""

from __future__ import annotations

import asyncio
import io
import os
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_core import LocalError
from stt_streaming.sinks import writer
from stt_streaming.sources import read_blocks, read_chunks, wait_readable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

DATA = bytes(range(256)) * 1000

pytestmark = pytest.mark.asyncio


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def pipe(closing: ExitStack) -> tuple[int, int]:
    ends = os.pipe()
    for end in ends:
        closing.callback(os.close, end)
    return ends


async def iterate(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def read(source: Any, size: int = 1000) -> bytes:
    return b"".join([bytes(chunk) async for chunk in read_chunks(source, size)])


@pytest.mark.parametrize("kind", ["bytes", "bytearray", "memoryview", "words", "iterator", "file", "descriptor"])
async def test_every_source_gives_its_bytes(kind: str, tmp_path: Path, closing: ExitStack) -> None:
    path = tmp_path / "data"
    path.write_bytes(DATA)
    file = closing.enter_context(path.open("rb"))
    sources: dict[str, Any] = {
        "bytes": DATA,
        "bytearray": bytearray(DATA),
        "memoryview": memoryview(DATA),
        "words": memoryview(DATA).cast("I"),
        "iterator": iterate(b"", DATA[:5], DATA[5:7000], DATA[7000:]),
        "file": file,
        "descriptor": file.fileno(),
    }

    assert await read(sources[kind]) == DATA


async def test_a_pipe_gives_what_comes_as_it_comes(closing: ExitStack) -> None:
    reading, writing = os.pipe()
    closing.callback(os.close, reading)
    chunks = read_chunks(reading, 1000)

    os.write(writing, b"first")
    assert await anext(chunks) == b"first"
    waiting = asyncio.ensure_future(anext(chunks))
    await asyncio.sleep(0)
    os.write(writing, b"second")
    assert await waiting == b"second"
    os.close(writing)
    with pytest.raises(StopAsyncIteration):
        await anext(chunks)


async def test_waiting_for_a_pipe_can_be_cancelled(closing: ExitStack) -> None:
    reading, writing = pipe(closing)
    waiting = asyncio.ensure_future(read(reading))
    await asyncio.sleep(0)

    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    os.write(writing, b"still there")
    assert await anext(read_chunks(reading, 100)) == b"still there"


async def test_an_iterator_may_use_its_memory_again() -> None:
    async def fill_again() -> AsyncIterator[memoryview]:
        memory = bytearray(10)
        for number in range(3):
            memory[:] = bytes([number]) * 10
            yield memoryview(memory)

    blocks = [block async for block in read_blocks(fill_again(), 10)]

    assert [bytes(block) for block in blocks] == [bytes([number]) * 10 for number in range(3)]


async def test_a_file_that_does_not_wait_is_refused_rather_than_cut_off(closing: ExitStack) -> None:
    reading, writing = pipe(closing)
    os.set_blocking(reading, False)
    os.write(writing, b"a part")

    with io.FileIO(reading, closefd=False) as file, pytest.raises(LocalError, match="non-blocking"):
        await read(file)


async def test_text_is_refused() -> None:
    async def speak() -> AsyncIterator[Any]:
        yield "text"

    for source in (speak(), io.StringIO("text")):
        with pytest.raises(LocalError, match="no bytes: str"):
            await read(source)


@pytest.mark.parametrize("source", ["text", None, [b"list"], memoryview(DATA)[::2]])
async def test_what_is_no_source_is_refused(source: Any) -> None:
    with pytest.raises(LocalError):
        await read(source)


@given(st.lists(st.binary(max_size=30)), st.integers(1, 20))
async def test_blocks_are_full_but_for_the_last(chunks: list[bytes], size: int) -> None:
    blocks = [bytes(block) async for block in read_blocks(iterate(*chunks), size)]

    assert b"".join(blocks) == b"".join(chunks)
    assert all(len(block) == size for block in blocks[:-1])
    assert all(blocks)


async def test_every_sink_takes_all_bytes(tmp_path: Path, closing: ExitStack) -> None:
    file = closing.enter_context((tmp_path / "file").open("wb"))
    raw = os.open(tmp_path / "raw", os.O_WRONLY | os.O_CREAT)
    closing.callback(os.close, raw)
    growing, memory, taken = bytearray(b"before "), bytearray(2 * len(DATA)), bytearray()

    async def take(data: Any) -> None:
        taken.extend(data)

    for sink in (growing, memoryview(memory), file, raw, take, io.BytesIO()):
        write = writer(sink)
        await write(DATA)
        await write(memoryview(DATA))
    file.flush()

    assert growing == b"before " + 2 * DATA
    assert memory == taken == 2 * DATA
    assert (tmp_path / "file").read_bytes() == (tmp_path / "raw").read_bytes() == 2 * DATA


@pytest.mark.parametrize("kind", ["pipe", "socket"])
async def test_a_slow_reader_holds_up_the_writer_alone(kind: str, closing: ExitStack) -> None:
    if kind == "pipe":
        reading, writing = pipe(closing)
    else:
        ends = socket.socketpair()
        reading, writing = (closing.enter_context(end).fileno() for end in ends)
    data = DATA * 8
    writing_all = asyncio.ensure_future(writer(writing)(data))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not writing_all.done()

    had = b""
    while len(had) < len(data):
        await wait_readable(reading)
        had += os.read(reading, 100_000)

    await writing_all
    assert had == data


async def test_writing_to_a_full_pipe_can_be_cancelled(closing: ExitStack) -> None:
    _, writing = pipe(closing)
    waiting = asyncio.ensure_future(writer(writing)(DATA * 8))
    await asyncio.sleep(0)

    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_pipe_that_nobody_reads_is_an_error(closing: ExitStack) -> None:
    reading, writing = os.pipe()
    closing.callback(os.close, writing)
    os.close(reading)

    with pytest.raises(BrokenPipeError):
        await writer(writing)(DATA)


async def test_memory_that_is_full_is_an_error_and_stays_as_it_is() -> None:
    memory = bytearray(5)
    write = writer(memoryview(memory))

    await write(b"abc")
    with pytest.raises(LocalError, match="3 bytes do not fit into the 2"):
        await write(b"def")

    assert memory == b"abc\0\0"


@pytest.mark.parametrize("sink", ["text", None, memoryview(DATA), memoryview(bytearray(DATA))[::2]])
async def test_what_is_no_sink_is_refused(sink: Any) -> None:
    with pytest.raises(LocalError):
        writer(sink)
