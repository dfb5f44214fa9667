"""What the core itself offers, through the same hooks as any plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stt_core.defaults.controllers import CONTROLLERS
from stt_core.defaults.memory_storage import MemoryStorage
from stt_core.defaults.memory_transport import MemoryTransport
from stt_core.defaults.suites import SUITES
from stt_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable

    from stt_core.interfaces.congestion import ControllerFactory
    from stt_core.interfaces.crypto import CryptoSuite
    from stt_core.interfaces.storage import StorageFactory
    from stt_core.interfaces.transport import TransportFactory


@hookimpl
def stt_register_transports(register: Callable[[str, TransportFactory], None]) -> None:
    """Offer ``memory://``."""
    register("memory", MemoryTransport)


@hookimpl
def stt_register_crypto_suites(register: Callable[[int, CryptoSuite], None]) -> None:
    """Offer suites 0x0001 to 0x0004."""
    for number, suite in SUITES.items():
        register(number, suite)


@hookimpl
def stt_register_storage(register: Callable[[str, StorageFactory], None]) -> None:
    """Offer ``memory://``."""
    register("memory", MemoryStorage)


@hookimpl
def stt_register_congestion_controllers(register: Callable[[str, ControllerFactory], None]) -> None:
    """Offer ``newreno`` and ``cubic``."""
    for name, factory in CONTROLLERS.items():
        register(name, factory)
