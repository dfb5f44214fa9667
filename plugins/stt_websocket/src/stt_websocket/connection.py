"""One WebSocket after its opening handshake: bytes in, messages out, and the other way; no I/O, no clock.

Usable alone, in either role. Its rules are RFC 6455's: what the peer does wrong ends the connection with the code of
the section that it broke, and never raises.
"""

from __future__ import annotations

import codecs
import os
from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs

from stt_core.errors import LocalError
from stt_websocket.errors import ProtocolViolation
from stt_websocket.frames import (
    MAX_CONTROL_SIZE,
    CloseCode,
    FrameHeader,
    Opcode,
    decode_close,
    decode_header,
    encode_close,
    encode_header,
)
from stt_websocket.masking import SHORT_SIZE, fastest_mask, mask_short

if TYPE_CHECKING:
    from collections.abc import Callable

    from stt_core.interfaces.transport import Buffer

MAX_MESSAGE_SIZE: Final = 16 * 1024 * 1024
"""Bytes of the largest message that is taken unless told otherwise; a larger one is answered with 1009."""

MAX_PENDING_PONGS: Final = 64
"""Pongs that wait to be sent; of more pings the newest are answered, as section 5.5.3 allows."""

DIRECT_SIZE: Final = 128 * 1024
"""Missing payload from which :meth:`Connection.receive_buffer` spares a copy."""

_FIRST_BUFFER_SIZE: Final = 64 * 1024
_JOINED_SIZE: Final = 64 * 1024  # up to here one copy costs less than a second buffer to send
_RECORD_SIZE: Final = 16 * 1024  # a TLS record: the header shares one with the first bytes of a large payload
_KEY_POOL_SIZE: Final = 512  # one call of the system's random source makes the keys of 128 frames


class Role(Enum):
    """Which side of the connection this is: clients mask what they send, servers do not (section 5.1)."""

    CLIENT = "client"
    SERVER = "server"


class State(Enum):
    """Where the connection stands."""

    OPEN = "open"  #: messages go both ways
    CLOSE_SENT = "close sent"  #: this side sent Close and waits for the peer's; messages still come in
    CLOSE_DUE = "close due"  #: nothing comes in any more; ``data_to_send`` ends with Close, behind answers to what came
    CLOSED = "closed"  #: nothing comes in, and nothing more can be sent


class Trigger(Enum):
    """What moves a connection from one state to another."""

    CLOSE_CALLED = "close called"  #: the application closes
    CLOSE_RECEIVED = "close received"  #: the peer closes, or answers
    VIOLATION = "violation"  #: the peer broke the protocol or a limit, or the application gave it up
    CLOSE_DRAWN = "close drawn"  #: ``data_to_send`` returned the Close that was due
    END_OF_STREAM = "end of stream"  #: no more bytes come


TRANSITIONS: Final[dict[tuple[State, Trigger], State]] = {
    (State.OPEN, Trigger.CLOSE_CALLED): State.CLOSE_SENT,
    (State.OPEN, Trigger.CLOSE_RECEIVED): State.CLOSE_DUE,
    (State.OPEN, Trigger.VIOLATION): State.CLOSE_DUE,
    (State.OPEN, Trigger.END_OF_STREAM): State.CLOSED,
    (State.CLOSE_SENT, Trigger.CLOSE_RECEIVED): State.CLOSED,
    (State.CLOSE_SENT, Trigger.VIOLATION): State.CLOSED,
    (State.CLOSE_SENT, Trigger.END_OF_STREAM): State.CLOSED,
    (State.CLOSE_DUE, Trigger.CLOSE_DRAWN): State.CLOSED,
}
"""Every move there is; a trigger without one is ignored in that state."""

_RECEIVING = frozenset({State.OPEN, State.CLOSE_SENT})
_SENDING = frozenset({State.OPEN, State.CLOSE_DUE})


@attrs.frozen
class PongReceived:
    """The peer answered a ping, or gave a sign of life unasked."""

    payload: bytes


@attrs.frozen
class ConnectionClosed:
    """The last event of a connection."""

    code: int
    """The Close code that ended it: the peer's, or this side's for a violation; 1005 none was given, 1006 no Close."""

    reason: str
    """Text that came with it, or what the peer did wrong."""

    cause: Trigger
    """What ended it."""

    by_peer: bool
    """Whether the peer began the closing handshake, or ended the byte stream without one."""


Event: TypeAlias = bytes | bytearray | str | PongReceived | ConnectionClosed
"""What happened: a bytes-like value is a binary message, the receiver's to keep; a ``str`` is a text message."""


class Connection:
    """Protocol state of one WebSocket in either role.

    Drive it in this order after every input: :meth:`events`, :meth:`data_to_send`; once :attr:`state` is CLOSED and
    everything is sent, end the byte stream (a client first waits a while for the server to do so, section 7.1.1).

    Args:
        role: Which side this is.
        max_message_size: Bytes of the largest message that is taken.
        random: Source of masking keys; must not be predictable (section 5.3).
    """

    def __init__(
        self,
        role: Role,
        *,
        max_message_size: int = MAX_MESSAGE_SIZE,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.role = role
        self.state = State.OPEN
        self.can_send = True
        """Whether messages can be sent."""
        self.pending_size = 0
        """Bytes that wait for :meth:`data_to_send`, without pongs and a Close that is due."""
        self._is_receiving = True
        self._max_message_size = max_message_size
        self._random = random
        self._mask_in_place = fastest_mask()
        self._keys = b""
        self._keys_used = 0
        self._events: list[Event] = []
        self._outgoing: list[Buffer] = []
        self._close_payload = b""  # of the Close that is due
        self._pongs: deque[bytes] = deque(maxlen=MAX_PENDING_PONGS)
        self._rest = b""  # the begin of a frame header, or of a control frame
        self._opcode: Opcode | None = None  # of the message that is being received
        self._message = bytearray()  # what is received of it; may be longer than _filled while a buffer is lent
        self._filled = 0
        self._missing = 0  # bytes of payload still to come of the current frame
        self._is_final = False  # whether that frame ends the message
        self._key = b""  # its key, rotated to the next byte
        self._largest = _FIRST_BUFFER_SIZE
        self._lent: memoryview | None = None
        self._validator = codecs.getincrementaldecoder("utf-8")()

    # Inputs

    def receive_data(self, data: Buffer) -> None:
        """Take bytes of the peer, cut anywhere."""
        if not self._is_receiving:
            return
        self._release_buffer()
        try:
            self._receive(data if type(data) is bytes else bytes(data))
        except ProtocolViolation as violation:
            self._fail(violation)

    def receive_buffer(self) -> memoryview | None:
        """Offer room in a large message for the next bytes of the peer; None where there is nothing to gain.

        Fill it from the start and call :meth:`receive_filled`, in place of :meth:`receive_data`. The memory behind it
        grows with what the peer has really sent, never with the length that a header claims.
        """
        if self._missing < DIRECT_SIZE or not self._is_receiving:
            return None
        size = min(self._filled + self._missing, max(self._largest, 2 * self._filled))
        if len(self._message) < size:
            grown = bytearray(size)
            grown[: self._filled] = memoryview(self._message)[: self._filled]
            self._message = grown
        self._lent = memoryview(self._message)[self._filled : size]
        return self._lent

    def receive_filled(self, size: int) -> None:
        """Take the first ``size`` bytes, at least one, of the room that :meth:`receive_buffer` offered last."""
        if self._lent is None or not 0 < size <= len(self._lent):
            raise LocalError(f"{size} bytes cannot have been filled")
        with self._lent as lent, lent[:size] as piece:
            self._lent = None
            if self._key:
                self._mask_in_place(piece, self._key)
            try:
                self._advance(piece)
            except ProtocolViolation as violation:
                self._fail(violation)

    def receive_end(self) -> None:
        """Learn that the byte stream has ended."""
        if self._is_receiving:
            self._end(Trigger.END_OF_STREAM, CloseCode.ABNORMAL, "no Close frame came", by_peer=True)

    # Commands

    def send_message(self, message: Buffer | str) -> None:
        """Send a message, text when it is ``str``, as one frame.

        A large buffer is not copied by a server: it must not change until it is sent.

        Raises:
            LocalError: This side has sent Close, or the connection is closed.
        """
        if isinstance(message, str):
            self._send_frame(Opcode.TEXT, message.encode())
        else:
            self._send_frame(Opcode.BINARY, message)

    def ping(self, payload: bytes = b"") -> None:
        """Ask the peer for a sign of life; it comes as :class:`PongReceived`.

        Raises:
            LocalError: The payload has more than 125 bytes, or messages cannot be sent.
        """
        if len(payload) > MAX_CONTROL_SIZE:
            raise LocalError(f"a ping of {len(payload)} bytes, but at most {MAX_CONTROL_SIZE} fit")
        self._send_frame(Opcode.PING, payload)

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Begin the closing handshake behind what was sent; does nothing when it has begun already.

        Raises:
            LocalError: The code may not be sent.
        """
        payload = encode_close(code, reason)
        if self.state is State.OPEN:
            self._draw_pongs()
            self._send_frame(Opcode.CLOSE, payload)
            self._move(Trigger.CLOSE_CALLED)

    def give_up(self, code: int, reason: str) -> None:
        """Forget the message that is being received, take nothing more, and send Close behind what was sent."""
        if self._is_receiving:
            self._fail(ProtocolViolation(code, reason))

    # Outputs

    @property
    def incomplete_size(self) -> int:
        """Bytes of memory that the message takes that is being received."""
        return len(self._message)

    def data_to_send(self) -> list[Buffer]:
        """Return what is to be sent, in order, and forget it."""
        if self._pongs:
            self._draw_pongs()
        if self.state is State.CLOSE_DUE:
            self._send_frame(Opcode.CLOSE, self._close_payload)
            self._move(Trigger.CLOSE_DRAWN)
        outgoing, self._outgoing, self.pending_size = self._outgoing, [], 0
        return outgoing

    @property
    def has_data_to_send(self) -> bool:
        """Whether :meth:`data_to_send` has something."""
        return bool(self._outgoing or self._pongs or self.state is State.CLOSE_DUE)

    def events(self) -> list[Event]:
        """Return what happened since the last call, in order."""
        events, self._events = self._events, []
        return events

    # Internals, receiving

    def _release_buffer(self) -> None:
        """Take back the room that was offered and not used: it holds the message's memory."""
        if self._lent is not None:
            self._lent.release()
            self._lent = None

    def _receive(self, data: bytes) -> None:
        if self._rest:
            data, self._rest = self._rest + data, b""
        offset = self._take_payload(data, 0) if self._missing else 0
        end = len(data)
        is_masked = self.role is Role.SERVER
        events = self._events
        while offset < end and self._is_receiving:
            # Most frames are whole, short, binary messages: taken here they cost half of what the general way costs.
            if data[offset] == 0x82 and end - offset >= 6 and self._opcode is None:
                size = data[offset + 1]
                if is_masked:
                    start = offset + 6
                    stop = start + size - 0x80
                    if 0x80 <= size < 0x80 + 126 and stop <= end and size - 0x80 <= self._max_message_size:
                        events.append(mask_short(data[start:stop], data[offset + 2 : start]))
                        offset = stop
                        continue
                else:
                    start = offset + 2
                    stop = start + size
                    if size < 126 and stop <= end and size <= self._max_message_size:
                        events.append(data[start:stop])
                        offset = stop
                        continue
            header = decode_header(data, offset, is_masked=is_masked)
            if header is None:
                self._rest = data[offset:]
                return
            if header.opcode >= Opcode.CLOSE:
                if end - header.end < header.size:
                    self._rest = data[offset:]
                    return
                offset = header.end + header.size
                self._receive_control(header, data[header.end : offset])
            else:
                offset = self._receive_data_frame(header, data)

    def _receive_control(self, header: FrameHeader, payload: bytes) -> None:
        if header.key:
            payload = mask_short(payload, header.key)
        if header.opcode is Opcode.PING:
            if self.state is State.OPEN:  # a side that has sent Close sends nothing more
                self._pongs.append(payload)
        elif header.opcode is Opcode.PONG:
            self._events.append(PongReceived(payload))
        else:
            self._receive_close(payload)

    def _receive_close(self, payload: bytes) -> None:
        code, reason = decode_close(payload)
        self._close_payload = payload[:2]  # section 5.5.1: typically the code that came
        self._end(Trigger.CLOSE_RECEIVED, code, reason, by_peer=self.state is State.OPEN)

    def _receive_data_frame(self, header: FrameHeader, data: bytes) -> int:
        if (header.opcode is Opcode.CONTINUATION) is (self._opcode is None):
            what = "a continuation of no message" if self._opcode is None else "a message within another"
            raise ProtocolViolation(CloseCode.PROTOCOL_ERROR, what)
        if self._filled + header.size > self._max_message_size:
            raise ProtocolViolation(CloseCode.TOO_BIG, f"a message above {self._max_message_size} bytes")
        stop = header.end + header.size
        if self._opcode is None:
            if header.is_final and stop <= len(data):
                payload = self._unmasked(data, header.end, stop, header.key)
                self._events.append(_text(payload) if header.opcode is Opcode.TEXT else payload)
                return stop
            self._opcode = header.opcode
        self._missing = header.size
        self._is_final = header.is_final
        self._key = header.key
        return self._take_payload(data, header.end)

    def _take_payload(self, data: bytes, offset: int) -> int:
        stop = min(offset + self._missing, len(data))
        piece = self._unmasked(data, offset, stop, self._key)
        self._message[self._filled : self._filled + len(piece)] = piece
        self._advance(piece)
        return stop

    def _unmasked(self, data: bytes, start: int, stop: int, key: bytes) -> bytes | bytearray:
        if not key:
            return data[start:stop]
        if stop - start <= SHORT_SIZE:
            return mask_short(data[start:stop], key)
        payload = bytearray(memoryview(data)[start:stop])
        self._mask_in_place(payload, key)
        return payload

    def _advance(self, piece: Buffer) -> None:
        """Account for bytes that stand unmasked in the message."""
        size = len(piece)
        self._filled += size
        self._missing -= size
        turn = size & 3
        self._key = self._key[turn:] + self._key[:turn]
        is_complete = not self._missing and self._is_final
        if self._opcode is Opcode.TEXT:
            try:
                self._validator.decode(piece, is_complete)
            except UnicodeDecodeError:
                raise ProtocolViolation(CloseCode.INVALID_DATA, "text that is not UTF-8") from None
        if is_complete:
            self._events.append(self._message.decode() if self._opcode is Opcode.TEXT else self._message)
            self._largest = max(self._largest, self._filled)
            self._message = bytearray()
            self._filled = 0
            self._opcode = None

    # Internals, sending

    def _send_frame(self, opcode: Opcode, payload: Buffer) -> None:
        if not self.can_send:
            raise LocalError(f"the WebSocket cannot send: {self.state.value}")
        size = len(payload)
        if self.role is Role.SERVER:
            header = encode_header(opcode, size)
            if size <= _JOINED_SIZE:
                self._outgoing.append(header + payload)
            else:
                view = memoryview(payload)
                room = _RECORD_SIZE - len(header)
                self._outgoing += (header + view[:room], view[room:])
        else:
            key = self._next_key()
            header = encode_header(opcode, size, key)
            if size <= SHORT_SIZE:
                self._outgoing.append(header + mask_short(payload, key))
            else:
                frame = bytearray(header)
                frame += payload
                self._mask_in_place(memoryview(frame)[len(header) :], key)
                self._outgoing.append(frame)
        self.pending_size += len(header) + size

    def _next_key(self) -> bytes:
        if self._keys_used == len(self._keys):
            self._keys, self._keys_used = self._random(_KEY_POOL_SIZE), 0
        start = self._keys_used
        self._keys_used = start + 4
        return self._keys[start : start + 4]

    def _draw_pongs(self) -> None:
        """Put the pongs before all that waits: they are to come as soon as is practical (section 5.5.2)."""
        waiting, self._outgoing = self._outgoing, []
        while self._pongs:
            self._send_frame(Opcode.PONG, self._pongs.popleft())
        self._outgoing += waiting

    # Internals, ending

    def _fail(self, violation: ProtocolViolation) -> None:
        self._close_payload = encode_close(violation.close_code, violation.reason)
        self._end(Trigger.VIOLATION, violation.close_code, violation.reason, by_peer=False)

    def _end(self, cause: Trigger, code: int, reason: str, *, by_peer: bool) -> None:
        self._move(cause)
        self._release_buffer()
        self._rest, self._message = b"", bytearray()
        self._events.append(ConnectionClosed(code, reason, cause, by_peer))

    def _move(self, trigger: Trigger) -> None:
        self.state = TRANSITIONS.get((self.state, trigger), self.state)
        self.can_send = self.state in _SENDING
        self._is_receiving = self.state in _RECEIVING


def _text(payload: bytes | bytearray) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise ProtocolViolation(CloseCode.INVALID_DATA, "text that is not UTF-8") from None
