"""TCP over a session: one side listens, the other connects to a target that it allows."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections import Counter
from typing import TYPE_CHECKING, Final

from stt_core.errors import FrameError, SessionClosed, StreamClosed, STTError, code_name
from stt_streaming.tunnel.connections import READ_SIZE, HostPort, abort, connect, relay_connection
from stt_streaming.tunnel.limits import Places
from stt_streaming.tunnel.relay import TunnelCode, break_off

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterable

    from stt_core import STTSession, STTStream

CONNECT_LABEL: Final = "stt-forward/1"
"""Label of a stream that stands for one connection; its metadata names the target."""

LISTEN_LABEL: Final = "stt-forward-listen/1"
"""Label of a stream that asks the peer to listen, for as long as the stream is open; its metadata says where."""

DIAL_TIMEOUT: Final = 10.0
"""Seconds until a target that does not answer is given up."""

CONNECTIONS_AT_ONCE: Final = 200
"""Connections that a session may have, each with a stream of its own; 256 streams are what a peer allows by default.
An address that the peer has this side listen at counts as one."""

CONNECTIONS_IN_ALL: Final = 800
"""Connections of all sessions of a serving side together: within the 1024 descriptors that a shell allows."""

_PORT: Final = struct.Struct(">H")

_REASONS: Final = {
    TunnelCode.BROKEN: "the connection broke off behind the peer",
    TunnelCode.REFUSED: "the peer does not allow that",
    TunnelCode.UNREACHABLE: "the peer cannot connect or listen there",
    TunnelCode.BUSY: "the peer has too many connections",
    TunnelCode.MALFORMED: "the peer did not understand this side",
}


class ForwardError(STTError):
    """Something cannot be forwarded: a side does not listen where it was asked to."""


def reason_of(error: StreamClosed) -> str:
    """Return why a stream of a tunnel was broken off, in words."""
    try:
        return _REASONS[TunnelCode(error.code)]
    except ValueError:
        return f"the stream was broken off: {code_name(error.code)}"


class Forwarder:
    """Both ends of forwarding over one session.

    Args:
        session: The session.
        targets: What the peer may have connections made to.
        listens: Where the peer may have this side listen.
        broken: Told of each connection that broke off or did not come about, and why.
        shared: Places for connections that this session shares with others; unless given, it has its own alone.
    """

    def __init__(
        self,
        session: STTSession,
        *,
        targets: Collection[HostPort] = (),
        listens: Collection[HostPort] = (),
        broken: Callable[[HostPort, str], None] = lambda _target, _reason: None,
        shared: Places | None = None,
    ) -> None:
        self._session = session
        self._targets = Counter(frozenset(targets))  # each as often as there is a reason to allow it
        self._listens = frozenset(listens)
        self._broken = broken
        self._places = Places(CONNECTIONS_AT_ONCE, within=shared)

    async def serve(self) -> None:
        """Serve what the peer opens, until the session ends."""
        async with asyncio.TaskGroup() as group:
            async for stream in self._session.streams():
                group.create_task(self._serve_stream(stream))

    @contextlib.asynccontextmanager
    async def forward(self, local: HostPort, remote: HostPort) -> AsyncIterator[HostPort]:
        """Listen here, and have the peer connect each connection to ``remote``; yields where, with the real port.

        Raises:
            ForwardError: The host refused to listen there.
        """
        tasks: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        leaving = False

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            # What the system accepted before the server was closed may come here after that.
            if leaving or not self._places.take():
                abort(writer)
                return
            task = asyncio.create_task(self._forward_connection(remote, reader, writer))
            tasks[task] = writer
            task.add_done_callback(forget)

        def forget(task: asyncio.Task[None]) -> None:
            self._places.give_back()
            # A task that was cancelled before its first step has closed nothing.
            abort(tasks.pop(task))

        try:
            server = await asyncio.start_server(accept, local.host, local.port, limit=READ_SIZE)
        except (OSError, UnicodeError) as error:
            raise ForwardError(f"{local}: {error}") from error
        try:
            yield HostPort(local.host, server.sockets[0].getsockname()[1])
        finally:
            leaving = True
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def forward_reverse(self, remote: HostPort, local: HostPort, listening: Callable[[HostPort], None]) -> None:
        """Have the peer listen at ``remote``, and connect each connection to ``local``, until the session ends.

        Args:
            remote: Where the peer is to listen.
            local: What to connect to from here.
            listening: Told once the peer listens, with the real port.

        Raises:
            ForwardError: The peer does not listen there.
            SessionClosed: The session ended.
        """
        stream = await self._session.open_stream(
            LISTEN_LABEL, metadata={"at": remote.metadata(), "to": local.metadata()}
        )
        self._targets[local] += 1
        try:
            (port,) = _PORT.unpack(await stream.receive_exactly(_PORT.size))
            listening(HostPort(remote.host, port))
            await stream.receive()
        except StreamClosed as error:
            raise ForwardError(f"{remote}: {reason_of(error)}") from error
        except EOFError:
            raise ForwardError(f"{remote}: the peer did not understand this side") from None
        finally:
            self._targets[local] -= 1
            break_off(stream, TunnelCode.BROKEN)
        raise ForwardError(f"the peer listens at {remote} no more")

    # Internals: what the peer asks for

    async def _serve_stream(self, stream: STTStream) -> None:
        try:
            if stream.label == CONNECT_LABEL:
                await self._serve_connection(stream, HostPort.of_metadata(stream.metadata))
                return
            match stream.metadata:
                case {"at": at, "to": to} if stream.label == LISTEN_LABEL:
                    await self._serve_listening(stream, HostPort.of_metadata(at), HostPort.of_metadata(to))
                case _:
                    break_off(stream, TunnelCode.MALFORMED)
        except FrameError:
            break_off(stream, TunnelCode.MALFORMED)
        except (StreamClosed, SessionClosed):
            break_off(stream, TunnelCode.BROKEN)

    def _admit(self, stream: STTStream, asked: HostPort, allowed: Iterable[HostPort], refusal: str) -> HostPort | None:
        """Take a place for what a peer asks for; else break its stream off, and return None.

        Returns:
            What it asks for as it was allowed: the peer has no say in how that is looked up.
        """
        found = next((each for each in allowed if each == asked), None)
        if found is None:
            self._broken(asked, refusal)
            break_off(stream, TunnelCode.REFUSED)
            return None
        if not self._places.take():
            break_off(stream, TunnelCode.BUSY)
            return None
        return found

    async def _serve_connection(self, stream: STTStream, asked: HostPort) -> None:
        targets = (each for each, reasons in self._targets.items() if reasons)
        target = self._admit(stream, asked, targets, "the peer asked for it, but it is not allowed")
        if target is None:
            return
        try:
            async with asyncio.timeout(DIAL_TIMEOUT):
                reader, writer = await connect(target)
        except (OSError, UnicodeError) as error:
            self._broken(target, str(error) or "it does not answer")
            break_off(stream, TunnelCode.UNREACHABLE)
        else:
            await self._relay(target, stream, reader, writer)
        finally:
            self._places.give_back()

    async def _serve_listening(self, stream: STTStream, asked: HostPort, target: HostPort) -> None:
        address = self._admit(stream, asked, self._listens, "the peer asked to listen there, but it is not allowed")
        if address is None:
            return
        try:
            async with self.forward(address, target) as bound:
                await stream.send(_PORT.pack(bound.port))
                await stream.receive()
        except ForwardError as error:
            self._broken(address, str(error))
            break_off(stream, TunnelCode.UNREACHABLE)
            return
        finally:
            self._places.give_back()
        break_off(stream, TunnelCode.BROKEN)

    # Internals: each connection

    async def _forward_connection(
        self, target: HostPort, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            stream = await self._session.open_stream(CONNECT_LABEL, metadata=target.metadata())
        except SessionClosed:
            return
        await self._relay(target, stream, reader, writer)

    async def _relay(
        self, target: HostPort, stream: STTStream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            await relay_connection(stream, reader, writer)
        except StreamClosed as error:
            self._broken(target, reason_of(error))
        except (SessionClosed, OSError) as error:
            self._broken(target, str(error))
