"""The command ``stt chamber`` and its sub-commands."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import secrets as random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import attrs
import click

from stt_chamber.archive import export_chamber, import_chamber
from stt_chamber.chamber import Chamber
from stt_chamber.errors import DamagedError, NoChamber, RollbackDetected, StoreRefused
from stt_chamber.files import create_private
from stt_chamber.header import Header
from stt_chamber.keys import Passphrase, Seed, namespace
from stt_chamber.ledger import Names
from stt_chamber.peer_stores import open_store
from stt_chamber.rekey import rekey, rekey_data
from stt_chamber.seen import SeenPlace, SeenPosition
from stt_chamber.serve_command import serve
from stt_chamber.sizes import parse_size
from stt_chamber.sync import sync
from stt_chamber.upkeep import check, repair
from stt_core import decode_seed
from stt_core.errors import ConfigError, StorageError
from stt_core.interfaces import ExitStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager

    from stt_chamber.keys import Secret
    from stt_chamber.root import Position
    from stt_core.interfaces import CommandContext, StorageProvider

STORE_VARIABLE: Final = "STT_CHAMBER_STORE"
"""The environment variable that names the store where ``--store`` is not given."""

PIECE_SIZE: Final = 1 << 20
"""Bytes that are read of a file at a time."""

MAX_PASSPHRASE_FILE_SIZE: Final = 4096
"""Bytes that are read of a file with a passphrase."""

LISTED_AT_A_TIME: Final = 1000
"""Keys that are listed at a time."""

_FILE: Final = click.Path(dir_okay=False, path_type=Path)


@attrs.frozen
class _Place:
    """Which chamber a command is about, and what opens it."""

    context: CommandContext
    store: str = attrs.field(repr=False)  # it may have a password, so no message shows it
    name: str
    passphrase_file: Path | None
    session_seed_file: Path | None

    def secrets(self) -> list[Secret]:
        if self.passphrase_file is not None:
            return [_read_passphrase(self.passphrase_file)]
        return [Seed(seed) for seed in self.context.shared_seeds()]

    def session_seeds(self) -> Sequence[bytes]:
        """Return the seeds for sessions with peers."""
        if self.session_seed_file is not None:
            return [_read_seed(self.session_seed_file).value]
        if self.passphrase_file is None:
            self.context.note(
                "warning: the seed of the chamber opens the session, too, so that a peer which answers could read it: "
                "give --session-seed"
            )
        return self.context.shared_seeds()

    def storage(self, url: str = "") -> AbstractAsyncContextManager[StorageProvider]:
        """Open the store of the chamber, or another one."""
        return open_store(url or self.store, self.context, self.session_seeds)

    async def seen(self, storage: StorageProvider, url: str = "") -> SeenPosition:
        """Return where the last state is kept that a command saw of the store of the chamber, or of another one."""
        return SeenPosition(await self.chamber_id(storage, url), url or self.store)

    def seen_place(self, url: str = "") -> SeenPlace:
        """Return where it is kept which chamber the last command saw in the store, or in another one."""
        return SeenPlace(url or self.store, self.name)

    async def last_position(self, storage: StorageProvider) -> Position | None:
        """Return the last state that a command saw, though the header may not be whole; None if there is none."""
        names = Names(namespace(self.name))
        chamber_id = self.seen_place().load()
        for key in (names.header, names.header_copy):
            if chamber_id is None:
                with contextlib.suppress(DamagedError):
                    chamber_id = Header.decode(await storage.retrieve(key) or b"").chamber_id
        return None if chamber_id is None else SeenPosition(chamber_id, self.store).load()

    @contextlib.asynccontextmanager
    async def chamber(self) -> AsyncIterator[Chamber]:
        """Open the chamber, unless the store shows an earlier state than the last command saw."""
        async with self.storage() as storage:
            seen = await self.seen(storage)
            async with await Chamber.open(storage, self.secrets(), name=self.name, expected=seen.load()) as chamber:
                self.seen_place().save(chamber.position.chamber_id)
                try:
                    yield chamber
                finally:
                    seen.save(chamber.position)

    async def chamber_id(self, storage: StorageProvider, url: str = "") -> bytes:
        header = await storage.retrieve(Names(namespace(self.name)).header)
        if header is None:
            raise NoChamber("there is no chamber of that name in the store: 'stt chamber init' makes one")
        found = Header.decode(header).chamber_id
        if self.seen_place(url).load() not in (None, found):
            raise RollbackDetected(
                "the store has another chamber than the one that was seen there: "
                "'stt chamber info --accept-rollback' trusts it"
            )
        return found


@click.group()
def chamber() -> None:
    """Keep values in an encrypted store."""


def _command(function: Callable[..., Awaitable[ExitStatus]]) -> click.Command:
    """Make a sub-command of a coroutine function whose first argument is the place of the chamber."""

    @click.option(
        "--store",
        required=True,
        envvar=STORE_VARIABLE,
        metavar="URL",
        help=f"Where the chamber is, as in sqlite:///path/file or file:///path/folder; else {STORE_VARIABLE} counts.",
    )
    @click.option("--name", default="", help="Which chamber, where the store has several.")
    @click.option("--passphrase-file", type=_FILE, metavar="FILE", help="Open with the passphrase in FILE, not a seed.")
    @click.option(
        "--session-seed",
        "session_seed_file",
        type=_FILE,
        metavar="FILE",
        help="The seed for sessions with the peer that has the store, if it is not that of the chamber.",
    )
    @click.pass_obj
    @functools.wraps(function)
    def run(
        context: CommandContext,
        /,
        *,
        store: str,
        name: str,
        passphrase_file: Path | None,
        session_seed_file: Path | None,
        **arguments: Any,
    ) -> None:
        place = _Place(context, store, name, passphrase_file, session_seed_file)

        async def main() -> ExitStatus:
            try:
                return await function(place, **arguments)
            except StoreRefused as error:
                context.note(f"stt: {error}")
                return ExitStatus.REFUSED
            except OSError as error:  # of a file, or of standard input and output
                raise StorageError(f"{error.filename or 'standard input or output'}: {error.strerror}") from error

        context.run(main())

    return chamber.command(name=function.__name__.strip("_"))(run)


# Values


@_command
@click.option("--quota", callback=parse_size, metavar="SIZE", help="What all values together may have, as in 2G.")
async def init(place: _Place, quota: int | None) -> ExitStatus:
    """Make a chamber that the seed, or the passphrase, opens."""
    async with place.storage() as storage:
        made = await Chamber.create(storage, place.secrets(), name=place.name, quota=quota)
        async with made:
            info = await made.info()
            SeenPosition(info.chamber_id, place.store).save(made.position)
            place.seen_place().save(info.chamber_id)
    place.context.report("chamber", f"made the chamber {info.chamber_id.hex()}", chamber=info.chamber_id.hex())
    return ExitStatus.DONE


@_command
@click.argument("key")
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--ttl", type=click.FloatRange(min=0), metavar="SECONDS", help="After this time the value is gone.")
async def put(place: _Place, key: str, file: Path | None, ttl: float | None) -> ExitStatus:
    """Store FILE, or standard input, under KEY; done once it is durable."""
    async with place.chamber() as opened:
        if not opened.ledger.storage.capabilities.durable:
            place.context.note("warning: the store does not promise to keep what it acknowledges")
        size = file.stat().st_size if file else 0  # noqa: ASYNC240  one call
        with contextlib.ExitStack() as stack:
            source: BinaryIO = stack.enter_context(file.open("rb")) if file else sys.stdin.buffer
            advance = stack.enter_context(place.context.progress(key, size)) if file else _ignore
            async with opened.open_writer(key, ttl=ttl) as writer:
                written = 0
                while piece := await asyncio.to_thread(source.read, PIECE_SIZE):
                    await writer.write(piece)
                    written += len(piece)
                    advance(len(piece))
        _report_value(place, "stored", key, written, writer.revision)
    return ExitStatus.DONE


@_command
@click.argument("key")
@click.option("--out", type=_FILE, metavar="FILE", help="Write the value to FILE, which is replaced when it is whole.")
async def get(place: _Place, key: str, out: Path | None) -> ExitStatus:
    """Write the value of KEY to standard output, or to a file."""
    async with place.chamber() as opened, opened.open_reader(key) as reader:
        with contextlib.ExitStack() as stack:
            target = stack.enter_context(_replaced(out)) if out else sys.stdout.buffer
            advance = stack.enter_context(place.context.progress(key, reader.size)) if out else _ignore
            async for piece in reader:
                await asyncio.to_thread(target.write, piece)
                advance(len(piece))
            target.flush()
        if out:
            _report_value(place, f"wrote {out}:", key, reader.size, (await opened.metadata(key)).revision)
    return ExitStatus.DONE


@_command
@click.argument("prefix", default="")
async def _list(place: _Place, prefix: str) -> ExitStatus:
    """List the keys that begin with PREFIX."""
    async with place.chamber() as opened:
        after = ""
        while keys := await opened.list(prefix, after=after, limit=LISTED_AT_A_TIME):
            for key in keys:
                place.context.report("key", key, key=key)
            after = keys[-1]
    return ExitStatus.DONE


@_command
@click.argument("key")
async def delete(place: _Place, key: str) -> ExitStatus:
    """Remove the value of KEY."""
    async with place.chamber() as opened:
        was_there = await opened.delete(key)
    if not was_there:
        place.context.note(f"nothing is stored under {key!r}")
        return ExitStatus.FAILED
    place.context.report("deleted", f"deleted {key}", key=key)
    return ExitStatus.DONE


# The chamber as a whole


@_command
@click.option("--accept-rollback", is_flag=True, help="Trust the store as it is, as after a backup was restored.")
async def info(place: _Place, *, accept_rollback: bool) -> ExitStatus:
    """Show how much a chamber holds, and who may open it."""
    if accept_rollback:
        place.seen_place().forget()
        async with place.storage() as storage:
            (await place.seen(storage)).forget()
    async with place.chamber() as opened:
        found = await opened.info()
        sequence = opened.position.sequence
    quota = "no quota" if found.quota is None else f"a quota of {found.quota}"
    place.context.report(
        "chamber",
        f"chamber {found.chamber_id.hex()}: {found.count} values of {found.size} bytes, {quota}, "
        f"{found.recipients} recipients, data key {found.epoch}, state {sequence}"
        + ("; a change of the data key is under way" if found.is_rekeying else ""),
        chamber=found.chamber_id.hex(),
        values=found.count,
        size=found.size,
        quota=-1 if found.quota is None else found.quota,
        recipients=found.recipients,
        epoch=found.epoch,
        rekeying=found.is_rekeying,
        sequence=sequence,
    )
    return ExitStatus.DONE


@_command
async def _check(place: _Place) -> ExitStatus:
    """Read everything, and name whatever is damaged."""
    async with place.chamber() as opened:
        size = (await opened.info()).size
        with place.context.progress("check", size) as advance:
            report = await check(opened, advance)
    for damage in report.damaged:
        place.context.report("damage", f"{damage.what}: {damage.reason}", what=damage.what, reason=damage.reason)
    place.context.report(
        "checked",
        f"{report.values} values of {report.size} bytes are whole, {len(report.damaged)} damages, "
        f"{report.orphans} orphaned chunks",
        values=report.values,
        size=report.size,
        damages=len(report.damaged),
        orphans=report.orphans,
    )
    return ExitStatus.FAILED if report.damaged else ExitStatus.DONE


@_command
@click.option(
    "--accept-rollback", is_flag=True, help="Go back to an earlier state than was seen, if that alone is whole."
)
async def _repair(place: _Place, *, accept_rollback: bool) -> ExitStatus:
    """Keep what is whole, forget what is not, and remove what belongs to nothing."""
    async with place.storage() as storage:
        expected = None if accept_rollback else await place.last_position(storage)
        with place.context.progress("repair", 0) as advance:
            report = await repair(storage, place.secrets(), name=place.name, expected=expected, progress=advance)
        async with await Chamber.open(storage, place.secrets(), name=place.name) as opened:
            seen = SeenPosition(opened.position.chamber_id, place.store)
            if accept_rollback:
                seen.forget()
            seen.save(opened.position)
            place.seen_place().save(opened.position.chamber_id)
    for damage in report.lost:
        place.context.report("lost", f"lost {damage.what}: {damage.reason}", what=damage.what, reason=damage.reason)
    place.context.report(
        "repaired",
        f"{len(report.lost)} lost, {report.orphans} orphaned chunks removed",
        lost=len(report.lost),
        orphans=report.orphans,
    )
    return ExitStatus.FAILED if report.lost else ExitStatus.DONE


@_command
@click.option(
    "--new-seed", "seeds", type=_FILE, multiple=True, metavar="FILE", help="A seed that opens it from now on."
)
@click.option(
    "--new-passphrase-file", "passphrases", type=_FILE, multiple=True, metavar="FILE", help="A passphrase, likewise."
)
@click.option("--data", is_flag=True, help="Write all values anew under a new data key.")
async def _rekey(place: _Place, seeds: tuple[Path, ...], passphrases: tuple[Path, ...], *, data: bool) -> ExitStatus:
    """Change what opens a chamber, or the key that its values are under.

    The new seeds and passphrases open it at once, and no others; who has opened it before is shut out for good only
    with --data, too. What is interrupted goes on when the command is given again.
    """
    secrets: list[Secret] = [_read_seed(path) for path in seeds]
    secrets += [_read_passphrase(path) for path in passphrases]
    if not secrets and not data:
        raise ConfigError("nothing to change: give --new-seed FILE, --new-passphrase-file FILE or --data")
    async with place.chamber() as opened:
        if secrets:
            await rekey(opened, secrets)
        if data:
            with place.context.progress("rekey", (await opened.info()).size) as advance:
                await rekey_data(opened, advance)
        found = await opened.info()
    place.context.report(
        "rekeyed",
        f"{found.recipients} recipients, data key {found.epoch}",
        recipients=found.recipients,
        epoch=found.epoch,
    )
    return ExitStatus.DONE


@_command
@click.argument("file", type=_FILE)
async def export(place: _Place, file: Path) -> ExitStatus:
    """Write a chamber, sealed as it is, to a new FILE; needs no seed."""
    async with place.storage() as storage:
        with place.context.progress(file.name, 0) as advance:
            size = await export_chamber(storage, file, name=place.name, progress=advance)
    place.context.report("exported", f"exported {size} bytes to {file}", path=str(file), size=size)
    return ExitStatus.DONE


@_command
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
async def _import(place: _Place, file: Path) -> ExitStatus:
    """Read a chamber from a FILE that was exported; needs no seed."""
    async with place.storage() as storage:
        size = file.stat().st_size  # noqa: ASYNC240  one call
        with place.context.progress(file.name, size) as advance:
            await import_chamber(storage, file, name=place.name, progress=advance)
    place.seen_place().forget()  # whichever was there before
    place.context.report("imported", f"imported {file}", path=str(file))
    return ExitStatus.DONE


@_command
@click.argument("other", metavar="URL")
async def _sync(place: _Place, other: str) -> ExitStatus:
    """Make the chamber and its replica in the store at URL the same; the one that is missing is made.

    URL is that of any store, or of one that a peer serves, as in stt+udp://NODE_ID@host:4433. Where both changed one
    value, the newer one is kept, and the other one under a new key. What is interrupted goes on when the command is
    given again.
    """
    urls = (place.store, other)
    async with place.storage() as mine, place.storage(other) as theirs:
        expected = [await _last_seen(place, storage, url) for storage, url in zip((mine, theirs), urls, strict=True)]
        with place.context.progress("sync", 0) as advance:
            report = await sync(
                mine,
                theirs,
                place.secrets(),
                name=place.name,
                expected=(expected[0], expected[1]),
                progress=advance,
            )
    for url, position in zip(urls, report.positions, strict=True):
        SeenPosition(position.chamber_id, url).save_replica(position)
        place.seen_place(url).save(position.chamber_id)
    for conflict in report.conflicts:
        place.context.report(
            "conflict",
            f"both had changed {conflict.key}: the older value is {conflict.kept_as}",
            key=conflict.key,
            kept_as=conflict.kept_as,
        )
    received, sent = report.copied
    place.context.report(
        "synchronised",
        f"{sent} bytes sent, {received} received, {report.taken} changes merged, {len(report.conflicts)} conflicts",
        sent=sent,
        received=received,
        merged=report.taken,
        conflicts=len(report.conflicts),
        sequence=report.positions[1].sequence,
    )
    return ExitStatus.DONE


async def _last_seen(place: _Place, storage: StorageProvider, url: str) -> Position | None:
    try:
        return (await place.seen(storage, url)).load()
    except NoChamber:
        return None


chamber.add_command(serve)


# Internals


def _ignore(_: int) -> None:
    pass


def _report_value(place: _Place, verb: str, key: str, size: int, revision: int) -> None:
    place.context.report("value", f"{verb} {key}, {size} bytes", key=key, size=size, revision=revision)


def _read_seed(path: Path) -> Seed:
    lines = [line.strip() for line in _read_text(path).splitlines()]
    texts = [line for line in lines if line and not line.startswith("#")]
    if len(texts) != 1:
        raise ConfigError(f"{path} has {len(texts)} seeds, but one is needed")
    return Seed(decode_seed(texts[0]))


def _read_passphrase(path: Path) -> Passphrase:
    return Passphrase(_read_text(path).removesuffix("\n"))


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MAX_PASSPHRASE_FILE_SIZE).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {getattr(error, 'strerror', 'it is no text')}") from None


@contextlib.contextmanager
def _replaced(path: Path) -> Iterator[BinaryIO]:
    """Give a file that gets its name only when the context ends without an error."""
    temporary = path.with_name(f".{path.name}.{random.token_hex(8)}")
    try:
        descriptor = create_private(temporary)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}") from error
