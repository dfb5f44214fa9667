"""STT: any bytes, encrypted and multiplexed, between peers that share a seed, over whatever transport works."""

from stt_core._version import __version__
from stt_core.config import STTConfig
from stt_core.engine.handshake import STTHandshake
from stt_core.engine.status import SessionStatistics, State
from stt_core.errors import (
    ConfigError,
    ConnectError,
    ConnectReason,
    CryptoError,
    ErrorCode,
    FrameError,
    HandshakeError,
    IncompleteRead,
    LocalError,
    PeerUnreachable,
    PluginError,
    RemoteError,
    RequestTimeout,
    SerializationError,
    SessionClosed,
    StorageError,
    StreamClosed,
    STTError,
    TransportError,
)
from stt_core.hookspecs import hookimpl
from stt_core.identity import Identity
from stt_core.node import NodeStatistics, STTNode
from stt_core.packets import ReceivedPacket
from stt_core.plugins import PluginInfo, PluginState, Registries, load_plugins
from stt_core.seeds import decode_seed, encode_seed, generate_seed, seed_from_passphrase
from stt_core.session import STTSession
from stt_core.stream import STTStream
from stt_core.wire.frame import STTFrame
from stt_core.wire.serialization import deserialize_stt, serialize_stt

__all__ = (
    "ConfigError",
    "ConnectError",
    "ConnectReason",
    "CryptoError",
    "ErrorCode",
    "FrameError",
    "HandshakeError",
    "Identity",
    "IncompleteRead",
    "LocalError",
    "NodeStatistics",
    "PeerUnreachable",
    "PluginError",
    "PluginInfo",
    "PluginState",
    "ReceivedPacket",
    "Registries",
    "RemoteError",
    "RequestTimeout",
    "STTConfig",
    "STTError",
    "STTFrame",
    "STTHandshake",
    "STTNode",
    "STTSession",
    "STTStream",
    "SerializationError",
    "SessionClosed",
    "SessionStatistics",
    "State",
    "StorageError",
    "StreamClosed",
    "TransportError",
    "__version__",
    "decode_seed",
    "deserialize_stt",
    "encode_seed",
    "generate_seed",
    "hookimpl",
    "load_plugins",
    "seed_from_passphrase",
    "serialize_stt",
)
