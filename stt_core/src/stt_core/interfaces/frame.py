"""What a custom frame type is: a name, the code that it would like, and who handles what comes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias

import attrs

from stt_core.errors import ConfigError

if TYPE_CHECKING:
    from stt_core.interfaces.endpoint import Peer

CUSTOM_CODES = range(0x80, 0x100)
"""The frame types that are left to plugins."""

MAX_NAME_SIZE = 64
"""Bytes of the longest name of a frame type."""


@attrs.frozen
class FrameMessage:
    """One message of a custom type, as its handler gets it."""

    peer: Peer
    """Who sent it, and over which session."""
    data: bytes


FrameHandler: TypeAlias = Callable[[FrameMessage], Awaitable[None]]
"""Called for each message, one at a time per session, in the order in which they came."""


@attrs.frozen
class FrameType:
    """A custom frame type.

    Types are known by name: each session agrees on codes, so that two plugins that wish for one code work together.

    Raises:
        ConfigError: The name is empty or too long, or the code is not from 0x80 to 0xFF.
    """

    name: str = attrs.field()
    """Unique, with its owner in front: ``acme.telemetry``."""
    code: int = attrs.field()
    """The wished code; another one is taken where it is in use."""
    handler: FrameHandler
    reliable: bool = attrs.field(default=True, kw_only=True)
    """Whether each message is delivered once, whatever is lost (up to 64 KiB), or at most once (up to a datagram).

    A slow handler of reliable messages holds the sender back."""
    queue_size: int = attrs.field(default=64, kw_only=True)
    """Messages of a session that wait for the handler where they are not reliable; more are dropped and counted."""

    @name.validator
    def _check_name(self, _: object, value: str) -> None:
        if not 0 < len(value.encode()) <= MAX_NAME_SIZE:
            raise ConfigError(f"a frame type's name has 1 to {MAX_NAME_SIZE} bytes, unlike {value!r}")

    @code.validator
    def _check_code(self, _: object, value: int) -> None:
        if value not in CUSTOM_CODES:
            raise ConfigError(f"frame type {self.name} wishes for {value:#x}, which is not from 0x80 to 0xff")

    @queue_size.validator
    def _check_queue_size(self, _: object, value: int) -> None:
        if value < 1:
            raise ConfigError(f"frame type {self.name} has a queue of {value} messages, but needs at least 1")
