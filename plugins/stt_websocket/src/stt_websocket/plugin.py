"""What this distribution offers to a node: the transports ws and wss."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from stt_core import hookimpl
from stt_websocket.transport import WebSocketTransport

if TYPE_CHECKING:
    from collections.abc import Callable

    from stt_core.interfaces.transport import TransportFactory
    from stt_websocket.options import WebSocketOptions


@hookimpl
def stt_register_transports(register: Callable[[str, TransportFactory], None]) -> None:
    """Offer ws and wss with the default options and what the environment says."""
    register("ws", WebSocketTransport)
    register("wss", WebSocketTransport)


class WebSocketPlugin:
    """The same with options of one's own: pass it to a node in place of the installed plugin.

    ``STTNode(..., plugins=[WebSocketPlugin(options)], disable_plugins=["websocket"])``
    """

    def __init__(self, options: WebSocketOptions) -> None:
        self._options = options

    @hookimpl
    def stt_register_transports(self, register: Callable[[str, TransportFactory], None]) -> None:
        """Offer ws and wss with these options."""
        factory = partial(WebSocketTransport, options=self._options)
        register("ws", factory)
        register("wss", factory)
