from __future__ import annotations

import json
import math
import struct
import tracemalloc
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_core.errors import SerializationError
from stt_core.testing import strategies
from stt_core.wire.serialization import (
    MAX_DEPTH,
    MAX_ITEMS,
    MAX_SIZE,
    Float32,
    Int8,
    Int16,
    Int32,
    Int64,
    UInt8,
    UInt16,
    UInt32,
    UInt64,
    deserialize_stt,
    serialize_stt,
)

if TYPE_CHECKING:
    from collections.abc import Callable

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "serialization.json").read_text())


def float_of(bits: str) -> float:
    (value,) = struct.unpack(">d", bytes.fromhex(bits))
    return float(value)


def from_json(value: Any) -> Any:
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    return KINDS[kind](content)


KINDS: dict[str, Callable[[Any], Any]] = {
    "int": int,
    "float": float_of,
    "bytes": bytes.fromhex,
    "dict": lambda pairs: {key: from_json(item) for key, item in pairs},
    "int8": lambda text: Int8(int(text)),
    "int16": lambda text: Int16(int(text)),
    "int32": lambda text: Int32(int(text)),
    "int64": lambda text: Int64(int(text)),
    "uint8": lambda text: UInt8(int(text)),
    "uint16": lambda text: UInt16(int(text)),
    "uint32": lambda text: UInt32(int(text)),
    "uint64": lambda text: UInt64(int(text)),
    "float32": lambda bits: Float32(float_of(bits)),
}


def typed(value: Any) -> Any:
    """Tell 1 from 1.0 and True, 0.0 from -0.0, and let NaN equal itself."""
    if isinstance(value, list):
        return [typed(item) for item in value]
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    return type(value), struct.pack(">d", value) if isinstance(value, float) and not math.isnan(value) else repr(value)


VALID = [pytest.param(from_json(vector["value"]), bytes.fromhex(vector["bytes"])) for vector in VECTORS["valid"]]
ENCODED = [bytes.fromhex(vector["bytes"]) for vector in VECTORS["valid"]]
READ = [
    pytest.param(bytes.fromhex(vector["bytes"]), from_json(vector["decodes_to"]))
    for vector in VECTORS["wrapped"] + VECTORS["decode_only"]
]


@pytest.mark.parametrize(("value", "encoded"), VALID)
def test_vectors_hold_in_both_directions(value: Any, encoded: bytes) -> None:
    assert serialize_stt(value) == encoded
    assert typed(deserialize_stt(encoded)) == typed(value)


@pytest.mark.parametrize("vector", VECTORS["wrapped"], ids=lambda vector: str(vector["value"]))
def test_wrappers_choose_the_tag(vector: dict[str, Any]) -> None:
    assert serialize_stt(from_json(vector["value"])).hex() == vector["bytes"]


@pytest.mark.parametrize(("encoded", "value"), READ)
def test_any_declared_width_is_read_as_a_plain_number(encoded: bytes, value: Any) -> None:
    assert typed(deserialize_stt(encoded)) == typed(value)


@pytest.mark.parametrize("vector", VECTORS["invalid"], ids=lambda vector: vector["why"])
def test_malformed_vectors_are_refused(vector: dict[str, str]) -> None:
    with pytest.raises(SerializationError):
        deserialize_stt(bytes.fromhex(vector["bytes"]))


@pytest.mark.parametrize("encoded", ENCODED)
def test_every_truncation_is_refused(encoded: bytes) -> None:
    for size in range(len(encoded)):
        with pytest.raises(SerializationError):
            deserialize_stt(encoded[:size])


@pytest.mark.parametrize("encoded", ENCODED)
def test_bytes_behind_the_value_are_refused(encoded: bytes) -> None:
    for junk in (b"\x00", encoded):
        with pytest.raises(SerializationError):
            deserialize_stt(encoded + junk)


@given(strategies.stt_values())
def test_decoding_inverts_encoding(value: Any) -> None:
    encoded = serialize_stt(value)

    assert typed(deserialize_stt(encoded)) == typed(value)
    assert typed(deserialize_stt(memoryview(bytearray(encoded)))) == typed(value)


@given(st.binary(max_size=40) | strategies.corrupted(strategies.stt_values(max_leaves=5).map(serialize_stt)))
def test_any_bytes_are_a_value_or_refused(data: bytes) -> None:
    try:
        value = deserialize_stt(data)
    except SerializationError:
        return

    # Not always the same bytes: a number may have come in a wider form.
    assert typed(deserialize_stt(serialize_stt(value))) == typed(value)


@given(st.dictionaries(st.text(max_size=8), st.integers(0, 9), max_size=8), st.randoms())
def test_the_order_of_insertion_does_not_count(value: dict[str, int], random: Any) -> None:
    pairs = list(value.items())
    random.shuffle(pairs)

    assert serialize_stt(dict(pairs)) == serialize_stt(value)


def test_large_values_come_back() -> None:
    value = {
        "list": list(range(10_000)),
        "dict": {str(number): None for number in range(10_000)},
        "string": "é" * 100_000,
        "bytes": bytes(100_000),
    }

    assert deserialize_stt(serialize_stt(value)) == value


def test_it_is_neither_json_nor_msgpack() -> None:
    assert serialize_stt({"a": 1}).hex() == "4100000001310000000161" + "1001"


def test_buffers_and_tuples_are_written_as_bytes_and_lists() -> None:
    every_second = memoryview(b"a-b-c-")[::2]

    assert serialize_stt((bytearray(b"ab"), memoryview(b"ab"), every_second)) == serialize_stt([b"ab", b"ab", b"abc"])


def test_subclasses_are_written_as_what_they_derive_from() -> None:
    class Colour(IntEnum):
        RED = 3

    class Name(StrEnum):
        ANY = "any"

    class Point(NamedTuple):
        x: int
        y: int

    assert serialize_stt({Name.ANY: [Colour.RED, Name.ANY, Point(1, 2)]}) == serialize_stt({"any": [3, "any", [1, 2]]})


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1, 2},
        1j,
        range(3),
        {1: "a"},
        {b"a": 1},
        {None: 1, "a": 2},
        [object()],
        {"a": {"b": object()}},
        1 << 64,
        -(1 << 63) - 1,
        pytest.param(1 << 20_000, id="huge"),
        "\ud800",
        {"\udfff": 1},
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_encoding_is_refused(value: Any) -> None:
    with pytest.raises(SerializationError):
        serialize_stt(value)


@pytest.mark.parametrize(
    ("wrapper", "number"),
    [
        (Int8, 128),
        (Int8, -129),
        (Int16, 1 << 15),
        (Int32, 1 << 31),
        (Int64, 1 << 63),
        (UInt8, -1),
        (UInt8, 256),
        (UInt16, 1 << 16),
        (UInt32, 1 << 32),
        (UInt64, 1 << 64),
        pytest.param(UInt64, 1 << 20_000, id="huge"),
        (Int8, 1.5),
        (Float32, 1e39),
        (Float32, "1"),
    ],
)
def test_a_wrapper_refuses_what_does_not_fit(wrapper: type, number: Any) -> None:
    with pytest.raises(SerializationError):
        wrapper(number)


# Limits


def nested(depth: int) -> bytes:
    return b"\x40\x00\x00\x00\x01" * (depth - 1) + b"\x40\x00\x00\x00\x00"


@pytest.mark.parametrize("encoded", [b"\x30", b"\x31", b"\x40", b"\x41"], ids=["BYTES", "STRING", "LIST", "DICT"])
def test_an_announced_count_allocates_nothing(encoded: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(SerializationError):
            deserialize_stt(encoded + b"\xff\xff\xff\xff", max_items=1 << 40)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 100_000


def test_depth_is_limited_in_both_directions() -> None:
    value: list[Any] = []
    for _ in range(MAX_DEPTH - 1):
        value = [value]

    assert serialize_stt(value) == nested(MAX_DEPTH)
    assert deserialize_stt(nested(MAX_DEPTH)) == value
    with pytest.raises(SerializationError):
        serialize_stt([value])
    with pytest.raises(SerializationError):
        deserialize_stt(nested(MAX_DEPTH + 1))
    with pytest.raises(SerializationError):
        deserialize_stt(b"\x41\x00\x00\x00\x01\x31\x00\x00\x00\x00" + nested(MAX_DEPTH))
    assert deserialize_stt(serialize_stt(5, max_depth=0), max_depth=0) == 5
    with pytest.raises(SerializationError):
        serialize_stt([], max_depth=0)
    with pytest.raises(SerializationError):
        deserialize_stt(b"\x40\x00\x00\x00\x00", max_depth=0)


def test_no_depth_exhausts_the_stack() -> None:
    encoded = nested(50_000)

    value = deserialize_stt(encoded, max_depth=50_000)

    assert serialize_stt(value, max_depth=50_000) == encoded
    with pytest.raises(SerializationError):
        deserialize_stt(nested(50_000))
    # Taken apart from the outside, so that not even freeing it recurses.
    while value:
        value = value[0]


def test_a_value_that_holds_itself_is_refused() -> None:
    ring: list[Any] = []
    ring += [ring, ring]
    loop: dict[str, Any] = {}
    loop["loop"] = loop

    for value in (ring, loop):
        with pytest.raises(SerializationError):
            serialize_stt(value)


def test_items_of_all_containers_count_together() -> None:
    value = [[1, 2], {"a": 3}]
    encoded = serialize_stt(value, max_items=5)

    assert deserialize_stt(encoded, max_items=5) == value
    with pytest.raises(SerializationError):
        serialize_stt(value, max_items=4)
    with pytest.raises(SerializationError):
        deserialize_stt(encoded, max_items=4)


def test_a_million_items_are_the_default_limit() -> None:
    items = [None] * MAX_ITEMS

    encoded = serialize_stt(items)

    assert deserialize_stt(encoded) == items
    with pytest.raises(SerializationError):
        serialize_stt([*items, None])
    with pytest.raises(SerializationError):
        deserialize_stt(b"\x40" + (MAX_ITEMS + 1).to_bytes(4, "big") + bytes(MAX_ITEMS + 1))


def test_the_size_is_limited_in_both_directions() -> None:
    largest = bytes(MAX_SIZE - 5)

    encoded = serialize_stt(largest)

    assert deserialize_stt(encoded) == largest
    with pytest.raises(SerializationError):
        serialize_stt(largest + b"\x00")
    with pytest.raises(SerializationError):
        deserialize_stt(b"\x30" + (MAX_SIZE - 4).to_bytes(4, "big") + largest + b"\x00")
    with pytest.raises(SerializationError):
        serialize_stt(["abc", "abc"], max_size=20)
    with pytest.raises(SerializationError):
        serialize_stt({"abc": None}, max_size=13)
    assert len(serialize_stt({"abc": None}, max_size=14)) == 14


def test_more_items_than_a_count_can_tell_are_refused() -> None:
    class Endless(list[int]):
        def __len__(self) -> int:
            return 1 << 32

    with pytest.raises(SerializationError):
        serialize_stt(Endless(), max_items=1 << 40)
