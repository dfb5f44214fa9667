"""What every transport keeps: the contract kit of :class:`~stt_core.interfaces.transport.Transport`."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Final

import pytest

from stt_core.errors import ConfigError, PeerUnreachable, TransportError
from stt_core.interfaces.transport import TransportCapabilities, TransportStatistics
from stt_core.testing.batch_rules import BatchRules
from stt_core.testing.contract import Leftovers, assert_same, rule
from stt_core.testing.transport_pair import CALM, TOO_MUCH, Place, Way, end_of, give_up, message, shown

if TYPE_CHECKING:
    from stt_core.interfaces.transport import Buffer, Transport, TransportFactory

HANDSHAKE_SIZE: Final = 1200
"""Bytes of a datagram of the handshake."""

_MAX_SIZE: Final = 64 * 1024 * 1024  # bytes that a receiver can be asked to hold for one message
_PEERS: Final = 12
_MESSAGES: Final = 200
_SENDERS: Final = 8
_MOMENTS: Final = 5  # iterations of the event loop within which a message comes
_STILL: Final = 40  # the part of the patience after which a send without progress is taken to wait
_NEVER_WAITS: Final = "a sender never waits: see test_a_sender_waits_while_nobody_receives"


class TransportContract(BatchRules):
    """The rules of transports; those of batch transports are for these only.

    Give the fixtures :meth:`factory`, :meth:`url` and :meth:`unusable_url`. What ``capabilities`` declares is checked:
    with ``reliable=True`` that nothing is lost, repeated or reordered, that a sender waits for a receiver that does not
    keep up, and that each side learns when the other one is gone.
    """

    @pytest.fixture
    def factory(self) -> TransportFactory:
        """Return what makes the transports, called as ``factory(url, listening=...)``."""
        self.to_be_given("factory", "what makes the transports, called as factory(url, listening=...)")

    @pytest.fixture
    def url(self) -> str:
        """Return a URL to listen at that no other test uses meanwhile, such as one with port 0."""
        self.to_be_given("url", "a URL to listen at, such as one with port 0")

    @pytest.fixture
    def unusable_url(self) -> str:
        """Return a URL of the right scheme that can be neither listened at nor dialled."""
        self.to_be_given("unusable_url", "a URL of the right scheme that cannot be used")

    @pytest.fixture
    def place(self, factory: TransportFactory, url: str) -> Place:
        """Return what opens the transports of a rule."""
        return Place(factory, url)

    # Making, opening

    @rule()
    def test_a_url_that_cannot_be_used_is_a_config_error(self, factory: TransportFactory, unusable_url: str) -> None:
        """The factory raises ConfigError, listening or not, before anything is opened."""
        for listening in (True, False):
            with pytest.raises(ConfigError):
                factory(unusable_url, listening=listening)

    @rule()
    def test_the_declared_sizes_carry_a_handshake(self, factory: TransportFactory, url: str) -> None:
        """1200 bytes or more are carried from the start, and one message has at most 64 MiB."""
        capabilities = factory(url, listening=True).capabilities
        assert isinstance(capabilities, TransportCapabilities)
        initial = capabilities.initial_message_size or capabilities.max_message_size
        assert HANDSHAKE_SIZE <= initial <= capabilities.max_message_size <= _MAX_SIZE

    @rule()
    async def test_who_dialled_knows_its_peer_and_a_listener_has_none(self, place: Place) -> None:
        """After open, ``peer`` is an address where a peer was dialled, and None at a listener."""
        async with place.pair() as pair:
            hash(pair.there.address)
            assert pair.back.sender.peer is None

    @rule()
    async def test_addresses_are_readable(self, place: Place) -> None:
        """An address tells people in logs who it is, so its text is not Python's default one."""
        async with place.pair() as pair:
            for address in (pair.there.address, pair.back.address):
                assert str(address)
                assert type(address).__str__ is not object.__str__ or type(address).__repr__ is not object.__repr__

    @rule()
    async def test_an_address_in_use_is_refused(self, place: Place) -> None:
        """A second listener at the real URL of a first one gets TransportError and disturbs nothing."""
        async with place:
            listener = await place.listen()
            second = place.factory(listener.url, listening=True)
            with pytest.raises(TransportError):
                await second.open()
            await second.close()
            await place.meet(listener)

    @rule()
    async def test_dialling_where_nobody_listens_raises_nothing_but_transport_errors(self, place: Place) -> None:
        """Errors of the host come as TransportError or PeerUnreachable, not as what the host's library raises."""
        async with place:
            listener = await place.listen()
            await place.close(listener)
            try:
                await place.dial(listener.url)
            except TransportError:
                pass
            except Exception as error:  # noqa: BLE001  whatever it is
                pytest.fail(f"open raised {error!r}")

    @rule()
    async def test_what_was_never_opened_can_be_closed(self, factory: TransportFactory, url: str) -> None:
        """A node closes what failed to open."""
        await factory(url, listening=True).close()

    # Messages

    @rule()
    async def test_an_empty_message_is_a_message(self, place: Place) -> None:
        """It has no bytes, and comes nevertheless."""
        async with place.pair() as pair:
            await pair.there.carry(b"")
            await pair.back.carry(b"")

    @rule()
    async def test_the_largest_message_comes_whole(self, place: Place) -> None:
        """So does one of ``initial_message_size``. A larger one gets through or lost, where messages may get lost."""
        async with place.pair() as pair:
            for way in (pair.there, pair.back):
                capabilities = way.sender.capabilities
                largest = message(1, capabilities.max_message_size)
                if way.reliable:
                    await way.carry(largest)
                    continue
                await way.carry(message(2, capabilities.initial_message_size or capabilities.max_message_size))
                for came in await way.carry_all([largest]):
                    assert_same(came, largest, f"{shown(came)} came, and nobody has sent it")

    @rule()
    async def test_a_message_above_the_largest_is_refused(self, place: Place) -> None:
        """TransportError at its sender; the transport works on."""
        async with place.pair() as pair:
            for way in (pair.there, pair.back):
                with pytest.raises(TransportError):
                    await way.send(bytes(way.sender.capabilities.max_message_size + 1))
                await way.carry(b"after it")

    @rule()
    async def test_every_message_comes_whole(self, place: Place) -> None:
        """Neither joined to another, nor cut, nor changed, whatever its size."""
        async with place.pair() as pair:
            for way in (pair.there, pair.back):
                sizes = [1 << power for power in range(way.bulk_size.bit_length())] + [3, 1000, 1199, 5000, 40_000]
                sent = [message(size, size) for size in sizes if size <= way.bulk_size]
                for came in await way.carry_all(sent):
                    assert came in sent, f"{shown(came)} came, and nobody has sent it"

    @rule(relaxed_by="declare reliable=False")
    async def test_all_messages_come_once_and_in_order(self, place: Place) -> None:
        """Both ways at a time, as fast as the transport takes them."""
        async with place.pair() as pair:
            _only_reliable(pair.there.sender)
            numbers = list(range(_MESSAGES))

            async def send(way: Way) -> None:
                for number in numbers:
                    await way.send(number.to_bytes(4, "big"))

            async def receive(way: Way) -> list[int]:
                return [int.from_bytes((await way.receive())[:4], "big") for _ in numbers]

            there, back = pair.there, pair.back
            _, _, came_there, came_back = await asyncio.gather(send(there), send(back), receive(there), receive(back))
            assert came_there == numbers
            assert came_back == numbers
            # Nothing came twice: what comes next is what is sent next.
            await there.carry(b"last")
            await back.carry(b"last")

    @rule()
    async def test_any_buffer_can_be_sent(self, place: Place) -> None:
        """``bytes``, ``bytearray``, ``memoryview``, read-only ones and parts of larger ones too."""
        async with place.pair() as pair:
            data = message(1, 600)
            buffers: list[Buffer] = [
                data,
                bytearray(data[:599]),
                memoryview(data)[:598],
                memoryview(bytearray(data))[100:500],
            ]
            for way in (pair.there, pair.back):
                for buffer in buffers:
                    await way.carry(buffer)

    @rule()
    async def test_a_received_message_stays_as_it_came(self, place: Place) -> None:
        """It is the receiver's to keep: no later message is written over it."""
        async with place.pair() as pair:
            for way in (pair.there, pair.back):
                kept: list[tuple[Buffer, bytes]] = []
                for number in range(10):
                    await way.send(message(number, 1000))
                    if (came := await way.next()) is not None:
                        kept.append((came[0], bytes(came[0])))
                for data, copy in kept:
                    assert_same(bytes(data), copy, "a message changed after it was received")

    @rule()
    async def test_many_tasks_may_send_at_a_time(self, place: Place) -> None:
        """Their messages stay apart."""
        async with place.pair() as pair:
            way = pair.there
            size = min(way.bulk_size, 8000)
            sent = {message(number, size - number) for number in range(_SENDERS * 4)}
            came = set(await way.carry_all(sent, _SENDERS))
            assert_same(came - sent, set(), "messages of several senders were mixed")
            if way.reliable:
                assert_same(came, sent, "messages were lost")

    # Peers

    @rule()
    async def test_answers_reach_who_asked(self, place: Place) -> None:
        """A listener has many peers, each with an address of its own."""
        async with place:
            listener = await place.listen()
            pairs = [await place.meet(listener, number) for number in range(_PEERS)]
            assert len({pair.back.address for pair in pairs}) == _PEERS
            for number, pair in enumerate(pairs):
                await pair.back.carry(b"to %d" % number)

    @rule()
    async def test_a_peer_keeps_its_address(self, place: Place) -> None:
        """Messages of one peer come from equal addresses with equal hashes."""
        async with place.pair() as pair:
            for number in range(3):
                await pair.there.send(b"%d" % number)
                if (came := await pair.there.next()) is not None:
                    assert came[1] == pair.back.address
                    assert hash(came[1]) == hash(pair.back.address)

    @rule()
    async def test_a_peer_that_leaves_does_not_disturb_the_others(self, place: Place) -> None:
        """Receiving may raise PeerUnreachable, with the address of who left, and goes on."""
        async with place:
            listener = await place.listen()
            leaving = await place.meet(listener, 0)
            staying = await place.meet(listener, 1)
            receiving = asyncio.ensure_future(_messages_until(listener, b"still here", leaving.back.address))
            await asyncio.sleep(0)
            await place.close(leaving.there.sender)
            while not (await asyncio.wait({receiving}, timeout=self.patience / CALM))[0]:
                await staying.there.send(b"still here")
            await receiving

    @rule(relaxed_by="declare reliable=False")
    async def test_sending_to_a_peer_that_left_raises_peer_unreachable(self, place: Place) -> None:
        """What is not delivered is not taken in silence; the error has the address."""
        async with place.pair() as pair:
            way = pair.back
            _only_reliable(way.sender)
            await place.close(way.receiver)
            receiving = asyncio.ensure_future(end_of(way.sender))
            error = await _refusal(way)
            give_up(receiving)
            assert isinstance(error, PeerUnreachable), f"send raised {error!r}"
            assert error.address == way.address

    @rule(relaxed_by="declare reliable=False")
    async def test_who_dialled_learns_that_the_listener_left(self, place: Place) -> None:
        """A waiting receive raises PeerUnreachable or TransportError, as there is nobody left to hear from."""
        async with place.pair() as pair:
            way = pair.there
            _only_reliable(way.sender)
            receiving = asyncio.ensure_future(way.sender.receive())
            await asyncio.sleep(0)
            await place.close(way.receiver)
            with pytest.raises(TransportError):
                await receiving

    # Backpressure, cancellation

    @rule(relaxed_by="declare reliable=False")
    async def test_a_sender_waits_while_nobody_receives(self, place: Place) -> None:
        """It takes a bounded number of messages, and goes on once they are received."""
        async with place.pair() as pair:
            _only_reliable(pair.there.sender)
            stalled = await pair.there.fill(self.patience / _STILL)
            assert stalled is not None, f"{TOO_MUCH >> 20} MiB were taken for a peer that takes none"
            for data in (*stalled.taken, stalled.data):
                assert_same(await pair.there.receive(), data, f"{shown(data)} was lost or changed")
            await stalled.sending

    @rule(relaxed_by="declare reliable=False")
    async def test_a_cancelled_send_leaves_no_part_of_a_message(self, place: Place) -> None:
        """It was sent whole or not at all, and what is sent after it comes whole."""
        async with place.pair() as pair:
            way = pair.there
            _only_reliable(way.sender)
            stalled = await way.fill(self.patience / _STILL) or pytest.skip(_NEVER_WAITS)
            stalled.sending.cancel()
            last = asyncio.ensure_future(way.send(b"last"))
            came = [await way.receive()]
            while came[-1] != b"last":
                came.append(await way.receive())
            await last
            if came[:-1] != stalled.taken:
                text = "a message came in part, or one that was taken was lost"
                assert_same(came[:-1], [*stalled.taken, stalled.data], text)

    @rule()
    async def test_a_cancelled_receive_loses_nothing(self, place: Place) -> None:
        """At whatever moment; where messages may get lost, the next receive works nevertheless."""
        async with place.pair() as pair:
            way = pair.there
            for number in range(_MESSAGES // 4 if way.reliable else 10):
                data = b"message %d" % number
                receiving = asyncio.ensure_future(way.receive())
                await way.send(data)
                for _ in range(number % _MOMENTS):
                    await asyncio.sleep(0)
                receiving.cancel()
                await asyncio.wait({receiving})
                if way.reliable:
                    came = await way.receive() if receiving.cancelled() else receiving.result()
                    assert came == data, f"{shown(data)} was lost"
            sent = {b"message %d" % number for number in range(_MESSAGES)}
            assert set(await way.carry_all(())) <= sent

    # Closing

    @rule()
    async def test_closing_twice_is_allowed(self, place: Place) -> None:
        """One after the other, and at a time."""
        async with place.pair() as pair:
            for transport in (pair.there.sender, pair.there.receiver):
                await asyncio.gather(place.close(transport), transport.close())
                await transport.close()

    @rule()
    async def test_a_closed_transport_raises_transport_errors(self, place: Place) -> None:
        """From send and receive, and no PeerUnreachable: that would say that other peers are left."""
        async with place.pair() as pair:
            for way in (pair.there, pair.back):
                await place.close(way.sender)
                for attempt in (functools.partial(way.send, b"too late"), way.sender.receive):
                    with pytest.raises(TransportError) as caught:
                        await attempt()
                    assert not isinstance(caught.value, PeerUnreachable)

    @rule()
    async def test_closing_ends_a_waiting_receive(self, place: Place) -> None:
        """It raises TransportError."""
        async with place.pair() as pair:
            for transport in (pair.there.sender, pair.there.receiver):
                receiving = asyncio.ensure_future(end_of(transport))
                await asyncio.sleep(0)
                await place.close(transport)
                await receiving

    @rule(relaxed_by="declare reliable=False")
    async def test_closing_ends_a_waiting_send(self, place: Place) -> None:
        """It raises TransportError, at whichever side is closed."""
        for closes_sender in (True, False):
            async with place.pair() as pair:
                way = pair.there
                _only_reliable(way.sender)
                stalled = await way.fill(self.patience / _STILL) or pytest.skip(_NEVER_WAITS)
                await place.close(way.sender if closes_sender else way.receiver)
                with pytest.raises(TransportError):
                    await stalled.sending

    @rule()
    async def test_closing_gives_the_address_back(self, place: Place) -> None:
        """The real URL can be listened at again, at once."""
        async with place.pair() as pair:
            listener = pair.there.receiver
            await place.close(listener)
            assert (await place.listen(listener.url)).url == listener.url

    @rule()
    async def test_closing_leaves_nothing_behind(self, place: Place) -> None:
        """No task, thread, socket or unheard exception, whichever side closes first."""

        async def use(*, listener_first: bool) -> None:
            async with place.pair() as pair:
                await pair.there.carry(b"there")
                await pair.back.carry(b"back")
                await pair.there.send(b"unread")
                transports = [pair.there.receiver, pair.there.sender]
                for transport in transports if listener_first else reversed(transports):
                    await place.close(transport)

        async with Leftovers():
            await use(listener_first=True)
            await use(listener_first=False)

    # Figures

    @rule()
    async def test_statistics_are_zero_or_right(self, place: Place) -> None:
        """A transport that counts messages and bytes counts those that were sent and received."""
        async with place.pair() as pair:
            way = pair.there
            before, received_before = way.sender.statistics(), way.receiver.statistics()
            came = 0
            for _ in range(3):
                await way.send(bytes(100))
                came += await way.next() is not None
            sent, received = way.sender.statistics(), way.receiver.statistics()
            assert isinstance(sent, TransportStatistics)
            assert sent.messages_sent - before.messages_sent in (0, 3)
            assert sent.bytes_sent - before.bytes_sent in (0, 300)
            # More may have come than was waited for, where messages may get lost.
            assert received.messages_received - received_before.messages_received in (0, *range(came, 4))
            assert received.bytes_received - received_before.bytes_received in (0, *range(100 * came, 301, 100))


def _only_reliable(transport: Transport) -> None:
    if not transport.capabilities.reliable:
        pytest.skip("it declares reliable=False")


async def _refusal(way: Way) -> TransportError:
    """Send until that raises."""
    while True:
        try:
            await way.send(b"anybody there?")
        except TransportError as error:
            return error
        await asyncio.sleep(0.01)


async def _messages_until(transport: Transport, last: bytes, left: object) -> None:
    while True:
        try:
            data, _ = await transport.receive()
        except PeerUnreachable as error:
            if error.address != left:
                pytest.fail(f"{error.address} is said to have left, but it was {left}")
        else:
            if bytes(data) == last:
                return
