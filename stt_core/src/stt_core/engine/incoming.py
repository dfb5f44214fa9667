"""The handshakes that peers began: who is answered, how often, and what they may cost.

wire-format.md, section 3. Each rule is against somebody who forges source addresses and has recorded everything:

- Before an INIT has opened it costs hashes, and leaves no state and no answer.
- An address gets at most one CHALLENGE for each INIT of 1200 bytes, and a CHALLENGE with its framing is less than three
  times that; it gets nothing else before a RESPONSE came from it.
- An INIT is worked on once. The same INIT from another address, where the initiator has moved or somebody copies it,
  gets the same CHALLENGE while it is half open; whichever address RESPONSE comes from is the peer's.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Final, NamedTuple

from stt_core.engine.fragments import Reassembly, split_fragment, to_datagrams
from stt_core.engine.handshake import INIT_SIZE, MAX_RESPONSE_SIZE, STTHandshake, init_nonce
from stt_core.engine.handshake_events import HandshakeCompleted
from stt_core.errors import HandshakeError
from stt_core.wire.frame import FRAME_OVERHEAD, SESSION_ID_SIZE, FrameType

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from stt_core.config import STTConfig
    from stt_core.engine.handshake_events import HandshakeEvent
    from stt_core.wire.frame import RawFrame

MAX_EARLY_FRAMES: Final = 16
"""Sealed frames that are kept for one session before it is accepted; an initiator sends no more before CONFIRM."""

MAX_EARLY_SIZE: Final = 32 * 1024
"""Bytes of such frames: 16 datagrams of Ethernet's size, with room to spare."""

MAX_ADDRESSES: Final = 4
"""Addresses that one INIT may come from while it is half open."""

MAX_ANSWERED: Final = 8192
"""Completed handshakes whose CONFIRM is kept for repeated RESPONSEs: ten seconds of 800 a second."""

_TAIL_SIZE: Final = 16  # bytes that tell a repeated RESPONSE: the tag of its seal


class IncomingHandshakes:
    """The responder's half of the half-open table.

    Args:
        config: The settings of the handshake.
        make_handshake: Returns a responder's handshake.
        is_session_id_taken: Whether a session of this node has that id.
        is_own_nonce: Whether a handshake that this node began has that nonce_I.
        datagrams: Where (path, datagram) pairs to send are appended.
        events: Where events are appended.
    """

    def __init__(
        self,
        config: STTConfig,
        make_handshake: Callable[[], STTHandshake],
        is_session_id_taken: Callable[[bytes], bool],
        is_own_nonce: Callable[[bytes], bool],
        datagrams: list[tuple[Hashable, bytes]],
        events: list[HandshakeEvent],
    ) -> None:
        self._config = config
        self._make_handshake = make_handshake
        self._is_session_id_taken = is_session_id_taken
        self._is_own_nonce = is_own_nonce
        self._datagrams = datagrams
        self._events = events
        self._by_nonce: OrderedDict[bytes, _Incoming] = OrderedDict()  # the oldest first
        self._by_label: dict[tuple[Hashable, bytes], _Incoming] = {}
        self._undecided: dict[bytes, _Incoming] = {}
        self._addresses: dict[Hashable, _Address] = {}
        self._answered: OrderedDict[tuple[Hashable, bytes], _Answered] = OrderedDict()
        self._seen = NonceMemory(config.replay_memory)

    def __len__(self) -> int:
        return len(self._by_nonce)

    # Inputs

    def receive_init(self, frame: RawFrame, path: Hashable, now: float) -> None:
        """Take an INIT, which is one datagram.

        Raises:
            HandshakeError: It is dropped.
        """
        _, _, data = split_fragment(frame, INIT_SIZE)
        message = bytes(data)
        nonce_i = init_nonce(message)
        if nonce_i[:SESSION_ID_SIZE] != frame.session_id:
            raise HandshakeError("INIT has another label than its nonce")
        if self._is_own_nonce(nonce_i):
            raise HandshakeError("this node's own INIT came back: a reflection, or a connection to itself")
        incoming = self._by_nonce.get(nonce_i)
        if incoming is not None:
            self._repeat_challenge(incoming, message, path)
            return
        if nonce_i in self._seen:
            raise HandshakeError("INIT was answered before: a replay")
        if len(self._by_nonce) >= self._config.half_open_limit:
            raise HandshakeError(f"{len(self._by_nonce)} handshakes are half open")
        self._check_address(path, frame.session_id)
        handshake = self._make_handshake()
        challenge = handshake.process_hello(message)
        self._seen.add(nonce_i)
        incoming = _Incoming(
            nonce_i=nonce_i,
            init=message,
            handshake=handshake,
            challenge=to_datagrams(FrameType.HANDSHAKE_CHALLENGE, nonce_i, challenge),
            deadline=now + self._config.handshake_timeout,
            began_at=now,
        )
        self._by_nonce[nonce_i] = incoming
        self._add_address(incoming, path)
        self._send_challenge(incoming, path)

    def receive_response(self, frame: RawFrame, path: Hashable, now: float) -> None:
        """Take a fragment of a RESPONSE.

        Raises:
            HandshakeError: It is dropped.
        """
        fragment = split_fragment(frame, MAX_RESPONSE_SIZE)
        incoming = self._by_label.get((path, frame.session_id))
        if incoming is None:
            self._repeat_confirm(frame.session_id, fragment, path)
            return
        if incoming.confirm:
            return  # a repetition, while the decision is awaited
        message = incoming.buffers[path].add(*fragment)
        if message is None:
            return
        confirm = incoming.handshake.verify_response(message)
        result = incoming.handshake.result
        assert result is not None
        if self._is_session_id_taken(result.session_id) or result.session_id in self._undecided:
            self._forget(incoming)
            raise HandshakeError("the session id is taken")
        (incoming.confirm,) = to_datagrams(FrameType.HANDSHAKE_CONFIRM, incoming.nonce_i, confirm)
        incoming.path = path
        incoming.tail = message[-_TAIL_SIZE:]
        self._undecided[result.session_id] = incoming
        for early in self._addresses[path].early.take(result.session_id):
            incoming.early.keep(early, 1)
        self._events.append(HandshakeCompleted(None, path, result, incoming.round_trip(now), incoming.early.frames))

    def keep_early(self, frame: RawFrame, path: Hashable) -> bool:
        """Keep a sealed frame that came before its session was accepted; return whether it was kept."""
        undecided = self._undecided.get(frame.session_id)
        if undecided is not None and undecided.path == path:
            return undecided.early.keep(frame, 1)
        address = self._addresses.get(path)
        return address is not None and address.early.keep(frame, address.half_open)

    def handle_timeout(self, now: float) -> None:
        """Forget what is too old."""
        while self._by_nonce:
            incoming = next(iter(self._by_nonce.values()))
            if now < incoming.deadline:
                break
            self._forget(incoming)
        while self._answered:
            address, answered = next(iter(self._answered.items()))
            if now < answered.deadline:
                break
            del self._answered[address]

    # Commands

    def accept(self, session_id: bytes) -> bool:
        """Send CONFIRM; return whether the handshake still waited for it."""
        incoming = self._undecided.get(session_id)
        if incoming is None:
            return False
        self._forget(incoming)
        self._datagrams.append((incoming.path, incoming.confirm))
        if len(self._answered) >= MAX_ANSWERED:
            self._answered.popitem(last=False)
        self._answered[incoming.path, incoming.nonce_i[:SESSION_ID_SIZE]] = _Answered(
            incoming.deadline, incoming.tail, incoming.confirm
        )
        return True

    def refuse(self, session_id: bytes) -> None:
        """Drop the handshake without CONFIRM."""
        incoming = self._undecided.get(session_id)
        if incoming is not None:
            self._forget(incoming)

    # Outputs

    def next_timeout(self) -> float | None:
        """Return when to call :meth:`handle_timeout`, if ever."""
        # The oldest of each come first.
        at = next(iter(self._by_nonce.values())).deadline if self._by_nonce else None
        if self._answered:
            answered_until = next(iter(self._answered.values())).deadline
            if at is None or answered_until < at:
                at = answered_until
        return at

    # Internals

    def _repeat_challenge(self, incoming: _Incoming, message: bytes, path: Hashable) -> None:
        if message != incoming.init:
            raise HandshakeError("INIT has the nonce of another one")
        if incoming.confirm:
            return  # RESPONSE has come; what repeats INIT now was under way before it
        if path not in incoming.buffers:
            if len(incoming.buffers) >= MAX_ADDRESSES:
                raise HandshakeError(f"INIT came from {MAX_ADDRESSES} other addresses")
            self._check_address(path, incoming.nonce_i[:SESSION_ID_SIZE])
            self._add_address(incoming, path)
        incoming.repeated = True
        self._send_challenge(incoming, path)

    def _check_address(self, path: Hashable, label: bytes) -> None:
        address = self._addresses.get(path)
        if address is not None and address.half_open >= self._config.half_open_limit_per_address:
            raise HandshakeError(f"{address.half_open} handshakes are half open from this address")
        if (path, label) in self._by_label:
            raise HandshakeError("INIT has the label of another handshake from this address")

    def _add_address(self, incoming: _Incoming, path: Hashable) -> None:
        incoming.buffers[path] = Reassembly()
        self._by_label[path, incoming.nonce_i[:SESSION_ID_SIZE]] = incoming
        self._addresses.setdefault(path, _Address()).half_open += 1

    def _send_challenge(self, incoming: _Incoming, path: Hashable) -> None:
        self._datagrams.extend((path, datagram) for datagram in incoming.challenge)

    def _repeat_confirm(self, label: bytes, fragment: tuple[int, int, memoryview], path: Hashable) -> None:
        answered = self._answered.get((path, label))
        if answered is None:
            raise HandshakeError("RESPONSE to no CHALLENGE")
        total, offset, data = fragment
        if offset + len(data) == total and answered.tail.endswith(data[-_TAIL_SIZE:]):
            self._datagrams.append((path, answered.confirm))

    def _forget(self, incoming: _Incoming) -> None:
        del self._by_nonce[incoming.nonce_i]
        for path in incoming.buffers:
            del self._by_label[path, incoming.nonce_i[:SESSION_ID_SIZE]]
            address = self._addresses[path]
            address.half_open -= 1
            if not address.half_open:
                del self._addresses[path]
        session_id = incoming.handshake.session_id
        if session_id is not None and self._undecided.get(session_id) is incoming:
            del self._undecided[session_id]


class NonceMemory:
    """The newest nonces, as many as it is made for."""

    __slots__ = ("_known", "_order")

    def __init__(self, size: int) -> None:
        self._order: deque[bytes] = deque(maxlen=size)
        self._known: set[bytes] = set()

    def __contains__(self, nonce: object) -> bool:
        return nonce in self._known

    def add(self, nonce: bytes) -> None:
        """Remember a nonce that is not known, in place of the oldest."""
        if len(self._order) == self._order.maxlen:
            self._known.remove(self._order[0])
        self._order.append(nonce)
        self._known.add(nonce)


class _EarlyFrames:
    """Sealed frames of sessions that are not there yet."""

    __slots__ = ("frames", "size")

    def __init__(self) -> None:
        self.frames: list[RawFrame] = []
        self.size = 0

    def keep(self, frame: RawFrame, handshakes: int) -> bool:
        """Keep a frame, if those of so many handshakes may be so many; return whether it was kept."""
        size = _size(frame)
        if len(self.frames) >= MAX_EARLY_FRAMES * handshakes or self.size + size > MAX_EARLY_SIZE * handshakes:
            return False
        # Copied: the views would hold all of the buffer that the frame came in.
        copy = frame._replace(
            header=memoryview(bytes(frame.header)),
            payload=memoryview(bytes(frame.payload)),
            metadata=memoryview(bytes(frame.metadata)),
        )
        self.frames.append(copy)
        self.size += size
        return True

    def take(self, session_id: bytes) -> list[RawFrame]:
        """Return the frames of a session, and keep the others."""
        taken = [frame for frame in self.frames if frame.session_id == session_id]
        self.frames = [frame for frame in self.frames if frame.session_id != session_id]
        self.size -= sum(map(_size, taken))
        return taken


class _Address:
    """What one address has half open, and the sealed frames that came from it meanwhile."""

    __slots__ = ("early", "half_open")

    def __init__(self) -> None:
        self.half_open = 0
        self.early = _EarlyFrames()


class _Incoming:
    __slots__ = (
        "began_at",
        "buffers",
        "challenge",
        "confirm",
        "deadline",
        "early",
        "handshake",
        "init",
        "nonce_i",
        "path",
        "repeated",
        "tail",
    )

    def __init__(
        self,
        nonce_i: bytes,
        init: bytes,
        handshake: STTHandshake,
        challenge: tuple[bytes, ...],
        deadline: float,
        began_at: float,
    ) -> None:
        self.nonce_i = nonce_i
        self.init = init
        self.handshake = handshake
        self.challenge = challenge
        self.deadline = deadline
        self.began_at = began_at
        self.repeated = False
        """Whether CHALLENGE left more than once."""
        self.buffers: dict[Hashable, Reassembly] = {}
        """For each address that INIT came from."""
        self.path: Hashable = None
        """Where RESPONSE came from."""
        self.confirm = b""
        """The datagram, once RESPONSE has come."""
        self.tail = b""
        """The last bytes of RESPONSE."""
        self.early = _EarlyFrames()
        """Once RESPONSE has come: sealed frames that came before the decision."""

    def round_trip(self, now: float) -> float | None:
        """Return the seconds from CHALLENGE to now, if it left once."""
        return None if self.repeated else now - self.began_at


class _Answered(NamedTuple):
    deadline: float
    tail: bytes
    confirm: bytes


def _size(frame: RawFrame) -> int:
    return FRAME_OVERHEAD + len(frame.payload) + len(frame.metadata)
