from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_core.errors import ErrorCode, FrameError, LocalError, SerializationError
from stt_core.testing import strategies
from stt_core.wire import messages
from stt_core.wire.messages import (
    MAX_ACK_RANGES,
    MAX_DICT_SIZE,
    Ack,
    CloseKind,
    Credit,
    CreditKind,
    Disconnect,
    EndpointRegister,
    EndpointResolve,
    EndpointRoute,
    Keepalive,
    MessageFragment,
    Parameters,
    PathKind,
    PathProbe,
    RegisterKind,
    ResolveKind,
    RouteKind,
    StreamClose,
    StreamMode,
    StreamOpen,
    decode_data,
    encode_data,
    pad,
    unpad,
)
from stt_core.wire.serialization import deserialize_stt, serialize_stt
from stt_core.wire.varint import MAX_VARINT

if TYPE_CHECKING:
    from collections.abc import Callable

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "messages.json").read_text())

DECODE: dict[str, Callable[[Any], Any]] = {
    "DATA": messages.decode_data,
    "STREAM_OPEN": messages.decode_stream_open,
    "STREAM_CLOSE": messages.decode_stream_close,
    "ACK": messages.decode_ack,
    "KEEPALIVE": messages.decode_keepalive,
    "DISCONNECT": messages.decode_disconnect,
    "CREDIT": messages.decode_credit,
    "PATH": messages.decode_path_probe,
    "MESSAGE": messages.decode_message_fragment,
    "ENDPOINT_REGISTER": messages.decode_endpoint_register,
    "ENDPOINT_RESOLVE": messages.decode_endpoint_resolve,
    "ENDPOINT_ROUTE": messages.decode_endpoint_route,
    "PARAMETERS": messages.decode_parameters,
}

VALUES: dict[str, Callable[..., Any]] = {
    "DATA": lambda offset, data: (int(offset), bytes.fromhex(data)),
    "STREAM_OPEN": lambda mode, priority, label, metadata: StreamOpen(
        mode=StreamMode(mode), priority=priority, label=label, metadata=deserialize_stt(bytes.fromhex(metadata))
    ),
    "STREAM_CLOSE": lambda kind, code, final_size: StreamClose(CloseKind(kind), int(code), int(final_size)),
    "ACK": lambda delay_us, ranges: Ack(int(delay_us), tuple((int(first), int(last)) for first, last in ranges)),
    "KEEPALIVE": lambda token: Keepalive(bytes.fromhex(token)),
    "DISCONNECT": lambda code, reason: Disconnect(int(code), reason),
    "CREDIT": lambda kind, limit: Credit(CreditKind(kind), int(limit)),
    "PATH": lambda kind, token, size: PathProbe(PathKind(kind), bytes.fromhex(token)),  # noqa: ARG005  of the padding
    "MESSAGE": lambda message_id, total, offset, data: MessageFragment(
        int(message_id), int(total), int(offset), bytes.fromhex(data)
    ),
    "ENDPOINT_REGISTER": lambda kind, address: EndpointRegister(RegisterKind(kind), bytes.fromhex(address)),
    "ENDPOINT_RESOLVE": lambda kind, request_id, address: EndpointResolve(
        ResolveKind(kind), int(request_id), bytes.fromhex(address)
    ),
    "ENDPOINT_ROUTE": lambda kind, request_id, hops_left, address, body: EndpointRoute(
        RouteKind(kind), int(request_id), hops_left, bytes.fromhex(address), bytes.fromhex(body)
    ),
    "PARAMETERS": lambda credit, idle, max_frame, padding, custom, endpoints, app: Parameters(
        credit=tuple(int(limit) for limit in credit),  # type: ignore[arg-type]  # the vectors have three
        idle=int(idle),
        max_frame=max_frame,
        padding=padding,
        custom={name: tuple(entry) for name, entry in custom.items()},
        endpoints=endpoints,
        app=bytes.fromhex(app),
    ),
}

STRATEGIES: dict[str, st.SearchStrategy[Any]] = {
    "DATA": strategies.data_messages(),
    "STREAM_OPEN": strategies.stream_opens(),
    "STREAM_CLOSE": strategies.stream_closes(),
    "ACK": strategies.acks(),
    "KEEPALIVE": strategies.keepalives(),
    "DISCONNECT": strategies.disconnects(),
    "CREDIT": strategies.credits(),
    "PATH": strategies.path_probes(),
    "MESSAGE": strategies.message_fragments(),
    "ENDPOINT_REGISTER": strategies.endpoint_registers(),
    "ENDPOINT_RESOLVE": strategies.endpoint_resolves(),
    "ENDPOINT_ROUTE": strategies.endpoint_routes(),
    "PARAMETERS": strategies.parameters(),
}

OPEN_ENDED = {"DATA", "DISCONNECT", "PATH", "MESSAGE", "ENDPOINT_ROUTE"}
"""Messages that end in as many bytes as there are, so that a truncation, or more bytes, may be another message."""

MANY_FORMS = {"STREAM_OPEN", "PARAMETERS"}
"""Dicts: unknown keys and wider integers make other bytes of the same value."""

KINDS = pytest.mark.parametrize("kind", DECODE)


def as_parameters(vectors: list[dict[str, Any]]) -> list[Any]:
    return [
        pytest.param(
            vector["message"],
            bytes.fromhex(vector["bytes"]),
            VALUES[vector["message"]](**vector["value"]),
            id=f"{vector['message']}-{number}",
        )
        for number, vector in enumerate(vectors)
    ]


def encode(value: Any, size: int = 0) -> bytes:
    if isinstance(value, tuple):
        return encode_data(*value)
    if isinstance(value, PathProbe):
        return value.encode(size)
    encoded: bytes = value.encode()
    return encoded


# Vectors


@pytest.mark.parametrize(("kind", "plaintext", "value"), as_parameters(VECTORS["valid"]))
def test_vectors_hold_in_both_directions(kind: str, plaintext: bytes, value: Any) -> None:
    assert encode(value, len(plaintext)) == plaintext
    assert DECODE[kind](plaintext) == value


@pytest.mark.parametrize(("kind", "plaintext", "value"), as_parameters(VECTORS["tolerated"]))
def test_other_forms_of_a_dict_are_read(kind: str, plaintext: bytes, value: Any) -> None:
    assert DECODE[kind](plaintext) == value


@pytest.mark.parametrize("vector", VECTORS["invalid"], ids=lambda vector: f"{vector['message']}-{vector['why']}")
def test_malformed_vectors_are_refused(vector: dict[str, str]) -> None:
    with pytest.raises(FrameError) as caught:
        DECODE[vector["message"]](bytes.fromhex(vector["bytes"]))

    assert caught.value.code is ErrorCode.FRAME


@KINDS
def test_every_message_has_vectors_of_both_sorts(kind: str) -> None:
    for sort in ("valid", "invalid"):
        assert any(vector["message"] == kind for vector in VECTORS[sort])


@pytest.mark.parametrize(("kind", "plaintext", "value"), as_parameters(VECTORS["valid"]))
def test_a_truncation_is_refused_or_another_message(kind: str, plaintext: bytes, value: Any) -> None:
    for size in range(len(plaintext)):
        try:
            other = DECODE[kind](plaintext[:size])
        except FrameError:
            continue
        assert kind in OPEN_ENDED
        assert other != value or kind == "PATH"


@pytest.mark.parametrize(("kind", "plaintext", "value"), as_parameters(VECTORS["valid"]))
def test_junk_behind_a_message_is_refused_or_makes_another(kind: str, plaintext: bytes, value: Any) -> None:
    for junk in (b"\x01", b"\xff", bytes(8) + b"\x01", plaintext + b"\xff"):
        try:
            other = DECODE[kind](plaintext + junk)
        except FrameError:
            continue
        assert kind in OPEN_ENDED - {"PATH"}
        assert other != value


# Properties


@KINDS
@given(data=st.data())
def test_decoding_inverts_encoding(kind: str, data: st.DataObject) -> None:
    value = data.draw(STRATEGIES[kind])
    plaintext = encode(value)

    for buffer in (plaintext, bytearray(plaintext), memoryview(plaintext)):
        assert DECODE[kind](buffer) == value


@KINDS
@given(data=st.data())
def test_any_bytes_are_a_message_or_refused(kind: str, data: st.DataObject) -> None:
    plaintext = data.draw(st.binary(max_size=64) | strategies.corrupted(STRATEGIES[kind].map(encode)))
    try:
        value = DECODE[kind](plaintext)
    except FrameError:
        return

    again = encode(value, len(plaintext))

    assert DECODE[kind](again) == value
    assert again == plaintext or kind in MANY_FORMS


# What cannot be sent


@pytest.mark.parametrize(
    "build",
    [
        lambda: encode_data(-1, b""),
        lambda: encode_data(MAX_VARINT + 1, b""),
        lambda: StreamOpen(mode=StreamMode.RELIABLE, priority=8, label="", metadata=None),
        lambda: StreamOpen(mode=StreamMode.RELIABLE, priority=-1, label="", metadata=None),
        lambda: StreamClose(CloseKind.END, -1, 0),
        lambda: StreamClose(CloseKind.END, 0, MAX_VARINT + 1),
        lambda: StreamClose(CloseKind.STOP_SENDING, 0, 1),
        lambda: Credit(CreditKind.SESSION, -1),
        lambda: Ack(0, ()),
        lambda: Ack(-1, ((0, 0),)),
        lambda: Ack(0, ((-1, 0),)),
        lambda: Ack(0, ((5, 4),)),
        lambda: Ack(0, ((0, MAX_VARINT + 1),)),
        lambda: Ack(0, ((3, 5), (8, 10))),
        lambda: Ack(0, ((3, 5), (2, 2))),
        lambda: Ack(0, ((3, 5), (3, 5))),
        lambda: Ack(0, tuple((number, number) for number in range(2 * MAX_ACK_RANGES, -1, -2))),
        lambda: Keepalive(bytes(7)),
        lambda: Disconnect(-1, ""),
        lambda: Disconnect(0, "é" * 129),
        lambda: Disconnect(0, "\ud800"),
        lambda: PathProbe(PathKind.CHALLENGE, bytes(9)),
        lambda: MessageFragment(-1, 0, 0, b""),
        lambda: MessageFragment(0, 2, 0, b"abc"),
        lambda: MessageFragment(0, 3, 1, b"abc"),
        lambda: MessageFragment(0, 3, 4, b""),
        lambda: EndpointRegister(RegisterKind.ANNOUNCE, bytes(31)),
        lambda: EndpointResolve(ResolveKind.ASK, -1, bytes(32)),
        lambda: EndpointResolve(ResolveKind.ASK, 0, bytes(33)),
        lambda: EndpointRoute(RouteKind.REQUEST, -1, 0, bytes(32), b""),
        lambda: EndpointRoute(RouteKind.REQUEST, 0, 256, bytes(32), b""),
        lambda: EndpointRoute(RouteKind.REQUEST, 0, 0, bytes(31), b""),
    ],
)
def test_what_the_wire_cannot_carry_is_the_callers_mistake(build: Callable[[], object]) -> None:
    with pytest.raises(LocalError):
        build()


@pytest.mark.parametrize(
    "changes",
    [
        {"credit": (1, 2)},
        {"credit": (1, 2, -1)},
        {"credit": (1, 2, MAX_VARINT + 1)},
        {"idle": 0},
        {"max_frame": 1199},
        {"max_frame": 2 * 1024 * 1024 + 1},
        {"padding": -1},
        {"padding": 65_537},
        {"custom": {"a": (0x7F, True)}},
        {"custom": {"a": (0x80, True), "b": (0x80, False)}},
        {"app": bytes(513)},
    ],
)
def test_parameters_out_of_range_are_the_callers_mistake(changes: dict[str, Any]) -> None:
    fields: dict[str, Any] = {"credit": (1, 2, 3), "idle": 1000, "max_frame": 1200}

    with pytest.raises(LocalError):
        Parameters(**(fields | changes))


def test_dicts_above_one_kibibyte_are_the_callers_mistake() -> None:
    overhead = len(StreamOpen(mode=StreamMode.RELIABLE, priority=0, label="", metadata=None).encode())
    largest = StreamOpen(mode=StreamMode.RELIABLE, priority=0, label="x" * (MAX_DICT_SIZE - overhead), metadata=None)
    names = {"x" * 100 + str(code): (code, True) for code in range(0x80, 0x90)}

    assert len(largest.encode()) == MAX_DICT_SIZE
    with pytest.raises(LocalError, match="1025 bytes"):
        attrs.evolve(largest, label=largest.label + "x").encode()
    with pytest.raises(LocalError):
        Parameters(credit=(1, 2, 3), idle=1000, max_frame=1200, custom=names).encode()


def test_metadata_that_cannot_be_serialized_is_refused() -> None:
    with pytest.raises(SerializationError):
        StreamOpen(mode=StreamMode.RELIABLE, priority=0, label="", metadata=object()).encode()


@pytest.mark.parametrize("key", ["mode", "priority", "label", "metadata"])
def test_a_stream_open_without_one_of_its_keys_is_refused(key: str) -> None:
    values = {"mode": 0, "priority": 0, "label": "", "metadata": None}
    del values[key]

    with pytest.raises(FrameError, match=key):
        messages.decode_stream_open(serialize_stt(values))


# Views, padding and what is shown


def test_data_is_not_copied() -> None:
    plaintext = encode_data(300, b"payload")

    offset, data = decode_data(plaintext)

    assert (offset, bytes(data)) == (300, b"payload")
    assert data.obj is plaintext
    assert messages.decode_message_fragment(MessageFragment(0, 7, 0, b"payload").encode()).data == b"payload"


def test_a_probe_is_filled_with_zeros_up_to_its_size() -> None:
    probe = PathProbe(PathKind.RESPONSE, b"12345678")

    assert probe.encode() == b"\x0112345678"
    assert probe.encode(1100) == b"\x0112345678" + bytes(1091)
    assert messages.decode_path_probe(probe.encode(1100)) == probe


@pytest.mark.parametrize("vector", VECTORS["padding"], ids=lambda vector: f"{vector['plaintext']}-{vector['block']}")
def test_padding_vectors_hold_in_both_directions(vector: dict[str, Any]) -> None:
    plaintext = bytes.fromhex(vector["plaintext"])

    assert pad(plaintext, vector["block"]).hex() == vector["padded"]
    assert unpad(bytes.fromhex(vector["padded"])) == plaintext


@pytest.mark.parametrize("vector", VECTORS["invalid_padding"], ids=lambda vector: vector["why"])
def test_a_plaintext_without_padding_is_refused(vector: dict[str, str]) -> None:
    with pytest.raises(FrameError):
        unpad(bytes.fromhex(vector["bytes"]))


@given(st.binary(max_size=64), st.integers(1, 128))
def test_padding_fills_whole_blocks_and_comes_off_again(plaintext: bytes, block: int) -> None:
    padded = pad(plaintext, block)

    assert len(padded) % block == 0
    assert len(plaintext) < len(padded) <= len(plaintext) + block
    assert unpad(padded) == plaintext


def test_a_block_has_at_least_one_byte() -> None:
    for block in (0, -16):
        with pytest.raises(LocalError):
            pad(b"", block)


def test_what_an_application_sends_is_not_shown() -> None:
    values = (
        MessageFragment(0, 6, 0, b"secret"),
        EndpointRoute(RouteKind.REQUEST, 0, 1, bytes(32), b"secret"),
        Parameters(credit=(1, 2, 3), idle=1000, max_frame=1200, app=b"secret"),
    )

    for value in values:
        assert "secret" not in repr(value)
        assert "<6 bytes>" in repr(value)
