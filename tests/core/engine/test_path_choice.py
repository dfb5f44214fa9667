"""An initiator with two paths: it uses the better one, moves when that dies, and comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stt_core.defaults.controllers import NewReno
from stt_core.engine.path_choice import PathChoice
from stt_core.engine.paths import Link, Path, PathKey
from stt_core.testing.link import DATAGRAMS

if TYPE_CHECKING:
    from stt_core.interfaces.transport import Address


def make_path(address: Address, *, validated: bool = True) -> Path:
    return Path(
        PathKey(Link("sim://", DATAGRAMS), address),
        validated=validated,
        controller=NewReno,
        max_datagram_size=1472,
        max_ack_delay=0.025,
    )


@pytest.fixture
def paths() -> dict[PathKey, Path]:
    made = [make_path("udp"), make_path("ws", validated=False)]
    return {path.key: path for path in made}


@pytest.fixture
def choice(paths: dict[PathKey, Path]) -> PathChoice:
    made = PathChoice()
    for rank, key in enumerate(paths):
        made.add(key, rank, 0.0)
    return made


def test_one_path_is_no_choice_and_is_never_asked(paths: dict[PathKey, Path]) -> None:
    choice = PathChoice()
    first = next(iter(paths.values()))
    choice.add(first.key, 0, 0.0)

    choice.check(paths, first, 10.0)

    assert choice.next_timeout() is None
    assert not first.challenging


def test_a_path_is_used_only_once_the_peer_answered_there(choice: PathChoice, paths: dict[PathKey, Path]) -> None:
    udp, ws = paths.values()
    udp.alive = False
    assert choice.best(paths) is None

    ws.alive = True

    assert choice.best(paths) is ws


def test_the_rank_decides_among_those_alive(choice: PathChoice, paths: dict[PathKey, Path]) -> None:
    udp, ws = paths.values()
    ws.alive = True

    assert choice.best(paths) is udp


def test_a_silent_path_in_use_is_asked_after_half_a_second(choice: PathChoice, paths: dict[PathKey, Path]) -> None:
    udp, ws = paths.values()
    choice.used(10.0)
    udp.heard_at = ws.heard_at = 10.0

    choice.check(paths, udp, 10.4)
    asked_early = udp.challenging
    choice.check(paths, udp, 10.95)

    assert not asked_early
    assert udp.challenging
    assert not ws.challenging


def test_a_dead_path_is_asked_every_second_for_its_return(choice: PathChoice, paths: dict[PathKey, Path]) -> None:
    udp, ws = paths.values()
    udp.alive = False
    udp.heard_at = 10.0
    ws.alive = True
    ws.heard_at = 11.1

    choice.check(paths, ws, 11.1)

    assert udp.challenging


def test_an_idle_session_asks_rarely(choice: PathChoice, paths: dict[PathKey, Path]) -> None:
    udp, ws = paths.values()
    ws.alive = True
    choice.used(0.0)
    udp.heard_at = ws.heard_at = 20.0

    choice.check(paths, udp, 24.0)
    early = udp.challenging or ws.challenging
    choice.check(paths, udp, 25.5)

    assert not early
    assert udp.challenging
    assert ws.challenging


def test_a_removed_path_is_neither_asked_nor_used(choice: PathChoice, paths: dict[PathKey, Path]) -> None:
    udp, ws = paths.values()
    ws.alive = True

    choice.remove(udp.key)

    assert udp.key not in choice
    assert choice.best(paths) is ws
    assert choice.next_timeout() is None
