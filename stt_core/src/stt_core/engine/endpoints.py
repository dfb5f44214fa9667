"""Who handles an address, which requests are under way, and what is relayed: the rules of ENDPOINT frames.

wire-format.md, "Endpoints". Messages and time in, actions out; no I/O, no clock, and no handler is called here.
Sessions are known by their ids. All that peers can fill is bounded by session, and goes when the session does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import attrs

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
    decode_endpoint_route,
)
from stt_core.wire.varint import decode_varint, encode_varint

if TYPE_CHECKING:
    from stt_core.interfaces.transport import Buffer

DEFAULT_HOPS: Final = 4
"""Relays that a request may pass."""

MAX_ANNOUNCEMENTS: Final = 1024
"""Addresses that one session may announce to a relay."""

MAX_RELAYED: Final = 1024
"""Requests of one session that a relay has under way."""

RELAY_TIMEOUT: Final = 60.0
"""Seconds that a relay waits for a reply."""


@attrs.frozen
class SendMessage:
    """A message is to be sent in a session."""

    session_id: bytes
    frame_type: int
    data: bytes = attrs.field(repr=False)


@attrs.frozen
class SendRoute:
    """A route is to be sent in a session: as a message, or over a stream if its body is too long for one."""

    session_id: bytes
    route: EndpointRoute


@attrs.frozen
class HandleRequest:
    """A request, or what is sent one way, is for this node's own handler."""

    session_id: bytes
    route: EndpointRoute


@attrs.frozen
class RequestAnswered:
    """The reply to a request of this node's came."""

    session_id: bytes
    request_id: int
    body: bytes = attrs.field(repr=False)


@attrs.frozen
class RequestFailed:
    """A request of this node's was answered with an error."""

    session_id: bytes
    request_id: int
    code: int
    text: str


@attrs.frozen
class AddressResolved:
    """A question of this node's was answered."""

    session_id: bytes
    request_id: int
    known: bool


Action: TypeAlias = SendMessage | SendRoute | HandleRequest | RequestAnswered | RequestFailed | AddressResolved


class _Peer:
    __slots__ = ("announced", "next_request", "relayed", "relaying")

    def __init__(self) -> None:
        self.announced: dict[bytes, None] = {}
        self.next_request = 0
        self.relayed: dict[int, _Relayed] = {}
        """What was passed on to this peer, by the request id drawn for it."""
        self.relaying = 0
        """Requests that came from this peer and were passed on."""


class _Relayed(NamedTuple):
    origin: bytes
    request_id: int
    address: bytes


class EndpointRouter:
    """The endpoint state of a node.

    Args:
        relays: Whether this node passes requests on to whoever announced their address.
    """

    def __init__(self, *, relays: bool) -> None:
        self._relays = relays
        self._own: set[bytes] = set()
        # Who announced an address, in order: the first one holds it, and the next one follows.
        self._announcers: dict[bytes, dict[bytes, None]] = {}
        self._peers: dict[bytes, _Peer | None] = {}  # None until something is known of it, as of most
        self._to_relays: dict[bytes, None] = {}
        # When what was passed on is given up, by session and request id. All wait equally long: the oldest come first.
        self._deadlines: dict[tuple[bytes, int], float] = {}

    # Commands

    def add_session(self, session_id: bytes, *, peer_relays: bool) -> list[Action]:
        """Take a session up; return the announcements that its peer should get."""
        self._peers[session_id] = None
        if not peer_relays:
            return []
        self._to_relays[session_id] = None
        return [_announce(session_id, address, RegisterKind.ANNOUNCE) for address in sorted(self._own)]

    def remove_session(self, session_id: bytes) -> list[Action]:
        """Let a session go; return the errors for requests that were passed on to it."""
        peer = self._peers.pop(session_id, None)
        self._to_relays.pop(session_id, None)
        if peer is None:
            return []
        for address in peer.announced:
            self._release(address, session_id)
        for request_id in peer.relayed:
            del self._deadlines[session_id, request_id]
        return [
            action
            for relayed in peer.relayed.values()
            for action in self._fail_relayed(relayed, EndpointErrorCode.UNKNOWN, "the peer with the endpoint is gone")
        ]

    def add_own(self, address: bytes) -> list[Action]:
        """Handle an address here; return the announcements of it."""
        self._own.add(address)
        return [_announce(session_id, address, RegisterKind.ANNOUNCE) for session_id in self._to_relays]

    def remove_own(self, address: bytes) -> list[Action]:
        """Handle an address no more; return the withdrawals of it."""
        self._own.discard(address)
        return [_announce(session_id, address, RegisterKind.WITHDRAW) for session_id in self._to_relays]

    def draw_request_id(self, session_id: bytes) -> int:
        """Return a request id for a request to the peer of a session."""
        peer = self._peer(session_id)
        peer.next_request += 1
        return peer.next_request

    # Inputs

    def receive(self, session_id: bytes, frame_type: int, message: Buffer, now: float) -> list[Action]:
        """Take a message of an ENDPOINT type.

        Raises:
            FrameError: It is malformed.
        """
        if session_id not in self._peers:
            return []
        if frame_type == FrameType.ENDPOINT_REGISTER:
            self._receive_register(session_id, decode_endpoint_register(message))
            return []
        if frame_type == FrameType.ENDPOINT_RESOLVE:
            return self._receive_resolve(session_id, decode_endpoint_resolve(message))
        return self.receive_route(session_id, decode_endpoint_route(message), now)

    def receive_route(self, session_id: bytes, route: EndpointRoute, now: float) -> list[Action]:
        """Take an ENDPOINT_ROUTE whose body has come, in a message or over a stream.

        Raises:
            FrameError: The body of an error is malformed.
        """
        if session_id not in self._peers:
            return []
        if route.kind in (RouteKind.ONE_WAY, RouteKind.REQUEST):
            if route.address in self._own:
                return [HandleRequest(session_id, route)]
            return self._relay(session_id, route, now)
        relayed = self._peer(session_id).relayed.pop(route.request_id, None)
        if relayed is not None:
            del self._deadlines[session_id, route.request_id]
            self._count_relayed(relayed.origin, -1)
            answer = EndpointRoute(route.kind, relayed.request_id, 0, relayed.address, route.body)
            return [SendRoute(relayed.origin, answer)] if relayed.origin in self._peers else []
        if route.kind is RouteKind.REPLY:
            return [RequestAnswered(session_id, route.request_id, route.body)]
        code, text = decode_error(route.body)
        return [RequestFailed(session_id, route.request_id, code, text)]

    def handle_timeout(self, now: float) -> list[Action]:
        """Give up what was passed on and not answered in time."""
        actions: list[Action] = []
        while self._deadlines:
            (session_id, request_id), deadline = next(iter(self._deadlines.items()))
            if deadline > now:
                break
            del self._deadlines[session_id, request_id]
            relayed = self._peer(session_id).relayed.pop(request_id)
            actions += self._fail_relayed(relayed, EndpointErrorCode.TIMEOUT, "the endpoint did not answer in time")
        return actions

    # Outputs

    def next_timeout(self) -> float | None:
        """Return when :meth:`handle_timeout` is due."""
        return next(iter(self._deadlines.values()), None)

    # Internals

    def _receive_register(self, session_id: bytes, message: EndpointRegister) -> None:
        if not self._relays:
            return
        peer = self._peer(session_id)
        address = message.address
        if message.kind is RegisterKind.WITHDRAW:
            peer.announced.pop(address, None)
            self._release(address, session_id)
        elif len(peer.announced) < MAX_ANNOUNCEMENTS:
            peer.announced[address] = None
            # The first holds it, so that nobody takes another's requests over.
            self._announcers.setdefault(address, {})[session_id] = None

    def _receive_resolve(self, session_id: bytes, message: EndpointResolve) -> list[Action]:
        if message.kind is not ResolveKind.ASK:
            known = message.kind is ResolveKind.KNOWN
            return [AddressResolved(session_id, message.request_id, known)]
        address = message.address
        holder = self._holder(address)
        known = address in self._own or (holder is not None and holder != session_id)
        kind = ResolveKind.KNOWN if known else ResolveKind.UNKNOWN
        answer = EndpointResolve(kind, message.request_id, address).encode()
        return [SendMessage(session_id, FrameType.ENDPOINT_RESOLVE, answer)]

    def _relay(self, session_id: bytes, route: EndpointRoute, now: float) -> list[Action]:
        holder = self._holder(route.address)
        if holder is None or holder == session_id:
            return _refuse(session_id, route, EndpointErrorCode.UNKNOWN, "no such endpoint")
        if not route.hops_left:
            return _refuse(session_id, route, EndpointErrorCode.HOPS, "the request was relayed too often")
        hops_left = route.hops_left - 1
        if route.kind is RouteKind.ONE_WAY:
            return [SendRoute(holder, attrs.evolve(route, hops_left=hops_left))]
        if self._peer(session_id).relaying >= MAX_RELAYED:
            return _refuse(session_id, route, EndpointErrorCode.BUSY, "too many requests are under way")
        request_id = self.draw_request_id(holder)
        self._peer(holder).relayed[request_id] = _Relayed(session_id, route.request_id, route.address)
        self._deadlines[holder, request_id] = now + RELAY_TIMEOUT
        self._count_relayed(session_id, 1)
        return [SendRoute(holder, EndpointRoute(route.kind, request_id, hops_left, route.address, route.body))]

    def _fail_relayed(self, relayed: _Relayed, code: EndpointErrorCode, text: str) -> list[Action]:
        self._count_relayed(relayed.origin, -1)
        if relayed.origin not in self._peers:
            return []
        answer = EndpointRoute(RouteKind.ERROR, relayed.request_id, 0, relayed.address, encode_error(code, text))
        return [SendRoute(relayed.origin, answer)]

    def _holder(self, address: bytes) -> bytes | None:
        return next(iter(self._announcers.get(address, ())), None)

    def _release(self, address: bytes, session_id: bytes) -> None:
        announcers = self._announcers.get(address, {})
        announcers.pop(session_id, None)
        if not announcers:
            self._announcers.pop(address, None)

    def _count_relayed(self, session_id: bytes, change: int) -> None:
        if session_id in self._peers:
            self._peer(session_id).relaying += change

    def _peer(self, session_id: bytes) -> _Peer:
        peer = self._peers[session_id]
        if peer is None:
            peer = self._peers[session_id] = _Peer()
        return peer


def encode_error(code: int, text: str) -> bytes:
    """Return the body of an ENDPOINT_ROUTE error: varint code, UTF-8 text."""
    return encode_varint(code) + text.encode()


def decode_error(body: Buffer) -> tuple[int, str]:
    """Return the code and the text of an ENDPOINT_ROUTE error.

    Raises:
        FrameError: It has no code, or the text is not UTF-8.
    """
    code, offset = decode_varint(body)
    try:
        return code, str(memoryview(body)[offset:], "utf-8")
    except UnicodeDecodeError:
        raise FrameError("the text of an endpoint's error is not UTF-8") from None


def _announce(session_id: bytes, address: bytes, kind: RegisterKind) -> SendMessage:
    return SendMessage(session_id, FrameType.ENDPOINT_REGISTER, EndpointRegister(kind, address).encode())


def _refuse(session_id: bytes, route: EndpointRoute, code: EndpointErrorCode, text: str) -> list[Action]:
    if route.kind is RouteKind.ONE_WAY:
        return []
    answer = EndpointRoute(RouteKind.ERROR, route.request_id, 0, route.address, encode_error(code, text))
    return [SendRoute(session_id, answer)]
