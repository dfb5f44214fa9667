"""The handshakes that this node began: when they repeat what is unanswered, and how they end.

wire-format.md, section 3: INIT and then RESPONSE are repeated after 250 ms, doubling, until the handshake's time-out.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import TYPE_CHECKING

from stt_core.engine.fragments import Reassembly, split_fragment, to_datagrams
from stt_core.engine.handshake import CONFIRM_SIZE, MAX_CHALLENGE_SIZE, HandshakeState, STTHandshake
from stt_core.engine.handshake_events import HandshakeCompleted, HandshakeConfirmed, HandshakeFailed
from stt_core.errors import ConnectReason, HandshakeError, WrongPeer
from stt_core.wire.frame import SESSION_ID_SIZE, FrameType

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from stt_core.config import STTConfig
    from stt_core.engine.handshake_events import HandshakeEvent
    from stt_core.wire.frame import RawFrame


class OutgoingHandshakes:
    """The initiator's half of the half-open table.

    Args:
        config: The settings of the handshake.
        make_handshake: Called with the expected node id, or None.
        is_session_id_taken: Whether a session of this node has that id.
        datagrams: Where (path, datagram) pairs to send are appended.
        events: Where events are appended.
    """

    def __init__(
        self,
        config: STTConfig,
        make_handshake: Callable[[bytes | None], STTHandshake],
        is_session_id_taken: Callable[[bytes], bool],
        datagrams: list[tuple[Hashable, bytes]],
        events: list[HandshakeEvent],
    ) -> None:
        self._config = config
        self._make_handshake = make_handshake
        self._is_session_id_taken = is_session_id_taken
        self._datagrams = datagrams
        self._events = events
        self._last_key = 0
        self._by_key: dict[int, _Outgoing] = {}
        self._by_label: dict[tuple[Hashable, bytes], _Outgoing] = {}
        self._unconfirmed: dict[bytes, _Outgoing] = {}
        self._nonces: set[bytes] = set()
        self._lanes: dict[Hashable, _Lane] = {}
        self._timers: list[tuple[float, int]] = []  # heap of (when, key); stale where the entry's wake_at is another

    def __len__(self) -> int:
        return len(self._by_key)

    # Inputs

    def receive_challenge(self, frame: RawFrame, path: Hashable, now: float) -> None:
        """Take a fragment of a CHALLENGE.

        Raises:
            HandshakeError: It is dropped.
        """
        outgoing = self._by_label.get((path, frame.session_id))
        if outgoing is None:
            raise HandshakeError("CHALLENGE to no INIT")
        if outgoing.handshake.state is not HandshakeState.CHALLENGE:
            return  # a repetition: RESPONSE is repeated by time
        message = outgoing.buffer.add(*split_fragment(frame, MAX_CHALLENGE_SIZE))
        if message is None:
            return
        try:
            response = outgoing.handshake.process_challenge(message)
        except WrongPeer as error:
            self._fail(outgoing, ConnectReason.WRONG_PEER, error.reason, now)
            return
        except HandshakeError as error:
            outgoing.refused = error.reason
            raise
        result = outgoing.handshake.result
        assert result is not None
        if self._is_session_id_taken(result.session_id):
            self._release(outgoing)
            outgoing.handshake = self._make_handshake(outgoing.expect)
            self._start(outgoing, now)
            raise HandshakeError("the session id is taken: the handshake begins again")
        self._unconfirmed[result.session_id] = outgoing
        round_trip = outgoing.round_trip(self._config.handshake_retry_interval, now)
        self._say(outgoing, FrameType.HANDSHAKE_RESPONSE, response, now)
        self._events.append(HandshakeCompleted(outgoing.key, path, result, round_trip))

    def receive_confirm(self, frame: RawFrame, path: Hashable, now: float) -> None:
        """Take a CONFIRM.

        Raises:
            HandshakeError: It is dropped.
        """
        outgoing = self._by_label.get((path, frame.session_id))
        if outgoing is None:
            return  # a repetition: a sealed frame, or the first CONFIRM, came before
        message = outgoing.buffer.add(*split_fragment(frame, CONFIRM_SIZE))
        if message is None:
            return
        outgoing.handshake.process_final(message)
        assert outgoing.handshake.session_id is not None
        self._events.append(HandshakeConfirmed(outgoing.key, outgoing.handshake.session_id))
        self._end(outgoing, now)

    def handle_timeout(self, now: float) -> None:
        """Repeat what is unanswered, give up what is too old."""
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)
            if not self._is_current(timer):
                continue
            outgoing = self._by_key[timer[1]]
            if now >= outgoing.deadline:
                self._fail(outgoing, ConnectReason.NO_ANSWER, self._text_of_silence(outgoing), now)
            else:
                outgoing.interval *= 2
                self._send(outgoing, now)

    def path_lost(self, path: Hashable, text: str, now: float) -> None:
        """Fail what was begun on a path on which nobody is reached."""
        if path not in self._lanes:
            return
        # The newest first: none that waits for its turn may get it now.
        for outgoing in [entry for entry in reversed(self._by_key.values()) if entry.path == path]:
            self._fail(outgoing, ConnectReason.UNREACHABLE, text, now)

    # Commands

    def connect(self, path: Hashable, now: float, expect: bytes | None) -> int:
        """Begin a handshake, or queue it behind others on the path; return its key."""
        self._last_key += 1
        outgoing = _Outgoing(
            key=self._last_key,
            path=path,
            expect=expect,
            deadline=now + self._config.handshake_timeout,
            handshake=self._make_handshake(expect),
        )
        self._by_key[outgoing.key] = outgoing
        lane = self._lanes.setdefault(path, _Lane())
        if lane.running < self._config.half_open_limit_per_address:
            lane.running += 1
            self._start(outgoing, now)
        else:
            lane.waiting.append(outgoing.key)
            self._set_timer(outgoing, outgoing.deadline)
        return outgoing.key

    def cancel(self, key: int, now: float) -> None:
        """Drop a handshake; a key that is over is ignored."""
        outgoing = self._by_key.get(key)
        if outgoing is not None:
            self._end(outgoing, now)

    def confirmed(self, session_id: bytes, now: float) -> None:
        """End a handshake whose RESPONSE has arrived; other session ids are ignored."""
        outgoing = self._unconfirmed.get(session_id)
        if outgoing is not None:
            self._end(outgoing, now)

    # Outputs

    def next_timeout(self) -> float | None:
        """Return when to call :meth:`handle_timeout`, if ever."""
        while self._timers and not self._is_current(self._timers[0]):
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def has_nonce(self, nonce_i: bytes) -> bool:
        """Return whether a handshake in progress has that nonce."""
        return nonce_i in self._nonces

    # Internals

    def _start(self, outgoing: _Outgoing, now: float) -> None:
        message = outgoing.handshake.create_hello()
        nonce_i = outgoing.handshake.nonce_i
        self._nonces.add(nonce_i)
        self._by_label[outgoing.path, nonce_i[:SESSION_ID_SIZE]] = outgoing
        self._say(outgoing, FrameType.HANDSHAKE_INIT, message, now)

    def _say(self, outgoing: _Outgoing, frame_type: FrameType, message: bytes, now: float) -> None:
        outgoing.datagrams = to_datagrams(frame_type, outgoing.handshake.nonce_i, message)
        outgoing.interval = self._config.handshake_retry_interval
        outgoing.said_at = now
        self._send(outgoing, now)

    def _send(self, outgoing: _Outgoing, now: float) -> None:
        self._datagrams.extend((outgoing.path, datagram) for datagram in outgoing.datagrams)
        self._set_timer(outgoing, min(now + outgoing.interval, outgoing.deadline))

    def _set_timer(self, outgoing: _Outgoing, wake_at: float) -> None:
        outgoing.wake_at = wake_at
        heapq.heappush(self._timers, (wake_at, outgoing.key))

    def _is_current(self, timer: tuple[float, int]) -> bool:
        wake_at, key = timer
        outgoing = self._by_key.get(key)
        return outgoing is not None and outgoing.wake_at == wake_at

    def _text_of_silence(self, outgoing: _Outgoing) -> str:
        if outgoing.handshake.session_id is not None:
            return "the peer proved itself, but then fell silent"
        text = (
            f"no answer within {self._config.handshake_timeout:g} s: the peer has another seed, "
            "the address is wrong, or a port is blocked"
        )
        return f"{text}; what came was refused: {outgoing.refused}" if outgoing.refused else text

    def _fail(self, outgoing: _Outgoing, reason: ConnectReason, text: str, now: float) -> None:
        session_id = outgoing.handshake.session_id
        self._events.append(HandshakeFailed(outgoing.key, outgoing.path, reason, text, session_id))
        self._end(outgoing, now)

    def _end(self, outgoing: _Outgoing, now: float) -> None:
        self._release(outgoing)
        del self._by_key[outgoing.key]
        lane = self._lanes[outgoing.path]
        if not outgoing.datagrams:
            lane.waiting.remove(outgoing.key)
        elif lane.waiting:
            self._start(self._by_key[lane.waiting.popleft()], now)
        else:
            lane.running -= 1
            if not lane.running:
                del self._lanes[outgoing.path]

    def _release(self, outgoing: _Outgoing) -> None:
        nonce_i = outgoing.handshake.nonce_i
        self._nonces.discard(nonce_i)
        self._by_label.pop((outgoing.path, nonce_i[:SESSION_ID_SIZE]), None)
        session_id = outgoing.handshake.session_id
        if session_id is not None:
            self._unconfirmed.pop(session_id, None)


class _Outgoing:
    __slots__ = (
        "buffer",
        "datagrams",
        "deadline",
        "expect",
        "handshake",
        "interval",
        "key",
        "path",
        "refused",
        "said_at",
        "wake_at",
    )

    def __init__(
        self, key: int, path: Hashable, expect: bytes | None, deadline: float, handshake: STTHandshake
    ) -> None:
        self.key = key
        self.path = path
        self.expect = expect
        self.deadline = deadline
        self.handshake = handshake
        self.datagrams: tuple[bytes, ...] = ()
        """What is repeated; none while it waits for its turn."""
        self.interval = self.said_at = self.wake_at = 0.0
        self.buffer = Reassembly()
        self.refused = ""
        """Why the newest CHALLENGE was refused."""

    def round_trip(self, first_interval: float, now: float) -> float | None:
        """Return the seconds since what is answered now was said, if it was said once."""
        return now - self.said_at if self.interval == first_interval else None


class _Lane:
    """The handshakes on one path: a peer of the same settings drops more than its limit for one address."""

    __slots__ = ("running", "waiting")

    def __init__(self) -> None:
        self.running = 0
        self.waiting: deque[int] = deque()
