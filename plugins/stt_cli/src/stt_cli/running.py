"""How a command runs and ends: its event loop, its signals, and the exit status of what went wrong."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any, Final

from stt_core.errors import (
    ConfigError,
    ConnectError,
    ConnectReason,
    ErrorCode,
    PeerUnreachable,
    SessionClosed,
    STTError,
)
from stt_core.interfaces import ExitStatus

if TYPE_CHECKING:
    from collections.abc import Coroutine

SIGNAL_STATUS: Final = 128
"""What shells add to the number of the signal that ended a command."""

_STATUS_OF_REASON: Final = {
    ConnectReason.NO_ANSWER: ExitStatus.REFUSED,
    ConnectReason.REFUSED: ExitStatus.REFUSED,
    ConnectReason.WRONG_PEER: ExitStatus.REFUSED,
    ConnectReason.UNREACHABLE: ExitStatus.UNREACHABLE,
    ConnectReason.CANCELLED: ExitStatus.FAILED,
}


def status_of(error: STTError) -> ExitStatus:
    """Return the exit status that tells the shell of an error."""
    if isinstance(error, ConnectError):
        return _STATUS_OF_REASON[error.reason]
    if isinstance(error, PeerUnreachable):
        return ExitStatus.UNREACHABLE
    if isinstance(error, SessionClosed) and error.code == ErrorCode.REFUSED:
        return ExitStatus.REFUSED
    if isinstance(error, ConfigError):
        return ExitStatus.USAGE
    return ExitStatus.FAILED


def run_until_signal(main: Coroutine[Any, Any, ExitStatus]) -> int:
    """Run a coroutine in a new event loop; return its status, or that of the signal that ended it.

    SIGINT and SIGTERM cancel the coroutine and let it say good-bye; a second one cuts that short where it waits.

    Raises:
        STTError: What the coroutine raises.
    """
    return asyncio.run(_supervise(main))


async def _supervise(main: Coroutine[Any, Any, ExitStatus]) -> int:
    loop = asyncio.get_running_loop()
    task = loop.create_task(main)
    received: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        received.append(number)
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    try:
        return await task
    except asyncio.CancelledError:
        if not received:
            raise
        return SIGNAL_STATUS + received[0]
