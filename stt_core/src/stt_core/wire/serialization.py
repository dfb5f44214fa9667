"""STT serialization: plain values as bytes, each value in one way, and back within limits.

One tag byte, then the body (wire format, section 5). Neither direction recurses: the depth limit holds whatever it is
set to, and however deep the caller's own stack is.
"""

from __future__ import annotations

import struct
from itertools import repeat
from math import isnan
from typing import TYPE_CHECKING, Any, ClassVar, Final

import attrs

from stt_core.errors import SerializationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stt_core.interfaces.transport import Buffer

MAX_DEPTH: Final = 64
"""Lists and dicts that may lie within one another, the outermost counted."""

MAX_ITEMS: Final = 1_000_000
"""Items of all lists and pairs of all dicts of a value together."""

MAX_SIZE: Final = 16 * 1024 * 1024
"""Bytes of a whole encoding."""

# The tag and body of each number; the tag and length of BYTES and STRING, the tag and count of LIST and DICT.
_INT8: Final = struct.Struct(">Bb")
_INT16: Final = struct.Struct(">Bh")
_INT32: Final = struct.Struct(">Bi")
_INT64: Final = struct.Struct(">Bq")
_UINT8: Final = struct.Struct(">BB")
_UINT16: Final = struct.Struct(">BH")
_UINT32: Final = struct.Struct(">BI")
_UINT64: Final = struct.Struct(">BQ")
_FLOAT32: Final = struct.Struct(">Bf")
_FLOAT64: Final = struct.Struct(">Bd")
_LENGTH: Final = struct.Struct(">BI")
_BYTES: Final = 0x30
_STRING: Final = 0x31
_LIST: Final = 0x40
_DICT: Final = 0x41


# Wrappers


@attrs.frozen
class _Number:
    value: float
    _form: ClassVar[struct.Struct]

    def __attrs_post_init__(self) -> None:
        try:
            self._form.pack(0, self.value)
        except (struct.error, OverflowError):
            raise SerializationError(f"the number does not fit into {type(self).__name__}") from None


@attrs.frozen
class _Integer(_Number):
    value: int


class Int8(_Integer):
    """An integer to be written under tag 0x10, whatever a plain ``int`` would get; it decodes to a plain ``int``.

    Raises:
        SerializationError: It does not fit; so for all the wrappers.
    """

    __slots__ = ()
    _form = _INT8


class Int16(_Integer):
    """As :class:`Int8`, with 16 bits under tag 0x11."""

    __slots__ = ()
    _form = _INT16


class Int32(_Integer):
    """As :class:`Int8`, with 32 bits under tag 0x12."""

    __slots__ = ()
    _form = _INT32


class Int64(_Integer):
    """As :class:`Int8`, with 64 bits under tag 0x13."""

    __slots__ = ()
    _form = _INT64


class UInt8(_Integer):
    """As :class:`Int8`, unsigned under tag 0x14."""

    __slots__ = ()
    _form = _UINT8


class UInt16(_Integer):
    """As :class:`Int8`, with 16 unsigned bits under tag 0x15."""

    __slots__ = ()
    _form = _UINT16


class UInt32(_Integer):
    """As :class:`Int8`, with 32 unsigned bits under tag 0x16."""

    __slots__ = ()
    _form = _UINT32


class UInt64(_Integer):
    """As :class:`Int8`, with 64 unsigned bits under tag 0x17."""

    __slots__ = ()
    _form = _UINT64


class Float32(_Number):
    """A number to be rounded to single precision and written under tag 0x20; it decodes to a plain ``float``."""

    __slots__ = ()
    _form = _FLOAT32


# Encoding


def serialize_stt(
    value: Any, *, max_depth: int = MAX_DEPTH, max_items: int = MAX_ITEMS, max_size: int = MAX_SIZE
) -> bytes:
    """Return the one encoding of a value.

    Args:
        value: None, a bool, an int from -2^63 to 2^64 - 1, a float, bytes, bytearray, memoryview, a str, a list or
            tuple of such values, a dict of them under str keys, or one of the wrappers; also of a subclass of these.
        max_depth: As for :func:`deserialize_stt`, so that what is written can be read.
        max_items: Likewise.
        max_size: Likewise.

    Raises:
        SerializationError: The value has another type, is out of range or exceeds a limit, or a string in it is no
            text (lone surrogates).
    """
    parts: list[bytes] = []
    items = 0
    size = 0
    # What is still to be written, the innermost container last: pairs of the bytes before a value, and the value.
    pending: list[Iterator[tuple[bytes, Any]]] = [iter(((b"", value),))]
    while pending:
        for prefix, item in pending[-1]:
            kind = type(item) if type(item) in _KINDS else _known_base(type(item))
            if kind in _CONTAINERS:
                items += len(item)
                if items > max_items:
                    raise SerializationError(f"more than {max_items} items")
                if len(pending) > max_depth:
                    raise SerializationError(f"lists and dicts more than {max_depth} deep")
                encoded = _encode_length(_CONTAINERS[kind], len(item))
            else:
                encoded = _ENCODERS[kind](item)
            size += len(prefix) + len(encoded)
            if size > max_size:
                raise SerializationError(f"encoding of more than {max_size} bytes")
            parts += (prefix, encoded)
            if kind in _CONTAINERS:
                pending.append(_pairs(item) if kind is dict else zip(repeat(b""), item, strict=False))
                break
        else:
            pending.pop()
    return b"".join(parts)


def _pairs(value: dict[Any, Any]) -> Iterator[tuple[bytes, Any]]:
    if not all(isinstance(key, str) for key in value):
        raise SerializationError("a key of a dict is not a str")
    # Python orders strings by code point, which is the order of their UTF-8.
    return ((_encode_str(key), value[key]) for key in sorted(value))


def _known_base(kind: type) -> type:
    for base in kind.__mro__:
        if base in _KINDS:
            return base
    raise SerializationError(f"{kind.__name__} cannot be serialized")


def _encode_int(value: int) -> bytes:
    if -0x80 <= value < 0x80:
        return _INT8.pack(0x10, value)
    if -0x8000 <= value < 0x8000:
        return _INT16.pack(0x11, value)
    if -0x80000000 <= value < 0x80000000:
        return _INT32.pack(0x12, value)
    if -(1 << 63) <= value < 1 << 63:
        return _INT64.pack(0x13, value)
    if 0 < value < 1 << 64:
        return _UINT64.pack(0x17, value)
    raise SerializationError("an int has more than 64 bits")


def _encode_float(value: float) -> bytes:
    # NaN has many bit patterns, of which one is written.
    return b"\x21\x7f\xf8\0\0\0\0\0\0" if isnan(value) else _FLOAT64.pack(0x21, value)


def _encode_float32(wrapper: Float32) -> bytes:
    return b"\x20\x7f\xc0\0\0" if isnan(wrapper.value) else _FLOAT32.pack(0x20, wrapper.value)


def _encode_bytes(value: Buffer) -> bytes:
    data = bytes(value)
    return _encode_length(_BYTES, len(data)) + data


def _encode_str(value: str) -> bytes:
    try:
        data = value.encode()
    except UnicodeEncodeError:
        raise SerializationError("a string with lone surrogates is no text") from None
    return _encode_length(_STRING, len(data)) + data


def _encode_length(tag: int, length: int) -> bytes:
    try:
        return _LENGTH.pack(tag, length)
    except struct.error:
        raise SerializationError("a value of more than 2^32 - 1 bytes or items") from None


def _encode_number(tag: int, form: struct.Struct) -> Callable[[Any], bytes]:
    return lambda wrapper: form.pack(tag, wrapper.value)


_CONTAINERS: Final[dict[type, int]] = {dict: _DICT, list: _LIST, tuple: _LIST}
_ENCODERS: Final[dict[type, Callable[[Any], bytes]]] = {
    type(None): lambda _: b"\x00",
    bool: lambda value: b"\x02" if value else b"\x01",
    int: _encode_int,
    float: _encode_float,
    bytes: _encode_bytes,
    bytearray: _encode_bytes,
    memoryview: _encode_bytes,
    str: _encode_str,
    Int8: _encode_number(0x10, _INT8),
    Int16: _encode_number(0x11, _INT16),
    Int32: _encode_number(0x12, _INT32),
    Int64: _encode_number(0x13, _INT64),
    UInt8: _encode_number(0x14, _UINT8),
    UInt16: _encode_number(0x15, _UINT16),
    UInt32: _encode_number(0x16, _UINT32),
    UInt64: _encode_number(0x17, _UINT64),
    Float32: _encode_float32,
}
_KINDS: Final = _CONTAINERS.keys() | _ENCODERS.keys()


# Decoding


def deserialize_stt(
    data: Buffer, *, max_depth: int = MAX_DEPTH, max_items: int = MAX_ITEMS, max_size: int = MAX_SIZE
) -> Any:
    """Return the value that ``data`` is the encoding of: None, bool, int, float, bytes, str, list or dict.

    Args:
        data: Any bytes.
        max_depth: Lists and dicts that may lie within one another, the outermost counted.
        max_items: Items of all lists and pairs of all dicts together.
        max_size: Bytes of ``data``.

    Raises:
        SerializationError: ``data`` is not exactly one well-formed value, or exceeds a limit. Limits are checked, and
            counts compared with the bytes that are left, before anything is allocated for what they announce.
    """
    view = memoryview(data)
    if len(view) > max_size:
        raise SerializationError(f"{len(view)} bytes, but at most {max_size} are taken")
    offset = 0
    items_left = max_items
    top: list[Any] = []
    # What is being filled, how many values it lacks, its last key; and the same of what lies around it.
    values: Any = top
    missing = 1
    key: str | None = None
    outer: list[tuple[Any, int, str | None]] = []
    try:
        while missing or outer:
            if not missing:
                values, missing, key = outer.pop()
                continue
            missing -= 1
            if type(values) is dict:
                key, offset = _decode_key(view, offset, key)
            tag = view[offset]
            count = 0
            if tag in _DECODERS:
                item, offset = _DECODERS[tag](view, offset)
            else:
                item, count, offset = _open_container(view, offset, items_left, max_depth - len(outer))
                items_left -= count
            if type(values) is dict:
                values[key] = item
            else:
                values.append(item)
            if count:
                outer.append((values, missing, key))
                values, missing, key = item, count, None
    except (IndexError, struct.error):
        raise SerializationError("truncated") from None
    if offset != len(view):
        raise SerializationError(f"{len(view) - offset} bytes behind the value")
    return top[0]


def _open_container(view: memoryview, offset: int, items_left: int, depth_left: int) -> tuple[Any, int, int]:
    tag = view[offset]
    if tag not in _SMALLEST:
        raise SerializationError(f"unknown tag {tag:#04x}")
    _, count = _LENGTH.unpack_from(view, offset)
    offset += _LENGTH.size
    if depth_left <= 0:
        raise SerializationError("lists and dicts too deep in one another")
    if count > items_left:
        raise SerializationError("too many items")
    if count * _SMALLEST[tag] > len(view) - offset:
        raise SerializationError("truncated")
    return ({} if tag == _DICT else []), count, offset


def _decode_key(view: memoryview, offset: int, last: str | None) -> tuple[str, int]:
    if view[offset] != _STRING:
        raise SerializationError("a key of a dict is not a STRING")
    key, offset = _decode_str(view, offset)
    if last is not None and key <= last:
        raise SerializationError("the keys of a dict are not in ascending order, each once")
    return key, offset


def _decode_str(view: memoryview, offset: int) -> tuple[str, int]:
    start, end = _body(view, offset)
    try:
        return str(view[start:end], "utf-8"), end
    except UnicodeDecodeError:
        raise SerializationError("a STRING is not UTF-8") from None


def _decode_bytes(view: memoryview, offset: int) -> tuple[bytes, int]:
    start, end = _body(view, offset)
    return bytes(view[start:end]), end


def _body(view: memoryview, offset: int) -> tuple[int, int]:
    _, length = _LENGTH.unpack_from(view, offset)
    start = offset + _LENGTH.size
    if length > len(view) - start:
        raise SerializationError("truncated")
    return start, start + length


def _decode_constant(value: Any) -> Callable[[memoryview, int], tuple[Any, int]]:
    return lambda _, offset: (value, offset + 1)


def _decode_number(form: struct.Struct) -> Callable[[memoryview, int], tuple[Any, int]]:
    return lambda view, offset: (form.unpack_from(view, offset)[1], offset + form.size)


_DECODERS: Final[dict[int, Callable[[memoryview, int], tuple[Any, int]]]] = {
    0x00: _decode_constant(None),
    0x01: _decode_constant(False),
    0x02: _decode_constant(True),
    0x10: _decode_number(_INT8),
    0x11: _decode_number(_INT16),
    0x12: _decode_number(_INT32),
    0x13: _decode_number(_INT64),
    0x14: _decode_number(_UINT8),
    0x15: _decode_number(_UINT16),
    0x16: _decode_number(_UINT32),
    0x17: _decode_number(_UINT64),
    0x20: _decode_number(_FLOAT32),
    0x21: _decode_number(_FLOAT64),
    _BYTES: _decode_bytes,
    _STRING: _decode_str,
}

_SMALLEST: Final = {_LIST: 1, _DICT: 6}
"""Bytes of the smallest item: NULL, and an empty key with NULL."""
