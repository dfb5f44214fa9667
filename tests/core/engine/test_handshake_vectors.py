"""Do the handshake vectors follow from the words of the specification, and does the handshake keep to them?

The first half is section 3 of the wire format written down once more, from hashes and ciphers alone: no line of it is
shared with the handshake.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from stt_core.config import STTConfig
from stt_core.defaults.suites import SUITES
from stt_core.engine.half_open import HalfOpenTable
from stt_core.engine.handshake import HandshakeResult, STTHandshake, SuiteOffer
from stt_core.identity import Identity
from stt_core.seeds import Keyring
from stt_core.wire.frame import split_frames
from stt_core.wire.messages import decode_parameters

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "vectors" / "handshake.json").read_text(encoding="utf-8")
)["transcripts"]
BY_SUITE = pytest.mark.parametrize("vector", VECTORS, ids=[f"suite {vector['suite']}" for vector in VECTORS])


def mac(key: bytes, data: bytes) -> bytes:
    return hmac.new(key, data, hashlib.sha3_256).digest()


def expand(key: bytes, info: bytes, size: int) -> bytes:
    first = mac(key, info + b"\x01")
    return (first + mac(key, first + info + b"\x02"))[:size]


def sha3(data: bytes) -> bytes:
    return hashlib.sha3_256(data).digest()


def xor(*terms: bytes) -> bytes:
    total = bytes(32)
    for term in terms:
        total = bytes(a ^ b for a, b in zip(total, term, strict=True))
    return total


class Reference:
    """One run of the handshake, seen from above: it knows the secrets of both sides."""

    def __init__(self, shared_seed: bytes) -> None:
        self.ck = mac(b"stt1 seed", shared_seed)
        self.h = sha3(b"STT/1")
        self.states: list[dict[str, str]] = []

    def mix_hash(self, data: bytes) -> None:
        self.h = sha3(self.h + len(data).to_bytes(4, "big") + data)

    def mix_key(self, secret: bytes) -> None:
        self.ck = mac(self.ck, secret)

    def seal(self, label: bytes, plaintext: bytes) -> bytes:
        material = expand(self.ck, b"stt1 " + label + self.h, 44)
        sealed = ChaCha20Poly1305(material[:32]).encrypt(material[32:], plaintext, self.h)
        self.mix_hash(sealed)
        self.states.append({"after": label.decode(), "chaining_key": self.ck.hex(), "hash": self.h.hex()})
        return sealed


def run(vector: dict[str, Any]) -> dict[str, Any]:
    """Return what the vector's inputs lead to."""
    given = {name: bytes.fromhex(value) for name, value in vector["inputs"].items()}
    suite = vector["suite"]
    hybrid = suite in {1, 2}
    signers = {
        side: Ed25519PrivateKey.from_private_bytes(
            expand(mac(b"stt1 node", given[f"node_seed_{side}"]), b"stt1 identity", 32)
        )
        for side in "ir"
    }
    public = {side: signer.public_key().public_bytes_raw() for side, signer in signers.items()}
    x25519 = {side: X25519PrivateKey.from_private_bytes(given[f"x25519_{side}"]) for side in "ir"}
    x25519_public = {side: key.public_key().public_bytes_raw() for side, key in x25519.items()}
    state = Reference(given["shared_seed"])

    offers = b"".join(number.to_bytes(2, "big") for number in vector["offered"])
    init = bytes((1, len(vector["offered"]))) + offers + given["nonce_i"] + x25519_public["i"]
    state.mix_hash(init)
    init += state.seal(b"init", bytes(1200 - 24 - 4 - 4 - len(init) - 16))

    challenge = b"\x01" + suite.to_bytes(2, "big") + given["nonce_r"] + x25519_public["r"]
    if hybrid:
        ml_kem = MLKEM768PrivateKey.from_seed_bytes(given["ml_kem_seed"])
        challenge += ml_kem.public_key().public_bytes_raw()
    state.mix_hash(challenge)
    state.mix_key(x25519["i"].exchange(X25519PublicKey.from_public_bytes(x25519_public["r"])))
    signature = signers["r"].sign(b"stt1 responder" + state.h)
    challenge += state.seal(
        b"challenge", given["nonce_i"] + given["nonce_r"] + public["r"] + signature + given["parameters_r"]
    )

    response = given["ml_kem_ciphertext"]
    state.mix_hash(response)
    if hybrid:
        secret = ml_kem.decapsulate(response)
        state.mix_key(secret)
    signature = signers["i"].sign(b"stt1 initiator" + state.h)
    mask = expand(state.ck, b"stt1 session id" + state.h, 32)
    session_id = xor(given["nonce_i"], given["nonce_r"], sha3(public["i"]), sha3(public["r"]), mask)[:8]
    response += state.seal(b"response", session_id + public["i"] + signature + given["parameters_i"])

    secrets = {
        name: expand(state.ck, b"stt1 " + label + state.h, 32).hex()
        for name, label in (
            ("initiator_secret", b"traffic i"),
            ("responder_secret", b"traffic r"),
            ("exporter_secret", b"exporter"),
        )
    }
    state.mix_hash(b"")
    confirm = state.seal(b"confirm", session_id)
    return {
        "messages": {
            "INIT": init.hex(),
            "CHALLENGE": challenge.hex(),
            "RESPONSE": response.hex(),
            "CONFIRM": confirm.hex(),
        },
        "states": state.states,
        "session_id": session_id.hex(),
        "node_id_i": sha3(public["i"]).hex(),
        "node_id_r": sha3(public["r"]).hex(),
        **secrets,
    }


# The handshake


class FixedRandom:
    """Hands out the vector's random inputs in the order in which one side draws them."""

    def __init__(self, *values: str) -> None:
        self.left = [bytes.fromhex(value) for value in values]

    def __call__(self, size: int) -> bytes:
        value = self.left.pop(0)
        assert len(value) == size
        return value


def side(vector: dict[str, Any], name: str) -> STTHandshake:
    given = vector["inputs"]
    drawn = [given[f"nonce_{name}"], given[f"x25519_{name}"]]
    if name == "r" and given["ml_kem_seed"]:
        drawn.append(given["ml_kem_seed"])
    return STTHandshake(
        is_initiator=name == "i",
        node_seed=bytes.fromhex(given[f"node_seed_{name}"]),
        shared_seed=bytes.fromhex(given["shared_seed"]),
        parameters=decode_parameters(bytes.fromhex(given[f"parameters_{name}"])),
        suites=[SuiteOffer(number, SUITES[number].post_quantum) for number in vector["offered"]],
        require_post_quantum=False,
        random=FixedRandom(*drawn),
    )


def check_result(result: HandshakeResult | None, vector: dict[str, Any], peer: str) -> None:
    assert result is not None
    assert result.session_id.hex() == vector["session_id"]
    assert result.peer_node_id.hex() == vector[f"node_id_{peer}"]
    assert result.peer_parameters == decode_parameters(bytes.fromhex(vector["inputs"][f"parameters_{peer}"]))
    assert result.suite == vector["suite"]
    assert result.initiator_secret.hex() == vector["initiator_secret"]
    assert result.responder_secret.hex() == vector["responder_secret"]
    assert result.exporter_secret.hex() == vector["exporter_secret"]


def test_there_is_a_transcript_of_each_built_in_suite() -> None:
    assert sorted(vector["suite"] for vector in VECTORS) == sorted(SUITES)


@BY_SUITE
def test_vectors_follow_from_the_specification(vector: dict[str, Any]) -> None:
    expected = {
        name: value for name, value in vector.items() if name not in {"suite", "offered", "inputs", "datagrams"}
    }

    assert run(vector) == expected


@BY_SUITE
def test_a_responder_with_fixed_randomness_sends_the_bytes_of_the_vector(vector: dict[str, Any]) -> None:
    messages = {name: bytes.fromhex(message) for name, message in vector["messages"].items()}
    responder = side(vector, "r")

    assert responder.process_hello(messages["INIT"]) == messages["CHALLENGE"]
    assert responder.verify_response(messages["RESPONSE"]) == messages["CONFIRM"]
    check_result(responder.result, vector, "i")


@BY_SUITE
def test_an_initiator_with_fixed_randomness_sends_the_bytes_of_the_vector(vector: dict[str, Any]) -> None:
    messages = {name: bytes.fromhex(message) for name, message in vector["messages"].items()}
    initiator = side(vector, "i")

    assert initiator.create_hello() == messages["INIT"]
    response = initiator.process_challenge(messages["CHALLENGE"])

    assert len(response) == len(messages["RESPONSE"])
    if vector["suite"] in {3, 4}:  # encapsulation draws randomness of its own, which cannot be fixed
        assert response == messages["RESPONSE"]
        initiator.process_final(messages["CONFIRM"])
        check_result(initiator.result, vector, "r")


@BY_SUITE
def test_datagrams_of_the_vector_hold_its_messages(vector: dict[str, Any]) -> None:
    label = vector["inputs"]["nonce_i"][:16]
    for kind, (name, message) in enumerate(vector["messages"].items(), start=1):
        frames = [split_frames(bytes.fromhex(datagram)) for datagram in vector["datagrams"][name]]

        assert all(len(datagram) <= 2 * 1200 for datagram in vector["datagrams"][name])
        assert {(frame.type, frame.session_id.hex()) for (frame,) in frames} == {(kind, label)}
        assert b"".join(frame.payload[4:] for (frame,) in frames).hex() == message


@BY_SUITE
def test_a_table_with_fixed_randomness_sends_the_datagrams_of_the_vector(vector: dict[str, Any]) -> None:
    given = {name: bytes.fromhex(value) for name, value in vector["inputs"].items()}
    drawn = [name for name in ("nonce_r", "x25519_r", "ml_kem_seed") if given[name]]
    table = HalfOpenTable(
        identity=Identity.from_seed(given["node_seed_r"]),
        keyring=Keyring.from_seeds(given["shared_seed"]),
        config=STTConfig(require_post_quantum=False),
        suites={number: SUITES[number] for number in vector["offered"]},
        parameters=decode_parameters(given["parameters_r"]),
        is_session_id_taken=lambda _: False,
        random=FixedRandom(*(given[name].hex() for name in drawn)),
    )
    sent = []
    for name in ("INIT", "RESPONSE"):
        for datagram in vector["datagrams"][name]:
            table.receive_frame(split_frames(bytes.fromhex(datagram))[0], "path", now=0.0)
        table.accept(bytes.fromhex(vector["session_id"]))
        sent.append([datagram.hex() for _, datagram in table.datagrams_to_send()])

    assert sent == [vector["datagrams"]["CHALLENGE"], vector["datagrams"]["CONFIRM"]]
