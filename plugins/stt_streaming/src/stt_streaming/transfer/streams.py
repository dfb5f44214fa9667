"""What both ends of a transfer do alike: read one message, understand a reset, show progress or not."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from stt_core.errors import APPLICATION_CODES, FrameError, IncompleteRead, code_name
from stt_streaming.transfer.messages import LENGTH, TransferStatus, message_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from stt_core import STTStream

    Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]

_REASONS: Final = {
    TransferStatus.BUSY: "the peer is busy with other files",
    TransferStatus.NO_SPACE: "the peer's disk is full",
    TransferStatus.NOT_WRITABLE: "the peer cannot write the file",
    TransferStatus.MISMATCH: "what arrived was not what was sent",
    TransferStatus.MALFORMED: "the peer did not understand this side",
    TransferStatus.UNSUPPORTED: "the peer takes no files, or speaks another version of the file transfer",
    TransferStatus.CHANGED: "the file changed, or could not be read on, at the peer",
    TransferStatus.CANCELLED: "cancelled by the peer",
    TransferStatus.EXISTS: "something of that name is there already",
    TransferStatus.UNWANTED: "the peer does not want it",
}


async def read_message(stream: STTStream) -> bytes:
    """Return the next message of a stream, without its length.

    Raises:
        FrameError: The length is impossible, or the stream ended first.
        StreamClosed: The peer reset the stream.
        SessionClosed: The session ended.
    """
    try:
        return await stream.receive_exactly(message_size(await stream.receive_exactly(LENGTH.size)))
    except IncompleteRead:
        raise FrameError("the stream ended where a message was to come") from None


def reason_of_reset(code: int) -> tuple[TransferStatus, str]:
    """Return what a stream's reset means in a transfer, whatever the code."""
    try:
        status = TransferStatus(code - APPLICATION_CODES.start)
    except ValueError:
        return TransferStatus.CANCELLED, f"the peer broke the stream off: {code_name(code)}"
    return status, _REASONS.get(status, "the peer broke the stream off")


@contextlib.contextmanager
def show_nothing(_name: str, _size: int) -> Iterator[Callable[[int], None]]:
    """Show no progress, where nobody wants to see it."""
    yield lambda _: None
