"""Two stores with one chamber, made the same: what either lacks is copied sealed, and changes of both are merged.

Whoever opens the chamber does it, from anywhere; the stores need not be trusted (reference, "Replicas").
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import secrets as randomness
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import attrs

from stt_chamber.chamber import Chamber
from stt_chamber.errors import Conflict, DamagedError, NoChamber, NotAReplica, RollbackDetected
from stt_chamber.header import Header
from stt_chamber.keys import namespace
from stt_chamber.ledger import Names, copy_record
from stt_chamber.merge import (
    Plan,
    Side,
    SyncConflict,
    changed_references,
    differing_keys,
    is_changed,
    last_common_mark,
    merged_quota,
    newer_header,
    plan_merge,
    shared_pages,
)
from stt_chamber.objects import CHUNKS_PER_COMMIT, chunk_count
from stt_chamber.root import Mark, digest_of, with_mark
from stt_chamber.snapshots import arrival, snapshot
from stt_chamber.tasks import run_together
from stt_core.errors import StorageError, STTError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Container, Iterator

    from stt_chamber.entries import Entry, Reference
    from stt_chamber.keys import Secret
    from stt_chamber.ledger import Draft
    from stt_chamber.objects import ObjectStore
    from stt_chamber.root import Position
    from stt_core.interfaces import StorageProvider, Version

MAX_TRIES: Final = 16
"""Times that a synchronisation begins anew, where others change a replica meanwhile."""

CHUNKS_AT_ONCE: Final = 16
"""Chunks that are asked for, read or stored at a time."""

_LONGEST_PAUSE: Final = 0.25  # seconds between two tries


@attrs.frozen
class SyncReport:
    """What a synchronisation did."""

    positions: tuple[Position, Position]
    """The state that each store has now: the same, or one with the same values."""
    copied: tuple[int, int]
    """Bytes of sealed chunks that were copied to the first store, and to the second."""
    taken: int
    """Values and deletions of one replica that were taken over into what the other had changed as well."""
    conflicts: tuple[SyncConflict, ...]
    """Values that both had changed, in order."""


class _Moved(STTError):
    """A replica was changed meanwhile, so that all is to be looked at anew."""


def _ignore(_: int) -> None:
    pass


async def sync(
    first: StorageProvider,
    second: StorageProvider,
    secrets: Secret | Sequence[Secret],
    *,
    name: str = "",
    expected: tuple[Position | None, Position | None] = (None, None),
    progress: Callable[[int], None] = _ignore,
    clock: Callable[[], float] = time.time,
) -> SyncReport:
    """Make two replicas of a chamber the same; a store without the chamber becomes a replica.

    Others may use both meanwhile. What is interrupted has left both stores as chambers that are whole; called again, it
    copies only what is still missing. Where both have changed one value, the newer one wins, and the other one is kept
    under a key that tells of it. A value that one changed and the other deleted is kept.

    Args:
        first: One store, the nearer one.
        second: The other; what both have changed continues its history, so let it be the one that more replicas are
            synchronised with.
        secrets: They must open the replicas.
        name: That of the chamber, in both stores.
        expected: A state of each replica that was seen before; an earlier one is refused.
        progress: Told of the bytes of each chunk that was copied.
        clock: Returns seconds since 1970.

    Raises:
        NoChamber: There is none in either store.
        NotAReplica: They are different chambers.
        WrongSecret: The secrets do not open both.
        Conflict: Both were rekeyed since they were last the same, or are changed by others again and again; or orphans
            are being collected in one: try it later.
        QuotaExceeded: The values of both are more than the chamber may hold.
        RollbackDetected: A store shows an earlier state than the expected one.
        DamagedError: Something that has to be copied is missing, or was changed.
        StorageError: A store failed.
    """
    secrets = [secrets] if not isinstance(secrets, Sequence) else list(secrets)
    run = _Sync((first, second), Names(namespace(name)), secrets, name, list(expected), progress, clock)
    for attempt in range(MAX_TRIES):
        try:
            return await run.attempt()
        except _Moved:
            await asyncio.sleep(random.uniform(0, min(0.001 * 2**attempt, _LONGEST_PAUSE)))  # noqa: S311  no secret
    raise Conflict("the replicas are changed by others again and again: try it later")


@attrs.define(eq=False)
class _Replica:
    """A store with the chamber, as it was looked at."""

    number: int
    """0 for the first, 1 for the second."""
    chamber: Chamber
    header: bytes
    header_version: Version
    root: bytes
    root_version: Version
    side: Side
    position: Position


@attrs.define(eq=False)
class _Sync:
    """All attempts of one call."""

    storages: tuple[StorageProvider, StorageProvider]
    names: Names
    secrets: Sequence[Secret]
    name: str
    expected: list[Position | None]
    progress: Callable[[int], None]
    clock: Callable[[], float]
    copied: list[int] = attrs.field(factory=lambda: [0, 0])
    taken: tuple[dict[bytes, Entry], dict[bytes, Entry]] = attrs.field(factory=lambda: ({}, {}))
    """What each store has from the other."""
    deleted: set[bytes] = attrs.field(factory=set)
    conflicts: set[SyncConflict] = attrs.field(factory=set)

    async def attempt(self) -> SyncReport:
        """Make the replicas the same.

        Raises:
            _Moved: One was changed meanwhile.
        """
        async with contextlib.AsyncExitStack() as stack:
            replicas = [await self._look(number, stack) for number in (0, 1)]
            try:
                await self._make_same(*replicas)
            except RollbackDetected:
                raise
            except DamagedError:
                # What others replaced while it was copied looks as if it were missing.
                if await self._is_moved(replicas):
                    raise _Moved from None
                raise
        first, second = self.expected
        assert first is not None
        assert second is not None
        copied = (self.copied[0], self.copied[1])
        taken = len({*self.taken[0], *self.taken[1], *self.deleted})
        return SyncReport((first, second), copied, taken, tuple(sorted(self.conflicts)))

    # Looking

    async def _look(self, number: int, stack: contextlib.AsyncExitStack) -> _Replica | None:
        """Open a replica; None where the store has no chamber, or one that was never finished."""
        storage, names = self.storages[number], self.names
        if not await storage.exists(names.root):
            header = await storage.retrieve(names.header)
            if await storage.exists(names.root_copy) or (header is None and await storage.exists(names.header_copy)):
                raise DamagedError("a store has parts of a chamber only: repair it before it is synchronised")
            return None
        opened = Chamber.open(storage, self.secrets, name=self.name, expected=self.expected[number], clock=self.clock)
        return await self._look_at(number, await stack.enter_async_context(await opened))

    async def _look_at(self, number: int, chamber: Chamber) -> _Replica:
        """Take the newest state of an open replica, with what it was made of, so that no other is replaced later."""
        ledger = chamber.ledger
        root_version, root = await self._record(number, self.names.root)
        side = Side(await ledger.refresh(), ledger.objects, ledger.unlocked)
        header_version, header = await self._record(number, self.names.header)
        if digest_of(root) != chamber.position.digest or Header.decode(header) != side.unlocked.header:
            raise _Moved
        self.expected[number] = chamber.position
        return _Replica(number, chamber, header, header_version, root, root_version, side, chamber.position)

    async def _record(self, number: int, key: bytes) -> tuple[Version, bytes]:
        version = await self.storages[number].version(key)
        data = await self.storages[number].retrieve(key)
        if data is None:
            raise _Moved
        return version, data

    async def _is_moved(self, replicas: Sequence[_Replica | None]) -> bool:
        for replica in replicas:
            if replica is not None:
                root = await self.storages[replica.number].retrieve(self.names.root)
                position = self.expected[replica.number]
                assert position is not None  # it was looked at
                if root is None or digest_of(root) != position.digest:
                    return True
        return False

    # Deciding

    async def _make_same(self, first: _Replica | None, second: _Replica | None) -> None:
        if first is None or second is None:
            source = first or second
            if source is None:
                raise NoChamber("there is no chamber of that name in either store")
            await self._clone(await self._settle(source))
            return
        both = (first, second)
        if first.position.chamber_id != second.position.chamber_id:
            raise NotAReplica("the two stores hold different chambers")
        near, far = first.chamber.ledger, second.chamber.ledger
        far.pages.look_first(near.objects, shared_pages(first.side.view, second.side.view))
        base = last_common_mark(first.side.view.root, second.side.view.root)
        counts = newer_header(first.side, second.side, base)
        changed = [is_changed(replica.side.view.root, base) for replica in both]
        if counts is None and not any(changed):
            return  # whatever their indexes look like: the values are the same
        # Whose history goes on: it has the header that counts; or it alone was changed; or it is the second.
        goes_on = counts if counts is not None else (0 if changed == [True, False] else 1)
        chain, other = both[goes_on], both[1 - goes_on]
        plan = Plan()
        if changed[other.number]:
            keys = await differing_keys(chain.side.view, other.side.view)
            plan = await plan_merge(chain.side, other.side, base, keys, self.taken[chain.number])
        plan.revision = other.side.view.root.revision
        plan.quota = merged_quota(chain.side.view.root, other.side.view.root, base)
        async with arrival(self.storages[chain.number], self.names, self.clock) as make_sure:
            found = await self._fetch(plan, chain, other)
            await make_sure()
            chain = await self._settle(chain, other, plan)
            await self._copy(found, other.side.objects, chain.number)
        # A later attempt finds it taken over already.
        self.taken[chain.number].update((key, plan.puts[key]) for key in plan.taken)
        self.deleted.update(plan.deletes)
        self.conflicts.update(plan.conflicts)
        await self._replace(chain, other)

    # Changing the one whose history goes on

    async def _fetch(self, plan: Plan, chain: _Replica, other: _Replica) -> Sequence[Reference]:
        """Bring the contents of entries that are to be taken over into the store; return as :meth:`_copy` does."""
        # What is under another data key may be the last that is, as another process may be about to forget that key.
        newest = chain.side.unlocked.keyring.epoch
        sealed = []
        for key in plan.taken:
            entry = plan.puts[key]
            if entry.reference is None:
                continue
            if entry.reference.epoch == newest:
                sealed.append(entry.reference)
            else:
                content = await self._seal_anew(other.side.objects, chain.side.objects, entry.reference, chain.number)
                plan.puts[key] = attrs.evolve(entry, content=content)
        return await self._copy(sealed, other.side.objects, chain.number)

    async def _seal_anew(
        self, source: ObjectStore, target: ObjectStore, reference: Reference, number: int
    ) -> Reference:
        """Write an object under the newest data key, as the one that it is under is going or gone."""
        writer = target.writer()
        try:
            async for chunk in source.chunks(reference, 0, reference.size):
                await writer.write(chunk)
                self._count(number, len(chunk))
            return await writer.finish()
        except BaseException:
            await writer.discard()
            raise

    async def _settle(self, chain: _Replica, other: _Replica | None = None, plan: Plan | None = None) -> _Replica:
        """Make the state that both will have: with the changes of the other, and a mark; return it."""
        begun = chain.side.view.root
        unlocked = chain.side.unlocked

        async def operation(draft: Draft) -> None:
            if draft.root is not begun:
                raise _Moved
            if plan is not None:
                await plan.apply(draft)
            draft.generation = unlocked.header.generation
            mark = Mark(randomness.token_bytes(16), draft.revision, draft.generation, draft.quota)
            if not (draft.marks and attrs.evolve(draft.marks[-1], mark_id=mark.mark_id) == mark):
                draft.marks = with_mark(draft.marks, mark)
            if other is not None:
                _follow_on(draft, other, is_rekeyed=unlocked.keyring.epochs != other.side.unlocked.keyring.epochs)

        await chain.chamber.ledger.change(operation)
        await chain.chamber.ledger.wait_idle()
        return await self._look_at(chain.number, chain.chamber)

    # Bringing the other one to the same state: what never changes first, then the header and the root

    async def _clone(self, source: _Replica) -> None:
        """Give the chamber to a store that has none."""
        number = 1 - source.number
        storage, names = self.storages[number], self.names
        version = await storage.version(names.header)
        header = await storage.retrieve(names.header)
        if header is not None and Header.decode(header).chamber_id != source.position.chamber_id:
            raise NotAReplica("the other store has the beginning of another chamber")
        missing, _ = await changed_references(None, source.side, [])
        wanted = {source.side.objects.name(reference, index) for reference, index in _chunks_of(missing)}
        async with self._both_kept(source) as make_sure:
            # Left by an attempt that broke off; to list them takes fewer requests than to ask for each.
            present = {key async for key in storage.list_keys(names.objects) if key in wanted}
            found = await self._copy(missing, source.side.objects, number, present)
            await make_sure()
            if header != source.header and await storage.store_if(names.header, source.header, version) is None:
                raise _Moved
            await self._store_root(source, number, 0)
            await self._copy(found, source.side.objects, number)
        await self._copy_header(number)

    async def _replace(self, source: _Replica, target: _Replica) -> None:
        """Give a replica the state of the other."""
        keys = await differing_keys(source.side.view, target.side.view)
        missing, gone = await changed_references(target.side, source.side, keys)
        async with self._both_kept(source) as make_sure:
            found = await self._copy(missing, source.side.objects, target.number)
            await make_sure()
            await self._store_records(source, target)
            await self._copy(found, source.side.objects, target.number)
        await self._copy_header(target.number)
        names = itertools.chain.from_iterable(target.side.objects.names(reference) for reference in gone)
        with contextlib.suppress(StorageError):  # what cannot be removed now is left to the collection
            if not await target.chamber.ledger.is_being_read():
                while some := list(itertools.islice(names, CHUNKS_PER_COMMIT)):
                    await self.storages[target.number].commit({}, some)

    async def _store_records(self, source: _Replica, target: _Replica) -> None:
        """Give a replica, which has all chunks by now, the header and the root of the other."""
        old, new = target.side.unlocked, source.side.unlocked
        version = target.header_version
        if old.keyring.epochs <= new.keyring.epochs:
            if target.header != source.header:
                await self._store_header(source.header, target.number, version)
            await self._store_root(source, target.number, target.root_version)
        else:
            # No moment without a header that opens the root, whichever of the two it is.
            version = await self._store_header(new.with_data_keys_of(old.keyring), target.number, version)
            await self._store_root(source, target.number, target.root_version)
            await self._store_header(source.header, target.number, version)

    async def _store_header(self, header: bytes, number: int, version: Version) -> Version:
        stored = await self.storages[number].store_if(self.names.header, header, version)
        if stored is None:
            raise _Moved
        return stored

    async def _store_root(self, source: _Replica, number: int, version: Version) -> None:
        if await self.storages[number].store_if(self.names.root, source.root, version) is None:
            raise _Moved
        self.expected[number] = source.position
        await copy_record(self.storages[number], self.names.root, self.names.root_copy)

    async def _copy_header(self, number: int) -> None:
        await copy_record(self.storages[number], self.names.header, self.names.header_copy)

    # Copying

    @contextlib.asynccontextmanager
    async def _both_kept(self, source: _Replica) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """Let others keep a state readable, and what the other store gets of it; give what :func:`arrival` gives."""
        async with (
            arrival(self.storages[1 - source.number], self.names, self.clock) as make_sure,
            snapshot(self.storages[source.number], self.names, self.clock) as taken,
        ):
            if taken.root != source.root:
                raise _Moved
            yield make_sure

    async def _copy(
        self,
        references: Sequence[Reference],
        objects: ObjectStore,
        number: int,
        present: Container[bytes] | None = None,
    ) -> Sequence[Reference]:
        """Copy the chunks of objects that a store has not, as they lie, each once it is seen to be whole.

        Return the objects of which it had some. As long as nothing refers to these, somebody else may remove them:
        a writer that had waited with that, or a collection that was taken for abandoned. So look for them once more
        when something does.

        Args:
            references: The objects.
            objects: Where they are.
            number: Of the store that they go to.
            present: The keys of the chunks that it has; it is asked for each unless they are given.
        """
        storage = self.storages[number]
        chunks = _chunks_of(references)
        batch: dict[bytes, bytes] = {}
        found: set[Reference] = set()

        async def flush() -> None:
            nonlocal batch
            full, batch = batch, {}
            await storage.commit(full)
            self._count(number, sum(len(chunk) for chunk in full.values()))

        async def work() -> None:
            for reference, index in chunks:
                name = objects.name(reference, index)
                is_there = await storage.exists(name) if present is None else name in present
                if is_there:
                    found.add(reference)
                else:
                    batch[name] = await objects.sealed_chunk(reference, index)
                    if len(batch) >= CHUNKS_PER_COMMIT:
                        await flush()

        await run_together(work() for _ in range(CHUNKS_AT_ONCE))
        if batch:
            await flush()
        return list(found)

    def _count(self, number: int, size: int) -> None:
        self.copied[number] += size
        self.progress(size)


def _chunks_of(references: Sequence[Reference]) -> Iterator[tuple[Reference, int]]:
    for reference in references:
        for index in range(chunk_count(reference.size)):
            yield reference, index


def _follow_on(draft: Draft, other: _Replica, *, is_rekeyed: bool) -> None:
    """Let a draft become a state that can take the place of another replica's."""
    behind = other.side.view.root
    # Who has that one open must take the new state neither for an earlier one nor for another history.
    if draft.root.previous != other.position.digest and draft.root.sequence < behind.sequence + 2:
        draft.sequence = max(draft.root.sequence, behind.sequence) + 1
    # And who writes a value there must not refer to what a collection has removed, or to what is under an old data key.
    draft.fence = draft.sequence + 1 if is_rekeyed else max(draft.fence, behind.fence)
