"""A frame type, whose messages are short notes; and an endpoint, which tells the digest of what it is sent."""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING

from stt_core.errors import FrameError
from stt_core.interfaces.frame import FrameMessage, FrameType

if TYPE_CHECKING:
    from stt_core.interfaces.endpoint import EndpointRequest

NOTE_TYPE = "framed.note"
DIGEST_ENDPOINT = "framed.digest"
MAX_NOTE_SIZE = 1000  # bytes

log = logging.getLogger("stt_framed")


async def take_note(message: FrameMessage) -> None:
    """Write a peer's note to the log."""
    try:
        text = message.data[: MAX_NOTE_SIZE + 1].decode()
    except UnicodeDecodeError:
        raise FrameError("a note that is no text") from None
    if len(message.data) > MAX_NOTE_SIZE:
        raise FrameError(f"a note of {len(message.data)} bytes")
    log.info("note from %s: %r", message.peer.node_id.hex()[:8], text)


async def digest(request: EndpointRequest) -> bytes:
    """Return the SHA3-256 of a request's body, as text."""
    return hashlib.sha3_256(request.body).hexdigest().encode()


NOTE = FrameType(NOTE_TYPE, 0x90, take_note)
