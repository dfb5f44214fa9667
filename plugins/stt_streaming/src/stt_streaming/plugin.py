"""What this distribution adds to STT: the commands ``send`` and ``receive``, imported when one runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stt_core import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable


@hookimpl
def stt_register_commands(register: Callable[[str, str, str], None]) -> None:
    """Offer the commands of the file transfer."""
    register("send", "Send files to a peer that receives.", "stt_streaming.commands:send")
    register("receive", "Receive files from peers into a folder.", "stt_streaming.commands:receive")
