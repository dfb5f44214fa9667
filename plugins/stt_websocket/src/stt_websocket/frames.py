"""RFC 6455 frames: headers, masks and close payloads to bytes and back; no state.

A frame header is 2 to 14 bytes (section 5.2): final bit, three reserved bits, opcode; mask bit, length in 7, 16 or
64 bits, always the shortest; the masking key of 4 bytes where the mask bit is set.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

from stt_core.errors import LocalError
from stt_websocket.errors import ProtocolViolation

MAX_HEADER_SIZE: Final = 14
MAX_CONTROL_SIZE: Final = 125
"""Bytes that the payload of a control frame may hold (section 5.5)."""

_SIZE_16 = struct.Struct(">BBH")
_SIZE_64 = struct.Struct(">BBQ")
_CODE = struct.Struct(">H")


class Opcode(IntEnum):
    """What a frame is (section 5.2); all other values are reserved and refused."""

    CONTINUATION = 0x0  #: a further fragment of the message begun before
    TEXT = 0x1  #: begins a message of UTF-8 text
    BINARY = 0x2  #: begins a message of bytes
    CLOSE = 0x8  #: the last frame of its sender
    PING = 0x9  #: asks for a PONG of the same payload
    PONG = 0xA  #: answers a PING, or stands alone as a sign of life


class CloseCode(IntEnum):
    """Why a connection ends (section 7.4.1 and the IANA registry); 3000-4999 are for libraries and applications."""

    NORMAL = 1000  #: the purpose is fulfilled
    GOING_AWAY = 1001  #: a server shuts down, a browser leaves the page
    PROTOCOL_ERROR = 1002  #: frames that RFC 6455 forbids
    UNSUPPORTED_DATA = 1003  #: a message of a type that this side does not take
    NO_CODE = 1005  #: never sent: the Close frame had no code
    ABNORMAL = 1006  #: never sent: the connection ended without a Close frame
    INVALID_DATA = 1007  #: text that is not UTF-8
    POLICY_VIOLATION = 1008  #: refused for a reason without a code of its own
    TOO_BIG = 1009  #: a message beyond the limit
    EXTENSION_MISSING = 1010  #: a client misses an extension in the server's answer
    INTERNAL_ERROR = 1011  #: the server met what it did not expect
    SERVICE_RESTART = 1012  #: the server restarts
    TRY_AGAIN_LATER = 1013  #: the server is overloaded
    BAD_GATEWAY = 1014  #: a server behind a gateway failed
    TLS_FAILED = 1015  #: never sent: TLS could not be set up


_NEVER_SENT = frozenset({CloseCode.NO_CODE, CloseCode.ABNORMAL, CloseCode.TLS_FAILED})
_SENDABLE = frozenset(CloseCode) - _NEVER_SENT


class FrameHeader(NamedTuple):
    """A decoded frame header."""

    is_final: bool
    """Whether the frame ends its message."""

    opcode: Opcode
    """What the frame is."""

    key: bytes
    """The masking key, 4 bytes; empty when the payload is not masked."""

    size: int
    """Bytes of payload."""

    end: int
    """Offset of the first payload byte in the bytes that were decoded."""


def encode_header(opcode: int, size: int, key: bytes = b"", *, is_final: bool = True) -> bytes:
    """Return the header of a frame with ``size`` bytes of payload; with a ``key`` of 4 bytes it says masked."""
    first = opcode | 0x80 if is_final else opcode
    mask_bit = 0x80 if key else 0
    if size <= 125:
        return bytes((first, mask_bit | size)) + key
    if size <= 0xFFFF:
        return _SIZE_16.pack(first, mask_bit | 126, size) + key
    return _SIZE_64.pack(first, mask_bit | 127, size) + key


def decode_header(data: bytes, offset: int, *, is_masked: bool) -> FrameHeader | None:
    """Decode the frame header at ``offset``.

    Args:
        data: Bytes as they came; more or less than the header may be there.
        offset: Where the header begins.
        is_masked: Whether the frame must be masked: it must when a client sent it, and must not otherwise.

    Returns:
        None while bytes of the header are missing.

    Raises:
        ProtocolViolation: With code 1002; raised as soon as the bytes that are there forbid the frame.
    """
    if len(data) < offset + 2:
        return None
    first, second = data[offset], data[offset + 1]
    if first & 0x70:
        raise ProtocolViolation(CloseCode.PROTOCOL_ERROR, "reserved bits are set")
    try:
        opcode = _OPCODES[first & 0x0F]
    except KeyError:
        raise ProtocolViolation(CloseCode.PROTOCOL_ERROR, f"opcode {first & 0x0F} is reserved") from None
    if (second >= 0x80) is not is_masked:
        raise ProtocolViolation(CloseCode.PROTOCOL_ERROR, "not masked" if is_masked else "masked by a server")
    is_final = first >= 0x80
    size = second & 0x7F
    if opcode >= Opcode.CLOSE and (size > MAX_CONTROL_SIZE or not is_final):
        raise ProtocolViolation(CloseCode.PROTOCOL_ERROR, "a control frame is fragmented or above 125 bytes")
    end = offset + 2
    if size >= 126:
        end += 2 if size == 126 else 8
        if len(data) < end:
            return None
        size = _decode_size(data[offset + 2 : end])
    if not is_masked:
        return FrameHeader(is_final, opcode, b"", size, end)
    if len(data) < end + 4:
        return None
    return FrameHeader(is_final, opcode, data[end : end + 4], size, end + 4)


def _decode_size(field: bytes) -> int:
    size = int.from_bytes(field, "big")
    if size >> 63:
        raise ProtocolViolation(CloseCode.PROTOCOL_ERROR, "a length of 2^63 or more")
    if size <= (125 if len(field) == 2 else 0xFFFF):
        raise ProtocolViolation(CloseCode.PROTOCOL_ERROR, "a length in more bytes than it needs")
    return size


_OPCODES: Final = {int(opcode): opcode for opcode in Opcode}


def encode_close(code: int, reason: str) -> bytes:
    """Return the payload of a Close frame; a reason too long for a control frame is cut between characters.

    Raises:
        LocalError: The code may not be sent.
    """
    if not is_sendable(code):
        raise LocalError(f"close code {code} may not be sent")
    text = reason.encode()[: MAX_CONTROL_SIZE - 2].decode(errors="ignore")
    return _CODE.pack(code) + text.encode()


def decode_close(payload: bytes) -> tuple[int, str]:
    """Return code and reason of a Close frame; code 1005 stands for an empty payload.

    Raises:
        ProtocolViolation: 1002 for a code that may not be sent or for half a code, 1007 for a reason that is not UTF-8.
    """
    if not payload:
        return CloseCode.NO_CODE, ""
    if len(payload) == 1:
        raise ProtocolViolation(CloseCode.PROTOCOL_ERROR, "half a close code")
    code = int.from_bytes(payload[:2], "big")
    if not is_sendable(code):
        raise ProtocolViolation(CloseCode.PROTOCOL_ERROR, f"close code {code} may not be sent")
    try:
        return code, payload[2:].decode()
    except UnicodeDecodeError:
        raise ProtocolViolation(CloseCode.INVALID_DATA, "a close reason that is not UTF-8") from None


def is_sendable(code: int) -> bool:
    """Tell whether a close code may stand in a Close frame (section 7.4.2)."""
    return code in _SENDABLE or 3000 <= code <= 4999
