"""How the state of a chamber changes: one state after the other, whoever else changes it at the same time.

Each change is one compare-and-swap of the root, so it is there whole or not at all, on any backend. Changes that are
asked for at the same time share one. A change that lost against another process is made anew from the new state.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, Any, Final, TypeVar

import attrs

from stt_chamber.entries import Entry, Run, decode_run, encode_run, weight
from stt_chamber.errors import Conflict, DamagedError, NoChamber, QuotaExceeded, RollbackDetected
from stt_chamber.header import Header
from stt_chamber.index import Pages, View, merge_segments, read_directory
from stt_chamber.objects import ObjectStore
from stt_chamber.root import DIGEST_SIZE, Position, Root, UnknownEpoch, digest_of
from stt_chamber.snapshots import is_being_read
from stt_chamber.tasks import run_together
from stt_core.errors import StorageError, STTError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from stt_chamber.entries import Reference
    from stt_chamber.header import UnlockedHeader
    from stt_chamber.keys import Secret
    from stt_chamber.root import Mark
    from stt_core.interfaces import StorageProvider, Version

MAX_TAIL_SIZE: Final = 16 * 1024
"""Bytes of changes that the root holds itself."""

MAX_SEGMENTS: Final = 128
"""Segments after which they are merged into the pages: more are more memory, fewer write each page more often."""

MAX_SEGMENTS_SIZE: Final = 4 << 20
"""Bytes of segments after which they are merged, however few they are: those of large batches are large."""

MAX_HELD: Final = 10_000
"""Objects that wait to be removed while somebody reads an earlier state; more become orphans."""

_READ_TOGETHER: Final = 16  # segments
_TRIES: Final = 16  # to read a state before others replace it

_LONGEST_PAUSE: Final = 0.25  # seconds between two tries to win against other processes

T = TypeVar("T")


@attrs.frozen
class Names:
    """The keys in the store of what a chamber has once."""

    namespace: bytes

    @property
    def header(self) -> bytes:
        """The header."""
        return self.namespace + b"h"

    @property
    def header_copy(self) -> bytes:
        """A copy of the header, for the repair."""
        return self.namespace + b"H"

    @property
    def root(self) -> bytes:
        """The root."""
        return self.namespace + b"r"

    @property
    def root_copy(self) -> bytes:
        """A recent root, for the repair."""
        return self.namespace + b"R"

    @property
    def objects(self) -> bytes:
        """What the keys of all chunks begin with."""
        return self.namespace + b"o"

    @property
    def snapshots(self) -> bytes:
        """What the keys of the records of those begin with who read one state."""
        return self.namespace + b"s"

    @property
    def collections(self) -> bytes:
        """What the keys of the records of those begin with who remove orphans."""
        return self.namespace + b"c"

    @property
    def arrivals(self) -> bytes:
        """What the keys of the records of those begin with who bring chunks from a replica."""
        return self.namespace + b"a"


class Collected(Conflict):
    """A value that is being written may have been taken for an orphan."""


class Draft:
    """The state that is to come next, while it is made; a draft of a draft is merged into it, or forgotten.

    Args:
        base: What it begins with.
        now: Milliseconds since 1970.
    """

    def __init__(self, base: View | Draft, now: int) -> None:
        self._base = base
        self.now = now
        self.root: Root = base.root
        before = base if isinstance(base, Draft) else base.root
        self.revision: int = before.revision
        self.count: int = before.count
        self.size: int = before.size
        self.quota: int | None = before.quota
        self.fence: int = before.fence
        self.generation: int = before.generation
        self.marks: tuple[Mark, ...] = before.marks
        self.sequence: int = before.sequence
        """That of the state before, or more where the next one is to have a higher number than it would get."""
        self.changes: Run = {}
        self.released: list[Reference] = []

    @property
    def is_changed(self) -> bool:
        """Whether there is anything to write."""
        root = self.root
        before = (root.quota, root.fence, root.generation, root.marks, root.sequence)
        return bool(self.changes) or before != (self.quota, self.fence, self.generation, self.marks, self.sequence)

    async def find_any(self, key: bytes) -> Entry | None:
        """Return the entry of a key, expired or not."""
        data = self.changes.get(key)
        if data is not None:
            return Entry.decode(data) if data else None
        return await (self._base.find_any(key) if isinstance(self._base, Draft) else self._base.find(key))

    async def find(self, key: bytes) -> Entry | None:
        """Return the entry of a key unless it has expired."""
        entry = await self.find_any(key)
        return None if entry is None or entry.is_expired(self.now) else entry

    async def put(self, key: bytes, entry: Entry) -> int:
        """Set the entry of a key; return its revision, whatever the given one is.

        Raises:
            QuotaExceeded: There would be too many bytes, and more than before.
        """
        old = await self.find_any(key)
        grown = entry.size - (old.size if old else 0)
        if self.quota is not None and grown > 0 and self.size + grown > self.quota:
            raise QuotaExceeded(f"{self.size + grown} bytes, but the chamber may hold {self.quota}")
        self.revision += 1
        self.count += old is None
        self.size += grown
        self._release(old, entry)
        self.changes[key] = attrs.evolve(entry, revision=self.revision).encode()
        return self.revision

    async def delete(self, key: bytes) -> bool:
        """Remove the entry of a key; return whether there was one that had not expired."""
        old = await self.find_any(key)
        if old is None:
            return False
        self.revision += 1
        self.count -= 1
        self.size -= old.size
        self._release(old, None)
        self.changes[key] = b""
        return not old.is_expired(self.now)

    async def move(self, key: bytes, revision: int, content: Reference) -> bool:
        """Let an entry refer to another object with the same bytes; return whether it still had that revision."""
        old = await self.find_any(key)
        if old is None or old.revision != revision:
            return False
        entry = attrs.evolve(old, content=content)
        self._release(old, entry)
        self.changes[key] = entry.encode()
        return True

    def require_kept(self, started_at: int) -> None:
        """Refuse an object that a collection of orphans may have taken for one.

        Raises:
            Collected: There was a collection since the state ``started_at``, after which the object was begun.
        """
        if self.root.fence > started_at:
            raise Collected("the chamber was cleaned up while the value was written: write it again")

    def merge(self, draft: Draft) -> None:
        """Take over a draft that was begun with this one."""
        self.revision, self.count, self.size = draft.revision, draft.count, draft.size
        self.quota, self.fence, self.generation = draft.quota, draft.fence, draft.generation
        self.marks, self.sequence = draft.marks, draft.sequence
        self.changes.update(draft.changes)
        self.released += draft.released

    def _release(self, old: Entry | None, new: Entry | None) -> None:
        reference = old.reference if old else None
        if reference is not None and (new is None or new.reference != reference):
            self.released.append(reference)


@attrs.frozen
class _Request:
    operation: Callable[[Draft], Awaitable[Any]]
    answer: asyncio.Future[Any]
    """Done already where whoever asked was cancelled."""

    def accept(self, result: object) -> None:
        if not self.answer.done():
            self.answer.set_result(result)

    def refuse(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class Ledger:
    """The state of a chamber as this process last saw it, and the only way to change it.

    Args:
        storage: Where the chamber is.
        names: Its keys there.
        secrets: What opens it, also after its header has changed.
        unlocked: The header, opened.
        clock: Returns milliseconds since 1970.
        expected: A state that was seen before; an earlier one is refused.
    """

    def __init__(
        self,
        storage: StorageProvider,
        names: Names,
        secrets: Sequence[Secret],
        unlocked: UnlockedHeader,
        clock: Callable[[], int],
        expected: Position | None = None,
    ) -> None:
        self.storage = storage
        self.names = names
        self.clock = clock
        self.unlocked = unlocked
        self.objects = ObjectStore(storage, names.objects, unlocked.keyring)
        self.pages = Pages(self.objects)
        self._secrets = secrets
        self._view: View | None = None
        self._position = expected or Position(unlocked.header.chamber_id, 0, bytes(DIGEST_SIZE))
        self._version: Version = 0
        self._segment_runs: dict[bytes, Run] = {}
        # Held while the root is read or written, so that what is remembered of it never goes back.
        self._root_lock = asyncio.Lock()
        self._requests: list[_Request] = []
        self._worker: asyncio.Task[None] | None = None
        self._pins: dict[bytes, int] = {}
        self._doomed: dict[bytes, Reference] = {}
        # Objects that are not needed any more, but for an earlier state that somebody else may be reading.
        self._held: list[Reference] = []
        self._loads = 0  # of the root
        self._unread_at = -1  # how many there were when nobody read an earlier state

    @property
    def position(self) -> Position:
        """The state that was last seen."""
        return self._position

    @property
    def secrets(self) -> Sequence[Secret]:
        """What opens the header."""
        return self._secrets

    async def refresh(self) -> View:
        """Return the newest state.

        Raises:
            RollbackDetected: The store shows an earlier one than before.
            DamagedError: The root, or what it needs, is missing or was changed.
            StorageError: The store failed.
        """
        version = await self.storage.version(self.names.root)
        if self._view is not None and version == self._version:
            return self._view
        async with self._root_lock:
            return await self._load()

    async def consistently(self, read: Callable[[View], Awaitable[T]]) -> T:
        """Return what ``read`` returns of the newest state; again if that was replaced while it was read.

        Raises:
            Conflict: It was replaced again and again.
            DamagedError: What it needs is missing, though the state is still the newest.
            StorageError: The store failed.
        """
        for _ in range(_TRIES):
            view = await self.refresh()
            try:
                return await read(view)
            except DamagedError:
                if await self.refresh() is view:
                    raise
        raise Conflict("others change the chamber faster than it can be read: try again")

    async def change(self, operation: Callable[[Draft], Awaitable[T]]) -> T:
        """Make the next state; return what the operation returns, once the state is stored.

        When cancelled, the change is made or not.

        Args:
            operation: Called with the draft, again whenever another process came first. What it raises is raised here,
                and nothing is changed.

        Raises:
            StorageError: The store failed; the change may have been made.
        """
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._requests.append(_Request(operation, answer))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await answer

    async def wait_idle(self) -> None:
        """Wait until all changes are made and what they left is cleaned up."""
        while self._worker is not None and not self._worker.done():
            await asyncio.wait({self._worker})

    def pin(self, reference: Reference) -> None:
        """Keep an object that is being read, should its entry be replaced here meanwhile."""
        self._pins[reference.object_id] = self._pins.get(reference.object_id, 0) + 1

    async def unpin(self, reference: Reference) -> None:
        """Let go of an object."""
        self._pins[reference.object_id] -= 1
        if not self._pins[reference.object_id]:
            del self._pins[reference.object_id]
            if reference.object_id in self._doomed:
                with contextlib.suppress(STTError):
                    await self.refresh()  # a synchronisation may have brought it back
                    if reference.object_id not in self._pins and reference.object_id in self._doomed:
                        await self._remove([self._doomed.pop(reference.object_id)])

    def doomed(self) -> Sequence[Reference]:
        """Return the objects that nothing refers to any more, but that are still read here."""
        return tuple(self._doomed.values())

    async def is_being_read(self) -> bool:
        """Return whether somebody reads an earlier state, so that nothing may be removed which that may need.

        Raises:
            StorageError: The store failed.
        """
        return await is_being_read(self.storage, self.names, self.clock())

    async def reload_header(self) -> None:
        """Read the header anew.

        Raises:
            WrongSecret: The secrets do not open it any more.
            RollbackDetected: It is older than the one before.
            DamagedError: It is missing or was changed.
        """
        data = await self.storage.retrieve(self.names.header)
        if data is None:
            raise NoChamber("the header of the chamber is gone")
        header = Header.decode(data)
        if header.chamber_id != self._position.chamber_id:
            raise RollbackDetected("the store has another chamber in the place of this one")
        if header.generation < self.unlocked.header.generation:
            raise RollbackDetected("the store shows an older header of the chamber than before")
        self.unlocked = await asyncio.to_thread(header.unlock, self._secrets)
        self.objects.keyring = self.unlocked.keyring

    async def change_header(
        self,
        make: Callable[[UnlockedHeader], bytes],
        *,
        secrets: Sequence[Secret] | None = None,
        fenced: bool = False,
    ) -> None:
        """Replace the header, and let the root say so, so that the one before cannot be put back.

        Args:
            make: Returns the new header's bytes; called in a thread, again if another process came first.
            secrets: What opens the new one, if it is not what opened the one before.
            fenced: Refuse values whose writing began before.

        Raises:
            StorageError: The store failed; the header may have been replaced.
        """
        while True:
            version = await self.storage.version(self.names.header)
            await self.reload_header()
            data = await asyncio.to_thread(make, self.unlocked)
            if await self.storage.store_if(self.names.header, data, version) is not None:
                break
        if secrets is not None:
            self._secrets = secrets
        await self.reload_header()
        await self.announce_header(fenced=fenced)
        await self.copy_header()

    async def announce_header(self, *, fenced: bool) -> None:
        """Let the root say which header is the newest.

        Args:
            fenced: Refuse values whose writing began before.
        """

        async def operation(draft: Draft) -> None:
            draft.generation = self.unlocked.header.generation
            if fenced:
                draft.fence = draft.root.sequence + 1

        await self.change(operation)

    async def merge(self, *, oldest_epoch: int = 0) -> None:
        """Merge all segments into the pages; does nothing if another process does it at the same time.

        Args:
            oldest_epoch: Pages under older data keys are written anew, too.

        Raises:
            DamagedError: A page is missing or was changed.
            StorageError: The store failed.
        """
        begun = await self.refresh()
        keyring = self.unlocked.keyring
        rewritten = await merge_segments(begun, self.objects, self.pages, oldest_epoch=oldest_epoch)
        covered = begun.root.segments
        while True:
            view = await self.refresh()
            root = view.root
            if (
                root.directories != begun.root.directories
                or root.segments[: len(covered)] != covered
                or root.fence != begun.root.fence
                or self.unlocked.keyring is not keyring
            ):
                await self.objects.remove(rewritten.added)
                return
            merged = attrs.evolve(root, directories=rewritten.directories, segments=root.segments[len(covered) :])
            if await self.store_root(view, merged):
                break
        for segment in covered:
            self._segment_runs.pop(segment.object_id, None)
        await self.copy_root()
        await self._remove(rewritten.replaced)

    async def store_root(self, view: View, root: Root) -> bool:
        """Store the state that follows on ``view``; return whether no other came first.

        Args:
            view: The newest state, as it is known.
            root: The next one; its link to the one before is set here, and its sequence is raised above that of both.

        Raises:
            StorageError: The store failed; the state may have been stored.
        """
        async with self._root_lock:
            if self._view is not view:
                return False
            sequence = max(view.root.sequence, root.sequence) + 1
            root = attrs.evolve(root, sequence=sequence, previous=self._position.digest)
            new_view = await self._view_of(root)
            data = root.seal(self.unlocked.keyring)
            version = await self.storage.store_if(self.names.root, data, self._version)
            if version is None:
                return False
            self._remember(new_view, version, data)
            return True

    async def copy_root(self) -> None:
        """Keep the newest root a second time, for the repair."""
        await copy_record(self.storage, self.names.root, self.names.root_copy)

    async def copy_header(self) -> None:
        """Keep the newest header a second time, for the repair."""
        await copy_record(self.storage, self.names.header, self.names.header_copy)

    # Internals

    async def _load(self) -> View:
        while True:
            version = await self.storage.version(self.names.root)
            if self._view is not None and version == self._version:
                return self._view
            data = await self.storage.retrieve(self.names.root)
            if data is None:
                raise DamagedError("the root of the chamber is missing")
            try:
                root = await self._open(data)
                view = await self._view_of(root)
            except DamagedError:
                if await self.storage.version(self.names.root) == version:
                    raise
                continue
            self._remember(view, version, data)
            self._loads += 1
            return view

    async def _open(self, data: bytes) -> Root:
        try:
            root = Root.open(data, self.unlocked.keyring)
        except UnknownEpoch:
            await self.reload_header()
            root = Root.open(data, self.unlocked.keyring)
        if root.generation > self.unlocked.header.generation:
            await self.reload_header()
            if root.generation > self.unlocked.header.generation:
                raise RollbackDetected("the header is older than the root")
        if not self._position.leads_to(root, data):
            raise RollbackDetected("the store shows an earlier state of the chamber than before, or another history")
        return root

    def _remember(self, view: View, version: Version, data: bytes) -> None:
        if self._view is not None and view.root.marks != self._view.root.marks:
            # A synchronisation may have brought back what waits to be removed: what it has not is left as orphans.
            self._held.clear()
            self._doomed.clear()
        self._view = view
        self._version = version
        self._position = Position(self._position.chamber_id, view.root.sequence, digest_of(data))

    async def _view_of(self, root: Root) -> View:
        old = self._view
        segments: Run = {}
        if old is not None and old.root.segments == root.segments:
            segments = old.segments
        else:
            await self._load_segments(root.segments)
            self._segment_runs = {each.object_id: self._segment_runs[each.object_id] for each in root.segments}
            for run in self._segment_runs.values():
                segments.update(run)
        if old is not None and old.root.directories == root.directories:
            directory = old.directory
        else:
            directory = await read_directory(root.directories, self.objects)
        return View(root, segments, directory, self.pages)

    async def _load_segments(self, segments: Sequence[Reference]) -> None:
        async def load(segment: Reference) -> None:
            self._segment_runs[segment.object_id] = decode_run(await self.objects.read(segment))

        missing = [segment for segment in segments if segment.object_id not in self._segment_runs]
        for start in range(0, len(missing), _READ_TOGETHER):
            await run_together(map(load, missing[start : start + _READ_TOGETHER]))

    async def _work(self) -> None:
        while self._requests:
            requests, self._requests = self._requests, []
            try:
                released = await self._make_change(requests)
            except Exception as error:  # noqa: BLE001  whatever it is, those who wait must learn of it
                for request in requests:
                    request.refuse(error)
                continue
            # What follows is no part of the change: where it fails, orphans stay behind, and the next one tries again.
            await self._remove(released)
            # It may fail by a wrong secret, too: another process may change the header at any time.
            with contextlib.suppress(STTError):
                if self._view is not None and _must_be_merged(self._view.root.segments):
                    await self.merge()

    async def _make_change(self, requests: Sequence[_Request]) -> Sequence[Reference]:
        """Make one state of all requests; answer them; return the objects that are not needed any more."""
        attempt = 0
        while True:
            view = await self.refresh()
            draft = Draft(view, self.clock())
            results = []
            for request in requests:
                if request.answer.done():
                    continue
                part = Draft(draft, draft.now)
                try:
                    result = await request.operation(part)
                except DamagedError:
                    if await self.refresh() is not view:
                        break  # what it looked for was replaced: all of it anew
                    raise
                except STTError as error:
                    request.refuse(error)
                    continue
                draft.merge(part)
                results.append((request, result))
            else:
                if not draft.is_changed or await self._store_draft(view, draft):
                    for request, result in results:
                        request.accept(result)
                    return draft.released
                # As others came first again and again, wait longer: Ethernet's binary exponential back-off.
                attempt += 1
                await asyncio.sleep(random.uniform(0, min(0.001 * 2**attempt, _LONGEST_PAUSE)))  # noqa: S311  no secret

    async def _store_draft(self, view: View, draft: Draft) -> bool:
        root = attrs.evolve(
            view.root,
            # Who replaced the header may have been killed before the root could say so.
            generation=max(draft.generation, self.unlocked.header.generation),
            revision=draft.revision,
            count=draft.count,
            size=draft.size,
            quota=draft.quota,
            fence=draft.fence,
            marks=draft.marks,
            sequence=draft.sequence,
        )
        tail = {**root.tail, **draft.changes}
        if weight(tail) <= MAX_TAIL_SIZE:
            return await self.store_root(view, attrs.evolve(root, tail=tail))
        segment = await self.objects.write(encode_run(tail))
        self._segment_runs[segment.object_id] = tail
        if await self.store_root(view, attrs.evolve(root, segments=(*root.segments, segment), tail={})):
            await self.copy_root()
            return True
        self._segment_runs.pop(segment.object_id, None)  # gone already where the root was loaded meanwhile
        await self.objects.remove([segment])
        return False

    async def _remove(self, references: Sequence[Reference]) -> None:
        for reference in references:
            if reference.object_id in self._pins:
                self._doomed[reference.object_id] = reference
            else:
                self._held.append(reference)
        # Who begins to read makes this ledger load the root before its next change: then, and only then, ask anew.
        loads = self._loads
        if self._held and self._unread_at != loads:
            with contextlib.suppress(StorageError):
                if not await self.is_being_read():
                    self._unread_at = loads
        if self._unread_at == self._loads:
            held, self._held = self._held, []
            await self.objects.remove(held)
        else:
            del self._held[:-MAX_HELD]


async def copy_record(storage: StorageProvider, key: bytes, copy: bytes) -> None:
    """Store under another key what a store has now under one.

    Raises:
        StorageError: The store failed.
    """
    data = await storage.retrieve(key)
    if data is not None:
        await storage.store(copy, data)


def _must_be_merged(segments: Sequence[Reference]) -> bool:
    return len(segments) >= MAX_SEGMENTS or sum(segment.size for segment in segments) >= MAX_SEGMENTS_SIZE
