"""What this distribution registers with STT: the URL scheme ``udp``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stt_core import hookimpl
from stt_udp.transport import UDPTransport

if TYPE_CHECKING:
    from collections.abc import Callable

    from stt_core.interfaces.transport import TransportFactory


@hookimpl
def stt_register_transports(register: Callable[[str, TransportFactory], None]) -> None:
    """Offer UDP under its scheme."""
    register("udp", UDPTransport)
