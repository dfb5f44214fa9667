"""What the frame types carry: each plaintext as a value, and back.

A value is valid once it exists: its constructor raises :class:`LocalError` for what the wire cannot carry. ``encode``
returns the plaintext, and ``decode_<name>`` raises :class:`FrameError` for bytes that are no such value or go on behind
it. DATA, the one type of the hot path, has two functions instead; DATAGRAM and MTU_PROBE are any bytes and need none.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, TypeVar

import attrs

from stt_core.config import MAX_FRAME_SIZE
from stt_core.errors import FrameError, LocalError, SerializationError
from stt_core.wire.frame import CUSTOM_FRAME_TYPES
from stt_core.wire.serialization import deserialize_stt, serialize_stt
from stt_core.wire.varint import MAX_VARINT, decode_varint, encode_varint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stt_core.interfaces.transport import Buffer

MAX_DICT_SIZE: Final = 1024
"""Bytes of an encoded STREAM_OPEN, or of the parameters in a handshake."""

MAX_PRIORITY: Final = 7
"""The priority that is served last."""

MAX_ACK_RANGES: Final = 64
"""Ranges in one ACK; older ones are left out."""

MAX_REASON_SIZE: Final = 256
"""Bytes of the UTF-8 reason in DISCONNECT."""

MAX_APP_PARAMETERS_SIZE: Final = 512
"""Bytes that an application may add to the parameters."""

MIN_MAX_FRAME_SIZE: Final = 1200
"""The lowest limit that a node may set for the frames it takes: what any path carries."""

ADDRESS_SIZE: Final = 32
"""Bytes of an endpoint's address, SHA3-256 of its name."""

TOKEN_SIZE: Final = 8
"""Bytes that make a PATH or KEEPALIVE recognisable."""


class StreamMode(IntEnum):
    """How a stream delivers."""

    RELIABLE = 0  #: in order, whole
    UNRELIABLE = 1  #: what comes, when it comes; gaps are told


class CloseKind(IntEnum):
    """What STREAM_CLOSE ends."""

    END = 0  #: the sender's direction, behind its last byte
    RESET = 1  #: the sender's direction, at once; what is under way is void
    STOP_SENDING = 2  #: asks the peer to reset its direction


class CreditKind(IntEnum):
    """What CREDIT limits."""

    SESSION = 0  #: the sum of the highest offsets of all streams
    STREAM = 1  #: the highest offset of the stream in the frame's header
    STREAMS = 2  #: the streams that the peer may ever open
    MESSAGES = 3  #: the reliable messages that the peer may ever send; 256 until told otherwise


class PathKind(IntEnum):
    """Whether PATH asks or answers."""

    CHALLENGE = 0  #: to be answered with the same token, on the path that it came on
    RESPONSE = 1  #: the answer


class RegisterKind(IntEnum):
    """What ENDPOINT_REGISTER does."""

    ANNOUNCE = 0  #: the sender handles this address
    WITHDRAW = 1  #: it no longer does


class ResolveKind(IntEnum):
    """Whether ENDPOINT_RESOLVE asks, and what it answers."""

    ASK = 0  #: is this address handled, here or behind you?
    KNOWN = 1  #: it is
    UNKNOWN = 2  #: it is not


class RouteKind(IntEnum):
    """What the body of ENDPOINT_ROUTE is."""

    ONE_WAY = 0  #: a message that is not answered
    REQUEST = 1  #: to be answered with REPLY or ERROR
    REPLY = 2  #: the handler's answer
    ERROR = 3  #: the request failed; the body says why, as UTF-8 text


# Checks of the values


def _up_to(maximum: int, minimum: int = 0) -> Any:
    def check(_: object, attribute: attrs.Attribute[int], value: int) -> None:
        if not minimum <= value <= maximum:
            raise LocalError(f"{attribute.name} is not from {minimum} to {maximum}")

    return check


def _of_size(size: int) -> Any:
    def check(_: object, attribute: attrs.Attribute[bytes], value: bytes) -> None:
        if len(value) != size:
            raise LocalError(f"{attribute.name} has {len(value)} bytes, not {size}")

    return check


_is_varint: Final = _up_to(MAX_VARINT)


def _show_size(data: Buffer) -> str:
    return f"<{len(data)} bytes>"


# Padding


def pad(plaintext: Buffer, block: int) -> bytes:
    """Return a plaintext with 0x80 and as few zeros behind it as make a multiple of ``block`` bytes (ISO/IEC 7816-4).

    Raises:
        LocalError: ``block`` is less than 1.
    """
    if block < 1:
        raise LocalError("a block has at least 1 byte")
    return b"".join((plaintext, b"\x80", bytes(-(len(plaintext) + 1) % block)))


def unpad(plaintext: bytes) -> memoryview:
    """Return the plaintext that :func:`pad` was given.

    Raises:
        FrameError: There is no 0x80 with nothing but zeros behind it.
    """
    end = plaintext.rfind(0x80)
    if end < 0 or plaintext.count(0, end + 1) != len(plaintext) - end - 1:
        raise FrameError("no padding at the end")
    return memoryview(plaintext)[:end]


# Streams


def encode_data(offset: int, data: Buffer) -> bytes:
    """Return the plaintext of DATA: the offset of the first byte in the stream, then the bytes.

    Raises:
        LocalError: The offset is no varint.
    """
    return encode_varint(offset) + data


def decode_data(plaintext: Buffer) -> tuple[int, memoryview]:
    """Return the offset and the bytes of DATA, without copying them.

    Raises:
        FrameError: There is no offset.
    """
    offset, start = decode_varint(plaintext)
    return offset, memoryview(plaintext)[start:]


@attrs.frozen(kw_only=True)
class StreamOpen:
    """STREAM_OPEN: what a new stream is for.

    Raises:
        LocalError: The priority is not from 0 to 7.
    """

    mode: StreamMode
    priority: int = attrs.field(validator=_up_to(MAX_PRIORITY))
    """From 0, served first, to 7."""

    label: str
    metadata: Any
    """Any value that STT serialization holds."""

    def encode(self) -> bytes:
        """Return the plaintext.

        Raises:
            LocalError: It would have more than ``MAX_DICT_SIZE`` bytes.
            SerializationError: The metadata cannot be serialized.
        """
        return _encode_dict(
            {
                "mode": int(self.mode),
                "priority": self.priority,
                "label": self.label,
                "metadata": self.metadata,
            }
        )


def decode_stream_open(plaintext: Buffer) -> StreamOpen:
    """Return the value of a STREAM_OPEN; keys that are not known are ignored.

    Raises:
        FrameError: It is not such a dict of at most ``MAX_DICT_SIZE`` bytes.
    """
    values = _decode_dict(plaintext)
    if "metadata" not in values:
        raise FrameError("metadata is missing")
    return _from_peer(
        StreamOpen,
        mode=_to_kind(StreamMode, _value(values, "mode", int)),
        priority=_value(values, "priority", int),
        label=_value(values, "label", str),
        metadata=values["metadata"],
    )


@attrs.frozen
class StreamClose:
    """STREAM_CLOSE: the end of one direction of a stream.

    Raises:
        LocalError: A number is no varint, or STOP_SENDING has a final size.
    """

    kind: CloseKind
    code: int = attrs.field(validator=_is_varint)
    """An :class:`~stt_core.errors.ErrorCode` or the application's."""

    final_size: int = attrs.field(default=0, validator=_is_varint)
    """Bytes that the sender's direction had in all; 0 for STOP_SENDING, which does not carry it."""

    def __attrs_post_init__(self) -> None:
        if self.kind is CloseKind.STOP_SENDING and self.final_size:
            raise LocalError("STOP_SENDING carries no final size")

    def encode(self) -> bytes:
        """Return the plaintext."""
        size = b"" if self.kind is CloseKind.STOP_SENDING else encode_varint(self.final_size)
        return bytes((self.kind,)) + encode_varint(self.code) + size


def decode_stream_close(plaintext: Buffer) -> StreamClose:
    """Return the value of a STREAM_CLOSE.

    Raises:
        FrameError: It is malformed.
    """
    kind = _kind(CloseKind, plaintext)
    code, offset = decode_varint(plaintext, 1)
    final_size = 0
    if kind is not CloseKind.STOP_SENDING:
        final_size, offset = decode_varint(plaintext, offset)
    _check_end(plaintext, offset)
    return StreamClose(kind, code, final_size)


@attrs.frozen
class Credit:
    """CREDIT: a new limit of what the peer may send or open; absolute, never a difference.

    Raises:
        LocalError: The limit is no varint.
    """

    kind: CreditKind
    limit: int = attrs.field(validator=_is_varint)

    def encode(self) -> bytes:
        """Return the plaintext."""
        return bytes((self.kind,)) + encode_varint(self.limit)


def decode_credit(plaintext: Buffer) -> Credit:
    """Return the value of a CREDIT.

    Raises:
        FrameError: It is malformed.
    """
    kind = _kind(CreditKind, plaintext)
    limit, offset = decode_varint(plaintext, 1)
    _check_end(plaintext, offset)
    return Credit(kind, limit)


# Session


@attrs.frozen
class Ack:
    """ACK: the frame numbers that arrived.

    Raises:
        LocalError: There is no range or more than ``MAX_ACK_RANGES``, a number is no varint, or the ranges are not
            newest first with at least one missing number between them.
    """

    delay_us: int = attrs.field(validator=_is_varint)
    """Microseconds for which the newest number waited for this ACK."""

    ranges: tuple[tuple[int, int], ...]
    """First and last number of each run, both inclusive; the newest run first."""

    def __attrs_post_init__(self) -> None:
        if not 0 < len(self.ranges) <= MAX_ACK_RANGES:
            raise LocalError(f"an ACK has 1 to {MAX_ACK_RANGES} ranges")
        # As if a run had begun two above the highest number there can be.
        above = MAX_VARINT + 2
        for first, last in self.ranges:
            if not 0 <= first <= last <= above - 2:
                raise LocalError("ranges of an ACK overlap, touch, or are not newest first")
            above = first

    def encode(self) -> bytes:
        """Return the plaintext (after RFC 9000 section 19.3)."""
        above, largest = self.ranges[0]
        parts = [
            encode_varint(largest),
            encode_varint(self.delay_us),
            encode_varint(len(self.ranges) - 1),
            encode_varint(largest - above),
        ]
        for first, last in self.ranges[1:]:
            parts += (encode_varint(above - last - 2), encode_varint(last - first))
            above = first
        return b"".join(parts)


def decode_ack(plaintext: Buffer) -> Ack:
    """Return the value of an ACK.

    Raises:
        FrameError: It is malformed, has more than ``MAX_ACK_RANGES`` ranges, or reaches below number 0.
    """
    largest, offset = decode_varint(plaintext)
    delay_us, offset = decode_varint(plaintext, offset)
    count, offset = decode_varint(plaintext, offset)
    if count >= MAX_ACK_RANGES:
        raise FrameError(f"an ACK of more than {MAX_ACK_RANGES} ranges")
    length, offset = decode_varint(plaintext, offset)
    first = largest - length
    ranges = [(first, largest)]
    for _ in range(count):
        gap, offset = decode_varint(plaintext, offset)
        length, offset = decode_varint(plaintext, offset)
        last = first - gap - 2
        first = last - length
        ranges.append((first, last))
    _check_end(plaintext, offset)
    return _from_peer(Ack, delay_us, tuple(ranges))


@attrs.frozen
class Keepalive:
    """KEEPALIVE: is acknowledged, and nothing more.

    Raises:
        LocalError: The token is not 8 bytes.
    """

    token: bytes = attrs.field(validator=_of_size(TOKEN_SIZE))
    """Any 8 bytes; they mean nothing to the peer."""

    def encode(self) -> bytes:
        """Return the plaintext."""
        return self.token


def decode_keepalive(plaintext: Buffer) -> Keepalive:
    """Return the value of a KEEPALIVE.

    Raises:
        FrameError: It is not 8 bytes.
    """
    return _from_peer(Keepalive, bytes(plaintext))


@attrs.frozen
class Disconnect:
    """DISCONNECT: the end of the session.

    Raises:
        LocalError: The code is no varint, or the reason has more than ``MAX_REASON_SIZE`` bytes or is no text.
    """

    code: int = attrs.field(validator=_is_varint)
    """An :class:`~stt_core.errors.ErrorCode` or the application's."""

    reason: str = attrs.field()

    @reason.validator
    def _check_reason(self, _: object, value: str) -> None:
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            raise LocalError("a reason with lone surrogates is no text") from None
        if size > MAX_REASON_SIZE:
            raise LocalError(f"a reason has at most {MAX_REASON_SIZE} bytes, not {size}")

    def encode(self) -> bytes:
        """Return the plaintext."""
        return encode_varint(self.code) + self.reason.encode()


def decode_disconnect(plaintext: Buffer) -> Disconnect:
    """Return the value of a DISCONNECT.

    Raises:
        FrameError: It has no code, or the reason is too long or not UTF-8.
    """
    code, offset = decode_varint(plaintext)
    try:
        reason = str(memoryview(plaintext)[offset:], "utf-8")
    except UnicodeDecodeError:
        raise FrameError("the reason is not UTF-8") from None
    return _from_peer(Disconnect, code, reason)


@attrs.frozen
class PathProbe:
    """PATH: asks for, or gives, proof that the peer is reached on a path.

    Raises:
        LocalError: The token is not 8 bytes.
    """

    kind: PathKind
    token: bytes = attrs.field(validator=_of_size(TOKEN_SIZE))
    """8 random bytes, which the response repeats."""

    def encode(self, size: int = 0) -> bytes:
        """Return the plaintext, filled with zeros to ``size`` bytes where it is smaller."""
        return (bytes((self.kind,)) + self.token).ljust(size, b"\0")


def decode_path_probe(plaintext: Buffer) -> PathProbe:
    """Return the value of a PATH.

    Raises:
        FrameError: It is too short, or anything but zeros follows.
    """
    kind = _kind(PathKind, plaintext)
    rest = bytes(plaintext[1:])
    if rest.count(0, TOKEN_SIZE) < len(rest) - TOKEN_SIZE:
        raise FrameError("bytes other than zeros behind the token")
    return _from_peer(PathProbe, kind, rest[:TOKEN_SIZE])


# Reliable messages


@attrs.frozen
class MessageFragment:
    """A piece of a reliable message: an ENDPOINT frame, or one of a custom type that its receiver wants reliable.

    Raises:
        LocalError: A number is no varint, or the piece lies outside of the message.
    """

    message_id: int = attrs.field(validator=_is_varint)
    """Counts from 0 per direction of a session, over all types."""

    total: int = attrs.field(validator=_is_varint)
    """Bytes of the whole message; the session holds it against its own limit."""

    offset: int = attrs.field(validator=_is_varint)
    data: Buffer = attrs.field(repr=_show_size)

    def __attrs_post_init__(self) -> None:
        if self.offset + len(self.data) > self.total:
            raise LocalError("a fragment reaches beyond its message")

    def encode(self) -> bytes:
        """Return the plaintext."""
        head = encode_varint(self.message_id) + encode_varint(self.total) + encode_varint(self.offset)
        return head + self.data


def decode_message_fragment(plaintext: Buffer) -> MessageFragment:
    """Return a fragment, whose data is a view of the plaintext.

    Raises:
        FrameError: It is malformed, or reaches beyond the message.
    """
    message_id, offset = decode_varint(plaintext)
    total, offset = decode_varint(plaintext, offset)
    start, offset = decode_varint(plaintext, offset)
    return _from_peer(MessageFragment, message_id, total, start, memoryview(plaintext)[offset:])


@attrs.frozen
class EndpointRegister:
    """ENDPOINT_REGISTER: who handles an address.

    Raises:
        LocalError: The address is not 32 bytes.
    """

    kind: RegisterKind
    address: bytes = attrs.field(validator=_of_size(ADDRESS_SIZE))

    def encode(self) -> bytes:
        """Return the message."""
        return bytes((self.kind,)) + self.address


def decode_endpoint_register(message: Buffer) -> EndpointRegister:
    """Return the value of an ENDPOINT_REGISTER.

    Raises:
        FrameError: It is malformed.
    """
    return _from_peer(EndpointRegister, _kind(RegisterKind, message), bytes(message[1:]))


@attrs.frozen
class EndpointResolve:
    """ENDPOINT_RESOLVE: whether an address is known.

    Raises:
        LocalError: The request id is no varint, or the address not 32 bytes.
    """

    kind: ResolveKind
    request_id: int = attrs.field(validator=_is_varint)
    address: bytes = attrs.field(validator=_of_size(ADDRESS_SIZE))

    def encode(self) -> bytes:
        """Return the message."""
        return bytes((self.kind,)) + encode_varint(self.request_id) + self.address


def decode_endpoint_resolve(message: Buffer) -> EndpointResolve:
    """Return the value of an ENDPOINT_RESOLVE.

    Raises:
        FrameError: It is malformed.
    """
    kind = _kind(ResolveKind, message)
    request_id, offset = decode_varint(message, 1)
    return _from_peer(EndpointResolve, kind, request_id, bytes(message[offset:]))


@attrs.frozen
class EndpointRoute:
    """ENDPOINT_ROUTE: bytes to or from the handler of an address.

    Raises:
        LocalError: A number is out of its range, or the address not 32 bytes.
    """

    kind: RouteKind
    request_id: int = attrs.field(validator=_is_varint)
    """Belongs to one session and direction; any number for ONE_WAY."""

    hops_left: int = attrs.field(validator=_up_to(0xFF))
    """How often it may still be relayed."""

    address: bytes = attrs.field(validator=_of_size(ADDRESS_SIZE))
    body: bytes = attrs.field(repr=_show_size)

    def encode(self) -> bytes:
        """Return the message."""
        head = bytes((self.kind,)) + encode_varint(self.request_id) + bytes((self.hops_left,))
        return head + self.address + self.body


def decode_endpoint_route(message: Buffer) -> EndpointRoute:
    """Return the value of an ENDPOINT_ROUTE.

    Raises:
        FrameError: It is malformed.
    """
    kind = _kind(RouteKind, message)
    request_id, offset = decode_varint(message, 1)
    start = offset + 1
    body_start = start + ADDRESS_SIZE
    if len(message) < body_start:
        raise FrameError("truncated endpoint message")
    address = bytes(message[start:body_start])
    return EndpointRoute(kind, request_id, message[offset], address, bytes(message[body_start:]))


# Handshake parameters


@attrs.frozen(kw_only=True)
class Parameters:
    """What each side tells of itself in the handshake.

    Raises:
        LocalError: A value is out of its range, or two custom types have one code.
    """

    credit: tuple[int, int, int] = attrs.field()
    """Bytes of all streams, bytes of each stream, streams: what the peer may send or open before it gets more."""

    idle: int = attrs.field(validator=_up_to(MAX_VARINT, 1))
    """Milliseconds without a frame of the peer after which the session ends; the smaller of both sides' holds."""

    max_frame: int = attrs.field(validator=_up_to(MAX_FRAME_SIZE, MIN_MAX_FRAME_SIZE))
    """Bytes of the largest frame that this side takes."""

    padding: int = attrs.field(default=0, validator=_up_to(0x10000))
    """Bytes of a padding block, 0 for none; the larger of both sides' holds."""

    custom: Mapping[str, tuple[int, bool]] = attrs.field(factory=dict)
    """Name of each custom frame type that this side receives: its code here, and whether it is reliable."""

    endpoints: bool = False
    """Whether this side relays between endpoints."""

    app: bytes = attrs.field(default=b"", repr=_show_size)
    """At most 512 bytes for the peer's application."""

    @credit.validator
    def _check_credit(self, _: object, value: tuple[int, int, int]) -> None:
        if len(value) != 3 or not all(0 <= limit <= MAX_VARINT for limit in value):
            raise LocalError("credit is not three varints")

    @custom.validator
    def _check_custom(self, _: object, value: Mapping[str, tuple[int, bool]]) -> None:
        codes = {code for code, _ in value.values()}
        if len(codes) < len(value) or not codes <= set(CUSTOM_FRAME_TYPES):
            raise LocalError("the codes of custom frame types are not from 0x80 to 0xff, each once")

    @app.validator
    def _check_app(self, _: object, value: bytes) -> None:
        if len(value) > MAX_APP_PARAMETERS_SIZE:
            raise LocalError(f"app has {len(value)} bytes, but at most {MAX_APP_PARAMETERS_SIZE} fit")

    def encode(self) -> bytes:
        """Return the parameters as they stand in RESPONSE and CHALLENGE.

        Raises:
            LocalError: They would have more than ``MAX_DICT_SIZE`` bytes: too many custom types, or too long names.
        """
        return _encode_dict(attrs.asdict(self, recurse=False) | {"custom": dict(self.custom)})


def decode_parameters(data: Buffer) -> Parameters:
    """Return the parameters of the peer; keys that are not known are ignored.

    Raises:
        FrameError: They are not such a dict of at most ``MAX_DICT_SIZE`` bytes.
    """
    values = _decode_dict(data)
    credit = _value(values, "credit", list)
    if any(type(limit) is not int for limit in credit):
        raise FrameError("credit holds something else than integers")
    custom = _value(values, "custom", dict)
    for entry in custom.values():
        if type(entry) is not list or [type(item) for item in entry] != [int, bool]:
            raise FrameError("a custom frame type is something else than a code and whether it is reliable")
    return _from_peer(
        Parameters,
        credit=tuple(credit),
        idle=_value(values, "idle", int),
        max_frame=_value(values, "max_frame", int),
        padding=_value(values, "padding", int),
        custom={name: tuple(entry) for name, entry in custom.items()},
        endpoints=_value(values, "endpoints", bool),
        app=_value(values, "app", bytes),
    )


# Internals

_Value = TypeVar("_Value")
_Kind = TypeVar("_Kind", bound=IntEnum)


def _from_peer(build: Callable[..., _Value], *args: Any, **kwargs: Any) -> _Value:
    # The rules stand once, in the constructors; here it is the peer who broke them.
    try:
        return build(*args, **kwargs)
    except LocalError as error:
        raise FrameError(str(error)) from None


def _kind(kinds: type[_Kind], plaintext: Buffer) -> _Kind:
    if not plaintext:
        raise FrameError("empty message")
    return _to_kind(kinds, plaintext[0])


def _to_kind(kinds: type[_Kind], number: int) -> _Kind:
    try:
        return kinds(number)
    except ValueError:
        raise FrameError(f"{number} is no {kinds.__name__}") from None


def _check_end(plaintext: Buffer, offset: int) -> None:
    if offset != len(plaintext):
        raise FrameError(f"{len(plaintext) - offset} bytes behind the message")


def _encode_dict(values: dict[str, Any]) -> bytes:
    encoded = serialize_stt(values)
    if len(encoded) > MAX_DICT_SIZE:
        raise LocalError(f"{', '.join(values)} have {len(encoded)} bytes together, but at most {MAX_DICT_SIZE} fit")
    return encoded


def _decode_dict(data: Buffer) -> dict[str, Any]:
    try:
        values = deserialize_stt(data, max_size=MAX_DICT_SIZE)
    except SerializationError as error:
        raise FrameError(str(error)) from None
    if type(values) is not dict:
        raise FrameError("no dict")
    return values


def _value(values: dict[str, Any], key: str, kind: type[_Value]) -> _Value:
    value = values.get(key)
    # Exactly: a bool is no int here.
    if type(value) is not kind:
        raise FrameError(f"{key} is missing or no {kind.__name__}")
    return value
