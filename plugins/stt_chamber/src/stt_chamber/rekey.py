"""New keys for a chamber: what its secrets unwrap, at once; what its data are sealed under, while it is used."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from stt_chamber.header import UnlockedHeader
from stt_core.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stt_chamber.chamber import Chamber
    from stt_chamber.entries import Reference
    from stt_chamber.index import View
    from stt_chamber.keys import Secret
    from stt_chamber.ledger import Draft, Ledger


async def add_recipient(chamber: Chamber, secret: Secret) -> None:
    """Let one more seed or passphrase open a chamber.

    Raises:
        ConfigError: There are too many.
        StorageError: The store failed.
    """
    await chamber.ledger.change_header(lambda header: header.with_recipient(secret))


async def rekey(chamber: Chamber, secrets: Sequence[Secret]) -> None:
    """Let these seeds and passphrases open a chamber, and no others, from now on.

    The values stay as they are: who has opened the chamber before may have kept the data key, and reads with it
    whatever of the store it gets, until :func:`rekey_data` has run.

    Raises:
        ConfigError: There are no secrets, or too many.
        StorageError: The store failed.
    """
    await chamber.ledger.change_header(lambda header: header.with_secrets(secrets), secrets=secrets)


def _ignore(_: int) -> None:
    pass


async def rekey_data(chamber: Chamber, progress: Callable[[int], None] = _ignore) -> None:
    """Write all that a chamber has anew, under a new data key; then forget the one before.

    The chamber can be used meanwhile, here and by other processes. What was interrupted goes on when it is called
    again; until then both keys are kept.

    Args:
        chamber: An open one.
        progress: Told of the bytes of each value that was written.

    Raises:
        DamagedError: A value is not whole: repair the chamber first.
        Conflict: Orphans were collected meanwhile, or another process does the same: call it again.
        StorageError: The store failed.
    """
    ledger = chamber.ledger
    await ledger.reload_header()
    if len(ledger.unlocked.keyring.epochs) == 1:
        await ledger.change_header(UnlockedHeader.with_new_data_key, fenced=True)
    else:
        await ledger.announce_header(fenced=True)
    epoch = ledger.unlocked.keyring.epoch
    while True:
        await _move_values(ledger, epoch, progress)
        await ledger.merge(oldest_epoch=epoch)
        if await ledger.consistently(functools.partial(_is_under, epoch=epoch)):
            break
    await ledger.copy_root()
    # Not the newest key alone: another process may have added one meanwhile, under which there is not everything yet.
    await ledger.change_header(lambda header: header.with_data_keys_from(epoch), fenced=True)


async def _move_values(ledger: Ledger, epoch: int, progress: Callable[[int], None]) -> None:
    after = b""
    while found := await ledger.consistently(functools.partial(_next_old, after=after, epoch=epoch)):
        after, revision, reference = found
        ledger.pin(reference)
        try:
            await _move(ledger, after, revision, reference)
        finally:
            await ledger.unpin(reference)
        progress(reference.size)


async def _move(ledger: Ledger, key: bytes, revision: int, reference: Reference) -> None:
    started_at = (await ledger.refresh()).root.sequence
    writer = ledger.objects.writer()
    try:
        async for chunk in ledger.objects.chunks(reference, 0, reference.size):
            await writer.write(chunk)
        content = await writer.finish()
    except StorageError:
        await writer.discard()
        view = await ledger.refresh()
        entry = await view.find(key)
        if entry is not None and entry.revision == revision:
            raise
        return  # it was replaced by a value that is under the new key

    async def operation(draft: Draft) -> bool:
        draft.require_kept(started_at)
        return await draft.move(key, revision, content)

    if not await ledger.change(operation):
        await ledger.objects.remove([content])


async def _next_old(view: View, after: bytes, epoch: int) -> tuple[bytes, int, Reference] | None:
    async for key, entry in view.entries(after):
        if key > after and entry.reference is not None and entry.reference.epoch < epoch:
            return key, entry.revision, entry.reference
    return None


async def _is_under(view: View, epoch: int) -> bool:
    parts = (*view.root.directories, *view.root.segments, *view.directory.pages)
    return all(part.epoch >= epoch for part in parts) and await _next_old(view, b"", epoch) is None
