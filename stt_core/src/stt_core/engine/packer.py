"""Frames into datagrams into trains: seals what a session sends on one path in one go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stt_core.engine.contents import Kind
from stt_core.engine.recovery import SentFrame
from stt_core.interfaces.crypto import TAG_SIZE
from stt_core.interfaces.transport import Train
from stt_core.wire.frame import FRAME_OVERHEAD, HEADER, MAGIC, FrameType
from stt_core.wire.messages import pad
from stt_core.wire.varint import encode_varint, varint_size

if TYPE_CHECKING:
    from stt_core.engine.contents import Content
    from stt_core.engine.keys import Sealer, SendKeys
    from stt_core.engine.paths import Path
    from stt_core.engine.recovery import Burst
    from stt_core.engine.streams import Bytes

MIN_DATA: Final = 64
"""Bytes of plaintext that are worth a frame of their own behind others in a datagram."""

_TRAIN_SIZE: Final = 65_507  # bytes: what one GSO call carries, 65,535 less the headers of IPv4 and UDP

_NO_METADATA: Final = bytes(4)
_DATA: Final = int(FrameType.DATA)

_pack_header = HEADER.pack
_new_sent_frame = tuple.__new__


class Packer:
    """Builds the trains of one burst.

    Each datagram is filled with :meth:`add` as far as :attr:`room` goes; equal ones follow each other in one train,
    which a shorter one ends, so that a transport can hand the whole train to the host in one call.

    Args:
        path: Where it goes; its datagram numbers are drawn here.
        burst: What the frames share.
        session_id: 8 bytes.
        keys: What seals.
        number: The number of the first frame.
        metadata_size: Bytes of crypto metadata that the suite writes behind each tag.
        padding: Plaintexts are padded to a multiple of so many bytes, or to all that the datagram takes where that is
            less; 0 for none.
    """

    __slots__ = (
        "_burst",
        "_datagram",
        "_eliciting",
        "_epoch_flags",
        "_fill",
        "_first_number",
        "_first_part",
        "_keys",
        "_metadata_size",
        "_overhead",
        "_padding",
        "_parts",
        "_path",
        "_plaintext_size",
        "_sealer",
        "_sealer_stream",
        "_segment_size",
        "_sent",
        "_session_id",
        "_train_size",
        "_trains",
        "bytes_packed",
        "datagram_size",
        "number",
    )

    def __init__(
        self, path: Path, burst: Burst, session_id: bytes, keys: SendKeys, number: int, metadata_size: int, padding: int
    ) -> None:
        self._path = path
        self._burst = burst
        self._session_id = session_id
        self._keys = keys
        self._epoch_flags = keys.epoch & 3
        self._overhead = FRAME_OVERHEAD + TAG_SIZE + metadata_size
        self._metadata_size = metadata_size
        self._padding = padding
        self._sealer: Sealer | None = None
        self._sealer_stream = -1
        self._parts: list[bytes] = []
        self._trains: list[Train] = []
        self._sent: list[tuple[int, SentFrame]] = []
        self._fill = 0
        self._datagram = -1
        self._first_number = number
        self._first_part = 0
        self._eliciting = 0
        self._segment_size = 0
        self._train_size = 0
        self._plaintext_size = 0
        self.datagram_size = path.mtu.size
        """Bytes of a full datagram."""
        self.number = number
        """The number of the next frame."""
        self.bytes_packed = 0
        """Bytes of all frames so far."""

    # Outputs

    @property
    def room(self) -> int:
        """Bytes of plaintext that the datagram being filled still takes; may be negative."""
        room = self.datagram_size - self._fill - self._overhead
        return room if not self._padding else room - 1

    @property
    def elicits(self) -> bool:
        """Whether any frame so far asks for an acknowledgement."""
        return bool(self._sent)

    def within_keys(self, limit: int) -> int:
        """Return a limit of :attr:`bytes_packed`, lowered so that no key seals more frames than the suite allows."""
        return min(limit, self._keys.frames_left * self._overhead)

    # Commands

    def make_room(self, size: int) -> None:
        """Begin another datagram unless the one being filled takes a plaintext of ``size`` bytes."""
        if self._fill and self.room < size:
            self.finish_datagram()

    def add(
        self,
        frame_type: int,
        stream_id: int,
        plaintext: bytes,
        content: Content | None = None,
        *,
        elicits: bool = True,
        counted: bool = True,
    ) -> None:
        """Seal a frame into the datagram being filled, or into the next one when it does not fit.

        Args:
            frame_type: The frame's type.
            stream_id: Its stream, or 0.
            plaintext: Its payload; at most a datagram's.
            content: What to keep of it until it is acknowledged.
            elicits: Whether it asks for an acknowledgement.
            counted: Whether it then counts as in flight, for congestion.
        """
        if self._padding:
            plaintext = self._pad(plaintext)
        size = len(plaintext) + self._overhead
        if self._fill and self._fill + size > self.datagram_size:
            self.finish_datagram()
        if not self._fill:
            self._datagram = self._path.recovery.number_datagrams(1)
            self._first_part = len(self._parts)
        encrypt, iv = self._sealer_of(stream_id)
        number = self.number
        self.number = number + 1
        header = _pack_header(
            MAGIC,
            frame_type,
            self._session_id,
            stream_id,
            number & 0xFFFFFFFF,
            self._epoch_flags,
            len(plaintext) + TAG_SIZE,
        )
        sealed = encrypt((iv ^ number).to_bytes(12, "big"), plaintext, header)
        if self._metadata_size:
            sealed, metadata = sealed[: -self._metadata_size], sealed[-self._metadata_size :]
            self._parts += (header, sealed, len(metadata).to_bytes(4, "big"), metadata)
        else:
            self._parts += (header, sealed, _NO_METADATA)
        self._fill += size
        self.bytes_packed += size
        self._plaintext_size += len(plaintext)
        if elicits:
            if not counted:
                size = 0
            self._sent.append((number, _new_sent_frame(SentFrame, (self._datagram, size, self._burst, content))))
            self._eliciting += size

    def add_data(self, stream_id: int, offset: int, data: Bytes, limit: int, *, only_full: bool) -> int:
        """Seal bytes of a stream into frames until about ``limit`` bytes are packed; return how many were taken.

        Args:
            stream_id: The stream.
            offset: Where in the stream they begin.
            data: At least what the datagram being filled has room for, where ``only_full``.
            limit: Where :attr:`bytes_packed` is to stop; the last frame may go beyond.
            only_full: Whether to leave what does not fill a frame, because more follows.
        """
        size = len(data)
        start = 0
        while start < size and self.bytes_packed < limit:
            self.make_room(MIN_DATA)
            room = self.room - varint_size(offset + start)
            left = size - start
            if left < room:
                if only_full and start:
                    break
                room = left
            elif not (self._fill or self._padding or self._metadata_size):
                start += self._add_full_datagrams(stream_id, offset + start, data[start:] if start else data, limit)
                continue
            stop = start + room
            self.add(
                _DATA,
                stream_id,
                b"".join((encode_varint(offset + start), data[start:stop])),
                (Kind.DATA, stream_id, offset + start, offset + stop),
            )
            start = stop
        return start

    def finish_datagram(self) -> None:
        """Close the datagram being filled; the next frame begins another."""
        fill = self._fill
        if not fill:
            return
        self._fill = 0
        if 0 < self._segment_size < fill:
            # Longer than the train's others: it begins a train of its own.
            self._finish_train(self._first_part)
        segment_size = self._segment_size = self._segment_size or fill
        self._train_size += fill
        if fill < segment_size or self._train_size + segment_size > _TRAIN_SIZE:
            self._finish_train(len(self._parts))

    def finish(self, now: float) -> list[Train]:
        """Close everything, note it as sent, and return the trains."""
        self.finish_datagram()
        if self._parts:
            self._finish_train(len(self._parts))
        self._keys.frames_sealed += self.number - self._first_number
        self._keys.bytes_sealed += self._plaintext_size
        if self._sent:
            self._path.recovery.sent(self._sent, self._eliciting, now)
        self._path.bytes_sent += self.bytes_packed
        return self._trains

    # Internals

    def _sealer_of(self, stream_id: int) -> Sealer:
        if stream_id != self._sealer_stream:
            self._sealer = self._keys.sealer(stream_id)
            self._sealer_stream = stream_id
        assert self._sealer is not None
        return self._sealer

    def _add_full_datagrams(self, stream_id: int, offset: int, data: Bytes, limit: int) -> int:
        """Do what :meth:`add` does for a run of datagrams that each hold one frame of a stream, and are full.

        Nearly all frames of a large transfer pass here: what is the same for all of them is done once.
        """
        size, offset_size = self.datagram_size, varint_size(offset)
        step = size - self._overhead - offset_size
        count = min(
            len(data) // step,
            (limit - self.bytes_packed - 1) // size + 1,
            ((1 << 7 * offset_size) - 1 - offset) // step + 1,  # from then on an offset takes a byte more
        )
        encrypt, iv = self._sealer_of(stream_id)
        session_id, flags, burst = self._session_id, self._epoch_flags, self._burst
        sealed_size = step + offset_size + TAG_SIZE
        parts, sent = self._parts, self._sent
        datagram, number = self._path.recovery.number_datagrams(count), self.number
        if self._segment_size != size:
            if self._segment_size:
                self._finish_train(len(parts))
            self._segment_size = size
        train_size = self._train_size
        for start in range(0, count * step, step):
            at = offset + start
            header = _pack_header(MAGIC, _DATA, session_id, stream_id, number & 0xFFFFFFFF, flags, sealed_size)
            plaintext = b"".join((encode_varint(at), data[start : start + step]))
            parts += (header, encrypt((iv ^ number).to_bytes(12, "big"), plaintext, header), _NO_METADATA)
            content = (Kind.DATA, stream_id, at, at + step)
            sent.append((number, _new_sent_frame(SentFrame, (datagram, size, burst, content))))
            number += 1
            datagram += 1
            train_size += size
            if train_size + size > _TRAIN_SIZE:
                self._finish_train(len(parts))
                self._segment_size = size
                train_size = 0
        self._segment_size = size if train_size else 0
        self._train_size = train_size
        self.number = number
        self.bytes_packed += count * size
        self._eliciting += count * size
        self._plaintext_size += count * (step + offset_size)
        return count * step

    def _finish_train(self, stop: int) -> None:
        self._trains.append(Train(b"".join(self._parts[:stop]), self._segment_size))
        del self._parts[:stop]
        self._segment_size = 0
        self._train_size = 0

    def _pad(self, plaintext: bytes) -> bytes:
        size = len(plaintext)
        self.make_room(size)
        return pad(plaintext, min(size // self._padding * self._padding + self._padding, self.room + 1))
