"""What a plugin implements, one module a kind."""

from stt_core.interfaces.command import CommandContext, ExitStatus
from stt_core.interfaces.congestion import AckSample, CongestionController, ControllerFactory
from stt_core.interfaces.crypto import CryptoSuite, FrameCipher
from stt_core.interfaces.storage import StorageCapabilities, StorageFactory, StorageProvider, Version
from stt_core.interfaces.transport import (
    Address,
    BatchTransport,
    Buffer,
    Train,
    Transport,
    TransportCapabilities,
    TransportFactory,
    TransportReceiver,
    TransportStatistics,
)

__all__ = (
    "AckSample",
    "Address",
    "BatchTransport",
    "Buffer",
    "CommandContext",
    "CongestionController",
    "ControllerFactory",
    "CryptoSuite",
    "ExitStatus",
    "FrameCipher",
    "StorageCapabilities",
    "StorageFactory",
    "StorageProvider",
    "Train",
    "Transport",
    "TransportCapabilities",
    "TransportFactory",
    "TransportReceiver",
    "TransportStatistics",
    "Version",
)
