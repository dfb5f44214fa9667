"""Reliable messages of a session: cut to fit, sent again when lost, put together, delivered once.

wire-format.md, "Messages". Ids count from 0 in each direction, over all types; the receiver says how many it has room
for, and gives more as its application handles them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stt_core.engine.ranges import RangeSet
from stt_core.errors import ErrorCode, RemoteError
from stt_core.wire.messages import decode_message_fragment

if TYPE_CHECKING:
    from stt_core.interfaces.transport import Buffer

INITIAL_MESSAGES: Final = 256
"""Messages that each side may send before the other has handled any."""


_MAX_PIECES: Final = 2048  # apart from each other; 64 KiB in the smallest pieces that are ever cut has 1,400


class _Outgoing:
    __slots__ = ("acked", "data", "empty_unsent", "frame_type", "lost", "sent")

    def __init__(self, frame_type: int, data: bytes) -> None:
        self.frame_type = frame_type
        self.data = memoryview(data)
        self.sent = 0
        self.acked = RangeSet()
        self.lost = RangeSet()
        self.empty_unsent = not data
        """Whether a message of no bytes has yet to leave, or to leave again."""


class OutgoingMessages:
    """Messages on their way to the peer."""

    __slots__ = ("_limit", "_messages", "_next_id", "_unsent", "_waiting")

    def __init__(self) -> None:
        self._messages: dict[int, _Outgoing] = {}
        self._unsent: dict[int, None] = {}
        self._next_id = 0
        self._limit = INITIAL_MESSAGES
        self._waiting = False

    def __bool__(self) -> bool:
        """Return whether anything is to be sent, or sent again."""
        return bool(self._unsent)

    # Commands

    def put(self, frame_type: int, data: bytes) -> bool:
        """Take a message; return False when the peer has no room for more."""
        if self._next_id >= self._limit:
            self._waiting = True
            return False
        self._messages[self._next_id] = _Outgoing(frame_type, data)
        self._unsent[self._next_id] = None
        self._next_id += 1
        return True

    def take(self, size: int) -> tuple[int, int, int, int, memoryview]:
        """Return the next piece: message id, frame type, total length, offset, at most ``size`` bytes.

        Only when there is something to send; it counts as sent.
        """
        message_id = next(iter(self._unsent))
        message = self._messages[message_id]
        if message.lost:
            start, stop = message.lost.first
            stop = min(stop, start + size)
            message.lost.subtract(start, stop)
        else:
            start = message.sent
            stop = message.sent = min(len(message.data), start + size)
            message.empty_unsent = False
        if not message.lost and message.sent == len(message.data) and not message.empty_unsent:
            del self._unsent[message_id]
        return message_id, message.frame_type, len(message.data), start, message.data[start:stop]

    # Inputs

    def acknowledged(self, message_id: int, start: int, stop: int) -> None:
        """Note a piece that arrived; a message that arrived whole is let go."""
        message = self._messages.get(message_id)
        if message is None:
            return
        if stop > start:
            message.acked.add(start, stop)
            message.lost.subtract(start, stop)
        if not message.acked.missing(0, len(message.data)):
            del self._messages[message_id]
            self._unsent.pop(message_id, None)

    def lost(self, message_id: int, start: int, stop: int) -> None:
        """Note a piece that is to be sent again, unless it arrived meanwhile."""
        message = self._messages.get(message_id)
        if message is None:
            return
        if not len(message.data):
            message.empty_unsent = True
            self._unsent[message_id] = None
            return
        for part in message.acked.missing(start, stop):
            message.lost.add(*part)
            self._unsent[message_id] = None

    def allow(self, limit: int) -> bool:
        """Take the number of messages that may ever be sent; return whether somebody waits for it to grow."""
        if limit <= self._limit:
            return False
        self._limit = limit
        waiting, self._waiting = self._waiting, False
        return waiting


class _Incoming:
    __slots__ = ("data", "frame_type", "held")

    def __init__(self, frame_type: int, size: int) -> None:
        self.frame_type = frame_type
        self.data = bytearray(size)
        self.held = RangeSet()


class IncomingMessages:
    """Messages from the peer, until they are whole.

    Args:
        max_size: Bytes of the longest message.
    """

    __slots__ = ("_done", "_handled", "_max_size", "_messages", "limit")

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._messages: dict[int, _Incoming] = {}
        self._done = RangeSet()
        self._handled = 0
        self.limit = INITIAL_MESSAGES
        """Messages that the peer was told it may ever send."""

    def receive(self, frame_type: int, plaintext: Buffer) -> bytes | None:
        """Take a piece; return the message if that made it whole.

        Raises:
            RemoteError: It is malformed, contradicts an earlier piece, or goes beyond a limit.
        """
        piece = decode_message_fragment(plaintext)
        number = piece.message_id
        if number >= self.limit:
            raise RemoteError("more messages than allowed", ErrorCode.FLOW_CONTROL)
        if piece.total > self._max_size:
            raise RemoteError("a message longer than allowed", ErrorCode.LIMIT)
        if number in self._done:
            return None
        message = self._messages.get(number)
        if message is None:
            message = self._messages[number] = _Incoming(frame_type, piece.total)
        if message.frame_type != frame_type or len(message.data) != piece.total:
            raise RemoteError("a message changed between its pieces", ErrorCode.PROTOCOL)
        stop = piece.offset + len(piece.data)
        if stop > piece.offset:
            message.data[piece.offset : stop] = piece.data
            message.held.add(piece.offset, stop)
            if len(message.held) > _MAX_PIECES:
                raise RemoteError("a message in too many pieces", ErrorCode.LIMIT)
        if piece.total and (len(message.held) != 1 or message.held.first != (0, piece.total)):
            return None
        del self._messages[number]
        self._done.add(number, number + 1)
        return bytes(message.data)

    def handled(self) -> bool:
        """Note that the application is done with a message; return whether the peer is to be told a new limit."""
        self._handled += 1
        return self._handled + INITIAL_MESSAGES - self.limit >= INITIAL_MESSAGES // 4

    def renew(self) -> int:
        """Return the limit to tell the peer now."""
        self.limit = self._handled + INITIAL_MESSAGES
        return self.limit
