"""What a WebSocket peer can do wrong, as exceptions of STT's own tree.

RemoteError
|-- ProtocolViolation    frames that RFC 6455 forbids, or that pass a limit; carries the close code
`-- UpgradeRefused       an opening handshake that fails; carries the HTTP status
"""

from __future__ import annotations

from stt_core.errors import RemoteError


class ProtocolViolation(RemoteError):
    """The peer broke RFC 6455 after the opening handshake, or went beyond a limit of this side.

    Attributes:
        close_code: The code of the Close frame that answers it.
        reason: Text for the local log and for that Close frame.
    """

    def __init__(self, close_code: int, reason: str) -> None:
        super().__init__(reason)
        self.close_code = close_code


class UpgradeRefused(RemoteError):
    """An opening handshake, or a proxy's answer, that cannot become a connection.

    Attributes:
        status: The HTTP status: at a server the one that answers, at a client the one that came (0: none did).
        reason: Text for the local log; a server sends it too.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
