"""Is the format what its page says: read by a reader that is written from the page alone?"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import random
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA3_256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from hypothesis import given
from hypothesis import strategies as st

from stt_chamber import Chamber, DamagedError, Passphrase, Seed
from stt_chamber.entries import Entry, Reference, decode_run, encode_run
from stt_chamber.header import Header
from stt_chamber.index import Directory
from stt_chamber.keys import Keyring
from stt_chamber.objects import CHUNK_SIZE, ObjectStore, padded_size
from stt_chamber.root import Root
from stt_chamber.upkeep import check
from stt_core import deserialize_stt, seed_from_passphrase
from stt_core.defaults.memory_storage import MemoryStorage
from stt_core.errors import CryptoError

if TYPE_CHECKING:
    from collections.abc import Callable

    from stt_core.interfaces import StorageProvider

VECTORS = json.loads(
    Path(__file__).resolve().parents[1].joinpath("vectors", "chamber.json").read_text(encoding="utf-8")
)
STORE = {bytes.fromhex(key): bytes.fromhex(value) for key, value in VECTORS["store"].items()}
SEED = bytes.fromhex(VECTORS["seed"])


class Reader:
    """Reads a chamber as docs/reference/chamber.md says, with nothing of the package but the serialization."""

    def __init__(self, store: dict[bytes, bytes], name: str, kind: int, secret: Callable[[bytes], bytes]) -> None:
        self.store = store
        self.namespace = hashlib.sha3_256(b"stt1 chamber\x00" + name.encode()).digest()[:16]
        header = store[self.namespace + b"h"]
        assert header[:5] == b"STTC\x01"
        self.chamber_id = header[5:21]
        count = header[29]
        front = header[: 30 + 65 * count]
        for number in range(count):
            recipient = front[30 + 65 * number :][:65]
            if recipient[0] == kind:
                salt, wrapped = recipient[1:17], recipient[17:]
                extracted = hmac.digest(salt, secret(salt), "sha3_256")
                wrapping_key = self.expand(extracted, b"stt1 chamber wrap" + self.chamber_id)
                master_key = AESGCM(wrapping_key).decrypt(bytes(12), wrapped, b"STTC\x01")
        salt, sealed = header[len(front) :][:16], header[len(front) + 16 :]
        key_of_keys = self.expand(master_key, b"stt1 chamber keys" + salt)
        keys = AESGCM(key_of_keys).decrypt(bytes(12), sealed, front)
        self.data_keys = dict(struct.iter_unpack(">I32s", keys))

    @staticmethod
    def expand(key: bytes, info: bytes) -> bytes:
        return HKDFExpand(SHA3_256(), 32, info).derive(key)

    def values(self) -> dict[str, Any]:
        root = self.store[self.namespace + b"r"]
        version, epoch, salt = struct.unpack(">BI16s", root[:21])
        assert version == 1
        key = self.expand(self.data_keys[epoch], b"stt1 chamber root" + self.chamber_id + salt)
        content = self.cut(AESGCM(key).decrypt(bytes(12), root[21:], root[:21]))
        listed = self.cut(content)
        *_, directories, segments = deserialize_stt(listed)
        entries: dict[bytes, bytes] = {}
        for first_key, page in deserialize_stt(self.object(directories[0])):
            run = self.run(self.object(page))
            assert min(run) == first_key
            entries |= run
        for segment in segments:
            entries |= self.run(self.object(segment))
        entries |= self.run(content[4 + len(listed) :])
        return {key.decode(): self.value(entry) for key, entry in entries.items() if entry}

    def value(self, entry: bytes) -> Any:
        _, kind, _, _, content = deserialize_stt(entry)
        data = content if isinstance(content, bytes) else self.object(content)
        return deserialize_stt(data) if kind else data

    def object(self, reference: list[Any]) -> bytes:
        object_id, epoch, size = reference
        key = self.expand(self.data_keys[epoch], b"stt1 chamber object" + self.chamber_id + object_id)
        name_key = self.expand(self.data_keys[epoch], b"stt1 chamber names" + self.chamber_id)
        padded = b""
        index = 0
        final = False
        while not final:
            digest = hmac.digest(name_key, object_id + index.to_bytes(8, "big"), "sha3_256")
            sealed = self.store[self.namespace + b"o" + digest[:16]]
            final = len(padded) + len(sealed) - 16 == self.padded_size(size)
            nonce = bytes(3) + index.to_bytes(8, "big") + bytes([final])
            padded += AESGCM(key).decrypt(nonce, sealed, None)
            index += 1
        assert set(padded[size:]) <= {0}
        return padded[:size]

    @staticmethod
    def padded_size(size: int) -> int:
        if size <= 256:
            return 256
        exponent = size.bit_length() - 1
        step = 1 << (exponent - exponent.bit_length())
        return (size + step - 1) // step * step

    @staticmethod
    def cut(data: bytes) -> bytes:
        return data[4 : 4 + int.from_bytes(data[:4], "big")]

    @staticmethod
    def run(data: bytes) -> dict[bytes, bytes]:
        entries = {}
        while data:
            key_size = int.from_bytes(data[:2], "big")
            key, data = data[2 : 2 + key_size], data[2 + key_size :]
            size = int.from_bytes(data[:4], "big")
            entries[key], data = data[4 : 4 + size], data[4 + size :]
        return entries


def expected_values() -> dict[str, Any]:
    """Return what make_store stores."""
    values: dict[str, Any] = {f"page {number}": bytes([number]) * 1900 for number in range(10)}
    values |= {f"segment {number}": bytes([number]) * 1900 for number in range(10)}
    del values["page 3"]
    values |= {"tail": {"a": [1, None]}, "chunked": bytes(range(256)) * 280}
    return values


async def make_store() -> MemoryStorage:
    storage = MemoryStorage()
    secrets: list[Seed | Passphrase] = [Seed(SEED), Passphrase(VECTORS["passphrase"])]
    async with await Chamber.create(storage, secrets, name=VECTORS["name"], clock=lambda: 1_800_000_000) as chamber:
        for group in ("page", "segment"):
            async with chamber.batch() as batch:
                for number in range(10):
                    await batch.store(f"{group} {number}", bytes([number]) * 1900)
            if group == "page":
                await chamber.ledger.merge()
                await chamber.ledger.wait_idle()
        await chamber.delete("page 3")
        await chamber.store("tail", {"a": [1, None]})
        await chamber.store("chunked", bytes(range(256)) * 280)
    return storage


def test_a_reader_written_from_the_page_alone_finds_every_value() -> None:
    by_seed = Reader(STORE, VECTORS["name"], 1, lambda _: SEED)
    by_passphrase = Reader(STORE, VECTORS["name"], 2, lambda salt: seed_from_passphrase(VECTORS["passphrase"], salt))

    assert by_seed.values() == expected_values()
    assert by_passphrase.values() == expected_values()


@pytest.mark.parametrize("vector", VECTORS["malformed_headers"], ids=lambda vector: vector["why"])
def test_a_header_that_is_none_is_refused(vector: dict[str, str]) -> None:
    with pytest.raises(DamagedError):
        Header.decode(bytes.fromhex(vector["bytes"])).unlock([Seed(SEED)])


@pytest.mark.asyncio
async def test_the_chamber_of_the_vectors_opens() -> None:
    storage = MemoryStorage()
    await storage.commit(STORE)

    async with await Chamber.open(storage, Seed(SEED), name=VECTORS["name"]) as chamber:
        assert {key: await chamber.retrieve(key) for key in await chamber.list()} == expected_values()
        assert (await check(chamber)).damaged == ()


@pytest.mark.asyncio
async def test_what_is_written_today_has_the_format_of_the_vectors() -> None:
    storage = await make_store()
    store = {}
    async for key in storage.list_keys():
        value = await storage.retrieve(key)
        assert value is not None
        store[key] = value

    assert Reader(store, VECTORS["name"], 1, lambda _: SEED).values() == expected_values()
    # Names are random, sizes are not: each record is as long as it was.
    assert sorted(map(len, store.values())) == sorted(map(len, STORE.values()))


@given(st.integers(0, 1 << 45))
def test_padding_costs_at_most_an_eighth_and_hides_the_rest(size: int) -> None:
    padded = padded_size(size)

    assert padded >= size
    assert padded <= max(size * 1.125, 256)
    assert padded == padded_size(padded)


def test_padded_sizes_are_those_of_the_vectors() -> None:
    for size, padded in VECTORS["padded_sizes"]:
        assert padded_size(size) == padded


@pytest.mark.asyncio
async def test_chunks_cannot_be_swapped_cut_off_or_added(memory: StorageProvider) -> None:
    objects = ObjectStore(memory, b"o", Keyring(bytes(16), {1: bytes(32)}))
    data = random.Random(4).randbytes(3 * CHUNK_SIZE)
    whole = await objects.write(data)
    other = await objects.write(data[::-1])
    names, others = list(objects.names(whole)), list(objects.names(other))
    sealed = {name: await memory.retrieve(name) for name in (*names, *others)}

    for changes in (
        {names[0]: names[1], names[1]: names[0]},  # swapped within the object
        {names[1]: others[1]},  # with another object's
        {names[0]: names[2]},  # the last one first
        {names[2]: names[1]},  # the last one replaced by one that is not the last
    ):
        for name, source in changes.items():
            piece = sealed[source]
            assert piece is not None
            await memory.store(name, piece)
        with pytest.raises(DamagedError):
            await objects.read(whole)
        for name in names:
            piece = sealed[name]
            assert piece is not None
            await memory.store(name, piece)
    assert await objects.read(whole) == data
    for size in (len(data) - CHUNK_SIZE, len(data) + CHUNK_SIZE):
        with pytest.raises(DamagedError):
            await objects.read(Reference(whole.object_id, 1, size))
        with pytest.raises(DamagedError):
            await objects.check(Reference(whole.object_id, 1, size))


# Any bytes


@given(st.binary(max_size=300))
def test_any_bytes_raise_one_error(data: bytes) -> None:
    keyring = Keyring(bytes(16), {1: bytes(32)})
    with pytest.raises((DamagedError, CryptoError)):
        Header.decode(data).unlock([Seed(SEED)])
    with pytest.raises(DamagedError):
        Root.open(data, keyring)
    with pytest.raises(DamagedError):
        Entry.decode(data)
    for decode in (decode_run, Directory.decode):
        with contextlib.suppress(DamagedError):
            decode(data)


@given(st.dictionaries(st.binary(min_size=1, max_size=40), st.binary(max_size=60)))
def test_decoding_a_run_inverts_encoding(run: dict[bytes, bytes]) -> None:
    assert decode_run(encode_run(run)) == run


@given(
    st.builds(
        Entry,
        st.integers(0, 2**60),
        st.sampled_from([0, 1]),
        st.integers(0, 2**45),
        st.none() | st.integers(0, 2**45),
        st.binary(max_size=100)
        | st.builds(Reference, st.binary(min_size=16, max_size=16), st.integers(1, 99), st.integers(0, 2**50)),
    )
)
def test_decoding_an_entry_inverts_encoding(entry: Entry) -> None:
    assert Entry.decode(entry.encode()) == entry
