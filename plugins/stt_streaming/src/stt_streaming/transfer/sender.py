"""Sends files and folders over a session: each on a stream of its own, reported once the receiver has stored it."""

from __future__ import annotations

import asyncio
import hmac
import time
from typing import TYPE_CHECKING, Final

import attrs

from stt_core.errors import FrameError, IncompleteRead, SessionClosed, StreamClosed
from stt_streaming.transfer.errors import TransferError
from stt_streaming.transfer.manifest import encode_manifest
from stt_streaming.transfer.messages import (
    STREAM_LABEL,
    Answer,
    Offer,
    PlanSize,
    TransferStatus,
    decode_plan_size,
)
from stt_streaming.transfer.plan import decode_plan
from stt_streaming.transfer.records import CHUNK_SIZE
from stt_streaming.transfer.source import LeftOut, SourceItem
from stt_streaming.transfer.streams import read_message, reason_of_reset, show_nothing
from stt_streaming.transfer.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from stt_core import STTSession, STTStream
    from stt_streaming.transfer.rate import RateLimit
    from stt_streaming.transfer.streams import Progress

UNCONFIRMED_LIMIT: Final = 5
"""Items that may be offered or wait for the receiver's word: hides round trips and the syncing of disks."""

ANSWER_TIMEOUT: Final = 30.0
"""Seconds until a peer that does not answer an offer is taken for one that receives no files."""

SLOWEST_RATE: Final = 16 * 1024
"""Bytes of a manifest for which a peer gets another second to answer."""


@attrs.frozen(kw_only=True)
class SentItem:
    """A file or folder that the receiver has stored and confirmed."""

    name: str
    is_folder: bool
    files: int
    """Files and links that were sent; 1 for a file."""

    size: int
    """Bytes of these."""

    resumed: int
    """Bytes of these that the receiver had from an earlier attempt."""

    sha3_256: bytes
    """The digest of a file; of a folder, that of the digests of its files in the order of the manifest."""

    left_out: tuple[LeftOut, ...]
    """What was found in the folder and is missing at the receiver."""

    seconds: float
    """From the offer to the confirmation."""

    @property
    def complete(self) -> bool:
        """Whether all that was meant to be sent was."""
        return all(left_out.by_choice for left_out in self.left_out)


class FileSender:
    """Sends files and folders over one session.

    Args:
        session: A session whose peer receives files.
        stored: Told of each item that the receiver has confirmed.
        failed: Told of each item that it has not, and why.
        progress: Shows the sending of one item, as :meth:`~stt_core.interfaces.command.CommandContext.progress` does.
        limit: How fast bytes may go; unless given, as fast as they can.
        keep_links: Whether symbolic links in folders are sent as such; else they are left out.
        resume: Whether the receiver goes on with what it has of an item, and keeps it when this is interrupted.
    """

    def __init__(
        self,
        session: STTSession,
        *,
        stored: Callable[[SentItem], None],
        failed: Callable[[Path, Exception], None],
        progress: Progress = show_nothing,
        limit: RateLimit | None = None,
        keep_links: bool = False,
        resume: bool = True,
    ) -> None:
        self._session = session
        self._stored = stored
        self._failed = failed
        self._progress = progress
        self._limit = limit
        self._keep_links = keep_links
        self._resume = resume

    async def send(self, paths: Sequence[Path]) -> bool:
        """Send files and folders, the bytes of one after those of another.

        An item that fails does not hinder the others, unless the session has ended.

        Returns:
            Whether all of them were confirmed, with all that is in them.
        """
        window = asyncio.Semaphore(UNCONFIRMED_LIMIT)
        async with asyncio.TaskGroup() as group:
            tasks = []
            turn = asyncio.Event()
            turn.set()
            for index, path in enumerate(paths):
                await window.acquire()
                sending = _Sending(path, index, len(paths), turn)
                task = group.create_task(self._send_one(sending))
                task.add_done_callback(lambda _: window.release())
                tasks.append(task)
                turn = sending.handed_over
        return all(task.result() for task in tasks)

    # Internals

    async def _send_one(self, sending: _Sending) -> bool:
        try:
            sent = await self._transfer(sending)
        except (TransferError, StreamClosed, SessionClosed) as error:
            self._failed(sending.path, error)
            return False
        finally:
            # Not before the turn has come: it is that of the next one then.
            await sending.turn.wait()
            sending.handed_over.set()
        self._stored(sent)
        return sent.complete

    async def _transfer(self, sending: _Sending) -> SentItem:
        started_at = time.monotonic()
        batch_size = CHUNK_SIZE if self._limit is None else min(CHUNK_SIZE, self._limit.burst_size)
        item = SourceItem(sending.path, keep_links=self._keep_links, batch_size=batch_size)
        try:
            await in_thread(item.scan)
            digest = await self._offer(sending, item)
        finally:
            await in_thread(item.close)
        if not hmac.compare_digest(item.digest(), digest):
            raise TransferError(TransferStatus.MISMATCH, "the receiver confirmed other bytes than were sent")
        return SentItem(
            name=item.name,
            is_folder=item.is_folder,
            files=item.sent_files,
            size=item.done,
            resumed=item.resumed,
            sha3_256=digest,
            left_out=tuple(item.left_out),
            seconds=time.monotonic() - started_at,
        )

    async def _offer(self, sending: _Sending, item: SourceItem) -> bytes:
        """Send one item over a stream of its own; return the digest that the receiver confirms."""
        manifest = await in_thread(encode_manifest, item.entries)
        stream = await self._session.open_stream(label=STREAM_LABEL)
        accepted = asyncio.get_running_loop().create_future()
        bytes_going = asyncio.create_task(self._send_bytes(stream, sending, item, manifest, accepted))
        timeout = ANSWER_TIMEOUT + len(manifest) / SLOWEST_RATE
        answering = asyncio.create_task(_wait_stored(stream, item, accepted, timeout))
        try:
            await asyncio.wait((bytes_going, answering), return_when=asyncio.FIRST_EXCEPTION)
            _raise_first_error(answering, bytes_going)
        except BaseException as error:
            status = error.status if isinstance(error, TransferError) else TransferStatus.CANCELLED
            stream.reset(status.stream_code)
            raise
        finally:
            bytes_going.cancel()
            answering.cancel()
            await asyncio.gather(bytes_going, answering, return_exceptions=True)
        return answering.result()

    async def _send_bytes(
        self, stream: STTStream, sending: _Sending, item: SourceItem, manifest: bytes, accepted: asyncio.Future[bytes]
    ) -> bytes:
        try:
            offer = Offer(
                entries=len(item.entries),
                manifest_size=len(manifest),
                size=item.size,
                disk_size=item.disk_size,
                item_id=item.item_id if self._resume else b"",
                index=sending.index,
                count=sending.count,
            )
            await stream.send(offer.encode() + manifest)
            stored = await accepted
            await sending.turn.wait()
            if not (stored and await self._is_the_same(item, stored)):
                with self._progress(item.name, item.size) as advance:
                    await self._send_records(stream, item, advance)
            stream.end()
        except StreamClosed:
            # The receiver wants no more of it: its answer, which is still to come, says why.
            pass
        finally:
            if sending.turn.is_set():
                sending.handed_over.set()
        return b""

    async def _is_the_same(self, item: SourceItem, sha3_256: bytes) -> bool:
        """Read an item that the receiver says it has stored before, and say whether it is the same."""
        with self._progress(item.name, item.size) as advance:
            shown = 0
            while await in_thread(item.read) is not None:
                advance(item.done - shown)
                shown = item.done
        if hmac.compare_digest(item.digest(), sha3_256):
            item.resumed = item.done
            return True
        item.rewind()
        return False

    async def _send_records(self, stream: STTStream, item: SourceItem, advance: Callable[[int], None]) -> None:
        shown = 0
        reading = asyncio.create_task(in_thread(item.read))
        try:
            while (pieces := await reading) is not None:
                done = item.done
                reading = asyncio.create_task(in_thread(item.read))
                if self._limit is not None:
                    await self._limit.take(sum(map(len, pieces)))
                for piece in pieces:
                    await stream.send(piece)
                advance(done - shown)
                shown = done
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


@attrs.frozen
class _Sending:
    """The place of one item among those that one call sends."""

    path: Path
    index: int
    count: int
    turn: asyncio.Event
    """Set when the bytes of the items before have gone."""

    handed_over: asyncio.Event = attrs.field(factory=asyncio.Event)
    """Set when its own have, or never will."""


def _raise_first_error(*tasks: asyncio.Task[bytes]) -> None:
    for task in tasks:
        if task.done() and (error := task.exception()):
            raise error


async def _wait_stored(stream: STTStream, item: SourceItem, accepted: asyncio.Future[bytes], timeout: float) -> bytes:
    """Take the plan of the receiver, then return the digest that it confirms."""
    try:
        async with asyncio.timeout(timeout):
            answer = Answer.decode(await read_message(stream))
        if answer.status is TransferStatus.ACCEPTED:
            reply = decode_plan_size(await read_message(stream))
            if isinstance(reply, PlanSize):
                item.follow(decode_plan(await stream.receive_exactly(reply.size), item.entries))
                accepted.set_result(reply.sha3_256)
                reply = Answer.decode(await read_message(stream))
            answer = reply
        elif answer.status is TransferStatus.STORED:
            raise TransferError(TransferStatus.MALFORMED, "the peer confirmed the file before it came")
    except TimeoutError:
        raise TransferError(
            TransferStatus.CANCELLED, "the peer does not answer the offer: it seems to receive no files"
        ) from None
    except (FrameError, IncompleteRead) as error:
        raise TransferError(
            TransferStatus.MALFORMED, f"the peer answers otherwise than a receiver of files would: {error}"
        ) from error
    except StreamClosed as error:
        raise TransferError(*reason_of_reset(error.code), by_peer=error.by_peer) from error
    if answer.status is not TransferStatus.STORED:
        raise TransferError(answer.status, answer.text or answer.status.name.lower().replace("_", " "), by_peer=True)
    return answer.sha3_256
