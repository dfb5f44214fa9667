from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections import deque
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from stt_websocket import client_context, server_context
from stt_websocket.links import BULK_READ_SIZE, READ_SIZE, Link, PlainLink, TLSLink

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

PATIENCE = 20  # seconds, for what takes milliseconds
DATA = os.urandom(3 * BULK_READ_SIZE)


@pytest_asyncio.fixture(params=["plain", "TLS"])
async def pair(request: pytest.FixtureRequest, certificates: Path) -> AsyncIterator[tuple[Link, Link]]:
    """Two links that are connected to each other; the second one may be read."""
    first, second = socket.socketpair()
    for sock in (first, second):
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * len(DATA))
    if request.param == "plain":
        yield PlainLink(first), PlainLink(second)
    else:
        server = TLSLink(first, server_context(certificates / "certificate.pem", certificates / "key.pem"), None)
        client = TLSLink(second, client_context(certificates / "certificate.pem"), "localhost")
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(server.shake_hands(), client.shake_hands())
        yield server, client
    first.close()
    second.close()


def write(link: Link, *pieces: bytes) -> int:
    return link.write(deque(pieces))


def read_by_pieces(link: Link) -> bytes | None:
    return link.read()


def read_into_a_buffer(link: Link) -> bytes | None:
    buffer = memoryview(bytearray(2 * BULK_READ_SIZE))
    size = link.read_into(buffer)
    return None if size is None else bytes(buffer[:size])


def read_turn(link: Link, read: Callable[[Link], bytes | None], *, is_bulk: bool = False) -> tuple[bytes, bool]:
    """Return what a turn brings, and whether the stream has ended."""
    link.begin_wake(is_bulk=is_bulk)
    received = b""
    while data := read(link):
        received += data
    return received, data == b""


reads = pytest.mark.parametrize("read", [read_by_pieces, read_into_a_buffer])


@pytest.mark.asyncio
@reads
async def test_an_end_right_behind_data_is_not_missed(
    pair: tuple[Link, Link], read: Callable[[Link], bytes | None]
) -> None:
    write(pair[0], b"last words")
    pair[0].end_writing()

    first, is_end = read_turn(pair[1], read)
    if not is_end:  # a plain socket gives the end in a read of its own
        second, is_end = read_turn(pair[1], read)
        assert not second

    assert first == b"last words"
    assert is_end


@pytest.mark.asyncio
@reads
@pytest.mark.parametrize(("is_bulk", "limit"), [(False, READ_SIZE), (True, BULK_READ_SIZE)])
async def test_a_turn_is_bounded_and_the_next_one_goes_on(
    pair: tuple[Link, Link],
    read: Callable[[Link], bytes | None],
    limit: int,
    *,
    is_bulk: bool,
) -> None:
    assert write(pair[0], DATA[:100], DATA[100:]) > limit
    received = b""
    while len(received) < len(DATA):
        turn, is_end = read_turn(pair[1], read, is_bulk=is_bulk)
        write(pair[0])  # what the socket did not take at once
        assert len(turn) <= limit
        assert not is_end
        received += turn

    assert received == DATA
    assert read_turn(pair[1], read) == (b"", False)


@pytest.mark.asyncio
@reads
async def test_a_stream_that_was_cut_off_ends(pair: tuple[Link, Link], read: Callable[[Link], bytes | None]) -> None:
    write(pair[0], b"last words")
    pair[0].close()

    first, is_end = read_turn(pair[1], read)
    if not is_end:
        _, is_end = read_turn(pair[1], read)

    assert first == b"last words"
    assert is_end


@pytest.mark.asyncio
async def test_bytes_that_are_no_tls_are_an_error_of_the_link(certificates: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        link = TLSLink(ours, client_context(certificates / "certificate.pem"), "localhost")
        theirs.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        with pytest.raises(ssl.SSLError):
            await link.shake_hands()
