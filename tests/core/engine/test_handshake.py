from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from stt_core.engine.ephemeral import EphemeralKeys, MLKEMPair, X25519Pair
from stt_core.engine.handshake import (
    CONFIRM_SIZE,
    INIT_SIZE,
    MAX_CHALLENGE_SIZE,
    MAX_RESPONSE_SIZE,
    HandshakeState,
    STTHandshake,
    SuiteOffer,
    init_nonce,
)
from stt_core.engine.transcript import TAG_SIZE, Transcript
from stt_core.errors import ConfigError, HandshakeError, LocalError, WrongPeer
from stt_core.identity import Identity
from stt_core.seeds import Keyring
from stt_core.wire.messages import Parameters
from stt_core.wire.serialization import serialize_stt

if TYPE_CHECKING:
    from collections.abc import Callable

ALICE = Identity.from_seed(b"the node seed of alice, 32 bytes long")
BOB = Identity.from_seed(b"the node seed of bob, also 32 bytes long")
MALLORY = Identity.from_seed(b"the node seed of mallory, another member")
SHARED_SEED = b"the shared seed of the group of this test"
KEYRING = Keyring.from_seeds(SHARED_SEED)
(PSK,) = KEYRING.pre_shared_keys
STRANGERS = Keyring.from_seeds(b"the shared seed of some other group")

OFFERS = {number: SuiteOffer(number, post_quantum=number not in {3, 4}) for number in (1, 2, 3, 4, 0x8000)}
EACH_SUITE = pytest.mark.parametrize("suite", OFFERS)
PARAMETERS = Parameters(credit=(1000, 100, 10), idle=30_000, max_frame=65_536, app=b"alice's")
SMALL_ORDER_X25519 = [  # u of order 1, 2, 4 and 8, and those above the prime: all results are zero
    bytes(32),
    (1).to_bytes(32, "little"),
    ((1 << 255) - 20).to_bytes(32, "little"),
    ((1 << 255) - 19).to_bytes(32, "little"),
    ((1 << 255) - 18).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
]
# Every small-order encoding has y = 1 among its kind; under it R = identity and s = 0 sign anything.
SMALL_ORDER_ED25519 = (1).to_bytes(32, "little")
SIGNS_ANYTHING = (1).to_bytes(32, "little") + bytes(32)


def initiator(**changes: Any) -> STTHandshake:
    given: dict[str, Any] = {"identity": ALICE, "keyring": KEYRING, "is_initiator": True}
    return STTHandshake(**given | changes)


def responder(**changes: Any) -> STTHandshake:
    given: dict[str, Any] = {"identity": BOB, "keyring": KEYRING, "is_initiator": False}
    return STTHandshake(**given | changes)


def pair(suite: int = 1) -> tuple[STTHandshake, STTHandshake]:
    options = {"suites": [OFFERS[suite]], "require_post_quantum": False}
    return initiator(**options), responder(**options)


def run(one: STTHandshake, other: STTHandshake) -> tuple[bytes, bytes, bytes, bytes]:
    init = one.create_hello()
    challenge = other.process_hello(init)
    response = one.process_challenge(challenge)
    confirm = other.verify_response(response)
    one.process_final(confirm)
    return init, challenge, response, confirm


def agree(one: STTHandshake, other: STTHandshake) -> bool:
    mine, theirs = one.result, other.result
    assert mine is not None
    assert theirs is not None
    return (mine.session_id, mine.suite, mine.initiator_secret, mine.responder_secret, mine.exporter_secret) == (
        theirs.session_id,
        theirs.suite,
        theirs.initiator_secret,
        theirs.responder_secret,
        theirs.exporter_secret,
    )


# The whole handshake


@EACH_SUITE
def test_both_sides_agree_and_know_each_other(suite: int) -> None:
    one, other = pair(suite)

    run(one, other)

    assert agree(one, other)
    assert one.peer_node_id == BOB.node_id
    assert other.peer_node_id == ALICE.node_id
    assert one.suite == other.suite == suite
    assert one.result is not None
    assert other.result is not None
    assert one.result.peer_public_key == BOB.public_key
    assert one.result.is_initiator
    assert not other.result.is_initiator


def test_seeds_alone_are_enough_to_run_it() -> None:
    one = STTHandshake(node_seed=b"a node seed of 32 bytes or more 1", shared_seed=SHARED_SEED, is_initiator=True)
    other = STTHandshake(node_seed=b"a node seed of 32 bytes or more 2", shared_seed=SHARED_SEED, is_initiator=False)

    run(one, other)

    assert agree(one, other)
    assert one.session_id is not None
    assert len(one.session_id.hex()) == 16


def test_each_side_learns_the_parameters_of_the_other() -> None:
    theirs = attrs.evolve(PARAMETERS, padding=256, custom={"acme.telemetry": (0x90, True)}, app=b"bob's")
    one, other = initiator(parameters=PARAMETERS), responder(parameters=theirs)

    run(one, other)

    assert one.peer_parameters == theirs
    assert other.peer_parameters == PARAMETERS


def test_nothing_is_known_before_the_peer_has_proven_itself() -> None:
    one, other = initiator(), responder()
    known = [one.session_id, one.peer_node_id, one.peer_parameters, one.result, one.suite]
    init = one.create_hello()
    challenge = other.process_hello(init)
    known += [one.session_id, one.suite, other.session_id, other.peer_node_id, other.peer_parameters, other.result]
    response = one.process_challenge(challenge)
    known += [other.session_id, other.result]

    assert known == [None] * len(known)
    assert other.suite == 1
    assert one.session_id is not None
    other.verify_response(response)
    assert other.session_id == one.session_id


def test_the_secrets_of_directions_exporters_and_runs_all_differ() -> None:
    secrets = set()
    for _ in range(3):
        one, other = pair()
        run(one, other)
        assert one.result is not None
        secrets |= {one.result.initiator_secret, one.result.responder_secret, one.result.exporter_secret}

    assert len(secrets) == 9
    assert {len(secret) for secret in secrets} == {32}


def test_nonces_are_fresh_and_one_init_gets_different_answers() -> None:
    inits = [initiator().create_hello() for _ in range(3)]
    answers = [responder().process_hello(inits[0]) for _ in range(3)]

    assert len({init_nonce(init) for init in inits}) == 3
    assert len(set(answers)) == 3


def test_a_responder_with_several_seeds_takes_each_of_them() -> None:
    old, new = SHARED_SEED, b"the next shared seed of the same group"
    both = Keyring.from_seeds([new, old])

    for keyring in (Keyring.from_seeds(old), Keyring.from_seeds(new), both):
        one, other = initiator(keyring=keyring), responder(keyring=both)
        run(one, other)
        assert agree(one, other)


def test_an_initiator_proves_its_first_seed() -> None:
    both = Keyring.from_seeds([SHARED_SEED, b"the next shared seed of the same group"])

    run(initiator(keyring=both), responder())


def test_two_processes_of_one_node_may_talk() -> None:
    one, other = initiator(identity=BOB), responder()

    run(one, other)

    assert one.peer_node_id == other.peer_node_id == BOB.node_id


def test_many_handshakes_run_at_a_time() -> None:
    ephemeral_keys = EphemeralKeys(1.0)
    sides = [(initiator(), responder(ephemeral_keys=ephemeral_keys)) for _ in range(8)]
    inits = [one.create_hello() for one, _ in sides]
    challenges = [other.process_hello(init) for (_, other), init in zip(sides, inits, strict=True)]
    responses = [one.process_challenge(challenge) for (one, _), challenge in zip(sides, challenges, strict=True)]
    for (one, other), response in zip(reversed(sides), reversed(responses), strict=True):
        one.process_final(other.verify_response(response))

    assert all(agree(one, other) for one, other in sides)
    assert len({one.session_id for one, _ in sides}) == 8


def test_handshakes_that_share_ephemeral_keys_have_different_secrets() -> None:
    ephemeral_keys = EphemeralKeys(1.0)
    results = []
    for _ in range(2):
        one, other = initiator(), responder(ephemeral_keys=ephemeral_keys)
        _, challenge, _, _ = run(one, other)
        results.append((challenge[35:67], one.result))

    (first_key, first), (second_key, second) = results
    assert first_key == second_key
    assert first is not None
    assert second is not None
    assert first.initiator_secret != second.initiator_secret


# Sizes


@pytest.mark.parametrize("count", [1, 2, 255])
def test_init_has_one_size_whatever_it_offers(count: int) -> None:
    offers = [OFFERS[1], *(SuiteOffer(0x8000 + number) for number in range(count - 1))]
    one = initiator(suites=offers)

    init = one.create_hello()

    assert len(init) == INIT_SIZE == 1200 - 32
    assert init_nonce(init) == one.nonce_i
    one.process_challenge(responder().process_hello(init))


def test_the_largest_messages_have_the_sizes_that_buffers_are_bounded_by() -> None:
    names = {f"acme.{number:02}{'x' * (40 if number < 5 else 36)}": (0x80 + number, True) for number in range(6)}
    full = attrs.evolve(PARAMETERS, app=bytes(512), custom=names)
    spare = 1024 - len(full.encode())
    longest = f"acme.05{'x' * (36 + spare)}"
    full = attrs.evolve(full, custom=dict(list(names.items())[:5]) | {longest: (0x85, True)})
    assert len(full.encode()) == 1024

    init, challenge, response, confirm = run(initiator(parameters=full), responder(parameters=full))

    assert len(init) == INIT_SIZE
    assert len(challenge) == MAX_CHALLENGE_SIZE
    assert len(response) == MAX_RESPONSE_SIZE
    assert len(confirm) == CONFIRM_SIZE


# Tampering, and anything else that a network can do


def flipped(message: bytes, position: int) -> bytes:
    return message[:position] + bytes([message[position] ^ 0x10]) + message[position + 1 :]


@EACH_SUITE
def test_no_changed_byte_of_init_is_answered_and_the_genuine_one_still_is(suite: int) -> None:
    one, other = pair(suite)
    init = one.create_hello()

    for position in range(len(init)):
        with pytest.raises(HandshakeError):
            other.process_hello(flipped(init, position))

    one.process_final(other.verify_response(one.process_challenge(other.process_hello(init))))
    assert agree(one, other)


@EACH_SUITE
def test_no_changed_byte_of_challenge_is_answered_and_the_genuine_one_still_is(suite: int) -> None:
    one, other = pair(suite)
    challenge = other.process_hello(one.create_hello())

    for position in range(len(challenge)):
        with pytest.raises(HandshakeError):
            one.process_challenge(flipped(challenge, position))

    one.process_final(other.verify_response(one.process_challenge(challenge)))
    assert agree(one, other)


@EACH_SUITE
def test_no_changed_byte_of_response_is_confirmed_and_the_genuine_one_still_is(suite: int) -> None:
    one, other = pair(suite)
    response = one.process_challenge(other.process_hello(one.create_hello()))

    for position in range(len(response)):
        with pytest.raises(HandshakeError):
            other.verify_response(flipped(response, position))

    one.process_final(other.verify_response(response))
    assert agree(one, other)


@EACH_SUITE
def test_no_changed_byte_of_confirm_completes_and_the_genuine_one_still_does(suite: int) -> None:
    one, other = pair(suite)
    confirm = other.verify_response(one.process_challenge(other.process_hello(one.create_hello())))

    for position in range(len(confirm)):
        with pytest.raises(HandshakeError):
            one.process_final(flipped(confirm, position))

    one.process_final(confirm)
    assert one.state is HandshakeState.COMPLETE


@pytest.mark.parametrize("suite", [1, 3])
def test_no_other_length_of_a_message_is_taken(suite: int) -> None:
    one, other = pair(suite)

    def refused(receive: Callable[[bytes], object], message: bytes) -> None:
        for size in {0, 1, 2, 34, 66, 67, 68, 200, len(message) // 2, len(message) - 1} & set(range(len(message))):
            with pytest.raises(HandshakeError):
                receive(message[:size])
        for more in (1, 16, 1024, 8192):
            with pytest.raises(HandshakeError):
                receive(message + bytes(more))

    init = one.create_hello()
    refused(other.process_hello, init)
    challenge = other.process_hello(init)
    refused(one.process_challenge, challenge)
    response = one.process_challenge(challenge)
    refused(other.verify_response, response)
    confirm = other.verify_response(response)
    refused(one.process_final, confirm)
    one.process_final(confirm)


@settings(max_examples=60)
@given(st.binary(max_size=100) | st.sampled_from([INIT_SIZE, 243, 1427, 1240]).flatmap(lambda n: st.binary(min_size=n)))
def test_any_bytes_raise_the_one_error(message: bytes) -> None:
    one, other = initiator(), responder()
    with pytest.raises(HandshakeError):
        other.process_hello(message)
    challenge = other.process_hello(one.create_hello())
    with pytest.raises(HandshakeError):
        one.process_challenge(message)
    one.process_challenge(challenge)
    with pytest.raises(HandshakeError):
        other.verify_response(message)
    with pytest.raises(HandshakeError):
        one.process_final(message)


def test_messages_of_another_run_are_refused() -> None:
    (one, other), (mine, yours) = pair(), pair()
    init, foreign_init = one.create_hello(), mine.create_hello()
    challenge, foreign_challenge = other.process_hello(init), yours.process_hello(foreign_init)
    with pytest.raises(HandshakeError):
        one.process_challenge(foreign_challenge)
    response, foreign_response = one.process_challenge(challenge), mine.process_challenge(foreign_challenge)
    with pytest.raises(HandshakeError):
        other.verify_response(foreign_response)
    confirm, foreign_confirm = other.verify_response(response), yours.verify_response(foreign_response)
    with pytest.raises(HandshakeError):
        one.process_final(foreign_confirm)

    one.process_final(confirm)


def test_messages_reflected_to_their_sender_are_refused() -> None:
    one, other = initiator(), responder(identity=ALICE)
    init = one.create_hello()
    with pytest.raises(HandshakeError):
        one.process_challenge(init)
    challenge = other.process_hello(init)
    with pytest.raises(HandshakeError):
        other.verify_response(challenge)
    response = one.process_challenge(challenge)
    with pytest.raises(HandshakeError):
        one.process_final(response)
    confirm = other.verify_response(response)

    one.process_final(confirm)


# States

METHODS: dict[str, Callable[[STTHandshake, bytes], object]] = {
    "create_hello": lambda side, _: side.create_hello(),
    "process_hello": STTHandshake.process_hello,
    "process_challenge": STTHandshake.process_challenge,
    "verify_response": STTHandshake.verify_response,
    "process_final": STTHandshake.process_final,
}
ALLOWED = {
    ("initiator", HandshakeState.HELLO_TO_SEND): "create_hello",
    ("initiator", HandshakeState.CHALLENGE): "process_challenge",
    ("initiator", HandshakeState.CONFIRM): "process_final",
    ("initiator", HandshakeState.COMPLETE): None,
    ("responder", HandshakeState.HELLO): "process_hello",
    ("responder", HandshakeState.RESPONSE): "verify_response",
    ("responder", HandshakeState.COMPLETE): None,
}


def reach(state: HandshakeState) -> tuple[STTHandshake, STTHandshake, bytes]:
    """Return both sides once the message that the state waits for was made, and that message."""
    one, other = pair()
    steps: list[Callable[[bytes], bytes | None]] = [
        lambda _: one.create_hello(),
        other.process_hello,
        one.process_challenge,
        other.verify_response,
        one.process_final,
    ]
    message: bytes | None = b""
    for step in steps[: list(HandshakeState).index(state)]:
        assert message is not None
        message = step(message)
    return one, other, message or b""


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("role", "state"), ALLOWED, ids=lambda value: getattr(value, "name", value))
def test_each_method_is_refused_in_each_state_but_its_own(role: str, state: HandshakeState, method: str) -> None:
    one, other, message = reach(state)
    side = one if role == "initiator" else other
    assert side.state is state
    if ALLOWED[role, state] == method:
        METHODS[method](side, message)
        assert side.state is not state
        return

    with pytest.raises(LocalError if method == "create_hello" else HandshakeError):
        METHODS[method](side, message)

    assert side.state is state


def test_a_second_init_neither_restarts_nor_disturbs_a_handshake() -> None:
    one, other = initiator(), responder()
    challenge = other.process_hello(one.create_hello())
    with pytest.raises(HandshakeError, match="out of state"):
        other.process_hello(initiator(identity=MALLORY).create_hello())
    response = one.process_challenge(challenge)
    one.process_final(other.verify_response(response))

    with pytest.raises(HandshakeError, match="out of state"):
        other.process_hello(initiator(identity=MALLORY).create_hello())
    with pytest.raises(HandshakeError, match="out of state"):
        initiator().process_hello(initiator(identity=MALLORY).create_hello())

    assert other.peer_node_id == ALICE.node_id


# Seeds


def test_another_seed_gets_no_answer() -> None:
    with pytest.raises(HandshakeError, match="no shared seed"):
        responder().process_hello(initiator(keyring=STRANGERS).create_hello())


def test_a_stranger_costs_hashes_only() -> None:
    ephemeral_keys = EphemeralKeys(1.0)
    drawn: list[int] = []

    def random(size: int) -> bytes:
        drawn.append(size)
        return os.urandom(size)

    other = responder(ephemeral_keys=ephemeral_keys, random=random)
    with pytest.raises(HandshakeError):
        other.process_hello(initiator(keyring=STRANGERS).create_hello())

    assert ephemeral_keys.expires_at is None  # no key pair was made
    assert drawn == []
    assert other.state is HandshakeState.HELLO


def test_who_answers_without_the_seed_is_refused() -> None:
    one = initiator()
    init = one.create_hello()
    # It cannot read INIT, and need not: nonce and key are in the clear.
    challenge = craft_challenge(init, psk=STRANGERS.pre_shared_keys[0], identity=MALLORY)

    with pytest.raises(HandshakeError, match="does not open"):
        one.process_challenge(challenge)


def test_init_padded_with_something_else_than_zeros_is_refused() -> None:
    # What binds INIT to one seed: see the module.
    with pytest.raises(HandshakeError, match="zeros"):
        responder().process_hello(craft_init(padding=bytes(1083) + b"\x01"))

    responder().process_hello(craft_init())


# Members who do not keep to the protocol: they have the seed, and seal whatever they like


def craft_init(
    *,
    version: int = 1,
    suites: tuple[int, ...] = (1,),
    x25519: bytes | None = None,
    padding: bytes | None = None,
) -> bytes:
    x25519 = x25519 if x25519 is not None else X25519Pair.make(os.urandom).public_bytes
    clear = struct.pack(f">BB{len(suites)}H", version, len(suites), *suites) + os.urandom(32) + x25519
    padding = padding if padding is not None else bytes(INIT_SIZE - len(clear) - TAG_SIZE)
    return clear + Transcript(PSK).mix_hash(clear).seal(b"init", padding)[0]


def craft_challenge(
    init: bytes,
    *,
    psk: bytes = PSK,
    version: int = 1,
    suite: int = 1,
    encapsulation_key: bytes | None = None,
    nonces: bytes | None = None,
    identity: Identity = BOB,
    public_key: bytes | None = None,
    signature: bytes | None = None,
    parameters: bytes | None = None,
) -> bytes:
    size = 2 + 2 * init[1] + 64
    transcript = Transcript(psk).mix_hash(init[:size]).mix_hash(init[size:])
    ours = X25519Pair.make(os.urandom)
    nonce_r = os.urandom(32)
    clear = struct.pack(">BH", version, suite) + nonce_r + ours.public_bytes
    if suite not in {3, 4}:
        clear += encapsulation_key if encapsulation_key is not None else MLKEMPair.make(os.urandom).public_bytes
    secret = ours.private_key.exchange(X25519PublicKey.from_public_bytes(init[size - 32 : size]))
    transcript = transcript.mix_hash(clear).mix_key(secret)
    plaintext = b"".join(
        (
            nonces if nonces is not None else init_nonce(init) + nonce_r,
            public_key if public_key is not None else identity.public_key,
            signature if signature is not None else identity.sign(b"stt1 responder" + transcript.hash),
            parameters if parameters is not None else PARAMETERS.encode(),
        )
    )
    return clear + transcript.seal(b"challenge", plaintext)[0]


class CraftyInitiator:
    """A member that answers CHALLENGE with whatever it likes; of suite 3, to keep it short."""

    def __init__(self, other: STTHandshake) -> None:
        private_key = X25519PrivateKey.generate()
        self.init = craft_init(suites=(3,), x25519=private_key.public_key().public_bytes_raw())
        challenge = other.process_hello(self.init)
        clear, sealed = challenge[:67], challenge[67:]
        transcript = Transcript(PSK).mix_hash(self.init[:68]).mix_hash(self.init[68:]).mix_hash(clear)
        transcript = transcript.mix_key(private_key.exchange(X25519PublicKey.from_public_bytes(clear[35:67])))
        self.plaintext, transcript = transcript.open(b"challenge", sealed)
        self.transcript = transcript.mix_hash(b"")

    def session_id(self, node_id: bytes) -> bytes:
        terms = (self.plaintext[:8], self.plaintext[32:40], node_id[:8], BOB.node_id[:8])
        label = int.from_bytes(self.transcript.derive(b"session id")[:8], "big")
        for term in terms:
            label ^= int.from_bytes(term, "big")
        return label.to_bytes(8, "big")

    def response(
        self,
        *,
        identity: Identity = ALICE,
        session_id: bytes | None = None,
        public_key: bytes | None = None,
        signature: bytes | None = None,
        parameters: bytes | None = None,
    ) -> bytes:
        plaintext = b"".join(
            (
                session_id if session_id is not None else self.session_id(identity.node_id),
                public_key if public_key is not None else identity.public_key,
                signature if signature is not None else identity.sign(b"stt1 initiator" + self.transcript.hash),
                parameters if parameters is not None else PARAMETERS.encode(),
            )
        )
        return self.transcript.seal(b"response", plaintext)[0]


def classic_responder() -> STTHandshake:
    return responder(suites=[OFFERS[3]], require_post_quantum=False)


def test_an_honest_crafted_message_is_taken() -> None:
    # So that the tests below fail for the reason that they name.
    one, other = initiator(), classic_responder()
    one.process_challenge(craft_challenge(one.create_hello()))
    other.verify_response(CraftyInitiator(other).response())

    assert one.peer_node_id == BOB.node_id
    assert other.peer_node_id == ALICE.node_id


@pytest.mark.parametrize("version", [0, 2, 255])
def test_an_unknown_version_is_refused(version: int) -> None:
    with pytest.raises(HandshakeError, match=f"INIT of version {version}"):
        responder().process_hello(craft_init(version=version))
    one = initiator()
    with pytest.raises(HandshakeError, match=f"CHALLENGE of version {version}"):
        one.process_challenge(craft_challenge(one.create_hello(), version=version))


def test_an_init_without_suites_is_refused() -> None:
    with pytest.raises(HandshakeError, match="offers no suite"):
        responder().process_hello(craft_init(suites=()))


@pytest.mark.parametrize("key", SMALL_ORDER_X25519, ids=bytes.hex)
def test_an_x25519_key_of_small_order_is_refused(key: bytes) -> None:
    with pytest.raises(HandshakeError, match="X25519"):
        responder().process_hello(craft_init(x25519=key))
    one, other = initiator(), responder()
    challenge = other.process_hello(one.create_hello())
    with pytest.raises(HandshakeError, match="X25519"):
        one.process_challenge(challenge[:35] + key + challenge[67:])

    one.process_challenge(challenge)


def test_an_encapsulation_key_that_is_none_is_refused() -> None:
    one = initiator()
    init = one.create_hello()

    with pytest.raises(HandshakeError, match="ML-KEM"):
        one.process_challenge(craft_challenge(init, encapsulation_key=b"\xff" * 1184))

    one.process_challenge(craft_challenge(init))


def test_a_small_order_public_key_is_refused_though_any_message_verifies_under_it() -> None:
    one, other = initiator(), classic_responder()
    with pytest.raises(HandshakeError, match="small order"):
        one.process_challenge(
            craft_challenge(one.create_hello(), public_key=SMALL_ORDER_ED25519, signature=SIGNS_ANYTHING)
        )
    crafty = CraftyInitiator(other)
    with pytest.raises(HandshakeError, match="small order"):
        other.verify_response(crafty.response(public_key=SMALL_ORDER_ED25519, signature=SIGNS_ANYTHING))

    other.verify_response(crafty.response())


def test_a_member_cannot_prove_the_identity_of_another() -> None:
    one, other = initiator(), classic_responder()
    with pytest.raises(HandshakeError, match="signature"):
        one.process_challenge(craft_challenge(one.create_hello(), identity=MALLORY, public_key=BOB.public_key))
    with pytest.raises(HandshakeError, match="signature"):
        other.verify_response(CraftyInitiator(other).response(identity=MALLORY, public_key=ALICE.public_key))


def test_who_has_stolen_a_nodes_seed_cannot_pretend_to_be_others_to_that_node() -> None:
    # Key compromise impersonation: alice's own seed and the shared seed have leaked.
    one = initiator(expect=BOB.node_id)
    init = one.create_hello()

    with pytest.raises(HandshakeError, match="signature"):
        one.process_challenge(craft_challenge(init, identity=ALICE, public_key=BOB.public_key))
    with pytest.raises(WrongPeer):
        one.process_challenge(craft_challenge(init, identity=ALICE))


def test_a_signature_of_the_other_role_or_of_another_run_is_refused() -> None:
    one, other = initiator(), classic_responder()
    init = one.create_hello()
    crafty = CraftyInitiator(other)

    with pytest.raises(HandshakeError, match="signature"):
        one.process_challenge(craft_challenge(init, signature=BOB.sign(b"stt1 responder" + bytes(32))))
    with pytest.raises(HandshakeError, match="signature"):
        other.verify_response(crafty.response(signature=ALICE.sign(b"stt1 responder" + crafty.transcript.hash)))


def test_a_challenge_to_other_nonces_is_refused() -> None:
    one = initiator()
    init = one.create_hello()

    for nonces in (bytes(64), init_nonce(init) + bytes(32), bytes(32) + os.urandom(32)):
        with pytest.raises(HandshakeError, match="nonces"):
            one.process_challenge(craft_challenge(init, nonces=nonces))


def test_the_initiator_cannot_choose_the_session_id() -> None:
    other = classic_responder()
    crafty = CraftyInitiator(other)

    for session_id in (bytes(8), crafty.session_id(MALLORY.node_id)):
        with pytest.raises(HandshakeError, match="another session"):
            other.verify_response(crafty.response(session_id=session_id))

    other.verify_response(crafty.response())


@pytest.mark.parametrize(
    "parameters",
    [b"", b"\x00", bytes(1024), PARAMETERS.encode()[:-1], PARAMETERS.encode() + b"\x00", serialize_stt({})],
    ids=["nothing", "null", "zeros", "truncated", "trailing", "empty"],
)
def test_malformed_parameters_are_refused(parameters: bytes) -> None:
    one, other = initiator(), classic_responder()
    crafty = CraftyInitiator(other)

    with pytest.raises(HandshakeError, match="parameters"):
        one.process_challenge(craft_challenge(one.create_hello(), parameters=parameters))
    with pytest.raises(HandshakeError, match="parameters"):
        other.verify_response(crafty.response(parameters=parameters))

    other.verify_response(crafty.response())


def test_a_member_in_the_middle_ends_up_in_two_sessions_of_its_own() -> None:
    # Unknown key share: no run leaves alice and bob with one key and different ideas of who has it.
    one, other = initiator(), responder()
    init = one.create_hello()
    challenge = other.process_hello(init)
    with pytest.raises(HandshakeError):
        initiator(identity=MALLORY).process_challenge(challenge)

    response_to_mallory = one.process_challenge(craft_challenge(init, identity=MALLORY))

    assert one.peer_node_id == MALLORY.node_id
    with pytest.raises(HandshakeError):
        other.verify_response(response_to_mallory)


def test_confirm_cannot_be_made_from_seed_and_session_id() -> None:
    one, other = initiator(), responder()
    init = one.create_hello()
    challenge = other.process_hello(init)
    response = one.process_challenge(challenge)
    assert one.session_id is not None
    transcript = Transcript(PSK)
    for part in (init[:70], init[70:], challenge[:1251], challenge[1251:], response[:1088], response[1088:], b""):
        transcript = transcript.mix_hash(part)

    with pytest.raises(HandshakeError):
        one.process_final(transcript.seal(b"confirm", one.session_id)[0])

    assert one.state is HandshakeState.CONFIRM


def test_a_confirm_of_another_session_id_is_refused() -> None:
    # The responder itself, which has all keys, names another session.
    drawn = [os.urandom(32), os.urandom(32)]
    private_key = X25519PrivateKey.from_private_bytes(drawn[1])
    one = initiator(suites=[OFFERS[3]], require_post_quantum=False, random=lambda _: drawn.pop(0))
    init = one.create_hello()
    challenge = craft_challenge(init, suite=3)
    response = one.process_challenge(challenge)
    transcript = Transcript(PSK).mix_hash(init[:68]).mix_hash(init[68:]).mix_hash(challenge[:67])
    transcript = transcript.mix_key(private_key.exchange(X25519PublicKey.from_public_bytes(challenge[35:67])))
    for part in (challenge[67:], b"", response, b""):
        transcript = transcript.mix_hash(part)

    with pytest.raises(HandshakeError, match="another session"):
        one.process_final(transcript.seal(b"confirm", bytes(8))[0])

    assert one.session_id is not None
    one.process_final(transcript.seal(b"confirm", one.session_id)[0])


# Suites


def test_the_responder_takes_the_first_offer_that_it_accepts() -> None:
    for offered, accepted, chosen in (
        ([2, 1], [1, 2], 2),
        ([1, 2], [2], 2),
        ([0x8000, 2, 1], [1, 2], 2),
        ([1], [1], 1),
    ):
        one = initiator(suites=[OFFERS[number] for number in offered])
        other = responder(suites=[OFFERS[number] for number in accepted])
        run(one, other)
        assert one.suite == other.suite == chosen


def test_without_a_suite_in_common_there_is_no_answer() -> None:
    init = initiator(suites=[OFFERS[1]]).create_hello()

    with pytest.raises(HandshakeError, match="no suite in common: 0x0001"):
        responder(suites=[OFFERS[2]]).process_hello(init)


@pytest.mark.parametrize("suite", [3, 4])
def test_a_suite_without_post_quantum_exchange_is_refused_by_a_responder_that_requires_it(suite: int) -> None:
    init = initiator(suites=[OFFERS[suite]], require_post_quantum=False).create_hello()

    with pytest.raises(HandshakeError, match="no suite in common"):
        responder(suites=OFFERS.values()).process_hello(init)


def test_a_suite_without_post_quantum_exchange_is_not_offered_by_default() -> None:
    init = initiator(suites=[OFFERS[3], OFFERS[1], OFFERS[4]]).create_hello()

    assert init[:4] == bytes((1, 1, 0, 1))


@pytest.mark.parametrize("suite", [2, 3, 4, 0x8000, 0xFFFF])
def test_a_suite_that_was_not_offered_is_refused(suite: int) -> None:
    one = initiator(suites=[OFFERS[1]])
    init = one.create_hello()

    with pytest.raises(HandshakeError, match=f"{suite:#06x}, which was not offered"):
        one.process_challenge(craft_challenge(init, suite=suite))


def test_a_downgrade_on_the_way_fails() -> None:
    offers = [OFFERS[1], OFFERS[3]]
    one = initiator(suites=offers, require_post_quantum=False)
    init = one.create_hello()
    weakened = init[:2] + b"\x00\x03\x00\x03" + init[6:]

    with pytest.raises(HandshakeError):
        responder(suites=offers, require_post_quantum=False).process_hello(weakened)
    # A member in the middle can seal the weakened offer anew: then the two transcripts differ.
    clear = weakened[: 2 + 4 + 64]
    resealed = clear + Transcript(PSK).mix_hash(clear).seal(b"init", bytes(INIT_SIZE - len(clear) - TAG_SIZE))[0]
    challenge = responder(suites=offers, require_post_quantum=False).process_hello(resealed)
    with pytest.raises(HandshakeError):
        one.process_challenge(challenge)


# The expected peer


def test_the_expected_peer_is_taken() -> None:
    one, other = initiator(expect=BOB.node_id), responder()

    run(one, other)

    assert one.peer_node_id == BOB.node_id


def test_another_peer_than_the_expected_one_is_refused_without_learning_who_asks() -> None:
    drawn: list[bytes] = []

    def random(size: int) -> bytes:
        drawn.append(os.urandom(size))
        return drawn[-1]

    one = initiator(expect=BOB.node_id, random=random)
    init = one.create_hello()
    challenge = responder(identity=MALLORY).process_hello(init)

    with pytest.raises(WrongPeer, match=f"{MALLORY.node_id.hex()} answered, but {BOB.node_id.hex()}"):
        one.process_challenge(challenge)

    # INIT is all that was sent, and depends on nothing but the shared seed and what was drawn.
    again = initiator(identity=MALLORY, random=lambda _: drawn.pop(0))
    assert again.create_hello() == init
    assert one.result is None
    one.process_challenge(responder().process_hello(init))


# What leaks later


def test_a_leaked_seed_opens_nothing_that_was_recorded_but_init() -> None:
    init, challenge, response, confirm = run(initiator(), responder())
    transcript = Transcript(PSK)

    plaintext, transcript = transcript.mix_hash(init[:70]).open(b"init", init[70:])
    assert plaintext == bytes(len(plaintext))
    for label, clear, sealed in (
        (b"challenge", challenge[:1251], challenge[1251:]),
        (b"response", response[:1088], response[1088:]),
        (b"confirm", b"", confirm),
    ):
        transcript = transcript.mix_hash(clear)
        with pytest.raises(HandshakeError):
            transcript.open(label, sealed)
        transcript = transcript.mix_hash(sealed)


def test_who_breaks_x25519_and_has_the_seed_learns_the_responder_but_no_key_and_no_initiator() -> None:
    drawn: list[bytes] = []

    def random(size: int) -> bytes:
        drawn.append(os.urandom(size))
        return drawn[-1]

    one, other = initiator(random=random), responder()
    init, challenge, response, _ = run(one, other)
    private_key = X25519PrivateKey.from_private_bytes(drawn[1])
    transcript = Transcript(PSK).mix_hash(init[:70]).mix_hash(init[70:]).mix_hash(challenge[:1251])
    transcript = transcript.mix_key(private_key.exchange(X25519PublicKey.from_public_bytes(challenge[35:67])))

    plaintext, transcript = transcript.open(b"challenge", challenge[1251:])
    assert BOB.public_key in plaintext
    transcript = transcript.mix_hash(response[:1088])
    with pytest.raises(HandshakeError):
        transcript.open(b"response", response[1088:])
    transcript = transcript.mix_hash(response[1088:])
    assert one.result is not None
    assert transcript.derive(b"traffic i") != one.result.initiator_secret


def test_no_message_shows_a_node_id_a_public_key_or_the_session_id() -> None:
    one, other = initiator(), responder()

    shown = b"".join(run(one, other))

    assert one.session_id is not None
    for hidden in (ALICE.node_id, BOB.node_id, ALICE.public_key, BOB.public_key, one.session_id, b"alice's"):
        assert hidden not in shown


def test_nothing_secret_is_shown_by_repr_or_errors() -> None:
    node_seed, shared_seed = os.urandom(32), os.urandom(32)
    secrets = [node_seed, shared_seed, *Keyring.from_seeds(shared_seed).pre_shared_keys]

    def random(size: int) -> bytes:
        value = os.urandom(size)
        secrets.append(value)
        return value

    one = STTHandshake(node_seed=node_seed, shared_seed=shared_seed, is_initiator=True, random=random)
    other = STTHandshake(identity=BOB, keyring=Keyring.from_seeds(shared_seed), is_initiator=False, random=random)
    shown = [repr(one), repr(other)]

    def tamper(receive: Callable[[bytes], object], message: bytes) -> None:
        for position in (0, 1, 2, 20, len(message) - 1):
            with pytest.raises(HandshakeError) as caught:
                receive(flipped(message, position))
            shown.extend((str(caught.value), repr(caught.value), repr(caught.value.__cause__)))

    init = one.create_hello()
    tamper(other.process_hello, init)
    challenge = other.process_hello(init)
    tamper(one.process_challenge, challenge)
    response = one.process_challenge(challenge)
    tamper(other.verify_response, response)
    confirm = other.verify_response(response)
    shown += [repr(one), repr(other)]
    tamper(one.process_final, confirm)
    one.process_final(confirm)
    for side in (one, other):
        result = side.result
        assert result is not None
        secrets += [result.initiator_secret, result.responder_secret, result.exporter_secret]
        shown += [repr(side), repr(result), str(result)]

    text = "\n".join(shown)
    assert "waits for" in text
    for secret in secrets:
        assert secret.hex() not in text
        assert repr(secret)[2:-1] not in text


# Building


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"identity": ALICE},
        {"keyring": KEYRING},
        {"node_seed": bytes(32)},
        {"shared_seed": SHARED_SEED},
        {"identity": ALICE, "node_seed": bytes(32), "keyring": KEYRING},
        {"identity": ALICE, "keyring": KEYRING, "shared_seed": SHARED_SEED},
    ],
    ids=lambda given: "+".join(given) or "nothing",
)
def test_who_this_is_and_which_group_it_belongs_to_is_given_once(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="needs an identity or a node_seed"):
        STTHandshake(is_initiator=True, **given)


def test_a_node_seed_that_is_the_shared_seed_is_refused() -> None:
    with pytest.raises(ConfigError, match="same"):
        STTHandshake(node_seed=SHARED_SEED, shared_seed=SHARED_SEED, is_initiator=True)


@pytest.mark.parametrize("offers", [[], [OFFERS[3], OFFERS[4]], [SuiteOffer(number) for number in range(1, 257)]])
def test_no_suite_left_or_too_many_are_refused(offers: list[SuiteOffer]) -> None:
    with pytest.raises(ConfigError, match="suites to offer"):
        initiator(suites=offers)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_an_expected_node_id_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(ConfigError, match=f"not {size}"):
        initiator(expect=bytes(size))


def test_parameters_that_are_too_large_are_refused_at_once() -> None:
    names = {f"acme.{number:02}{'x' * 100}": (0x80 + number, True) for number in range(10)}

    with pytest.raises(LocalError, match="1024"):
        initiator(parameters=attrs.evolve(PARAMETERS, custom=names))


def test_the_nonce_of_something_that_is_no_init_is_refused() -> None:
    with pytest.raises(HandshakeError):
        init_nonce(bytes(INIT_SIZE - 1))


def test_messages_may_come_in_any_buffer() -> None:
    one, other = pair()
    init = one.create_hello()
    challenge = other.process_hello(memoryview(init))
    response = one.process_challenge(bytearray(challenge))
    one.process_final(memoryview(other.verify_response(bytearray(response))))

    assert agree(one, other)
