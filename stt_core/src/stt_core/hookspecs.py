"""Every hook of STT, and nothing else: read this file to know all that a plugin can add.

The ``stt_register_*`` hooks are called once, when a node is built, and hand the plugin a ``register`` function; what is
registered is kept in plain tables, so that no hook is called while data flows. A name or number can be claimed once:
two claims are an error that names both plugins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pluggy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from stt_core.interfaces.congestion import ControllerFactory
    from stt_core.interfaces.crypto import CryptoSuite
    from stt_core.interfaces.endpoint import EndpointHandler, PeerOffer
    from stt_core.interfaces.frame import FrameType
    from stt_core.interfaces.storage import StorageFactory
    from stt_core.interfaces.transport import TransportFactory
    from stt_core.node import STTNode
    from stt_core.session import STTSession

PROJECT_NAME = "stt"
ENTRY_POINT_GROUP = "stt.v1"
"""The entry-point group in which distributions name their plugin modules."""

hookspec = pluggy.HookspecMarker(PROJECT_NAME)
hookimpl = pluggy.HookimplMarker(PROJECT_NAME)
"""Marks a plugin's function as the implementation of the hook whose name it has."""


class RegisterCommand(Protocol):
    """What :func:`stt_register_commands` hands to a plugin."""

    def __call__(self, name: str, help_text: str, target: str) -> None:
        """Offer a sub-command; ``target`` is ``"module:object"``, imported only when the command runs."""


@hookspec
def stt_register_transports(register: Callable[[str, TransportFactory], None]) -> None:
    """Offer transports, each under the URL scheme that it serves."""


@hookspec
def stt_register_crypto_suites(register: Callable[[int, CryptoSuite], None]) -> None:
    """Offer crypto suites, each under its number: 0x8000 and up for plugins."""


@hookspec
def stt_register_storage(register: Callable[[str, StorageFactory], None]) -> None:
    """Offer storage providers, each under the URL scheme of its stores."""


@hookspec
def stt_register_frame_types(register: Callable[[FrameType], None]) -> None:
    """Offer custom frame types, each known by its name."""


@hookspec
def stt_register_endpoints(register: Callable[[str, EndpointHandler], None]) -> None:
    """Offer endpoints, each under the name that peers send requests to."""


@hookspec
def stt_register_congestion_controllers(register: Callable[[str, ControllerFactory], None]) -> None:
    """Offer congestion controllers, each under the name that the configuration asks for."""


@hookspec
def stt_authorize(peer: PeerOffer) -> bool | Awaitable[bool]:
    """Return whether a peer that has proven the seed and its identity is let in; plain or async.

    Asked for each session that a peer begins, of all plugins: any refusal wins, and so does an exception, or no answer
    within ``authorize_timeout``.
    """
    raise NotImplementedError  # the specification alone; pluggy never calls it


@hookspec
def stt_session_opened(session: STTSession) -> Awaitable[None] | None:
    """Learn that a session is active; plain or async. A plugin that raises here is asked no more."""


@hookspec
def stt_session_closed(session: STTSession, code: int, reason: str) -> Awaitable[None] | None:
    """Learn that a session is over; plain or async. A plugin that raises here is asked no more."""


@hookspec
def stt_node_started(node: STTNode) -> Awaitable[None] | None:
    """Learn that a node begins to work; plain or async. A plugin that raises here is asked no more."""


@hookspec
def stt_node_stopped(node: STTNode) -> Awaitable[None] | None:
    """Learn that a node has stopped; plain or async. A plugin that raises here is asked no more."""


@hookspec
def stt_register_commands(register: RegisterCommand) -> None:
    """Offer sub-commands of ``stt``."""
