"""Is the page of the wire format, which other implementations are written from, true of this one?"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import attrs
import pytest

from stt_core.errors import ErrorCode, SerializationError
from stt_core.wire import messages
from stt_core.wire.frame import CUSTOM_FRAME_TYPES, FrameType, encode_frame
from stt_core.wire.messages import Ack, Parameters, StreamMode, StreamOpen
from stt_core.wire.serialization import deserialize_stt, serialize_stt

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "reference" / "wire-format.md").read_text(encoding="utf-8")
SECTIONS: dict[str, str] = dict(re.findall(r"^#+ (.+?)\n(.*?)(?=^#|\Z)", PAGE, re.DOTALL | re.MULTILINE))


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the tables of one section, without their heads."""
    lines = [line for line in SECTIONS[heading].splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    cells = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]
    return cells[1:]


def test_every_frame_type_is_on_the_page() -> None:
    documented = {int(row[0], 16): row[1] for row in rows("2. Frame types") if row[1] != "custom"}

    assert documented == {frame_type.value: frame_type.name for frame_type in FrameType}


def test_the_range_of_custom_types_is_the_one_on_the_page() -> None:
    (custom,) = [row[0] for row in rows("2. Frame types") if row[1] == "custom"]

    assert custom == f"0x{CUSTOM_FRAME_TYPES[0]:02X}-0x{CUSTOM_FRAME_TYPES[-1]:02X}"


def test_the_example_of_a_frame_is_one() -> None:
    (example,) = re.findall(r"^(5354 .*)$", SECTIONS["1. Frame"], re.MULTILINE)

    assert bytes.fromhex(example) == encode_frame(FrameType.DATA, bytes(range(1, 9)), 1, 2, 0, b"payload")


def test_the_example_of_an_ack_is_one() -> None:
    (example,) = re.findall(r"`((?:[0-9a-f]{2} )+[0-9a-f]{2})`", SECTIONS["ACK"])

    assert bytes.fromhex(example) == Ack(25, ((8, 10), (3, 5), (0, 0))).encode()


@pytest.mark.parametrize(
    ("heading", "kinds"),
    [
        ("STREAM_CLOSE", messages.CloseKind),
        ("PATH", messages.PathKind),
    ],
)
def test_every_kind_has_its_name_on_the_page(heading: str, kinds: Any) -> None:
    documented = {int(row[0]): row[1].upper().replace(" ", "_") for row in rows(heading)}

    assert documented == {kind.value: kind.name for kind in kinds}


def test_every_kind_of_credit_is_on_the_page() -> None:
    documented = {int(row[0]): row[1].partition(":")[0].upper() for row in rows("CREDIT")}

    assert documented == {kind.value: kind.name for kind in messages.CreditKind}


@pytest.mark.parametrize(
    ("frame_type", "kinds"),
    [
        (FrameType.ENDPOINT_REGISTER, messages.RegisterKind),
        (FrameType.ENDPOINT_RESOLVE, messages.ResolveKind),
        (FrameType.ENDPOINT_ROUTE, messages.RouteKind),
    ],
)
def test_every_kind_of_endpoint_message_is_on_the_page(frame_type: FrameType, kinds: Any) -> None:
    (documented,) = [row[1] for row in rows("Endpoints") if row[0] == frame_type.name]

    assert documented == ", ".join(f"{kind.value} {kind.name.lower().replace('_', ' ')}" for kind in kinds)


def test_the_keys_of_a_stream_open_are_on_the_page() -> None:
    message = StreamOpen(mode=StreamMode.RELIABLE, priority=0, label="", metadata=None)

    assert {row[0] for row in rows("STREAM_OPEN")} == set(deserialize_stt(message.encode()))


def test_the_keys_of_the_parameters_are_on_the_page() -> None:
    assert [row[0] for row in rows("Parameters")] == [field.name for field in attrs.fields(Parameters)]


def test_every_code_is_on_the_page() -> None:
    documented = {int(row[0]): row[1] for row in rows("Codes") if row[0].isdigit()}

    assert documented == {code.value: code.name for code in ErrorCode}


EXAMPLES: dict[str, Any] = {"null": None, 'bytes "ab"': b"ab", 'string "é"': "é", "empty list": []}
ENCODINGS = [row for row in rows("5. Serialization") if not row[0].startswith("0x")]


@pytest.mark.parametrize("row", ENCODINGS[1:], ids=lambda row: row[0])
def test_each_example_of_serialization_is_true(row: list[str]) -> None:
    value = EXAMPLES[row[0]] if row[0] in EXAMPLES else ast.literal_eval(row[0])

    assert serialize_stt(value).hex() == row[1]
    assert deserialize_stt(bytes.fromhex(row[1])) == value


def test_every_tag_and_no_other_is_on_the_page() -> None:
    documented = {int(row[0], 16) for row in rows("5. Serialization") if row[0].startswith("0x")}

    # A tag alone is cut short, where it is known and needs a body, and unknown otherwise.
    known = {tag for tag in range(0x100) if "unknown tag" not in complaint(bytes((tag,)))}
    assert documented == known


def complaint(data: bytes) -> str:
    try:
        deserialize_stt(data)
    except SerializationError as error:
        return str(error)
    return ""


def test_every_file_of_vectors_is_on_the_page() -> None:
    documented = {row[0] for row in rows("Test vectors")}

    assert {path.name for path in (ROOT / "tests" / "vectors").glob("*.json")} <= documented
