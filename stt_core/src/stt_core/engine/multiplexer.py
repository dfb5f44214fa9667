"""The streams of a session at work: what applications do with them, what frames say of them, what credit allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stt_core import events
from stt_core.engine.contents import Kind
from stt_core.errors import ErrorCode, LocalError, RemoteError
from stt_core.wire.messages import (
    CloseKind,
    CreditKind,
    StreamMode,
    StreamOpen,
    decode_credit,
    decode_data,
    decode_stream_close,
    decode_stream_open,
)

if TYPE_CHECKING:
    from stt_core.engine.contents import Content
    from stt_core.engine.outbox import Outbox
    from stt_core.engine.streams import Bytes, Stream, Streams
    from stt_core.interfaces.transport import Buffer


class Multiplexer:
    """Rules of streams; what follows from them goes into the session's outbox and events.

    Args:
        streams: The table of streams.
        outbox: Where frames wait.
        happened: Where events are appended.
    """

    __slots__ = (
        "_events",
        "_outbox",
        "_streams",
        "_touched",
    )

    def __init__(self, streams: Streams, outbox: Outbox, happened: list[events.Event]) -> None:
        self._streams = streams
        self._outbox = outbox
        self._events = happened
        self._touched: dict[int, Stream] = {}

    # Commands

    def open(self, label: str, priority: int, metadata: object) -> int | None:
        """Open a stream; return its id, or None while the peer allows no more.

        Raises:
            LocalError: The priority is none, or label and metadata take more than 1 KiB.
            SerializationError: The metadata cannot be serialized.
        """
        announcement = StreamOpen(mode=StreamMode.RELIABLE, priority=priority, label=label, metadata=metadata).encode()
        stream = self._streams.open(label, priority, metadata)
        if stream is None:
            return None
        stream.announcement = announcement
        self._outbox.put(Kind.OPEN, stream.stream_id)
        return stream.stream_id

    def write(self, stream_id: int, data: Bytes) -> bool:
        """Keep bytes to send; return False when the buffer is full and nothing was taken.

        Raises:
            StreamClosed: The stream takes no more.
            LocalError: The stream is over.
        """
        stream = self._streams.find(stream_id)
        if stream is None:
            raise LocalError(f"stream {stream_id} is over")
        taken = stream.sending.write(data)
        if taken:
            self._outbox.put_stream(stream)
        elif stream.sending.all_sent:
            self._outbox.ask_at_once()  # only an acknowledgement makes room
        return taken

    def end(self, stream_id: int) -> None:
        """Write no more; what was written still goes out."""
        stream = self._streams.find(stream_id)
        if stream is not None and stream.sending.end() and stream.sending.all_sent:
            self._outbox.put(Kind.CLOSE, stream_id, CloseKind.END)

    def reset(self, stream_id: int, code: int) -> None:
        """Give the sending half up."""
        stream = self._streams.find(stream_id)
        if stream is not None:
            self._reset(stream, code, by_peer=False)

    def stop(self, stream_id: int, code: int) -> None:
        """Want no more of the receiving half."""
        stream = self._streams.find(stream_id)
        if stream is None or stream.receiving.finished:
            return
        before = stream.receiving.credit.consumed
        stream.receiving.stop()
        stream.stop_code = code
        self._outbox.put(Kind.CLOSE, stream_id, CloseKind.STOP_SENDING)
        self._consume(stream.receiving.credit.consumed - before)
        self._forget_if_done(stream)

    def read(self, stream_id: int, size: int) -> bytes:
        """Return at most ``size`` bytes that have come in order."""
        stream = self._streams.find(stream_id)
        if stream is None:
            return b""
        receiving = stream.receiving
        data = receiving.read(size)
        if data:
            if receiving.credit.update_due:
                self._outbox.put(Kind.CREDIT, CreditKind.STREAM, stream_id)
            self._consume(len(data))
        if receiving.at_end:
            self._forget_if_done(stream)
        return data

    # Inputs; each raises RemoteError for what the peer may not do

    def receive_data(self, plaintext: Buffer, stream_id: int) -> None:
        """Take a DATA frame; readers are told by :meth:`tell_readers`, once a burst."""
        offset, data = decode_data(plaintext)
        stream = self._touched.get(stream_id)
        if stream is None:
            stream = self._streams.receive_id(stream_id)
            if stream is None:
                return
            self._touched[stream_id] = stream
        receiving = stream.receiving
        grown = receiving.receive(offset, data)
        if grown:
            self._streams.count_received(grown)
            if receiving.stopped:
                self._consume(grown)

    def receive_open(self, plaintext: Buffer, stream_id: int) -> None:
        """Take a STREAM_OPEN."""
        message = decode_stream_open(plaintext)
        if message.mode is not StreamMode.RELIABLE:
            raise RemoteError("a stream of a mode that this node does not have", ErrorCode.UNSUPPORTED)
        stream = self._streams.receive_id(stream_id)
        if stream is None:
            return
        if self._streams.is_local(stream_id):
            raise RemoteError("the peer opens a stream of this side", ErrorCode.STREAM)
        if stream.opened:
            return
        stream.opened = True
        stream.label, stream.priority, stream.metadata = message.label, message.priority, message.metadata
        self._events.append(events.StreamOpened(stream_id))
        self._touched[stream_id] = stream
        self._forget_if_done(stream)

    def receive_close(self, plaintext: Buffer, stream_id: int) -> None:
        """Take a STREAM_CLOSE."""
        message = decode_stream_close(plaintext)
        stream = self._streams.receive_id(stream_id)
        if stream is None:
            return
        if message.kind is CloseKind.STOP_SENDING:
            self._reset(stream, message.code, by_peer=True)
            return
        receiving = stream.receiving
        before = receiving.credit.consumed
        if message.kind is CloseKind.END:
            grown = receiving.end(message.final_size)
        else:
            grown = receiving.reset(message.code, message.final_size)
        self._streams.count_received(grown)
        if receiving.stopped and message.kind is CloseKind.END:
            receiving.credit.consume(grown)
        self._consume(receiving.credit.consumed - before)
        self._touched[stream_id] = stream
        self._forget_if_done(stream)

    def receive_credit(self, plaintext: Buffer, stream_id: int) -> None:
        """Take a CREDIT."""
        message = decode_credit(plaintext)
        if message.kind is CreditKind.SESSION:
            if self._streams.send_credit.raise_to(message.limit):
                for stream in self._streams:
                    self._put_starved(stream)
        elif message.kind is CreditKind.STREAM:
            found = self._streams.receive_id(stream_id)
            if found is not None and found.sending.credit.raise_to(message.limit):
                self._put_starved(found)
        elif message.kind is CreditKind.STREAMS:
            if self._streams.allow_streams(message.limit):
                self._events.append(events.StreamsAllowed())
        elif self._outbox.messages.allow(message.limit):
            self._events.append(events.MessagesAllowed())

    def tell_readers(self) -> None:
        """Tell, at the end of a burst, which streams have something to read."""
        for stream in self._touched.values():
            # A stream of this side's is known here before the peer has acknowledged that it was opened.
            is_known = stream.opened or self._streams.is_local(stream.stream_id)
            if is_known and stream.receiving.readable and not stream.receiving.stopped:
                self._events.append(events.StreamReadable(stream.stream_id))
        self._touched.clear()

    def confirm_data(self, stream_id: int, start: int, stop: int) -> None:
        """Note bytes that the peer has acknowledged."""
        stream = self._streams.find(stream_id)
        if stream is None:
            return
        stream.sending.acknowledged(start, stop)
        if stream.sending.became_writable():
            self._events.append(events.StreamWritable(stream_id))
        self._forget_if_done(stream)

    def confirm(self, content: Content) -> None:
        """Note a STREAM_OPEN or STREAM_CLOSE that the peer has acknowledged."""
        stream = self._streams.find(content[1])
        if stream is None:
            return
        if content[0] == Kind.OPEN:
            stream.opened = True
        elif content[2] == stream.closing_kind:
            stream.sending.end_acknowledged = True
        self._forget_if_done(stream)

    # Internals

    def _reset(self, stream: Stream, code: int, *, by_peer: bool) -> None:
        if not stream.sending.reset(code, by_peer=by_peer):
            return
        self._outbox.put(Kind.CLOSE, stream.stream_id, CloseKind.RESET)
        if stream.sending.became_writable() or by_peer:
            self._events.append(events.StreamWritable(stream.stream_id))

    def _put_starved(self, stream: Stream) -> None:
        # One that has nothing to send may not be open yet, and would queue under a priority that is not its own.
        if not stream.sending.all_sent:
            self._outbox.put_stream(stream)

    def _consume(self, size: int) -> None:
        credit = self._streams.receive_credit
        credit.consume(size)
        if credit.update_due:
            self._outbox.put(Kind.CREDIT, CreditKind.SESSION, 0)

    def _forget_if_done(self, stream: Stream) -> None:
        if stream.sending.delivered and not stream.delivered_told:
            stream.delivered_told = True
            self._events.append(events.StreamDelivered(stream.stream_id))
        if self._streams.forget_if_done(stream):
            if self._touched.pop(stream.stream_id, None) is not None and not stream.receiving.stopped:
                self._events.append(events.StreamReadable(stream.stream_id))  # the last there is: its end
            self._events.append(events.StreamForgotten(stream.stream_id))
            if self._streams.limit_update_due:
                self._outbox.put(Kind.CREDIT, CreditKind.STREAMS, 0)
