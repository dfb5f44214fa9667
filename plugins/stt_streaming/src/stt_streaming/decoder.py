"""Turns segments back into the bytes of a stream: all of them, in order, or an error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stt_core.errors import LocalError
from stt_streaming.segments import HEADER, SegmentError, decode_header, select_cipher
from stt_streaming.sinks import writer

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Iterator

    from stt_core import STTStream
    from stt_core.interfaces.transport import Buffer
    from stt_streaming.segments import Header
    from stt_streaming.sinks import Sink

DEFAULT_WINDOW: Final = 64
"""Segments that may come ahead of one that is missing: at most 64 MiB of memory, 4 MiB at the default size."""


class BinaryStreamDecoder:
    """Opens the segments of one stream, and puts them in order.

    Args:
        key: As the encoder has it, and the same for all up to the stream.
        session_id: As above.
        stream_id: As above.
        stream: As above: the session's stream that brings the segments, in place of a key.
        window: How many segments may be held or on their way: one that is further ahead is refused.
        live: Whether a segment is to be had as soon as it comes; one that is older than what was had is dropped then,
            and one that is missing is not waited for.

    Raises:
        LocalError: One of them is out of its range, or there is not either a key or a stream.
    """

    def __init__(
        self,
        key: bytes | None = None,
        *,
        session_id: bytes = b"",
        stream_id: int = 0,
        stream: STTStream | None = None,
        window: int = DEFAULT_WINDOW,
        live: bool = False,
    ) -> None:
        if window < 1:
            raise LocalError(f"the window is {window} segments, but at least one must fit")
        self._cipher = select_cipher(key, session_id, stream_id, inside_session=stream is not None)
        self._stream = stream
        # A session's stream brings its bytes in order: nothing needs to be held.
        self._window = 1 if stream is not None else window
        self._live = live
        self._next = 0
        self._held: dict[int, bytes] = {}
        self._last: int | None = None
        self._late = 0
        self._lost = 0

    @property
    def credit(self) -> int:
        """The sequence below which the encoder may send, for its ``grant``; rises as segments are had."""
        return self._next + self._window

    @property
    def complete(self) -> bool:
        """Whether all segments were had, to the last."""
        return self._last is not None and self._next > self._last

    @property
    def late(self) -> int:
        """Live: segments that were dropped because they came behind a newer one, or twice."""
        return self._late

    @property
    def lost(self) -> int:
        """Live: segments that had not come when a newer one did; those of them that came later are ``late``, too."""
        return self._lost

    def feed(self, segment: Buffer) -> list[bytes]:
        """Take one segment; return the data that it makes ready, in order.

        One that is refused changes nothing: on a transport that strangers can send to, drop it and go on.

        Raises:
            SegmentError: It is no segment, of another stream, changed, repeated, behind the last one, or too far ahead.
        """
        if len(segment) < HEADER.size:
            raise SegmentError("no segment: it is cut off")
        header = decode_header(segment)
        if len(segment) != HEADER.size + header.body_size:
            raise SegmentError(f"no segment: {header.body_size} bytes were to follow its header")
        return self._take(header, segment)

    async def receive(self, source: AsyncIterable[Buffer] | None = None) -> AsyncIterator[bytes]:
        """Iterate over the data of the stream, to its authenticated end.

        Args:
            source: What brings the segments, cut or joined in any way, such as datagrams or the chunks of
                a file. None is the session's stream.

        Raises:
            SegmentError: As :meth:`feed`, or the source ended before the stream.
            LocalError: There is no source.
        """
        if source is None:
            source = self._stream
        if source is None:
            raise LocalError("this decoder is over no stream: name what brings the segments")
        gathered = bytearray()
        async for chunk in source:
            gathered += chunk
            for data in self._take_gathered(gathered):
                yield data
            if self.complete:
                if gathered:
                    raise SegmentError("bytes follow the last segment")
                return
        self.finish()

    async def write(self, sink: Sink, source: AsyncIterable[Buffer] | None = None) -> int:
        """Write the data of the stream to a sink, to its end; return how many bytes.

        What was written is authentic, even where an error follows, but then not all.

        Args:
            sink: A bytearray, which grows; memory that is filled; a file descriptor; an open binary file; an async
                function of bytes.
            source: As for :meth:`receive`.

        Raises:
            SegmentError: As :meth:`receive`.
            LocalError: As :meth:`receive`; or it is no sink, or has too little room.
            OSError: A file cannot be written.
        """
        write = writer(sink)
        size = 0
        async for data in self.receive(source):
            await write(data)
            size += len(data)
        return size

    def finish(self) -> None:
        """Require that all has come.

        Raises:
            SegmentError: The stream was cut off.
        """
        if not self.complete:
            raise SegmentError(f"the stream was cut off: segment {self._next} is missing")

    # Internals

    def _take_gathered(self, gathered: bytearray) -> Iterator[bytes]:
        """Take the whole segments at the front of some bytes, and remove them in the end.

        What each makes ready is had before the next one is looked at, which may be none.
        """
        start = 0
        with memoryview(gathered) as view:
            while len(view) - start >= HEADER.size and not self.complete:
                header = decode_header(view[start:])
                end = start + HEADER.size + header.body_size
                if end > len(view):
                    break
                yield from self._take(header, bytes(view[start:end]))
                start = end
        del gathered[:start]

    def _take(self, header: Header, segment: Buffer) -> list[bytes]:
        if header.sealed is not (self._cipher is not None):
            raise SegmentError("the segment is sealed" if header.sealed else "the segment is not sealed")
        stale = self._check_place(header.sequence, final=header.final)
        if self._cipher is not None:
            data = self._cipher.open(header, segment)
        else:
            data = bytes(memoryview(segment)[HEADER.size :])
        if stale:
            self._late += 1
            return []
        if header.final:
            self._last = header.sequence
        if self._live:
            self._lost += header.sequence - self._next
            self._next = header.sequence + 1
            return [data] if data else []
        self._held[header.sequence] = data
        ready = []
        while self._next in self._held:
            ready.append(self._held.pop(self._next))
            self._next += 1
        return [data for data in ready if data]

    def _check_place(self, sequence: int, *, final: bool) -> bool:
        """Return whether a segment comes too late; raise if it cannot be of this stream at all."""
        if self._last is not None and (sequence > self._last or final is not (sequence == self._last)):
            raise SegmentError(f"segment {sequence} is behind the last one, {self._last}")
        if self._live:
            return sequence < self._next
        if sequence < self._next or sequence in self._held:
            raise SegmentError(f"segment {sequence} came before")
        if sequence >= self.credit:
            raise SegmentError(f"segment {sequence} is too far ahead of {self._next}, which is missing")
        if final and sequence < (newest := max(self._held, default=sequence)):
            raise SegmentError(f"segment {sequence} claims to be the last, but {newest} is there")
        return False
