"""Are records read as they were written, however the stream is cut, and any other bytes refused?"""

from __future__ import annotations

import contextlib

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_core.errors import FrameError
from stt_streaming.transfer.messages import TransferStatus
from stt_streaming.transfer.records import (
    CHUNK_SIZE,
    MAX_HOLE_SIZE,
    ChunkEnd,
    Data,
    FileFailed,
    FileStart,
    Hole,
    RecordReader,
    encode_chunk_head,
    encode_file_failed,
    encode_file_start,
    encode_hole,
)

digests = st.binary(min_size=32, max_size=32)
starts = st.builds(FileStart, st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1))
holes = st.builds(Hole, st.integers(1, MAX_HOLE_SIZE), digests)
failures = st.builds(FileFailed, st.integers(0, 2**32 - 1), st.sampled_from(TransferStatus))


@attrs.frozen
class Chunk:
    """A chunk as a whole."""

    data: bytes
    sha3_256: bytes


chunks = st.builds(Chunk, st.binary(min_size=1, max_size=60), digests)
AnyRecord = FileStart | Hole | FileFailed | Chunk


def encode(record: AnyRecord) -> bytes:
    if isinstance(record, FileStart):
        return encode_file_start(record.index, record.offset)
    if isinstance(record, Hole):
        return encode_hole(record.size, record.sha3_256)
    if isinstance(record, FileFailed):
        return encode_file_failed(record.index, record.status)
    return encode_chunk_head(len(record.data)) + record.data + record.sha3_256


def decode(reader: RecordReader, pieces: list[bytes]) -> list[AnyRecord]:
    records: list[AnyRecord] = []
    data = b""
    for piece in pieces:
        for record in reader.feed(piece):
            if isinstance(record, Data):
                data += record.data
            elif isinstance(record, ChunkEnd):
                records.append(Chunk(data, record.sha3_256))
                data = b""
            else:
                records.append(record)
    return records


@given(st.lists(st.one_of(starts, holes, failures, chunks), max_size=10), st.lists(st.integers(1, 50), max_size=30))
def test_records_are_read_as_they_were_written_however_they_are_cut(records: list[AnyRecord], cuts: list[int]) -> None:
    stream = b"".join(map(encode, records))
    pieces = []
    for size in cuts:
        pieces.append(stream[:size])
        stream = stream[size:]
    reader = RecordReader()

    assert decode(reader, [*pieces, stream]) == records
    assert reader.at_boundary


@given(st.lists(st.binary(max_size=50), max_size=6))
def test_any_bytes_are_records_or_a_frame_error(pieces: list[bytes]) -> None:
    with contextlib.suppress(FrameError):
        decode(RecordReader(), pieces)


@given(st.one_of(starts, holes, failures, chunks), st.data())
def test_a_record_that_is_cut_off_is_noticed(record: AnyRecord, data: st.DataObject) -> None:
    encoded = encode(record)
    reader = RecordReader()

    decode(reader, [encoded[: data.draw(st.integers(1, len(encoded) - 1))]])

    assert not reader.at_boundary


@pytest.mark.parametrize(
    "data",
    [
        b"\x00",
        b"\x05",
        encode_chunk_head(0),
        encode_chunk_head(CHUNK_SIZE + 1),
        encode_hole(0, bytes(32)),
        encode_hole(MAX_HOLE_SIZE + 1, bytes(32)),
        b"\x04" + bytes(4) + b"\xff\xff",
    ],
)
def test_a_record_out_of_bounds_is_refused(data: bytes) -> None:
    with pytest.raises(FrameError):
        list(RecordReader().feed(data))
