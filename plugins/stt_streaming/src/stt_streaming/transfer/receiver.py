"""Receives files and folders from sessions into an inbox, several of several senders at a time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Final

import attrs

from stt_core.errors import FrameError, IncompleteRead, SessionClosed, StreamClosed
from stt_streaming.transfer.errors import TransferError
from stt_streaming.transfer.incoming import IncomingItem
from stt_streaming.transfer.manifest import decode_manifest
from stt_streaming.transfer.messages import (
    MAX_ENTRIES,
    MAX_MANIFEST_SIZE,
    MAX_TEXT_SIZE,
    STREAM_LABEL,
    Answer,
    Offer,
    PlanSize,
    TransferStatus,
    cut,
)
from stt_streaming.transfer.plan import encode_plan
from stt_streaming.transfer.streams import read_message, reason_of_reset, show_nothing
from stt_streaming.transfer.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from stt_core import STTSession, STTStream
    from stt_core.interfaces import Buffer
    from stt_streaming.transfer.inbox import Inbox
    from stt_streaming.transfer.streams import Progress

WRITE_SIZE: Final = 1024 * 1024
"""Bytes that are gathered for one write, and twice that an item takes of memory besides the stream's credit."""

WRITE_INTERVAL: Final = 0.5
"""Seconds after which fewer bytes are written as well, so that little is lost when this process is killed."""

ITEMS_AT_ONCE: Final = 6
"""Items that one session may have on their way; a sender of this module has 5 at the most."""

FAREWELL_TIMEOUT: Final = 5.0
"""Seconds that a sender, whose items are all stored, has to end its session."""

_FORGETTABLE: Final = frozenset(
    (TransferStatus.MALFORMED, TransferStatus.MISMATCH, TransferStatus.NO_SPACE, TransferStatus.NOT_WRITABLE)
)  # after these, what has come is worth nothing, or in the way


@attrs.frozen(kw_only=True)
class ReceivedItem:
    """A file or folder that is whole and under its name."""

    name: str
    """The name that it has in the inbox."""

    is_folder: bool
    files: int
    """Files and links in it that came; 1 for a file."""

    size: int
    """Bytes of these."""

    resumed: int
    """Bytes of these that were there from an earlier attempt."""

    sha3_256: bytes
    """The digest of a file; of a folder, that of the digests of its files in the order of the manifest."""

    left_out: tuple[str, ...]
    """Paths of what is missing in it, since the sender could not read it or a link leads out of it."""

    peer_node_id: bytes
    seconds: float
    """From the offer to the storing."""


@attrs.define
class SessionProgress:
    """What one session has brought so far."""

    announced: int = 0
    """Items that the sender means to send, as its latest offer says; 0 before the first."""

    stored: int = 0
    failed: int = 0
    active: int = 0
    """Items on their way."""

    incomplete: int = 0
    """Stored folders in which something is missing."""

    @property
    def complete(self) -> bool:
        """Whether all items that were announced are stored."""
        return 0 < self.announced == self.stored


@attrs.frozen
class _Active:
    """An item on its way that can be resumed."""

    session: STTSession
    ended: asyncio.Event = attrs.field(factory=asyncio.Event)


class FileReceiver:
    """Receives files and folders into one inbox.

    Args:
        inbox: Where they go.
        stored: Told of each item once it is stored.
        failed: Told of each that is not: the sender's node id, the cleaned name or "" before it is known, and why.
        admits: Asked at each offer whether items of this session are taken now; unless given, all are.
        progress: Shows how one item comes, as :meth:`~stt_core.interfaces.command.CommandContext.progress` does.
        keep_links: Whether symbolic links that lead nowhere out of their folder are made; else they are left out.
        wants: Asked for each file and link whether it is wanted, by its path in the inbox; unless given, all are.
    """

    def __init__(
        self,
        inbox: Inbox,
        *,
        stored: Callable[[ReceivedItem], None],
        failed: Callable[[bytes, str, Exception], None],
        admits: Callable[[STTSession], bool] = lambda _: True,
        progress: Progress = show_nothing,
        keep_links: bool = False,
        wants: Callable[[str], bool] | None = None,
    ) -> None:
        self._inbox = inbox
        self._stored = stored
        self._failed = failed
        self._admits = admits
        self._progress = progress
        self._keep_links = keep_links
        self._wants = wants
        self._active: dict[bytes, _Active] = {}
        # What all senders together may have listed: a manifest takes more memory than a file.
        self._entries_left = MAX_ENTRIES
        self._manifest_left = MAX_MANIFEST_SIZE

    async def serve(self, session: STTSession, progress: SessionProgress) -> None:
        """Receive the items of one session until it ends; ``progress`` tells meanwhile what came.

        A session whose items are all stored is closed if the sender does not do it: its word may be lost.
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
            if progress.active > ITEMS_AT_ONCE:
                raise TransferError(TransferStatus.BUSY, f"more than {ITEMS_AT_ONCE} items at a time")  # noqa: TRY301  refused below, as any
            with self._listed(offer):
                item = await self._read_manifest(session, stream, offer)
                name = item.name
                received = await self._receive(session, stream, offer, item)
        except (TransferError, FrameError, StreamClosed, SessionClosed) as error:
            progress.failed += 1
            await self._refuse(session, stream, name, error)
            return
        finally:
            progress.active -= 1
        progress.stored += 1
        progress.incomplete += bool(received.left_out)
        if progress.complete:
            farewell.reschedule(asyncio.get_running_loop().time() + FAREWELL_TIMEOUT)
        self._stored(received)
        # The item stays, whether or not the sender can still be told.
        with contextlib.suppress(StreamClosed, SessionClosed):
            await stream.send(Answer(status=TransferStatus.STORED, sha3_256=received.sha3_256).encode())
            stream.end()

    async def _receive(self, session: STTSession, stream: STTStream, offer: Offer, item: IncomingItem) -> ReceivedItem:
        started_at = time.monotonic()
        async with self._alone(session, offer.item_id):
            if not self._admits(session):
                raise TransferError(TransferStatus.BUSY, "the receiver takes the files of another sender")
            digest = await self._receive_item(stream, item)
        return ReceivedItem(
            name=item.name,
            is_folder=item.is_folder,
            files=item.stored_files,
            size=item.done,
            resumed=item.resumed,
            sha3_256=digest,
            left_out=tuple(item.left_out),
            peer_node_id=session.peer_node_id,
            seconds=time.monotonic() - started_at,
        )

    @contextlib.contextmanager
    def _listed(self, offer: Offer) -> Iterator[None]:
        """Hold the room that a manifest takes, together with those of other items."""
        if offer.entries > self._entries_left or offer.manifest_size > self._manifest_left:
            raise TransferError(TransferStatus.BUSY, f"no room for a list of {offer.entries} files at present")
        self._entries_left -= offer.entries
        self._manifest_left -= offer.manifest_size
        try:
            yield
        finally:
            self._entries_left += offer.entries
            self._manifest_left += offer.manifest_size

    async def _read_manifest(self, session: STTSession, stream: STTStream, offer: Offer) -> IncomingItem:
        try:
            manifest = await stream.receive_exactly(offer.manifest_size)
        except IncompleteRead:
            raise FrameError("the stream ended in the manifest") from None
        entries = await in_thread(decode_manifest, manifest, offer.entries, offer.size)
        return await in_thread(
            IncomingItem,
            self._inbox,
            entries,
            peer_node_id=session.peer_node_id,
            item_id=offer.item_id,
            disk_size=offer.disk_size,
            keep_links=self._keep_links,
            wants=self._wants,
        )

    @contextlib.asynccontextmanager
    async def _alone(self, session: STTSession, item_id: bytes) -> AsyncIterator[None]:
        """Take an item over from an earlier session of the same sender, which so has proven to be lost."""
        if not item_id:
            yield
            return
        key = session.peer_node_id + item_id
        while (earlier := self._active.get(key)) is not None:
            if earlier.session is session:
                raise TransferError(TransferStatus.BUSY, "it is on its way already")
            earlier.session.close(TransferStatus.CANCELLED.stream_code, "the same file was offered by a newer session")
            await earlier.ended.wait()
        active = self._active[key] = _Active(session)
        try:
            yield
        finally:
            del self._active[key]
            active.ended.set()

    async def _receive_item(self, stream: STTStream, item: IncomingItem) -> bytes:
        keep = True
        try:
            stored = await in_thread(item.recall)
            if not stored:
                await in_thread(item.prepare)
            await stream.send(Answer(status=TransferStatus.ACCEPTED).encode())
            while not stored and await in_thread(item.compare):
                pass
            plan = await in_thread(encode_plan, item.plan)
            await stream.send(PlanSize(len(plan), stored).encode() + plan)
            if stored:
                first = await stream.receive(WRITE_SIZE)
                if not first:
                    await in_thread(item.settle)
                    return stored
                # The sender's has other bytes, although its sizes and times are the same.
                await in_thread(item.prepare)
                await in_thread(item.write, (first,))
            with self._progress(item.name, item.size) as advance:
                await _write(stream, item, advance)
            return await in_thread(item.publish)
        except (TransferError, FrameError) as error:
            # What an earlier attempt has left is not to blame for one that was refused before anything came.
            keep = not item.done or (isinstance(error, TransferError) and error.status not in _FORGETTABLE)
            raise
        finally:
            await in_thread(item.close, keep=keep)

    async def _refuse(self, session: STTSession, stream: STTStream, name: str, error: Exception) -> None:
        """Tell both sides why an item is not received."""
        if isinstance(error, StreamClosed):
            error = TransferError(*reason_of_reset(error.code), by_peer=error.by_peer)
        self._failed(session.peer_node_id, name, error)
        status = error.status if isinstance(error, TransferError) else TransferStatus.MALFORMED
        with contextlib.suppress(StreamClosed, SessionClosed):
            stream.stop(status.stream_code)
            await stream.send(Answer(status=status, text=cut(str(error), MAX_TEXT_SIZE)).encode())
            stream.end()


async def _write(stream: STTStream, item: IncomingItem, advance: Callable[[int], None]) -> None:
    """Write an item's bytes as they come, one batch while the next one gathers; also those before a break."""
    shown = 0
    writing = asyncio.create_task(in_thread(item.write, ()))
    broken: StreamClosed | SessionClosed | None = None
    at_end = False
    clock = asyncio.get_running_loop().time
    try:
        while not at_end:
            batch: list[Buffer] = []
            room = WRITE_SIZE
            written_at = clock()
            while room and not at_end and (not batch or clock() < written_at + WRITE_INTERVAL):
                try:
                    data = await stream.receive(room)
                except (StreamClosed, SessionClosed) as error:
                    broken = error
                    data = b""
                if data:
                    batch.append(data)
                    room -= len(data)
                else:
                    at_end = True
            await writing
            advance(item.done - shown)
            shown = item.done
            writing = asyncio.create_task(in_thread(item.write, batch))
        await writing
        advance(item.done - shown)
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
    if broken is not None:
        raise broken
