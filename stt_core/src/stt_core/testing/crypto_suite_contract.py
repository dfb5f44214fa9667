"""What every crypto suite keeps: the contract kit of :class:`~stt_core.interfaces.crypto.CryptoSuite`."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

import pytest
from cryptography.exceptions import InvalidTag

from stt_core.interfaces.crypto import KEY_SIZE, NONCE_SIZE, TAG_SIZE
from stt_core.testing.contract import Contract, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stt_core.interfaces.crypto import CryptoSuite, FrameCipher
    from stt_core.interfaces.transport import Buffer

_FIRST_PLUGIN_NUMBER: Final = 0x8000
_HIGHEST_NUMBER: Final = 0xFFFF
_MAX_METADATA_SIZE: Final = 256  # bytes: a frame of a 1200-byte datagram has to carry something besides
_HEADER_SIZE: Final = 24  # bytes of a frame's header, the associated data
# Around blocks of ciphers, a datagram's frame, a large frame, the largest.
_SIZES: Final = (0, 1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 1428, 65_536, 2 * 1024 * 1024 - 512)
_NUMBERS: Final = 8
_TRIES: Final = 200


def _random(number: int, size: int) -> bytes:
    return random.Random(number).randbytes(size)


class CryptoSuiteContract(Contract):
    """The rules of crypto suites. Give the fixtures :meth:`suite` and :meth:`number`."""

    @pytest.fixture
    def suite(self) -> CryptoSuite:
        """Return the suite, as it is registered."""
        self.to_be_given("suite", "the crypto suite, as it is registered")

    @pytest.fixture
    def number(self) -> int:
        """Return the number that it is registered under."""
        self.to_be_given("number", "the number that the suite is registered under")

    # What is declared

    @rule()
    def test_its_number_is_one_for_suites(self, number: int) -> None:
        """One of two bytes, and not 0."""
        assert 0 < number <= _HIGHEST_NUMBER

    @rule()
    def test_it_has_a_name(self, suite: CryptoSuite) -> None:
        """A text for people, of one line."""
        assert isinstance(suite.name, str)
        assert suite.name.strip()
        assert suite.name.isprintable()

    @rule()
    def test_it_is_authenticated(self, suite: CryptoSuite) -> None:
        """And says so; the core refuses it else. That it is true, other rules check."""
        assert suite.authenticated is True

    @rule()
    def test_that_of_a_plugin_is_post_quantum(self, suite: CryptoSuite, number: int) -> None:
        """From number 0x8000 up: the hybrid key exchange is the core's, and a plugin does not take it away."""
        assert suite.post_quantum is True or number < _FIRST_PLUGIN_NUMBER

    @rule()
    def test_its_limits_are_positive(self, suite: CryptoSuite) -> None:
        """Frames that may be sealed and may fail to open under one key are counted, so they are whole numbers."""
        for limit in (suite.max_frames, suite.max_forgeries):
            assert isinstance(limit, int)
            assert limit > 0

    @rule()
    def test_its_metadata_leaves_room_in_a_datagram(self, suite: CryptoSuite) -> None:
        """At most 256 bytes."""
        assert isinstance(suite.metadata_size, int)
        assert 0 <= suite.metadata_size <= _MAX_METADATA_SIZE

    # Sealing and opening

    @rule()
    def test_opening_gives_back_what_was_sealed(self, suite: CryptoSuite) -> None:
        """Of any size, none and that of the largest frame among them."""
        cipher = suite.cipher(_KEY)
        for number, size in enumerate(_SIZES):
            plaintext = _random(size, size)
            sealed = cipher.encrypt(_nonce(number), plaintext, _header(number))
            assert cipher.decrypt(_nonce(number), sealed, _header(number)) == plaintext

    @rule()
    def test_sealing_adds_the_tag_and_the_declared_metadata(self, suite: CryptoSuite) -> None:
        """16 bytes and ``metadata_size``, whatever the plaintext's size, as ``bytes``."""
        cipher = suite.cipher(_KEY)
        for number, size in enumerate(_SIZES):
            sealed = cipher.encrypt(_nonce(number), bytes(size), _header(number))
            assert type(sealed) is bytes
            assert len(sealed) == size + TAG_SIZE + suite.metadata_size

    @rule()
    def test_another_object_with_the_same_key_opens(self, suite: CryptoSuite) -> None:
        """Nothing but key and nonce is needed: the peer is another process, and ciphers are made anew when needed."""
        sealed = suite.cipher(_KEY).encrypt(_nonce(1), b"plaintext", _header(1))
        assert suite.cipher(_KEY).decrypt(_nonce(1), sealed, _header(1)) == b"plaintext"

    @rule()
    def test_frames_open_in_any_order(self, suite: CryptoSuite) -> None:
        """Some are lost, some overtake others, some come twice, and some do not open in between."""
        cipher = suite.cipher(_KEY)
        sealed = [cipher.encrypt(_nonce(number), b"%d" % number, _header(number)) for number in range(_NUMBERS)]
        for number in (3, 1, 7, 1, 6):
            assert not _opens(cipher, _nonce(0), sealed[number], _header(number))
            assert cipher.decrypt(_nonce(number), sealed[number], _header(number)) == b"%d" % number

    @rule()
    def test_frames_open_where_they_lie(self, suite: CryptoSuite) -> None:
        """``decrypt`` takes views of a received message, returns ``bytes``, and changes nothing of them."""
        cipher = suite.cipher(_KEY)
        sealed = cipher.encrypt(_nonce(1), b"plaintext", _header(1))
        message = bytearray(b"".join((_header(1), sealed)))
        view = memoryview(message).toreadonly()
        plaintext = cipher.decrypt(_nonce(1), view[_HEADER_SIZE:], view[:_HEADER_SIZE])
        assert type(plaintext) is bytes
        assert plaintext == b"plaintext"
        assert message == _header(1) + sealed

    @rule()
    def test_associated_data_may_be_absent(self, suite: CryptoSuite) -> None:
        """None is the same as no bytes."""
        cipher = suite.cipher(_KEY)
        assert cipher.decrypt(_nonce(1), cipher.encrypt(_nonce(1), b"plaintext", None), b"") == b"plaintext"
        assert cipher.decrypt(_nonce(2), cipher.encrypt(_nonce(2), b"plaintext", b""), None) == b"plaintext"

    # What does not open

    @rule()
    def test_any_changed_bit_of_sealed_data_is_found(self, suite: CryptoSuite) -> None:
        """Of the ciphertext, of the tag, of the metadata."""
        cipher = suite.cipher(_KEY)
        sealed = cipher.encrypt(_nonce(1), _random(1, 40), _header(1))
        opened = [bit for bit, changed in _flipped(sealed) if _opens(cipher, _nonce(1), changed, _header(1))]
        assert not opened, f"it opens although these bits of {len(sealed)} sealed bytes are changed: {opened}"

    @rule()
    def test_any_changed_bit_of_the_nonce_is_found(self, suite: CryptoSuite) -> None:
        """The nonce is the frame's number: no frame passes for another."""
        cipher = suite.cipher(_KEY)
        sealed = cipher.encrypt(_nonce(1), _random(1, 40), _header(1))
        opened = [bit for bit, changed in _flipped(_nonce(1)) if _opens(cipher, changed, sealed, _header(1))]
        assert not opened, f"it opens although these bits of the nonce are changed: {opened}"

    @rule()
    def test_any_changed_bit_of_the_associated_data_is_found(self, suite: CryptoSuite) -> None:
        """That is the frame's header; nothing may be cut from it or added to it either."""
        cipher = suite.cipher(_KEY)
        header = _header(1)
        sealed = cipher.encrypt(_nonce(1), _random(1, 40), header)
        opened = [bit for bit, changed in _flipped(header) if _opens(cipher, _nonce(1), sealed, changed)]
        assert not opened, f"it opens although these bits of the associated data are changed: {opened}"
        for other in (None, b"", header[:-1], header + b"\0"):
            assert not _opens(cipher, _nonce(1), sealed, other)

    @rule()
    def test_sealed_data_of_another_length_does_not_open(self, suite: CryptoSuite) -> None:
        """Cut anywhere, to nothing at last, or with something behind it; InvalidTag is all that is raised."""
        cipher = suite.cipher(_KEY)
        sealed = cipher.encrypt(_nonce(1), _random(1, 40), _header(1))
        for size in range(len(sealed)):
            assert not _opens(cipher, _nonce(1), sealed[:size], _header(1))
        assert not _opens(cipher, _nonce(1), sealed + b"\0", _header(1))

    @rule()
    def test_whatever_a_peer_sends_raises_invalid_tag_alone(self, suite: CryptoSuite) -> None:
        """Any bytes that are as long as sealed ones."""
        cipher = suite.cipher(_KEY)
        for size in range(_TRIES):
            data = _random(size, size + TAG_SIZE + suite.metadata_size)
            assert not _opens(cipher, _nonce(size), data, _header(size))

    @rule()
    def test_another_key_does_not_open(self, suite: CryptoSuite) -> None:
        """Not even one that differs in a bit."""
        sealed = suite.cipher(_KEY).encrypt(_nonce(1), b"plaintext", _header(1))
        opened = [bit for bit, key in _flipped(_KEY) if _opens(suite.cipher(key), _nonce(1), sealed, _header(1))]
        assert not opened, f"it opens although these bits of the key are changed: {opened}"

    # What stays secret

    @rule()
    def test_sealed_data_hides_the_plaintext(self, suite: CryptoSuite) -> None:
        """No part of it shows, and equal plaintexts look alike neither under two nonces nor under two keys."""
        plaintext = b"attack at dawn! " * 8
        sealed = [
            suite.cipher(key).encrypt(_nonce(number), plaintext, _header(1))[: len(plaintext)]
            for key, number in ((_KEY, 1), (_KEY, 2), (_random(2, KEY_SIZE), 1))
        ]
        for number, one in enumerate(sealed):
            blocks = [one[start : start + 16] for start in range(0, len(plaintext), 16)]
            assert plaintext[:16] not in one
            assert len(set(blocks)) == len(blocks), "equal blocks of plaintext are sealed alike"
            for other in sealed[number + 1 :]:
                difference = bytes(a ^ b for a, b in zip(one, other, strict=True))
                assert len(set(difference)) > 1, "two nonces or two keys give the same stream"
                assert not set(blocks) & {other[start : start + 16] for start in range(0, len(plaintext), 16)}

    @rule()
    def test_no_text_shows_the_key(self, suite: CryptoSuite) -> None:
        """Neither ``repr`` nor ``str`` of a cipher, nor the error of a frame that does not open."""
        cipher = suite.cipher(_KEY)
        with pytest.raises(InvalidTag) as caught:
            cipher.decrypt(_nonce(1), bytes(TAG_SIZE + suite.metadata_size), None)
        for text in (repr(cipher), str(cipher), repr(caught.value), str(caught.value)):
            for secret in (_KEY.hex(), repr(_KEY)[2:-1], str(list(_KEY))):
                assert secret not in text


_KEY: Final = _random(0, KEY_SIZE)


def _nonce(number: int) -> bytes:
    return number.to_bytes(NONCE_SIZE, "big")


def _header(number: int) -> bytes:
    return _random(number, _HEADER_SIZE)


def _flipped(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Give the data with each of its bits changed, by the bit's number."""
    for bit in range(len(data) * 8):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        yield bit, bytes(changed)


def _opens(cipher: FrameCipher, nonce: bytes, data: Buffer, associated_data: bytes | None) -> bool:
    try:
        cipher.decrypt(nonce, data, associated_data)
    except InvalidTag:
        return False
    return True
