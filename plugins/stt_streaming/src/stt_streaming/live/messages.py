"""What a publisher and a subscriber say to one another, besides the segments."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

import attrs

from stt_core.errors import FrameError

SUBSCRIBE_LABEL: Final = "stt-live/1"
"""Label of the stream that a subscriber opens: it brings the welcome at once, and the farewell at the end."""

SEGMENT_LABEL: Final = "stt-live-segment/1"
"""Label of a stream that is one segment; its metadata is its sequence and that of the one that was sent before it.

So a subscriber does not wait for those in between; -1 stands for none."""

MAX_SEGMENT_SIZE: Final = 1024 * 1024
"""Bytes of the longest segment."""

MAX_DEADLINE: Final = 60.0
"""Seconds of the longest deadline."""

MAX_SEQUENCE: Final = (1 << 63) - 1
"""The highest number of a segment: what an integer of STT serialization holds."""


class LiveCode(IntEnum):
    """Why a stream of a live stream was broken off: the code of its reset and of its stop."""

    LATE = 0x100  #: the deadline has passed
    MALFORMED = 0x101  #: a stream that no live stream has
    CANCELLED = 0x102  #: whoever runs that side ended it


@attrs.frozen
class Welcome:
    """What a subscriber is told first: 12 bytes, big-endian."""

    deadline: float
    """Seconds, in whole milliseconds; after that a segment is given up."""
    sequence: int
    """The first segment that will come."""

    _STRUCT = struct.Struct(">IQ")
    SIZE = _STRUCT.size

    def encode(self) -> bytes:
        """Return the bytes."""
        return self._STRUCT.pack(round(self.deadline * 1000), self.sequence)

    @classmethod
    def decode(cls, data: bytes) -> Welcome:
        """Return the value of 12 bytes.

        Raises:
            FrameError: The deadline or the sequence is impossible.
        """
        milliseconds, sequence = cls._STRUCT.unpack(data)
        if not 0 < milliseconds <= MAX_DEADLINE * 1000 or sequence > MAX_SEQUENCE:
            raise FrameError("a welcome with an impossible deadline or sequence")
        return cls(milliseconds / 1000, sequence)


@attrs.frozen
class Farewell:
    """What a subscriber is told last: 8 bytes, big-endian."""

    sequence: int
    """The segment that would come next: how many there were, those before the subscriber came included."""

    _STRUCT = struct.Struct(">Q")
    SIZE = _STRUCT.size

    def encode(self) -> bytes:
        """Return the bytes."""
        return self._STRUCT.pack(self.sequence)

    @classmethod
    def decode(cls, data: bytes) -> Farewell:
        """Return the value of 8 bytes."""
        return cls(*cls._STRUCT.unpack(data))
