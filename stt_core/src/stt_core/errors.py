"""Every exception that STT raises, in one tree, and the codes that travel in frames.

    STTError
    |-- LocalError                 the caller's mistake, raised at once
    |   |-- ConfigError            a setting, seed or URL that cannot work
    |   |-- SessionClosed          used after the session ended; carries why
    |   `-- StreamClosed           used after the stream ended; carries the code
    |-- RemoteError                what the peer did; carries the code that answers it
    |   |-- FrameError             bytes that are not a frame or not a message
    |   `-- HandshakeError         a handshake message that is refused
    |       `-- WrongPeer          another node than the expected one proved itself
    |-- SerializationError         a value that cannot be encoded, or bytes that are no value
    |-- CryptoError                sealing or opening failed
    |-- ConnectError               no session came about; carries the reason
    |-- EndpointError              a request was answered with an error; carries the code
    |-- RequestTimeout             a wait given by the caller ran out
    |-- IncompleteRead             a stream ended before all that was asked for had come; carries what came
    `-- PluginError                a plugin is missing, broken or in conflict
        |-- TransportError         a transport failed
        |   `-- PeerUnreachable    the host says that nobody listens at that address
        `-- StorageError           a store failed

Plugins extend this tree and start none of their own.
"""

from __future__ import annotations

from enum import Enum, IntEnum


class ErrorCode(IntEnum):
    """Why a session or stream ended: the code in DISCONNECT and STREAM_CLOSE frames."""

    NO_ERROR = 0  #: a normal end
    PROTOCOL = 1  #: a frame that the protocol forbids here
    FLOW_CONTROL = 2  #: more than the credit that was given
    FRAME = 3  #: a frame that opened but could not be decoded
    STREAM = 4  #: a stream used against its state
    UNSUPPORTED = 5  #: a frame type that is not known
    LIMIT = 6  #: a bound of this node was reached
    TIMEOUT = 7  #: nothing was heard for too long
    REFUSED = 8  #: the peer is not allowed in
    INTERNAL = 9  #: a fault of the node itself


APPLICATION_CODES = range(0x100, 1 << 32)
"""The codes that are the application's own."""


class EndpointErrorCode(IntEnum):
    """Why a request to an endpoint failed: the code in the body of an ENDPOINT_ROUTE error."""

    UNKNOWN = 1  #: nobody there knows the endpoint
    FAILED = 2  #: the handler raised
    TIMEOUT = 3  #: a relay waited too long for the reply
    HOPS = 4  #: the request was relayed too often
    BUSY = 5  #: too many requests are under way
    TOO_LARGE = 6  #: the body is longer than the receiver takes


class ConnectReason(Enum):
    """Why :class:`ConnectError` was raised, as the local side sees it."""

    NO_ANSWER = "no_answer"  #: silence until the time-out: another seed, a wrong address or a blocked port
    REFUSED = "refused"  #: the peer proved the seed and then refused this node
    UNREACHABLE = "unreachable"  #: the host says that nobody listens there
    WRONG_PEER = "wrong_peer"  #: somebody with the seed answered, but not the expected node
    CANCELLED = "cancelled"  #: the node was stopped meanwhile


class STTError(Exception):
    """The root of all exceptions of STT and its plugins."""


class LocalError(STTError):
    """The caller's mistake: a call out of state, or with values that cannot be."""


class ConfigError(LocalError):
    """A setting, a seed or a URL that cannot work."""


class SessionClosed(LocalError):
    """The session has ended.

    Attributes:
        code: An :class:`ErrorCode` or an application's code.
        reason: Text, the peer's own where ``by_peer``.
        by_peer: Whether the peer ended it.
    """

    def __init__(self, code: int, reason: str, *, by_peer: bool) -> None:
        super().__init__(code, reason, by_peer)
        self.code = code
        self.reason = reason
        self.by_peer = by_peer

    def __str__(self) -> str:
        return f"session closed {'by the peer' if self.by_peer else 'here'}: {self.reason or code_name(self.code)}"


class StreamClosed(LocalError):
    """The stream was reset, or the direction that was asked for has ended.

    Attributes:
        code: An :class:`ErrorCode` or an application's code.
        by_peer: Whether the peer ended it.
    """

    def __init__(self, code: int, *, by_peer: bool) -> None:
        super().__init__(code, by_peer)
        self.code = code
        self.by_peer = by_peer

    def __str__(self) -> str:
        return f"stream closed {'by the peer' if self.by_peer else 'here'}: {code_name(self.code)}"


class RemoteError(STTError):
    """The peer broke the protocol.

    Attributes:
        reason: Text for the local log and, where a session exists, for the peer.
        code: The code to close with.
    """

    def __init__(self, reason: str, code: ErrorCode = ErrorCode.PROTOCOL) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


class FrameError(RemoteError):
    """Bytes that are not a frame, or a frame whose content is not a message."""

    def __init__(self, reason: str, code: ErrorCode = ErrorCode.FRAME) -> None:
        super().__init__(reason, code)


class HandshakeError(RemoteError):
    """A handshake message that is malformed, out of state, unproven or refused."""


class WrongPeer(HandshakeError):
    """Somebody with the seed answered and proved an identity, but not the expected one."""


class SerializationError(STTError):
    """A value that STT serialization cannot hold, or bytes that are not such a value."""


class CryptoError(STTError):
    """Sealing or opening failed: a wrong key, or bytes that were changed."""


class ConnectError(STTError):
    """No session came about.

    Attributes:
        reason: One of :class:`ConnectReason`.
    """

    def __init__(self, reason: ConnectReason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class EndpointError(STTError):
    """A request to an endpoint was answered with an error.

    Attributes:
        code: One of :class:`EndpointErrorCode`, or a number that this version does not know.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text

    def __str__(self) -> str:
        return self.text


class RequestTimeout(STTError, TimeoutError):
    """A wait that the caller limited ran out."""


class IncompleteRead(STTError, EOFError):
    """A stream ended before as many bytes had come as were asked for.

    Attributes:
        received: The bytes that came; they are in no text of this error.
        expected: How many were asked for.
    """

    def __init__(self, received: bytes, expected: int) -> None:
        super().__init__(f"the stream ended after {len(received)} of {expected} bytes")
        self.received = received
        self.expected = expected


class PluginError(STTError):
    """A plugin is missing, failed, or claims what another has."""


class TransportError(PluginError):
    """A transport failed to open, to send or to receive."""


class PeerUnreachable(TransportError):
    """The host says that nobody listens at an address.

    Attributes:
        address: The address, as the transport names it.
    """

    def __init__(self, address: object, text: str) -> None:
        super().__init__(text)
        self.address = address


class StorageError(PluginError):
    """A store failed: full, read-only, locked or gone."""


def code_name(code: int) -> str:
    """Return the name of a code in words; an application's code as a number."""
    try:
        return ErrorCode(code).name.lower().replace("_", " ")
    except ValueError:
        return f"application code {code:#x}"
