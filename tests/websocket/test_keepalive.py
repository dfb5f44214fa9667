from __future__ import annotations

from stt_websocket.keepalive import Check, Keepalive


def test_a_peer_that_talks_is_not_asked() -> None:
    keepalive = Keepalive(interval=20, timeout=10, now=0)
    for now in range(0, 100, 19):
        assert keepalive.check(now) is Check.ALIVE
        assert not keepalive.heard(now)
        assert keepalive.next_timeout() == now + 20


def test_a_silent_peer_is_asked_once_and_then_dead() -> None:
    keepalive = Keepalive(interval=20, timeout=10, now=100)

    assert keepalive.check(119.9) is Check.ALIVE
    assert keepalive.check(120) is Check.SILENT
    assert keepalive.next_timeout() == 130
    assert keepalive.check(129.9) is Check.ALIVE
    assert keepalive.check(130) is Check.DEAD


def test_any_byte_answers() -> None:
    keepalive = Keepalive(interval=20, timeout=10, now=0)
    assert keepalive.check(20) is Check.SILENT

    assert keepalive.heard(29)

    assert keepalive.check(40) is Check.ALIVE
    assert keepalive.next_timeout() == 49
    assert keepalive.check(49) is Check.SILENT
