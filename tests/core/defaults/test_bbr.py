"""BBR on the simulated link: full rate in spite of losses, no standing queue, room for others."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from stt_core import events
from stt_core.config import STTConfig
from stt_core.defaults.bbr import BBR
from stt_core.defaults.controllers import Cubic
from stt_core.interfaces.congestion import AckSample
from stt_core.testing.link import Link
from stt_core.testing.sessions import session_pair

if TYPE_CHECKING:
    from stt_core.interfaces.congestion import ControllerFactory

CONFIG = STTConfig(max_datagram_size=1472)
DATA = os.urandom(20_000_000)


def send(
    controller: ControllerFactory, size: int, *, latency: float, rate: float, loss: float, queue_size: int
) -> tuple[float, float]:
    """Return the seconds that a transfer takes, and the highest smoothed round trip meanwhile."""
    sender, receiver = session_pair(controller=controller, config=CONFIG)
    link = Link(sender, receiver, latency=latency, rate=rate, loss=loss, queue_size=queue_size)
    stream_id = sender.open_stream()
    assert stream_id is not None
    received = 0
    written = 0
    worst = 0.0
    while received < size:
        while written < size and sender.write(stream_id, DATA[written : written + 100_000]):
            written += 100_000
        link.run(until=link.now + 0.02)
        for event in link.events(receiver):
            if isinstance(event, events.StreamReadable):
                received += len(receiver.read(event.stream_id, 1 << 24))
        link.events(sender)
        worst = max(worst, sender.statistics().round_trip or 0.0)
        assert link.now < 300, "the transfer does not end"
    return link.now, worst


def test_one_per_cent_of_loss_costs_little_of_the_rate() -> None:
    seconds, _ = send(BBR, 20_000_000, latency=0.025, rate=25e6, loss=0.01, queue_size=1_000_000)

    assert 20_000_000 / seconds > 13e6  # the goal: level with TCP and BBR on the same path


def test_five_per_cent_of_loss_at_a_long_round_trip_still_go_through() -> None:
    seconds, _ = send(BBR, 6_000_000, latency=0.05, rate=25e6, loss=0.05, queue_size=1_000_000)

    assert 6_000_000 / seconds > 2e6


def test_cubic_falls_far_behind_where_packets_are_lost() -> None:
    with_bbr, _ = send(BBR, 2_000_000, latency=0.025, rate=25e6, loss=0.01, queue_size=1_000_000)
    with_cubic, _ = send(Cubic, 2_000_000, latency=0.025, rate=25e6, loss=0.01, queue_size=1_000_000)

    assert with_cubic > 4 * with_bbr


def test_a_deep_queue_is_not_filled() -> None:
    _, worst = send(BBR, 12_000_000, latency=0.02, rate=5e6, loss=0.0, queue_size=5_000_000)

    assert worst < 0.04 + 0.1  # the queue alone holds a second


def sample(now: float, **values: Any) -> AckSample:
    fields: dict[str, Any] = {
        "acked_bytes": 14_720,
        "newest_sent_at": now - 0.05,
        "bytes_in_flight": 14_720,
        "rtt": 0.05,
        "smoothed_rtt": 0.05,
        "min_rtt": 0.05,
        "delivery_rate": 1e6,
        "app_limited": False,
    }
    return AckSample(now=now, **(fields | values))


def test_a_sender_with_nothing_to_send_does_not_lower_the_rate() -> None:
    controller = BBR(1472)
    controller.acknowledged(sample(0.1))
    rate = controller.pacing_rate(0.05)

    for number in range(50):
        controller.acknowledged(sample(0.2 + number * 0.001, delivery_rate=1e4, app_limited=True))

    assert controller.pacing_rate(0.05) == rate


def test_persistent_congestion_leaves_the_minimum_window() -> None:
    controller = BBR(1472)
    for number in range(20):
        controller.acknowledged(sample(0.1 * number))

    controller.congestion_persisted(3.0)

    assert controller.window == 4 * 1472


def test_a_larger_datagram_always_fits_the_window() -> None:
    controller = BBR(1200)

    controller.datagram_size_changed(65_507)

    assert controller.window >= 65_507


def test_the_round_trip_is_measured_anew_with_little_under_way() -> None:
    controller = BBR(1472)
    for number in range(205):
        controller.acknowledged(sample(0.05 * number, rtt=0.05 if number < 10 else 0.08))
    before = controller.window
    windows = []
    for number in range(205, 260):
        controller.acknowledged(sample(0.05 * number, rtt=0.08, bytes_in_flight=5_000))
        windows.append(controller.window)

    assert min(windows) < before / 2  # half of what the path holds, for a fifth of a second
    assert windows[-1] > before  # and the longer round trip is believed from then on


@pytest.mark.parametrize("share", [0.0, 0.02, 0.05])
def test_losses_below_the_threshold_leave_the_window_alone(share: float) -> None:
    controller = BBR(1472)
    for number in range(60):
        now = 0.05 * number
        controller.lost(int(14_720 * share), now - 0.05, 0, now)
        controller.acknowledged(sample(now))

    untouched = BBR(1472)
    for number in range(60):
        untouched.acknowledged(sample(0.05 * number))

    assert controller.window == untouched.window


def test_heavy_losses_limit_what_is_under_way() -> None:
    controller, untouched = BBR(1472), BBR(1472)
    for number in range(60):
        now = 0.05 * number
        controller.lost(14_720, now - 0.05, 0, now)
        controller.acknowledged(sample(now))
        untouched.acknowledged(sample(now))

    assert controller.window < untouched.window
