"""Endpoints of a node: handlers by name, requests to those of peers, and what is passed on for others."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from stt_core.engine.endpoints import (
    DEFAULT_HOPS,
    AddressResolved,
    EndpointRouter,
    HandleRequest,
    RequestAnswered,
    RequestFailed,
    SendMessage,
    SendRoute,
    encode_error,
)
from stt_core.errors import (
    EndpointError,
    EndpointErrorCode,
    LocalError,
    RequestTimeout,
    StreamClosed,
    STTError,
)
from stt_core.foreign import ends_the_task
from stt_core.interfaces.endpoint import EndpointHandler, EndpointRequest, Peer, endpoint_address
from stt_core.wire.frame import FrameType
from stt_core.wire.messages import EndpointResolve, EndpointRoute, ResolveKind, RouteKind

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from stt_core.engine.endpoints import Action
    from stt_core.session import STTSession
    from stt_core.stream import STTStream

_Work: TypeAlias = SendMessage | SendRoute | HandleRequest

_LOG = logging.getLogger("stt.endpoints")

ROUTE_LABEL: Final = "stt.route"
"""Label of a stream that carries the body of a route; its metadata is the rest of it."""

_ROUTE_OVERHEAD: Final = 64  # bytes of a route besides its body, in a message
_MAX_NAME_SIZE: Final = 256
_BODIES_AT_ONCE: Final = 4  # of each session


class EndpointManager:
    """Handlers by name; usable alone, and the ``endpoints`` of each node."""

    def __init__(self) -> None:
        self._handlers: dict[bytes, tuple[str, EndpointHandler]] = {}
        self._changed: Callable[[bytes, bool], None] | None = None

    def register(self, name: str, handler: EndpointHandler) -> bytes:
        """Let a handler answer requests to a name; return its address, 32 bytes.

        Args:
            name: 1 to 256 bytes of UTF-8.
            handler: An async function of an EndpointRequest that returns the reply's body or None.

        Raises:
            LocalError: The name is taken, empty or too long.
        """
        if not 0 < len(name.encode()) <= _MAX_NAME_SIZE:
            raise LocalError(f"an endpoint's name has 1 to {_MAX_NAME_SIZE} bytes, unlike {name!r}")
        address = endpoint_address(name)
        if address in self._handlers:
            raise LocalError(f"endpoint {name!r} has a handler already")
        self._handlers[address] = (name, handler)
        if self._changed is not None:
            self._changed(address, True)
        return address

    def unregister(self, name: str) -> None:
        """Answer a name no more.

        Raises:
            LocalError: It has no handler.
        """
        address = endpoint_address(name)
        if self._handlers.pop(address, None) is None:
            raise LocalError(f"endpoint {name!r} has no handler")
        if self._changed is not None:
            self._changed(address, False)

    def list(self) -> dict[str, bytes]:
        """Return the address of each name that is answered."""
        return {name: address for address, (name, _) in self._handlers.items()}

    def find(self, address: bytes) -> tuple[str, EndpointHandler] | None:
        """Return the name and the handler of an address."""
        return self._handlers.get(address)

    def on_change(self, changed: Callable[[bytes, bool], None]) -> None:
        """Tell somebody of each address that comes (True) or goes (False)."""
        self._changed = changed


class EndpointService:
    """Endpoints at work: carries out what the router's rules say.

    Args:
        manager: The handlers.
        relays: Whether requests are passed on.
        max_message_size: Bytes of the longest message; longer bodies go over a stream.
        max_body_size: Bytes of the longest body that is taken.
        sessions: Finds a session by its id.
        spawn: Runs a coroutine until it ends or the node stops.
        clock: Returns seconds.
    """

    def __init__(
        self,
        manager: EndpointManager,
        *,
        relays: bool,
        max_message_size: int,
        max_body_size: int,
        sessions: Callable[[bytes], STTSession | None],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        clock: Callable[[], float],
    ) -> None:
        self._manager = manager
        self._max_inline = max_message_size - _ROUTE_OVERHEAD
        self._max_body = max_body_size
        self._sessions = sessions
        self._spawn = spawn
        self._clock = clock
        self._router = EndpointRouter(relays=relays)
        self._waiting: dict[bytes, dict[int, tuple[type, asyncio.Future[Any]]]] = {}  # by session and request id
        self._bodies: dict[bytes, tuple[asyncio.Semaphore, asyncio.Semaphore]] = {}
        for address in manager.list().values():
            self._router.add_own(address)
        manager.on_change(self._own_changed)

    # Sessions come and go

    def session_opened(self, session: STTSession) -> None:
        """Take a session up, and announce what is handled here to a peer that relays."""
        self._act(self._router.add_session(session.session_id, peer_relays=session.peer_relays))

    def session_closed(self, session_id: bytes) -> None:
        """Let a session go; who waits for answers in it learns of its end."""
        self._bodies.pop(session_id, None)
        self._act(self._router.remove_session(session_id))
        for _, future in self._waiting.pop(session_id, {}).values():
            if not future.done():
                future.set_exception(EndpointError(EndpointErrorCode.FAILED, "the session ended before the answer"))

    def receive(self, session: STTSession, frame_type: int, message: bytes) -> bool:
        """Take a message of an ENDPOINT type; return whether it is handled, and the peer may send another.

        Raises:
            FrameError: It is malformed.
        """
        actions = self._router.receive(session.session_id, frame_type, message, self._clock())
        work = self._settle(actions)
        if work:
            self._spawn(self._work_off(session, work))
        return not work

    def receive_stream(self, stream: STTStream) -> None:
        """Take a stream that carries a route's body."""
        self._spawn(self._read_route(stream))

    def handle_timeout(self) -> None:
        """Give up what is too old."""
        self._act(self._router.handle_timeout(self._clock()))

    def next_timeout(self) -> float | None:
        """Return when :meth:`handle_timeout` is due."""
        return self._router.next_timeout()

    # Requests

    async def request(self, session: STTSession, name: str, body: bytes, timeout: float) -> bytes:
        """Return the reply of the peer's endpoint, or of one behind it.

        Raises:
            EndpointError: It was answered with an error.
            RequestTimeout: It was not answered in time.
            SessionClosed: The session is over.
        """
        request_id, future = self._expect(session, bytes)
        route = EndpointRoute(RouteKind.REQUEST, request_id, DEFAULT_HOPS, endpoint_address(name), body)
        reply = await self._answer(session, request_id, future, self._send_route(session, route), timeout, name)
        assert isinstance(reply, bytes)
        return reply

    async def notify(self, session: STTSession, name: str, body: bytes) -> None:
        """Send a body to the peer's endpoint, or to one behind it, without an answer.

        Raises:
            SessionClosed: The session is over.
        """
        await self._send_route(session, EndpointRoute(RouteKind.ONE_WAY, 0, DEFAULT_HOPS, endpoint_address(name), body))

    async def resolve(self, session: STTSession, name: str, timeout: float) -> bool:
        """Return whether the peer handles an endpoint, or knows who does.

        Raises:
            RequestTimeout: It did not say in time.
            SessionClosed: The session is over.
        """
        request_id, future = self._expect(session, bool)
        question = EndpointResolve(ResolveKind.ASK, request_id, endpoint_address(name)).encode()
        sending = session.send_frame(FrameType.ENDPOINT_RESOLVE, question)
        return bool(await self._answer(session, request_id, future, sending, timeout, name))

    # Internals

    def _expect(self, session: STTSession, kind: type) -> tuple[int, asyncio.Future[Any]]:
        session.require_open()
        request_id = self._router.draw_request_id(session.session_id)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(session.session_id, {})[request_id] = (kind, future)
        return request_id, future

    async def _answer(
        self,
        session: STTSession,
        request_id: int,
        future: asyncio.Future[Any],
        sending: Coroutine[Any, Any, None],
        timeout: float,
        name: str,
    ) -> object:
        try:
            async with asyncio.timeout(timeout):
                await sending
                return await future
        except TimeoutError:
            raise RequestTimeout(f"no answer of endpoint {name!r} within {timeout:g} s") from None
        except EndpointError:
            session.require_open()  # the end of the session says more than the error made of it
            raise
        finally:
            waiting = self._waiting.get(session.session_id, {})
            waiting.pop(request_id, None)
            if not waiting:
                self._waiting.pop(session.session_id, None)

    def _act(self, actions: Iterable[Action]) -> None:
        """Carry out what this node itself has caused."""
        for action in self._settle(actions):
            self._spawn(self._work(action))

    def _settle(self, actions: Iterable[Action]) -> list[_Work]:
        """Tell who waits for answers; return what is still to be done."""
        work: list[_Work] = []
        for action in actions:
            if isinstance(action, SendMessage | SendRoute | HandleRequest):
                work.append(action)
                continue
            expected, future = self._waiting.get(action.session_id, {}).get(action.request_id, (None, None))
            if future is None or future.done():
                continue
            match action:
                case RequestFailed(_, _, code, text):
                    future.set_exception(EndpointError(code, text))
                case RequestAnswered(_, _, body) if expected is bytes:
                    future.set_result(body)
                case AddressResolved(_, _, known) if expected is bool:
                    future.set_result(known)
        return work

    async def _work_off(self, origin: STTSession, work: list[_Work]) -> None:
        # The peer may send another message only when all that this one caused is done: else it could pile up.
        try:
            for action in work:
                await self._work(action)
        finally:
            origin.message_handled()

    async def _work(self, action: _Work) -> None:
        session = self._sessions(action.session_id)
        if session is None:
            return
        match action:
            case SendMessage():
                await _quietly(session.send_frame(action.frame_type, action.data))
            case SendRoute():
                await _quietly(self._send_route(session, action.route))
            case HandleRequest():
                await self._handle(session, action.route)

    def _own_changed(self, address: bytes, is_handled: bool) -> None:  # noqa: FBT001  the manager's callback
        self._act(self._router.add_own(address) if is_handled else self._router.remove_own(address))

    async def _handle(self, session: STTSession, route: EndpointRoute) -> None:
        one_way = route.kind is RouteKind.ONE_WAY
        answer = await self._call(session, route, one_way=one_way)
        if not one_way:
            await _quietly(self._send_route(session, answer))

    async def _call(self, session: STTSession, route: EndpointRoute, *, one_way: bool) -> EndpointRoute:
        found = self._manager.find(route.address)
        if found is None:
            return _error(route, EndpointErrorCode.UNKNOWN, "no such endpoint")
        name, handler = found
        peer = Peer(session.peer_node_id, session.session_id, session.path)
        try:
            reply = await handler(EndpointRequest(name, route.body, peer, one_way))
            body = b"" if reply is None else bytes(reply)
        except (Exception, asyncio.CancelledError) as error:  # somebody else's code: the log learns how it failed
            if ends_the_task(error):
                raise
            _LOG.exception("endpoint %r failed", name)
            return _error(route, EndpointErrorCode.FAILED, "the handler failed")
        return EndpointRoute(RouteKind.REPLY, route.request_id, 0, route.address, body)

    async def _send_route(self, session: STTSession, route: EndpointRoute) -> None:
        if len(route.body) <= self._max_inline:
            await session.send_frame(FrameType.ENDPOINT_ROUTE, route.encode())
            return
        metadata = [int(route.kind), route.request_id, route.hops_left, route.address]
        stream = await session.open_stream(ROUTE_LABEL, metadata=metadata)
        try:
            await stream.send(route.body)
            stream.end()
            await stream.wait_delivered()
        except StreamClosed:
            # The peer takes no more of the body; why, it says in its answer, if it gives one.
            stream.reset()
        except BaseException:
            stream.reset()
            raise
        finally:
            stream.stop()

    async def _read_route(self, stream: STTStream) -> None:
        session = stream.session
        stream.end()
        head = _decode_head(stream.metadata)
        if head is None:
            _LOG.info("a stream with the label of a route is none")
            stream.stop()
            return
        asks = head.kind in (RouteKind.REQUEST, RouteKind.ONE_WAY)
        if session.closed:
            return
        bodies = self._bodies.get(session.session_id)
        if bodies is None:  # made when first used: most sessions carry no body over a stream
            bodies = (asyncio.Semaphore(_BODIES_AT_ONCE), asyncio.Semaphore(_BODIES_AT_ONCE))
            self._bodies[session.session_id] = bodies
        # Answers have places of their own: handlers that wait for one must not keep it from being read.
        async with bodies[0 if asks else 1]:
            try:
                body = await self._read_body(stream)
                await self._take_route(session, head, body)
            except STTError as error:
                _LOG.info("a route over a stream was dropped: %s", error)

    async def _take_route(self, session: STTSession, head: EndpointRoute, body: bytes | None) -> None:
        """Take a route whose body has come over a stream; None if it was too long."""
        actions: list[Action]
        if body is not None:
            route = EndpointRoute(head.kind, head.request_id, head.hops_left, head.address, body)
            actions = self._router.receive_route(session.session_id, route, self._clock())
        elif head.kind is RouteKind.REQUEST:
            actions = [SendRoute(session.session_id, _error(head, EndpointErrorCode.TOO_LARGE, "too long a body"))]
        else:
            text = f"the reply is longer than {self._max_body} bytes"
            actions = [RequestFailed(session.session_id, head.request_id, EndpointErrorCode.TOO_LARGE, text)]
        for action in self._settle(actions):
            await self._work(action)

    async def _read_body(self, stream: STTStream) -> bytes | None:
        """Return the body, or None when it is too long."""
        body = bytearray()
        async for chunk in stream:
            body += chunk
            if len(body) > self._max_body:
                stream.stop()
                return None
        return bytes(body)


def _decode_head(metadata: object) -> EndpointRoute | None:
    """Return the route that a stream's metadata tells, without its body; None if it tells none."""
    if not isinstance(metadata, list) or [type(value) for value in metadata] != [int, int, int, bytes]:
        return None
    kind, request_id, hops_left, address = metadata
    try:
        return EndpointRoute(RouteKind(kind), request_id, hops_left, address, b"")
    except (LocalError, ValueError):
        return None


def _error(route: EndpointRoute, code: EndpointErrorCode, text: str) -> EndpointRoute:
    return EndpointRoute(RouteKind.ERROR, route.request_id, 0, route.address, encode_error(code, text))


async def _quietly(sending: Coroutine[Any, Any, None]) -> None:
    """Send on behalf of a peer; a session that ended meanwhile needs no answer."""
    try:
        await sending
    except STTError as error:
        _LOG.debug("an answer was not sent: %s", error)
