from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import resource
import socket
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from stt_core.errors import TransportError
from stt_websocket import WebSocketTransport, WebSocketURL

Opened = Callable[..., Coroutine[Any, Any, WebSocketTransport]]
Raw = Callable[..., Coroutine[Any, Any, Any]]

PATIENCE = 20  # seconds, for what takes milliseconds
LOCAL = "ws://127.0.0.1:0"


@pytest.fixture
def no_descriptors() -> Iterator[Callable[[], None]]:
    """Take all descriptors that the process may have, when called."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []

    def take() -> None:
        taken.append(os.dup(0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (taken[0] + 8, hard))
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))

    yield take
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for descriptor in taken:
        os.close(descriptor)


@pytest.mark.asyncio
async def test_a_process_without_descriptors_accepts_again_once_it_has_some(
    opened: Opened,
    raw_client: Raw,
    no_descriptors: Callable[[], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = await opened(LOCAL, listening=True)
    open_one = await raw_client(server.url)
    with caplog.at_level(logging.WARNING, "stt_websocket"), socket.socket() as waiting:
        waiting.setblocking(False)
        no_descriptors()
        waiting.connect_ex(("127.0.0.1", WebSocketURL.parse(server.url).port))
        async with asyncio.timeout(PATIENCE):
            while not caplog.records:  # noqa: ASYNC110  a log tells nobody
                await asyncio.sleep(0.01)
            # The others are served meanwhile, and the loop does not spin on the socket that stays readable.
            await open_one.send(b"\x88\x80\0\0\0\0")
            assert await open_one.receive_frame() == (8, b"")
            open_one.sock.close()
            await asyncio.get_running_loop().sock_sendall(waiting, b"POST / HTTP/1.1\r\n\r\n")
            assert (await asyncio.get_running_loop().sock_recv(waiting, 1000)).startswith(b"HTTP/1.1 405 ")

    assert [record.getMessage().partition("cannot accept: ")[2] for record in caplog.records] == [
        os.strerror(errno.EMFILE)
    ]


@pytest.mark.asyncio
async def test_an_address_that_this_host_does_not_have(opened: Opened) -> None:
    with pytest.raises(TransportError, match=os.strerror(errno.EADDRNOTAVAIL)):
        await opened("ws://192.0.2.1:0", listening=True)


@pytest.mark.asyncio
async def test_a_name_is_bound_to_the_addresses_that_this_host_has(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolve(*_: object, **__: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 0)) for host in ("192.0.2.1", "127.0.0.1")]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)

    server = await opened("ws://two.example:0", listening=True)

    await opened(f"ws://127.0.0.1:{WebSocketURL.parse(server.url).port}")


@pytest.mark.asyncio
async def test_closing_gives_up_handshakes_in_progress(opened: Opened, raw_client: Raw) -> None:
    server = await opened(LOCAL, listening=True)
    client = await raw_client(server.url, is_upgraded=False)
    await client.send(b"GET / HTTP/1.1\r\n")
    await opened(server.url)  # by now the first one is accepted too

    async with asyncio.timeout(PATIENCE):
        await server.close()

    assert await client.receive_all() == b""
