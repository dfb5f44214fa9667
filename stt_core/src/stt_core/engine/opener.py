"""Sealed frames in, plaintexts out: numbers rebuilt, replays refused, forgeries dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from stt_core.engine.keys import ReceiveKeys
    from stt_core.engine.replay import ReplayWindow
    from stt_core.wire.frame import RawFrame

OpenedFrame: TypeAlias = tuple[int, int, int, bytes]
"""The number, type, stream id and plaintext of a frame that the peer has sealed."""

_NOT_EPOCH: Final = 0xFC
_NUMBERS: Final = 1 << 32
_HALF: Final = 1 << 31


def open_frames(
    frames: list[RawFrame], keys: ReceiveKeys, replay: ReplayWindow, keep: float, now: float
) -> list[OpenedFrame]:
    """Return the frames that the peer has sealed and that were not seen before; nothing else leaves a trace.

    Args:
        frames: As they arrived.
        keys: The keys of the direction.
        replay: The numbers that were seen.
        keep: Seconds to keep an old epoch's secret, if more than ten.
        now: Seconds.
    """
    opened: list[OpenedFrame] = []
    unseal = keys.open
    expected = replay.highest + 1
    for frame in frames:
        frame_type, _, stream_id, sequence, flags, _, _, _ = frame
        if flags & _NOT_EPOCH:
            continue
        # RFC 9000 A.3 with 32 bits: the number closest to the next expected one, never below 0.
        ahead = (sequence - expected) % _NUMBERS
        number = expected + ahead if ahead <= _HALF else expected + ahead - _NUMBERS
        if number < 0:
            number += _NUMBERS
        if number < expected and not replay.is_fresh(number):
            continue
        plaintext = unseal(frame, number, keep, now)
        if plaintext is None:
            continue
        replay.add(number)
        if number >= expected:
            expected = number + 1
        opened.append((number, frame_type, stream_id, plaintext))
    return opened
