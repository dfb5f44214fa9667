"""Hypothesis strategies for all that travels: integers, frames, messages, plain values, and bytes gone wrong.

A new frame type joins here, so that tests, fuzzers and plugin authors have it at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from stt_core.config import MAX_FRAME_SIZE
from stt_core.wire.frame import CUSTOM_FRAME_TYPES, SESSION_ID_SIZE, STTFrame
from stt_core.wire.messages import (
    ADDRESS_SIZE,
    MAX_ACK_RANGES,
    MAX_APP_PARAMETERS_SIZE,
    MAX_DICT_SIZE,
    MAX_PRIORITY,
    MAX_REASON_SIZE,
    MIN_MAX_FRAME_SIZE,
    TOKEN_SIZE,
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
)
from stt_core.wire.serialization import serialize_stt
from stt_core.wire.varint import MAX_VARINT

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn, SearchStrategy


def varints() -> SearchStrategy[int]:
    """Return integers that a varint holds, of all sizes alike."""
    return st.integers(0, MAX_VARINT.bit_length()).flatmap(lambda bits: st.integers(0, (1 << bits) - 1))


def session_ids() -> SearchStrategy[bytes]:
    """Return session ids."""
    return st.binary(min_size=SESSION_ID_SIZE, max_size=SESSION_ID_SIZE)


def frames(max_payload_size: int = 2048) -> SearchStrategy[STTFrame]:
    """Return frames of any type, with any payload."""
    return st.builds(
        STTFrame,
        frame_type=st.integers(0x01, 0xFF),
        session_id=session_ids(),
        stream_id=st.integers(0, 0xFFFFFFFF),
        sequence=st.integers(0, 0xFFFFFFFF),
        flags=st.integers(0, 0xFF),
        payload=st.binary(max_size=max_payload_size),
        metadata=st.binary(max_size=64),
    )


# Plain values


def stt_values(max_leaves: int = 20) -> SearchStrategy[Any]:
    """Return values that serialization gives back equal; so without NaN, which equals nothing, and without wrappers."""
    scalars = (
        st.none()
        | st.booleans()
        | st.integers(-(1 << 63), (1 << 64) - 1)
        | st.floats(allow_nan=False)
        | st.binary(max_size=64)
        | st.text(max_size=64)
    )
    return st.recursive(
        scalars,
        lambda values: st.lists(values, max_size=8) | st.dictionaries(st.text(max_size=16), values, max_size=8),
        max_leaves=max_leaves,
    )


# Messages


def data_messages() -> SearchStrategy[tuple[int, bytes]]:
    """Return what DATA carries: an offset and bytes."""
    return st.tuples(varints(), st.binary(max_size=2048))


def stream_opens() -> SearchStrategy[StreamOpen]:
    """Return values of STREAM_OPEN that fit into their frame."""
    small_values = stt_values(max_leaves=6).filter(lambda value: len(serialize_stt(value)) <= MAX_DICT_SIZE // 2)
    return st.builds(
        StreamOpen,
        mode=st.sampled_from(StreamMode),
        priority=st.integers(0, MAX_PRIORITY),
        label=st.text(max_size=64),
        metadata=small_values,
    )


def stream_closes() -> SearchStrategy[StreamClose]:
    """Return values of STREAM_CLOSE."""
    ends = st.builds(StreamClose, st.sampled_from((CloseKind.END, CloseKind.RESET)), varints(), varints())
    return ends | st.builds(StreamClose, st.just(CloseKind.STOP_SENDING), varints())


def acks() -> SearchStrategy[Ack]:
    """Return values of ACK, with up to as many ranges as fit."""
    return st.builds(Ack, varints(), _ack_ranges())


@st.composite
def _ack_ranges(draw: DrawFn) -> tuple[tuple[int, int], ...]:
    last = draw(varints())
    ranges: list[tuple[int, int]] = []
    for length, gap in draw(st.lists(st.tuples(varints(), varints()), min_size=1, max_size=MAX_ACK_RANGES)):
        first = max(0, last - length)
        ranges.append((first, last))
        last = first - gap - 2
        if last < 0:
            break
    return tuple(ranges)


def keepalives() -> SearchStrategy[Keepalive]:
    """Return values of KEEPALIVE."""
    return st.builds(Keepalive, _tokens())


def disconnects() -> SearchStrategy[Disconnect]:
    """Return values of DISCONNECT."""
    # A character has at most four bytes.
    return st.builds(Disconnect, varints(), st.text(max_size=MAX_REASON_SIZE // 4))


def credits() -> SearchStrategy[Credit]:  # noqa: A001  named like its message, as all are
    """Return values of CREDIT."""
    return st.builds(Credit, st.sampled_from(CreditKind), varints())


def path_probes() -> SearchStrategy[PathProbe]:
    """Return values of PATH."""
    return st.builds(PathProbe, st.sampled_from(PathKind), _tokens())


@st.composite
def message_fragments(draw: DrawFn) -> MessageFragment:
    """Return fragments of reliable messages."""
    data = draw(st.binary(max_size=2048))
    total = draw(st.integers(len(data), 1 << 32))
    return MessageFragment(draw(varints()), total, draw(st.integers(0, total - len(data))), data)


def endpoint_registers() -> SearchStrategy[EndpointRegister]:
    """Return values of ENDPOINT_REGISTER."""
    return st.builds(EndpointRegister, st.sampled_from(RegisterKind), _addresses())


def endpoint_resolves() -> SearchStrategy[EndpointResolve]:
    """Return values of ENDPOINT_RESOLVE."""
    return st.builds(EndpointResolve, st.sampled_from(ResolveKind), varints(), _addresses())


def endpoint_routes() -> SearchStrategy[EndpointRoute]:
    """Return values of ENDPOINT_ROUTE."""
    return st.builds(
        EndpointRoute,
        st.sampled_from(RouteKind),
        varints(),
        st.integers(0, 0xFF),
        _addresses(),
        st.binary(max_size=256),
    )


def parameters() -> SearchStrategy[Parameters]:
    """Return handshake parameters that fit into their message."""
    reliable_by_code = st.dictionaries(st.sampled_from(CUSTOM_FRAME_TYPES), st.booleans(), max_size=8)
    custom = st.lists(st.text(max_size=8), min_size=8, max_size=8, unique=True).flatmap(
        lambda names: reliable_by_code.map(lambda entries: dict(zip(names, entries.items(), strict=False)))
    )
    return st.builds(
        Parameters,
        credit=st.tuples(varints(), varints(), varints()),
        idle=varints().filter(bool),
        max_frame=st.integers(MIN_MAX_FRAME_SIZE, MAX_FRAME_SIZE),
        padding=st.integers(0, 0x10000),
        custom=custom,
        endpoints=st.booleans(),
        app=st.binary(max_size=MAX_APP_PARAMETERS_SIZE // 2),
    )


def _tokens() -> SearchStrategy[bytes]:
    return st.binary(min_size=TOKEN_SIZE, max_size=TOKEN_SIZE)


def _addresses() -> SearchStrategy[bytes]:
    return st.binary(min_size=ADDRESS_SIZE, max_size=ADDRESS_SIZE)


# Bytes gone wrong


def corrupted(encodings: SearchStrategy[bytes]) -> SearchStrategy[bytes]:
    """Return encodings with some of their bytes overwritten, removed or put in.

    A parser must refuse most of them; bytes that are random altogether seldom get past its first check.
    """
    return encodings.flatmap(_corrupt)


@st.composite
def _corrupt(draw: DrawFn, encoding: bytes) -> bytes:
    start = draw(st.integers(0, len(encoding)))
    end = draw(st.integers(start, min(len(encoding), start + 8)))
    return encoding[:start] + draw(st.binary(max_size=8)) + encoding[end:]
