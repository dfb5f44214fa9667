"""The entries of a chamber in one state: found by key, and listed in order (reference, "Index").

The newest changes are in the root's tail, older ones in segments, the rest in pages: runs of neighbouring entries,
listed by the directory. Pages and segments are objects, and so never change: a new state has new ones.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

import attrs

from stt_chamber.entries import Entry, Reference, Run, decode_run, encode_run, weight
from stt_chamber.errors import DamagedError
from stt_core import deserialize_stt, serialize_stt
from stt_core.errors import SerializationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Container, Sequence

    from stt_chamber.objects import ObjectStore
    from stt_chamber.root import Root

PAGE_SIZE: Final = 16 * 1024
"""Bytes at which a page is full."""

MIN_PAGE_SIZE: Final = 4 * 1024
"""Bytes below which a page is joined with the next one."""

CACHED_PAGES: Final = 256
"""Pages that are kept in memory, some 20 KiB each."""

_READ_TOGETHER: Final = 16  # pages


@attrs.frozen
class Directory:
    """The pages in order: the key that each begins at, and where it is."""

    first_keys: tuple[bytes, ...]
    pages: tuple[Reference, ...]

    def encode(self) -> bytes:
        """Return the bytes of the directory."""
        pairs = zip(self.first_keys, self.pages, strict=True)
        return serialize_stt([[first_key, page.encode()] for first_key, page in pairs])

    @classmethod
    def decode(cls, data: bytes) -> Directory:
        """Return the directory of its bytes.

        Raises:
            DamagedError: They are none.
        """
        try:
            items: Any = deserialize_stt(data)
            first_keys = tuple(bytes(first_key) for first_key, _ in items)
            pages = tuple(Reference.decode(page) for _, page in items)
        except (SerializationError, TypeError, ValueError):
            raise DamagedError("the directory of the pages is malformed") from None
        if list(first_keys) != sorted({*first_keys}):
            raise DamagedError("the pages are not in order")
        return cls(first_keys, pages)

    def slot(self, key: bytes) -> int:
        """Return the number of the page that a key belongs to."""
        return max(bisect.bisect_right(self.first_keys, key) - 1, 0)


class Pages:
    """Reads pages, and keeps those that were used last.

    Args:
        objects: Where they are.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._nearer: ObjectStore | None = None
        self._are_nearer: Container[bytes] = ()
        self._cached: OrderedDict[bytes, Run] = OrderedDict()

    def look_first(self, objects: ObjectStore, object_ids: Container[bytes]) -> None:
        """Read these pages from another store that has them, as a replica has, as long as it has them."""
        self._nearer, self._are_nearer = objects, object_ids

    async def load(self, page: Reference) -> Run:
        """Return the entries of a page; not to be changed.

        Raises:
            DamagedError: It is missing or was changed.
        """
        run = self._cached.get(page.object_id)
        if run is None:
            run = decode_run(await self._read(page))
            self._cached[page.object_id] = run
            if len(self._cached) > CACHED_PAGES:
                self._cached.popitem(last=False)
        else:
            self._cached.move_to_end(page.object_id)
        return run

    async def _read(self, page: Reference) -> bytes:
        if self._nearer is not None and page.object_id in self._are_nearer:
            with contextlib.suppress(DamagedError):
                return await self._nearer.read(page)
        return await self._objects.read(page)


class View:
    """All entries in one state; it stays what it is when the chamber changes.

    Args:
        root: The state.
        segments: The changes of all segments, later ones over earlier ones.
        directory: Lists the pages.
        pages: Reads them.
    """

    def __init__(self, root: Root, segments: Run, directory: Directory, pages: Pages) -> None:
        self.root = root
        self.segments = segments
        self.directory = directory
        self._pages = pages

    def parts(self) -> tuple[Reference, ...]:
        """Return all objects that the index is in."""
        return (*self.root.segments, *self.root.directories, *self.directory.pages)

    async def find(self, key: bytes) -> Entry | None:
        """Return the entry of a key, expired or not; None where there is none.

        Raises:
            DamagedError: The page is missing or was changed.
        """
        data = self.root.tail.get(key)
        if data is None:
            data = self.segments.get(key)
        if data is None and self.directory.pages:
            page = await self._pages.load(self.directory.pages[self.directory.slot(key)])
            data = page.get(key)
        return Entry.decode(data) if data else None

    async def keys_outside(self, shared: Container[bytes]) -> set[bytes]:
        """Return all keys, deleted ones too, but for those that only these pages have, given by their object ids.

        Raises:
            DamagedError: A page is missing or was changed.
        """
        keys = {*self.segments, *self.root.tail}
        pages = [page for page in self.directory.pages if page.object_id not in shared]
        for start in range(0, len(pages), _READ_TOGETHER):
            for run in await asyncio.gather(*map(self._pages.load, pages[start : start + _READ_TOGETHER])):
                keys.update(run)
        return keys

    async def entries(self, start: bytes = b"") -> AsyncIterator[tuple[bytes, Entry]]:
        """Iterate over all entries from the key ``start`` on, expired ones too, in order of their keys.

        Raises:
            DamagedError: A page is missing or was changed.
        """
        changes = {**self.segments, **self.root.tail}
        keys = sorted(key for key in changes if key >= start)
        done = 0
        for slot in range(self.directory.slot(start), len(self.directory.pages)):
            run = dict(await self._pages.load(self.directory.pages[slot]))
            if slot + 1 < len(self.directory.pages):
                end = bisect.bisect_left(keys, self.directory.first_keys[slot + 1])
            else:
                end = len(keys)
            run.update((key, changes[key]) for key in keys[done:end])
            done = end
            for key in sorted(run):
                if run[key] and key >= start:
                    yield key, Entry.decode(run[key])
        for key in keys[done:]:
            if changes[key]:
                yield key, Entry.decode(changes[key])


@attrs.frozen
class Rewritten:
    """The pages after the segments were merged into them."""

    directories: tuple[Reference, ...]
    """As in the root."""
    added: tuple[Reference, ...]
    """New objects."""
    replaced: tuple[Reference, ...]
    """Objects that the new state does not use any more."""


async def merge_segments(view: View, objects: ObjectStore, pages: Pages, *, oldest_epoch: int) -> Rewritten:
    """Write new pages that hold the changes of all segments, and a directory of all pages.

    Args:
        view: The state to begin with; its tail stays out.
        objects: Where the new objects go.
        pages: Reads the pages that are there.
        oldest_epoch: Pages under older data keys are written anew, too.

    Raises:
        DamagedError: A page is missing or was changed.
        StorageError: The store failed.
    """
    old = view.directory
    changes: dict[int, Run] = {}
    for key, data in view.segments.items():
        changes.setdefault(old.slot(key), {})[key] = data
    first_keys: list[bytes] = []
    references: list[Reference] = []
    added: list[Reference] = []
    replaced: list[Reference] = []
    pending: Run = {}

    async def write(run: Run) -> None:
        runs = _split(run)
        first_keys.extend(next(iter(each)) for each in runs)
        written = await objects.write_all(encode_run(each) for each in runs)
        references.extend(written)
        added.extend(written)

    for slot, page in enumerate(old.pages):
        too_small = pending and weight(pending) < MIN_PAGE_SIZE
        if slot not in changes and not too_small and page.epoch >= oldest_epoch and page.size >= MIN_PAGE_SIZE:
            await write(pending)
            pending = {}
            first_keys.append(old.first_keys[slot])
            references.append(page)
            continue
        merged = {**await pages.load(page), **changes.get(slot, {})}
        pending.update((key, merged[key]) for key in sorted(merged) if merged[key])
        replaced.append(page)
        if weight(pending) >= MIN_PAGE_SIZE:
            await write(pending)
            pending = {}
    if not old.pages:
        pending = {key: data for key, data in sorted(view.segments.items()) if data}
    await write(pending)
    replaced += [*view.root.segments, *view.root.directories]
    directories = await write_directories(Directory(tuple(first_keys), tuple(references)), objects)
    return Rewritten(directories, (*added, *directories), tuple(replaced))


async def write_directories(directory: Directory, objects: ObjectStore) -> tuple[Reference, ...]:
    """Write a directory twice, as nothing else tells where the pages are; not at all if it is empty."""
    if not directory.pages:
        return ()
    data = directory.encode()
    return (await objects.write(data), await objects.write(data))


async def read_directory(references: Sequence[Reference], objects: ObjectStore) -> Directory:
    """Return the directory that the first whole one of the references leads to.

    Raises:
        DamagedError: None is whole.
        StorageError: The store failed.
    """
    if not references:
        return Directory((), ())
    for reference in references[:-1]:
        with contextlib.suppress(DamagedError):
            return Directory.decode(await objects.read(reference))
    return Directory.decode(await objects.read(references[-1]))


def _split(run: Run) -> Sequence[Run]:
    """Return a run, whose keys ascend, as runs of at most a page each, about equal."""
    if not run:
        return []
    target = weight(run) / -(-weight(run) // PAGE_SIZE)
    runs: list[Run] = [{}]
    size = 0
    for key, data in run.items():
        if size >= target:
            runs.append({})
            size = 0
        runs[-1][key] = data
        size += weight({key: data})
    return runs
