"""One session with one peer: frames and time in, trains and events out."""

from __future__ import annotations

import os
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from stt_core import events
from stt_core.engine.acks import AckTracker
from stt_core.engine.contents import Kind
from stt_core.engine.keys import ReceiveKeys, SendKeys
from stt_core.engine.mailbox import IncomingMessages
from stt_core.engine.multiplexer import Multiplexer
from stt_core.engine.opener import open_frames
from stt_core.engine.outbox import KEEPALIVE_TOKEN_SIZE, Outbox
from stt_core.engine.path_table import PathTable
from stt_core.engine.paths import Path
from stt_core.engine.replay import ReplayWindow
from stt_core.engine.status import SessionStatistics, State
from stt_core.engine.streams import Streams
from stt_core.engine.transmitter import MAX_BURST, Transmitter
from stt_core.errors import ErrorCode, LocalError, RemoteError, SessionClosed
from stt_core.wire.frame import FrameType
from stt_core.wire.messages import (
    CreditKind,
    Disconnect,
    decode_ack,
    decode_disconnect,
    decode_keepalive,
    unpad,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stt_core.config import STTConfig
    from stt_core.engine.contents import Content
    from stt_core.engine.handshake import HandshakeResult
    from stt_core.engine.opener import OpenedFrame
    from stt_core.engine.paths import PathKey
    from stt_core.engine.recovery import SentFrame
    from stt_core.engine.streams import Bytes, Stream
    from stt_core.interfaces.congestion import ControllerFactory
    from stt_core.interfaces.crypto import CryptoSuite
    from stt_core.interfaces.transport import Buffer, Train
    from stt_core.wire.frame import RawFrame

_DRAIN_PTOS: Final = 3
_ENDPOINT_TYPES: Final = frozenset(
    {FrameType.ENDPOINT_REGISTER, FrameType.ENDPOINT_RESOLVE, FrameType.ENDPOINT_ROUTE}
)  # all of them reliable
_DATA: Final = int(FrameType.DATA)
_UNREACHABLE_GRACE: Final = 2.0  # seconds; an ICMP message can be forged, so the peer's silence has to agree
_REST_AFTER: Final = 0.25  # seconds without traffic; to be in use again costs some 30 us


class Session:
    """Protocol state of one session; does no I/O and reads no clock.

    Four kinds of methods. Inputs: ``receive_frames``, ``path_unreachable``, ``path_lost``, ``confirmed``,
    ``handle_timeout``. Commands: ``open_stream``, ``write``, ``read`` and the like. Outputs, to be drained in this
    order after every input and command: ``trains_to_send``, ``next_timeout``, ``events``. Queries change nothing.

    What the peer sends never raises: it closes the session with a code, and an event says so.

    Args:
        result: What the handshake agreed on.
        suite: The crypto suite that it chose.
        config: The node's settings.
        controller: What makes congestion controllers.
        path: Where the handshake took place.
        now: Seconds.
        custom: The codes of custom types that this side receives, and whether each is reliable.
        initial_rtt: Seconds, where the handshake has measured it.
    """

    __slots__ = (
        "__weakref__",
        "_ack_at_end",
        "_ack_at_once",
        "_acks",
        "_bytes_received",
        "_closed_at",
        "_config",
        "_controller",
        "_custom",
        "_ended_by_peer",
        "_ending",
        "_ending_due",
        "_events",
        "_frames_dropped",
        "_frames_received",
        "_gone_at",
        "_gone_reason",
        "_idle_timeout",
        "_incoming",
        "_last_received",
        "_max_frame_size",
        "_multiplexer",
        "_outbox",
        "_padding",
        "_paths",
        "_pings",
        "_receive_keys",
        "_replay",
        "_send_keys",
        "_state",
        "_streams",
        "_transmitter",
        "is_initiator",
        "peer_app_parameters",
        "peer_custom",
        "peer_node_id",
        "peer_relays",
        "session_id",
    )

    def __init__(
        self,
        result: HandshakeResult,
        *,
        suite: CryptoSuite,
        config: STTConfig,
        controller: ControllerFactory,
        path: PathKey,
        now: float,
        custom: Mapping[int, bool] = MappingProxyType({}),
        initial_rtt: float | None = None,
    ) -> None:
        parameters = result.peer_parameters
        self.session_id = result.session_id
        self.peer_node_id = result.peer_node_id
        self.peer_app_parameters = parameters.app
        self.peer_custom = parameters.custom
        """The names of custom types that the peer receives: under which code, and whether reliably."""
        self.peer_relays = parameters.endpoints
        self.is_initiator = result.is_initiator
        self._custom = custom
        self._config = config
        self._controller = controller
        self._padding = max(config.padding, parameters.padding)
        self._idle_timeout = min(config.idle_timeout, parameters.idle / 1000)
        self._max_frame_size = parameters.max_frame
        sending, receiving = result.initiator_secret, result.responder_secret
        if not result.is_initiator:
            sending, receiving = receiving, sending
        limits = (config.rotate_after_bytes, config.rotate_after_frames, config.rotate_after_seconds)
        self._send_keys = SendKeys(sending, suite, limits, now)
        self._receive_keys = ReceiveKeys(receiving, suite)
        self._replay = ReplayWindow(config.replay_window)
        self._acks = AckTracker(config.max_ack_delay)
        self._streams = Streams(
            is_initiator=result.is_initiator,
            stream_window=config.stream_credit,
            session_window=config.session_credit,
            max_streams=config.max_streams,
            buffer_size=config.send_buffer_size,
        )
        self._streams.allow(*parameters.credit)
        self._incoming = IncomingMessages(config.max_message_size)
        self._outbox = Outbox(self._streams, self._incoming, config.datagram_queue_size)
        self._events: list[events.Event] = []
        self._multiplexer = Multiplexer(self._streams, self._outbox, self._events)
        self._paths = PathTable(
            self._new_path(path, initial_rtt, validated=True),
            follows=not result.is_initiator,
            make=self._new_path,
            lost=self._lost,
            happened=self._events,
        )
        self._transmitter = Transmitter(
            session_id=result.session_id,
            keys=self._send_keys,
            outbox=self._outbox,
            acks=self._acks,
            paths=self._paths,
            metadata_size=suite.metadata_size,
            padding=self._padding,
            lost=self._lost,
            happened=self._events,
            now=now,
        )
        self._pings: dict[bytes, None] = {}
        self._state = State.HANDSHAKE if result.is_initiator else State.ACTIVE
        self._ack_at_once = False
        self._ack_at_end = False
        self._last_received = now
        self._gone_at: float | None = None
        self._gone_reason = ""
        self._ending: Disconnect | None = None
        self._ending_due = False
        self._closed_at: float | None = None
        self._ended_by_peer = False
        self._frames_received = 0
        self._frames_dropped = 0
        self._bytes_received = 0
        if not result.is_initiator:
            self._events.append(events.SessionActivated())

    # Inputs

    def receive_frames(self, frames: list[RawFrame], key: PathKey, size: int, now: float) -> None:
        """Take a burst of frames of this session that came on one path.

        Args:
            frames: As they arrived, sealed.
            key: The path.
            size: Bytes of the messages that held them.
            now: Seconds.
        """
        if self._state is State.CLOSED:
            return
        try:
            self._receive(frames, key, size, now)
        except RemoteError as error:
            self._begin_closing(error.code, error.reason, now)

    def confirmed(self) -> None:
        """Learn that the peer's CONFIRM has come."""
        if self._state is State.HANDSHAKE:
            self._state = State.ACTIVE
            self._events.append(events.SessionActivated())

    def path_unreachable(self, key: PathKey, reason: str, now: float) -> None:
        """Learn that the host says that nobody listens there; the session ends if the peer stays silent, too."""
        if self._paths.suspect(key, now):
            return
        if key == self._paths.active.key and self._gone_at is None:
            self._gone_at = now + max(_DRAIN_PTOS * self._paths.active.recovery.pto, _UNREACHABLE_GRACE)
            self._gone_reason = reason

    def path_lost(self, key: PathKey, reason: str, now: float) -> None:
        """Learn that a path is of no more use; the session goes on over another, or waits for one to come."""
        if self._paths.lose(key, now) and self._gone_at is None:
            self._gone_at = now + self._config.resume_timeout
            self._gone_reason = reason

    def handle_timeout(self, now: float) -> None:
        """Do what time asks for; call it when :meth:`next_timeout` is over, or whenever."""
        if self._state is State.CLOSED:
            return
        if self._state is State.CLOSING:
            if self._closed_at is not None and now >= self._closed_at:
                self._finish()
            return
        if now >= self._gives_up_at:
            silence = "nothing was heard of the peer for too long"
            self._end(ErrorCode.TIMEOUT, silence if self._gone_at is None else self._gone_reason, by_peer=False)
            return
        self._receive_keys.erase_expired(now)
        self._paths.handle_timeout(now)
        if self._has_ciphers and now >= self._rests_at:
            self._send_keys.forget_ciphers()
            self._receive_keys.forget_ciphers()
            self._outbox.rest()
        if self._config.keepalive and now >= self._keepalive_at:
            self._outbox.ask_at_once()

    # Commands

    def open_stream(self, label: str = "", priority: int = 3, metadata: object = None) -> int | None:
        """Open a stream; return its id, or None while the peer allows no more: a StreamsAllowed event will follow.

        Raises:
            LocalError: The priority is none, or label and metadata take more than 1 KiB.
            SerializationError: The metadata cannot be serialized.
            SessionClosed: The session is over.
        """
        self._require_open()
        return self._multiplexer.open(label, priority, metadata)

    def write(self, stream_id: int, data: Bytes) -> bool:
        """Keep bytes to send on a stream; they must not change afterwards.

        Returns:
            False when nothing was taken because the stream's buffer is full; a StreamWritable event will follow.

        Raises:
            StreamClosed: The stream takes no more.
            LocalError: The stream is over.
            SessionClosed: The session is over.
        """
        self._require_open()
        return self._multiplexer.write(stream_id, data)

    def end_stream(self, stream_id: int) -> None:
        """Write no more on a stream; what was written still goes out. Repeating it changes nothing."""
        self._multiplexer.end(stream_id)

    def reset_stream(self, stream_id: int, code: int) -> None:
        """Give the sending half of a stream up; what was not delivered is lost."""
        self._multiplexer.reset(stream_id, code)

    def stop_stream(self, stream_id: int, code: int) -> None:
        """Want no more of the receiving half of a stream, and tell the peer."""
        self._multiplexer.stop(stream_id, code)

    def read(self, stream_id: int, size: int) -> bytes:
        """Return at most ``size`` bytes of a stream that have come in order; none when there are none."""
        return self._multiplexer.read(stream_id, size)

    def send_datagram(self, data: bytes) -> None:
        """Send bytes that are not sent again when lost; the oldest waiting one is dropped when too many wait.

        Raises:
            LocalError: They do not fit into a datagram of the path.
            SessionClosed: The session is over.
        """
        self._require_open()
        if len(data) > self.max_datagram_payload:
            raise LocalError(f"a datagram of {len(data)} bytes: this path carries {self.max_datagram_payload}")
        self._outbox.put_datagram(FrameType.DATAGRAM, data)

    def send_message(self, frame_type: int, data: bytes, *, reliable: bool) -> bool:
        """Send a message of an endpoint or custom type, under the code and as reliably as the peer wants it.

        Returns:
            False when the peer has no room: a MessagesAllowed event will follow.

        Raises:
            LocalError: It is longer than a message, or without reliability than a datagram, may be.
            SessionClosed: The session is over.
        """
        self._require_open()
        limit = self._config.max_message_size if reliable else self.max_datagram_payload
        if len(data) > limit:
            raise LocalError(f"a message of {len(data)} bytes: {limit} is the most; send more over a stream")
        if reliable:
            return self._outbox.messages.put(frame_type, data)
        self._outbox.put_datagram(frame_type, data)
        return True

    def message_handled(self) -> None:
        """Note that the application is done with a reliable message, so that the peer may send another."""
        if self._incoming.handled():
            self._outbox.put(Kind.CREDIT, CreditKind.MESSAGES, 0)

    def ping(self) -> bytes:
        """Ask the peer for an acknowledgement; return the token that its PingAnswered event will have.

        Raises:
            SessionClosed: The session is over.
        """
        self._require_open()
        token = os.urandom(KEEPALIVE_TOKEN_SIZE)
        self._pings[token] = None
        self._outbox.put_ping(token)
        return token

    def add_path(self, key: PathKey, rank: int, now: float) -> None:
        """Offer another path of the initiator's; the session uses the best that is alive, and moves when it dies.

        Args:
            key: Where the peer should be; the path in use may be named, to give it its rank.
            rank: 0 is liked best.
            now: Seconds.
        """
        self._paths.add(key, rank, now)

    def rotate_keys(self) -> None:
        """Begin a new epoch of the sending direction, as soon as the peer has followed into the current one.

        Raises:
            SessionClosed: The session is over.
        """
        self._require_open()
        self._transmitter.rotation_wanted = True

    def close(self, code: int, reason: str, now: float) -> None:
        """End the session and tell the peer; what streams still hold is lost. Repeating it changes nothing."""
        if self._ending is None:
            # Who waits for the delivery of what came last should learn of it before the end.
            self._ack_at_end = self._acks.due is not None
        self._begin_closing(code, reason, now)

    def tell_end_again(self) -> None:
        """Send the end once more, because the peer seems not to have heard of it; only while closing."""
        self._ending_due = True

    # Outputs

    def trains_to_send(self, now: float, max_size: int = MAX_BURST) -> list[tuple[PathKey, Train]]:
        """Return what is to leave now, by path; when more could leave, :meth:`next_timeout` is ``now``.

        Args:
            now: Seconds.
            max_size: Bytes that may come at a time, but for the last datagram.
        """
        if self._state is State.CLOSED:
            return []
        if self._state is State.CLOSING:
            return self._ending_to_send(now)
        if self._state is State.HANDSHAKE:
            # What overtakes RESPONSE is kept in small numbers only, and a reliable path would never send it again.
            return []
        output: list[tuple[PathKey, Train]] = []
        self._transmitter.pack(output, now, max_size)
        return output

    def probes_to_send(self, now: float) -> list[tuple[PathKey, Train]]:
        """Return only what finds out which paths are alive, for when the path in use takes nothing."""
        output: list[tuple[PathKey, Train]] = []
        if self._state is State.ACTIVE and not self._send_keys.exhausted:
            self._transmitter.pack_path_probes(output, now)
        return output

    def next_timeout(self) -> float | None:
        """Return when :meth:`handle_timeout` and :meth:`trains_to_send` are due; None when the session is over."""
        if self._state is State.CLOSED:
            return None
        if self._state is State.CLOSING:
            return self._closed_at
        soonest = self._gives_up_at
        times = [self._receive_keys.next_expiry]
        if not self._send_keys.exhausted:
            times.append(self._paths.next_timeout())
        if self._state is not State.HANDSHAKE and self._transmitter.can_send:
            times += (self._acks.due, self._transmitter.send_at)
            if self._config.keepalive:
                times.append(self._keepalive_at)
            if self._transmitter.searches_mtu:
                times.append(self._paths.active.mtu.search_due)
        if self._has_ciphers:
            times.append(self._rests_at)
        for at in times:
            if at is not None and at < soonest:
                soonest = at
        return soonest

    def events(self) -> list[events.Event]:
        """Return what happened since the last call."""
        happened = self._events.copy()
        self._events.clear()
        if self._ending is not None:
            # What streams and paths have to say behind the end interests nobody.
            ends = [index for index, event in enumerate(happened) if isinstance(event, events.SessionEnded)]
            del happened[ends[0] + 1 if ends else 0 :]
        return happened

    # Queries

    @property
    def state(self) -> State:
        """Where the session stands."""
        if self._state is State.ACTIVE and self._transmitter.rotation_wanted:
            return State.KEY_ROTATING
        return self._state

    @property
    def path(self) -> PathKey:
        """The path in use."""
        return self._paths.active.key

    @property
    def path_keys(self) -> tuple[PathKey, ...]:
        """All paths that the session has; the same object as long as no path comes or goes."""
        return self._paths.keys

    @property
    def max_datagram_payload(self) -> int:
        """Bytes that a datagram may hold on the path in use."""
        return self._transmitter.max_datagram_payload

    def stream(self, stream_id: int) -> Stream | None:
        """Return a stream's state, to look at; None once it is over."""
        return self._streams.find(stream_id)

    def statistics(self) -> SessionStatistics:
        """Return the figures of this moment."""
        path = self._paths.active
        rtt = path.recovery.rtt
        return SessionStatistics(
            state=self.state,
            path=str(path.key),
            bytes_sent=self._transmitter.bytes_sent,
            bytes_received=self._bytes_received,
            frames_sent=self._transmitter.next_number,
            frames_received=self._frames_received,
            frames_lost=self._paths.frames_lost,
            frames_dropped=self._frames_dropped,
            datagrams_dropped=self._outbox.datagrams_dropped,
            round_trip=rtt.smoothed if rtt.latest is not None else None,
            min_round_trip=rtt.minimum if rtt.latest is not None else None,
            congestion_window=path.recovery.controller.window if path.recovery.controller is not None else None,
            bytes_in_flight=path.recovery.bytes_in_flight,
            datagram_size=path.mtu.size,
            streams=len(self._streams),
            send_epoch=self._send_keys.epoch,
            receive_epoch=self._receive_keys.epoch,
            waiting_for=self._waiting(),
        )

    def _waiting(self) -> str:
        path = self._paths.active
        if self._send_keys.exhausted:
            return "keys"
        if not self._outbox.has_bulk:
            starved = any(stream.sending.starved(self._streams.send_credit.left) for stream in self._streams)
            return "credit" if starved else "application"
        window = path.recovery.window_left
        if window is not None:
            return "congestion" if window < path.mtu.size else "pacing"
        return "socket"

    # Internals, receiving

    def _receive(self, frames: list[RawFrame], key: PathKey, size: int, now: float) -> None:
        keep = _DRAIN_PTOS * self._paths.active.recovery.pto
        epoch = self._receive_keys.epoch
        opened = open_frames(frames, self._receive_keys, self._replay, keep, now)
        self._frames_received += len(opened)
        self._frames_dropped += len(frames) - len(opened)
        if not opened:
            if self._receive_keys.exhausted:
                self._begin_closing(ErrorCode.LIMIT, "too many frames that do not open", now)
            return
        self._bytes_received += size
        if self._state is State.CLOSING:
            if any(frame_type == FrameType.DISCONNECT for _, frame_type, _, _ in opened):
                self._finish()  # both have ended it: two that answered each other would not stop
            self._ending_due = True
            return
        self._last_received = now
        self._gone_at = None
        if self._state is State.HANDSHAKE and opened[0][1] != FrameType.DISCONNECT:
            self.confirmed()
        if self._receive_keys.epoch != epoch:
            self._events.append(events.KeysRotated(self._receive_keys.epoch, sending=False))
        newest, elicited = self._take(opened, key, now)
        if self._state is State.CLOSED:
            return
        path = self._paths.received(key, size, newest, now)
        if elicited:
            self._acks.asked(elicited, size, path, now, urgent=self._ack_at_once)
            self._ack_at_once = False
        self._multiplexer.tell_readers()

    def _take(self, opened: list[OpenedFrame], key: PathKey, now: float) -> tuple[int, int]:
        """Take frames; return the highest number but for PATH frames, and how many ask for an acknowledgement."""
        self._note_numbers(opened, now)
        receive_data, padded = self._multiplexer.receive_data, self._padding
        newest, elicited = -1, 0
        for number, frame_type, stream_id, sealed_plaintext in opened:
            plaintext = unpad(sealed_plaintext) if padded else sealed_plaintext
            if frame_type == _DATA:
                elicited += 1
                receive_data(plaintext, stream_id)
            elif frame_type == FrameType.ACK:
                self._receive_ack(plaintext, now)
            elif frame_type == FrameType.DISCONNECT:
                message = decode_disconnect(plaintext)
                self._multiplexer.tell_readers()
                self._end(message.code, message.reason, by_peer=True)
                break
            else:
                elicited += 1
                self._take_control(frame_type, stream_id, plaintext, key)
            if frame_type != FrameType.PATH and number > newest:
                newest = number
        return newest, elicited

    def _note_numbers(self, opened: list[OpenedFrame], now: float) -> None:
        """Note for acknowledgement what came, in runs."""
        first = last = opened[0][0]
        for number, _, _, _ in opened:
            if number > last + 1 or number < last:
                self._ack_at_once |= self._acks.received(first, last, now)
                first = number
            last = number
        self._ack_at_once |= self._acks.received(first, last, now)

    def _take_control(self, frame_type: int, stream_id: int, plaintext: Buffer, key: PathKey) -> None:
        match frame_type:
            case FrameType.STREAM_OPEN:
                self._multiplexer.receive_open(plaintext, stream_id)
            case FrameType.STREAM_CLOSE:
                self._multiplexer.receive_close(plaintext, stream_id)
                self._ack_at_once = True  # somebody may wait for the delivery of what it ends
            case FrameType.CREDIT:
                self._multiplexer.receive_credit(plaintext, stream_id)
            case FrameType.DATAGRAM:
                self._events.append(events.DatagramReceived(bytes(plaintext)))
            case FrameType.KEEPALIVE:
                decode_keepalive(plaintext)
                self._ack_at_once = True  # who sends one waits for its acknowledgement
            case FrameType.PATH:
                self._paths.receive_probe(plaintext, key, self._last_received)
            case FrameType.MTU_PROBE:
                pass  # only its arrival matters
            case _:
                self._receive_message(frame_type, plaintext)

    def _receive_message(self, frame_type: int, plaintext: Buffer) -> None:
        reliable = True if frame_type in _ENDPOINT_TYPES else self._custom.get(frame_type)
        if reliable is None:
            raise RemoteError(f"a frame of unknown type {frame_type:#04x}", ErrorCode.UNSUPPORTED)
        message = self._incoming.receive(frame_type, plaintext) if reliable else bytes(plaintext)
        if message is not None:
            self._events.append(events.MessageReceived(frame_type, message, reliable))

    def _receive_ack(self, plaintext: Buffer, now: float) -> None:
        message = decode_ack(plaintext)
        largest = message.ranges[0][1]
        if largest >= self._transmitter.next_number:
            raise RemoteError("an acknowledgement of a frame that was never sent", ErrorCode.PROTOCOL)
        if largest >= self._send_keys.first_number:
            # Only who has followed into an epoch can have opened one of its frames.
            self._send_keys.acknowledged = True
        for path in list(self._paths):
            confirmed, lost = path.recovery.acknowledged(message.ranges, message.delay_us / 1e6, now)
            if confirmed:
                self._confirm(confirmed, path, now)
            for frame in lost:
                self._lost(frame, path, now)

    # Internals, what was sent

    def _confirm(self, frames: list[SentFrame], path: Path, now: float) -> None:
        run_stream, run_start, run_stop = 0, 0, 0
        for frame in frames:
            content = frame.content
            if content is None:
                continue
            kind = content[0]
            if kind == Kind.DATA:
                # Frames of a train hold neighbouring bytes: release them as one run.
                _, stream_id, start, stop = content
                if stream_id == run_stream and start == run_stop:
                    run_stop = stop
                    continue
                if run_stream:
                    self._multiplexer.confirm_data(run_stream, run_start, run_stop)
                run_stream, run_start, run_stop = stream_id, start, stop
            else:
                self._confirm_control(content, frame, path, now)
        if run_stream:
            self._multiplexer.confirm_data(run_stream, run_start, run_stop)

    def _confirm_control(self, content: Content, frame: SentFrame, path: Path, now: float) -> None:
        kind = content[0]
        if kind in (Kind.OPEN, Kind.CLOSE):
            self._multiplexer.confirm(content)
        elif kind == Kind.MESSAGE:
            self._outbox.messages.acknowledged(*content[1:])
        elif kind == Kind.KEEPALIVE:
            self._acks.forget_below(content[1])
        elif kind == Kind.PING and content[1] in self._pings:
            del self._pings[content[1]]  # a probe may have repeated it
            self._events.append(events.PingAnswered(content[1], now - frame.burst.sent_at))
        elif kind == Kind.MTU_PROBE and path.mtu.confirmed(content[1], now):
            path.recovery.datagram_size_changed(path.mtu.size)

    def _lost(self, frame: SentFrame, path: Path, now: float) -> None:
        content = frame.content
        if content is None:
            return
        if content[0] == Kind.MTU_PROBE:
            path.mtu.lost(content[1], now)
        else:
            self._outbox.put_lost(content)

    # Internals, paths

    def _new_path(self, key: PathKey, initial_rtt: float | None, *, validated: bool = False) -> Path:
        limit = self._max_frame_size
        if not key.link.capabilities.reliable:
            limit = min(limit, self._config.max_datagram_size)
        return Path(
            key,
            # A connection proves its peer's address by itself.
            validated=validated or key.link.capabilities.reliable,
            controller=self._controller,
            max_datagram_size=limit,
            max_ack_delay=self._config.max_ack_delay,
            initial_rtt=initial_rtt,
        )

    # Internals, the end

    def _require_open(self) -> None:
        if self._ending is not None:
            raise SessionClosed(self._ending.code, self._ending.reason, by_peer=self._ended_by_peer)

    @property
    def _gives_up_at(self) -> float:
        if self._gone_at is not None:
            return self._gone_at
        return self._last_received + max(self._idle_timeout, _DRAIN_PTOS * self._paths.active.recovery.pto)

    @property
    def _keepalive_at(self) -> float:
        return max(self._last_received, self._transmitter.last_elicited) + self._idle_timeout / 3

    @property
    def _has_ciphers(self) -> bool:
        return self._send_keys.has_ciphers or self._receive_keys.has_ciphers

    @property
    def _rests_at(self) -> float:
        """When an idle session should take up as little memory as it can."""
        return max(self._last_received, self._transmitter.last_elicited) + _REST_AFTER

    def _begin_closing(self, code: int, reason: str, now: float) -> None:
        if self._ending is not None:
            return
        self._note_end(code, reason, by_peer=False)
        self._state = State.CLOSING
        self._ending_due = True
        self._closed_at = now + (0.0 if self._paths.active.reliable else _DRAIN_PTOS * self._paths.active.recovery.pto)

    def _end(self, code: int, reason: str, *, by_peer: bool) -> None:
        self._note_end(code, reason, by_peer=by_peer)
        self._finish()

    def _note_end(self, code: int, reason: str, *, by_peer: bool) -> None:
        self._ending = Disconnect(code=code, reason=reason)
        self._ended_by_peer = by_peer
        self._events.append(events.SessionEnded(code, reason, by_peer))

    def _ending_to_send(self, now: float) -> list[tuple[PathKey, Train]]:
        output: list[tuple[PathKey, Train]] = []
        if not self._ending_due or self._paths.all_lost or self._send_keys.exhausted:
            return output
        self._ending_due = False
        assert self._ending is not None
        self._transmitter.pack_end(output, self._ending.encode(), now, acknowledge=self._ack_at_end)
        return output

    def _finish(self) -> None:
        self._state = State.CLOSED
