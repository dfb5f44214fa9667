"""Receives files from sessions into an inbox, several of several senders at a time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Final

import attrs

from stt_core.errors import FrameError, SessionClosed, StreamClosed
from stt_streaming.transfer.errors import TransferError
from stt_streaming.transfer.messages import (
    MAX_TEXT_SIZE,
    STREAM_LABEL,
    Answer,
    Digest,
    Offer,
    TransferStatus,
    cut,
)
from stt_streaming.transfer.streams import read_message, reason_of_reset
from stt_streaming.transfer.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from stt_core import STTSession, STTStream
    from stt_core.interfaces import Buffer
    from stt_streaming.transfer.inbox import Inbox, IncomingFile

WRITE_SIZE: Final = 1024 * 1024
"""Bytes that are gathered for one write, and twice that a file takes of memory besides the stream's credit."""

FILES_AT_ONCE: Final = 8
"""Files that one session may have on their way; a sender of this module has 4 at the most."""

FAREWELL_TIMEOUT: Final = 5.0
"""Seconds that a sender, whose files are all stored, has to end its session."""


@attrs.frozen(kw_only=True)
class ReceivedFile:
    """A file that is whole and under its name."""

    name: str
    """The name that it has in the folder."""

    size: int
    sha3_256: bytes
    peer_node_id: bytes
    seconds: float
    """From the offer to the storing."""


@attrs.define
class SessionProgress:
    """What one session has brought so far."""

    announced: int = 0
    """Files that the sender means to send, as its latest offer says; 0 before the first."""

    stored: int = 0
    failed: int = 0
    active: int = 0
    """Files on their way."""

    @property
    def complete(self) -> bool:
        """Whether all files that were announced are stored."""
        return 0 < self.announced == self.stored


class FileReceiver:
    """Receives files into one inbox.

    Args:
        inbox: Where the files go.
        stored: Told of each file once it is stored.
        failed: Told of each that is not: the sender's node id, the cleaned name or "" before it is known, and why.
        admits: Asked at each offer whether files of this session are taken now; unless given, all are.
    """

    def __init__(
        self,
        inbox: Inbox,
        *,
        stored: Callable[[ReceivedFile], None],
        failed: Callable[[bytes, str, Exception], None],
        admits: Callable[[STTSession], bool] = lambda _: True,
    ) -> None:
        self._inbox = inbox
        self._stored = stored
        self._failed = failed
        self._admits = admits

    async def serve(self, session: STTSession, progress: SessionProgress) -> None:
        """Receive the files of one session until it ends; ``progress`` tells meanwhile what came.

        A session whose files are all stored is closed if the sender does not do it: its word may be lost.
        """
        try:
            async with asyncio.timeout(None) as farewell, asyncio.TaskGroup() as group:
                while True:
                    try:
                        stream = await session.accept_stream()
                    except SessionClosed:
                        return
                    if stream.label == STREAM_LABEL:
                        group.create_task(self._serve_stream(session, stream, progress, farewell))
                    else:
                        stream.stop(TransferStatus.UNSUPPORTED.stream_code)
                        stream.reset(TransferStatus.UNSUPPORTED.stream_code)
        except TimeoutError:
            session.close()

    # Internals

    async def _serve_stream(
        self, session: STTSession, stream: STTStream, progress: SessionProgress, farewell: asyncio.Timeout
    ) -> None:
        name = ""
        progress.active += 1
        try:
            offer = Offer.decode(await read_message(stream))
            progress.announced = offer.count
            file = self._inbox.file(offer.name, offer.size)
            name = file.name
            self._check_admission(session, progress)
            received = await self._receive_file(session, stream, file)
        except (TransferError, FrameError, StreamClosed, SessionClosed) as error:
            progress.failed += 1
            await self._refuse(session, stream, name, error)
            return
        finally:
            progress.active -= 1
        progress.stored += 1
        if progress.complete:
            farewell.reschedule(asyncio.get_running_loop().time() + FAREWELL_TIMEOUT)
        self._stored(received)
        # The file stays, whether or not the sender can still be told.
        with contextlib.suppress(StreamClosed, SessionClosed):
            await stream.send(Answer(status=TransferStatus.STORED, sha3_256=received.sha3_256).encode())
            stream.end()

    def _check_admission(self, session: STTSession, progress: SessionProgress) -> None:
        if not self._admits(session):
            raise TransferError(TransferStatus.BUSY, "the receiver takes the files of another sender")
        if progress.active > FILES_AT_ONCE:
            raise TransferError(TransferStatus.BUSY, f"more than {FILES_AT_ONCE} files at a time")

    async def _receive_file(self, session: STTSession, stream: STTStream, file: IncomingFile) -> ReceivedFile:
        started_at = time.monotonic()
        try:
            await in_thread(file.open)
            await stream.send(Answer(status=TransferStatus.ACCEPTED).encode())
            await _write(stream, file)
            digest = Digest.decode(await read_message(stream))
            await in_thread(file.publish, digest.sha3_256)
        finally:
            await in_thread(file.discard)
        return ReceivedFile(
            name=file.name,
            size=file.size,
            sha3_256=digest.sha3_256,
            peer_node_id=session.peer_node_id,
            seconds=time.monotonic() - started_at,
        )

    async def _refuse(self, session: STTSession, stream: STTStream, name: str, error: Exception) -> None:
        """Tell both sides why a file is not received."""
        if isinstance(error, StreamClosed):
            error = TransferError(*reason_of_reset(error.code), by_peer=error.by_peer)
        self._failed(session.peer_node_id, name, error)
        status = error.status if isinstance(error, TransferError) else TransferStatus.MALFORMED
        with contextlib.suppress(StreamClosed, SessionClosed):
            stream.stop(status.stream_code)
            await stream.send(Answer(status=status, text=cut(str(error), MAX_TEXT_SIZE)).encode())
            stream.end()


async def _write(stream: STTStream, file: IncomingFile) -> None:
    """Write a file's bytes as they come, one batch while the next one gathers."""
    left = file.size
    writing = asyncio.create_task(in_thread(file.write, ()))
    try:
        while left:
            batch: list[Buffer] = []
            room = min(left, WRITE_SIZE)
            left -= room
            while room:
                data = await stream.receive(room)
                if not data:
                    raise TransferError(TransferStatus.MALFORMED, "the stream ended before the file did")
                batch.append(data)
                room -= len(data)
            await writing
            writing = asyncio.create_task(in_thread(file.write, batch))
        await writing
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
