"""What a transport that sends trains and delivers bursts keeps besides; part of the kit of transports."""

from __future__ import annotations

import asyncio
import functools
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import attrs
import pytest

from stt_core.interfaces.transport import BatchTransport, Train
from stt_core.testing.contract import Contract, assert_same, eventually, rule
from stt_core.testing.transport_pair import CALM, TOO_MUCH, Recorder, message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from stt_core.interfaces.transport import Address
    from stt_core.testing.transport_pair import Pair, Place

_SEGMENT: Final = 1000
_TRAIN: Final = 32  # messages
_ECHOES: Final = 40
_REPEATS: Final = 20  # of a train that may get lost


@attrs.frozen
class _Batches:
    """The two ends of a way, once they deliver to receivers."""

    sender: Recorder
    address: Address
    receiver: Recorder
    back: Address

    @property
    def reliable(self) -> bool:
        return self.sender.transport.capabilities.reliable

    async def carry(self, train: Train) -> list[bytes]:
        """Send a train, again while something is missing that may get lost; return what came."""
        count = len(train.segments())
        for _ in range(1 if self.reliable else _REPEATS):
            await self.sender.send_all(train, self.address)
            waiting = asyncio.ensure_future(eventually(lambda: len(set(self.receiver.data)) >= count))
            await asyncio.wait({waiting}, timeout=None if self.reliable else 0.2)
            if waiting.done():
                break
            waiting.cancel()
        return self.receiver.data


class BatchRules(Contract):
    """The rules of :class:`~stt_core.interfaces.transport.BatchTransport`; they are skipped for others."""

    @rule(relaxed_by="derive from Transport")
    async def test_a_train_is_cut_into_its_messages(self, place: Place) -> None:
        """Each ``segment_size`` bytes long, the last one at most that."""
        for size in (1, _SEGMENT - 1, _SEGMENT, _SEGMENT + 1, 7 * _SEGMENT, 7 * _SEGMENT + 1):
            async with _started(place) as batches:
                train = Train(message(size, size), _SEGMENT)
                wanted = [bytes(segment) for segment in train.segments()]
                came = await batches.carry(train)
                text = f"a train of {size} bytes was cut into {[*map(len, came)]}"
                if batches.reliable:
                    assert_same(came, wanted, text)
                else:
                    assert_same(set(came), set(wanted), text)

    @rule(relaxed_by="derive from Transport")
    async def test_a_burst_stays_as_it_came(self, place: Place) -> None:
        """Its buffers are the receiver's to keep."""
        async with _started(place) as batches:
            for number in range(5):
                await batches.carry(Train(message(number, 3 * _SEGMENT), _SEGMENT))
            kept = [bytes(data) for burst in batches.receiver.bursts for data, _ in burst]
            assert_same(kept, batches.receiver.data, "a message changed after it was delivered")

    @rule(relaxed_by="derive from Transport")
    async def test_a_receiver_is_never_called_from_within_a_call(self, place: Place) -> None:
        """Not while ``start`` or ``send_train`` runs, not even to answer what it sends while it is told something."""
        async with place.pair() as pair:
            _only_batch(pair)
            await pair.there.send(b"before the receiver")
            batches = _start(pair)
            left = [_ECHOES] * 2

            def echo(side: int, recorder: Recorder, data: bytes, address: Address) -> None:
                left[side] -= 1
                if left[side] > 0:
                    recorder.send(Train(data * 2 if len(data) < 4 * _SEGMENT else data, _SEGMENT), address)

            for side, recorder in enumerate((batches.sender, batches.receiver)):
                recorder.on_message = functools.partial(echo, side, recorder)
            batches.sender.send(Train(message(1, 600), _SEGMENT), batches.address)
            waiting = asyncio.ensure_future(eventually(lambda: min(left) <= 0))
            await asyncio.wait({waiting}, timeout=None if batches.reliable else 1.0)
            waiting.cancel()
            await place.close(batches.receiver.transport)
            batches.sender.send(Train(b"anybody there?", _SEGMENT), batches.address)
            await asyncio.sleep(self.patience / CALM)
            for recorder in (batches.sender, batches.receiver):
                assert not recorder.told_within, f"{recorder.told_within} was called before a call had returned"

    @rule(relaxed_by="derive from Transport")
    async def test_a_refused_train_is_followed_by_writable(self, place: Place) -> None:
        """Once there is room. Where nothing may be lost, trains are refused before memory runs out."""
        async with _started(place) as batches:
            refused = await _send_until_refused(batches)
            if batches.reliable:
                assert refused is not None, f"{TOO_MUCH >> 20} MiB of trains were taken at once"
            if refused is not None:
                await batches.sender.send_all(refused, batches.address)

    @rule(relaxed_by="declare reliable=False")
    async def test_nothing_of_a_refused_train_is_sent(self, place: Place) -> None:
        """What was taken comes whole, once and in order, and the refused train when it is sent again."""
        async with _started(place) as batches:
            if not batches.reliable:
                pytest.skip("it declares reliable=False")
            taken: list[bytes] = []
            refused = await _send_until_refused(batches, taken)
            if refused is None:
                pytest.skip("no train is refused: see test_a_refused_train_is_followed_by_writable")
            for _ in range(3):
                while not batches.sender.send(refused, batches.address):  # noqa: ASYNC110  whatever it is told
                    await asyncio.sleep(0.002)
                taken += [bytes(segment) for segment in refused.segments()]
            await eventually(lambda: len(batches.receiver.messages) >= len(taken))
            assert_same(
                batches.receiver.data, taken, "trains that were refused or taken came in part, twice or mixed up"
            )

    @rule(relaxed_by="declare reliable=False")
    async def test_what_came_before_the_receiver_is_delivered_to_it(self, place: Place) -> None:
        """In order, and before what comes later."""
        async with place.pair() as pair:
            _only_batch(pair)
            if not pair.there.reliable:
                pytest.skip("it declares reliable=False")
            early = [b"early %d" % number for number in range(5)]
            for data in early:
                await pair.there.send(data)
            batches = _start(pair)
            await batches.sender.send_all(Train(b"late", _SEGMENT), batches.address)
            await eventually(lambda: b"late" in batches.receiver.data)
            assert batches.receiver.data == [*early, b"late"]

    @rule(relaxed_by="declare reliable=False")
    async def test_a_receiver_learns_that_its_peer_left(self, place: Place) -> None:
        """By ``peer_unreachable`` with the address, or ``failed`` where it was the only one. Sending raises nothing."""
        for listener_leaves in (True, False):
            async with _started(place) as batches:
                if not batches.reliable:
                    pytest.skip("it declares reliable=False")
                left, stays = (
                    (batches.receiver, batches.sender) if listener_leaves else (batches.sender, batches.receiver)
                )
                address = batches.address if listener_leaves else batches.back
                await place.close(left.transport)
                await eventually(lambda: bool(stays.unreachable or (listener_leaves and stays.failures)))  # noqa: B023  at once
                assert set(stays.unreachable) <= {address}
                if not stays.failures:
                    stays.send(Train(b"anybody there?", _SEGMENT), address)

    @rule(relaxed_by="derive from Transport")
    async def test_a_receiver_is_left_alone_once_closed(self, place: Place) -> None:
        """After ``close`` has returned it is told nothing more."""
        async with _started(place) as batches:
            await batches.carry(Train(message(1, 3 * _SEGMENT), _SEGMENT))
            await batches.sender.send_all(Train(message(2, 3 * _SEGMENT), _SEGMENT), batches.address)
            recorder = batches.receiver
            await place.close(recorder.transport)
            told = recorder.told
            if not batches.reliable:
                await batches.sender.send_all(Train(message(3, 3 * _SEGMENT), _SEGMENT), batches.address)
            await place.close(batches.sender.transport)
            await asyncio.sleep(self.patience / CALM)
            assert recorder.told == told


@asynccontextmanager
async def _started(place: Place) -> AsyncIterator[_Batches]:
    async with place.pair() as pair:
        _only_batch(pair)
        yield _start(pair)


def _start(pair: Pair) -> _Batches:
    sender, receiver = Recorder(pair.there.sender), Recorder(pair.there.receiver)
    sender.start()
    receiver.start()
    return _Batches(sender, pair.there.address, receiver, pair.back.address)


def _only_batch(pair: Pair) -> None:
    if not isinstance(pair.there.sender, BatchTransport):
        pytest.skip("it is no BatchTransport")


async def _send_until_refused(batches: _Batches, taken: list[bytes] | None = None) -> Train | None:
    """Send trains until one is refused; None where far too much was taken."""
    size = min(batches.sender.transport.capabilities.initial_message_size or 4 * _SEGMENT, 4 * _SEGMENT)
    sent = 0
    number = 0
    while sent < TOO_MUCH:
        train = Train(message(number, size * _TRAIN), size)
        if not batches.sender.send(train, batches.address):
            return train
        if taken is not None:
            taken += [bytes(segment) for segment in train.segments()]
        sent += len(train.data)
        number += 1
    return None
