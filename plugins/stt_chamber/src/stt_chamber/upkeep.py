"""Is all of a chamber whole, and what can be saved if not: check, repair, and the collection of orphans."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from typing import TYPE_CHECKING, Final

import attrs

from stt_chamber.chamber import Chamber
from stt_chamber.entries import ADDRESS_PREFIX, Entry, Run, decode_run
from stt_chamber.errors import Conflict, DamagedError, RollbackDetected, WrongSecret
from stt_chamber.header import Header
from stt_chamber.index import Directory, read_directory, write_directories
from stt_chamber.keys import namespace
from stt_chamber.ledger import Ledger, Names
from stt_chamber.objects import CHUNKS_PER_COMMIT, ObjectStore
from stt_chamber.root import Root, digest_of
from stt_chamber.snapshots import collection, snapshot
from stt_core.errors import CryptoError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stt_chamber.entries import Reference
    from stt_chamber.index import View
    from stt_chamber.keys import Keyring, Secret
    from stt_chamber.ledger import Draft
    from stt_chamber.root import Position
    from stt_core.interfaces import StorageProvider

# Far ahead of all states that may have been seen, so that a repaired chamber is not taken for an older one.
_REPAIR_STEP: Final = 1 << 32

_TRIES: Final = 4  # to check the header before others replace it


@attrs.frozen(order=True)
class Damage:
    """Something that is not as it was written."""

    what: str
    """The key of a value, or the part of the chamber."""
    reason: str


@attrs.frozen
class CheckReport:
    """What a check found."""

    values: int
    """Values that are whole."""
    size: int
    """Bytes of these."""
    damaged: tuple[Damage, ...]
    """In order; empty if all is whole."""
    orphans: int
    """Chunks in the store that belong to nothing: left by what was interrupted; harmless."""


@attrs.frozen
class RepairReport:
    """What a repair did."""

    lost: tuple[Damage, ...]
    """Values that are gone, and parts of the index whose values are not known any more."""
    orphans: int
    """Chunks that were removed."""


@attrs.define
class _Findings:
    values: int = 0
    size: int = 0
    damaged: list[Damage] = attrs.field(factory=list)
    spares: list[Damage] = attrs.field(factory=list)  # of which there is another, so that nothing is lost
    damaged_keys: list[bytes] = attrs.field(factory=list)
    parts: list[Reference] = attrs.field(factory=list)  # objects of the index that are not whole
    names: set[bytes] = attrs.field(factory=set)  # of all chunks that belong to something

    def add(self, what: str, error: Exception) -> None:
        self.damaged.append(Damage(what, str(error)))

    def add_spare(self, what: str, error: Exception) -> None:
        self.spares.append(Damage(what, str(error)))


def _ignore(_: int) -> None:
    pass


async def check(chamber: Chamber, progress: Callable[[int], None] = _ignore) -> CheckReport:
    """Read everything that a chamber has in its store, and name whatever is missing or was changed.

    Others may use the chamber meanwhile.

    Args:
        chamber: An open one.
        progress: Told of the bytes of each value that was checked.

    Raises:
        Conflict: The store gave no answer for so long that others took this for dead.
        StorageError: The store failed.
    """
    ledger = chamber.ledger
    # Else what another process replaced meanwhile would look as if it were missing.
    async with snapshot(ledger.storage, ledger.names, lambda: ledger.clock() / 1000):
        findings = await _find_damage(ledger, await ledger.refresh(), progress)
    orphans = 0
    async for name in ledger.storage.list_keys(ledger.names.objects):
        orphans += name not in findings.names
    return CheckReport(findings.values, findings.size, tuple(sorted(findings.damaged + findings.spares)), orphans)


async def collect(chamber: Chamber) -> int:
    """Remove the chunks that belong to nothing; return how many. A value that is being written may have to be redone.

    Raises:
        Conflict: Somebody checks or exports an earlier state, which may need some of it, or synchronises the chamber:
            try again later.
        DamagedError: The index is not whole, so that it is not known what belongs to something.
        StorageError: The store failed.
    """
    ledger = chamber.ledger
    async with collection(ledger.storage, ledger.names, lambda: ledger.clock() / 1000) as make_sure:
        orphans = await _orphans(ledger)
        for start in range(0, len(orphans), CHUNKS_PER_COMMIT):
            await make_sure()
            await ledger.storage.commit({}, orphans[start : start + CHUNKS_PER_COMMIT])
    return len(orphans)


async def _orphans(ledger: Ledger) -> list[bytes]:
    # In this order: what is listed was begun before the fence, and is referred to by now, or never will be.
    listed = [name async for name in ledger.storage.list_keys(ledger.names.objects)]

    async def fence(draft: Draft) -> None:
        draft.fence = draft.root.sequence + 1

    await ledger.change(fence)
    names = await ledger.consistently(lambda view: _names_in_use(ledger, view))
    if await ledger.is_being_read():
        raise Conflict("the chamber is being checked or exported: what belongs to nothing stays until that has ended")
    for reference in ledger.doomed():
        names.update(ledger.objects.names(reference))
    return [name for name in listed if name not in names]


async def repair(
    storage: StorageProvider,
    secrets: Sequence[Secret],
    *,
    name: str = "",
    expected: Position | None = None,
    progress: Callable[[int], None] = _ignore,
) -> RepairReport:
    """Make a chamber usable again: keep what is whole, forget what is not, remove orphans.

    Nobody else should use the chamber meanwhile.

    Args:
        storage: Where it is.
        secrets: One of them must open it.
        name: The one that it was made with.
        expected: A state that was seen before. The copy of a root that is not whole is behind it, as a rule: to go back
            to that is for the owner to decide, who then leaves this out.
        progress: As for :func:`check`.

    Raises:
        RollbackDetected: What is whole is an earlier state than the expected one, or of another chamber; nothing was
            changed.
        DamagedError: Neither the header nor the root is whole, nor the copy of it.
        WrongSecret: The secrets are not its.
        StorageError: The store failed.
    """
    names = Names(namespace(name))
    lost = await _restore_from_copies(storage, names, secrets, expected)
    async with await Chamber.open(storage, secrets, name=name, expected=expected) as chamber:
        ledger = chamber.ledger
        findings = await _find_damage(ledger, await ledger.refresh(), progress)
        lost += findings.damaged
        if findings.parts:
            await _drop_parts(ledger, findings.parts)
        await _forget(ledger, findings.damaged_keys)
        await _count_anew(ledger)
        await ledger.copy_root()
        await ledger.copy_header()
        orphans = 0
        with contextlib.suppress(Conflict):  # there may be a check or the like that was killed just before
            orphans = await collect(chamber)
        return RepairReport(tuple(sorted(lost)), orphans)


# Checking


async def _find_damage(ledger: Ledger, view: View, progress: Callable[[int], None]) -> _Findings:
    findings = _Findings()
    # With the data keys of this state, though the ledger may get others meanwhile.
    objects = ObjectStore(ledger.storage, ledger.names.objects, ledger.unlocked.keyring)
    await _check_records(ledger, findings)
    overlay: Run = {}
    for number, reference in enumerate(view.root.segments):
        run = await _checked_run(objects, reference, f"segment {number + 1} of the index", findings)
        overlay.update(run)
    overlay.update(view.root.tail)
    for number, reference in enumerate(view.root.directories):
        await _checked_part(objects, reference, f"directory {number + 1} of the index", findings, findings.add_spare)
    for slot, reference in enumerate(view.directory.pages):
        what = f"page {slot + 1} of the index, keys from {view.directory.first_keys[slot].decode()!r}"
        page = await _checked_run(objects, reference, what, findings)
        await _check_entries(objects, {key: page[key] for key in page if key not in overlay}, findings, progress)
    await _check_entries(objects, overlay, findings, progress)
    return findings


async def _check_records(ledger: Ledger, findings: _Findings) -> None:
    """Check what there is once, as it lies in the store now; again if others replaced the header meanwhile."""
    storage, names = ledger.storage, ledger.names
    for _ in range(_TRIES):
        version = await storage.version(names.header)
        findings.spares = await _damaged_records(ledger)
        if not findings.spares or await storage.version(names.header) == version:
            return


async def _damaged_records(ledger: Ledger) -> list[Damage]:
    storage, names = ledger.storage, ledger.names
    damaged: list[Damage] = []
    keyring = ledger.unlocked.keyring
    for what, key in (("the header", names.header), ("the copy of the header", names.header_copy)):
        try:
            header = Header.decode(await _present(storage, key))
            unlocked = await asyncio.to_thread(header.unlock, ledger.secrets)
            if key == names.header:  # others may have replaced it since it was opened here
                keyring = unlocked.keyring
        except (DamagedError, CryptoError) as error:
            damaged.append(Damage(what, str(error)))
    for what, key in (("the root", names.root), ("the copy of the root", names.root_copy)):
        try:
            Root.open(await _present(storage, key), keyring)
        except DamagedError as error:
            damaged.append(Damage(what, str(error)))
    return damaged


async def _checked_part(
    objects: ObjectStore,
    reference: Reference,
    what: str,
    findings: _Findings,
    add: Callable[[str, Exception], None],
) -> bytes:
    """Return the bytes of an object of the index; none where it is not whole."""
    findings.names.update(objects.names(reference))
    try:
        await objects.check(reference)
        return await objects.read(reference)
    except DamagedError as error:
        add(what, error)
        findings.parts.append(reference)
        return b""


async def _checked_run(objects: ObjectStore, reference: Reference, what: str, findings: _Findings) -> Run:
    return decode_run(await _checked_part(objects, reference, what, findings, findings.add))


async def _check_entries(objects: ObjectStore, run: Run, findings: _Findings, progress: Callable[[int], None]) -> None:
    for key, data in run.items():
        if not data:
            continue
        try:
            entry = Entry.decode(data)
            if entry.reference is not None:
                findings.names.update(objects.names(entry.reference))
            await _check_value(objects, key, entry)
        except DamagedError as error:
            findings.add(key.decode(), error)
            findings.damaged_keys.append(key)
        else:
            findings.values += 1
            findings.size += entry.size
            progress(entry.size)


async def _check_value(objects: ObjectStore, key: bytes, entry: Entry) -> None:
    if entry.reference is not None:
        await objects.check(entry.reference)
    address = key.decode()
    if address.startswith(ADDRESS_PREFIX):
        digest = hashlib.sha3_256()
        if isinstance(entry.content, bytes):
            digest.update(entry.content)
        else:
            async for chunk in objects.chunks(entry.content, 0, entry.size):
                digest.update(chunk)
        if address != ADDRESS_PREFIX + digest.hexdigest():
            raise DamagedError("the content has another hash than its key says")


async def _names_in_use(ledger: Ledger, view: View) -> set[bytes]:
    names: set[bytes] = set()
    for part in (*view.root.segments, *view.root.directories, *view.directory.pages):
        names.update(ledger.objects.names(part))
    async for _, entry in view.entries():
        if entry.reference is not None:
            names.update(ledger.objects.names(entry.reference))
    return names


async def _present(storage: StorageProvider, key: bytes) -> bytes:
    data = await storage.retrieve(key)
    if data is None:
        raise DamagedError("it is missing")
    return data


# Repairing


async def _restore_from_copies(
    storage: StorageProvider, names: Names, secrets: Sequence[Secret], expected: Position | None
) -> list[Damage]:
    """Put the copies of the header and the root in their places where these are not whole; return what is lost."""
    header = await storage.retrieve(names.header)
    restored: bytes | None = None
    try:
        unlocked = await asyncio.to_thread(Header.decode(header or b"").unlock, secrets)
    except (DamagedError, WrongSecret) as error:
        restored = await _present(storage, names.header_copy)
        decoded = Header.decode(restored)
        unlocked = await asyncio.to_thread(decoded.unlock, secrets)
        if isinstance(error, WrongSecret) and Header.decode(header or b"").generation != decoded.generation:
            raise  # not damaged: the chamber was rekeyed, and these secrets open it no more
    if expected is not None and expected.chamber_id != unlocked.header.chamber_id:
        raise RollbackDetected("the store has another chamber in the place of the expected one")
    lost = await _restore_root(storage, names, unlocked.keyring, expected)
    if restored is not None:
        await storage.store(names.header, restored)
    return lost


async def _restore_root(
    storage: StorageProvider, names: Names, keyring: Keyring, expected: Position | None
) -> list[Damage]:
    """Make the root one that can be opened: that of the copy if need be, without what is not whole of the index."""
    lost: list[Damage] = []
    try:
        data = await _present(storage, names.root)
        root = Root.open(data, keyring)
        sequence = root.sequence + 1
    except DamagedError as error:
        data = await _present(storage, names.root_copy)
        root = Root.open(data, keyring)
        sequence = root.sequence + _REPAIR_STEP
        lost.append(Damage("the root, with the newest changes", str(error)))
    if expected is not None and not expected.leads_to(root, data):
        what = f"the root is not whole ({lost[0].reason}), and its copy" if lost else "the root"
        raise RollbackDetected(f"{what} is of state {root.sequence}, but state {expected.sequence} was seen")
    objects = ObjectStore(storage, names.objects, keyring)
    segments = []
    for number, segment in enumerate(root.segments):
        try:
            decode_run(await objects.read(segment))
            segments.append(segment)
        except DamagedError as error:
            lost.append(Damage(f"segment {number + 1} of the index, with some changes", str(error)))
    directories = root.directories
    try:
        await read_directory(directories, objects)
    except DamagedError as error:
        directories = ()
        lost.append(Damage("the directory of the index, with all older values", str(error)))
    if lost:
        # Without marks: what is lost here is none that was deleted, and a replica that still has it is to give it back.
        root = attrs.evolve(
            root,
            sequence=sequence,
            previous=digest_of(data),
            segments=tuple(segments),
            directories=directories,
            marks=(),
        )
        await storage.store(names.root, root.seal(keyring))
    return lost


async def _drop_parts(ledger: Ledger, parts: Sequence[Reference]) -> None:
    """Let the index go on without the objects that are not whole."""
    view = await ledger.refresh()
    directory = view.directory
    whole = [slot for slot, page in enumerate(directory.pages) if page not in parts]
    directories = await write_directories(
        Directory(tuple(directory.first_keys[slot] for slot in whole), tuple(directory.pages[slot] for slot in whole)),
        ledger.objects,
    )
    segments = tuple(segment for segment in view.root.segments if segment not in parts)
    root = attrs.evolve(view.root, directories=directories, segments=segments, marks=())  # as in _restore_root
    if not await ledger.store_root(view, root):
        raise StorageError("the chamber was changed by another process while it was repaired")


async def _forget(ledger: Ledger, keys: Sequence[bytes]) -> None:
    async def operation(draft: Draft) -> None:
        for key in keys:
            draft.changes[key] = b""
            draft.marks = ()  # as in _restore_root

    await ledger.change(operation)


async def _count_anew(ledger: Ledger) -> None:
    view = await ledger.refresh()
    count = size = 0
    async for _, entry in view.entries():
        count += 1
        size += entry.size
    if not await ledger.store_root(view, attrs.evolve(view.root, count=count, size=size)):
        raise StorageError("the chamber was changed by another process while it was repaired")
