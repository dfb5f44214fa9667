"""What a session has to send, and in which order: control frames, messages, datagrams, streams."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from stt_core.engine.contents import Kind
from stt_core.engine.mailbox import OutgoingMessages
from stt_core.engine.packer import MIN_DATA
from stt_core.engine.scheduler import Scheduler
from stt_core.wire.frame import FrameType
from stt_core.wire.messages import CloseKind, Credit, CreditKind, MessageFragment, StreamClose

if TYPE_CHECKING:
    from stt_core.engine.contents import Content
    from stt_core.engine.mailbox import IncomingMessages
    from stt_core.engine.packer import Packer
    from stt_core.engine.streams import Stream, Streams

KEEPALIVE_TOKEN_SIZE: Final = 8

_FRAGMENT_OVERHEAD: Final = 18  # bytes: message id, total and offset, at most 10, 4 and 4


class Outbox:
    """Frames that wait to be packed.

    Control frames wait by what they are about, once each, and are encoded from the state of the moment in which they
    leave: a CREDIT that is sent again tells the newest limit.

    Args:
        streams: The session's streams.
        incoming: The messages that come, whose room the peer is told.
        datagram_queue_size: Datagrams that may wait; beyond it the oldest is dropped.
    """

    __slots__ = (
        "_control",
        "_datagram_queue_size",
        "_datagrams",
        "_incoming",
        "_pings",
        "_scheduler",
        "_streams",
        "datagrams_dropped",
        "messages",
    )

    def __init__(self, streams: Streams, incoming: IncomingMessages, datagram_queue_size: int) -> None:
        self._streams = streams
        self._incoming = incoming
        self._datagram_queue_size = datagram_queue_size
        self._control: dict[Content, None] = {}
        self._pings: list[bytes] = []
        self._datagrams: deque[tuple[int, bytes]] | None = None  # made when first used: many sessions send none
        self._scheduler: Scheduler | None = None  # made when first used, and anew after a rest
        self.datagrams_dropped = 0
        self.messages = OutgoingMessages()

    def __bool__(self) -> bool:
        return bool(self._control or self._pings or self.messages or self._datagrams or self._scheduler)

    # Commands

    def put(self, *content: Any) -> None:
        """Let a control frame wait."""
        self._control[content] = None

    def ask_at_once(self) -> None:
        """Let a KEEPALIVE wait: it is acknowledged at once, which else may take the peer a while."""
        self._control[Kind.KEEPALIVE, 0] = None

    def put_stream(self, stream: Stream) -> None:
        """Let a stream take turns, because it may have something to send."""
        if self._scheduler is None:
            self._scheduler = Scheduler()
        self._scheduler.add(stream)

    def put_ping(self, token: bytes) -> None:
        """Let a KEEPALIVE wait whose acknowledgement is awaited."""
        self._pings.append(token)

    def put_datagram(self, frame_type: int, data: bytes) -> None:
        """Let a frame wait that is not sent again when lost; the oldest one gives way when too many do."""
        if self._datagrams is None:
            self._datagrams = deque()
        if len(self._datagrams) >= self._datagram_queue_size:
            self._datagrams.popleft()
            self.datagrams_dropped += 1
        self._datagrams.append((frame_type, data))

    def put_lost(self, content: Content) -> None:
        """Send again what a lost frame held, as far as it still matters."""
        kind = content[0]
        if kind == Kind.DATA:
            stream = self._streams.find(content[1])
            if stream is not None:
                stream.sending.lost(content[2], content[3])
                self.put_stream(stream)
        elif kind == Kind.MESSAGE:
            self.messages.lost(*content[1:])
        elif kind == Kind.PING:
            self._pings.append(content[1])
        else:
            self._control[content] = None

    def rest(self) -> None:
        """Let go of what an idle session can do without."""
        if not self._scheduler:
            self._scheduler = None
        if not self._datagrams:
            self._datagrams = None

    # Outputs

    @property
    def has_bulk(self) -> bool:
        """Whether anything waits, because :meth:`pack` came to its limit."""
        return bool(self)

    def pack(self, packer: Packer, limit: int) -> None:
        """Pack what waits until about ``limit`` bytes are packed, or the keys allow no more."""
        limit = packer.within_keys(limit)
        self._pack_control(packer, limit)
        while self._pings and packer.bytes_packed < limit:
            token = self._pings.pop(0)
            packer.add(FrameType.KEEPALIVE, 0, token, (Kind.PING, token))
        while self.messages and packer.bytes_packed < limit:
            self._pack_message(packer)
        while self._datagrams and packer.bytes_packed < limit:
            self._pack_datagram(packer, *self._datagrams.popleft())
        self._pack_streams(packer, limit)
        self._pack_control(packer, limit)

    # Internals

    def _pack_control(self, packer: Packer, limit: int) -> None:
        if not self._control:
            return
        waiting, self._control = self._control, {}
        for content in waiting:
            if packer.bytes_packed < limit:
                self._pack_content(packer, content)
            else:
                self._control[content] = None

    def _pack_content(self, packer: Packer, content: Content) -> None:
        kind = content[0]
        if kind == Kind.KEEPALIVE:
            packer.add(FrameType.KEEPALIVE, 0, bytes(KEEPALIVE_TOKEN_SIZE), content)
            return
        if kind == Kind.CREDIT:
            self._pack_credit(packer, content)
            return
        stream = self._streams.find(content[1])
        if stream is None:
            return
        if kind == Kind.OPEN:
            packer.add(FrameType.STREAM_OPEN, stream.stream_id, stream.announcement, content)
        else:
            self._pack_close(packer, stream, content)

    def _pack_close(self, packer: Packer, stream: Stream, content: Content) -> None:
        kind = content[2]
        if kind == CloseKind.STOP_SENDING:
            message = StreamClose(kind, stream.stop_code)
        elif kind == stream.closing_kind:
            message = StreamClose(kind, stream.sending.reset_code or 0, stream.sending.final_size)
        else:
            return  # an END that a reset has overtaken
        packer.add(FrameType.STREAM_CLOSE, stream.stream_id, message.encode(), content)

    def _pack_credit(self, packer: Packer, content: Content) -> None:
        _, kind, stream_id = content
        if kind == CreditKind.SESSION:
            limit = self._streams.receive_credit.renew()
        elif kind == CreditKind.STREAMS:
            limit = self._streams.renew_stream_limit()
        elif kind == CreditKind.MESSAGES:
            limit = self._incoming.renew()
        else:
            stream = self._streams.find(stream_id)
            if stream is None or stream.receiving.final_size is not None:
                return
            limit = stream.receiving.credit.renew()
        packer.add(FrameType.CREDIT, stream_id, Credit(kind, limit).encode(), content)

    def _pack_message(self, packer: Packer) -> None:
        packer.make_room(MIN_DATA)
        message_id, frame_type, total, start, data = self.messages.take(packer.room - _FRAGMENT_OVERHEAD)
        content = (Kind.MESSAGE, message_id, start, start + len(data))
        packer.add(frame_type, 0, MessageFragment(message_id, total, start, data).encode(), content)

    def _pack_datagram(self, packer: Packer, frame_type: int, data: bytes) -> None:
        packer.make_room(len(data))
        if len(data) > packer.room:
            self.datagrams_dropped += 1  # the path has shrunk since it was taken
            return
        packer.add(frame_type, 0, data)

    def _pack_streams(self, packer: Packer, limit: int) -> None:
        scheduler, session_credit = self._scheduler, self._streams.send_credit
        if scheduler is None:
            return
        while packer.bytes_packed < limit:
            stream = scheduler.next(self._sendable)
            if stream is None:
                return
            allowance = scheduler.allowance
            until = limit if allowance is None else min(limit, packer.bytes_packed + allowance)
            packer.make_room(MIN_DATA)
            sending = stream.sending
            offset, data, more = sending.peek(packer.room, session_credit.left)
            size = packer.add_data(stream.stream_id, offset, data, until, only_full=more)
            stop = offset + size
            session_credit.used += sending.take(offset, stop)
            scheduler.used(size)
            if sending.waiting and sending.all_sent:
                self.ask_at_once()
            if sending.ended and stop == sending.final_size and not sending.end_acknowledged:
                self._control[Kind.CLOSE, stream.stream_id, CloseKind.END] = None

    def _sendable(self, stream: Stream) -> bool:
        return stream.sending.sendable(self._streams.send_credit.left)
