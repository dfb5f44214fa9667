"""Custom frame types of a node: which code each has here, and who handles what comes."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from stt_core.errors import ConfigError, LocalError
from stt_core.foreign import ends_the_task
from stt_core.interfaces.endpoint import Peer
from stt_core.interfaces.frame import CUSTOM_CODES, FrameMessage, FrameType

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from stt_core.session import STTSession

_LOG = logging.getLogger("stt.frames")


class FrameTypes:
    """The custom types of a node, and their handlers at work.

    Each session has one handler call of a type at a time, in the order of the messages.

    Args:
        types: By name.
        spawn: Runs a coroutine until it ends or the node stops.

    Raises:
        ConfigError: There are more types than codes.
    """

    def __init__(self, types: Mapping[str, FrameType], spawn: Callable[[Coroutine[Any, Any, None]], object]) -> None:
        self._spawn = spawn
        self._by_code = _assign(types)
        self._codes = {each.name: code for code, each in self._by_code.items()}
        self._queues: dict[tuple[bytes, int], deque[FrameMessage]] = {}
        self.failures = 0
        """Messages whose handler raised."""
        self.dropped = 0
        """Messages without reliability that found the queue full."""

    @property
    def parameters(self) -> dict[str, tuple[int, bool]]:
        """What the handshake says of them: the code by which each name is received, and whether reliably."""
        return {name: (code, self._by_code[code].reliable) for name, code in self._codes.items()}

    @property
    def receivable(self) -> dict[int, bool]:
        """The codes that sessions accept, and whether reliably."""
        return {code: each.reliable for code, each in self._by_code.items()}

    def code_at_peer(self, session: STTSession, name: str) -> tuple[int, bool]:
        """Return the code under which the peer receives a type, and whether reliably.

        Raises:
            LocalError: It does not, or otherwise than this node's plugin of that name.
        """
        known = session.peer_custom.get(name)
        if known is None:
            names = ", ".join(sorted(session.peer_custom)) or "none"
            raise LocalError(f"the peer does not receive frames of type {name!r} (it receives: {names})")
        code, reliable = known
        own = self._codes.get(name)
        if own is not None and self._by_code[own].reliable is not reliable:
            there, here = ("reliable", "not") if reliable else ("not reliable", "reliable")
            raise LocalError(f"frames of type {name!r} are {there} at the peer, but {here} here")
        return code, reliable

    def receive(self, session: STTSession, code: int, data: bytes) -> None:
        """Hand a message to its handler, behind those before it."""
        frame_type = self._by_code[code]
        message = FrameMessage(Peer(session.peer_node_id, session.session_id, session.path), data)
        key = session.session_id, code
        queue = self._queues.get(key)
        if queue is None:
            self._queues[key] = deque((message,))
            self._spawn(self._work(session, code, frame_type))
        elif frame_type.reliable or len(queue) < frame_type.queue_size:
            queue.append(message)  # reliable ones are bounded by what the peer was allowed to send
        else:
            self.dropped += 1

    async def _work(self, session: STTSession, code: int, frame_type: FrameType) -> None:
        queue = self._queues[session.session_id, code]
        try:
            while queue:
                message = queue.popleft()
                try:
                    await frame_type.handler(message)
                except (Exception, asyncio.CancelledError) as error:
                    if ends_the_task(error):
                        raise
                    # Somebody else's code: its failure must not cost the session.
                    self.failures += 1
                    _LOG.exception("the handler of frame type %s failed", frame_type.name)
                if frame_type.reliable:
                    session.message_handled()
        finally:
            del self._queues[session.session_id, code]


def _assign(types: Mapping[str, FrameType]) -> dict[int, FrameType]:
    """Return each type under its wished code, or under another where two wish for one."""
    if len(types) > len(CUSTOM_CODES):
        raise ConfigError(f"{len(types)} custom frame types, but there are {len(CUSTOM_CODES)} codes")
    assigned: dict[int, FrameType] = {}
    displaced = []
    for name in sorted(types):
        frame_type = types[name]
        if frame_type.code in assigned:
            displaced.append(frame_type)
        else:
            assigned[frame_type.code] = frame_type
    free = (code for code in CUSTOM_CODES if code not in assigned)
    assigned.update(zip(free, displaced, strict=False))
    return assigned
