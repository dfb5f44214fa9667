"""One open WebSocket on an asyncio event loop: its socket, timers and backpressure."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from stt_websocket.connection import Connection, ConnectionClosed, Event, Role, State, Trigger
from stt_websocket.frames import CloseCode
from stt_websocket.keepalive import Check, Keepalive
from stt_websocket.links import READ_SIZE, describe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from stt_core.interfaces.transport import Buffer
    from stt_websocket.incomplete import IncompleteMessages
    from stt_websocket.links import Link
    from stt_websocket.options import WebSocketOptions

LINGER_TIMEOUT: Final = 2.0
"""Seconds that the peer has to end the byte stream after the closing handshake, before the socket is closed anyway.
To close at once would reset the connection, and the peer could miss the Close frame."""

_JOINED_SIZE: Final = 64 * 1024  # what waits is sent as one buffer up to here: a copy costs less than more buffers


class ChannelHandler(Protocol):
    """What a channel calls, always from the event loop and never from within a call to itself."""

    def events_received(self, channel: Channel, events: list[Event]) -> None:
        """Take messages and pongs, in order."""

    def writable(self, channel: Channel) -> None:
        """Learn that the channel takes messages again after it refused one."""

    def closed(self, channel: Channel, reason: str) -> None:
        """Learn that no more comes and nothing more can be sent; called once, unless :meth:`Channel.abort` was."""


class Channel:
    """One WebSocket after its opening handshake.

    Args:
        link: The byte stream.
        role: Which side this is.
        handler: Whom to tell.
        options: Limits and times.
        incomplete: Accounts for the messages that are being received, with those of other channels.
    """

    def __init__(
        self,
        link: Link,
        role: Role,
        handler: ChannelHandler,
        options: WebSocketOptions,
        incomplete: IncompleteMessages[Channel] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._link = link
        self._socket = link.sock
        self._role = role
        self._connection = Connection(role, max_message_size=options.max_message_size)
        self._handler = handler
        self._options = options
        self._incomplete = incomplete
        self._incomplete_size = 0  # that is accounted for
        self._queue: deque[Buffer] = deque()
        self._queued_size = 0
        self._is_flush_due = False  # or what is sent now goes out when this wake ends
        self._is_blocked = False  # the socket is full, and watched
        self._has_refused = False
        self._is_reading = False
        self._is_paused = False
        self._is_bulk = False  # much came in the last turn
        self._is_told = False  # the handler knows of the end
        self._has_failed = False  # by the peer's violation
        self._is_ended = False  # this side's part of ending the byte stream is done
        self._keepalive: Keepalive | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.released: asyncio.Future[None] = self._loop.create_future()
        """Done when the socket is closed."""

    def start(self, rest: bytes) -> None:
        """Begin to read; ``rest`` is what the peer sent right behind its handshake."""
        self._connection.receive_data(rest)
        if self._options.ping_interval is not None:
            self._keepalive = Keepalive(self._options.ping_interval, self._options.ping_timeout, self._loop.time())
            self._watch()
        if not self._is_paused:
            self.resume_reading()

    # Inputs from the application

    @property
    def backlog(self) -> int:
        """Bytes that wait to be sent."""
        return self._queued_size + self._connection.pending_size + self._link.unsent_size

    @property
    def can_send(self) -> bool:
        """Whether messages can be sent."""
        return self._connection.can_send

    def send(self, messages: Iterable[Buffer | str]) -> bool:
        """Send messages while :attr:`can_send`: all, or none when too much waits; then ``writable`` will be called.

        A large buffer is not copied: it must not change afterwards.

        Returns:
            Whether they were taken.
        """
        if self.backlog >= self._options.send_buffer_size:
            self._has_refused = True
            return False
        for message in messages:
            self._connection.send_message(message)
        self._flush_soon()
        return True

    def pause_reading(self) -> None:
        """Take nothing from the peer until told otherwise; what was read already still comes."""
        self._is_paused = True
        self._stop_reading()

    def resume_reading(self) -> None:
        """Undo :meth:`pause_reading`."""
        self._is_paused = False
        if not self._is_reading and not self.released.done():
            self._is_reading = True
            self._loop.add_reader(self._socket, self._on_readable)
            # The socket alone does not tell: bytes may wait above it, from before the pause or behind the handshake.
            self._loop.call_soon(self._on_readable)

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Begin the closing handshake: what waits is sent first."""
        if self._connection.state is State.OPEN:
            self._connection.close(code, reason)
            self._set_timer(self._options.close_timeout, self._close_timed_out)
            self._flush_soon()

    def abort(self) -> None:
        """Close the socket at once; the handler is not called any more."""
        self._is_told = True
        self._release()

    # Internals, reading

    def _on_readable(self) -> None:
        if not self._is_reading:
            return
        try:
            size, is_end = self._read()
        except OSError as error:
            self._fail(describe(error))
            return
        if size and self._keepalive is not None and self._keepalive.heard(self._loop.time()):
            self._watch()
        if is_end:
            self._connection.receive_end()
        self._deliver()
        if is_end:
            self._release()
        elif self._connection.incomplete_size != self._incomplete_size and not self.released.done():
            self._account(self._connection.incomplete_size)

    def _read(self) -> tuple[int, bool]:
        """Read one turn; returns how many bytes came, and whether the byte stream has ended."""
        connection, link = self._connection, self._link
        link.begin_wake(is_bulk=self._is_bulk)
        total = 0
        while True:
            buffer = connection.receive_buffer()
            if buffer is None:
                data = link.read()
                size = None if data is None else len(data)
                if data:
                    connection.receive_data(data)
            else:
                size = link.read_into(buffer)
                if size:
                    connection.receive_filled(size)
            if not size:
                self._is_bulk = total > READ_SIZE // 2  # TLS makes less of what it reads than that
                return total, size == 0
            total += size

    def _deliver(self) -> None:
        events = self._connection.events()
        end = None
        if events and isinstance(events[-1], ConnectionClosed):
            end = events.pop()
        if events and not self._is_told:
            self._is_flush_due, was_due = True, self._is_flush_due
            try:
                self._handler.events_received(self, events)
            finally:
                self._is_flush_due = was_due
        if isinstance(end, ConnectionClosed):
            self._has_failed = end.cause is Trigger.VIOLATION
            self._set_timer(LINGER_TIMEOUT, self._release)
            self._tell(_describe_end(end))
        self._flush()

    def _account(self, size: int) -> None:
        self._incomplete_size = size
        largest = None if self._incomplete is None else self._incomplete.update(self, size)
        if largest is not None:
            largest._give_up()  # noqa: SLF001  of its own class

    def _give_up(self) -> None:
        reason = "incomplete messages take too much memory"
        self._tell(reason)
        self._connection.give_up(CloseCode.TRY_AGAIN_LATER, reason)
        self._deliver()
        self._account(0)

    def _stop_reading(self) -> None:
        if self._is_reading:
            self._is_reading = False
            self._loop.remove_reader(self._socket)

    # Internals, writing

    def _flush_soon(self) -> None:
        # All that is sent in one turn of the loop goes to the socket together.
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self._on_flush_due)

    def _on_flush_due(self) -> None:
        self._is_flush_due = False
        self._flush()

    def _flush(self) -> None:
        # While the socket is full nothing is drawn from the connection, which keeps only the newest pongs.
        if not self._is_blocked and not self.released.done():
            self._write()

    def _write(self) -> None:
        queue, link, connection = self._queue, self._link, self._connection
        try:
            while True:
                if not queue and connection.has_data_to_send:
                    self._draw()
                self._queued_size -= link.write(queue)
                is_blocked = bool(queue or link.unsent_size)
                if is_blocked or not connection.has_data_to_send:
                    break
        except OSError as error:
            self._fail(describe(error))
            return
        if is_blocked is not self._is_blocked:
            self._is_blocked = is_blocked
            if is_blocked:
                self._loop.add_writer(self._socket, self._write)
            else:
                self._loop.remove_writer(self._socket)
        if self._has_refused and self.backlog <= self._options.send_buffer_size // 2:
            self._has_refused = False
            if not self._is_told:
                self._handler.writable(self)
        if connection.state is State.CLOSED and not is_blocked and not self._is_ended:
            self._end_writing()

    def _draw(self) -> None:
        """Move what waits to the queue, short buffers joined: each costs a record of TLS or a slot in a system call."""
        short: list[Buffer] = []
        size = 0
        for buffer in self._connection.data_to_send():
            self._queued_size += len(buffer)
            if size + len(buffer) > _JOINED_SIZE and short:
                self._queue.append(b"".join(short))
                short, size = [], 0
            short.append(buffer)
            size += len(buffer)
        if short:
            self._queue.append(short[0] if len(short) == 1 else b"".join(short))

    # Internals, times and ends

    def _watch(self) -> None:
        assert self._keepalive is not None
        now = self._loop.time()
        if self._is_paused:
            self._keepalive.heard(now)  # its signs of life wait in the socket
        check = self._keepalive.check(now)
        if check is Check.DEAD:
            self._fail(f"no sign of life for {self._options.ping_timeout:g} s after a ping")
            return
        if check is Check.SILENT:
            self._connection.ping()
            self._flush_soon()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._keepalive.next_timeout(), self._watch)

    def _set_timer(self, delay: float, callback: Callable[[], None]) -> None:
        """Give the rest of the connection's life a limit, in place of the watch."""
        self._keepalive = None
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(delay, callback)

    def _close_timed_out(self) -> None:
        self._fail(f"no Close frame of the peer within {self._options.close_timeout:g} s")

    def _end_writing(self) -> None:
        """End the byte stream once everything is sent, and read on until the peer has ended its own.

        A client whose connection closed well leaves the first step to the server (section 7.1.1): the port that then
        waits in TIME_WAIT is the server's.
        """
        self._is_ended = True
        if self._role is Role.SERVER or self._has_failed:
            self._link.end_writing()
        self.resume_reading()

    def _fail(self, reason: str) -> None:
        self._tell(reason)
        self._release()

    def _tell(self, reason: str) -> None:
        if not self._is_told:
            self._is_told = True
            self._handler.closed(self, reason)

    def _release(self) -> None:
        if self.released.done():
            return
        self._stop_reading()
        if self._is_blocked:
            self._loop.remove_writer(self._socket)
        if self._timer is not None:
            self._timer.cancel()
        self._queue.clear()
        self._link.close()
        self.released.set_result(None)
        self._account(0)


def _describe_end(end: ConnectionClosed) -> str:
    if end.cause is Trigger.END_OF_STREAM:
        return "the connection ended without a Close frame"
    if end.cause is Trigger.VIOLATION:
        return f"the peer broke the protocol: {end.reason} ({end.code})"
    return f"closed by {'the peer' if end.by_peer else 'this side'}: {end.code} {end.reason!r}"
