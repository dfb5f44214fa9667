"""The commands ``stt stream`` and ``stt watch``: a live stream from standard input to many standard outputs."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import click

from stt_core.interfaces import ExitStatus
from stt_streaming.live.messages import MAX_DEADLINE
from stt_streaming.live.publisher import DEFAULT_DEADLINE, LivePublisher
from stt_streaming.live.subscriber import LiveSubscriber
from stt_streaming.options import WORD_TIMEOUT, allow_option, expect_option, make_node
from stt_streaming.sinks import writer
from stt_streaming.sources import READ_SIZE, read_chunks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stt_core import STTNode, STTSession
    from stt_core.interfaces import CommandContext

_STDIN = 0
_STDOUT = 1


# stream


@click.command()
@click.argument("urls", metavar="URL...", nargs=-1, required=True)
@click.option(
    "--deadline",
    type=click.FloatRange(0.001, MAX_DEADLINE),
    default=DEFAULT_DEADLINE,
    metavar="SECONDS",
    show_default=True,
    help="After that, what a subscriber has not got is given up.",
)
@allow_option
@click.pass_obj
def stream(context: CommandContext, *, urls: tuple[str, ...], deadline: float, allow: tuple[bytes, ...]) -> None:
    """Publish standard input live at URLs, to all who run 'stt watch' there.

    They may come and go at any time, and get what is published meanwhile. Latency goes before completeness.
    """
    context.run(_stream(context, urls, deadline, allow))


async def _stream(context: CommandContext, urls: Sequence[str], deadline: float, allow: Sequence[bytes]) -> ExitStatus:
    publisher = LivePublisher(deadline)
    async with make_node(context, allow) as node:
        for url in await node.listen(*urls):
            context.listening(url)
        context.note(f"node id {node.node_id.hex()}")
        served: set[asyncio.Task[None]] = set()
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(_serve_all(context, node, publisher, served))
            try:
                async for data in read_chunks(_STDIN, READ_SIZE):
                    publisher.publish(data)
            except OSError as error:
                context.note(f"standard input: {error}")
                serving.cancel()
                return ExitStatus.FAILED
            publisher.end()
            await _wait_subscribers(node, served, deadline)
            serving.cancel()
    return ExitStatus.DONE


async def _serve_all(
    context: CommandContext, node: STTNode, publisher: LivePublisher, served: set[asyncio.Task[None]]
) -> None:
    async with asyncio.TaskGroup() as group:
        async for session in node.sessions():
            task = group.create_task(_serve(context, session, publisher))
            served.add(task)
            task.add_done_callback(served.discard)


async def _serve(context: CommandContext, session: STTSession, publisher: LivePublisher) -> None:
    peer = session.peer_node_id.hex()
    statistics = await publisher.serve(session)
    if statistics is not None:
        context.report(
            "subscriber",
            f"{peer}: {statistics.delivered} segments delivered, {statistics.late} late, {statistics.dropped} dropped",
            peer=peer,
            delivered=statistics.delivered,
            late=statistics.late,
            dropped=statistics.dropped,
        )


async def _wait_subscribers(node: STTNode, served: set[asyncio.Task[None]], deadline: float) -> None:
    """Wait until all is served, and the subscribers have closed their sessions; their last words may be lost."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(deadline + WORD_TIMEOUT):
            await asyncio.gather(*(asyncio.shield(task) for task in served))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(WORD_TIMEOUT):
            await asyncio.gather(*(session.wait_closed() for session in node.active_sessions()))


# watch


@click.command()
@click.argument("urls", metavar="URL[,URL...]")
@expect_option
@click.pass_obj
def watch(context: CommandContext, urls: str, *, expect: bytes | None) -> None:
    """Write what a peer publishes with 'stt stream' at URL to standard output, from now on."""
    context.run(_watch(context, urls.split(","), expect))


async def _watch(context: CommandContext, urls: Sequence[str], expect: bytes | None) -> ExitStatus:
    async with make_node(context) as node:
        session = await node.connect(urls, expect=expect)
        subscriber = LiveSubscriber(session)
        try:
            write = writer(_STDOUT)
            async with contextlib.aclosing(subscriber.segments()) as segments:
                async for segment in segments:
                    await write(segment.data)
        except OSError as error:
            context.note(f"standard output: {error}")
            return ExitStatus.FAILED
        finally:
            context.note(f"{subscriber.received} segments received, {subscriber.lost} lost")
            session.close()
    return ExitStatus.DONE
