"""How this node begins sessions: opens transports to a peer, races them, and keeps the paths of what came about."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final

from stt_core import events
from stt_core.engine.paths import PathKey
from stt_core.errors import ConnectError, ConnectReason, ErrorCode, PeerUnreachable, SessionClosed
from stt_core.racing import race
from stt_core.redial import Redialer
from stt_core.session import STTSession

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from stt_core.engine.demux import Demux
    from stt_core.engine.paths import Link
    from stt_core.engine.session import Session
    from stt_core.links import OpenLink

_RACE_INTERVAL: Final = 0.25  # seconds between two URLs of one connect (RFC 8305 section 5)

# The most telling first: a peer that answered says more than one that did not.
_REASONS: Final = (
    ConnectReason.WRONG_PEER,
    ConnectReason.REFUSED,
    ConnectReason.CANCELLED,
    ConnectReason.UNREACHABLE,
    ConnectReason.NO_ANSWER,
)


class Dialler:
    """The sessions that this node begins.

    Args:
        demux: The node's engine.
        open_link: Opens a transport to a URL.
        close_link: Closes one, soon.
        is_reliable: Whether the transport of a URL is.
        flush: Sends what is to leave, now.
        send_handshakes: Sends what handshakes have to say, now.
        schedule_flush: Sends it at the end of this turn of the event loop.
    """

    def __init__(
        self,
        demux: Demux,
        *,
        open_link: Callable[[str], Awaitable[OpenLink]],
        close_link: Callable[[OpenLink], object],
        is_reliable: Callable[[str], bool],
        flush: Callable[[], None],
        send_handshakes: Callable[[], None],
        schedule_flush: Callable[[], None],
    ) -> None:
        self._demux = demux
        self._open_link = open_link
        self._close_link = close_link
        self._is_reliable = is_reliable
        self._flush = flush
        self._send_handshakes = send_handshakes
        self._schedule_flush = schedule_flush
        self._dials: dict[int, _Dial] = {}
        self._dialled: dict[Session, _Dial] = {}
        self._kept: dict[Link, Redialer] = {}

    # Commands

    async def connect(self, urls: Sequence[str], expect: bytes | None) -> STTSession:
        """Begin a session with the peer behind one of several URLs; the first to answer wins.

        Raises:
            ConnectError: No session came about; its ``reason`` is the most telling of all.
            TransportError: The host refused to open a transport.
        """
        if len(urls) == 1:
            return await self._connect(urls[0], expect)
        attempts = [partial(self._connect, url, expect) for url in urls]
        try:
            return await race(attempts, _RACE_INTERVAL, STTSession.close)
        except BaseExceptionGroup as group:
            known = [error for error in group.exceptions if isinstance(error, ConnectError)]
            known.sort(key=lambda error: _REASONS.index(error.reason))
            raise (known or group.exceptions)[0] from None

    def keep_paths(self, session: STTSession, urls: Sequence[str]) -> None:
        """From now on open again what is lost of a session's transports, and those to its other URLs."""
        dial = self._dialled.get(session.engine)
        # One datagram socket has nothing that could be lost: it reaches the peer again when the network does.
        if dial is None or (len(urls) == 1 and not self._is_reliable(urls[0])):
            return
        dial.redialer = Redialer(
            urls, dial=self._open_link, use=partial(self._use_link, session.engine), drop=self._drop_link
        )
        dial.redialer.start(dial.url, dial.link)

    # What the engine tells

    def begun(self, key: int, session: Session) -> None:
        """Learn which session a handshake may become."""
        dial = self._dials.get(key)
        if dial is not None:
            dial.session = session
            self._dialled[session] = dial

    def failed(self, key: int, reason: ConnectReason, text: str) -> None:
        """Learn that a handshake came to nothing."""
        dial = self._dials.get(key)
        if dial is not None:
            dial.settle(ConnectError(reason, text))

    def waits_for(self, session: Session) -> bool:
        """Return whether somebody waits for a session to become active."""
        dial = self._dialled.get(session)
        return dial is not None and not dial.outcome.done()

    def succeeded(self, session: Session, handle: STTSession) -> None:
        """Hand an active session to who waits for it."""
        self._dialled[session].settle(handle)

    def ended_early(self, session: Session, happened: Iterable[events.Event]) -> None:
        """Learn that a session is over that never was active."""
        dial = self._dialled.pop(session, None)
        if dial is not None:
            dial.settle(_no_session(happened))

    def ended(self, session: Session) -> list[asyncio.Task[None]]:
        """Let the transports of a session go; return what is still to end."""
        dial = self._dialled.pop(session, None)
        if dial is None:
            return []
        ending = dial.redialer.stop() if dial.redialer is not None else []
        self._close_link(dial.link)
        return ending

    # What links tell

    def keeps(self, link: Link) -> bool:
        """Return whether a link is opened again when it is lost."""
        return link in self._kept

    def link_lost(self, link: OpenLink) -> None:
        """Learn that a link is of no more use."""
        redialer = self._kept.pop(link.link, None)
        if redialer is not None:
            redialer.lost(link)

    # Internals

    async def _connect(self, url: str, expect: bytes | None) -> STTSession:
        try:
            link = await self._open_link(url)
        except PeerUnreachable as error:
            raise ConnectError(ConnectReason.UNREACHABLE, str(error)) from error
        loop = asyncio.get_running_loop()
        dial = _Dial(url, link, loop.create_future())
        try:
            dial.key = self._demux.connect(PathKey(link.link, link.transport.peer), expect, loop.time())
            self._dials[dial.key] = dial
            self._send_handshakes()
            self._schedule_flush()
            outcome = await dial.outcome
        except BaseException:
            self._give_up(dial)
            raise
        finally:
            self._dials.pop(dial.key, None)
        if isinstance(outcome, ConnectError):
            self._give_up(dial)
            raise outcome
        return outcome

    def _give_up(self, dial: _Dial) -> None:
        now = asyncio.get_running_loop().time()
        self._demux.cancel(dial.key, now)
        if dial.session is not None:
            dial.session.close(ErrorCode.NO_ERROR, "given up", now)
            self._demux.touch(dial.session)
        self._flush()  # at once, since the link closes behind it
        self._close_link(dial.link)

    def _use_link(self, engine: Session, link: OpenLink, rank: int) -> None:
        dial = self._dialled.get(engine)
        if dial is None or dial.redialer is None:
            self._close_link(link)
            return
        if link.is_closing:
            dial.redialer.lost(link)  # it was lost before anybody could be told
            return
        self._kept[link.link] = dial.redialer
        engine.add_path(PathKey(link.link, link.transport.peer), rank, asyncio.get_running_loop().time())
        self._demux.touch(engine)
        self._schedule_flush()

    def _drop_link(self, link: OpenLink) -> None:
        self._kept.pop(link.link, None)
        self._close_link(link)


class _Dial:
    """One transport that was opened to reach a peer, and what comes of it."""

    __slots__ = ("key", "link", "outcome", "redialer", "session", "url")

    def __init__(self, url: str, link: OpenLink, outcome: asyncio.Future[STTSession | ConnectError]) -> None:
        self.url = url
        self.link = link
        self.outcome = outcome
        """A value even for an error: nobody may be left to look at it."""
        self.key = 0
        self.session: Session | None = None
        self.redialer: Redialer | None = None

    def settle(self, outcome: STTSession | ConnectError) -> None:
        """Tell who waits, if anybody still does."""
        if not self.outcome.done():
            self.outcome.set_result(outcome)


def _no_session(happened: Iterable[events.Event]) -> ConnectError:
    """Return the error for a session that ended before it was active."""
    end = next(event for event in happened if isinstance(event, events.SessionEnded))
    reason = ConnectReason.REFUSED if end.by_peer else ConnectReason.NO_ANSWER
    return ConnectError(reason, str(SessionClosed(end.code, end.reason, by_peer=end.by_peer)))
