"""What this distribution adds to STT: all that pyproject.toml names in the entry-point group stt.v1."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stt_core import hookimpl
from stt_framed.journal import is_welcome, log, note_closed, note_opened
from stt_framed.notes import DIGEST_ENDPOINT, NOTE, digest
from stt_framed.transport import FramedTransport

if TYPE_CHECKING:
    from collections.abc import Callable

    from stt_core import STTNode, STTSession
    from stt_core.interfaces.endpoint import EndpointHandler, PeerOffer
    from stt_core.interfaces.frame import FrameType
    from stt_core.interfaces.transport import TransportFactory


@hookimpl
def stt_register_transports(register: Callable[[str, TransportFactory], None]) -> None:
    register("tcp", FramedTransport)
    register("unix", FramedTransport)


@hookimpl
def stt_register_frame_types(register: Callable[[FrameType], None]) -> None:
    register(NOTE)


@hookimpl
def stt_register_endpoints(register: Callable[[str, EndpointHandler], None]) -> None:
    register(DIGEST_ENDPOINT, digest)


@hookimpl
def stt_register_commands(register: Callable[[str, str, str], None]) -> None:
    register("note", "Send a short note to a peer.", "stt_framed.commands:note")


@hookimpl
def stt_authorize(peer: PeerOffer) -> bool:
    return is_welcome(peer)


@hookimpl
def stt_session_opened(session: STTSession) -> None:
    note_opened(session)


@hookimpl
def stt_session_closed(session: STTSession, code: int, reason: str) -> None:
    note_closed(session, code, reason)


@hookimpl
def stt_node_started(node: STTNode) -> None:
    log.info("node %s begins", node.node_id.hex()[:8])


@hookimpl
def stt_node_stopped(node: STTNode) -> None:
    log.info("node %s has stopped", node.node_id.hex()[:8])
