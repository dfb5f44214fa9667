from __future__ import annotations

import os
import re
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stt_core.errors import LocalError
from stt_websocket.connection import (
    MAX_PENDING_PONGS,
    TRANSITIONS,
    Connection,
    ConnectionClosed,
    Event,
    PongReceived,
    Role,
    State,
    Trigger,
)
from stt_websocket.frames import CloseCode, Opcode, encode_close, encode_header
from stt_websocket.masking import mask_short

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stt_core.interfaces.transport import Buffer

KEY = b"\x37\xfa\x21\x3d"
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "websocket.md"


def frame(opcode: int, payload: bytes = b"", *, is_final: bool = True, is_masked: bool = False) -> bytes:
    if is_masked:
        return encode_header(opcode, len(payload), KEY, is_final=is_final) + mask_short(payload, KEY)
    return encode_header(opcode, len(payload), is_final=is_final) + payload


def sent(connection: Connection) -> bytes:
    return b"".join(connection.data_to_send())


def received(role: Role, *chunks: bytes, max_message_size: int = 1 << 24) -> list[Event]:
    connection = Connection(role, max_message_size=max_message_size)
    for chunk in chunks:
        connection.receive_data(chunk)
    return connection.events()


def closed(code: int, reason: str, cause: Trigger, *, by_peer: bool) -> ConnectionClosed:
    return ConnectionClosed(code, reason, cause, by_peer)


def fill(connection: Connection, data: bytes) -> int:
    """Hand bytes over as a socket does: into the offered room where there is some."""
    offered = 0
    while data:
        room = connection.receive_buffer()
        if room is None:
            connection.receive_data(data[:1000])
            data = data[1000:]
        else:
            size = min(len(room), len(data))
            room[:size] = data[:size]
            connection.receive_filled(size)
            data = data[size:]
            offered += 1
    return offered


def move(connection: Connection, trigger: Trigger) -> None:
    is_masked = connection.role is Role.SERVER
    if trigger is Trigger.CLOSE_CALLED:
        connection.close()
    elif trigger is Trigger.CLOSE_RECEIVED:
        connection.receive_data(frame(Opcode.CLOSE, is_masked=is_masked))
    elif trigger is Trigger.VIOLATION:
        connection.receive_data(b"\xff\xff")
    elif trigger is Trigger.CLOSE_DRAWN:
        connection.data_to_send()
    else:
        connection.receive_end()


WAYS = {
    State.OPEN: [],
    State.CLOSE_SENT: [Trigger.CLOSE_CALLED],
    State.CLOSE_DUE: [Trigger.CLOSE_RECEIVED],
    State.CLOSED: [Trigger.END_OF_STREAM],
}


def documented() -> dict[tuple[State, Trigger], State]:
    """Return the table of states of the reference page, cell by cell; an empty cell is a trigger that is ignored."""
    page = PAGE.read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in re.findall(r"^\|.*\|$", page[page.index("## States") :], re.MULTILINE)
    ]
    names = rows[0][1:]
    return {
        (State(row[0]), Trigger(name)): State(cell) if cell else State(row[0])
        for row in rows[2 : 2 + len(State)]
        for name, cell in zip(names, row[1:], strict=True)
    }


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(("state", "trigger"), [(state, trigger) for state in State for trigger in Trigger])
def test_every_state_and_trigger_leads_where_the_reference_says(role: Role, state: State, trigger: Trigger) -> None:
    connection = Connection(role)
    for step in WAYS[state]:
        move(connection, step)
    assert connection.state is state

    move(connection, trigger)

    assert connection.state is documented()[state, trigger]


def test_the_table_of_moves_is_the_reference() -> None:
    moves = {pair: state for pair, state in documented().items() if state is not pair[0]}

    assert moves == TRANSITIONS


# Sending


@given(message=st.one_of(st.binary(max_size=300), st.text(max_size=100)))
def test_what_one_side_sends_the_other_receives(message: bytes | str) -> None:
    for role, other in ((Role.CLIENT, Role.SERVER), (Role.SERVER, Role.CLIENT)):
        sender = Connection(role)
        sender.send_message(message)

        assert received(other, sent(sender)) == [message]


@pytest.mark.parametrize("size", [125, 126, 1024, 1025, 65_535, 65_536, 65_537, 300_000])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_messages_of_every_size_and_kind_of_buffer_arrive(size: int, kind: type[Buffer]) -> None:
    message = os.urandom(size)
    for role, other in ((Role.CLIENT, Role.SERVER), (Role.SERVER, Role.CLIENT)):
        sender, receiver = Connection(role), Connection(other)
        sender.send_message(kind(message))
        assert sender.pending_size >= size
        receiver.receive_data(sent(sender))

        assert receiver.events() == [message]
        assert sender.pending_size == 0


def test_a_server_does_not_copy_a_large_message() -> None:
    message = bytes(1_000_000)
    connection = Connection(Role.SERVER)

    connection.send_message(message)

    assert any(isinstance(buffer, memoryview) and buffer.obj is message for buffer in connection.data_to_send())


def test_a_client_masks_each_frame_with_a_key_of_its_own() -> None:
    connection = Connection(Role.CLIENT)

    keys = set()
    for _ in range(300):
        connection.send_message(b"x")
        data = sent(connection)
        assert data[1] == 0x81
        keys.add(data[2:6])

    assert len(keys) == 300


def test_masking_keys_come_from_the_given_source() -> None:
    asked: list[int] = []

    def source(size: int) -> bytes:
        asked.append(size)
        return b"\x00" * size

    connection = Connection(Role.CLIENT, random=source)
    connection.send_message(b"plain")

    assert sent(connection) == b"\x82\x85\x00\x00\x00\x00plain"
    assert len(asked) == 1


def test_a_server_does_not_mask() -> None:
    connection = Connection(Role.SERVER)

    connection.send_message("Hello")

    assert sent(connection) == b"\x81\x05Hello"


def test_nothing_can_be_sent_after_close() -> None:
    connection = Connection(Role.CLIENT)
    connection.close()

    assert not connection.can_send
    with pytest.raises(LocalError):
        connection.send_message(b"")
    with pytest.raises(LocalError):
        connection.ping()


def test_a_ping_above_125_bytes_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(LocalError):
        Connection(Role.CLIENT).ping(bytes(126))


def test_a_close_code_that_may_not_be_sent_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(LocalError):
        Connection(Role.CLIENT).close(1006)


# Receiving


@settings(max_examples=60)
@given(
    messages=st.lists(st.one_of(st.binary(max_size=400), st.text(max_size=150)), max_size=6),
    cuts=st.lists(st.integers(1, 60), min_size=1, max_size=8),
    fragment=st.integers(1, 200),
    role=st.sampled_from(Role),
)
def test_messages_arrive_however_they_are_fragmented_and_cut(
    messages: list[bytes | str], cuts: list[int], fragment: int, role: Role
) -> None:
    stream = b"".join(fragmented(messages, fragment, is_masked=role is Role.SERVER))
    connection = Connection(role)
    position = 0
    while position < len(stream):
        for cut in cuts:
            connection.receive_data(stream[position : position + cut])
            position += cut

    events = connection.events()

    assert events == messages
    assert connection.state is State.OPEN


def fragmented(messages: Iterable[bytes | str], size: int, *, is_masked: bool) -> Iterable[bytes]:
    """Frame messages in fragments of a size, with a ping between any two."""
    for message in messages:
        payload = message.encode() if isinstance(message, str) else message
        pieces = [payload[start : start + size] for start in range(0, len(payload), size)] or [b""]
        for number, piece in enumerate(pieces):
            kind = Opcode.TEXT if isinstance(message, str) else Opcode.BINARY
            opcode = Opcode.CONTINUATION if number else kind
            yield frame(opcode, piece, is_final=number == len(pieces) - 1, is_masked=is_masked)
            yield frame(Opcode.PING, b"between", is_masked=is_masked)


@settings(max_examples=100)
@given(chunks=st.lists(st.binary(max_size=40), max_size=8), role=st.sampled_from(Role))
def test_nothing_raises_whatever_the_peer_sends(chunks: list[bytes], role: Role) -> None:
    connection = Connection(role, max_message_size=100)
    for chunk in chunks:
        connection.receive_data(chunk)
    connection.receive_end()
    events = connection.events()
    connection.data_to_send()

    assert isinstance(events[-1], ConnectionClosed)
    assert connection.state is State.CLOSED
    assert sum(isinstance(event, ConnectionClosed) for event in events) == 1


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("size", [140_000, 200_001, 400_000])
@pytest.mark.parametrize("kind", [Opcode.BINARY, Opcode.TEXT])
def test_a_large_message_is_received_in_place(role: Role, size: int, kind: Opcode) -> None:
    payload = os.urandom(size) if kind is Opcode.BINARY else ("é" * (size // 2)).encode()
    connection = Connection(role)

    offered = fill(connection, 2 * frame(kind, payload, is_masked=role is Role.SERVER))

    expected = payload if kind is Opcode.BINARY else payload.decode()
    assert connection.events() == [expected, expected]
    assert offered


def test_room_that_was_offered_need_not_be_used() -> None:
    message = os.urandom(300_000)
    stream = frame(Opcode.BINARY, message)
    connection = Connection(Role.CLIENT)
    for start in range(0, len(stream), 7000):
        connection.receive_buffer()
        connection.receive_data(memoryview(stream)[start : start + 7000])

    assert connection.events() == [message]


def test_filling_more_than_was_offered_is_a_mistake_of_the_caller() -> None:
    connection = Connection(Role.CLIENT)
    with pytest.raises(LocalError):
        connection.receive_filled(1)
    connection.receive_data(frame(Opcode.BINARY, bytes(300_000))[:100])
    room = connection.receive_buffer()
    assert room is not None

    with pytest.raises(LocalError):
        connection.receive_filled(len(room) + 1)


def test_memory_grows_with_what_came_and_not_with_the_length_that_a_header_claims() -> None:
    connection = Connection(Role.CLIENT)
    tracemalloc.start()
    try:
        connection.receive_data(encode_header(Opcode.BINARY, 16 * 1024 * 1024))
        room = connection.receive_buffer()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert room is not None
    assert peak < 100_000


def test_65536_fragments_make_one_message_in_little_memory() -> None:
    fragments = [frame(Opcode.CONTINUATION, b"x", is_final=False)] * 65_534
    stream = b"".join(
        [frame(Opcode.BINARY, b"x", is_final=False), *fragments, frame(Opcode.CONTINUATION, b"x")],
    )
    connection = Connection(Role.CLIENT)
    tracemalloc.start()
    try:
        connection.receive_data(stream)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert connection.events() == [b"x" * 65_536]
    assert peak < 300_000


@pytest.mark.parametrize("role", Role)
def test_a_message_of_the_limit_is_taken_and_one_above_it_answered_with_1009(role: Role) -> None:
    is_masked = role is Role.SERVER
    for payload in (bytes(100), bytes(300), bytes(70_000)):
        limit = len(payload)
        assert received(role, frame(Opcode.BINARY, payload, is_masked=is_masked), max_message_size=limit) == [payload]
        (event,) = received(role, frame(Opcode.BINARY, payload, is_masked=is_masked), max_message_size=limit - 1)
        assert isinstance(event, ConnectionClosed)
        assert event.code == CloseCode.TOO_BIG


def test_fragments_that_add_up_to_more_than_the_limit_are_answered_with_1009() -> None:
    connection = Connection(Role.SERVER, max_message_size=100)

    connection.receive_data(frame(Opcode.BINARY, bytes(60), is_final=False, is_masked=True))
    connection.receive_data(encode_header(Opcode.CONTINUATION, 41, KEY))

    assert sent(connection)[2:4] == (1009).to_bytes(2, "big")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (frame(Opcode.CONTINUATION, b"x"), "a continuation of no message"),
        (frame(Opcode.BINARY, b"x", is_final=False) + frame(Opcode.TEXT, b"x"), "a message within another"),
        (frame(Opcode.TEXT, b"x", is_final=False) + frame(Opcode.BINARY, b"x"), "a message within another"),
    ],
)
def test_fragments_out_of_order_are_refused(data: bytes, reason: str) -> None:
    assert received(Role.CLIENT, data) == [closed(1002, reason, Trigger.VIOLATION, by_peer=False)]


@pytest.mark.parametrize("bad", [b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\xc3"])
@pytest.mark.parametrize("is_fragmented", [False, True])
def test_text_that_is_not_utf_8_is_answered_with_1007(bad: bytes, *, is_fragmented: bool) -> None:
    payload = b"good" + bad
    frames = (
        [frame(Opcode.TEXT, payload[:5], is_final=False), frame(Opcode.CONTINUATION, payload[5:])]
        if is_fragmented
        else [frame(Opcode.TEXT, payload)]
    )

    (event,) = received(Role.CLIENT, *frames)

    assert isinstance(event, ConnectionClosed)
    assert event.code == CloseCode.INVALID_DATA


def test_bad_utf_8_is_found_before_the_message_is_complete() -> None:
    connection = Connection(Role.CLIENT)
    connection.receive_data(encode_header(Opcode.TEXT, 1000) + b"good")
    assert not connection.events()

    connection.receive_data(b"\xf4\x90")

    assert len(connection.events()) == 1


def test_a_character_may_be_cut_anywhere() -> None:
    stream = frame(Opcode.TEXT, "κόσμε 🎈".encode())

    assert received(Role.CLIENT, *(stream[i : i + 1] for i in range(len(stream)))) == ["κόσμε 🎈"]


# Control frames


def test_a_ping_is_answered_with_its_payload_before_what_is_sent_later() -> None:
    connection = Connection(Role.SERVER)
    connection.receive_data(frame(Opcode.PING, b"Hello", is_masked=True))
    connection.send_message(b"x")

    assert sent(connection) == b"\x8a\x05Hello" + b"\x82\x01x"


def test_of_many_pings_the_newest_are_answered() -> None:
    connection = Connection(Role.SERVER)
    for number in range(100_000):
        connection.receive_data(frame(Opcode.PING, number.to_bytes(4, "big"), is_masked=True))

    answers = sent(connection)

    assert len(answers) == MAX_PENDING_PONGS * 6
    assert answers[-4:] == (99_999).to_bytes(4, "big")


def test_a_pong_is_told() -> None:
    assert received(Role.CLIENT, frame(Opcode.PONG, b"here")) == [PongReceived(b"here")]
    assert received(Role.SERVER, frame(Opcode.PONG, b"here", is_masked=True)) == [PongReceived(b"here")]


def test_a_ping_asks_for_a_pong() -> None:
    client, server = Connection(Role.CLIENT), Connection(Role.SERVER)
    client.ping(b"there?")
    server.receive_data(sent(client))
    client.receive_data(sent(server))

    assert client.events() == [PongReceived(b"there?")]


# Closing


def test_the_closing_handshake_of_this_side() -> None:
    client, server = Connection(Role.CLIENT), Connection(Role.SERVER)
    client.close(1001, "bye")
    server.receive_data(sent(client))

    assert server.events() == [closed(1001, "bye", Trigger.CLOSE_RECEIVED, by_peer=True)]
    client.receive_data(sent(server))
    assert client.events() == [closed(1001, "", Trigger.CLOSE_RECEIVED, by_peer=False)]
    assert client.state is server.state is State.CLOSED


def test_what_came_before_a_close_can_still_be_answered() -> None:
    connection = Connection(Role.SERVER)
    connection.receive_data(frame(Opcode.BINARY, b"?", is_masked=True) + frame(Opcode.CLOSE, is_masked=True))
    assert connection.events()[0] == b"?"
    assert connection.can_send

    connection.send_message(b"!")

    assert sent(connection) == b"\x82\x01!" + b"\x88\x00"
    assert not connection.can_send


def test_what_came_before_a_violation_can_still_be_answered() -> None:
    connection = Connection(Role.SERVER)
    connection.receive_data(frame(Opcode.BINARY, b"?", is_masked=True) + b"\xff\xff")

    connection.send_message(b"!")

    data = sent(connection)
    assert data.startswith(b"\x82\x01!\x88")
    assert data[5:7] == (1002).to_bytes(2, "big")


def test_a_close_amid_a_fragmented_message_is_answered_with_its_code() -> None:
    connection = Connection(Role.CLIENT)
    connection.receive_data(frame(Opcode.TEXT, b"half", is_final=False))
    connection.receive_data(frame(Opcode.CLOSE, encode_close(3333, "enough")))

    assert sent(connection)[-2:] != b""
    assert connection.events() == [closed(3333, "enough", Trigger.CLOSE_RECEIVED, by_peer=True)]


def test_a_close_without_a_code_is_answered_without_one() -> None:
    connection = Connection(Role.SERVER)

    connection.receive_data(frame(Opcode.CLOSE, is_masked=True))

    assert sent(connection) == b"\x88\x00"
    assert connection.events() == [closed(1005, "", Trigger.CLOSE_RECEIVED, by_peer=True)]


def test_frames_behind_a_close_are_ignored() -> None:
    connection = Connection(Role.SERVER)

    connection.receive_data(frame(Opcode.CLOSE, is_masked=True) + frame(Opcode.BINARY, b"late", is_masked=True))
    connection.receive_data(frame(Opcode.PING, b"late", is_masked=True))

    assert sent(connection) == b"\x88\x00"
    assert len(connection.events()) == 1


def test_messages_still_come_while_this_side_waits_for_the_peers_close() -> None:
    connection = Connection(Role.CLIENT)
    connection.close()

    connection.receive_data(frame(Opcode.BINARY, b"late") + frame(Opcode.PING, b"no answer"))

    assert connection.events() == [b"late"]
    assert sent(connection).count(b"no answer") == 0


def test_the_end_of_the_byte_stream_without_a_close_is_1006() -> None:
    connection = Connection(Role.CLIENT)

    connection.receive_end()
    connection.receive_end()

    assert connection.events() == [closed(1006, "no Close frame came", Trigger.END_OF_STREAM, by_peer=True)]


def test_a_half_received_message_is_not_delivered() -> None:
    connection = Connection(Role.CLIENT)
    connection.receive_data(frame(Opcode.BINARY, bytes(50_000))[:-1])
    connection.receive_end()

    (event,) = connection.events()
    assert isinstance(event, ConnectionClosed)


def test_bad_text_received_in_place_is_answered_with_1007() -> None:
    connection = Connection(Role.CLIENT)

    fill(connection, frame(Opcode.TEXT, b"x" * 60_000 + b"\xff" * 60_000))

    (event,) = connection.events()
    assert isinstance(event, ConnectionClosed)
    assert event.code == CloseCode.INVALID_DATA
