"""The commands ``stt send`` and ``stt receive``."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import click

from stt_core import STTConfig, STTNode
from stt_core.interfaces import ExitStatus
from stt_streaming.transfer.inbox import Inbox
from stt_streaming.transfer.messages import TransferStatus
from stt_streaming.transfer.receiver import FileReceiver, ReceivedFile, SessionProgress
from stt_streaming.transfer.sender import FileSender

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stt_core import STTSession
    from stt_core.interfaces import CommandContext

NODE_ID_SIZE: Final = 32
"""Bytes of a node id; twice as many hexadecimal digits on the command line."""

MAX_SESSIONS: Final = 64
"""Senders that a receiver serves at a time: with 8 files each, within the 1024 open files that a shell allows."""


class _Finished(Protocol):
    """What a sent and a received file have in common."""

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def sha3_256(self) -> bytes: ...
    @property
    def seconds(self) -> float: ...


def _parse_node_id(text: str) -> bytes:
    try:
        node_id = bytes.fromhex(text)
    except ValueError:
        node_id = b""
    if len(node_id) != NODE_ID_SIZE:
        raise click.BadParameter(
            f"{text!r} is no node id, which has {2 * NODE_ID_SIZE} hexadecimal digits: see 'stt id'"
        )
    return node_id


# send


@click.command()
@click.argument("urls", metavar="URL[,URL...]")
@click.argument(
    "paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("--expect", type=_parse_node_id, metavar="NODE_ID", help="Send only to the node with this id.")
@click.pass_obj
def send(context: CommandContext, urls: str, paths: tuple[Path, ...], expect: bytes | None) -> None:
    """Send files to the peer that runs 'stt receive' at URL.

    A file counts as sent once the receiver has stored it and confirmed its SHA3-256. Of several URLs of the peer,
    such as udp://host:4433,wss://host/stt, the best that works is used, also when that changes on the way.
    """
    context.run(_send(context, urls.split(","), paths, expect))


async def _send(
    context: CommandContext, urls: Sequence[str], paths: Sequence[Path], expect: bytes | None
) -> ExitStatus:
    node = STTNode(node_seed=context.node_seed(), shared_seed=context.shared_seeds(), config=STTConfig(keepalive=True))
    async with node:
        session = await node.connect(urls, expect=expect)
        peer = session.peer_node_id.hex()
        sender = FileSender(
            session,
            progress=context.progress,
            stored=lambda file: _report_file(context, f"sent {file.name} to {peer}", file, peer),
            failed=lambda path, error: context.note(f"{path} was not sent: {error}"),
        )
        try:
            all_stored = await sender.send(paths)
        except asyncio.CancelledError:
            session.close(TransferStatus.CANCELLED.stream_code, "the sender was stopped")
            raise
        session.close()
    return ExitStatus.DONE if all_stored else ExitStatus.FAILED


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
@click.option("--once", is_flag=True, help="Take the files of one sender, then end.")
@click.option("--allow", type=_parse_node_id, multiple=True, metavar="NODE_ID", help="Let only this node in, or these.")
@click.pass_obj
def receive(
    context: CommandContext, *, urls: tuple[str, ...], folder: Path, once: bool, allow: tuple[bytes, ...]
) -> None:
    """Receive files at URLs such as udp://0.0.0.0:4433 from peers that run 'stt send'.

    A file that is there already is kept; the new one gets a number. With port 0 the system chooses one.
    """
    context.run(_receive(context, urls, folder, once=once, allow=frozenset(allow) or None))


async def _receive(
    context: CommandContext, urls: Sequence[str], folder: Path, *, once: bool, allow: frozenset[bytes] | None
) -> ExitStatus:
    node = STTNode(
        node_seed=context.node_seed(),
        shared_seed=context.shared_seeds(),
        config=STTConfig(keepalive=True, max_sessions=MAX_SESSIONS),
        allow=allow,
    )
    with Inbox(folder, mode=_permissions()) as inbox:
        inbox.check()
        async with node:
            for url in await node.listen(*urls):
                context.listening(url)
            context.note(f"node id {node.node_id.hex()}")
            return await _Reception(context, node, inbox, once=once).run()


class _Reception:
    """All sessions of one run of ``receive``."""

    def __init__(self, context: CommandContext, node: STTNode, inbox: Inbox, *, once: bool) -> None:
        self._context = context
        self._node = node
        self._once = once
        self._receiver = FileReceiver(inbox, stored=self._stored, failed=self._failed, admits=self._admits)
        self._sender: STTSession | None = None  # with --once: the session that offered a file first
        self._finished: asyncio.Future[SessionProgress] = asyncio.get_running_loop().create_future()

    async def run(self) -> ExitStatus:
        """Serve sessions; with ``--once`` until that of the one sender has ended."""
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(self._serve_all())
            progress = await self._finished
            serving.cancel()
        return ExitStatus.DONE if progress.complete else ExitStatus.FAILED

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
        if self._once and self._sender is None:
            self._sender = session
        return self._sender in (None, session)

    def _stored(self, file: ReceivedFile) -> None:
        peer = file.peer_node_id.hex()
        _report_file(self._context, f"received {file.name} from {peer}", file, peer)

    def _failed(self, peer_node_id: bytes, name: str, error: Exception) -> None:
        self._context.note(f"{name or 'a file'} from {peer_node_id.hex()} was not received: {error}")


def _permissions() -> int:
    """Return the permissions of a new file as the umask has them."""
    mask = os.umask(0o077)
    os.umask(mask)
    return 0o666 & ~mask


# Both


def _report_file(context: CommandContext, text: str, file: _Finished, peer: str) -> None:
    digest = file.sha3_256.hex()
    rate = file.size / max(file.seconds, 1e-6)
    context.report(
        "file",
        f"{text}: {_megabytes(file.size)} in {file.seconds:.2f} s ({_megabytes(rate)}/s), SHA3-256 {digest}",
        name=file.name,
        size=file.size,
        sha3_256=digest,
        peer=peer,
        seconds=round(file.seconds, 6),
    )


def _megabytes(size: float) -> str:
    return f"{size:.0f} bytes" if size < 1e5 else f"{size / 1e6:.1f} MB"
