"""What tests of STT and of its plugins share; needs the extra ``stt-core[testing]``."""

import pkgutil

import pytest

# Before the kits are imported, so that a rule that fails shows the values that it compared.
pytest.register_assert_rewrite(*(f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__)))

from stt_core.testing.congestion_controller_contract import CongestionControllerContract
from stt_core.testing.contract import Contract
from stt_core.testing.crypto_suite_contract import CryptoSuiteContract
from stt_core.testing.endpoint_contract import EndpointContract
from stt_core.testing.frame_type_contract import FrameTypeContract
from stt_core.testing.link import Direction, Link, every
from stt_core.testing.sessions import Inbox, RoguePeer, make_demux, make_session, session_pair
from stt_core.testing.storage_contract import StorageContract
from stt_core.testing.transport_contract import TransportContract

__all__ = (
    "CongestionControllerContract",
    "Contract",
    "CryptoSuiteContract",
    "Direction",
    "EndpointContract",
    "FrameTypeContract",
    "Inbox",
    "Link",
    "RoguePeer",
    "StorageContract",
    "TransportContract",
    "every",
    "make_demux",
    "make_session",
    "session_pair",
)
