from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stt_core.defaults.controllers import NewReno
from stt_core.engine.paths import Link, Path, PathKey
from stt_core.interfaces.transport import TransportCapabilities

if TYPE_CHECKING:
    from stt_core.interfaces.transport import Address

UDP = Link("udp://127.0.0.1:4433", TransportCapabilities(reliable=False, max_message_size=65_507))
WEBSOCKET = Link("ws://127.0.0.1:8080/stt", TransportCapabilities(reliable=True, max_message_size=1 << 20))


def make_path(link: Link = UDP, *, validated: bool = False, **changes: Any) -> Path:
    settings: dict[str, Any] = {"controller": NewReno, "max_datagram_size": 65_507, "max_ack_delay": 0.025} | changes
    return Path(PathKey(link, ("198.51.100.1", 4433)), validated=validated, **settings)


# Keys


def test_links_of_one_name_are_two_links() -> None:
    other = Link(UDP.name, UDP.capabilities)

    assert PathKey(UDP, "peer") == PathKey(UDP, "peer")
    assert PathKey(UDP, "peer") != PathKey(other, "peer")
    assert len({PathKey(UDP, 1), PathKey(UDP, 1), PathKey(other, 1), PathKey(UDP, 2)}) == 3


@pytest.mark.parametrize(
    ("link", "address", "other", "same"),
    [
        (UDP, ("198.51.100.1", 1), ("198.51.100.1", 2), True),
        (UDP, ("198.51.100.1", 1), ("198.51.100.2", 1), False),
        (UDP, ("fe80::1", 1, 0, 2), ("fe80::1", 9, 0, 2), True),
        (WEBSOCKET, ("198.51.100.1", 1), ("198.51.100.1", 1), False),
        (UDP, "a connection", ("198.51.100.1", 1), False),
        (UDP, ("198.51.100.1", 1), "a connection", False),
    ],
)
def test_only_another_port_of_one_address_is_the_same_host(
    link: Link, address: Address, other: Address, *, same: bool
) -> None:
    assert PathKey(link, address).same_host(PathKey(UDP, other)) is same


@pytest.mark.parametrize(
    ("link", "address", "text"),
    [
        (UDP, ("198.51.100.1", 4433), "udp://198.51.100.1:4433"),
        (UDP, ("2001:db8::1", 4433, 0, 0), "udp://[2001:db8::1]:4433"),
        (WEBSOCKET, ("localhost", 80), "ws://localhost:80"),
        (WEBSOCKET, 7, "ws:7"),
        (WEBSOCKET, ("alone",), "ws:('alone',)"),
    ],
)
def test_a_key_reads_as_a_url(link: Link, address: Address, text: str) -> None:
    assert str(PathKey(link, address)) == text


# Sizes


def test_a_path_begins_at_the_size_that_every_network_carries() -> None:
    path = make_path()

    assert not path.reliable
    assert path.mtu.size == 1200
    assert path.mtu.search_due is not None
    assert path.recovery.controller is not None
    assert path.recovery.controller.datagram_size == 1200


def test_a_transport_may_promise_more() -> None:
    link = Link("mem://", TransportCapabilities(reliable=False, max_message_size=9000, initial_message_size=8000))

    path = make_path(link)

    assert path.mtu.size == 8000
    assert path.mtu.probe(0.0) == 9000


@pytest.mark.parametrize("link", [UDP, WEBSOCKET], ids=["unreliable", "reliable"])
def test_no_datagram_is_larger_than_both_sides_allow(link: Link) -> None:
    path = make_path(link, max_datagram_size=1200)

    assert path.mtu.size == 1200
    assert path.mtu.search_due is None


def test_a_reliable_path_needs_no_search_and_no_congestion_control() -> None:
    path = make_path(WEBSOCKET, max_datagram_size=1 << 20)

    assert path.reliable
    assert path.mtu.size == 256 * 1024
    assert path.mtu.search_due is None
    assert path.recovery.controller is None


def test_a_reliable_path_keeps_to_its_transport() -> None:
    link = Link("mem://", TransportCapabilities(reliable=True, max_message_size=5000))

    assert make_path(link).mtu.size == 5000


def test_the_round_trip_that_is_known_is_where_a_path_begins() -> None:
    assert make_path(initial_rtt=0.05).recovery.rtt.smoothed == 0.05


# Amplification


def test_a_path_that_is_not_validated_gets_three_times_what_came_from_it() -> None:
    path = make_path()
    assert path.amplification_left == 0

    path.bytes_received += 1000
    assert path.amplification_left == 3000
    path.bytes_sent += 2900
    assert path.amplification_left == 100
    path.bytes_sent += 1200
    assert path.amplification_left == 0


def test_a_validated_path_has_no_such_limit() -> None:
    assert make_path(validated=True).amplification_left is None


# Challenges


def test_three_challenges_leave_a_pto_apart_and_then_it_has_failed() -> None:
    path = make_path(initial_rtt=0.1)
    pto = path.recovery.pto
    assert not path.challenging
    assert path.next_timeout() is None
    assert path.challenge_to_send(5.0) is None

    path.challenge(10.0)

    tokens: list[bytes | None] = []
    for _ in range(3):
        now = path.next_timeout()
        assert now is not None
        assert path.challenging
        assert not path.challenge_failed
        assert path.challenge_to_send(now - 0.001) is None
        tokens.append(path.challenge_to_send(now))
    assert tokens[0] is not None
    assert len(tokens[0]) == 8
    assert tokens == [tokens[0]] * 3
    # What was sent at once may be answered from far away: a new path gets three seconds.
    assert path.next_timeout() == pytest.approx(max(13.0, 10.0 + 3 * pto))
    assert path.challenge_failed
    assert path.challenge_to_send(20.0) is None


def test_a_path_that_was_validated_before_fails_three_ptos_after_it_is_asked() -> None:
    path = make_path(validated=True, initial_rtt=0.1)

    path.challenge(10.0)
    for _ in range(3):
        now = path.next_timeout()
        assert now is not None
        path.challenge_to_send(now)

    assert path.next_timeout() == pytest.approx(10.0 + 3 * path.recovery.pto)


def test_the_right_answer_validates_the_path() -> None:
    path = make_path()
    path.challenge(1.0)
    token = path.challenge_to_send(1.0)
    assert token is not None

    assert path.answered(token)

    assert path.validated
    assert path.alive
    assert not path.challenging
    assert not path.challenge_failed
    assert path.next_timeout() is None
    assert path.amplification_left is None
    assert not path.answered(token)  # once


def test_another_answer_validates_nothing() -> None:
    path = make_path()
    path.challenge(1.0)
    token = path.challenge_to_send(1.0)

    assert token is not None
    assert not path.answered(bytes(8))
    assert not path.answered(b"")
    assert not path.validated
    assert path.challenging


def test_without_a_challenge_no_answer_validates() -> None:
    path = make_path()

    assert not path.answered(b"")
    assert not path.answered(bytes(8))
    assert not path.validated


def test_each_challenge_has_a_token_of_its_own() -> None:
    path = make_path()
    tokens = set()
    for _ in range(10):
        path.challenge(1.0)
        tokens.add(path.challenge_to_send(1.0))

    assert len(tokens) == 10


def test_a_challenge_can_be_given_up() -> None:
    path = make_path()
    path.challenge(1.0)
    token = path.challenge_to_send(1.0)
    assert token is not None

    path.give_up_challenge()

    assert not path.challenging
    assert not path.challenge_failed
    assert path.next_timeout() is None
    assert path.challenge_to_send(9.0) is None
    assert not path.answered(token)


# Rebinding


def test_another_port_of_the_same_host_keeps_what_was_learned() -> None:
    old, new = make_path(validated=True), make_path()
    old.mtu.probe(0.0)
    old.mtu.confirmed(1472, 0.0)
    recovery = old.recovery

    new.adopt(old)

    assert new.recovery is recovery
    assert new.mtu.size == 1472
    assert old.recovery is not recovery
    assert old.mtu.size == 1200
    assert not new.validated
