"""Which key seals this frame: secrets by direction and epoch, keys by stream, and when they rotate.

wire-format.md, "Keys" and "Rotation". One object a direction; neither reads a clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from cryptography.exceptions import InvalidTag

from stt_core.hkdf import expand

if TYPE_CHECKING:
    from collections.abc import Callable

    from stt_core.interfaces.crypto import CryptoSuite
    from stt_core.wire.frame import RawFrame

_CACHED_KEYS: Final = 64  # per direction; a peer that uses more streams at once makes us derive again (5 us)
_KEPT_EPOCHS: Final = 2
_MIN_KEEP: Final = 10.0  # seconds
_RESERVED_FRAMES: Final = 32  # of an epoch's last ones: acknowledgements and probes, which no limit holds back

Sealer: TypeAlias = "tuple[Callable[[bytes, bytes, bytes], bytes], int]"
"""The AEAD's encrypt or decrypt, and the IV as an integer, so that the nonce is one XOR away."""


def next_secret(secret: bytes) -> bytes:
    """Return the direction secret of the epoch that follows."""
    return expand(secret, b"stt1 rotate", 32)


def stream_key(secret: bytes, stream_id: int) -> tuple[bytes, int]:
    """Return the AEAD key and the IV, as an integer, of one stream in one direction and epoch."""
    material = expand(secret, b"stt1 stream" + stream_id.to_bytes(4, "big"), 44)
    return material[:32], int.from_bytes(material[32:], "big")


class SendKeys:
    """Keys of the direction that this side seals.

    Args:
        secret: The direction's first secret, 32 bytes.
        suite: What seals.
        limits: Bytes, frames and seconds after which :meth:`wants_rotation` says so.
        now: When the first epoch begins, in seconds.
    """

    __slots__ = (
        "_cache",
        "_limits",
        "_max_frames",
        "_secret",
        "_started_at",
        "_suite",
        "acknowledged",
        "bytes_sealed",
        "epoch",
        "first_number",
        "frames_sealed",
    )

    def __init__(self, secret: bytes, suite: CryptoSuite, limits: tuple[int, int, float], now: float) -> None:
        self._secret = secret
        self._suite = suite
        # An eighth is left for the time until the peer has acknowledged a frame of the epoch.
        self._limits = (limits[0], min(limits[1], suite.max_frames - (suite.max_frames >> 3)), limits[2])
        self._max_frames = suite.max_frames - min(_RESERVED_FRAMES, suite.max_frames >> 4)
        self._cache: dict[int, Sealer] = {}
        self._started_at = now
        self.epoch = 0
        self.frames_sealed = 0
        """Frames of this epoch; counted by who seals, by the burst."""
        self.bytes_sealed = 0
        """Plaintext bytes of this epoch; as above."""
        self.first_number = 0
        """The number of this epoch's first frame."""
        self.acknowledged = False
        """Whether the peer has acknowledged a frame of this epoch, and so follows."""

    def sealer(self, stream_id: int) -> Sealer:
        """Return what seals frames of a stream in the current epoch."""
        sealer = self._cache.get(stream_id)
        if sealer is None:
            key, iv = stream_key(self._secret, stream_id)
            if len(self._cache) >= _CACHED_KEYS:
                del self._cache[next(iter(self._cache))]
            sealer = self._cache[stream_id] = (self._suite.cipher(key).encrypt, iv)
        return sealer

    def wants_rotation(self, now: float) -> bool:
        """Return whether a limit of the epoch was reached."""
        return (
            self.bytes_sealed >= self._limits[0]
            or self.frames_sealed >= self._limits[1]
            or now - self._started_at >= self._limits[2]
        )

    @property
    def frames_left(self) -> int:
        """Frames that the suite allows in this epoch; may be negative, by a few that a burst could not do without."""
        return self._max_frames - self.frames_sealed

    @property
    def exhausted(self) -> bool:
        """Whether the suite allows no frame more in this epoch."""
        return self.frames_left <= 0

    def rotate(self, first_number: int, now: float) -> None:
        """Begin the next epoch; allowed once :attr:`acknowledged`. The old secret is forgotten."""
        self._secret = next_secret(self._secret)
        self._cache.clear()
        self._started_at = now
        self.epoch += 1
        self.frames_sealed = 0
        self.bytes_sealed = 0
        self.first_number = first_number
        self.acknowledged = False

    @property
    def has_ciphers(self) -> bool:
        """Whether there is anything for :meth:`forget_ciphers` to drop."""
        return bool(self._cache)

    def forget_ciphers(self) -> None:
        """Drop the AEAD objects (2.5 KB each); they come back when they are needed."""
        self._cache.clear()


class ReceiveKeys:
    """Keys of the direction that the peer seals; follows its rotations.

    Args:
        secret: The direction's first secret, 32 bytes.
        suite: What opens.
    """

    __slots__ = ("_cache", "_expiry", "_metadata_size", "_secrets", "_suite", "epoch", "forgeries")

    def __init__(self, secret: bytes, suite: CryptoSuite) -> None:
        self._suite = suite
        self._metadata_size = suite.metadata_size
        self._secrets = {0: secret}
        self._expiry: dict[int, float] = {}
        self._cache: dict[tuple[int, int], Sealer] = {}
        self.epoch = 0
        """The newest epoch of which a frame has opened."""
        self.forgeries = 0
        """Frames that did not open; the session ends at the suite's limit."""

    def open(self, frame: RawFrame, number: int, keep: float, now: float) -> bytes | None:
        """Return the plaintext of a frame, or None when it does not open.

        Args:
            frame: A sealed frame.
            number: Its frame number.
            keep: Seconds to keep an epoch's secret after its successor has been seen, if more than ten.
            now: Seconds.
        """
        _, _, stream_id, _, flags, header, payload, metadata = frame
        if len(metadata) != self._metadata_size:
            return None
        opener = self._cache.get((flags, stream_id))
        if opener is None:
            return self._open_uncached(frame, number, keep, now)
        decrypt, iv = opener
        sealed = b"".join((payload, metadata)) if metadata else payload
        try:
            return decrypt((iv ^ number).to_bytes(12, "big"), sealed, header)  # type: ignore[arg-type]  # cryptography takes buffers
        except InvalidTag:
            self.forgeries += 1
            return None

    @property
    def exhausted(self) -> bool:
        """Whether so many frames failed to open that the suite allows no more."""
        return self.forgeries >= self._suite.max_forgeries

    @property
    def next_expiry(self) -> float | None:
        """When the next old secret is to be erased."""
        return min(self._expiry.values()) if self._expiry else None

    def erase_expired(self, now: float) -> None:
        """Erase the secrets of epochs whose time is over."""
        for epoch in [epoch for epoch, at in self._expiry.items() if at <= now]:
            self._erase(epoch)

    @property
    def has_ciphers(self) -> bool:
        """Whether there is anything for :meth:`forget_ciphers` to drop."""
        return bool(self._cache)

    def forget_ciphers(self) -> None:
        """Drop the AEAD objects (2.5 KB each); they come back when they are needed."""
        self._cache.clear()

    def _open_uncached(self, frame: RawFrame, number: int, keep: float, now: float) -> bytes | None:
        # The bits name one of the epochs -2, -1, 0, +1 around the newest: four values, four epochs.
        epoch = self.epoch + 1 - (self.epoch + 1 - frame.flags) % 4
        secret = next_secret(self._secrets[self.epoch]) if epoch > self.epoch else self._secrets.get(epoch)
        if secret is None:
            return None
        key, iv = stream_key(secret, frame.stream_id)
        decrypt = self._suite.cipher(key).decrypt
        sealed = b"".join((frame.payload, frame.metadata))
        try:
            plaintext = decrypt((iv ^ number).to_bytes(12, "big"), sealed, bytes(frame.header))
        except InvalidTag:
            self.forgeries += 1
            return None
        # Only now may anything change: an outsider cannot make this side rotate or fill its cache.
        if epoch > self.epoch:
            self._follow(epoch, secret, now + max(keep, _MIN_KEEP))
        if len(self._cache) >= _CACHED_KEYS:
            del self._cache[next(iter(self._cache))]
        self._cache[frame.flags, frame.stream_id] = (decrypt, iv)
        return plaintext

    def _follow(self, epoch: int, secret: bytes, expiry: float) -> None:
        self._expiry[self.epoch] = expiry
        self._secrets[epoch] = secret
        self.epoch = epoch
        for old in [old for old in self._secrets if old < epoch - _KEPT_EPOCHS]:
            self._erase(old)

    def _erase(self, epoch: int) -> None:
        del self._secrets[epoch]
        self._expiry.pop(epoch, None)
        for key in [key for key in self._cache if key[0] == epoch % 4]:
            del self._cache[key]
