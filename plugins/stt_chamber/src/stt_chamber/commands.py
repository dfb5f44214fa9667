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
from stt_chamber.errors import NoChamber
from stt_chamber.header import Header
from stt_chamber.keys import Passphrase, Seed, namespace
from stt_chamber.ledger import Names
from stt_chamber.rekey import rekey, rekey_data
from stt_chamber.seen import SeenPosition
from stt_chamber.upkeep import check, repair
from stt_core import decode_seed, load_plugins
from stt_core.errors import ConfigError, StorageError
from stt_core.interfaces import ExitStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from stt_chamber.keys import Secret
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
_UNITS: Final[dict[str, int]] = {"": 1} | {
    letter + suffix: base**exponent
    for exponent, letter in enumerate("KMGT", 1)
    for suffix, base in (("", 1000), ("i", 1024))
}


@attrs.frozen
class _Place:
    """Which chamber a command is about, and what opens it."""

    context: CommandContext
    store: str = attrs.field(repr=False)  # it may have a password, so no message shows it
    name: str
    passphrase_file: Path | None

    def secrets(self) -> list[Secret]:
        if self.passphrase_file is not None:
            return [_read_passphrase(self.passphrase_file)]
        return [Seed(seed) for seed in self.context.shared_seeds()]

    @contextlib.asynccontextmanager
    async def storage(self) -> AsyncIterator[StorageProvider]:
        storage = load_plugins().store(self.store)(self.store)
        try:
            yield storage
        finally:
            await storage.close()

    @contextlib.asynccontextmanager
    async def chamber(self) -> AsyncIterator[Chamber]:
        """Open the chamber, unless the store shows an earlier state than the last command saw."""
        async with self.storage() as storage:
            seen = SeenPosition(await self.chamber_id(storage))
            async with await Chamber.open(storage, self.secrets(), name=self.name, expected=seen.load()) as chamber:
                try:
                    yield chamber
                finally:
                    seen.save(chamber.position)

    async def chamber_id(self, storage: StorageProvider) -> bytes:
        header = await storage.retrieve(Names(namespace(self.name)).header)
        if header is None:
            raise NoChamber("there is no chamber of that name in the store: 'stt chamber init' makes one")
        return Header.decode(header).chamber_id


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
    @click.pass_obj
    @functools.wraps(function)
    def run(
        context: CommandContext, /, *, store: str, name: str, passphrase_file: Path | None, **arguments: Any
    ) -> None:
        place = _Place(context, store, name, passphrase_file)

        async def main() -> ExitStatus:
            try:
                return await function(place, **arguments)
            except OSError as error:  # of a file, or of standard input and output
                raise StorageError(f"{error.filename or 'standard input or output'}: {error.strerror}") from error

        context.run(main())

    return chamber.command(name=function.__name__.strip("_"))(run)


def _parse_size(_: click.Context, __: click.Parameter, text: str | None) -> int | None:
    if text is None:
        return None
    number = text.rstrip("KMGTi")
    unit = text[len(number) :]
    if not number.isdecimal() or unit not in _UNITS:
        raise click.BadParameter(f"{text!r} is no size, such as 500M or 2G")
    return int(number) * _UNITS[unit]


# Values


@_command
@click.option("--quota", callback=_parse_size, metavar="SIZE", help="What all values together may have, as in 2G.")
async def init(place: _Place, quota: int | None) -> ExitStatus:
    """Make a chamber that the seed, or the passphrase, opens."""
    async with place.storage() as storage:
        made = await Chamber.create(storage, place.secrets(), name=place.name, quota=quota)
        async with made:
            info = await made.info()
            SeenPosition(info.chamber_id).save(made.position)
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
        async with place.storage() as storage:
            SeenPosition(await place.chamber_id(storage)).forget()
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
async def _repair(place: _Place) -> ExitStatus:
    """Keep what is whole, forget what is not, and remove what belongs to nothing."""
    async with place.storage() as storage:
        with place.context.progress("repair", 0) as advance:
            report = await repair(storage, place.secrets(), name=place.name, progress=advance)
        async with await Chamber.open(storage, place.secrets(), name=place.name) as opened:
            SeenPosition((await opened.info()).chamber_id).save(opened.position)
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
    place.context.report("imported", f"imported {file}", path=str(file))
    return ExitStatus.DONE


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
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb") as file:  # noqa: PTH123  of a descriptor, for its permissions
                yield file
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}") from error
