"""One stream of a session, as applications use it: send, receive, end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from stt_core.errors import ErrorCode, IncompleteRead, LocalError, StreamClosed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from stt_core.engine.streams import Stream
    from stt_core.interfaces.transport import Buffer
    from stt_core.session import STTSession

DEFAULT_READ_SIZE: Final = 1 << 20
"""Bytes that :meth:`STTStream.receive` returns at most unless told otherwise."""

_WRITE_SIZE: Final = 256 * 1024  # bytes handed to the engine at a time, so that a large send waits in between


class Signal:
    """Wakes those who wait for something to change; they look again what it was."""

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: list[asyncio.Future[None]] | None = None  # a handful at most, and most often none

    def set(self) -> None:
        """Wake all who wait now."""
        for waiter in self._waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self) -> None:
        """Wait for the next :meth:`set`."""
        waiter = asyncio.get_running_loop().create_future()
        if self._waiters is None:
            self._waiters = []
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            self._waiters.remove(waiter)


class STTStream:
    """Bytes in order, both ways; each direction ends by itself.

    Made by :meth:`STTSession.open_stream` and :meth:`STTSession.accept_stream`. One task reads and one writes at a
    time. Iterating over it yields the chunks until the end.
    """

    def __init__(self, session: STTSession, state: Stream) -> None:
        self._session = session
        self._state = state
        self._readable = Signal()
        self._writable = Signal()
        self._delivered = Signal()
        self._receiving = False
        self._sending = False
        self._unread = b""

    def __repr__(self) -> str:
        return f"<STTStream {self.stream_id} {self.label!r} of {self._session!r}>"

    @property
    def stream_id(self) -> int:
        """Odd if the session's initiator opened it."""
        return self._state.stream_id

    @property
    def label(self) -> str:
        """What its opener called it."""
        return self._state.label

    @property
    def metadata(self) -> Any:
        """What its opener said of it: a value of STT serialization."""
        return self._state.metadata

    @property
    def priority(self) -> int:
        """From 0, first, to 7, last."""
        return self._state.priority

    @property
    def session(self) -> STTSession:
        """The session that it belongs to."""
        return self._session

    # Sending

    async def send(self, data: Buffer) -> None:
        """Send bytes; returns once they are accepted for sending, and waits while too many are under way.

        A cancelled call may have taken a first part of the bytes. What is given as ``bytes`` is not copied.

        Args:
            data: Any number of bytes.

        Raises:
            StreamClosed: This direction has ended or was reset, or the peer wants no more of it.
            SessionClosed: The session is over.
            LocalError: Another task is sending.
        """
        if self._sending:
            raise LocalError(f"{self!r} has a sender: another task is in send()")
        if not isinstance(data, bytes):
            data = bytes(memoryview(data))  # bytes() alone would take a number for a size
        write, stream_id = self._session.engine.write, self.stream_id
        self._require_sendable()
        if len(data) <= _WRITE_SIZE and write(stream_id, data):
            self._session.touch()
            return
        self._sending = True
        try:
            view = memoryview(data)
            for start in range(0, len(view), _WRITE_SIZE):
                while not write(stream_id, view[start : start + _WRITE_SIZE]):
                    self._session.touch()
                    await self._writable.wait()
                    self._require_sendable()
                self._session.touch()
        finally:
            self._sending = False

    def end(self) -> None:
        """Send no more; the peer reads what was sent and then the end. Repeating it changes nothing."""
        self._session.engine.end_stream(self.stream_id)
        self._session.touch()
        self.notify(writable=True)  # for another task's send(), which is too late

    def reset(self, code: int = ErrorCode.NO_ERROR) -> None:
        """Give sending up: what was not delivered is lost, and the peer's reader gets StreamClosed with the code."""
        self._session.engine.reset_stream(self.stream_id, code)
        self._session.touch()
        self.notify(writable=True)

    async def wait_delivered(self) -> None:
        """Wait until the peer has acknowledged everything that was sent, and the end; call :meth:`end` before.

        Raises:
            StreamClosed: The stream was reset.
            SessionClosed: The session ended before.
            LocalError: The stream was not ended.
        """
        if not self._state.sending.ended:
            raise LocalError("end() comes before wait_delivered()")
        while not self._state.sending.delivered:
            self._require_unreset()
            self._session.require_open()
            await self._delivered.wait()
        self._require_unreset()

    # Receiving

    async def receive(self, max_bytes: int = DEFAULT_READ_SIZE) -> bytes:
        """Return the next bytes as soon as there are any, at most ``max_bytes``; none at the end.

        Raises:
            StreamClosed: The peer reset the stream; what was not read is lost.
            SessionClosed: The session is over, and everything that had come was read.
            LocalError: Another task is receiving, or ``max_bytes`` is not positive.
        """
        if max_bytes <= 0:
            raise LocalError(f"max_bytes is {max_bytes}, but must be positive")
        if self._receiving:
            raise LocalError(f"{self!r} has a reader: another task is in receive()")
        if self._unread and not self._state.receiving.stopped:
            data, self._unread = self._unread[:max_bytes], self._unread[max_bytes:]
            return data
        self._receiving = True
        try:
            while True:
                data = self._session.engine.read(self.stream_id, max_bytes)
                if data:
                    self._session.touch()
                    return data
                if self._at_end():
                    return b""
                await self._readable.wait()
        finally:
            self._receiving = False

    async def receive_exactly(self, size: int) -> bytes:
        """Return exactly ``size`` bytes; what a call that was cancelled or raised StreamClosed had read is read again.

        Raises:
            IncompleteRead: The stream ended before; it has what came.
            StreamClosed: As :meth:`receive`.
            SessionClosed: As :meth:`receive`.
            LocalError: Another task is receiving, or ``size`` is negative.
        """
        if size < 0:
            raise LocalError(f"size is {size}, but must not be negative")
        parts = bytearray()
        try:
            while len(parts) < size and (part := await self.receive(size - len(parts))):
                parts += part
        except BaseException:
            self._unread = bytes(parts) + self._unread
            raise
        if len(parts) < size:
            raise IncompleteRead(bytes(parts), size)
        return bytes(parts)

    def stop(self, code: int = ErrorCode.NO_ERROR) -> None:
        """Want no more: what comes is dropped, and the peer's sender gets StreamClosed with the code."""
        self._session.engine.stop_stream(self.stream_id, code)
        self._session.touch()
        self.notify(readable=True)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await self.receive():
            yield chunk

    # What the session tells it

    def notify(self, *, readable: bool = False, writable: bool = False, delivered: bool = False) -> None:
        """Wake those who wait for what has changed."""
        if readable:
            self._readable.set()
        if writable:
            self._writable.set()
            self._delivered.set()
        if delivered:
            self._delivered.set()

    def _at_end(self) -> bool:
        receiving = self._state.receiving
        if receiving.at_end:
            return True
        if receiving.reset_code is not None:
            raise StreamClosed(receiving.reset_code, by_peer=True)
        if receiving.stopped:
            raise StreamClosed(self._state.stop_code, by_peer=False)
        self._session.require_open()
        return False

    def _require_unreset(self) -> None:
        sending = self._state.sending
        if sending.reset_code is not None:
            raise StreamClosed(sending.reset_code, by_peer=sending.reset_by_peer)

    def _require_sendable(self) -> None:
        self._require_unreset()
        if self._state.sending.ended:
            raise StreamClosed(ErrorCode.NO_ERROR, by_peer=False)
