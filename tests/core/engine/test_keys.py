from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from stt_core.defaults.suites import SUITES
from stt_core.engine.keys import ReceiveKeys, SendKeys, next_secret, stream_key
from stt_core.interfaces.crypto import TAG_SIZE, CryptoSuite
from stt_core.wire.frame import HEADER, MAGIC, FrameType, RawFrame, split_frames

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stt_core.interfaces.transport import Buffer

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "vectors" / "keys.json").read_text(encoding="utf-8"))

SECRET = b"an unforgettable secret, really!"
SUITE = SUITES[2]
NO_LIMITS = (1 << 60, 1 << 60, 1e9)
CACHED_KEYS = 64


class Counting(CryptoSuite):
    """Seals as suite 2 does, counts the ciphers that it makes, and has low limits."""

    name = "counting"
    authenticated = True
    max_frames = 1000
    max_forgeries = 3

    def __init__(self) -> None:
        self.made = 0

    def cipher(self, key: bytes) -> ChaCha20Poly1305:
        self.made += 1
        return ChaCha20Poly1305(key)


class Described(CryptoSuite):
    """Moves the last four bytes of each tag into the metadata."""

    name = "with metadata"
    authenticated = True
    max_frames = 1000
    max_forgeries = 1000
    metadata_size = 4

    def cipher(self, key: bytes) -> _DescribedCipher:
        return _DescribedCipher(key)


class _DescribedCipher:
    def __init__(self, key: bytes) -> None:
        self.inner = ChaCha20Poly1305(key)

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None, /) -> bytes:
        return self.inner.encrypt(nonce, data, associated_data) + b"meta"

    def decrypt(self, nonce: bytes, data: Buffer, associated_data: Buffer | None, /) -> bytes:
        if bytes(data[-4:]) != b"meta":
            raise InvalidTag
        return self.inner.decrypt(nonce, data[:-4], associated_data)


def sender(secret: bytes = SECRET, suite: CryptoSuite = SUITE, epoch: int = 0) -> SendKeys:
    keys = SendKeys(secret, suite, NO_LIMITS, 0.0)
    for _ in range(epoch):
        keys.rotate(0, 0.0)
    return keys


def seal(
    keys: SendKeys, number: int, plaintext: bytes = b"hello", stream_id: int = 1, metadata_size: int = 0
) -> RawFrame:
    """Return a frame as it arrives."""
    encrypt, iv = keys.sealer(stream_id)
    header = HEADER.pack(
        MAGIC, FrameType.DATA, b"12345678", stream_id, number, keys.epoch & 3, len(plaintext) + TAG_SIZE
    )
    sealed = encrypt((iv ^ number).to_bytes(12, "big"), plaintext, header)
    payload, metadata = sealed[: len(plaintext) + TAG_SIZE], sealed[len(plaintext) + TAG_SIZE :]
    assert len(metadata) == metadata_size
    (frame,) = split_frames(b"".join((header, payload, metadata_size.to_bytes(4, "big"), metadata)))
    return frame


def receiver(
    suite: CryptoSuite = SUITE, *, epochs: Iterable[int] = (), at: float = 0.0, keep: float = 0.0
) -> ReceiveKeys:
    """Return keys that have opened a frame of each of some epochs."""
    keys = ReceiveKeys(SECRET, suite)
    for epoch in epochs:
        assert keys.open(seal(sender(epoch=epoch), 0), 0, keep, at) == b"hello"
    return keys


def opens(keys: ReceiveKeys, epoch: int, *, number: int = 5, stream_id: int = 1, now: float = 0.0) -> bool:
    return keys.open(seal(sender(epoch=epoch), number, stream_id=stream_id), number, 0.0, now) is not None


# Derivation


@pytest.mark.parametrize("vector", VECTORS["stream_keys"])
def test_stream_keys_are_those_of_the_vectors(vector: dict[str, Any]) -> None:
    key, iv = stream_key(bytes.fromhex(vector["direction_secret"]), vector["stream_id"])

    assert key.hex() == vector["key"]
    assert (iv ^ vector["frame_number"]).to_bytes(12, "big").hex() == vector["nonce"]


@pytest.mark.parametrize("vector", VECTORS["rotations"])
def test_rotation_is_that_of_the_vectors(vector: dict[str, str]) -> None:
    assert next_secret(bytes.fromhex(vector["direction_secret"])).hex() == vector["next_direction_secret"]


# Sealing


@pytest.mark.parametrize("number", [0, 1, (1 << 32) - 1])
@pytest.mark.parametrize("stream_id", [0, 1, (1 << 32) - 1])
def test_what_one_side_seals_the_other_opens(number: int, stream_id: int) -> None:
    keys = ReceiveKeys(SECRET, SUITE)
    frame = seal(sender(), number, b"plaintext", stream_id)

    assert keys.open(frame, number, 0.0, 0.0) == b"plaintext"
    assert keys.open(frame, number, 0.0, 0.0) == b"plaintext"  # with the cached key; the replay window is another part


def test_streams_and_epochs_have_keys_of_their_own() -> None:
    plaintexts = {
        bytes(seal(sender(epoch=epoch), 7, stream_id=stream_id).payload)[:5]
        for epoch in range(3)
        for stream_id in range(3)
    }

    assert len(plaintexts) == 9


def test_keys_are_derived_again_after_the_ciphers_were_forgotten() -> None:
    sending, receiving = sender(), receiver()
    first = seal(sending, 1)
    assert receiving.open(first, 1, 0.0, 0.0) == b"hello"

    sending.forget_ciphers()
    receiving.forget_ciphers()

    assert bytes(seal(sending, 1).payload) == bytes(first.payload)
    assert receiving.open(first, 1, 0.0, 0.0) == b"hello"


def test_a_key_is_derived_once_for_many_frames() -> None:
    suite = Counting()
    sending, receiving = sender(suite=suite), ReceiveKeys(SECRET, suite)

    for number in range(20):
        assert receiving.open(seal(sending, number), number, 0.0, 0.0) == b"hello"

    assert suite.made == 2


# Rotation of the sending side


@pytest.mark.parametrize(
    ("sealed_bytes", "sealed_frames", "now", "wanted"),
    [
        (999, 99, 59.9, False),
        (1000, 0, 0.0, True),
        (0, 100, 0.0, True),
        (0, 0, 60.0, True),
    ],
)
def test_each_limit_asks_for_a_rotation(sealed_bytes: int, sealed_frames: int, now: float, *, wanted: bool) -> None:
    keys = SendKeys(SECRET, SUITE, (1000, 100, 60.0), 0.0)

    keys.bytes_sealed = sealed_bytes
    keys.frames_sealed = sealed_frames

    assert keys.wants_rotation(now) is wanted


def test_a_rotation_begins_everything_anew() -> None:
    keys = SendKeys(SECRET, SUITE, (1000, 100, 60.0), 0.0)
    keys.bytes_sealed, keys.frames_sealed, keys.acknowledged = 1000, 100, True

    keys.rotate(77, 60.0)

    assert (keys.epoch, keys.first_number, keys.acknowledged) == (1, 77, False)
    assert (keys.bytes_sealed, keys.frames_sealed) == (0, 0)
    assert not keys.wants_rotation(119.9)
    assert keys.wants_rotation(120.0)
    assert opens(receiver(), 1)


def test_the_suite_asks_for_a_rotation_well_before_its_own_limit() -> None:
    keys = SendKeys(SECRET, Counting(), NO_LIMITS, 0.0)

    keys.frames_sealed = 875

    assert keys.wants_rotation(0.0)
    assert not keys.exhausted
    assert keys.frames_left > 0


def test_a_key_seals_no_more_frames_than_its_suite_allows() -> None:
    keys = SendKeys(SECRET, Counting(), NO_LIMITS, 0.0)
    assert 0 < keys.frames_left < 1000

    keys.frames_sealed = keys.frames_left

    assert keys.exhausted
    assert keys.frames_sealed <= 1000
    keys.rotate(0, 0.0)
    assert not keys.exhausted


@pytest.mark.parametrize("suite", SUITES.values(), ids=lambda suite: suite.name)
def test_the_limits_of_the_built_in_suites_leave_the_default_as_it_is(suite: CryptoSuite) -> None:
    keys = SendKeys(SECRET, suite, (1 << 60, 100_000, 1e9), 0.0)

    keys.frames_sealed = 99_999
    assert not keys.wants_rotation(0.0)
    keys.frames_sealed = 100_000
    assert keys.wants_rotation(0.0)
    assert not keys.exhausted


# Rotation of the receiving side


def test_the_receiver_follows_a_rotation() -> None:
    keys = receiver(epochs=[0])

    assert opens(keys, 1)
    assert keys.epoch == 1
    assert opens(keys, 2)
    assert keys.epoch == 2


def test_frames_of_the_two_epochs_before_still_open() -> None:
    keys = receiver(epochs=[0, 1, 2])

    assert opens(keys, 0, stream_id=3)
    assert opens(keys, 1, stream_id=3)
    assert keys.epoch == 2


def test_a_third_epoch_erases_the_oldest_at_once() -> None:
    keys = receiver(epochs=[0, 1, 2, 3])

    assert not opens(keys, 0)
    assert not opens(keys, 0, stream_id=9)
    assert opens(keys, 1)
    assert opens(keys, 3)


def test_the_bits_come_round_every_four_epochs() -> None:
    keys = receiver(epochs=range(9))

    assert keys.epoch == 8
    assert [opens(keys, epoch) for epoch in range(10)] == [False] * 6 + [True] * 4


def test_an_epoch_cannot_be_skipped() -> None:
    keys = receiver(epochs=[0])

    assert not opens(keys, 2)
    assert not opens(keys, 3)
    assert keys.epoch == 0


def test_old_epochs_are_erased_ten_seconds_after_their_successor_was_seen() -> None:
    keys = receiver(epochs=[0])
    assert keys.next_expiry is None

    assert opens(keys, 1, now=100.0)
    assert opens(keys, 2, now=104.0)

    assert keys.next_expiry == 110.0
    keys.erase_expired(109.9)
    assert opens(keys, 0, now=109.9)
    keys.erase_expired(110.0)
    assert not opens(keys, 0, now=110.0)  # with the key that was cached for its stream
    assert not opens(keys, 0, now=110.0, stream_id=9)
    assert opens(keys, 1, now=110.0)
    assert keys.next_expiry == 114.0
    keys.erase_expired(114.0)
    assert not opens(keys, 1, now=114.0)
    assert opens(keys, 2, now=114.0)
    assert keys.next_expiry is None


def test_on_slow_paths_old_epochs_are_kept_for_longer() -> None:
    keys = receiver(epochs=[0, 1], at=100.0, keep=12.5)

    assert keys.next_expiry == 112.5


def test_an_epoch_that_was_erased_for_its_age_is_not_erased_twice() -> None:
    keys = receiver(epochs=[0, 1])
    keys.erase_expired(10.0)

    assert [opens(keys, epoch, now=11.0) for epoch in (2, 3)] == [True, True]
    keys.erase_expired(30.0)

    assert [opens(keys, epoch, now=31.0) for epoch in range(4)] == [False, False, False, True]


# What an outsider can do


@pytest.mark.parametrize("flags", range(4))
def test_forged_rotation_bits_change_nothing(flags: int) -> None:
    keys = receiver(epochs=[0, 1])
    forged = seal(sender(b"another secret".ljust(32)), 9)._replace(flags=flags)

    for _ in range(3):
        assert keys.open(forged, 9, 0.0, 500.0) is None

    assert keys.epoch == 1
    assert keys.next_expiry == 10.0
    assert opens(keys, 1)
    assert opens(keys, 0)


@pytest.mark.parametrize("flags", range(1, 4))
def test_a_frame_with_changed_epoch_bits_does_not_open(flags: int) -> None:
    keys = receiver(epochs=[0])
    frame = seal(sender(), 9)
    header = bytearray(frame.header)
    header[19] = flags

    assert keys.open(frame._replace(flags=flags, header=memoryview(bytes(header))), 9, 0.0, 0.0) is None
    assert keys.epoch == 0


def test_forgeries_leave_no_key_in_the_cache() -> None:
    suite = Counting()
    keys = receiver(suite, epochs=[0])
    stranger = sender(b"another secret".ljust(32))
    for stream_id in range(2, 200):
        assert keys.open(seal(stranger, 1, stream_id=stream_id), 1, 0.0, 0.0) is None
    made = suite.made

    assert keys.open(seal(sender(), 1), 1, 0.0, 0.0) == b"hello"

    assert suite.made == made


def test_each_forgery_counts_and_the_suite_says_when_there_were_too_many() -> None:
    keys = receiver(Counting(), epochs=[0])
    frame = seal(sender(), 1)
    forged = frame._replace(payload=memoryview(bytes(len(frame.payload))))

    assert keys.open(forged, 1, 0.0, 0.0) is None  # with a cached key
    assert keys.open(forged._replace(stream_id=9), 1, 0.0, 0.0) is None  # with a fresh one
    assert keys.forgeries == 2
    assert not keys.exhausted
    assert keys.open(forged._replace(flags=1), 1, 0.0, 0.0) is None
    assert keys.exhausted


@pytest.mark.parametrize("size", [0, 1, TAG_SIZE - 1])
def test_a_payload_shorter_than_a_tag_does_not_open(size: int) -> None:
    keys = receiver()
    short = seal(sender(), 1)._replace(payload=memoryview(bytes(size)))

    assert keys.open(short, 1, 0.0, 0.0) is None
    assert opens(keys, 0)
    assert keys.open(short, 1, 0.0, 0.0) is None
    assert keys.forgeries == 2


def test_a_frame_opens_under_its_own_number_only() -> None:
    keys = receiver(epochs=[0])

    assert keys.open(seal(sender(), 5), 5 + (1 << 32), 0.0, 0.0) is None


# Bounds


def test_cached_keys_are_bounded() -> None:
    suite = Counting()
    sending, receiving = sender(suite=suite), ReceiveKeys(SECRET, suite)

    for stream_id in range(3 * CACHED_KEYS):
        assert receiving.open(seal(sending, 1, stream_id=stream_id), 1, 0.0, 0.0) == b"hello"

    gc.collect()
    assert sum(isinstance(each, ChaCha20Poly1305) for each in referents(sending, receiving)) <= 2 * CACHED_KEYS
    made = suite.made
    seal(sending, 2, stream_id=3 * CACHED_KEYS - 1)
    assert suite.made == made  # the newest are those that stay
    seal(sending, 2, stream_id=0)
    assert suite.made == made + 1


def referents(*roots: object) -> list[object]:
    """Return all that objects hold, however deep."""
    found: dict[int, object] = {}
    waiting = list(roots)
    while waiting:
        each = waiting.pop()
        if id(each) not in found and not isinstance(each, type):
            found[id(each)] = each
            waiting += gc.get_referents(each)
            waiting += [each.__self__] if hasattr(each, "__self__") else []
    return list(found.values())


# Secrets


def test_secrets_are_not_in_repr() -> None:
    sending, receiving = sender(epoch=1), receiver(epochs=[0, 1])
    seal(sending, 1)
    secrets = [SECRET, next_secret(SECRET), stream_key(SECRET, 1)[0], stream_key(next_secret(SECRET), 1)[0]]

    shown = repr(sending) + repr(receiving) + repr(sending.sealer(1)[0])

    for secret in secrets:
        assert secret.hex() not in shown
        assert repr(secret)[2:-1] not in shown


def test_a_rotated_or_erased_secret_is_held_no_more() -> None:
    secret = bytes(range(100, 132))
    sending, receiving = SendKeys(secret, SUITE, NO_LIMITS, 0.0), ReceiveKeys(secret, SUITE)
    frame = seal(sending, 1)
    receiving.open(frame, 1, 0.0, 0.0)
    assert any(each is secret for each in referents(sending, receiving))

    sending.rotate(2, 0.0)
    receiving.open(seal(sending, 2), 2, 0.0, 0.0)
    receiving.erase_expired(10.0)

    assert not any(each == secret for each in referents(sending, receiving) if isinstance(each, bytes))


# Metadata


def test_metadata_of_a_suite_is_given_back_to_it() -> None:
    sending, receiving = sender(suite=Described()), ReceiveKeys(SECRET, Described())
    frame = seal(sending, 1, metadata_size=4)

    assert receiving.open(frame, 1, 0.0, 0.0) == b"hello"
    assert receiving.open(frame, 1, 0.0, 0.0) == b"hello"
    assert receiving.open(frame._replace(metadata=memoryview(b"mete")), 1, 0.0, 0.0) is None
    assert receiving.forgeries == 1


@pytest.mark.parametrize("suite", [SUITE, Described()], ids=["without", "with"])
def test_a_frame_with_metadata_of_another_size_is_dropped_unopened(suite: CryptoSuite) -> None:
    keys = ReceiveKeys(SECRET, suite)
    frame = seal(sender(), 1)._replace(metadata=memoryview(b"three"))

    assert keys.open(frame, 1, 0.0, 0.0) is None
    assert keys.forgeries == 0
