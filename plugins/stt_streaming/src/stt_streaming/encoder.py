"""Turns any source of bytes into numbered segments: sealed, or for a session's stream, which is sealed already."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from stt_core.errors import LocalError
from stt_streaming.segments import (
    DEFAULT_SEGMENT_SIZE,
    MAX_SEGMENT_SIZE,
    MAX_SEQUENCE,
    Segment,
    encode_plain,
    select_cipher,
)
from stt_streaming.sources import read_blocks, read_chunks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from stt_core import STTStream
    from stt_core.interfaces.transport import Buffer
    from stt_streaming.sources import Source


class BinaryStreamEncoder:
    """Cuts one stream of bytes into segments, and seals them unless they go over a session's stream.

    Args:
        key: 32 bytes that the decoder has and nobody else; None over a session's stream.
        session_id: 8 bytes; random ones for each stream will do.
        stream_id: 32 bits. Key, session id and stream id together must never be used for two streams.
        stream: The session's stream that the segments go over, in place of a key: the session seals and gives credit.
        segment_size: Bytes of data in a segment, 1 to 1 MiB.
        live: Whether what the source yields is to go at once: each chunk is a segment, and one for which there is no
            credit is dropped. Otherwise segments are filled, and the source waits for credit. The credit of a session's
            stream is waited for in both.
        credit: Segments that may go before :meth:`grant` allows more; None sets no bound.

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
        segment_size: int = DEFAULT_SEGMENT_SIZE,
        live: bool = False,
        credit: int | None = None,
    ) -> None:
        if not 1 <= segment_size <= MAX_SEGMENT_SIZE:
            raise LocalError(f"a segment holds 1 to {MAX_SEGMENT_SIZE} bytes, not {segment_size}")
        self._cipher = select_cipher(key, session_id, stream_id, inside_session=stream is not None)
        self._stream = stream
        self._segment_size = segment_size
        self._live = live
        self._limit = credit
        self._granted = asyncio.Event()
        self._started = False
        self._sequence = 0
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """Chunks of a live source that were left out for want of credit."""
        return self._dropped

    def grant(self, limit: int) -> None:
        """Allow segments with sequences below ``limit``, as the decoder's ``credit`` says; never takes back."""
        if self._limit is not None and limit > self._limit:
            self._limit = limit
            self._granted.set()

    async def send(self, source: Source) -> AsyncIterator[Segment]:
        """Iterate over the segments of a source, to the last one, which is marked as such.

        Whoever stops in between has cut the stream off, and the decoder will know.

        Args:
            source: Bytes in memory, which are not copied to be cut; a file descriptor; an open binary file; an async
                iterator of bytes.

        Raises:
            LocalError: It is no source, or this encoder has had one.
            OSError: A file cannot be read.
        """
        if self._started:
            # Another stream under the same key would use the same nonces.
            raise LocalError("an encoder is for one stream: make another, with another session or stream id")
        self._started = True
        segments = self._send_live(source) if self._live else self._send_filled(source)
        async for segment in segments:
            yield segment

    async def transmit(self, source: Source) -> int:
        """Send a source over the session's stream, and end that; return how many bytes the source had.

        A call that fails or is cancelled resets the stream.

        Raises:
            LocalError: As :meth:`send`, or the encoder is not over a stream.
            OSError: As :meth:`send`.
            StreamClosed: The peer wants no more, or the stream was reset.
            SessionClosed: The session is over.
        """
        if self._stream is None:
            raise LocalError("this encoder is over no stream: send what send() yields")
        size = 0
        try:
            async for segment in self.send(source):
                await self._stream.send(segment.data)
                size += segment.size
        except BaseException:
            # The peer would wait for the rest.
            self._stream.reset()
            raise
        self._stream.end()
        return size

    # Internals

    async def _send_filled(self, source: Source) -> AsyncIterator[Segment]:
        held: Buffer = b""
        async for block in read_blocks(source, self._segment_size):
            # Only what comes behind a block tells that it is not the last.
            if held:
                await self._wait_credit()
                yield self._encode(held, final=False)
            held = block
        await self._wait_credit()
        yield self._encode(held, final=True)

    async def _send_live(self, source: Source) -> AsyncIterator[Segment]:
        async for chunk in read_chunks(source, self._segment_size):
            if self._has_credit():
                yield self._encode(chunk, final=False)
            else:
                self._dropped += 1
        await self._wait_credit()
        yield self._encode(b"", final=True)

    def _encode(self, data: Buffer, *, final: bool) -> Segment:
        sequence = self._sequence
        if sequence > MAX_SEQUENCE:
            raise LocalError("a stream has no more segments than 64 bits can count")
        self._sequence += 1
        if self._cipher is None:
            encoded = encode_plain(sequence, data, final=final)
        else:
            encoded = self._cipher.seal(sequence, data, final=final)
        return Segment(sequence=sequence, final=final, size=len(data), data=encoded)

    def _has_credit(self) -> bool:
        return self._limit is None or self._sequence < self._limit

    async def _wait_credit(self) -> None:
        while not self._has_credit():
            self._granted.clear()
            await self._granted.wait()
