"""The documentation says what leads where; the engine has to agree, for every pair of a state and a happening."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from stt_core.config import STTConfig
from stt_core.engine.status import State
from stt_core.errors import SessionClosed
from stt_core.testing.link import deliver
from stt_core.testing.sessions import SESSION_ID, RoguePeer, make_session
from stt_core.wire.frame import FrameType, encode_frame
from stt_core.wire.messages import Ack, Disconnect

if TYPE_CHECKING:
    from collections.abc import Callable

    from stt_core.engine.session import Session

PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "session-states.md"
CONFIG = STTConfig(max_datagram_size=1200, resume_timeout=40.0)
NOW = 1.0  # the time of what happens; each session begins at 0


def table(first_column: str) -> list[list[str]]:
    """Return the cells of the table of the page whose first column has that name, the head first."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith(f"| {first_column} |"))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().strip("`") for cell in line.strip("|").split("|")])
    return [rows[0], *rows[2:]]


def documented() -> list[tuple[str, str, str]]:
    head, *rows = table("what happens")
    return [(state, row[0], outcome) for row in rows for state, outcome in zip(head[1:], row[1:], strict=True)]


# How to get into a state


def handshake() -> Session:
    return make_session(is_initiator=True, config=CONFIG, confirmed=False)


def active() -> Session:
    session = make_session(is_initiator=True, config=CONFIG)
    session.send_datagram(b"to be acknowledged")
    session.trains_to_send(0.0)
    return session


def key_rotating() -> Session:
    session = active()
    session.rotate_keys()
    session.trains_to_send(0.0)
    return session


def closing() -> Session:
    session = active()
    session.close(0, "", NOW)
    session.trains_to_send(NOW)
    return session


def closed() -> Session:
    session = active()
    peer().send(session, FrameType.DISCONNECT, Disconnect(code=0, reason="").encode())
    return session


STATES: dict[str, Callable[[], Session]] = {
    "HANDSHAKE": handshake,
    "ACTIVE": active,
    "KEY_ROTATING": key_rotating,
    "CLOSING": closing,
    "CLOSED": closed,
}


# What may happen


def peer() -> RoguePeer:
    return RoguePeer(is_initiator=False)


def pass_time(session: Session, seconds: float) -> None:
    """Let time pass as a node would: all that is due is done."""
    until = NOW + seconds
    while (at := session.next_timeout()) is not None and at <= until:
        session.handle_timeout(max(at, NOW))
        session.trains_to_send(max(at, NOW))


def probe_timeouts_pass(session: Session) -> None:
    pass_time(session, 3.1)  # 333 ms of round trip, four times half of that, 25 ms of delay; three times


def lose_the_path(session: Session) -> None:
    session.path_lost(session.path, "unplugged", NOW)


def lose_the_path_for_good(session: Session) -> None:
    lose_the_path(session)
    pass_time(session, 40.0)


def nobody_listens(session: Session) -> None:
    session.path_unreachable(session.path, "connection refused", NOW)
    pass_time(session, 4.0)


def acknowledge(session: Session) -> None:
    peer().send(session, FrameType.ACK, Ack(0, ((0, 0),)).encode(), now=NOW)
    session.trains_to_send(NOW)


HAPPENINGS: dict[str, Callable[[Session], None]] = {
    "CONFIRM comes": lambda session: session.confirmed(),
    "a frame of the peer opens": lambda session: _send(session, FrameType.DATAGRAM, b"hello"),
    "a frame does not open": lambda session: deliver(
        session, encode_frame(FrameType.DATAGRAM, SESSION_ID, 0, 0, 0, bytes(40)), now=NOW
    ),
    "a frame opens and breaks the protocol": lambda session: _send(session, 0x7F, b""),
    "DISCONNECT of the peer opens": lambda session: _send(
        session, FrameType.DISCONNECT, Disconnect(code=0, reason="").encode()
    ),
    "the peer acknowledges a frame of the current keys": acknowledge,
    "the application rotates keys": lambda session: session.rotate_keys(),
    "the application closes": lambda session: session.close(0, "", NOW),
    "the idle timeout is over": lambda session: pass_time(session, 30.1),
    "three probe timeouts pass": probe_timeouts_pass,
    "the last path is lost": lose_the_path,
    "the last path is lost and resume_timeout is over": lose_the_path_for_good,
    "the host says that nobody listens, and the peer stays silent": nobody_listens,
}


def _send(session: Session, frame_type: int, plaintext: bytes) -> None:
    rogue = peer()
    rogue.next_number = 100  # a session that was closed by its peer has seen a first one
    rogue.send(session, frame_type, plaintext, now=NOW)


@pytest.mark.parametrize(("state", "happening", "outcome"), documented())
def test_a_pair(state: str, happening: str, outcome: str) -> None:
    session = STATES[state]()
    assert session.state.name == state

    if outcome == "error":
        with pytest.raises(SessionClosed):
            HAPPENINGS[happening.replace("`", "")](session)
        outcome = "-"
    else:
        HAPPENINGS[happening.replace("`", "")](session)

    assert session.state.name == (state if outcome == "-" else outcome)


def test_the_page_has_every_pair() -> None:
    pairs = {(state, happening.replace("`", "")) for state, happening, _ in documented()}

    assert pairs == {(state, happening) for state in STATES for happening in HAPPENINGS}


def test_the_page_has_every_state_with_its_number() -> None:
    _, *rows = table("number")

    assert [(int(row[0]), row[1]) for row in rows] == [(int(state), state.name) for state in State]


@pytest.mark.parametrize(("is_initiator", "state"), [(True, State.HANDSHAKE), (False, State.ACTIVE)])
def test_where_a_session_begins(*, is_initiator: bool, state: State) -> None:
    assert make_session(is_initiator=is_initiator, confirmed=False).state is state
