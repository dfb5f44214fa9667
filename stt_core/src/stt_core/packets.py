"""What peers send on streams that nobody accepts, chunk by chunk: the reader behind ``STTNode.receive``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from stt_core.errors import LocalError
from stt_core.stream import Signal

if TYPE_CHECKING:
    from typing import Self

    from stt_core.session import STTSession


@attrs.frozen
class ReceivedPacket:
    """Bytes that came on a stream that nobody had accepted."""

    session_id: bytes
    stream_id: int
    data: bytes


class PacketReader:
    """Iterates over packets; sessions and their streams take turns, so that none holds the others up.

    Where a stream was reset, or its session ended, what came before is read and nothing is raised: it concerns one of
    many peers.
    """

    def __init__(self) -> None:
        self._readable: dict[STTSession, dict[int, None]] = {}
        self._came = Signal()
        self._waiting = False
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ReceivedPacket:
        """Wait for the next packet.

        Raises:
            LocalError: Another task waits for it already.
        """
        if self._waiting:
            raise LocalError("receive() has a reader: another task waits for a packet")
        self._waiting = True
        try:
            while True:
                while self._readable:
                    packet = self._read_next()
                    if packet is not None:
                        return packet
                if self._ended:
                    raise StopAsyncIteration
                await self._came.wait()
        finally:
            self._waiting = False

    # What the node and its sessions tell

    def readable(self, session: STTSession, stream_id: int) -> None:
        """Learn that a stream that nobody accepted may have something to read."""
        self._readable.setdefault(session, {})[stream_id] = None
        self._came.set()

    def has(self, session: STTSession) -> bool:
        """Return whether there is something to read of a session."""
        return session in self._readable

    def drop(self, session: STTSession) -> None:
        """Read nothing more of a session."""
        self._readable.pop(session, None)

    def end(self) -> None:
        """End the iteration, once what there is was read."""
        self._ended = True
        self._came.set()

    def _read_next(self) -> ReceivedPacket | None:
        session = next(iter(self._readable))
        streams = self._readable.pop(session)
        stream_id = next(iter(streams))
        del streams[stream_id]
        data = session.read_unaccepted(stream_id)
        if data:
            streams[stream_id] = None  # there may be more, or the end
        if streams:
            self._readable[session] = streams
        return ReceivedPacket(session.session_id, stream_id, data) if data else None
