"""Does ``memory://`` carry messages as a reliable transport has to?"""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from stt_core.defaults.memory_transport import MemoryTransport
from stt_core.errors import ConfigError, PeerUnreachable, TransportError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

QUEUE_SIZE = 64


@pytest.fixture
def url() -> str:
    return f"memory://{secrets.token_hex(8)}"


@pytest_asyncio.fixture
async def listener(url: str) -> AsyncIterator[MemoryTransport]:
    transport = MemoryTransport(url, listening=True)
    await transport.open()
    yield transport
    await transport.close()


@pytest_asyncio.fixture
async def dialled(listener: MemoryTransport) -> AsyncIterator[MemoryTransport]:
    transport = MemoryTransport(listener.url, listening=False)
    await transport.open()
    yield transport
    await transport.close()


async def fill(sender: MemoryTransport) -> asyncio.Task[None]:
    """Send until the receiver has too many; return the send that waits."""
    for number in range(QUEUE_SIZE):
        await sender.send(bytes([number]), sender.peer)
    waiting = asyncio.create_task(sender.send(b"one more", sender.peer))
    await asyncio.sleep(0)
    assert not waiting.done()
    return waiting


@pytest.mark.parametrize(
    "url",
    ["memory://", "memory://a/b", "memory://a#1", "udp://a", "a", "memory:a"],
)
def test_only_a_scheme_and_a_name_are_a_url(url: str) -> None:
    for listening in (True, False):
        with pytest.raises(ConfigError, match="memory://name"):
            MemoryTransport(url, listening=listening)


@pytest.mark.asyncio
async def test_messages_come_in_order_with_the_address_to_answer(
    listener: MemoryTransport, dialled: MemoryTransport
) -> None:
    for text in (b"one", b"two"):
        await dialled.send(text, dialled.peer)

    first, address = await listener.receive()
    second, same_address = await listener.receive()
    await listener.send(b"answer", address)

    assert (first, second) == (b"one", b"two")
    assert address == same_address
    assert await dialled.receive() == (b"answer", dialled.peer)


@pytest.mark.asyncio
async def test_what_was_sent_is_the_receivers_to_keep(listener: MemoryTransport, dialled: MemoryTransport) -> None:
    buffer = bytearray(b"before")

    await dialled.send(memoryview(buffer), dialled.peer)
    buffer[:] = b"behind"

    assert (await listener.receive())[0] == b"before"


@pytest.mark.asyncio
async def test_a_message_has_a_largest_size(listener: MemoryTransport, dialled: MemoryTransport) -> None:
    most = MemoryTransport.capabilities.max_message_size

    await dialled.send(bytes(most), dialled.peer)
    with pytest.raises(TransportError, match="the most"):
        await dialled.send(bytes(most + 1), dialled.peer)

    assert len((await listener.receive())[0]) == most


@pytest.mark.asyncio
async def test_a_name_has_one_listener_at_a_time(listener: MemoryTransport) -> None:
    second = MemoryTransport(listener.url, listening=True)

    with pytest.raises(TransportError, match="taken"):
        await second.open()
    await listener.close()
    await second.open()
    await second.close()


@pytest.mark.asyncio
async def test_nobody_is_reached_where_nobody_listens(url: str) -> None:
    with pytest.raises(PeerUnreachable, match="nobody listens"):
        await MemoryTransport(url, listening=False).open()


@pytest.mark.asyncio
async def test_a_sender_waits_while_the_receiver_has_too_many(
    listener: MemoryTransport, dialled: MemoryTransport
) -> None:
    waiting = await fill(dialled)

    await listener.receive()
    await waiting

    for _ in range(QUEUE_SIZE):
        last, _ = await listener.receive()
    assert last == b"one more"
    assert dialled.statistics().send_waits == 1


@pytest.mark.asyncio
async def test_a_cancelled_send_sends_nothing(listener: MemoryTransport, dialled: MemoryTransport) -> None:
    waiting = await fill(dialled)

    waiting.cancel()
    for number in range(QUEUE_SIZE):
        assert (await listener.receive())[0] == bytes([number])
    await dialled.send(b"the next", dialled.peer)

    assert (await listener.receive())[0] == b"the next"
    await asyncio.wait([waiting])
    assert waiting.cancelled()


@pytest.mark.asyncio
async def test_a_cancelled_receive_loses_nothing(listener: MemoryTransport, dialled: MemoryTransport) -> None:
    waiting = asyncio.create_task(listener.receive())
    await asyncio.sleep(0)

    await dialled.send(b"kept", dialled.peer)
    waiting.cancel()
    await asyncio.wait([waiting])

    assert waiting.cancelled()
    assert (await listener.receive())[0] == b"kept"


@pytest.mark.asyncio
async def test_closing_wakes_whoever_waits(listener: MemoryTransport, dialled: MemoryTransport) -> None:
    sending = await fill(dialled)
    receiving = asyncio.create_task(dialled.receive())
    await asyncio.sleep(0)

    await listener.close()

    with pytest.raises(PeerUnreachable):
        await sending
    with pytest.raises(PeerUnreachable):
        await receiving


@pytest.mark.asyncio
async def test_a_closed_transport_says_so(listener: MemoryTransport, dialled: MemoryTransport) -> None:
    receiving = asyncio.create_task(dialled.receive())
    await asyncio.sleep(0)

    await dialled.close()
    await dialled.close()

    for waiting in (receiving, dialled.receive(), dialled.send(b"", listener.url)):
        with pytest.raises(TransportError, match="is closed") as caught:
            await waiting
        assert not isinstance(caught.value, PeerUnreachable)


@pytest.mark.asyncio
async def test_a_sender_whose_own_transport_closes_is_told_so(
    listener: MemoryTransport, dialled: MemoryTransport
) -> None:
    sending = await fill(dialled)

    await dialled.close()
    await listener.receive()

    with pytest.raises(TransportError, match="is closed"):
        await sending


@pytest.mark.asyncio
async def test_a_listener_learns_that_who_dialled_is_gone_behind_what_was_sent(
    listener: MemoryTransport, dialled: MemoryTransport
) -> None:
    await dialled.send(b"goodbye", dialled.peer)
    await dialled.close()

    _, address = await listener.receive()
    with pytest.raises(PeerUnreachable) as caught:
        await listener.receive()

    assert caught.value.address == address
    with pytest.raises(PeerUnreachable):
        await listener.send(b"too late", address)


@pytest.mark.asyncio
async def test_one_listener_serves_many(listener: MemoryTransport) -> None:
    several = [MemoryTransport(listener.url, listening=False) for _ in range(3)]
    for each in several:
        await each.open()
        await each.send(b"hello", each.peer)

    addresses = [(await listener.receive())[1] for _ in several]
    for number, address in enumerate(addresses):
        await listener.send(bytes([number]), address)

    assert len(set(addresses)) == len(several)
    for number, each in enumerate(several):
        assert (await each.receive())[0] == bytes([number])
        await each.close()


@pytest.mark.asyncio
async def test_messages_and_bytes_are_counted(listener: MemoryTransport, dialled: MemoryTransport) -> None:
    await dialled.send(b"12345", dialled.peer)
    await listener.receive()

    sent, received = dialled.statistics(), listener.statistics()

    assert (sent.messages_sent, sent.bytes_sent, sent.messages_received) == (1, 5, 0)
    assert (received.messages_received, received.bytes_received, received.messages_sent) == (1, 5, 0)


def test_a_name_that_a_closed_event_loop_left_behind_is_free(url: str) -> None:
    async def listen() -> MemoryTransport:
        transport = MemoryTransport(url, listening=True)
        await transport.open()
        return transport

    async def listen_and_close(earlier: MemoryTransport) -> None:
        with pytest.raises(PeerUnreachable):
            await MemoryTransport(url, listening=False).open()
        later = await listen()
        await earlier.close()  # which must not take the name from its new owner
        dialled = MemoryTransport(url, listening=False)
        await dialled.open()
        await dialled.close()
        await later.close()

    earlier = asyncio.run(listen())
    asyncio.run(listen_and_close(earlier))


@pytest.mark.asyncio
async def test_no_message_leaves_its_event_loop(listener: MemoryTransport) -> None:
    async def dial() -> None:
        await MemoryTransport(listener.url, listening=False).open()

    with pytest.raises(TransportError, match="another event loop"):
        await asyncio.to_thread(asyncio.run, dial())
