from __future__ import annotations

from typing import TYPE_CHECKING

from stt_core.engine.path_index import PathIndex
from stt_core.engine.paths import Link, PathKey
from stt_core.testing.link import DATAGRAMS
from stt_core.testing.sessions import RoguePeer, make_session
from stt_core.wire.frame import FrameType, split_frames

if TYPE_CHECKING:
    from stt_core.engine.session import Session


def hear(session: Session, rogue: RoguePeer, key: PathKey) -> None:
    """Let a session hear of its peer on a path, which is one of its own from then on."""
    frame = rogue.seal(FrameType.DATAGRAM, b"x")
    session.receive_frames(split_frames(frame), key, len(frame), 0.0)


def test_a_session_is_found_by_its_path_and_by_its_link() -> None:
    index = PathIndex()
    session = make_session(is_initiator=True)

    index.update([session])

    assert index.on(session.path) == (session,)
    assert index.over(session.path.link) == [(session.path, session)]


def test_other_paths_and_links_find_nobody() -> None:
    index = PathIndex()
    session = make_session(is_initiator=True)
    index.update([session])

    assert index.on(session.path._replace(address="elsewhere")) == ()
    assert index.over(Link("sim://", DATAGRAMS)) == []


def test_sessions_that_share_a_path_are_all_found() -> None:
    index = PathIndex()
    first, second = make_session(is_initiator=True), make_session(is_initiator=True)
    shared = first.path
    second.add_path(shared, 0, 0.0)

    index.update([first, second])
    assert index.on(shared) == (first, second)

    index.forget(first)
    assert index.on(shared) == (second,)


def test_a_path_that_comes_is_taken_up_and_one_that_goes_is_dropped() -> None:
    index = PathIndex()
    session, rogue = make_session(is_initiator=False), RoguePeer(is_initiator=True)
    home, elsewhere = session.path, session.path._replace(address="elsewhere")
    index.update([session])

    hear(session, rogue, elsewhere)
    index.update([session])
    assert index.on(elsewhere) == index.on(home) == (session,)

    session.path_lost(home, "unplugged", 0.0)
    index.update([session])
    assert index.on(home) == ()
    assert index.over(home.link) == [(elsewhere, session)]


def test_a_session_that_is_forgotten_leaves_nothing() -> None:
    index = PathIndex()
    session = make_session(is_initiator=True)
    index.update([session])

    index.forget(session)
    index.forget(session)

    assert index.on(session.path) == ()
    assert index.over(session.path.link) == []
