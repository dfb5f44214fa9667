"""Does a link carry messages for any transport, and is it lost alone, whatever that transport does?"""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import TYPE_CHECKING, Any

import pytest

from stt_core.defaults.memory_transport import MemoryTransport
from stt_core.engine.paths import PathKey
from stt_core.errors import ConfigError, PeerUnreachable, TransportError
from stt_core.interfaces import BatchTransport, Train, Transport, TransportCapabilities
from stt_core.links import OpenLink, open_link

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stt_core.engine.paths import Link
    from stt_core.interfaces import Address, Buffer, TransportReceiver

pytestmark = pytest.mark.asyncio

QUEUE_SIZE = 32
URL = "toy://user:password@host/path?token=secret"


class Owner:
    """Keeps what a link tells, and closes a link that is lost, as a node does."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        self.link: OpenLink | None = None

    async def next(self) -> tuple[str, Any]:
        async with asyncio.timeout(5):
            return await self.told.get()

    @property
    def is_quiet(self) -> bool:
        return self.told.empty()

    def messages_received(self, link: Link, messages: Sequence[tuple[Buffer, Address]]) -> None:
        self.told.put_nowait(("messages", [(bytes(data), address) for data, address in messages]))

    def peer_unreachable(self, link: Link, address: Address, reason: str) -> None:
        self.told.put_nowait(("unreachable", (address, reason)))

    def link_blocked(self, link: OpenLink) -> None:
        assert link.blocked

    def link_writable(self, link: Link) -> None:
        self.told.put_nowait(("writable", None))

    def link_lost(self, link: Link, reason: str) -> None:
        self.told.put_nowait(("lost", reason))
        if self.link is not None:
            self.link.close()


class Toy(Transport):
    """Receives what a test puts into ``inbox``, raising errors among it; sends into ``sent`` while the gate is open."""

    capabilities = TransportCapabilities(reliable=True, max_message_size=1000)

    def __init__(self, url: str = URL, *, listening: bool = False) -> None:
        super().__init__(url, listening=listening)
        self.inbox: asyncio.Queue[Any] = asyncio.Queue()
        self.sent: list[tuple[bytes, Address]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.refusals: dict[bytes, BaseException] = {}
        self.closed = 0

    async def open(self) -> None:
        self.peer = "peer"

    async def send(self, data: Buffer, address: Address) -> None:
        await self.gate.wait()
        refusal = self.refusals.get(bytes(data))
        if refusal is not None:
            raise refusal
        self.sent.append((bytes(data), address))

    async def receive(self) -> tuple[Buffer, Address]:
        message = await self.inbox.get()
        if isinstance(message, BaseException):
            raise message
        received: tuple[Buffer, Address] = message
        return received

    async def close(self) -> None:
        self.closed += 1


class LossyToy(Toy):
    capabilities = TransportCapabilities(reliable=False, max_message_size=1000)


class BatchToy(BatchTransport):
    """Takes trains while ``room`` lasts."""

    capabilities = TransportCapabilities(reliable=True, max_message_size=1000)

    def __init__(self, url: str = URL, *, listening: bool = False) -> None:
        super().__init__(url, listening=listening)
        self.receiver: TransportReceiver | None = None
        self.room = 1000
        self.stuck: set[Address] = set()
        self.trains: list[tuple[bytes, Address]] = []
        self.refusal: Exception | None = None
        self.closed = 0

    async def open(self) -> None:
        self.peer = "peer"

    def start(self, receiver: TransportReceiver) -> None:
        self.receiver = receiver

    def send_train(self, train: Train, address: Address) -> bool:
        if self.refusal is not None:
            raise self.refusal
        if not self.room or address in self.stuck:
            return False
        self.room -= 1
        self.trains.append((bytes(train.data), address))
        return True

    async def send(self, data: Buffer, address: Address) -> None:
        raise AssertionError("a batch transport is given trains")

    async def receive(self) -> tuple[Buffer, Address]:
        raise AssertionError("a batch transport delivers by itself")

    async def close(self) -> None:
        self.closed += 1


async def opened(transport: Transport) -> tuple[OpenLink, Owner]:
    owner = Owner()
    await transport.open()
    owner.link = OpenLink(transport, owner)
    return owner.link, owner


def making(transport: Transport) -> Callable[..., Transport]:
    """Return a factory that makes that transport."""

    def factory(*_: str, **__: bool) -> Transport:
        return transport

    return factory


def train(*messages: bytes) -> Train:
    return Train(b"".join(messages), len(messages[0]))


# Opening


async def test_an_opened_link_knows_its_transport() -> None:
    transport = Toy()

    link = await open_link(making(transport), "toy://", Owner(), listening=False)

    assert link.transport is transport
    assert link.link.capabilities is transport.capabilities
    await link.close()
    assert transport.closed == 1


@pytest.mark.parametrize(
    "error", [ConfigError("no such name"), PeerUnreachable("a", "nobody"), TransportError("in use")]
)
@pytest.mark.parametrize("fails_to", ["be made", "open"])
async def test_errors_that_the_interface_promises_pass(error: Exception, fails_to: str) -> None:
    made = []

    class Failing(Toy):
        def __init__(self, url: str, *, listening: bool) -> None:
            if fails_to == "be made":
                raise error
            super().__init__(url, listening=listening)
            made.append(self)

        async def open(self) -> None:
            raise error

    with pytest.raises(type(error)) as caught:
        await open_link(Failing, URL, Owner(), listening=True)

    assert caught.value is error
    assert all(transport.closed == 1 for transport in made)


@pytest.mark.parametrize(
    "error", [OSError("no such device"), TimeoutError(), KeyError("x"), asyncio.CancelledError()], ids=repr
)
async def test_any_other_error_becomes_a_transport_error_without_what_is_secret(error: BaseException) -> None:
    transport = Toy()

    async def fail() -> None:
        raise error

    transport.open = fail  # type: ignore[method-assign]  # of this one

    with pytest.raises(TransportError, match="toy://host/path: the transport failed to open") as caught:
        await open_link(making(transport), URL, Owner(), listening=True)

    assert type(error).__name__ in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "password" not in str(caught.value)
    assert transport.closed == 1


async def test_a_transport_that_does_not_name_its_peer_cannot_be_used() -> None:
    transport = Toy()

    async def forget() -> None:
        pass

    transport.open = forget  # type: ignore[method-assign]  # of this one

    with pytest.raises(TransportError, match="address of the peer"):
        await open_link(making(transport), URL, Owner(), listening=False)

    assert transport.closed == 1


async def test_a_batch_transport_that_does_not_start_is_closed() -> None:
    transport = BatchToy()

    def fail(receiver: TransportReceiver) -> None:
        raise OSError(f"cannot deliver to {type(receiver).__name__}")

    transport.start = fail  # type: ignore[method-assign]  # of this one

    with pytest.raises(TransportError, match="cannot deliver to OpenLink"):
        await open_link(making(transport), URL, Owner(), listening=True)

    assert transport.closed == 1


async def test_a_cancelled_open_closes_what_was_begun() -> None:
    opening = asyncio.Event()

    class Slow(Toy):
        async def open(self) -> None:
            opening.set()
            await asyncio.Event().wait()

    transport = Slow()
    task = asyncio.create_task(open_link(making(transport), URL, Owner(), listening=True))

    await opening.wait()
    task.cancel()
    await asyncio.wait([task])

    assert task.cancelled()
    assert transport.closed == 1


async def test_an_error_in_closing_hides_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Toy):
        async def open(self) -> None:
            raise TransportError("in use")

        async def close(self) -> None:
            raise OSError("broken twice")

    with pytest.raises(TransportError, match="in use"):
        await open_link(Broken, URL, Owner(), listening=True)

    assert "broken twice" in caplog.text
    assert "secret" not in caplog.text


# Message by message


async def test_messages_are_handed_in_as_they_come() -> None:
    transport = Toy()
    link, owner = await opened(transport)

    transport.inbox.put_nowait((b"one", "a"))
    transport.inbox.put_nowait((memoryview(b"two"), "b"))

    assert await owner.next() == ("messages", [(b"one", "a")])
    assert await owner.next() == ("messages", [(b"two", "b")])
    await link.close()


async def test_a_train_is_sent_message_by_message() -> None:
    transport = Toy()
    link, _ = await opened(transport)

    link.send(train(b"111", b"222", b"3"), "a")
    link.send(train(b"4"), "b")
    await link.close()

    assert transport.sent == [(b"111", "a"), (b"222", "a"), (b"3", "a"), (b"4", "b")]


async def test_a_link_is_blocked_while_its_queue_is_full() -> None:
    transport = Toy()
    link, owner = await opened(transport)
    transport.gate.clear()

    for number in range(QUEUE_SIZE):
        assert not link.blocked
        link.send(train(bytes([number])), "a")
    assert link.blocked
    assert owner.is_quiet
    transport.gate.set()

    assert await owner.next() == ("writable", None)
    assert not link.blocked
    await link.close()
    assert len(transport.sent) == QUEUE_SIZE


async def test_an_address_that_takes_nothing_holds_no_other_up() -> None:
    class OneStuck(Toy):
        async def send(self, data: Buffer, address: Address) -> None:
            if address == "stuck":
                await self.gate.wait()
            self.sent.append((bytes(data), address))

    transport = OneStuck()
    transport.gate.clear()
    link, owner = await opened(transport)

    for _ in range(QUEUE_SIZE + 1):
        link.send(train(b"for the stuck one"), "stuck")
        await asyncio.sleep(0)
    link.send(train(b"hello"), "good")
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert transport.sent == [(b"hello", "good")]
    assert link.blocked == {PathKey(link.link, "stuck")}
    transport.gate.set()
    assert await owner.next() == ("writable", None)
    assert not link.blocked
    await link.close()


async def test_datagrams_wait_in_one_line() -> None:
    transport = LossyToy()
    transport.gate.clear()
    link, _ = await opened(transport)

    for number in range(QUEUE_SIZE + 1):
        link.send(train(bytes([number])), number)
        await asyncio.sleep(0)
    assert link.blocked == {link.link}
    transport.gate.set()
    await link.close()

    assert [address for _, address in transport.sent] == list(range(QUEUE_SIZE + 1))


async def test_an_address_that_is_gone_costs_its_train_and_no_other() -> None:
    transport = Toy()
    transport.refusals[b"222"] = PeerUnreachable(["an", "address", "of", "another", "form"], "gone")
    link, owner = await opened(transport)

    link.send(train(b"111", b"222", b"333"), "a")
    link.send(train(b"444"), "b")

    assert await owner.next() == ("unreachable", ("a", "gone"))
    await link.close()
    assert transport.sent == [(b"111", "a"), (b"444", "b")]


async def test_a_message_that_a_reliable_transport_does_not_send_ends_the_path() -> None:
    transport = Toy()
    transport.refusals[b"222"] = TransportError("too large")
    link, owner = await opened(transport)

    link.send(train(b"111", b"222", b"333"), "a")
    link.send(train(b"444"), "b")

    assert await owner.next() == ("unreachable", ("a", "too large"))
    await link.close()
    assert transport.sent == [(b"111", "a"), (b"444", "b")]


async def test_a_message_that_another_transport_does_not_send_is_lost_like_any() -> None:
    transport = LossyToy()
    transport.refusals[b"222"] = TransportError("too large")
    link, owner = await opened(transport)

    link.send(train(b"111", b"222", b"333"), "a")
    await link.close()

    assert transport.sent == [(b"111", "a"), (b"333", "a")]
    assert owner.is_quiet


async def test_a_peer_that_is_gone_is_told_and_others_go_on() -> None:
    transport = Toy()
    link, owner = await opened(transport)

    transport.inbox.put_nowait(PeerUnreachable("a", "closed"))
    transport.inbox.put_nowait((b"hello", "b"))

    assert await owner.next() == ("unreachable", ("a", "closed"))
    assert await owner.next() == ("messages", [(b"hello", "b")])
    await link.close()


async def test_the_end_of_a_transport_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    transport = Toy()
    link, owner = await opened(transport)

    transport.inbox.put_nowait(TransportError("the cable is cut"))

    assert await owner.next() == ("lost", "the cable is cut")
    await link.close()
    assert owner.is_quiet
    assert transport.closed == 1
    assert not caplog.records


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (ValueError("what?"), "ValueError: what?"),
        (ConnectionResetError(), "ConnectionResetError"),
        (asyncio.CancelledError(), "CancelledError"),
        (None, "cannot unpack"),
        ((b"data",), "not enough values"),
        (("text", "a"), "receive() returned str where a message should be"),
        ((None, "a"), "receive() returned NoneType where a message should be"),
    ],
    ids=repr,
)
async def test_whatever_receive_does_wrong_the_link_is_lost_and_the_log_says_why(
    item: object, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    transport = Toy()
    link, owner = await opened(transport)

    transport.inbox.put_nowait(item)

    told, text = await owner.next()
    assert told == "lost"
    assert reason in text
    await link.close()
    assert transport.closed == 1
    assert "toy://host/path: the transport failed" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("error", [ValueError("what?"), OSError(), asyncio.CancelledError()], ids=repr)
async def test_whatever_send_does_wrong_the_link_is_lost(error: BaseException) -> None:
    transport = Toy()
    transport.refusals[b"222"] = error
    link, owner = await opened(transport)

    link.send(train(b"222"), "a")
    link.send(train(b"333"), "a")

    told, text = await owner.next()
    assert told == "lost"
    assert type(error).__name__ in text
    await link.close()
    assert transport.sent == []
    assert owner.is_quiet


async def test_a_link_is_lost_once_even_if_both_directions_fail() -> None:
    transport = Toy()
    transport.gate.clear()
    transport.refusals[b"1"] = OSError("cannot send")
    link, owner = await opened(transport)

    link.send(train(b"1"), "a")
    transport.inbox.put_nowait(OSError("cannot receive"))
    assert await owner.next() == ("lost", "OSError: cannot receive")
    transport.gate.set()

    await link.close()
    assert owner.is_quiet


async def test_a_transport_that_never_waits_lets_others_run() -> None:
    class Flood(Toy):
        async def receive(self) -> tuple[Buffer, Address]:
            return b"again", "a"

    link, _ = await opened(Flood())

    for _ in range(10):
        await asyncio.sleep(0)

    await link.close()


async def test_a_transport_that_fails_over_and_over_lets_others_run() -> None:
    class Flood(Toy):
        async def receive(self) -> tuple[Buffer, Address]:
            raise PeerUnreachable("a", "still not there")

    link, _ = await opened(Flood())

    for _ in range(10):
        await asyncio.sleep(0)

    await link.close()


# By trains and bursts


async def test_a_batch_transport_is_given_trains_whole_and_gives_bursts() -> None:
    transport = BatchToy()
    link, owner = await opened(transport)
    assert transport.receiver is not None

    link.send(train(b"111", b"222", b"3"), "a")
    transport.receiver.messages_received([(b"one", "a"), (b"two", "a")])
    transport.receiver.peer_unreachable("b", "gone")

    assert transport.trains == [(b"1112223", "a")]
    assert await owner.next() == ("messages", [(b"one", "a"), (b"two", "a")])
    assert await owner.next() == ("unreachable", ("b", "gone"))
    await link.close()
    assert transport.closed == 1


async def test_trains_that_are_refused_wait_in_order() -> None:
    transport = BatchToy()
    transport.room = 1
    link, owner = await opened(transport)
    assert transport.receiver is not None

    for text in (b"1", b"2", b"3"):
        link.send(train(text), "a")
    assert link.blocked
    transport.room = 1
    transport.receiver.writable()
    assert link.blocked
    assert owner.is_quiet
    transport.room = 2
    transport.receiver.writable()

    assert not link.blocked
    assert owner.told.get_nowait() == ("writable", None)
    assert [data for data, _ in transport.trains] == [b"1", b"2", b"3"]
    await link.close()


async def test_a_peer_that_reads_nothing_holds_no_other_up() -> None:
    transport = BatchToy()
    transport.stuck = {"a", "b"}
    link, owner = await opened(transport)
    assert transport.receiver is not None
    for address in ("a", "b", "good"):
        link.send(train(b"1"), address)
        link.send(train(b"2"), address)
    assert [address for _, address in transport.trains] == ["good", "good"]
    assert link.blocked == {PathKey(link.link, "a"), PathKey(link.link, "b")}

    transport.stuck = {"a"}
    transport.receiver.writable()

    assert transport.trains[2:] == [(b"1", "b"), (b"2", "b")]
    assert link.blocked == {PathKey(link.link, "a")}
    assert owner.told.get_nowait() == ("writable", None)
    transport.receiver.writable()
    assert owner.is_quiet
    transport.stuck = set()
    transport.receiver.writable()
    await link.close()
    assert transport.trains[4:] == [(b"1", "a"), (b"2", "a")]


async def test_datagrams_that_are_refused_wait_in_one_line() -> None:
    class LossyBatchToy(BatchToy):
        capabilities = TransportCapabilities(reliable=False, max_message_size=1000)

    transport = LossyBatchToy()
    transport.stuck = {"a"}
    link, _ = await opened(transport)
    assert transport.receiver is not None

    link.send(train(b"1"), "a")
    link.send(train(b"2"), "b")

    assert link.blocked == {link.link}
    transport.stuck = set()
    transport.receiver.writable()
    assert transport.trains == [(b"1", "a"), (b"2", "b")]
    await link.close()


@pytest.mark.parametrize(
    ("error", "reason"),
    [(TransportError("no such device"), "no such device"), (OSError("what?"), "OSError: what?")],
)
async def test_a_batch_transport_that_raises_is_lost(error: Exception, reason: str) -> None:
    transport = BatchToy()
    link, owner = await opened(transport)
    transport.refusal = error

    link.send(train(b"1"), "a")
    link.send(train(b"2"), "a")

    assert await owner.next() == ("lost", reason)
    await link.close()
    assert owner.is_quiet
    assert transport.closed == 1


async def test_a_batch_transport_that_raises_for_what_waits_is_lost() -> None:
    transport = BatchToy()
    transport.room = 0
    link, owner = await opened(transport)
    assert transport.receiver is not None
    for text in (b"1", b"2"):
        link.send(train(text), "a")

    transport.refusal = TransportError("no such device")
    transport.receiver.writable()

    assert await owner.next() == ("lost", "no such device")
    assert owner.is_quiet
    await link.close()


async def test_a_batch_transport_that_has_failed_is_lost_once() -> None:
    transport = BatchToy()
    link, owner = await opened(transport)
    assert transport.receiver is not None

    transport.receiver.failed("the socket is gone")
    transport.receiver.failed("the socket is gone")
    transport.receiver.messages_received([(b"late", "a")])
    transport.receiver.peer_unreachable("a", "late as well")
    transport.receiver.writable()

    assert await owner.next() == ("lost", "the socket is gone")
    await link.close()
    assert owner.is_quiet


# Closing


@pytest.mark.parametrize("make", [Toy, BatchToy])
async def test_closing_twice_closes_once(make: Callable[[], Toy | BatchToy]) -> None:
    transport = make()
    link, _ = await opened(transport)

    first, second = link.close(), link.close()
    await asyncio.gather(first, second)

    assert first is second
    assert transport.closed == 1


async def test_what_waits_leaves_before_the_transport_closes() -> None:
    transport = Toy()
    link, _ = await opened(transport)
    transport.gate.clear()
    for text in (b"1", b"2"):
        link.send(train(text), "a")

    closing = link.close()
    await asyncio.sleep(0)
    link.send(train(b"3"), "a")
    transport.gate.set()
    await closing

    assert [data for data, _ in transport.sent] == [b"1", b"2", b"3"]


async def test_what_a_batch_transport_refused_leaves_before_it_closes() -> None:
    transport = BatchToy()
    transport.room = 0
    link, _ = await opened(transport)
    assert transport.receiver is not None
    link.send(train(b"1"), "a")

    closing = link.close()
    await asyncio.sleep(0)
    transport.room = 1
    transport.receiver.writable()
    await closing

    assert transport.trains == [(b"1", "a")]


async def test_what_the_owner_held_back_leaves_as_well() -> None:
    class Reluctant(Owner):
        held = train(b"the end")

        def link_writable(self, link: Link) -> None:
            asyncio.get_running_loop().call_soon(self.send_held)

        def send_held(self) -> None:
            assert self.link is not None
            self.link.send(self.held, "a")

    transport = BatchToy()
    transport.room = 0
    owner = Reluctant()
    owner.link = OpenLink(transport, owner)
    assert transport.receiver is not None
    owner.link.send(train(b"1"), "a")

    closing = owner.link.close()
    await asyncio.sleep(0)
    transport.room = 2
    transport.receiver.writable()
    await closing

    assert [data for data, _ in transport.trains] == [b"1", b"the end"]


@pytest.mark.parametrize("make", [Toy, BatchToy])
async def test_a_transport_that_takes_nothing_holds_nobody_up_for_long(make: Callable[[], Toy | BatchToy]) -> None:
    transport = make()
    link, owner = await opened(transport)
    if isinstance(transport, Toy):
        transport.gate.clear()
    else:
        transport.room = 0
    link.send(train(b"1"), "a")

    async with asyncio.timeout(5):
        await link.close()

    assert transport.closed == 1
    link.send(train(b"2"), "a")
    assert not link.blocked
    assert owner.is_quiet


async def test_a_transport_that_fails_to_close_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Toy):
        async def close(self) -> None:
            raise OSError("cannot close")

    link, _ = await opened(Broken())

    with caplog.at_level(logging.ERROR):
        await link.close()

    assert "toy://host/path: the transport failed to close" in caplog.text
    assert "cannot close" in caplog.text


async def test_closing_that_is_cancelled_is_cancelled() -> None:
    class Slow(Toy):
        closing = asyncio.Event()

        async def close(self) -> None:
            self.closing.set()
            await asyncio.Event().wait()

    link, _ = await opened(Slow())
    closing = link.close()
    await Slow.closing.wait()

    closing.cancel()
    await asyncio.wait([closing])

    assert closing.cancelled()


async def test_a_link_leaves_no_task_behind() -> None:
    before = asyncio.all_tasks()
    listener = MemoryTransport(f"memory://{secrets.token_hex(8)}", listening=True)
    link, _ = await opened(listener)
    link.send(train(b"1"), "nobody")

    await link.close()

    assert asyncio.all_tasks() == before
