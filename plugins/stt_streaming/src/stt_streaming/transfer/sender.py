"""Sends files over a session: each on a stream of its own, reported only once the receiver has stored it."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import time
from typing import TYPE_CHECKING, Final

import attrs

from stt_core.errors import FrameError, SessionClosed, StreamClosed
from stt_streaming.transfer.errors import TransferError
from stt_streaming.transfer.messages import STREAM_LABEL, Answer, Digest, Offer, TransferStatus
from stt_streaming.transfer.source import SourceFile
from stt_streaming.transfer.streams import read_message, reason_of_reset
from stt_streaming.transfer.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from stt_core import STTSession, STTStream

READ_SIZE: Final = 1024 * 1024
"""Bytes of one read: the switch to a thread, some 100 us, is then little beside the hashing, some 2 ms."""

UNCONFIRMED_LIMIT: Final = 4
"""Files that may wait for the receiver's word, while the next is sent: hides round trips and the syncing of disks."""

ANSWER_TIMEOUT: Final = 30.0
"""Seconds until a peer that does not answer an offer is taken for one that receives no files."""


@attrs.frozen(kw_only=True)
class SentFile:
    """A file that the receiver has stored and confirmed."""

    name: str
    size: int
    sha3_256: bytes
    seconds: float
    """From the offer to the confirmation."""


class FileSender:
    """Sends files over one session.

    Args:
        session: A session whose peer receives files.
        stored: Told of each file that the receiver has confirmed.
        failed: Told of each file that it has not, and why.
        progress: Shows the sending of one file, as :meth:`~stt_core.interfaces.command.CommandContext.progress` does.
    """

    def __init__(
        self,
        session: STTSession,
        *,
        stored: Callable[[SentFile], None],
        failed: Callable[[Path, Exception], None],
        progress: Callable[[str, int], AbstractContextManager[Callable[[int], None]]] | None = None,
    ) -> None:
        self._session = session
        self._stored = stored
        self._failed = failed
        self._progress = progress or _show_nothing

    async def send(self, paths: Sequence[Path]) -> bool:
        """Send files, the bytes of one after those of another.

        A file that fails does not hinder the others, unless the session has ended.

        Returns:
            Whether all of them were confirmed.
        """
        window = asyncio.Semaphore(UNCONFIRMED_LIMIT)
        async with asyncio.TaskGroup() as group:
            tasks = []
            for index, path in enumerate(paths):
                await window.acquire()
                handed_over = asyncio.Event()
                task = group.create_task(self._send_one(path, index, len(paths), handed_over))
                task.add_done_callback(lambda _: window.release())
                tasks.append(task)
                await handed_over.wait()
        return all(task.result() for task in tasks)

    # Internals

    async def _send_one(self, path: Path, index: int, count: int, handed_over: asyncio.Event) -> bool:
        try:
            sent = await self._transfer(SourceFile(path), index, count, handed_over)
        except (TransferError, StreamClosed, SessionClosed) as error:
            self._failed(path, error)
            return False
        finally:
            handed_over.set()
        self._stored(sent)
        return True

    async def _transfer(self, source: SourceFile, index: int, count: int, handed_over: asyncio.Event) -> SentFile:
        started_at = time.monotonic()
        try:
            await in_thread(source.open)
            offer = Offer(name=source.name, size=source.size, index=index, count=count)
            stream = await self._session.open_stream(label=STREAM_LABEL)
            sending = asyncio.create_task(self._send_bytes(stream, offer, source, handed_over))
            answering = asyncio.create_task(_wait_stored(stream))
            try:
                await asyncio.wait((sending, answering), return_when=asyncio.FIRST_EXCEPTION)
                _raise_first_error(answering, sending)
            except BaseException as error:
                status = error.status if isinstance(error, TransferError) else TransferStatus.CANCELLED
                stream.reset(status.stream_code)
                raise
            finally:
                sending.cancel()
                answering.cancel()
                await asyncio.gather(sending, answering, return_exceptions=True)
        finally:
            source.close()
        if not hmac.compare_digest(sending.result(), answering.result()):
            raise TransferError(TransferStatus.MISMATCH, "the receiver confirmed other bytes than were sent")
        return SentFile(
            name=source.name, size=source.size, sha3_256=answering.result(), seconds=time.monotonic() - started_at
        )

    async def _send_bytes(
        self, stream: STTStream, offer: Offer, source: SourceFile, handed_over: asyncio.Event
    ) -> bytes:
        reading = asyncio.create_task(in_thread(source.read, READ_SIZE))
        try:
            await stream.send(offer.encode())
            with self._progress(offer.name, offer.size) as advance:
                while data := await reading:
                    reading = asyncio.create_task(in_thread(source.read, READ_SIZE))
                    await stream.send(data)
                    advance(len(data))
            digest = await in_thread(source.digest)
            await stream.send(Digest(digest).encode())
            stream.end()
        except StreamClosed:
            # The receiver wants no more of it: its answer, which is still to come, says why.
            return b""
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            handed_over.set()
        return digest


@contextlib.contextmanager
def _show_nothing(_name: str, _size: int) -> Iterator[Callable[[int], None]]:
    yield lambda _: None


def _raise_first_error(*tasks: asyncio.Task[bytes]) -> None:
    for task in tasks:
        if task.done() and (error := task.exception()):
            raise error


async def _wait_stored(stream: STTStream) -> bytes:
    """Return the SHA3-256 that the receiver confirms."""
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT):
            answer = Answer.decode(await read_message(stream))
        if answer.status is TransferStatus.ACCEPTED:
            answer = Answer.decode(await read_message(stream))
    except TimeoutError:
        raise TransferError(
            TransferStatus.CANCELLED, "the peer does not answer the offer: it seems to receive no files"
        ) from None
    except FrameError as error:
        raise TransferError(
            TransferStatus.MALFORMED, f"the peer answers otherwise than a receiver of files would: {error}"
        ) from error
    except StreamClosed as error:
        raise TransferError(*reason_of_reset(error.code), by_peer=error.by_peer) from error
    if answer.status is not TransferStatus.STORED:
        raise TransferError(answer.status, answer.text or answer.status.name.lower().replace("_", " "), by_peer=True)
    return answer.sha3_256
