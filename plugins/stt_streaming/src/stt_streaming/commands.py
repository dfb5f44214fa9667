"""The commands ``stt send`` and ``stt receive``."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import attrs
import click

from stt_core import STTConfig, STTNode
from stt_core.errors import STTError
from stt_core.interfaces import ExitStatus
from stt_streaming.options import allow_option, parse_node_id
from stt_streaming.transfer.inbox import Existing, Inbox
from stt_streaming.transfer.messages import TransferStatus
from stt_streaming.transfer.rate import RateLimit
from stt_streaming.transfer.receiver import FileReceiver, ReceivedItem, SessionProgress
from stt_streaming.transfer.sender import FileSender, SentItem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from stt_core import STTSession
    from stt_core.interfaces import CommandContext

MAX_SESSIONS: Final = 32
"""Senders that a receiver serves at a time: with 6 items of 4 descriptors each, within the 1024 that a shell allows."""

PROGRESS_INTERVAL: Final = 0.5
"""Seconds between two events that tell a program how far an item is."""

LISTED_LIMIT: Final = 20
"""Paths that are told one by one of those that are missing in a folder."""

_UNITS: Final = {
    "": 1,
    **{unit: 1000**power for power, unit in enumerate("KMGT", 1)},
    **{unit + "I": 1024**power for power, unit in enumerate("KMGT", 1)},
}


class _Finished(Protocol):
    """What a sent and a received item have in common."""

    @property
    def name(self) -> str: ...
    @property
    def is_folder(self) -> bool: ...
    @property
    def files(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def resumed(self) -> int: ...
    @property
    def sha3_256(self) -> bytes: ...
    @property
    def seconds(self) -> float: ...


def _parse_size(text: str) -> int:
    matched = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,3})?)([KMGT]?I?)B?", text.upper())
    size = float(matched[1]) * _UNITS.get(matched[2], 0) if matched else 0
    if size < 1:
        raise click.BadParameter(f"{text!r} is no number of bytes such as 500K, 20M or 1.5Gi")
    return int(size)


# send


@attrs.frozen(kw_only=True)
class _Destination:
    """One receiver."""

    urls: Sequence[str]
    expect: bytes | None


@click.command()
@click.argument("urls", metavar="URL[,URL...]")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--expect",
    type=parse_node_id,
    multiple=True,
    metavar="NODE_ID",
    help="Send only to the node with this id, or these.",
)
@click.option("--also", multiple=True, metavar="URL[,URL...]", help="Send to this receiver at the same time.")
@click.option("--links", is_flag=True, help="Send symbolic links in folders as links, instead of leaving them out.")
@click.option(
    "--resume/--no-resume", default=True, help="Go on with what the receiver has of an earlier attempt; the default."
)
@click.option("--limit-rate", type=_parse_size, metavar="SIZE", help="Send no more bytes in a second, such as 2M.")
@click.pass_obj
def send(
    context: CommandContext,
    *,
    urls: str,
    paths: tuple[Path, ...],
    expect: tuple[bytes, ...],
    also: tuple[str, ...],
    links: bool,
    resume: bool,
    limit_rate: int | None,
) -> None:
    """Send files and folders to the peer that runs 'stt receive' at URL.

    A file or folder counts as sent once the receiver has stored it and confirmed its SHA3-256. When something breaks
    off, the same command goes on where it was. Of several URLs of the peer, such as udp://host:4433,wss://host/stt, the
    best that works is used, also when that changes on the way.
    """
    receivers = (urls, *also)
    if len(expect) not in (0, len(receivers)):
        raise click.UsageError(
            "--expect is for some receivers only: give it once for each, in their order, or not at all"
        )
    destinations = [
        _Destination(urls=each.split(","), expect=node_id)
        for each, node_id in zip(receivers, expect or (None,) * len(receivers), strict=True)
    ]
    sending = _Transmission(
        context, paths=tuple(dict.fromkeys(paths)), keep_links=links, resume=resume, limit_rate=limit_rate
    )
    context.run(sending.run(destinations))


class _Transmission:
    """All that one run of ``send`` sends, to one receiver or several."""

    def __init__(
        self,
        context: CommandContext,
        *,
        paths: Sequence[Path],
        keep_links: bool,
        resume: bool,
        limit_rate: int | None,
    ) -> None:
        self._context = context
        self._display = _Display(context)
        self._paths = paths
        self._keep_links = keep_links
        self._resume = resume
        self._limit = RateLimit(limit_rate) if limit_rate else None

    async def run(self, destinations: Sequence[_Destination]) -> ExitStatus:
        """Send to all receivers at a time; one that cannot be reached does not hinder the others."""
        context = self._context
        node = STTNode(
            node_seed=context.node_seed(), shared_seed=context.shared_seeds(), config=STTConfig(keepalive=True)
        )
        async with node:
            if len(destinations) == 1:
                return await self._send_to(node, destinations[0])
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._try_to_send_to(node, each)) for each in destinations]
        return max(task.result() for task in tasks)

    async def _try_to_send_to(self, node: STTNode, destination: _Destination) -> ExitStatus:
        try:
            return await self._send_to(node, destination)
        except STTError as error:
            self._context.note(f"nothing was sent to {','.join(destination.urls)}: {error}")
            return ExitStatus.FAILED

    async def _send_to(self, node: STTNode, destination: _Destination) -> ExitStatus:
        session = await node.connect(destination.urls, expect=destination.expect)
        peer = session.peer_node_id.hex()
        sender = FileSender(
            session,
            progress=self._display.progress_with(peer),
            stored=lambda item: self._stored(item, peer),
            failed=lambda path, error: self._context.note(f"{path} was not sent: {error}"),
            limit=self._limit,
            keep_links=self._keep_links,
            resume=self._resume,
        )
        try:
            all_stored = await sender.send(self._paths)
        except asyncio.CancelledError:
            session.close(TransferStatus.CANCELLED.stream_code, "the sender was stopped")
            raise
        session.close()
        return ExitStatus.DONE if all_stored else ExitStatus.FAILED

    def _stored(self, item: SentItem, peer: str) -> None:
        missing = [f"{left_out.path}: {left_out.reason}" for left_out in item.left_out if not left_out.by_choice]
        by_choice = [f"{left_out.path} {left_out.reason}" for left_out in item.left_out if left_out.by_choice]
        _list(self._context, "was not sent", missing)
        _list(self._context, "and was left out", by_choice)
        _report_item(self._context, f"sent {item.name} to {peer}", item, peer, left_out=len(item.left_out))


# receive


@click.command()
@click.argument("urls", metavar="URL...", nargs=-1, required=True)
@click.option(
    "--dir",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(),
    help="The folder that files go into; the current one unless given.",
)
@click.option("--once", is_flag=True, help="Take what one sender sends, then end.")
@allow_option
@click.option(
    "--existing",
    type=click.Choice([each.value for each in Existing]),
    default=Existing.NUMBER.value,
    help="If a name is taken: give the new one a number, which is the default; refuse it; or replace what is there.",
)
@click.option("--quota", type=_parse_size, metavar="SIZE", help="Take no more bytes in all, such as 20G.")
@click.option("--links", is_flag=True, help="Make symbolic links that stay inside their folder.")
@click.option("--only", multiple=True, metavar="PATTERN", help="Take only files with such a path, as '*.jpg'.")
@click.pass_obj
def receive(  # noqa: PLR0913  one for each option
    context: CommandContext,
    *,
    urls: tuple[str, ...],
    folder: Path,
    once: bool,
    allow: tuple[bytes, ...],
    existing: str,
    quota: int | None,
    links: bool,
    only: tuple[str, ...],
) -> None:
    """Receive files and folders at URLs such as udp://0.0.0.0:4433 from peers that run 'stt send'.

    What is there already is kept; the new one gets a number. With port 0 the system chooses one.
    """

    async def run() -> ExitStatus:
        node = STTNode(
            node_seed=context.node_seed(),
            shared_seed=context.shared_seeds(),
            config=STTConfig(keepalive=True, max_sessions=MAX_SESSIONS),
            allow=frozenset(allow) or None,
        )
        with Inbox(folder, existing=Existing(existing), quota=quota) as inbox:
            inbox.check()
            async with node:
                for url in await node.listen(*urls):
                    context.listening(url)
                context.note(f"node id {node.node_id.hex()}")
                return await _Reception(context, node, inbox, once=once, keep_links=links, only=only).run()

    context.run(run())


class _Reception:
    """All sessions of one run of ``receive``."""

    def __init__(
        self,
        context: CommandContext,
        node: STTNode,
        inbox: Inbox,
        *,
        once: bool,
        keep_links: bool,
        only: Sequence[str],
    ) -> None:
        self._context = context
        self._node = node
        self._once = once
        self._receiver = FileReceiver(
            inbox,
            stored=self._stored,
            failed=self._failed,
            admits=self._admits,
            progress=_Display(context).progress_with(""),
            keep_links=keep_links,
            wants=(lambda path: any(fnmatchcase(path, pattern) for pattern in only)) if only else None,
        )
        self._sender: STTSession | None = None  # with --once: the session that offered something first
        self._finished: asyncio.Future[SessionProgress] = asyncio.get_running_loop().create_future()

    async def run(self) -> ExitStatus:
        """Serve sessions; with ``--once`` until that of the one sender has ended."""
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(self._serve_all())
            progress = await self._finished
            serving.cancel()
        return ExitStatus.DONE if progress.complete and not progress.incomplete else ExitStatus.FAILED

    # Internals

    async def _serve_all(self) -> None:
        async with asyncio.TaskGroup() as group:
            async for session in self._node.sessions():
                group.create_task(self._serve(session))

    async def _serve(self, session: STTSession) -> None:
        progress = SessionProgress()
        try:
            await self._receiver.serve(session, progress)
        except asyncio.CancelledError:
            session.close(TransferStatus.CANCELLED.stream_code, "the receiver was stopped")
            raise
        if session is self._sender:
            self._finished.set_result(progress)

    def _admits(self, session: STTSession) -> bool:
        if not self._once:
            return True
        sender = self._sender
        # A sender that was killed may come again while its first session still seemed to live, and is closed now.
        if sender is None or (sender.closed and sender.peer_node_id == session.peer_node_id):
            self._sender = session
        return self._sender is session

    def _stored(self, item: ReceivedItem) -> None:
        peer = item.peer_node_id.hex()
        _list(self._context, "is missing", item.left_out)
        _report_item(self._context, f"received {item.name} from {peer}", item, peer, left_out=len(item.left_out))

    def _failed(self, peer_node_id: bytes, name: str, error: Exception) -> None:
        self._context.note(f"{name or 'a file'} from {peer_node_id.hex()} was not received: {error}")


# Both


class _Display:
    """Shows people one bar at a time, and tells programs of all items."""

    def __init__(self, context: CommandContext) -> None:
        self._context = context
        self._is_shown = False

    def progress_with(
        self, peer: str
    ) -> Callable[[str, int], contextlib.AbstractContextManager[Callable[[int], None]]]:
        """Return what shows the progress of an item; ``peer`` is told to programs if it is known."""
        return lambda name, size: self._progress(name, size, {"peer": peer} if peer else {})

    @contextlib.contextmanager
    def _progress(self, name: str, size: int, fields: dict[str, str]) -> Iterator[Callable[[int], None]]:
        if self._context.json:
            yield self._tell(name, size, fields)
        elif self._is_shown:
            yield lambda _: None
        else:
            self._is_shown = True
            try:
                with self._context.progress(name, size) as advance:
                    yield advance
            finally:
                self._is_shown = False

    def _tell(self, name: str, size: int, fields: dict[str, str]) -> Callable[[int], None]:
        done = 0
        told_at = began_at = time.monotonic()

        def advance(step: int) -> None:
            nonlocal done, told_at
            done += step
            now = time.monotonic()
            if now - told_at >= PROGRESS_INTERVAL:
                told_at = now
                seconds = round(now - began_at, 6)
                self._context.report("progress", "", name=name, size=size, done=done, seconds=seconds, **fields)

        return advance


def _list(context: CommandContext, what: str, paths: Sequence[str]) -> None:
    for path in paths[:LISTED_LIMIT]:
        context.note(f"{path} {what}")
    if len(paths) > LISTED_LIMIT:
        context.note(f"and {len(paths) - LISTED_LIMIT} more, of which each {what}")


def _report_item(context: CommandContext, text: str, item: _Finished, peer: str, *, left_out: int) -> None:
    digest = item.sha3_256.hex()
    rate = (item.size - item.resumed) / max(item.seconds, 1e-6)
    count = f"{item.files} files, " if item.is_folder else ""
    resumed = f", {_megabytes(item.resumed)} of it earlier" if item.resumed else ""
    fields: dict[str, int] = {"files": item.files, "left_out": left_out} if item.is_folder else {}
    context.report(
        "folder" if item.is_folder else "file",
        f"{text}: {count}{_megabytes(item.size)} in {item.seconds:.2f} s ({_megabytes(rate)}/s){resumed}, "
        f"SHA3-256 {digest}",
        name=item.name,
        size=item.size,
        resumed=item.resumed,
        sha3_256=digest,
        peer=peer,
        seconds=round(item.seconds, 6),
        **fields,
    )


def _megabytes(size: float) -> str:
    return f"{size:.0f} bytes" if size < 1e5 else f"{size / 1e6:.1f} MB"
