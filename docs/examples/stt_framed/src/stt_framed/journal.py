"""Who is kept out, and what is written to the log about sessions."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stt_core import STTSession
    from stt_core.interfaces.endpoint import PeerOffer

DENIED_VARIABLE = "STT_FRAMED_DENIED"
"""Environment variable: node ids that are kept out, in hexadecimal digits, separated by commas."""

log = logging.getLogger("stt_framed")


def is_welcome(peer: PeerOffer) -> bool:
    """Return whether a peer may come in."""
    denied = os.environ.get(DENIED_VARIABLE, "").lower().split(",")
    return peer.node_id.hex() not in (each.strip() for each in denied)


def note_opened(session: STTSession) -> None:
    """Write that a session has begun."""
    log.info("session %s with %s by %s", session.session_id.hex(), session.peer_node_id.hex()[:8], session.path)


def note_closed(session: STTSession, code: int, reason: str) -> None:
    """Write that a session is over."""
    log.info("session %s is over: %d %s", session.session_id.hex(), code, reason)
