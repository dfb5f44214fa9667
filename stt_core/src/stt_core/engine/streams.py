"""The byte streams of a session: what each half holds, sends again, reassembles, and when a stream is done."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs

from stt_core.engine.flow import ReceiveCredit, SendCredit
from stt_core.engine.ranges import RangeSet
from stt_core.errors import ErrorCode, LocalError, RemoteError, StreamClosed
from stt_core.wire.messages import MAX_PRIORITY, CloseKind

if TYPE_CHECKING:
    from collections.abc import Iterator

Bytes: TypeAlias = bytes | memoryview

PRIORITIES: Final = range(MAX_PRIORITY + 1)
"""0 first, 7 last."""

_SMALL_WRITE: Final = 16 * 1024  # bytes: smaller writes are joined before they are cut into frames
_SMALL_SEGMENT: Final = 512  # bytes: smaller ones are copied together, so that each byte kept costs about a byte
_JOINED_SEGMENT: Final = 64 * 1024
_SPARE_PIECES: Final = 1024  # out of order, that a stream may have whatever they span
_MIN_SPAN: Final = 128  # bytes that each piece beyond those spans on average, so that credit bounds their number


class SendHalf:
    """Bytes on their way to the peer, kept until they are acknowledged.

    Args:
        limit: Bytes that the peer allows at first.
        buffer_size: Bytes to keep; :meth:`write` takes a write whole while less is kept.
    """

    __slots__ = (
        "_acked",
        "_base",
        "_buffer_size",
        "_chunks",
        "_cursor",
        "_frozen",
        "_lost",
        "_small",
        "_starts",
        "_written",
        "credit",
        "end_acknowledged",
        "ended",
        "reset_by_peer",
        "reset_code",
        "sent",
        "waiting",
    )

    def __init__(self, limit: int, buffer_size: int) -> None:
        self.credit = SendCredit(limit)
        self._buffer_size = buffer_size
        self._starts: list[int] = []
        self._chunks: list[memoryview] = []
        self._cursor = 0
        self._small: list[Bytes] = []
        self._base = 0
        self._written = 0
        self._acked = RangeSet()
        self._lost = RangeSet()
        self.waiting = False
        """Whether a write was refused, so that somebody waits for room."""
        self._frozen = 0
        """The offset up to which bytes lie in chunks; small writes wait behind it to be joined."""
        self.sent = 0
        """The offset behind the highest byte that was sent."""
        self.ended = False
        """Whether no more will be written."""
        self.end_acknowledged = False
        """Whether the peer has acknowledged the STREAM_CLOSE of this half."""
        self.reset_code: int | None = None
        """The code of the reset, if this half was given up."""
        self.reset_by_peer = False
        """Whether the peer had asked for that."""

    # Commands

    def write(self, data: Bytes) -> bool:
        """Keep bytes to send; they must not change afterwards.

        Returns:
            False when the buffer is full and nothing was taken; a StreamWritable event will follow.

        Raises:
            StreamClosed: This half has ended or was reset.
        """
        if self.reset_code is not None:
            raise StreamClosed(self.reset_code, by_peer=self.reset_by_peer)
        if self.ended:
            raise StreamClosed(ErrorCode.NO_ERROR, by_peer=False)
        if self._written - self._base >= self._buffer_size:
            self.waiting = True
            return False
        if not data:
            return True
        if len(data) < _SMALL_WRITE:
            self._small.append(data)
            self._written += len(data)
        else:
            self._freeze()
            self._starts.append(self._written)
            self._chunks.append(memoryview(data))
            self._written += len(data)
            self._frozen = self._written
        return True

    def end(self) -> bool:
        """Write no more; return whether that is new."""
        if self.ended:
            return False
        self.ended = True
        return True

    def reset(self, code: int, *, by_peer: bool) -> bool:
        """Give the half up: nothing is sent again; return whether that is new and not too late."""
        if self.reset_code is not None or self.delivered:
            return False
        self.reset_code = code
        self.reset_by_peer = by_peer
        self.ended = True
        self.end_acknowledged = False
        self._starts.clear()
        self._chunks.clear()
        self._small.clear()
        self._acked = RangeSet()
        self._lost = RangeSet()
        self._base = self._written = self._frozen = self.sent
        return True

    def peek(self, size: int, session_left: int) -> tuple[int, Bytes, bool]:
        """Return a run of bytes to send next, lost ones first; only when :meth:`sendable`.

        Nothing is joined but at the seam of two writes, so that a run may be short of what could be sent.

        Args:
            size: Bytes that a frame takes; the run has as many unless there are fewer.
            session_left: Bytes that the session's credit allows; only bytes that were never sent use it.

        Returns:
            The offset, the bytes, and whether others follow, so that the last frame of the run should be full.
        """
        if self._lost:
            start, stop = self._lost.first
            cursor = bisect_right(self._starts, start) - 1
        else:
            start = self.sent
            stop = min(self._written, self.credit.limit, start + session_left)
            if stop > self._frozen:
                self._freeze()
            cursor = self._cursor
            while cursor + 1 < len(self._starts) and self._starts[cursor + 1] <= start:
                cursor += 1
            self._cursor = cursor
        chunk_start, chunk = self._starts[cursor], self._chunks[cursor]
        first, last = start - chunk_start, stop - chunk_start
        if last <= len(chunk):
            return start, chunk[first:last], False
        if len(chunk) - first >= size:
            return start, chunk[first:], True
        return start, self._slice(start, min(stop, start + size)), start + size < stop

    def take(self, start: int, stop: int) -> int:
        """Note that bytes which :meth:`peek` gave, from its first one on, leave; return how many never did before."""
        if self._lost:
            self._lost.subtract(start, stop)
            return 0
        self.sent = self.credit.used = stop
        return stop - start

    # Inputs

    def acknowledged(self, start: int, stop: int) -> None:
        """Note bytes that arrived; what is acknowledged without a gap is let go."""
        if self.reset_code is not None:
            return
        if self._lost:
            self._lost.subtract(start, stop)
        acked = self._acked
        if start > self._base:
            acked.add(start, stop)
            return
        if stop <= self._base:
            return
        while acked and acked.first[0] <= stop:
            first_start, first_stop = acked.first
            acked.subtract(first_start, first_stop)
            stop = max(stop, first_stop)
        self._base = stop
        done = bisect_right(self._starts, self._base)
        if done and self._base < self._starts[done - 1] + len(self._chunks[done - 1]):
            done -= 1
        if done:
            del self._starts[:done]
            del self._chunks[:done]
            self._cursor = max(0, self._cursor - done)

    def lost(self, start: int, stop: int) -> None:
        """Note bytes that are to be sent again, unless they arrived meanwhile."""
        if self.reset_code is not None:
            return
        for part in self._acked.missing(max(start, self._base), stop):
            self._lost.add(*part)

    # Outputs

    @property
    def final_size(self) -> int:
        """Bytes that this half holds in all, once :attr:`ended`."""
        return self._written

    @property
    def delivered(self) -> bool:
        """Whether all that was written and the end were acknowledged."""
        return self.end_acknowledged and (self.reset_code is not None or self._base == self._written)

    @property
    def all_sent(self) -> bool:
        """Whether every byte has left at least once, so that the end may be told."""
        return self.sent == self._written

    def sendable(self, session_left: int) -> bool:
        """Return whether :meth:`take` has something."""
        if self._lost:
            return True
        return self.sent < self._written and self.sent < self.credit.limit and session_left > 0

    def starved(self, session_left: int) -> bool:
        """Return whether bytes wait for nothing but the peer's credit."""
        return self.sent < self._written and not self.sendable(session_left)

    def became_writable(self) -> bool:
        """Return once, after a refused write, that there is room again or that there never will be."""
        if self.waiting and (self.ended or self._written - self._base < self._buffer_size):
            self.waiting = False
            return True
        return False

    # Internals

    def _freeze(self) -> None:
        if not self._small:
            return
        self._starts.append(self._frozen)
        self._chunks.append(memoryview(self._small[0] if len(self._small) == 1 else b"".join(self._small)))
        self._small.clear()
        self._frozen = self._written

    def _slice(self, start: int, stop: int) -> Bytes:
        index = bisect_right(self._starts, start) - 1
        parts = []
        while start < stop:
            chunk_start, chunk = self._starts[index], self._chunks[index]
            part = chunk[start - chunk_start : stop - chunk_start]
            parts.append(part)
            start += len(part)
            index += 1
        return parts[0] if len(parts) == 1 else b"".join(parts)


class ReceiveHalf:
    """Bytes from the peer: put in order, kept until they are read.

    Args:
        window: Bytes that the peer may be ahead of the reader.
    """

    __slots__ = (
        "_early",
        "_early_starts",
        "_ready",
        "_ready_size",
        "credit",
        "final_size",
        "next",
        "reset_code",
        "stopped",
    )

    def __init__(self, window: int) -> None:
        self.credit = ReceiveCredit(window)
        self._ready: deque[bytearray | memoryview] = deque()
        self._ready_size = 0
        self._early: list[bytearray | memoryview] = []
        self._early_starts: list[int] = []
        self.next = 0
        """The offset of the first byte that has not come."""
        self.final_size: int | None = None
        self.reset_code: int | None = None
        """The code of the peer's reset, if it gave this half up."""
        self.stopped = False
        """Whether this side wants no more of it; what comes is dropped."""

    # Inputs

    def receive(self, offset: int, data: memoryview) -> int:
        """Take a segment; return the bytes by which the highest offset grew, which session credit counts.

        Raises:
            RemoteError: It goes beyond the credit, beyond the end, or is cut into too many pieces.
        """
        size = len(data)
        stop = offset + size
        if (
            offset == self.next == self.credit.received
            and stop <= self.credit.limit
            and self.final_size is None
            and not self.stopped
            and size >= _SMALL_SEGMENT
            and 2 * size >= len(data.obj)  # type: ignore[arg-type]  # its base is bytes
        ):
            # Nearly every segment of a large transfer; what follows comes to the same.
            self.next = self.credit.received = stop
            self._ready_size += size
            self._ready.append(data)
            return size
        grown = self._grow(stop)
        if self.stopped or self.reset_code is not None:
            self.credit.consume(grown)
            return grown
        if offset == self.next and not self._early:
            self._append(data)
        elif offset > self.next:
            self._keep_early(offset, data)
        elif stop > self.next:
            self._append(data[self.next - offset :])
            self._drain_early()
        return grown

    def end(self, final_size: int) -> int:
        """Take the end of the half; return the bytes by which the highest offset grew.

        Raises:
            RemoteError: It contradicts what came before, or goes beyond the credit.
        """
        grown = self._grow(final_size)
        if final_size < self.credit.received:
            raise RemoteError("the final size of a stream contradicts what came before", ErrorCode.STREAM)
        self.final_size = final_size
        return grown

    def reset(self, code: int, final_size: int) -> int:
        """Take the peer's reset: what was not read is dropped; return as :meth:`end`."""
        was_finished = self.finished
        grown = self.end(final_size)
        if self.reset_code is None and not was_finished:
            self.reset_code = code
            self._discard()
        return grown

    # Commands

    def read(self, size: int) -> bytes:
        """Return at most ``size`` bytes that are in order; none when none came or at the end."""
        ready = self._ready
        if not ready:
            return b""
        if self._ready_size <= size:
            data = b"".join(ready) if len(ready) > 1 else bytes(ready[0])
            ready.clear()
        else:
            parts: list[bytearray | memoryview] = []
            left = size
            while left:
                part = ready.popleft()
                if len(part) > left:
                    view = memoryview(part)
                    ready.appendleft(view[left:])
                    part = view[:left]
                parts.append(part)
                left -= len(part)
            data = b"".join(parts)
        self._ready_size -= len(data)
        self.credit.consume(len(data))
        return data

    def stop(self) -> None:
        """Want no more: drop what is kept and what will come."""
        self.stopped = True
        self._discard()

    # Outputs

    @property
    def readable(self) -> bool:
        """Whether there is something to tell the reader: bytes, the end or a reset."""
        return bool(self._ready) or self.at_end or self.reset_code is not None

    @property
    def at_end(self) -> bool:
        """Whether everything came and was read."""
        return (
            self.final_size is not None and self.next == self.final_size and not self._ready and self.reset_code is None
        )

    @property
    def finished(self) -> bool:
        """Whether nothing more can come of it."""
        if self.final_size is None:
            return False
        return self.at_end or self.reset_code is not None or self.stopped

    # Internals

    def _discard(self) -> None:
        # What is dropped counts as read, so that the session's credit comes back.
        self._ready.clear()
        self._ready_size = 0
        self._early.clear()
        self._early_starts.clear()
        self.credit.consume(self.credit.received - self.credit.consumed)

    def _grow(self, stop: int) -> int:
        credit = self.credit
        grown = stop - credit.received
        if grown <= 0:
            return 0
        if stop > credit.limit:
            raise RemoteError("more than the credit of a stream", ErrorCode.FLOW_CONTROL)
        if self.final_size is not None and stop > self.final_size:
            raise RemoteError("bytes behind the end of a stream", ErrorCode.STREAM)
        credit.received = stop
        return grown

    def _append(self, data: memoryview) -> None:
        size = len(data)
        self.next += size
        self._ready_size += size
        # As _is_worth_holding: this runs for every segment.
        if size >= _SMALL_SEGMENT and 2 * size >= len(data.obj):  # type: ignore[arg-type]  # its base is bytes
            self._ready.append(data)
            return
        last = self._ready[-1] if self._ready else None
        if isinstance(last, bytearray) and len(last) < _JOINED_SEGMENT:
            last += data
        elif size:
            self._ready.append(bytearray(data))

    def _keep_early(self, offset: int, data: memoryview) -> None:
        starts, pieces = self._early_starts, self._early
        stop = offset + len(data)
        index = bisect_right(starts, offset)
        start = max(offset, starts[index - 1] + len(pieces[index - 1])) if index else offset
        # From gap to gap: what came before stays as it is.
        while start < stop:
            gap_stop = min(stop, starts[index]) if index < len(starts) else stop
            if start < gap_stop:
                index += self._fill_gap(index, start, data[start - offset : gap_stop - offset])
            if index == len(starts):
                break
            start = starts[index] + len(pieces[index])
            index += 1
        if len(pieces) > _SPARE_PIECES + (self.credit.received - self.next) // _MIN_SPAN:
            raise RemoteError("a stream in too many pieces", ErrorCode.LIMIT)

    def _fill_gap(self, index: int, start: int, data: memoryview) -> int:
        """Keep bytes before the piece at ``index``; return the number of pieces that this added."""
        starts, pieces = self._early_starts, self._early
        piece: bytearray | memoryview = data
        if not _is_worth_holding(data):
            last = pieces[index - 1] if index else None
            if isinstance(last, bytearray) and starts[index - 1] + len(last) == start and len(last) < _JOINED_SEGMENT:
                last += data
                return 0
            piece = bytearray(data)
        starts.insert(index, start)
        pieces.insert(index, piece)
        return 1

    def _drain_early(self) -> None:
        taken = 0
        for start, piece in zip(self._early_starts, self._early, strict=True):
            if start > self.next:
                break
            taken += 1
            if start + len(piece) > self.next:
                self._append(memoryview(piece)[self.next - start :])
        del self._early[:taken]
        del self._early_starts[:taken]


def _is_worth_holding(data: memoryview) -> bool:
    """Return whether bytes are many, and most of what their view keeps alive; others are copied, and joined."""
    return len(data) >= _SMALL_SEGMENT and 2 * len(data) >= len(data.obj)  # type: ignore[arg-type]  # its base is bytes


@attrs.define(eq=False)
class Stream:
    """One stream: two halves, and what its opener said of it."""

    stream_id: int
    sending: SendHalf
    receiving: ReceiveHalf
    label: str = ""
    priority: int = 3
    metadata: Any = None
    announcement: bytes = b""
    """The encoded STREAM_OPEN of a stream of this side's."""
    opened: bool = False
    """Whether STREAM_OPEN came, or the peer has acknowledged ours."""
    stop_code: int = 0
    """The code with which this side wants no more of the receiving half."""
    delivered_told: bool = False
    """Whether a StreamDelivered event has said so."""

    @property
    def closing_kind(self) -> CloseKind:
        """How the sending half ends, or will."""
        return CloseKind.END if self.sending.reset_code is None else CloseKind.RESET

    @property
    def done(self) -> bool:
        """Whether both halves are over and the stream can be forgotten."""
        return self.opened and self.sending.delivered and self.receiving.finished


class Streams:
    """The table of a session's streams.

    Ids are odd for those of the initiator and even for those of the responder, without gaps: a frame on one id makes
    all lower ids of that side exist. An id that was seen and has no state is closed.

    Args:
        is_initiator: This side's role.
        stream_window: Bytes that the peer may be ahead of the reader of a stream.
        session_window: As above, over all streams.
        max_streams: Streams that the peer may have open at a time.
        buffer_size: Bytes that a stream keeps until they are acknowledged.
    """

    def __init__(
        self, *, is_initiator: bool, stream_window: int, session_window: int, max_streams: int, buffer_size: int
    ) -> None:
        self._is_initiator = is_initiator
        self._stream_window = stream_window
        self._max_streams = max_streams
        self._buffer_size = buffer_size
        self._streams: dict[int, Stream] = {}
        self._local_opened = 0
        self._remote_seen = 0
        self._remote_closed = 0
        self._peer_stream_limit = 0
        self._peer_stream_window = 0
        self.receive_credit = ReceiveCredit(session_window)
        self.send_credit = SendCredit(0)
        self.remote_limit = max_streams
        """Streams that the peer was told it may ever open."""

    def __len__(self) -> int:
        return len(self._streams)

    def __iter__(self) -> Iterator[Stream]:
        return iter(self._streams.values())

    # Queries

    def is_local(self, stream_id: int) -> bool:
        """Return whether an id is this side's to open."""
        return bool(stream_id & 1) is self._is_initiator

    # Commands

    def open(self, label: str, priority: int, metadata: object) -> Stream | None:
        """Make a stream of this side's; None while the peer allows no more.

        Raises:
            LocalError: The priority is none.
        """
        if priority not in PRIORITIES:
            raise LocalError(f"priority {priority!r} is not from 0 to 7")
        if self._local_opened >= self._peer_stream_limit:
            return None
        stream_id = 2 * self._local_opened + (1 if self._is_initiator else 2)
        self._local_opened += 1
        stream = self._new(stream_id)
        stream.label, stream.priority, stream.metadata = label, priority, metadata
        return stream

    def find(self, stream_id: int) -> Stream | None:
        """Return a stream that has state."""
        return self._streams.get(stream_id)

    def forget_if_done(self, stream: Stream) -> bool:
        """Drop a stream that is over; return whether it was dropped now."""
        if not stream.done or self._streams.pop(stream.stream_id, None) is None:
            return False
        if not self.is_local(stream.stream_id):
            self._remote_closed += 1
        return True

    @property
    def limit_update_due(self) -> bool:
        """Whether a quarter of the streams was closed since the peer was told its limit."""
        return self._remote_closed + self._max_streams - self.remote_limit >= max(1, self._max_streams >> 2)

    def renew_stream_limit(self) -> int:
        """Return the stream limit to tell the peer now."""
        self.remote_limit = self._remote_closed + self._max_streams
        return self.remote_limit

    # Inputs

    def allow(self, session: int, stream: int, streams: int) -> None:
        """Take the credit of the peer's parameters."""
        self.send_credit.limit = session
        self._peer_stream_window = stream
        self._peer_stream_limit = streams
        for known in self._streams.values():
            known.sending.credit.raise_to(stream)

    def allow_streams(self, limit: int) -> bool:
        """Take the number of streams that this side may ever open; return whether it grew."""
        if limit <= self._peer_stream_limit:
            return False
        self._peer_stream_limit = limit
        return True

    def receive_id(self, stream_id: int) -> Stream | None:
        """Return the stream of an arriving frame, making it exist if it is the peer's to open; None if it is closed.

        Raises:
            RemoteError: The id is 0, this side's and never opened, or beyond the limit.
        """
        stream = self._streams.get(stream_id)
        if stream is not None:
            return stream
        if stream_id == 0:
            raise RemoteError("a stream frame without a stream", ErrorCode.PROTOCOL)
        index = (stream_id + 1) // 2
        if self.is_local(stream_id):
            if index > self._local_opened:
                raise RemoteError("a frame on a stream that was not opened", ErrorCode.STREAM)
            return None
        if index <= self._remote_seen:
            return None
        if index > self.remote_limit:
            raise RemoteError("more streams than allowed", ErrorCode.FLOW_CONTROL)
        for lower in range(self._remote_seen + 1, index + 1):
            stream = self._new(2 * lower - (stream_id & 1))
        self._remote_seen = index
        return stream

    def count_received(self, grown: int) -> None:
        """Count bytes against the session's credit.

        Raises:
            RemoteError: It goes beyond.
        """
        credit = self.receive_credit
        credit.received += grown
        if credit.received > credit.limit:
            raise RemoteError("more than the credit of the session", ErrorCode.FLOW_CONTROL)

    # Internals

    def _new(self, stream_id: int) -> Stream:
        stream = Stream(
            stream_id, SendHalf(self._peer_stream_window, self._buffer_size), ReceiveHalf(self._stream_window)
        )
        self._streams[stream_id] = stream
        return stream
