from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from stt_core.engine.recovery import Recovery, RttEstimator, SentFrame
from stt_core.interfaces.congestion import CongestionController

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stt_core.interfaces.congestion import AckSample

SIZE = 1200
MAX_ACK_DELAY = 0.025
INITIAL_PTO = 0.333 + 4 * 0.333 / 2 + MAX_ACK_DELAY


class Recorder(CongestionController):
    """Keeps what it is told, and allows a window that never changes."""

    name = "recorder"

    def __init__(self, datagram_size: int = SIZE) -> None:
        super().__init__(datagram_size)
        self.sent_sizes: list[tuple[int, int]] = []
        self.samples: list[AckSample] = []
        self.losses: list[tuple[int, float, int]] = []
        self.persisted: list[float] = []

    @property
    def window(self) -> int:
        return 20_000

    def pacing_rate(self, smoothed_rtt: float) -> float:
        return self.window / smoothed_rtt

    def sent(self, size: int, bytes_in_flight: int, now: float) -> None:
        self.sent_sizes.append((size, bytes_in_flight))

    def acknowledged(self, sample: AckSample) -> None:
        self.samples.append(sample)

    def lost(self, size: int, newest_sent_at: float, bytes_in_flight: int, now: float) -> None:
        self.losses.append((size, newest_sent_at, bytes_in_flight))

    def congestion_persisted(self, now: float) -> None:
        self.persisted.append(now)


def make(controller: CongestionController | None = None, initial_rtt: float | None = None) -> Recovery:
    return Recovery(controller or Recorder(), SIZE, MAX_ACK_DELAY, initial_rtt)


def make_reliable() -> Recovery:
    return Recovery(None, SIZE, MAX_ACK_DELAY, None)


def send(recovery: Recovery, numbers: Iterable[int], now: float, size: int = SIZE) -> None:
    """Send a burst, each frame in a datagram of its own."""
    burst = recovery.begin_burst(now)
    frames = [(number, SentFrame(recovery.number_datagrams(1), size, burst, (number,))) for number in numbers]
    recovery.sent(frames, size * len(frames), now)


def acknowledge(
    recovery: Recovery, numbers: Iterable[int], now: float, delay: float = 0.0
) -> tuple[list[int], list[int]]:
    """Acknowledge frames by their numbers; return the numbers confirmed and lost."""
    confirmed, lost = recovery.acknowledged(ranges_of(numbers), delay, now)
    return contents(confirmed), contents(lost)


def ranges_of(numbers: Iterable[int]) -> tuple[tuple[int, int], ...]:
    keyed = groupby(enumerate(sorted(numbers)), key=lambda entry: entry[1] - entry[0])
    runs = [[number for _, number in group] for _, group in keyed]
    return tuple((run[0], run[-1]) for run in reversed(runs))


def due_at(recovery: Recovery) -> float:
    due = recovery.next_timeout()
    assert due is not None
    return due


def contents(frames: list[SentFrame]) -> list[int]:
    return [frame.content[0] for frame in frames if frame.content]


def measured(rtt: float = 0.1, now: float = 10.0) -> tuple[Recovery, Recorder]:
    """Return the state after one frame, number 0, that was acknowledged at ``now``."""
    controller = Recorder()
    recovery = make(controller)
    send(recovery, [0], now - rtt)
    assert acknowledge(recovery, [0], now) == ([0], [])
    return recovery, controller


# The round trip, RFC 9002 section 5


def test_the_first_round_trip_is_taken_as_it_is() -> None:
    rtt = RttEstimator()
    assert rtt.latest is None
    assert rtt.pto == pytest.approx(0.333 + 4 * 0.1665)

    rtt.update(0.1, 0.02)

    assert rtt.minimum == rtt.smoothed == 0.1
    assert rtt.variance == 0.05
    assert rtt.pto == pytest.approx(0.3)


def test_what_the_handshake_measured_is_where_the_estimate_begins() -> None:
    rtt = RttEstimator(0.08)

    assert rtt.latest is None
    assert (rtt.smoothed, rtt.variance) == (0.08, 0.04)


def test_a_round_trip_is_never_zero() -> None:
    rtt = RttEstimator()

    rtt.update(0.0, 0.0)

    assert 0 < rtt.minimum == rtt.smoothed < 1e-5


def test_later_round_trips_are_smoothed_as_the_rfc_says() -> None:
    rtt = RttEstimator()
    rtt.update(0.1, 0.0)

    rtt.update(0.2, 0.02)

    assert rtt.variance == pytest.approx(0.75 * 0.05 + 0.25 * abs(0.1 - 0.18))
    assert rtt.smoothed == pytest.approx(0.875 * 0.1 + 0.125 * 0.18)
    assert (rtt.latest, rtt.minimum) == (0.2, 0.1)


def test_a_delay_that_would_make_the_round_trip_too_short_is_not_believed() -> None:
    rtt = RttEstimator()
    rtt.update(0.1, 0.0)

    rtt.update(0.11, 0.02)

    assert rtt.smoothed == pytest.approx(0.875 * 0.1 + 0.125 * 0.11)


def test_the_probe_timeout_is_a_millisecond_above_the_steadiest_round_trip() -> None:
    rtt = RttEstimator()
    for _ in range(100):
        rtt.update(0.1, 0.0)

    assert rtt.pto == pytest.approx(0.101)


def test_the_minimum_can_begin_anew() -> None:
    rtt = RttEstimator()
    rtt.update(0.1, 0.0)
    rtt.update(0.3, 0.0)

    rtt.forget_minimum()

    assert rtt.minimum == 0.3


def test_a_peer_cannot_claim_a_longer_delay_than_it_may_have() -> None:
    recovery, _ = measured(rtt=0.1)
    send(recovery, [1], 20.0)

    acknowledge(recovery, [1], 20.2, delay=5.0)

    assert recovery.rtt.smoothed == pytest.approx(0.875 * 0.1 + 0.125 * (0.2 - MAX_ACK_DELAY))


def test_only_the_newest_datagram_measures_the_round_trip() -> None:
    recovery, controller = measured(rtt=0.1)
    send(recovery, [1, 2], 20.0)
    acknowledge(recovery, [2], 20.1)

    acknowledge(recovery, [1], 20.105)

    assert recovery.rtt.latest == pytest.approx(0.1)
    assert controller.samples[-2].rtt == pytest.approx(0.1)
    assert controller.samples[-1].rtt is None


def test_the_delay_of_a_frame_that_asked_for_nothing_measures_no_other() -> None:
    recovery, controller = measured(rtt=0.1)
    send(recovery, [1], 20.0)

    # Frame 2 held an ACK alone, and left 25 ms later.
    acknowledge(recovery, [1, 2], 20.125, delay=0.0)

    assert recovery.rtt.latest == pytest.approx(0.1)
    assert controller.samples[-1].rtt is None
    assert controller.samples[-1].acked_bytes == SIZE


# What arrives


def test_a_frame_is_confirmed_once() -> None:
    recovery = make()
    send(recovery, range(4), 1.0)

    assert acknowledge(recovery, [1, 2], 1.1) == ([1, 2], [])
    assert acknowledge(recovery, [1, 2], 1.1) == ([], [])
    assert acknowledge(recovery, [0, 1, 2, 3], 1.1) == ([0, 3], [])
    assert acknowledge(recovery, [0, 1, 2, 3], 1.1) == ([], [])
    assert recovery.bytes_in_flight == 0


def test_an_older_acknowledgement_that_comes_late_does_no_harm() -> None:
    recovery = make()
    send(recovery, range(6), 1.0)

    assert acknowledge(recovery, [3, 4, 5], 1.1)[0] == [3, 4, 5]
    assert acknowledge(recovery, [3], 1.1)[0] == []
    send(recovery, [6, 7], 1.2)
    assert acknowledge(recovery, [3, 4, 5, 6, 7], 1.3)[0] == [6, 7]


def test_frames_of_other_paths_and_unknown_numbers_are_left_alone() -> None:
    recovery = make()
    send(recovery, [5, 9], 1.0)

    assert acknowledge(recovery, [0, 1, 2, 3], 1.1) == ([], [])
    assert acknowledge(recovery, range(8), 1.1) == ([5], [])
    assert recovery.bytes_in_flight == SIZE


def test_nothing_under_way_means_nothing_to_confirm() -> None:
    recovery = make()
    assert acknowledge(recovery, [0, 1], 1.0) == ([], [])

    send(recovery, [2], 1.0)

    assert acknowledge(recovery, [0, 1, 2], 1.1) == ([2], [])


@pytest.mark.parametrize("reliable", [True, False])
def test_a_peer_cannot_make_this_side_walk_along_endless_ranges(*, reliable: bool) -> None:
    recovery = make_reliable() if reliable else make()
    burst = recovery.begin_burst(1.0)
    numbers = [1, 1 << 40, (1 << 40) + 1, 1 << 50, 1 << 60]
    recovery.sent([(n, SentFrame(recovery.number_datagrams(1), 1, burst, (n,))) for n in numbers], len(numbers), 1.0)

    confirmed, _ = recovery.acknowledged((((1 << 45), (1 << 62)), (2, 1 << 44)), 0.0, 1.1)

    assert contents(confirmed) == [1 << 50, 1 << 60, 1 << 40, (1 << 40) + 1]


def test_the_controller_learns_what_an_acknowledgement_taught() -> None:
    recovery, controller = measured(rtt=0.1)
    send(recovery, range(1, 5), 20.0)

    acknowledge(recovery, [2, 3], 20.12)

    sample = controller.samples[-1]
    assert (sample.now, sample.acked_bytes, sample.newest_sent_at) == (20.12, 2 * SIZE, 20.0)
    assert sample.bytes_in_flight == 2 * SIZE
    assert sample.rtt == pytest.approx(0.12)
    assert sample.smoothed_rtt == recovery.rtt.smoothed
    assert sample.min_rtt == pytest.approx(0.1)
    assert controller.sent_sizes == [(SIZE, SIZE), (4 * SIZE, 4 * SIZE)]


def test_what_is_not_counted_as_in_flight_teaches_the_controller_nothing() -> None:
    recovery, controller = measured()
    send(recovery, [1], 20.0, size=0)

    assert acknowledge(recovery, [1], 20.1) == ([1], [])

    assert len(controller.samples) == 1


# The delivery rate


def test_the_rate_is_what_was_delivered_while_a_datagram_was_under_way() -> None:
    recovery, controller = measured(rtt=0.1)
    send(recovery, range(1, 11), 20.0)
    send(recovery, range(11, 21), 20.05)

    acknowledge(recovery, range(11), 20.1)
    acknowledge(recovery, range(21), 20.15)

    rates = [sample.delivery_rate for sample in controller.samples]
    assert rates[-2:] == [pytest.approx(10 * SIZE / 0.1), pytest.approx(20 * SIZE / 0.15)]


def test_acknowledgements_that_come_in_a_lump_do_not_raise_the_rate() -> None:
    recovery, controller = measured(rtt=0.1)
    for step in range(10):
        send(recovery, [1 + step], 20.0 + step)
        acknowledge(recovery, [step], 20.1 + step - 1)
    acknowledge(recovery, [9], 29.05)

    acknowledge(recovery, [10], 29.1)

    rate = controller.samples[-1].delivery_rate
    assert rate is not None
    assert rate <= SIZE / 0.1


def test_a_rate_over_less_than_a_round_trip_is_not_told() -> None:
    recovery, controller = measured(rtt=0.1)
    send(recovery, [1], 20.0)

    acknowledge(recovery, [1], 20.01)  # the minimum is lower only afterwards

    send(recovery, [2], 30.0)
    acknowledge(recovery, [2], 30.0)
    assert controller.samples[-1].delivery_rate is None


def test_who_has_too_little_to_send_says_so_until_that_was_delivered() -> None:
    recovery, controller = measured()
    send(recovery, [1], 20.0)
    recovery.app_limited()
    send(recovery, [2], 20.05)
    acknowledge(recovery, [0, 1], 20.1)
    send(recovery, [3], 20.1)
    acknowledge(recovery, [0, 1, 2], 20.15)
    send(recovery, [4], 20.2)
    acknowledge(recovery, range(5), 20.3)

    assert [sample.app_limited for sample in controller.samples] == [False, False, True, False]


def test_who_has_nothing_to_send_from_the_start_says_so() -> None:
    controller = Recorder()
    recovery = make(controller)
    recovery.app_limited()

    send(recovery, [0], 1.0)
    acknowledge(recovery, [0], 1.1)
    send(recovery, [1], 1.1)
    acknowledge(recovery, [1], 1.2)

    assert [sample.app_limited for sample in controller.samples] == [True, False]


# Losses


def test_a_frame_is_lost_when_one_three_datagrams_later_arrives() -> None:
    recovery, controller = measured()
    send(recovery, range(1, 6), 20.0)

    assert acknowledge(recovery, [3], 20.1) == ([3], [])
    assert acknowledge(recovery, [4], 20.1) == ([4], [1])
    assert acknowledge(recovery, [5], 20.1) == ([5], [2])

    assert controller.losses == [(SIZE, 20.0, 2 * SIZE), (SIZE, 20.0, 0)]
    assert recovery.frames_lost == 2
    assert recovery.bytes_in_flight == 0


def test_losses_are_counted_in_datagrams_and_not_in_frames() -> None:
    recovery, _ = measured()
    burst = recovery.begin_burst(20.0)
    datagrams = [recovery.number_datagrams(1) for _ in range(3)]
    frames = [
        (1 + 10 * index + frame, SentFrame(datagram, 100, burst, (10 * index + frame,)))
        for index, datagram in enumerate(datagrams)
        for frame in range(10)
    ]
    recovery.sent(frames, 3000, 20.0)

    assert acknowledge(recovery, range(21, 31), 20.1)[1] == []
    assert recovery.bytes_in_flight == 2000


def test_a_lost_frame_that_arrives_after_all_is_not_confirmed() -> None:
    recovery, _ = measured()
    send(recovery, range(1, 5), 20.0)
    acknowledge(recovery, [4], 20.1)

    assert acknowledge(recovery, [1, 2, 3, 4], 20.11) == ([2, 3], [])


def test_reordering_gets_a_ninth_part_of_a_round_trip_more() -> None:
    recovery, controller = measured(rtt=0.1)
    send(recovery, [1], 20.0)
    send(recovery, [2], 20.001)

    assert acknowledge(recovery, [2], 20.101) == ([2], [])

    lost_at = due_at(recovery)
    assert lost_at == pytest.approx(20.0 + 9 / 8 * 0.1)
    assert recovery.handle_timeout(20.112) == []
    assert contents(recovery.handle_timeout(lost_at)) == [1]
    assert controller.losses == [(SIZE, 20.0, 0)]
    assert recovery.pto_count == 0
    assert recovery.next_timeout() is None


def test_what_is_old_enough_is_lost_with_the_acknowledgement_itself() -> None:
    recovery, _ = measured(rtt=0.1)
    send(recovery, [1], 20.0)
    send(recovery, [2], 20.2)

    assert acknowledge(recovery, [2], 20.3) == ([2], [1])


def test_on_the_fastest_path_losses_wait_for_a_millisecond() -> None:
    recovery, _ = measured(rtt=0.0001)
    send(recovery, [1, 2], 20.0)

    acknowledge(recovery, [2], 20.0001)

    assert recovery.next_timeout() == pytest.approx(20.001)


def test_what_left_after_the_newest_arrival_is_not_judged() -> None:
    recovery, _ = measured()
    send(recovery, [1, 2, 3], 20.0)

    assert acknowledge(recovery, [1], 50.0) == ([1], [])
    assert recovery.bytes_in_flight == 2 * SIZE


def test_losses_that_are_not_counted_do_not_reach_the_controller() -> None:
    recovery, controller = measured()
    send(recovery, [1], 20.0, size=0)
    send(recovery, range(2, 6), 20.0)

    assert acknowledge(recovery, range(2, 6), 20.1)[1] == [1]

    assert controller.losses == []
    assert recovery.frames_lost == 0


def test_an_uncounted_loss_does_not_make_a_counted_one_newer() -> None:
    recovery, controller = measured()
    send(recovery, [1], 20.0)
    send(recovery, [2], 20.05, size=0)
    send(recovery, range(3, 7), 20.06)

    acknowledge(recovery, range(3, 7), 20.16)

    assert controller.losses == [(SIZE, 20.0, 0)]


# Probe time-outs


def test_a_probe_is_due_when_nothing_was_heard_for_long() -> None:
    recovery = make()
    assert recovery.next_timeout() is None
    assert recovery.handle_timeout(100.0) == []
    send(recovery, [0], 1.0)
    due = due_at(recovery)
    assert due == pytest.approx(1.0 + INITIAL_PTO)

    assert recovery.handle_timeout(due - 0.001) == []
    assert recovery.probes_due == 0
    assert recovery.handle_timeout(due) == []

    assert recovery.probes_due == 2
    assert recovery.pto_count == 1
    assert recovery.bytes_in_flight == SIZE


def test_the_handshakes_round_trip_makes_the_first_probe_earlier() -> None:
    recovery = make(initial_rtt=0.05)

    send(recovery, [0], 1.0)

    assert recovery.next_timeout() == pytest.approx(1.0 + 0.05 + 4 * 0.025 + MAX_ACK_DELAY)


def test_probe_timeouts_double_up_to_a_minute() -> None:
    recovery = make(initial_rtt=0.1)
    send(recovery, [0], 0.0)

    waits = []
    now = 0.0
    for _ in range(30):
        due = due_at(recovery)
        waits.append(due - now)
        now = due
        recovery.handle_timeout(now)

    assert waits[:4] == pytest.approx([0.325, 0.65, 1.3, 2.6])
    assert waits[-1] == pytest.approx(60.0)
    assert recovery.pto_count == 30


def test_each_frame_that_leaves_puts_the_probe_off() -> None:
    recovery = make(initial_rtt=0.1)
    send(recovery, [0], 1.0)

    send(recovery, [1], 1.2)

    assert recovery.next_timeout() == pytest.approx(1.2 + 0.325)


def test_an_acknowledgement_ends_the_backing_off() -> None:
    recovery, _ = measured(rtt=0.1)
    send(recovery, [1, 2], 20.0)
    recovery.handle_timeout(30.0)
    recovery.handle_timeout(40.0)
    assert (recovery.pto_count, recovery.probes_due) == (2, 2)

    acknowledge(recovery, [1], 40.1)

    assert (recovery.pto_count, recovery.probes_due) == (0, 0)
    assert recovery.next_timeout() == pytest.approx(40.0 + recovery.pto)


def test_a_probe_repeats_what_is_oldest() -> None:
    recovery = make()
    burst = recovery.begin_burst(1.0)
    probe = (0, SentFrame(recovery.number_datagrams(1), 0, burst, (0,)))
    first, second, third = (recovery.number_datagrams(1) for _ in range(3))
    datagrams = [first, first, second, third]
    frames = [(1 + index, SentFrame(datagram, 100, burst, (1 + index,))) for index, datagram in enumerate(datagrams)]
    recovery.sent([probe, *frames], 400, 1.0)

    assert contents(recovery.oldest(1)) == [1, 2]
    assert contents(recovery.oldest(2)) == [1, 2, 3]
    assert contents(recovery.oldest(9)) == [1, 2, 3, 4]
    assert recovery.bytes_in_flight == 400  # it is still under way


# Persistent congestion, RFC 9002 section 7.6


def outage(recovery: Recovery, length: float) -> float:
    """Send frames 1 to 10 in vain over some time from 20.0 on, then frames 11 to 14; return a round trip later."""
    for index in range(10):
        send(recovery, [1 + index], 20.0 + length * index / 9)
    send(recovery, range(11, 15), 20.0 + length + 0.01)
    return 20.0 + length + 0.11


def test_when_all_is_lost_for_three_probe_timeouts_congestion_persists() -> None:
    recovery, controller = measured(rtt=0.09)
    now = outage(recovery, 3 * recovery.pto + 0.01)

    acknowledge(recovery, range(11, 15), now)

    assert controller.persisted == [now]
    assert controller.losses
    assert recovery.rtt.minimum == recovery.rtt.latest == pytest.approx(0.1)


def test_a_shorter_outage_is_no_persistent_congestion() -> None:
    recovery, controller = measured(rtt=0.1)
    now = outage(recovery, 2.4 * recovery.pto)  # three of those that the acknowledgement brings

    acknowledge(recovery, range(11, 15), now)

    assert controller.losses
    assert controller.persisted == []


@pytest.mark.parametrize("arrived", [5, 6])
def test_what_arrived_in_between_means_that_it_does_not_persist(arrived: int) -> None:
    recovery, controller = measured(rtt=0.1)
    now = outage(recovery, 1.5 * 3 * recovery.pto)

    acknowledge(recovery, [arrived, *range(11, 15)], now)

    assert len(controller.losses) == 1
    assert controller.persisted == []


@pytest.mark.parametrize(("arrives", "persisted"), [(True, 0), (False, 1)])
def test_what_arrived_earlier_in_between_counts_as_well(persisted: int, *, arrives: bool) -> None:
    expected = RttEstimator()
    for _ in range(3 if arrives else 2):
        expected.update(0.1, 0.0)
    duration = 3 * (expected.pto + MAX_ACK_DELAY)
    recovery, controller = measured(rtt=0.1)
    send(recovery, [1], 20.0)
    send(recovery, [2], 20.01)
    if arrives:
        assert acknowledge(recovery, [2], 20.11) == ([2], [])
    send(recovery, [3], 20.005 + duration)
    send(recovery, range(4, 8), 20.01 + duration)

    acknowledge(recovery, range(4, 8), 20.11 + duration)

    assert len(controller.losses) == 1
    assert len(controller.persisted) == persisted


def test_a_long_outage_beside_an_arrival_still_persists() -> None:
    recovery, controller = measured(rtt=0.1)
    now = outage(recovery, 2 * 3 * recovery.pto)

    acknowledge(recovery, [2, *range(11, 15)], now)

    assert controller.persisted == [now]


def test_before_the_first_measurement_congestion_cannot_persist() -> None:
    controller = Recorder()
    recovery = make(controller)
    now = outage(recovery, 20.0)

    acknowledge(recovery, range(11, 15), now)

    assert controller.losses
    assert controller.persisted == []


def test_what_left_before_the_first_measurement_does_not_count() -> None:
    controller = Recorder()
    recovery = make(controller)
    send(recovery, [0], 19.9)
    for number in range(1, 10):
        send(recovery, [number], 20.0 + number)
    acknowledge(recovery, [0], 29.1)
    send(recovery, range(10, 14), 29.2)
    recovery.rtt.update(0.1, 0.0)
    for _ in range(60):
        recovery.rtt.update(0.1, 0.0)

    acknowledge(recovery, range(10, 14), 29.3)

    assert controller.losses[0][0] == 9 * SIZE
    assert 3 * recovery.pto < 8
    assert controller.persisted == []


def test_lost_probes_of_the_size_are_no_congestion() -> None:
    recovery, controller = measured(rtt=0.1)
    for index in range(10):
        send(recovery, [1 + index], 20.0 + index, size=0)
    send(recovery, range(11, 15), 30.0)

    acknowledge(recovery, range(11, 15), 30.1)

    assert controller.persisted == []


# The window and the pace


def test_the_window_is_what_the_controller_allows_less_what_is_under_way() -> None:
    recovery = make()

    send(recovery, range(3), 1.0)

    assert recovery.window_left == 20_000 - 3 * SIZE


def test_pacing_begins_with_the_first_measurement() -> None:
    recovery = make()
    send(recovery, [0], 1.0)
    assert recovery.pacer.budget(1.0) is None
    recovery.datagram_size_changed(1472)
    assert recovery.pacer.budget(1.0) is None

    acknowledge(recovery, [0], 1.1)

    budget = recovery.pacer.budget(1.1)
    assert budget is not None
    send(recovery, [1], 1.1)
    assert recovery.pacer.budget(1.1) == budget - SIZE


def test_the_controller_learns_the_size_of_datagrams() -> None:
    recovery, controller = measured()

    recovery.datagram_size_changed(1472)

    assert controller.datagram_size == 1472
    assert recovery.pacer.budget(100.0) == 14_720


def test_a_reliable_path_has_no_window_no_losses_and_no_time_outs() -> None:
    recovery = make_reliable()
    send(recovery, range(10), 1.0)

    assert recovery.window_left is None
    assert recovery.next_timeout() is None
    assert recovery.handle_timeout(1000.0) == []
    assert acknowledge(recovery, [9], 1000.0) == ([9], [])
    assert recovery.probes_due == 0
    recovery.datagram_size_changed(9000)
    assert recovery.pacer.budget(1000.0) is None
    assert recovery.rtt.latest == pytest.approx(999.0)


# Giving a path up


def test_what_is_under_way_on_a_path_that_is_given_up_comes_back() -> None:
    recovery, _ = measured()
    send(recovery, range(1, 4), 20.0)
    acknowledge(recovery, [3], 20.1)
    recovery.handle_timeout(20.1)

    assert contents(recovery.abandon()) == [1, 2]

    assert recovery.bytes_in_flight == 0
    assert recovery.next_timeout() is None
    assert recovery.probes_due == 0
    assert recovery.abandon() == []
    assert acknowledge(recovery, [1, 2, 3], 20.2) == ([], [])


class Bookkeeping(RuleBasedStateMachine):
    """Each frame is confirmed, lost or given up exactly once, and the bytes in flight are those of the others."""

    def __init__(self) -> None:
        super().__init__()
        self.controller = Recorder()
        self.recovery = make(self.controller)
        self.now = 1.0
        self.next_number = 0
        self.under_way: dict[int, int] = {}
        self.lost_sizes = 0

    @rule(
        sizes=st.lists(st.sampled_from([0, 1, 50, 600, 1200]), min_size=1, max_size=12),
        frames_each=st.integers(1, 3),
        skip=st.integers(0, 3),
    )
    def send(self, sizes: list[int], frames_each: int, skip: int) -> None:
        burst = self.recovery.begin_burst(self.now)
        frames = []
        for index, size in enumerate(sizes):
            if index % frames_each == 0:
                datagram = self.recovery.number_datagrams(1)
            frames.append((self.next_number, SentFrame(datagram, size, burst, (self.next_number,))))
            self.under_way[self.next_number] = size
            self.next_number += 1 + skip  # numbers of frames that are not tracked, or went elsewhere
        self.recovery.sent(frames, sum(sizes), self.now)

    @precondition(lambda self: self.next_number)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        numbers = data.draw(st.sets(st.integers(0, self.next_number - 1), min_size=1, max_size=30))
        self._acknowledge(ranges_of(numbers))

    @precondition(lambda self: self.next_number)
    @rule(data=st.data())
    def acknowledge_a_run(self, data: st.DataObject) -> None:
        first = data.draw(st.integers(0, self.next_number - 1))
        self._acknowledge(((first, data.draw(st.integers(first, self.next_number - 1))),))

    @rule(seconds=st.floats(0.0, 3.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self._account(contents(self.recovery.handle_timeout(self.now)))

    @precondition(lambda self: self.recovery.next_timeout() is not None)
    @rule()
    def wait_for_the_timer(self) -> None:
        due = self.recovery.next_timeout()
        assert due is not None
        self.now = max(self.now, due)
        before = self.recovery.pto_count
        lost = contents(self.recovery.handle_timeout(self.now))
        self._account(lost)
        assert lost or self.recovery.pto_count == before + 1  # a timer that changes nothing would ring for ever

    @rule()
    def abandon(self) -> None:
        self._account(contents(self.recovery.abandon()))
        assert not self.under_way

    @invariant()
    def adds_up(self) -> None:
        assert self.recovery.bytes_in_flight == sum(self.under_way.values())
        assert (self.recovery.next_timeout() is None) == (not self.under_way)
        assert all(sample.bytes_in_flight >= 0 for sample in self.controller.samples)
        assert all(left >= 0 for _, _, left in self.controller.losses)

    def _acknowledge(self, ranges: tuple[tuple[int, int], ...]) -> None:
        expected = [number for first, last in ranges for number in range(first, last + 1) if number in self.under_way]
        confirmed, lost = self.recovery.acknowledged(ranges, 0.0, self.now)
        assert contents(confirmed) == expected
        self._account(contents(confirmed) + contents(lost))

    def _account(self, numbers: list[int]) -> None:
        for number in numbers:
            del self.under_way[number]


TestBookkeeping = Bookkeeping.TestCase
TestBookkeeping.settings = settings(max_examples=80, stateful_step_count=40)
