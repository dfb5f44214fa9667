from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from stt_core.errors import ConfigError, PeerUnreachable, TransportError
from stt_core.interfaces.transport import BatchTransport, Train
from stt_websocket import WebSocketOptions, WebSocketTransport, WebSocketURL, client_context, server_context

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE = 20  # seconds, for what takes milliseconds
LOCAL = "ws://127.0.0.1:0"

T = TypeVar("T")
Opened = Callable[..., Coroutine[Any, Any, WebSocketTransport]]


async def soon(awaitable: Awaitable[T]) -> T:
    async with asyncio.timeout(PATIENCE):
        return await awaitable


@pytest.fixture(params=["ws", "wss"])
def scheme(request: pytest.FixtureRequest) -> str:
    value: str = request.param
    return value


@pytest.fixture
def server_tls(certificates: Path) -> Any:
    return server_context(certificates / "certificate.pem", certificates / "key.pem")


@pytest.fixture
def client_tls(certificates: Path) -> Any:
    return client_context(certificates / "certificate.pem")


@pytest.fixture
def pair(scheme: str, opened: Opened, server_tls: Any, client_tls: Any) -> Callable[..., Any]:
    async def open_pair(**options: Any) -> tuple[WebSocketTransport, WebSocketTransport]:
        server = await opened(f"{scheme}://127.0.0.1:0", listening=True, server_tls=server_tls, **options)
        client = await opened(server.url, client_tls=client_tls, **options)
        return server, client

    return open_pair


def test_it_is_a_reliable_batch_transport() -> None:
    assert issubclass(WebSocketTransport, BatchTransport)
    assert WebSocketTransport.capabilities.reliable
    assert WebSocketTransport.capabilities.max_message_size == 16 * 1024 * 1024


def test_the_limit_of_the_options_is_the_capability() -> None:
    options = WebSocketOptions(max_message_size=1000)

    assert WebSocketTransport(LOCAL, listening=True, options=options).capabilities.max_message_size == 1000


@pytest.mark.parametrize("url", ["udp://127.0.0.1:1", "ws://", "wss://127.0.0.1:0"])
def test_a_url_that_cannot_be_used_is_a_config_error(url: str) -> None:
    with pytest.raises(ConfigError):
        WebSocketTransport(url, listening=True)


# Message by message


@pytest.mark.asyncio
async def test_messages_go_both_ways(pair: Callable[..., Any]) -> None:
    server, client = await pair()
    messages = [b"", b"x", os.urandom(125), os.urandom(126), os.urandom(65_536), os.urandom(3_000_000)]
    for message in messages:
        await soon(client.send(message, client.peer))

        received, address = await soon(server.receive())
        assert received == message
        await soon(server.send(received, address))
        assert await soon(client.receive()) == (message, client.peer)


@pytest.mark.asyncio
async def test_a_listening_transport_tells_its_real_url(opened: Opened) -> None:
    server = await opened("ws://127.0.0.1:0/stt", listening=True)

    assert re.fullmatch(r"ws://127\.0\.0\.1:[1-9]\d*/stt", server.url)
    assert server.peer is None


@pytest.mark.asyncio
async def test_addresses_are_readable_and_each_connection_has_its_own(opened: Opened) -> None:
    server = await opened(LOCAL, listening=True)
    addresses = set()
    for _ in range(3):
        client = await opened(server.url)
        assert re.fullmatch(r"\('127\.0\.0\.1', \d+, 1\)", str(client.peer))
        await client.send(b"x", client.peer)
        _, address = await soon(server.receive())
        assert re.fullmatch(r"\('127\.0\.0\.1', \d+, \d+\)", str(address))
        addresses.add(address)

    assert len(addresses) == 3


@pytest.mark.asyncio
@pytest.mark.usefixtures("ipv6")
async def test_ipv6(opened: Opened) -> None:
    server = await opened("ws://[::1]:0", listening=True)
    client = await opened(server.url)

    await client.send(b"x", client.peer)

    received, address = await soon(server.receive())
    assert received == b"x"
    assert isinstance(address, tuple)
    assert address[0] == "::1"


@pytest.mark.asyncio
async def test_a_name_with_several_addresses_is_bound_to_one_port_and_reached_at_any(opened: Opened) -> None:
    server = await opened("ws://localhost:0", listening=True)
    port = WebSocketURL.parse(server.url).port

    for host in ("127.0.0.1", "localhost"):
        client = await opened(f"ws://{host}:{port}")
        await client.send(host.encode(), client.peer)
        assert (await soon(server.receive()))[0] == host.encode()


@pytest.mark.asyncio
async def test_statistics_count_messages_and_bytes(pair: Callable[..., Any]) -> None:
    server, client = await pair()
    await client.send(b"abc", client.peer)
    await client.send(b"defg", client.peer)
    for _ in range(2):
        await soon(server.receive())

    assert (client.statistics().messages_sent, client.statistics().bytes_sent) == (2, 7)
    assert (server.statistics().messages_received, server.statistics().bytes_received) == (2, 7)


@pytest.mark.asyncio
async def test_a_message_above_the_limit_is_refused_at_once(pair: Callable[..., Any]) -> None:
    _, client = await pair(max_message_size=1000)

    with pytest.raises(TransportError, match="1000"):
        await client.send(bytes(1001), client.peer)
    with pytest.raises(TransportError, match="1000"):
        client.send_train(Train(bytes(1001), 1001), client.peer)


@pytest.mark.asyncio
async def test_a_message_above_the_peers_limit_ends_the_connection_with_1009(opened: Opened) -> None:
    server = await opened(LOCAL, listening=True, max_message_size=1000)
    client = await opened(server.url)

    await client.send(bytes(1001), client.peer)

    with pytest.raises(PeerUnreachable, match="1009"):
        await soon(client.receive())
    with pytest.raises(PeerUnreachable, match="1000 bytes"):
        await soon(server.receive())


@pytest.mark.asyncio
async def test_the_end_of_one_client_leaves_the_others(opened: Opened) -> None:
    server = await opened(LOCAL, listening=True)
    first, second = await opened(server.url), await opened(server.url)
    await first.send(b"first", first.peer)
    _, address = await soon(server.receive())

    await first.close()

    with pytest.raises(PeerUnreachable) as caught:
        await soon(server.receive())
    assert caught.value.address == address
    with pytest.raises(PeerUnreachable):
        await server.send(b"late", address)
    await second.send(b"second", second.peer)
    assert (await soon(server.receive()))[0] == b"second"


@pytest.mark.asyncio
async def test_what_was_sent_before_the_end_is_received_before_it(pair: Callable[..., Any]) -> None:
    server, client = await pair()
    message = os.urandom(2_000_000)
    await client.send(message, client.peer)
    await client.send(b"last", client.peer)
    closing = asyncio.create_task(client.close())

    assert (await soon(server.receive()))[0] == message
    assert (await soon(server.receive()))[0] == b"last"
    with pytest.raises(PeerUnreachable, match="1000"):
        await soon(server.receive())
    await soon(closing)


@pytest.mark.asyncio
async def test_a_closed_transport_raises_and_wakes_who_waits(pair: Callable[..., Any]) -> None:
    for transport in await pair():
        waiting = asyncio.create_task(transport.receive())
        await asyncio.sleep(0)
        await soon(transport.close())
        await soon(transport.close())

        with pytest.raises(TransportError):
            await soon(waiting)
        with pytest.raises(TransportError, match="closed"):
            await transport.send(b"x", transport.peer)
        with pytest.raises(TransportError):
            await soon(transport.receive())


@pytest.mark.asyncio
async def test_a_transport_that_was_never_opened_can_be_closed() -> None:
    await WebSocketTransport(LOCAL, listening=True).close()


@pytest.mark.asyncio
async def test_a_client_whose_connection_is_gone_fails_for_good(opened: Opened) -> None:
    server = await opened(LOCAL, listening=True)
    client = await opened(server.url)
    await server.close()

    with pytest.raises(PeerUnreachable, match="1001"):
        await soon(client.receive())
    with pytest.raises(TransportError, match="1001"):
        await soon(client.receive())


@pytest.mark.asyncio
async def test_sending_waits_while_the_peer_does_not_take_messages(pair: Callable[..., Any]) -> None:
    limits = {"send_buffer_size": 100_000, "receive_buffer_size": 100_000}
    server, client = await pair(**limits)
    message = os.urandom(100_000)
    sent = 0

    async def send_all() -> None:
        nonlocal sent
        for _ in range(400):
            await client.send(message, client.peer)
            sent += 1

    sending = asyncio.create_task(send_all())
    waits = -1
    while client.statistics().send_waits == 0 or waits != sent:
        waits = sent
        await asyncio.sleep(0.05)
    assert not sending.done()

    for _ in range(400):
        assert (await soon(server.receive()))[0] == message
    await soon(sending)


@pytest.mark.asyncio
async def test_a_new_client_waits_while_nothing_is_received(opened: Opened) -> None:
    server = await opened(LOCAL, listening=True, receive_buffer_size=1)
    first = await opened(server.url)
    await first.send(b"first", first.peer)
    while not server.statistics().messages_received:  # noqa: ASYNC110  counters tell nobody
        await asyncio.sleep(0.01)

    second = await opened(server.url)
    await second.send(b"second", second.peer)
    await asyncio.sleep(0.1)

    assert server.statistics().messages_received == 1
    assert (await soon(server.receive()))[0] == b"first"
    assert (await soon(server.receive()))[0] == b"second"


@pytest.mark.asyncio
async def test_who_waits_to_send_learns_that_the_connection_is_gone(opened: Opened) -> None:
    server = await opened(LOCAL, listening=True, receive_buffer_size=1, close_timeout=0.1)
    client = await opened(server.url, send_buffer_size=1, close_timeout=0.1)

    async def send_for_ever() -> None:
        while True:
            await client.send(bytes(1_000_000), client.peer)

    sending = asyncio.create_task(send_for_ever())
    while not client.statistics().send_waits:  # noqa: ASYNC110  counters tell nobody
        await asyncio.sleep(0.01)
    await soon(server.close())

    with pytest.raises(PeerUnreachable):
        await soon(sending)


# By trains and bursts


@pytest.mark.asyncio
async def test_each_segment_of_a_train_is_a_message(pair: Callable[..., Any], recorder: Any) -> None:
    server, client = await pair()
    receiver = recorder()
    server.start(receiver)
    data = os.urandom(2500)

    assert client.send_train(Train(data, 1000), client.peer)
    assert client.send_train(Train(b"one", 1000), client.peer)

    await receiver.until(lambda: len(receiver.messages) == 4)
    assert [message for message, _ in receiver.messages] == [data[:1000], data[1000:2000], data[2000:], b"one"]
    assert client.statistics().messages_sent == 4


@pytest.mark.asyncio
async def test_what_came_before_the_receiver_is_delivered_first(pair: Callable[..., Any], recorder: Any) -> None:
    server, client = await pair()
    for number in range(100):
        await client.send(bytes([number]), client.peer)
    while server.statistics().messages_received < 50:  # noqa: ASYNC110  counters tell nobody
        await asyncio.sleep(0.01)
    receiver = recorder()

    server.start(receiver)
    await client.close()

    await receiver.until(lambda: bool(receiver.unreachable))
    assert [message for message, _ in receiver.messages] == [bytes([number]) for number in range(100)]


@pytest.mark.asyncio
async def test_a_train_is_refused_above_the_high_water_mark_and_writable_is_called_later(
    pair: Callable[..., Any], recorder: Any
) -> None:
    server, client = await pair(send_buffer_size=1_000_000, receive_buffer_size=1)
    receiver = recorder()
    client.start(receiver)
    message = os.urandom(500_000)
    taken = 0
    while client.send_train(Train(message, len(message)), client.peer):
        taken += 1
        await asyncio.sleep(0)
    assert not receiver.writable_calls

    for _ in range(taken):
        assert (await soon(server.receive()))[0] == message

    await receiver.until(lambda: receiver.writable_calls == 1)
    assert client.send_train(Train(message, len(message)), client.peer)


@pytest.mark.asyncio
async def test_the_receiver_is_never_called_from_within_a_call(opened: Opened) -> None:
    server = await opened(LOCAL, listening=True)
    client = await opened(server.url, send_buffer_size=1)
    depth = 0

    class Receiver:
        def __getattr__(self, name: str) -> Callable[..., None]:
            def called(*_: object) -> None:
                assert depth == 0, name

            return called

    client.start(Receiver())
    for _ in range(20):
        depth += 1
        client.send_train(Train(bytes(1000), 1000), client.peer)
        client.send_train(Train(bytes(1000), 1000), ("127.0.0.1", 1, 99))
        depth -= 1
        await asyncio.sleep(0)
    await server.close()
    depth += 1
    client.send_train(Train(bytes(1000), 1000), client.peer)
    depth -= 1


@pytest.mark.asyncio
async def test_the_receiver_of_a_client_learns_of_the_end_of_its_connection(opened: Opened, recorder: Any) -> None:
    server = await opened(LOCAL, listening=True)
    client = await opened(server.url)
    receiver = recorder()
    client.start(receiver)

    await server.close()

    await receiver.until(lambda: bool(receiver.failures))
    ((address, reason),) = receiver.unreachable
    assert address == client.peer
    assert "1001" in reason
    assert receiver.failures == [reason]


@pytest.mark.asyncio
async def test_the_receiver_of_a_server_learns_of_the_end_of_a_client(opened: Opened, recorder: Any) -> None:
    server = await opened(LOCAL, listening=True)
    receiver = recorder()
    server.start(receiver)
    client = await opened(server.url)
    client.send_train(Train(b"here", 4), client.peer)
    await receiver.until(lambda: bool(receiver.messages))

    await client.close()

    await receiver.until(lambda: bool(receiver.unreachable))
    assert receiver.unreachable[0][0] == receiver.messages[0][1]
    assert not receiver.failures


@pytest.mark.asyncio
async def test_a_train_to_an_unknown_address_is_dropped_and_told(opened: Opened, recorder: Any) -> None:
    server = await opened(LOCAL, listening=True)
    receiver = recorder()
    server.start(receiver)
    nobody = ("127.0.0.1", 1, 1)

    assert server.send_train(Train(bytes(3000), 1000), nobody)

    await receiver.until(lambda: bool(receiver.unreachable))
    assert receiver.unreachable == [(nobody, "not connected")]
    assert server.statistics().messages_dropped == 3


@pytest.mark.asyncio
async def test_a_train_to_an_address_that_is_not_the_servers_does_not_end_a_client(
    pair: Callable[..., Any], recorder: Any
) -> None:
    server, client = await pair()
    receiver = recorder()
    client.start(receiver)

    assert client.send_train(Train(b"astray", 6), ("127.0.0.1", 1, 99))

    await receiver.until(lambda: bool(receiver.unreachable))
    assert not receiver.failures
    await client.send(b"still here", client.peer)
    assert (await soon(server.receive()))[0] == b"still here"


@pytest.mark.asyncio
async def test_small_messages_of_one_turn_arrive_in_order(pair: Callable[..., Any], recorder: Any) -> None:
    server, client = await pair(send_buffer_size=64 * 1024 * 1024)
    receiver = recorder()
    server.start(receiver)
    messages = [number.to_bytes(2, "big") * (number % 50) for number in range(20_000)]

    for message in messages:
        assert client.send_train(Train(message, 100), client.peer)

    await receiver.until(lambda: len(receiver.messages) == len(messages))
    assert [message for message, _ in receiver.messages] == messages


# Reaching each other


@pytest.mark.asyncio
async def test_nobody_listens(opened: Opened, free_port: int) -> None:
    for host in ("127.0.0.1", "localhost"):
        with pytest.raises(PeerUnreachable, match=f"port {free_port}"):
            await opened(f"ws://{host}:{free_port}")


@pytest.mark.asyncio
async def test_a_name_that_does_not_exist(opened: Opened) -> None:
    with pytest.raises(TransportError, match=r"name\.invalid"):
        await opened("ws://name.invalid:1")


@pytest.mark.asyncio
async def test_a_port_that_is_taken(opened: Opened) -> None:
    server = await opened(LOCAL, listening=True)

    with pytest.raises(TransportError, match="in use"):
        await opened(server.url, listening=True)


@pytest.mark.asyncio
async def test_only_the_path_of_the_listening_url_is_served(opened: Opened) -> None:
    server = await opened("ws://127.0.0.1:0/stt", listening=True)
    port = WebSocketURL.parse(server.url).port

    await opened(f"ws://127.0.0.1:{port}/stt?room=1")
    with pytest.raises(TransportError, match="404"):
        await opened(f"ws://127.0.0.1:{port}/other")


@pytest.mark.asyncio
async def test_another_subprotocol_is_refused(opened: Opened) -> None:
    server = await opened(LOCAL, listening=True)

    with pytest.raises(TransportError, match="400"):
        await opened(server.url, subprotocol="other")
    with pytest.raises(TransportError, match="400"):
        await opened(server.url, subprotocol=None)


@pytest.mark.asyncio
async def test_a_host_that_is_not_allowed_is_refused(opened: Opened) -> None:
    server = await opened(LOCAL, listening=True, allowed_hosts=frozenset({"Localhost"}))
    port = WebSocketURL.parse(server.url).port

    await opened(f"ws://localhost:{port}")
    with pytest.raises(TransportError, match="403"):
        await opened(f"ws://127.0.0.1:{port}")


@pytest.mark.asyncio
async def test_tls_takes_the_certificate_of_the_environment(
    opened: Opened, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STT_WEBSOCKET_CERTIFICATE", str(certificates / "certificate.pem"))
    monkeypatch.setenv("STT_WEBSOCKET_KEY", str(certificates / "key.pem"))
    monkeypatch.setenv("STT_WEBSOCKET_CA", str(certificates / "certificate.pem"))
    server = await opened("wss://localhost:0", listening=True)

    client = await opened(server.url)

    await client.send(b"x", client.peer)
    assert (await soon(server.receive()))[0] == b"x"


@pytest.mark.asyncio
async def test_a_certificate_of_nobody_known_is_refused(opened: Opened, server_tls: Any) -> None:
    server = await opened("wss://localhost:0", listening=True, server_tls=server_tls)

    with pytest.raises(TransportError, match="certificate is not accepted: self-signed"):
        await opened(server.url)


@pytest.mark.asyncio
async def test_a_certificate_for_another_name_is_refused(opened: Opened, certificates: Path) -> None:
    server_tls = server_context(certificates / "other.pem", certificates / "key.pem")
    server = await opened("wss://127.0.0.1:0", listening=True, server_tls=server_tls)

    with pytest.raises(TransportError, match=r"certificate is not accepted: .*127\.0\.0\.1"):
        await opened(server.url, client_tls=client_context(certificates / "other.pem"))


@pytest.mark.asyncio
async def test_a_client_of_tls_at_a_plain_server_fails_with_the_reason(opened: Opened, client_tls: Any) -> None:
    server = await opened(LOCAL, listening=True, handshake_timeout=1)

    with pytest.raises(TransportError, match="TLS failed"):
        await opened(server.url.replace("ws:", "wss:"), client_tls=client_tls)


@pytest.mark.asyncio
async def test_a_plain_client_at_a_server_of_tls_fails_with_the_reason(opened: Opened, server_tls: Any) -> None:
    server = await opened("wss://127.0.0.1:0", listening=True, server_tls=server_tls)

    with pytest.raises(TransportError, match=r"ended|reset|not HTTP|no WebSocket"):
        await opened(server.url.replace("wss:", "ws:"), handshake_timeout=2)


@pytest.mark.asyncio
async def test_a_silent_server_is_given_up(opened: Opened, silent_port: int) -> None:
    with pytest.raises(TransportError, match=r"within 0\.2 s"):
        await opened(f"ws://127.0.0.1:{silent_port}", handshake_timeout=0.2)


@pytest.mark.asyncio
async def test_opening_can_be_cancelled(opened: Opened, silent_port: int) -> None:
    opening = asyncio.create_task(opened(f"ws://127.0.0.1:{silent_port}"))
    await asyncio.sleep(0.1)

    opening.cancel()

    with pytest.raises(asyncio.CancelledError):
        await soon(opening)


@pytest.mark.asyncio
async def test_ends_and_refusals_are_logged_without_queries(opened: Opened, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "stt_websocket"):
        server = await opened(LOCAL, listening=True)
        client = await opened(f"{server.url}?token=secret")
        await client.close()
        with pytest.raises(TransportError):
            await opened(f"{server.url}?token=secret", subprotocol=None)

    lines = [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "stt_websocket"]
    assert any(level == "DEBUG" and "is connected" in line for level, line in lines)
    assert any(level == "INFO" and "closed by the peer: 1000" in line for level, line in lines)
    assert any(level == "INFO" and "refused" in line and "stt.v1" in line for level, line in lines)
    assert not any("secret" in line for _, line in lines)
