"""The rules of ENDPOINT frames: own handlers, announcements, relaying, bounds."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_core.engine.endpoints import (
    MAX_ANNOUNCEMENTS,
    MAX_RELAYED,
    RELAY_TIMEOUT,
    AddressResolved,
    EndpointRouter,
    HandleRequest,
    RequestAnswered,
    RequestFailed,
    SendMessage,
    SendRoute,
    decode_error,
    encode_error,
)
from stt_core.errors import EndpointErrorCode, FrameError
from stt_core.wire.frame import FrameType
from stt_core.wire.messages import (
    EndpointRegister,
    EndpointResolve,
    EndpointRoute,
    RegisterKind,
    ResolveKind,
    RouteKind,
    decode_endpoint_register,
    decode_endpoint_resolve,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

ALICE, BOB, CAROL = b"alice   ", b"bob     ", b"carol   "
ADDRESS = b"a" * 32
OTHER = b"b" * 32


def router(*, relays: bool = True, sessions: tuple[bytes, ...] = (ALICE, BOB, CAROL)) -> EndpointRouter:
    made = EndpointRouter(relays=relays)
    for session_id in sessions:
        made.add_session(session_id, peer_relays=False)
    return made


def announce(
    made: EndpointRouter, session_id: bytes, address: bytes, kind: RegisterKind = RegisterKind.ANNOUNCE
) -> None:
    assert made.receive(session_id, FrameType.ENDPOINT_REGISTER, EndpointRegister(kind, address).encode(), 0.0) == []


def request(number: int = 7, hops: int = 4, address: bytes = ADDRESS, body: bytes = b"body") -> EndpointRoute:
    return EndpointRoute(RouteKind.REQUEST, number, hops, address, body)


def the_error(actions: Sequence[object]) -> tuple[bytes, int, EndpointErrorCode]:
    (action,) = actions
    assert isinstance(action, SendRoute)
    assert action.route.kind is RouteKind.ERROR
    code, _ = decode_error(action.route.body)
    return action.session_id, action.route.request_id, EndpointErrorCode(code)


def test_a_request_for_an_own_address_is_handled_here() -> None:
    made = router()
    made.add_own(ADDRESS)

    assert made.receive_route(ALICE, request(), 0.0) == [HandleRequest(ALICE, request())]


def test_a_request_for_an_unknown_address_is_answered_with_unknown() -> None:
    assert the_error(router().receive_route(ALICE, request(), 0.0)) == (ALICE, 7, EndpointErrorCode.UNKNOWN)


def test_what_is_sent_one_way_to_an_unknown_address_is_dropped_in_silence() -> None:
    route = EndpointRoute(RouteKind.ONE_WAY, 0, 4, ADDRESS, b"")

    assert router().receive_route(ALICE, route, 0.0) == []


def test_a_relay_passes_a_request_on_under_an_id_of_its_own_and_the_reply_back() -> None:
    made = router()
    announce(made, BOB, ADDRESS)
    made.draw_request_id(BOB)

    (passed,) = made.receive_route(ALICE, request(), 0.0)
    assert isinstance(passed, SendRoute)
    reply = EndpointRoute(RouteKind.REPLY, passed.route.request_id, 0, ADDRESS, b"answer")
    (back,) = made.receive_route(BOB, reply, 0.1)

    assert passed == SendRoute(BOB, EndpointRoute(RouteKind.REQUEST, 2, 3, ADDRESS, b"body"))
    assert back == SendRoute(ALICE, EndpointRoute(RouteKind.REPLY, 7, 0, ADDRESS, b"answer"))
    assert made.receive_route(BOB, reply, 0.2) == [RequestAnswered(BOB, passed.route.request_id, b"answer")]


def test_a_relay_passes_on_what_is_sent_one_way() -> None:
    made = router()
    announce(made, BOB, ADDRESS)
    route = EndpointRoute(RouteKind.ONE_WAY, 0, 4, ADDRESS, b"x")

    assert made.receive_route(ALICE, route, 0.0) == [
        SendRoute(BOB, EndpointRoute(RouteKind.ONE_WAY, 0, 3, ADDRESS, b"x"))
    ]


def test_a_node_that_does_not_relay_keeps_no_announcement() -> None:
    made = router(relays=False)
    announce(made, BOB, ADDRESS)

    assert the_error(made.receive_route(ALICE, request(), 0.0))[2] is EndpointErrorCode.UNKNOWN


def test_hops_run_out() -> None:
    made = router()
    announce(made, BOB, ADDRESS)

    assert the_error(made.receive_route(ALICE, request(hops=0), 0.0)) == (ALICE, 7, EndpointErrorCode.HOPS)


def test_a_request_is_never_relayed_back_to_where_it_came_from() -> None:
    made = router()
    announce(made, ALICE, ADDRESS)

    assert the_error(made.receive_route(ALICE, request(), 0.0))[2] is EndpointErrorCode.UNKNOWN


def test_the_first_announcer_holds_an_address_until_it_withdraws() -> None:
    made = router()
    announce(made, BOB, ADDRESS)
    announce(made, CAROL, ADDRESS)

    (first,) = made.receive_route(ALICE, request(), 0.0)
    announce(made, BOB, ADDRESS, RegisterKind.WITHDRAW)
    announce(made, CAROL, ADDRESS)
    (second,) = made.receive_route(ALICE, request(), 0.0)

    assert isinstance(first, SendRoute)
    assert isinstance(second, SendRoute)
    assert (first.session_id, second.session_id) == (BOB, CAROL)


def test_a_node_that_comes_back_holds_its_address_once_its_old_session_is_gone() -> None:
    made = router()
    announce(made, BOB, ADDRESS)
    announce(made, CAROL, ADDRESS)  # the same node, in a new session

    made.remove_session(BOB)

    (passed,) = made.receive_route(ALICE, request(), 0.0)
    assert isinstance(passed, SendRoute)
    assert passed.session_id == CAROL


def test_a_stranger_cannot_withdraw_what_another_announced() -> None:
    made = router()
    announce(made, BOB, ADDRESS)

    announce(made, CAROL, ADDRESS, RegisterKind.WITHDRAW)

    (passed,) = made.receive_route(ALICE, request(), 0.0)
    assert isinstance(passed, SendRoute)
    assert passed.session_id == BOB


def test_own_handlers_win_over_announcements() -> None:
    made = router()
    announce(made, BOB, ADDRESS)
    made.add_own(ADDRESS)

    assert made.receive_route(ALICE, request(), 0.0) == [HandleRequest(ALICE, request())]


def test_a_session_that_ends_takes_its_announcements_along_and_fails_what_was_passed_to_it() -> None:
    made = router()
    announce(made, BOB, ADDRESS)
    made.receive_route(ALICE, request(), 0.0)

    assert the_error(list(made.remove_session(BOB))) == (ALICE, 7, EndpointErrorCode.UNKNOWN)
    assert the_error(made.receive_route(ALICE, request(), 0.0))[2] is EndpointErrorCode.UNKNOWN
    assert made.remove_session(BOB) == []


def test_a_requester_that_left_gets_nothing() -> None:
    made = router()
    announce(made, BOB, ADDRESS)
    made.receive_route(ALICE, request(), 0.0)
    made.remove_session(ALICE)

    assert made.receive_route(BOB, EndpointRoute(RouteKind.REPLY, 1, 0, ADDRESS, b""), 0.0) == []


def test_a_relay_gives_up_after_its_time() -> None:
    made = router()
    announce(made, BOB, ADDRESS)
    made.receive_route(ALICE, request(), 5.0)

    assert made.next_timeout() == 5.0 + RELAY_TIMEOUT
    assert made.handle_timeout(5.0) == []
    assert the_error(made.handle_timeout(5.0 + RELAY_TIMEOUT)) == (ALICE, 7, EndpointErrorCode.TIMEOUT)
    assert made.next_timeout() is None


def test_a_peer_cannot_fill_the_table_of_announcements() -> None:
    made = router()
    for number in range(MAX_ANNOUNCEMENTS + 1):
        announce(made, BOB, number.to_bytes(32, "big"))

    last = MAX_ANNOUNCEMENTS.to_bytes(32, "big")
    assert the_error(made.receive_route(ALICE, request(address=last), 0.0))[2] is EndpointErrorCode.UNKNOWN


def test_a_peer_cannot_fill_the_table_of_relayed_requests() -> None:
    made = router()
    announce(made, BOB, ADDRESS)
    for number in range(MAX_RELAYED):
        made.receive_route(ALICE, request(number), 0.0)

    assert the_error(made.receive_route(ALICE, request(9999), 0.0)) == (ALICE, 9999, EndpointErrorCode.BUSY)
    assert made.receive_route(BOB, EndpointRoute(RouteKind.REPLY, 1, 0, ADDRESS, b""), 0.0)
    (passed,) = made.receive_route(ALICE, request(9999), 0.0)
    assert isinstance(passed, SendRoute)
    assert passed.session_id == BOB


@pytest.mark.parametrize(
    ("address", "known"), [(ADDRESS, ResolveKind.KNOWN), (OTHER, ResolveKind.KNOWN), (b"c" * 32, ResolveKind.UNKNOWN)]
)
def test_a_question_is_answered_for_own_and_announced_addresses(address: bytes, known: ResolveKind) -> None:
    made = router()
    made.add_own(ADDRESS)
    announce(made, BOB, OTHER)

    question = EndpointResolve(ResolveKind.ASK, 3, address).encode()
    (answer,) = made.receive(ALICE, FrameType.ENDPOINT_RESOLVE, question, 0.0)

    assert isinstance(answer, SendMessage)
    assert decode_endpoint_resolve(answer.data) == EndpointResolve(known, 3, address)


def test_answers_to_own_questions_are_told() -> None:
    made = router()

    known = made.receive(BOB, FrameType.ENDPOINT_RESOLVE, EndpointResolve(ResolveKind.KNOWN, 1, ADDRESS).encode(), 0.0)
    failed = made.receive_route(
        BOB, EndpointRoute(RouteKind.ERROR, 2, 0, ADDRESS, encode_error(EndpointErrorCode.FAILED, "why")), 0.0
    )

    assert known == [AddressResolved(BOB, 1, known=True)]
    assert failed == [RequestFailed(BOB, 2, EndpointErrorCode.FAILED, "why")]


def test_a_peer_that_relays_hears_of_every_own_address() -> None:
    made = EndpointRouter(relays=False)
    made.add_own(ADDRESS)

    (at_once,) = made.add_session(ALICE, peer_relays=True)
    (later,) = made.add_own(OTHER)
    (withdrawn,) = made.remove_own(ADDRESS)

    told = [
        decode_endpoint_register(action.data)
        for action in (at_once, later, withdrawn)
        if isinstance(action, SendMessage)
    ]
    assert told == [
        EndpointRegister(RegisterKind.ANNOUNCE, ADDRESS),
        EndpointRegister(RegisterKind.ANNOUNCE, OTHER),
        EndpointRegister(RegisterKind.WITHDRAW, ADDRESS),
    ]


def test_a_session_that_is_not_known_changes_nothing() -> None:
    made = router(sessions=())

    assert made.receive(ALICE, FrameType.ENDPOINT_ROUTE, request().encode(), 0.0) == []
    assert made.receive_route(BOB, EndpointRoute(RouteKind.REPLY, 1, 0, ADDRESS, b""), 0.0) == []


@given(
    st.sampled_from((FrameType.ENDPOINT_REGISTER, FrameType.ENDPOINT_RESOLVE, FrameType.ENDPOINT_ROUTE)),
    st.binary(max_size=80),
)
def test_any_bytes_are_a_message_or_one_error(frame_type: FrameType, message: bytes) -> None:
    made = router()
    made.add_own(ADDRESS)
    with contextlib.suppress(FrameError):
        made.receive(ALICE, frame_type, message, 0.0)
