"""Is a chamber a dict, whatever is done to it in whatever order, on every backend?"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from stt_chamber import Chamber, Conflict, KeyMissing, Seed
from stt_chamber.backends.file import FileStorage
from stt_chamber.backends.sqlite import SQLiteStorage
from stt_chamber.rekey import rekey_data
from stt_chamber.upkeep import check, collect
from stt_core import load_plugins
from stt_core.defaults.memory_storage import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from stt_core.interfaces import StorageProvider

SEED = Seed(bytes(range(32)))

keys = st.sampled_from([f"{group}{number}" for group in ("a", "b/", "ä") for number in range(6)])
values = st.one_of(
    st.integers(-5, 5),
    st.lists(st.text(max_size=5), max_size=3),
    st.sampled_from([0, 2000, 2049, 130_000]).map(bytes),
)


class ChamberModel(RuleBasedStateMachine):
    """Two open chambers over one store, and the dict that both must be."""

    scheme = "memory"

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.model: dict[str, Any] = {}
        self.expires: dict[str, float] = {}
        self.revisions: dict[str, int] = {}
        self.now = 1_800_000_000.0
        self.turn = 0
        self.chambers: list[Chamber] = []

    def make_storage(self) -> StorageProvider:
        path = Path(self.folder.name) / "store"
        if self.scheme == "sqlite":
            return SQLiteStorage(f"sqlite://{path}")
        if self.scheme == "file":
            return FileStorage(f"file://{path}")
        return MemoryStorage()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(coroutine)

    @property
    def chamber(self) -> Chamber:
        self.turn += 1
        return self.chambers[self.turn % 2]

    @initialize()
    def make(self) -> None:
        self.storage = self.make_storage()
        first = self.run(Chamber.create(self.storage, SEED, clock=lambda: self.now))
        second = self.run(Chamber.open(self.storage, SEED, clock=lambda: self.now))
        self.chambers = [first, second]

    @rule(key=keys, value=values, ttl=st.sampled_from([None, None, 10.0]))
    def store(self, key: str, value: Any, ttl: float | None) -> None:
        self.revisions[key] = self.run(self.chamber.store(key, value, ttl=ttl))
        self.remember(key, value, ttl)

    @rule(key=keys, value=values)
    def write(self, key: str, value: Any) -> None:
        async def write() -> int:
            async with self.chamber.open_writer(key) as writer:
                await writer.write(repr(value).encode())
            return writer.revision

        self.revisions[key] = self.run(write())
        self.remember(key, repr(value).encode(), None)

    @rule(key=keys, value=values, is_right=st.booleans())
    def update(self, key: str, value: Any, *, is_right: bool) -> None:
        self.expire()
        revision = self.revisions[key] if key in self.model else 0
        if is_right:
            self.revisions[key] = self.run(self.chamber.update(key, value, revision))
            self.remember(key, value, None)
        else:
            with pytest.raises(Conflict):
                self.run(self.chamber.update(key, value, revision + 1))

    @rule(key=keys)
    def delete(self, key: str) -> None:
        self.expire()
        assert self.run(self.chamber.delete(key)) == (key in self.model)
        self.model.pop(key, None)

    @rule(puts=st.dictionaries(keys, values, max_size=8), deletes=st.lists(keys, max_size=3))
    def batch(self, puts: dict[str, Any], deletes: list[str]) -> None:
        async def change() -> list[int]:
            async with self.chamber.batch() as batch:
                for key, value in puts.items():
                    await batch.store(key, value)
                for key in deletes:
                    batch.delete(key)
            return batch.revisions

        revisions = self.run(change())
        for (key, value), revision in zip(puts.items(), revisions, strict=True):
            self.revisions[key] = revision
            self.remember(key, value, None)
        for key in deletes:
            self.model.pop(key, None)

    @rule(key=keys)
    def retrieve(self, key: str) -> None:
        self.expire()
        if key in self.model:
            assert self.run(self.chamber.retrieve(key)) == self.model[key]
        else:
            with pytest.raises(KeyMissing):
                self.run(self.chamber.retrieve(key))

    @rule(seconds=st.sampled_from([1.0, 5.0, 20.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def reopen(self) -> None:
        position = self.chamber.position
        for chamber in self.chambers:
            self.run(chamber.close())
        if self.storage.capabilities.durable:
            self.run(self.storage.close())
            self.storage = self.make_storage()
        self.chambers = [
            self.run(Chamber.open(self.storage, SEED, expected=position, clock=lambda: self.now)) for _ in range(2)
        ]

    @rule()
    def merge(self) -> None:
        self.run(self.chamber.ledger.merge())

    @rule()
    def sweep_and_collect(self) -> None:
        self.run(self.chamber.sweep())
        self.run(collect(self.chamber))

    @rule()
    def change_the_data_key(self) -> None:
        self.run(rekey_data(self.chamber))

    @rule()
    def check(self) -> None:
        assert self.run(check(self.chamber)).damaged == ()

    @invariant()
    def both_list_what_is_in_the_dict(self) -> None:
        if self.chambers:
            self.expire()
            for chamber in self.chambers:
                assert self.run(chamber.list()) == sorted(self.model, key=str.encode)

    def teardown(self) -> None:
        if self.chambers:
            for chamber in self.chambers:
                self.run(chamber.close())
            self.run(self.storage.close())
        self.runner.close()
        self.folder.cleanup()

    def remember(self, key: str, value: Any, ttl: float | None) -> None:
        self.model[key] = value
        self.expires.pop(key, None)
        if ttl is not None:
            self.expires[key] = self.now + ttl

    def expire(self) -> None:
        for key, time in self.expires.items():
            if time <= self.now:
                self.model.pop(key, None)


class SQLiteModel(ChamberModel):
    scheme = "sqlite"


class FileModel(ChamberModel):
    scheme = "file"


def s3_model(s3_server: Any) -> type[ChamberModel]:
    class S3Model(ChamberModel):
        def __init__(self) -> None:
            super().__init__()
            self.url = s3_server.new_bucket()

        def make_storage(self) -> StorageProvider:
            return load_plugins().store(self.url)(self.url)

    return S3Model


@pytest.mark.parametrize(("model", "examples"), [(ChamberModel, 40), (SQLiteModel, 12), (FileModel, 6)])
def test_a_chamber_is_a_dict(model: type[ChamberModel], examples: int) -> None:
    run_state_machine_as_test(model, settings=settings(deadline=None, max_examples=examples, stateful_step_count=30))


def test_a_chamber_in_a_bucket_is_a_dict(s3_server: Any) -> None:
    run_state_machine_as_test(
        s3_model(s3_server), settings=settings(deadline=None, max_examples=4, stateful_step_count=20)
    )
