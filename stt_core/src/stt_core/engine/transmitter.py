"""What a session sends: which frames leave on which path now, and when more may."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stt_core import events
from stt_core.engine.contents import Kind
from stt_core.engine.mtu import BASE_SIZE
from stt_core.engine.outbox import KEEPALIVE_TOKEN_SIZE
from stt_core.engine.packer import Packer
from stt_core.interfaces.crypto import TAG_SIZE
from stt_core.wire.frame import FRAME_OVERHEAD, FrameType

if TYPE_CHECKING:
    from collections.abc import Callable

    from stt_core.engine.acks import AckTracker
    from stt_core.engine.keys import SendKeys
    from stt_core.engine.outbox import Outbox
    from stt_core.engine.path_table import PathTable
    from stt_core.engine.paths import Path, PathKey
    from stt_core.engine.recovery import SentFrame
    from stt_core.interfaces.transport import Train

MAX_BURST: Final = 256 * 1024
"""Bytes that one call of :meth:`Transmitter.pack` adds by default, so that sessions take turns."""

_PATH_PROBE_SIZE: Final = 1200
_SMALL_MESSAGE: Final = 64 * 1024  # bytes, on reliable paths: large enough to make the overhead small
_MTU_SEARCH_AFTER: Final = 4096  # bytes sent on a path: a session that says little is not worth two probes of 64 KiB


class Transmitter:
    """The sending half of an active session; the session decides whether it may send at all.

    Args:
        session_id: 8 bytes.
        keys: What seals.
        outbox: What waits to leave.
        acks: What is to be acknowledged.
        paths: Where to.
        metadata_size: Bytes of crypto metadata that the suite writes behind each tag.
        padding: Plaintexts are padded to a multiple of so many bytes; 0 for none.
        lost: Called with a frame whose content is to be sent again.
        happened: Where events are appended.
        now: Seconds.
    """

    __slots__ = (
        "_acks",
        "_events",
        "_keys",
        "_lost",
        "_metadata_size",
        "_outbox",
        "_padding",
        "_paths",
        "_rotation_asked",
        "_session_id",
        "bytes_sent",
        "last_elicited",
        "next_number",
        "rotation_wanted",
        "send_at",
    )

    def __init__(  # noqa: PLR0913  what sending depends on, by name
        self,
        *,
        session_id: bytes,
        keys: SendKeys,
        outbox: Outbox,
        acks: AckTracker,
        paths: PathTable,
        metadata_size: int,
        padding: int,
        lost: Callable[[SentFrame, Path, float], None],
        happened: list[events.Event],
        now: float,
    ) -> None:
        self._session_id = session_id
        self._keys = keys
        self._outbox = outbox
        self._acks = acks
        self._paths = paths
        self._metadata_size = metadata_size
        self._padding = padding
        self._lost = lost
        self._events = happened
        self._rotation_asked = False
        self.rotation_wanted = False
        """Whether a new epoch is to begin as soon as the peer has followed into the current one."""
        self.next_number = 0
        """The number of the next frame; so many have left."""
        self.bytes_sent = 0
        self.last_elicited = now
        """When a frame left that asks for an acknowledgement."""
        self.send_at: float | None = None
        """When time alone lets more leave."""

    # Commands

    def pack(self, output: list[tuple[PathKey, Train]], now: float, max_size: int) -> None:
        """Add what is to leave now, by path; when more could leave, :attr:`send_at` is ``now``.

        Args:
            output: Where to.
            now: Seconds.
            max_size: Bytes that may come, but for the last datagram.
        """
        self.send_at = None
        self._rotate_if_due(now)
        if self._keys.exhausted:
            return
        self.pack_path_probes(output, now)
        if self.can_send:
            self._pack_path(self._paths.active, output, now, max_size)

    def pack_path_probes(self, output: list[tuple[PathKey, Train]], now: float) -> None:
        """Add only what finds out which paths are alive."""
        for path, probe in self._paths.probes(now):
            packer = self._packer(path, now)
            size = min(packer.room, _PATH_PROBE_SIZE)
            left = path.amplification_left
            if left is not None and left < packer.datagram_size - packer.room + size:
                packer.datagram_size = min(packer.datagram_size, left)
                size = 0
            plaintext = probe.encode(size)
            if len(plaintext) <= packer.room:
                packer.add(FrameType.PATH, 0, plaintext)
                self._finish_burst(packer, path, output, now)

    def pack_end(self, output: list[tuple[PathKey, Train]], plaintext: bytes, now: float, *, acknowledge: bool) -> None:
        """Add the DISCONNECT, if the path takes it.

        Args:
            output: Where to.
            plaintext: Its payload.
            now: Seconds.
            acknowledge: Whether an ACK goes before it.
        """
        path = self._paths.active
        packer = self._packer(path, now)
        left = path.amplification_left
        if left is not None:
            packer.datagram_size = min(packer.datagram_size, left)
            if packer.room < len(plaintext):
                return
        elif acknowledge:
            packer.add(FrameType.ACK, 0, self._acks.ack(now).encode(), elicits=False)
        packer.add(FrameType.DISCONNECT, 0, plaintext, elicits=False)
        self._finish_burst(packer, path, output, now)

    # Queries

    @property
    def can_send(self) -> bool:
        """Whether the path in use takes anything but PATH frames, and the end of the session."""
        left = self._paths.active.amplification_left
        return (left is None or left >= BASE_SIZE) and not self._paths.all_lost and not self._keys.exhausted

    @property
    def max_datagram_payload(self) -> int:
        """Bytes that a datagram may hold on the path in use."""
        room = self._paths.active.mtu.size - FRAME_OVERHEAD - TAG_SIZE - self._metadata_size
        return room if not self._padding else room - 1

    @property
    def searches_mtu(self) -> bool:
        """Whether larger datagrams are worth a search on the path in use."""
        path = self._paths.active
        return not path.reliable and path.validated and path.bytes_sent >= _MTU_SEARCH_AFTER

    # Internals

    def _pack_path(self, path: Path, output: list[tuple[PathKey, Train]], now: float, max_size: int) -> None:
        recovery = path.recovery
        packer = self._packer(path, now)
        limit = self._limit(path, now, max_size)
        if path.reliable:
            # Where many sessions share a turn, none takes it all with one large frame.
            packer.datagram_size = min(packer.datagram_size, max(max_size, _SMALL_MESSAGE))
        left = path.amplification_left
        if left is not None:
            # The last datagram may begin below the limit, and has to end within what is left.
            packer.datagram_size = min(packer.datagram_size, left)
            limit = min(limit, left - packer.datagram_size + 1)
        ack_due = self._acks.due
        if ack_due is not None and (ack_due <= now or (limit > 0 and self._outbox and self._acks.rides(now))):
            self._pack_ack(packer, now)
        if limit > 0:
            self._outbox.pack(packer, limit)
        if recovery.probes_due:
            self._pack_probes(packer, limit, path, now)
        if packer.elicits:
            self.last_elicited = now
        self._finish_burst(packer, path, output, now)
        if self._outbox.has_bulk:
            self.send_at = self._send_again_at(path, now, is_cut=limit >= max_size)
        elif not path.reliable:
            recovery.app_limited()
        if self.searches_mtu:
            self._pack_mtu_probe(path, output, now)

    def _packer(self, path: Path, now: float) -> Packer:
        return Packer(
            path,
            path.recovery.begin_burst(now),
            self._session_id,
            self._keys,
            self.next_number,
            self._metadata_size,
            self._padding,
        )

    def _finish_burst(self, packer: Packer, path: Path, output: list[tuple[PathKey, Train]], now: float) -> None:
        output.extend((path.key, train) for train in packer.finish(now))
        self.next_number = packer.number
        self.bytes_sent += packer.bytes_packed

    def _limit(self, path: Path, now: float, limit: int) -> int:
        """Return the bytes that may leave on a path now, up to a limit; a datagram more may leave with the last."""
        recovery = path.recovery
        if recovery.probes_due:
            return min(limit, recovery.probes_due * path.mtu.size)
        window = recovery.window_left
        if window is None:
            return limit
        if window < path.mtu.size and recovery.bytes_in_flight:
            return 0
        budget = recovery.pacer.budget(now)
        if budget is not None and budget < limit:
            limit = budget
        # The window counts whole datagrams; one may leave whenever none is under way.
        return min(limit, max(window // path.mtu.size, 1) * path.mtu.size)

    def _send_again_at(self, path: Path, now: float, *, is_cut: bool) -> float | None:
        """Return when more may leave, if time alone decides that."""
        window = path.recovery.window_left
        if window is not None and window < path.mtu.size:
            return None
        if not self.can_send:
            return None
        return now if is_cut else path.recovery.pacer.next_time(now)

    def _pack_ack(self, packer: Packer, now: float) -> None:
        floor = self._acks.largest
        packer.add(FrameType.ACK, 0, self._acks.ack(now).encode(), elicits=False)
        if self._acks.should_elicit(alone=not self._outbox):
            packer.add(FrameType.KEEPALIVE, 0, bytes(KEEPALIVE_TOKEN_SIZE), (Kind.KEEPALIVE, floor))

    def _pack_probes(self, packer: Packer, limit: int, path: Path, now: float) -> None:
        """Make sure that a probe time-out sends something that asks for an acknowledgement."""
        recovery = path.recovery
        if not packer.elicits:
            for frame in recovery.oldest(recovery.probes_due):
                self._lost(frame, path, now)
            self._outbox.pack(packer, limit)
        if not packer.elicits:
            packer.add(FrameType.KEEPALIVE, 0, bytes(KEEPALIVE_TOKEN_SIZE), (Kind.KEEPALIVE, 0))
        recovery.probes_due = 0

    def _pack_mtu_probe(self, path: Path, output: list[tuple[PathKey, Train]], now: float) -> None:
        size = path.mtu.probe(now)
        if size is None:
            return
        packer = self._packer(path, now)
        packer.datagram_size = size
        packer.add(FrameType.MTU_PROBE, 0, bytes(packer.room), (Kind.MTU_PROBE, size), counted=False)
        self._finish_burst(packer, path, output, now)

    def _rotate_if_due(self, now: float) -> None:
        keys = self._keys
        if not self.rotation_wanted:
            if not keys.wants_rotation(now):
                return
            self.rotation_wanted = True
        if keys.acknowledged:
            keys.rotate(self.next_number, now)
            self.rotation_wanted = self._rotation_asked = False
            self._events.append(events.KeysRotated(keys.epoch, sending=True))
        elif not self._rotation_asked:
            self._rotation_asked = True
            self._outbox.ask_at_once()
