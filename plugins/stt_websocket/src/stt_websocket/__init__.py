"""WebSocket transport for STT, on an RFC 6455 of its own that also stands alone; this module defines nothing."""

from __future__ import annotations

from stt_websocket._version import __version__
from stt_websocket.connection import (
    Connection,
    ConnectionClosed,
    Event,
    PongReceived,
    Role,
    State,
)
from stt_websocket.errors import ProtocolViolation, UpgradeRefused
from stt_websocket.frames import CloseCode, Opcode
from stt_websocket.handshake import ClientHandshake, ServerHandshake, UpgradePolicy, UpgradeRequest
from stt_websocket.options import WebSocketOptions
from stt_websocket.tls import client_context, server_context
from stt_websocket.transport import WebSocketTransport
from stt_websocket.urls import WebSocketURL

__all__ = (
    "ClientHandshake",
    "CloseCode",
    "Connection",
    "ConnectionClosed",
    "Event",
    "Opcode",
    "PongReceived",
    "ProtocolViolation",
    "Role",
    "ServerHandshake",
    "State",
    "UpgradePolicy",
    "UpgradeRefused",
    "UpgradeRequest",
    "WebSocketOptions",
    "WebSocketTransport",
    "WebSocketURL",
    "__version__",
    "client_context",
    "server_context",
)
