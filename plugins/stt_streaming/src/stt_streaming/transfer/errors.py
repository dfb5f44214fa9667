"""Why a file was not transferred: one exception, which also says what the other side is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stt_core.errors import PluginError

if TYPE_CHECKING:
    from stt_streaming.transfer.messages import TransferStatus


class TransferError(PluginError):
    """One file did not arrive; others of the session may.

    Attributes:
        status: The reason, as it goes to the other side.
        by_peer: Whether the other side gave it.
    """

    def __init__(self, status: TransferStatus, text: str, *, by_peer: bool = False) -> None:
        super().__init__(text)
        self.status = status
        self.by_peer = by_peer
