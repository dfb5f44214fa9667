"""The four messages by which two nodes prove a shared seed and their identities, and agree on fresh keys.

Bytes in, bytes out (wire-format.md, section 3): no framing, no clock, no repetition, which are
:mod:`stt_core.engine.half_open`. The model is Noise NNpsk0 with signed identities (SIGMA-I)::

    initiator                                     responder
    create_hello()        -- INIT -->             process_hello()
    process_challenge()   <-- CHALLENGE --
                          -- RESPONSE -->         verify_response()
    process_final()       <-- CONFIRM --

Rules: a message is worked on in a copy of the state, which is kept only once all of it has proven right; whoever is
not the expected peer learns nothing of this node's identity as the initiator; nothing secret is in a repr or a message.
"""

from __future__ import annotations

import functools
import hmac
import os
import struct
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

import attrs
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

from stt_core.config import STTConfig
from stt_core.engine.ephemeral import EphemeralKeys, MLKEMPair, X25519Pair
from stt_core.engine.transcript import INITIAL_HASH, TAG_SIZE, Transcript, hash_after
from stt_core.errors import ConfigError, FrameError, HandshakeError, LocalError, WrongPeer
from stt_core.identity import NODE_ID_SIZE, PUBLIC_KEY_SIZE, SIGNATURE_SIZE, Identity, node_id_of, verify
from stt_core.seeds import Keyring, check_distinct
from stt_core.wire.messages import MAX_DICT_SIZE, Parameters, decode_parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    from stt_core.interfaces.transport import Buffer

VERSION: Final = 1
"""The first byte of INIT and CHALLENGE."""

INIT_SIZE: Final = 1168
"""Bytes of an INIT: with frame and fragment header a datagram of 1200, so that the answer to it amplifies little."""

_NONCE_SIZE: Final = 32
_X25519_SIZE: Final = 32
_ENCAPSULATION_KEY_SIZE: Final = 1184
_CIPHERTEXT_SIZE: Final = 1088
_SESSION_ID_SIZE: Final = 8

_CHALLENGE_CLEAR: Final = struct.Struct(f">BH{_NONCE_SIZE}s{_X25519_SIZE}s")
_CHALLENGE_SEALED: Final = struct.Struct(f">{2 * _NONCE_SIZE}s{PUBLIC_KEY_SIZE}s{SIGNATURE_SIZE}s")
_RESPONSE_SEALED: Final = struct.Struct(f">{_SESSION_ID_SIZE}s{PUBLIC_KEY_SIZE}s{SIGNATURE_SIZE}s")

MAX_CHALLENGE_SIZE: Final = (
    _CHALLENGE_CLEAR.size + _ENCAPSULATION_KEY_SIZE + _CHALLENGE_SEALED.size + MAX_DICT_SIZE + TAG_SIZE
)
"""Bytes of the largest CHALLENGE."""

MAX_RESPONSE_SIZE: Final = _CIPHERTEXT_SIZE + _RESPONSE_SEALED.size + MAX_DICT_SIZE + TAG_SIZE
"""Bytes of the largest RESPONSE."""

CONFIRM_SIZE: Final = _SESSION_ID_SIZE + TAG_SIZE
"""Bytes of a CONFIRM."""


_SETTINGS: Final = STTConfig()
_DEFAULT_PARAMETERS: Final = Parameters(
    credit=(_SETTINGS.session_credit, _SETTINGS.stream_credit, _SETTINGS.max_streams),
    idle=round(_SETTINGS.idle_timeout * 1000),
    max_frame=_SETTINGS.max_frame_size,
)


class SuiteOffer(NamedTuple):
    """A suite as the handshake knows it."""

    number: int
    """16 bits."""
    post_quantum: bool = True
    """Whether ML-KEM-768 is mixed in."""


DEFAULT_OFFERS: Final = (SuiteOffer(0x0001), SuiteOffer(0x0002))
"""The suites of a handshake that is told none."""


@attrs.frozen(kw_only=True, eq=False)
class HandshakeResult:
    """What a handshake agreed on."""

    session_id: bytes
    """8 bytes; a label, not a secret."""
    peer_node_id: bytes
    """32 bytes, proven."""
    peer_public_key: bytes
    """32 bytes."""
    suite: int
    peer_parameters: Parameters
    is_initiator: bool
    initiator_secret: bytes = attrs.field(repr=False)
    """32 bytes: the first secret of the direction from the initiator."""
    responder_secret: bytes = attrs.field(repr=False)
    """32 bytes: the first secret of the direction from the responder."""
    exporter_secret: bytes = attrs.field(repr=False)
    """32 bytes for uses beyond frames."""


class HandshakeState(Enum):
    """What a handshake waits for; each method is allowed in one of them."""

    HELLO_TO_SEND = "create_hello"
    HELLO = "INIT"
    CHALLENGE = "CHALLENGE"
    RESPONSE = "RESPONSE"
    CONFIRM = "CONFIRM"
    COMPLETE = "nothing more"


class STTHandshake:
    """One side of one handshake.

    Either ``identity`` and ``keyring``, or ``node_seed`` and ``shared_seed``, are given.

    Args:
        is_initiator: Which side this is.
        identity: Who this node is.
        keyring: The shared seeds; the initiator proves the first, the responder takes any.
        node_seed: Stands for an identity.
        shared_seed: Stands for a keyring.
        parameters: What to tell the peer, once it is proven that it has the seed; or that, encoded.
        suites: Those to offer or to accept, by preference.
        require_post_quantum: Neither offer nor accept a suite that is not.
        ephemeral_keys: The responder's key pairs, where handshakes share them; otherwise fresh ones are made.
        expect: The node id that the responder must have.
        random: Returns that many random bytes.

    Raises:
        ConfigError: A seed is unfit, or no suite is left.
        LocalError: The parameters are too large.
    """

    __slots__ = (
        "_ephemeral_keys",
        "_expect",
        "_identity",
        "_is_initiator",
        "_keyring",
        "_ml_kem",
        "_nonce_i",
        "_nonce_r",
        "_offers",
        "_parameters",
        "_random",
        "_result",
        "_state",
        "_suite",
        "_transcript",
        "_x25519",
    )

    def __init__(  # noqa: PLR0913  one handshake, all that it depends on
        self,
        *,
        is_initiator: bool,
        identity: Identity | None = None,
        keyring: Keyring | None = None,
        node_seed: bytes | None = None,
        shared_seed: bytes | Sequence[bytes] | None = None,
        parameters: Parameters | bytes | None = None,
        suites: Sequence[SuiteOffer] = DEFAULT_OFFERS,
        require_post_quantum: bool = True,
        ephemeral_keys: EphemeralKeys | None = None,
        expect: bytes | None = None,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        if (identity is None) == (node_seed is None) or (keyring is None) == (shared_seed is None):
            raise ConfigError("a handshake needs an identity or a node_seed, and a keyring or a shared_seed")
        if identity is None:
            assert node_seed is not None
            identity = Identity.from_seed(node_seed)
        if keyring is None:
            assert shared_seed is not None
            keyring = Keyring.from_seeds(shared_seed)
        if node_seed is not None:
            check_distinct(node_seed, keyring)
        if expect is not None and len(expect) != NODE_ID_SIZE:
            raise ConfigError(f"a node id has {NODE_ID_SIZE} bytes, not {len(expect)}")
        self._offers = {offer.number: offer for offer in suites if offer.post_quantum or not require_post_quantum}
        if not 1 <= len(self._offers) <= 255:
            raise ConfigError(f"{len(self._offers)} suites to offer, but from 1 to 255 are possible")
        self._is_initiator = is_initiator
        self._identity = identity
        self._keyring = keyring
        parameters = parameters if parameters is not None else _DEFAULT_PARAMETERS
        self._parameters = parameters if isinstance(parameters, bytes) else parameters.encode()
        self._expect = expect
        self._random = random
        self._ephemeral_keys = ephemeral_keys if ephemeral_keys is not None else EphemeralKeys(0.0, random)
        self._state = HandshakeState.HELLO_TO_SEND if is_initiator else HandshakeState.HELLO
        self._transcript = Transcript(keyring.pre_shared_keys[0])
        self._nonce_i = b""
        self._nonce_r = b""
        self._x25519: X25519Pair | None = None
        self._ml_kem: MLKEMPair | None = None
        self._suite: SuiteOffer | None = None
        self._result: HandshakeResult | None = None

    def __repr__(self) -> str:
        side = "initiator" if self._is_initiator else "responder"
        return f"<{type(self).__name__} {side}, waits for {self._state.value}>"

    # The initiator's side

    def create_hello(self) -> bytes:
        """Return the INIT message.

        Raises:
            LocalError: This is the responder, or it was called before.
        """
        if self._state is not HandshakeState.HELLO_TO_SEND:
            raise LocalError(f"an INIT cannot be made: the handshake waits for {self._state.value}")
        nonce_i = self._random(_NONCE_SIZE)
        pair = X25519Pair.make(self._random)
        clear = b"".join(
            (
                bytes((VERSION, len(self._offers))),
                *(number.to_bytes(2, "big") for number in self._offers),
                nonce_i,
                pair.public_bytes,
            )
        )
        sealed, transcript = self._transcript.mix_hash(clear).seal(b"init", bytes(INIT_SIZE - len(clear) - TAG_SIZE))
        self._nonce_i = nonce_i
        self._x25519 = pair
        self._transcript = transcript
        self._state = HandshakeState.CHALLENGE
        return clear + sealed

    def process_challenge(self, message: Buffer) -> bytes:
        """Return the RESPONSE to a CHALLENGE; from now on :attr:`result` is known and the session may be used.

        Raises:
            WrongPeer: Another node than the expected one proved itself. It has not learned who this node is.
            HandshakeError: The message is malformed, out of state, or unproven. The handshake goes on as before.
        """
        self._check_state(HandshakeState.CHALLENGE)
        assert self._x25519 is not None
        data = bytes(message)
        suite, nonce_r, x25519_r, encapsulation_key, clear_size = self._parse_challenge(data)
        transcript = self._transcript.mix_hash(data[:clear_size])
        transcript = transcript.mix_key(_exchange(self._x25519.private_key, x25519_r))
        signed = b"stt1 responder" + transcript.hash
        plaintext, transcript = transcript.open(b"challenge", data[clear_size:])
        nonces, public_key_r, signature = _CHALLENGE_SEALED.unpack_from(plaintext)
        if not hmac.compare_digest(nonces, self._nonce_i + nonce_r):
            raise HandshakeError("CHALLENGE proves other nonces")
        verify(public_key_r, signature, signed)
        peer_parameters = _decode_parameters(plaintext[_CHALLENGE_SEALED.size :])
        node_id_r = node_id_of(public_key_r)
        if self._expect is not None and not hmac.compare_digest(node_id_r, self._expect):
            raise WrongPeer(f"node {node_id_r.hex()} answered, but {self._expect.hex()} was expected")

        clear = b""
        secret = None
        if suite.post_quantum:
            secret, clear = _encapsulate(encapsulation_key)
        transcript = transcript.mix_hash(clear)
        if secret is not None:
            transcript = transcript.mix_key(secret)
        session_id = _session_id(transcript, self._nonce_i, nonce_r, self._identity.node_id, node_id_r)
        signature = self._identity.sign(b"stt1 initiator" + transcript.hash)
        sealed, transcript = transcript.seal(
            b"response",
            _RESPONSE_SEALED.pack(session_id, self._identity.public_key, signature) + self._parameters,
        )
        self._complete(transcript, session_id, node_id_r, public_key_r, suite.number, peer_parameters)
        self._suite = suite
        self._transcript = transcript
        self._state = HandshakeState.CONFIRM
        return clear + sealed

    def process_final(self, message: Buffer) -> None:
        """Take the CONFIRM: the responder has RESPONSE, and has accepted it.

        Raises:
            HandshakeError: The message is malformed, out of state, or unproven. The handshake goes on as before.
        """
        self._check_state(HandshakeState.CONFIRM)
        assert self._result is not None
        plaintext, _ = self._transcript.mix_hash(b"").open(b"confirm", bytes(message))
        if not hmac.compare_digest(plaintext, self._result.session_id):
            raise HandshakeError("CONFIRM names another session")
        self._forget()

    # The responder's side

    def process_hello(self, message: Buffer) -> bytes:
        """Return the CHALLENGE to an INIT. One that opens with none of the seeds costs hashes only.

        Raises:
            HandshakeError: The message is malformed, out of state, or proves no seed of the keyring; or it offers no
                suite that is accepted. The handshake goes on as before.
        """
        self._check_state(HandshakeState.HELLO)
        data = bytes(message)
        offered, nonce_i, x25519_i, clear_size = _parse_init(data)
        transcript = self._open_init(data, clear_size)
        suite = next((self._offers[number] for number in offered if number in self._offers), None)
        if suite is None:
            raise HandshakeError("no suite in common: " + ", ".join(f"{number:#06x}" for number in offered))

        nonce_r = self._random(_NONCE_SIZE)
        pair = self._ephemeral_keys.x25519()
        shared = _exchange(pair.private_key, x25519_i)
        clear = _CHALLENGE_CLEAR.pack(VERSION, suite.number, nonce_r, pair.public_bytes)
        ml_kem = self._ephemeral_keys.ml_kem() if suite.post_quantum else None
        if ml_kem is not None:
            clear += ml_kem.public_bytes
        transcript = transcript.mix_hash(clear).mix_key(shared)
        signature = self._identity.sign(b"stt1 responder" + transcript.hash)
        sealed, transcript = transcript.seal(
            b"challenge",
            _CHALLENGE_SEALED.pack(nonce_i + nonce_r, self._identity.public_key, signature) + self._parameters,
        )
        self._nonce_i = nonce_i
        self._nonce_r = nonce_r
        self._ml_kem = ml_kem
        self._suite = suite
        self._transcript = transcript
        self._state = HandshakeState.RESPONSE
        return clear + sealed

    def verify_response(self, message: Buffer) -> bytes:
        """Return the CONFIRM to a RESPONSE; from now on :attr:`result` is known. Whether to send it is a decision.

        Raises:
            HandshakeError: The message is malformed, out of state, or unproven. The handshake goes on as before.
        """
        self._check_state(HandshakeState.RESPONSE)
        assert self._suite is not None
        data = bytes(message)
        clear_size = 0 if self._ml_kem is None else _CIPHERTEXT_SIZE
        if not 0 <= len(data) - clear_size - _RESPONSE_SEALED.size - TAG_SIZE <= MAX_DICT_SIZE:
            raise HandshakeError(f"RESPONSE of {len(data)} bytes")
        clear = data[:clear_size]
        transcript = self._transcript.mix_hash(clear)
        if self._ml_kem is not None:
            # A ciphertext that was changed gives another secret, not an error (FIPS 203, implicit rejection).
            transcript = transcript.mix_key(self._ml_kem.private_key.decapsulate(clear))
        before = transcript
        plaintext, transcript = transcript.open(b"response", data[clear_size:])
        session_id, public_key_i, signature = _RESPONSE_SEALED.unpack_from(plaintext)
        verify(public_key_i, signature, b"stt1 initiator" + before.hash)
        peer_parameters = _decode_parameters(plaintext[_RESPONSE_SEALED.size :])
        node_id_i = node_id_of(public_key_i)
        expected_id = _session_id(before, self._nonce_i, self._nonce_r, node_id_i, self._identity.node_id)
        if not hmac.compare_digest(session_id, expected_id):
            raise HandshakeError("RESPONSE names another session than its transcript")

        confirm, _ = transcript.mix_hash(b"").seal(b"confirm", session_id)
        self._complete(transcript, session_id, node_id_i, public_key_i, self._suite.number, peer_parameters)
        self._forget()
        return confirm

    # What is known

    @property
    def state(self) -> HandshakeState:
        """What the handshake waits for."""
        return self._state

    @property
    def nonce_i(self) -> bytes:
        """The initiator's nonce, 32 bytes that name the handshake; empty before INIT."""
        return self._nonce_i

    @property
    def suite(self) -> int | None:
        """The number of the suite; None until it is chosen."""
        return None if self._suite is None else self._suite.number

    @property
    def result(self) -> HandshakeResult | None:
        """What was agreed on; None until the peer has proven itself."""
        return self._result

    @property
    def session_id(self) -> bytes | None:
        """8 bytes; None until the peer has proven itself."""
        return None if self._result is None else self._result.session_id

    @property
    def peer_node_id(self) -> bytes | None:
        """32 bytes; None until the peer has proven itself."""
        return None if self._result is None else self._result.peer_node_id

    @property
    def peer_parameters(self) -> Parameters | None:
        """What the peer told of itself; None until it has proven itself."""
        return None if self._result is None else self._result.peer_parameters

    # Internals

    def _check_state(self, state: HandshakeState) -> None:
        if self._state is not state:
            raise HandshakeError(f"{state.value} out of state: the handshake waits for {self._state.value}")

    def _parse_challenge(self, data: bytes) -> tuple[SuiteOffer, bytes, bytes, bytes, int]:
        """Return suite, nonce_R, X25519 key, encapsulation key (or nothing) and the size of the clear part."""
        if len(data) < _CHALLENGE_CLEAR.size:
            raise HandshakeError(f"CHALLENGE of {len(data)} bytes")
        version, number, nonce_r, x25519_r = _CHALLENGE_CLEAR.unpack_from(data)
        if version != VERSION:
            raise HandshakeError(f"CHALLENGE of version {version}")
        suite = self._offers.get(number)
        if suite is None:
            raise HandshakeError(f"CHALLENGE takes suite {number:#06x}, which was not offered")
        clear_size = _CHALLENGE_CLEAR.size + (_ENCAPSULATION_KEY_SIZE if suite.post_quantum else 0)
        if not 0 <= len(data) - clear_size - _CHALLENGE_SEALED.size - TAG_SIZE <= MAX_DICT_SIZE:
            raise HandshakeError(f"CHALLENGE of {len(data)} bytes")
        return suite, nonce_r, x25519_r, data[_CHALLENGE_CLEAR.size : clear_size], clear_size

    def _open_init(self, data: bytes, clear_size: int) -> Transcript:
        hash_of_clear = hash_after(INITIAL_HASH, data[:clear_size])
        for key in self._keyring.pre_shared_keys:
            try:
                plaintext, transcript = Transcript(key, hash_of_clear).open(b"init", data[clear_size:])
            except HandshakeError:
                continue
            # Zeros bind the ciphertext to this one seed: ChaCha20-Poly1305 alone lets who knows several seeds seal
            # something that opens under each of them.
            if plaintext.count(0) != len(plaintext):
                raise HandshakeError("INIT is padded with something else than zeros")
            return transcript
        raise HandshakeError("INIT opens with no shared seed of this node")

    def _complete(
        self,
        transcript: Transcript,
        session_id: bytes,
        peer_node_id: bytes,
        peer_public_key: bytes,
        suite: int,
        peer_parameters: Parameters,
    ) -> None:
        self._result = HandshakeResult(
            session_id=session_id,
            peer_node_id=peer_node_id,
            peer_public_key=peer_public_key,
            suite=suite,
            peer_parameters=peer_parameters,
            is_initiator=self._is_initiator,
            initiator_secret=transcript.derive(b"traffic i"),
            responder_secret=transcript.derive(b"traffic r"),
            exporter_secret=transcript.derive(b"exporter"),
        )
        self._x25519 = None
        self._ml_kem = None

    def _forget(self) -> None:
        # All that later keys could be drawn from again.
        self._transcript = Transcript(b"", b"")
        self._state = HandshakeState.COMPLETE


def init_nonce(message: bytes) -> bytes:
    """Return the nonce_I of an INIT, without a look at anything but its size.

    Raises:
        HandshakeError: It has another size than an INIT.
    """
    _check_init_size(message)
    start = 2 + 2 * message[1]
    return message[start : start + _NONCE_SIZE]


def _parse_init(data: bytes) -> tuple[tuple[int, ...], bytes, bytes, int]:
    """Return the offered suites, nonce_I, X25519 key and the size of the clear part."""
    _check_init_size(data)
    if data[0] != VERSION:
        raise HandshakeError(f"INIT of version {data[0]}")
    count = data[1]
    if not count:
        raise HandshakeError("INIT offers no suite")
    nonce_start = 2 + 2 * count
    x25519_start = nonce_start + _NONCE_SIZE
    clear_size = x25519_start + _X25519_SIZE
    suites = struct.unpack_from(f">{count}H", data, 2)
    return suites, data[nonce_start:x25519_start], data[x25519_start:clear_size], clear_size


def _check_init_size(message: bytes) -> None:
    if len(message) != INIT_SIZE:
        raise HandshakeError(f"INIT of {len(message)} bytes instead of {INIT_SIZE}")


def _exchange(private_key: X25519PrivateKey, public_bytes: bytes) -> bytes:
    try:
        return private_key.exchange(X25519PublicKey.from_public_bytes(public_bytes))
    except ValueError:
        # RFC 7748 section 6.1: the result is all zeros.
        raise HandshakeError("an X25519 key of small order") from None


def _encapsulate(encapsulation_key: bytes) -> tuple[bytes, bytes]:
    """Return secret and ciphertext."""
    try:
        return MLKEM768PublicKey.from_public_bytes(encapsulation_key).encapsulate()
    except ValueError:
        # FIPS 203 section 7.2: a coefficient out of range.
        raise HandshakeError("an ML-KEM-768 key that is none") from None


@functools.lru_cache(maxsize=64)  # most peers say the same of themselves: 60 us a handshake
def _decode_parameters(data: bytes) -> Parameters:
    try:
        return decode_parameters(data)
    except FrameError as error:
        raise HandshakeError(f"the peer's parameters: {error.reason}") from None


def _session_id(transcript: Transcript, *terms: bytes) -> bytes:
    """Return the first 8 bytes of the XOR of nonces, node ids, and a secret that hides them from onlookers."""
    label = int.from_bytes(transcript.derive(b"session id")[:_SESSION_ID_SIZE], "big")
    for term in terms:
        label ^= int.from_bytes(term[:_SESSION_ID_SIZE], "big")
    return label.to_bytes(_SESSION_ID_SIZE, "big")
