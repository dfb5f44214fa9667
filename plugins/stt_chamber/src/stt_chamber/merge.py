"""What two replicas of a chamber have changed since they were equal, and what becomes of it (reference, "Replicas").

Revisions count all changes of a chamber. So an entry that is no newer than the last state that both had is as it was
then, on either side; and a key that one side lacks, and the other has in such an entry, was deleted.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import attrs

from stt_chamber.entries import MAX_KEY_SIZE
from stt_chamber.errors import Conflict
from stt_chamber.root import Mark

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from stt_chamber.entries import Entry, Reference
    from stt_chamber.header import UnlockedHeader
    from stt_chamber.index import View
    from stt_chamber.ledger import Draft
    from stt_chamber.objects import ObjectStore
    from stt_chamber.root import Root

_CREATION: Final = Mark(bytes(16), 0, 1, None)
"""What every chamber has in common with its replicas, whatever else was forgotten."""

_BOTH_REKEYED: Final = "both replicas were rekeyed since they were last the same: remove one, and clone it anew"


@attrs.frozen
class Side:
    """One of two replicas in one state."""

    view: View
    objects: ObjectStore
    unlocked: UnlockedHeader


@attrs.frozen(order=True)
class SyncConflict:
    """A value that both replicas changed: the newer one kept its key."""

    key: str
    kept_as: str
    """The key that the other one has now."""


@attrs.define
class Plan:
    """What is to be changed in one replica, so that it has what the other has changed, too."""

    puts: dict[bytes, Entry] = attrs.field(factory=dict)
    """Entries to set."""
    taken: list[bytes] = attrs.field(factory=list)
    """The keys of those that are the other replica's, where their contents lie."""
    deletes: list[bytes] = attrs.field(factory=list)
    conflicts: list[SyncConflict] = attrs.field(factory=list)
    quota: int | None = None
    revision: int = 0
    """That of the other replica: new entries get higher ones, so that none has one that there was on either side."""

    def take(self, key: bytes, entry: Entry) -> None:
        """Set an entry that is the other replica's."""
        self.puts[key] = entry
        self.taken.append(key)

    async def apply(self, draft: Draft) -> None:
        """Make the changes in a draft.

        Raises:
            QuotaExceeded: There is no room.
        """
        draft.quota = self.quota
        draft.revision = max(draft.revision, self.revision)
        for key in self.deletes:
            await draft.delete(key)
        for key, entry in self.puts.items():
            await draft.put(key, entry)
        # The value that lost is still needed, under its new key.
        needed = {entry.reference for entry in self.puts.values()}
        draft.released = [reference for reference in draft.released if reference not in needed]


def last_common_mark(first: Root, second: Root) -> Mark:
    """Return the newest state that is known to have been that of both."""
    known = {mark.mark_id for mark in first.marks}
    return next((mark for mark in reversed(second.marks) if mark.mark_id in known), _CREATION)


def is_changed(root: Root, base: Mark) -> bool:
    """Return whether values, or the quota, were changed since a state."""
    return root.revision != base.revision or (base is not _CREATION and root.quota != base.quota)


def newer_header(first: Side, second: Side, base: Mark) -> int | None:
    """Return whose header counts, 0 or 1; None where both have the same.

    Args:
        first: One replica.
        second: The other.
        base: The last state that was that of both.

    Raises:
        Conflict: Both were changed since, or have different data keys of one number.
    """
    headers = [side.unlocked.header for side in (first, second)]
    if headers[0] == headers[1]:
        return None
    data_keys = [side.unlocked.keyring.data_keys() for side in (first, second)]
    keys = [each.items() for each in data_keys]
    if len(keys[0] | keys[1]) > len(data_keys[0].keys() | data_keys[1].keys()):
        raise Conflict(_BOTH_REKEYED)
    # What the root does not tell of is a change that was broken off, or a header that was put there for a moment.
    changed = [side.view.root.generation > base.generation for side in (first, second)]
    if changed in ([True, False], [False, True]):
        return changed.index(True)
    if all(changed) and not (headers[0].opens_alike(headers[1]) and (keys[0] <= keys[1] or keys[0] >= keys[1])):
        raise Conflict(_BOTH_REKEYED)
    # Of two that open alike, the one with more keys is between two states.
    order = [(header.generation, -len(each)) for header, each in zip(headers, keys, strict=True)]
    return order.index(max(order))


def merged_quota(mine: Root, theirs: Root, base: Mark) -> int | None:
    """Return the quota of a replica that takes over what another has changed."""
    unchanged = base is not _CREATION and mine.quota == base.quota
    return theirs.quota if unchanged else mine.quota


def shared_pages(first: View, second: View) -> set[bytes]:
    """Return the object ids of the pages that both have."""
    return {page.object_id for page in first.directory.pages} & {page.object_id for page in second.directory.pages}


async def differing_keys(first: View, second: View) -> list[bytes]:
    """Return the keys whose entries may differ, ascending; pages that both have are not read."""
    shared = shared_pages(first, second)
    return sorted(await first.keys_outside(shared) | await second.keys_outside(shared))


async def plan_merge(
    mine: Side, theirs: Side, base: Mark, keys: Iterable[bytes], copied: Mapping[bytes, Entry]
) -> Plan:
    """Return what one replica has to change for all that the other has changed since a state.

    Args:
        mine: The one.
        theirs: The other.
        base: The last state that was that of both.
        keys: Those that may differ.
        copied: What was taken over since then, as it was set: no change of the one's own.

    Raises:
        DamagedError: Something is missing, or was changed.
        StorageError: A store failed.
    """
    plan = Plan()
    for key in keys:
        own, other = await mine.view.find(key), await theirs.view.find(key)
        is_own_change = own is not None and own.revision > base.revision and not _is_copy(own, copied.get(key))
        if other is None:
            if own is not None and not is_own_change:
                plan.deletes.append(key)
        elif other.revision > base.revision and own != other:
            if own is None or not is_own_change:
                plan.take(key, other)
            else:
                await _settle_both_changed(plan, mine, theirs, key, own, other)
    return plan


async def _settle_both_changed(plan: Plan, mine: Side, theirs: Side, key: bytes, own: Entry, other: Entry) -> None:
    own_wins = _order(own) >= _order(other) and _can_open(mine, own)
    if own_wins:
        plan.puts[key] = own  # under a new revision: the one that it has may have been that of a value over there
    else:
        plan.take(key, other)
    if await _have_same_value(mine, own, theirs, other):
        return
    new_key = conflict_key(key, other if own_wins else own)
    plan.conflicts.append(SyncConflict(key.decode(), new_key.decode()))
    if await mine.view.find(new_key) is not None:
        return  # it was kept by an attempt that broke off
    if own_wins:
        plan.take(new_key, other)
    else:
        plan.puts[new_key] = own


def _can_open(side: Side, entry: Entry) -> bool:
    return entry.reference is None or entry.reference.epoch in side.unlocked.keyring.epochs


def _is_copy(entry: Entry, copy: Entry | None) -> bool:
    return copy is not None and attrs.evolve(entry, revision=0) == attrs.evolve(copy, revision=0)


def conflict_key(key: bytes, loser: Entry) -> bytes:
    """Return the key under which the older of two values is kept: always the same for the same value."""
    digest = hashlib.sha3_256(_order(loser)[1]).hexdigest()[:16]
    suffix = f" (conflict {digest})".encode()
    return key[: MAX_KEY_SIZE - len(suffix)].decode(errors="ignore").encode() + suffix


def _order(entry: Entry) -> tuple[int, bytes]:
    """Return what decides between two entries, whichever replica has which: the time, else the bytes."""
    return entry.modified_at, attrs.evolve(entry, revision=0).encode()


async def _have_same_value(mine: Side, own: Entry, theirs: Side, other: Entry) -> bool:
    if (own.kind, own.size) != (other.kind, other.size):
        return False
    if own.reference is None or other.reference is None or own.reference == other.reference:
        return own.content == other.content
    ours = _chunks(mine.objects, own.reference)
    others = _chunks(theirs.objects, other.reference)
    while True:
        chunk = await anext(ours, b"")
        if chunk != await anext(others, b""):
            return False
        if not chunk:
            return True


def _chunks(objects: ObjectStore, reference: Reference) -> AsyncIterator[bytes]:
    return objects.chunks(reference, 0, reference.size)


async def changed_references(
    old: Side | None, new: Side, keys: Sequence[bytes]
) -> tuple[list[Reference], list[Reference]]:
    """Return the objects that a new state of a replica needs and the old one has not, and those it needs no more.

    Args:
        old: None for a store without a chamber.
        new: The state that is to come.
        keys: Those whose entries may differ.
    """
    needed: dict[bytes, Reference] = {}
    gone: dict[bytes, Reference] = {}
    if old is None:
        async for _, entry in new.view.entries():
            _add(needed, entry)
    else:
        for key in keys:
            _add(needed, await new.view.find(key))
            _add(gone, await old.view.find(key))
        gone.update((part.object_id, part) for part in old.view.parts())
    needed.update((part.object_id, part) for part in new.view.parts())
    # What the new state cannot open is not there for it, even where the old one can: to copy it is refused.
    known = new.unlocked.keyring.epochs
    missing = [each for object_id, each in needed.items() if object_id not in gone or each.epoch not in known]
    return missing, [reference for object_id, reference in gone.items() if object_id not in needed]


def _add(references: dict[bytes, Reference], entry: Entry | None) -> None:
    if entry is not None and entry.reference is not None:
        references[entry.reference.object_id] = entry.reference
