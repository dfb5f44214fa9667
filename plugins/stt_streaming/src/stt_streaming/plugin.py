"""What this distribution adds to STT: its commands, each imported when it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stt_core import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable


@hookimpl
def stt_register_commands(register: Callable[[str, str, str], None]) -> None:
    """Offer the commands of file transfer, tunnels and live streams."""
    register("send", "Send files to a peer that receives.", "stt_streaming.commands:send")
    register("receive", "Receive files from peers into a folder.", "stt_streaming.commands:receive")
    register("pipe", "Join standard input and output to a peer's.", "stt_streaming.tunnel.pipe_command:pipe")
    register("forward", "Forward a TCP port to or from a peer.", "stt_streaming.tunnel.forward_commands:forward")
    register("forward-server", "Let peers forward TCP ports.", "stt_streaming.tunnel.forward_commands:forward_server")
    register("stream", "Publish standard input live.", "stt_streaming.live.commands:stream")
    register("watch", "Write a peer's live stream to standard output.", "stt_streaming.live.commands:watch")
