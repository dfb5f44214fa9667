"""What every congestion controller keeps: the contract kit of :class:`CongestionController`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import attrs
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from stt_core.interfaces.congestion import AckSample
from stt_core.testing.bottleneck import Bottleneck
from stt_core.testing.contract import Contract, rule

if TYPE_CHECKING:
    from stt_core.interfaces.congestion import CongestionController, ControllerFactory

_DATAGRAM: Final = 1200  # bytes
_SIZES: Final = (1200, 1472, 9000, 65_507)
_RATE: Final = 625_000.0  # bytes a second: 5 Mbit/s
_ROUND_TRIP: Final = 0.0625  # seconds; a power of two, so that times that are moved stay exact
_FULL: Final = int(_RATE * _ROUND_TRIP)  # bytes that the link holds without a queue
_SETTLED: Final = 4.0  # seconds after which what is measured is no start any more
_MEASURED: Final = 2.0  # seconds
_ACKNOWLEDGEMENTS: Final = 2000


class CongestionControllerContract(Contract):
    """The rules of congestion controllers. Give the fixture :meth:`factory`.

    Most of them hold whatever a controller's idea is. Three run it on a simulated link of 5 Mbit/s and ask for little:
    to use most of it, not to flood it, and to come back after an outage.
    """

    @pytest.fixture
    def factory(self) -> ControllerFactory:
        """Return what makes the controllers, called with the size of a datagram."""
        self.to_be_given("factory", "what makes the controllers, called as factory(datagram_size)")

    # One controller

    @rule()
    def test_it_has_a_name(self, factory: ControllerFactory) -> None:
        """The one that the configuration asks for: a word."""
        name = factory(_DATAGRAM).name
        assert isinstance(name, str)
        assert name.isidentifier()

    @rule()
    def test_it_knows_the_size_of_datagrams(self, factory: ControllerFactory) -> None:
        """The one that it was made with, and then what it is told."""
        for size in _SIZES:
            controller = factory(_DATAGRAM)
            assert controller.datagram_size == _DATAGRAM
            controller.datagram_size_changed(size)
            assert controller.datagram_size == size

    @rule()
    def test_the_first_window_is_at_most_that_of_rfc_9002(self, factory: ControllerFactory) -> None:
        """Section 7.2: ten datagrams, or 14,720 bytes or two datagrams where these are large."""
        for size in _SIZES:
            assert 0 < factory(size).window <= min(10 * size, max(14_720, 2 * size))

    @rule()
    def test_a_larger_datagram_fits_the_window(self, factory: ControllerFactory) -> None:
        """Once the path is known to carry it; also when the window is at its minimum."""
        for size in _SIZES:
            controller = factory(_DATAGRAM)
            controller.congestion_persisted(1.0)
            controller.datagram_size_changed(size)
            assert controller.window >= size

    @rule()
    def test_window_and_rate_stay_sane_whatever_happens(self, factory: ControllerFactory) -> None:
        """A positive whole number, and a positive finite one or None, after any events in any order."""

        @settings(
            max_examples=60,
            deadline=None,
            database=None,
            derandomize=True,
            phases=(Phase.explicit, Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        @given(st.sampled_from(_SIZES), st.lists(_events(), max_size=60))
        @example(
            _DATAGRAM,
            [(kind, size, 0.0, _NOTHING) for kind, size in (("sent", 12_001), ("lost", 12_000), ("acknowledged", 1))],
        )
        def check(size: int, events: list[_Event]) -> None:
            controller = factory(size)
            now, in_flight, rtt = 0.0, 0, 0.05
            for kind, amount, wait, details in events:
                now += wait
                part = min(in_flight, amount)
                if kind == "sent":
                    in_flight += amount
                    controller.sent(amount, in_flight, now)
                elif kind == "acknowledged" and part:
                    in_flight -= part
                    rtt = details.rtt or rtt
                    controller.acknowledged(_sample(now, part, in_flight, rtt, details))
                elif kind == "lost" and part:
                    in_flight -= part
                    controller.lost(part, max(0.0, now - wait), in_flight, now)
                elif kind == "persisted":
                    controller.congestion_persisted(now)
                elif kind == "resized":
                    controller.datagram_size_changed(_SIZES[amount % len(_SIZES)])
                assert type(controller.window) is int
                assert controller.window > 0
                pace = controller.pacing_rate(rtt)
                assert pace is None or 0 < pace < math.inf

        check()

    @rule()
    def test_controllers_share_nothing(self, factory: ControllerFactory) -> None:
        """Each path has one of its own."""
        untouched, used = factory(_DATAGRAM), factory(_DATAGRAM)
        before = untouched.window, untouched.pacing_rate(_ROUND_TRIP)
        _path(used).run(1.0)
        used.congestion_persisted(1.0)
        assert (untouched.window, untouched.pacing_rate(_ROUND_TRIP)) == before

    @rule()
    def test_it_knows_no_time_but_what_it_is_told(self, factory: ControllerFactory) -> None:
        """The same events an hour later lead to the same windows and rates."""
        traces = []
        for begin in (0.0, 4096.0):
            path = _path(factory(_DATAGRAM), now=begin)
            trace: list[float] = []
            for _ in range(64):
                path.run(_ROUND_TRIP)
                trace += (path.controller.window, path.controller.pacing_rate(_ROUND_TRIP) or 0.0)
            traces.append(trace)
        # Far moments are told apart a little less exactly.
        assert traces[0] == pytest.approx(traces[1], rel=0.05)

    # What it does

    @rule()
    def test_losses_of_one_flight_count_once(self, factory: ControllerFactory) -> None:
        """RFC 9002 section 7.3.2: losses that are told bit by bit, of what left before the first was known."""
        controller = factory(_DATAGRAM)
        path = _path(controller)
        path.run(0.5)
        now, in_flight = path.now, path.bytes_in_flight
        controller.lost(_DATAGRAM, now - 0.01, in_flight, now)
        once = controller.window
        for number in range(1, 10):
            controller.lost(_DATAGRAM, now - 0.01 + number / 1024, in_flight - number * _DATAGRAM, now + number / 256)
        assert controller.window >= once / 2, f"the window went from {once} to {controller.window} bytes"

    @rule()
    def test_what_an_idle_sender_gets_through_means_nothing(self, factory: ControllerFactory) -> None:
        """RFC 9002 section 7.8: the window does not grow for datagrams that it has not held back."""
        controller = factory(_DATAGRAM)
        first = controller.window
        for number in range(_ACKNOWLEDGEMENTS):
            now = number * _ROUND_TRIP
            controller.sent(_DATAGRAM, _DATAGRAM, now)
            now += _ROUND_TRIP
            details = _Details(rtt=_ROUND_TRIP, rate=_DATAGRAM / _ROUND_TRIP, app_limited=True, age=_ROUND_TRIP)
            controller.acknowledged(_sample(now, _DATAGRAM, 0, _ROUND_TRIP, details))
        assert controller.window <= 2 * first, f"the window went from {first} to {controller.window} bytes"

    @rule()
    def test_persistent_congestion_leaves_a_small_window(self, factory: ControllerFactory) -> None:
        """Section 7.6.2: the minimum, here at most four datagrams."""
        controller = factory(_DATAGRAM)
        path = _path(controller)
        path.run(_SETTLED)
        controller.congestion_persisted(path.now)
        assert controller.window <= 4 * _DATAGRAM

    @rule()
    def test_it_uses_most_of_a_link(self, factory: ControllerFactory) -> None:
        """Of one that nobody else uses, with a queue as large as the link itself."""
        path = _path(factory(_DATAGRAM))
        path.run(_SETTLED)
        used = path.run(_MEASURED) / (_RATE * _MEASURED)
        assert used > 0.7, f"it uses {used:.0%} of the link"

    @rule()
    def test_it_does_not_flood_a_link(self, factory: ControllerFactory) -> None:
        """Not a tenth of what it sends gets lost, though the queue is small."""
        path = _path(factory(_DATAGRAM), queue_size=_FULL // 2)
        path.run(2 * _SETTLED)
        lost = path.bytes_lost / path.bytes_sent
        assert lost < 0.1, f"{lost:.0%} of what it sends is lost"

    @rule()
    def test_it_comes_back_after_an_outage(self, factory: ControllerFactory) -> None:
        """Some seconds after persistent congestion it sends as much as before, or nearly."""
        path = _path(factory(_DATAGRAM))
        path.run(_SETTLED)
        before = path.run(_MEASURED)
        path.controller.congestion_persisted(path.now)
        path.run(2 * _SETTLED)
        after = path.run(_MEASURED)
        assert after > before / 2, f"it got {before} bytes through, and {after} after the outage"


@attrs.frozen(kw_only=True)
class _Details:
    """What an acknowledgement says besides."""

    rtt: float | None
    rate: float | None
    app_limited: bool
    age: float


_NOTHING: Final = _Details(rtt=None, rate=None, app_limited=False, age=0.0)

_Event = tuple[str, int, float, _Details]


def _events() -> st.SearchStrategy[_Event]:
    details = st.builds(
        _Details,
        rtt=st.none() | st.floats(1e-6, 30.0),
        rate=st.none() | st.floats(1e-3, 1e12),
        app_limited=st.booleans(),
        age=st.floats(0.0, 60.0),
    )
    kinds = st.sampled_from(("sent", "sent", "acknowledged", "acknowledged", "lost", "persisted", "resized"))
    return st.tuples(kinds, st.integers(1, 1 << 24), st.floats(0.0, 30.0), details)


def _sample(now: float, size: int, in_flight: int, smoothed: float, details: _Details) -> AckSample:
    return AckSample(
        now=now,
        acked_bytes=size,
        newest_sent_at=max(0.0, now - details.age),
        bytes_in_flight=in_flight,
        rtt=details.rtt,
        smoothed_rtt=smoothed,
        min_rtt=smoothed / 2,
        delivery_rate=details.rate,
        app_limited=details.app_limited,
    )


def _path(controller: CongestionController, *, queue_size: int = _FULL, now: float = 0.0) -> Bottleneck:
    return Bottleneck(controller, rate=_RATE, round_trip=_ROUND_TRIP, queue_size=queue_size, now=now)
