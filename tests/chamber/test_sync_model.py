"""Do two replicas become the same dict, whatever is done to them, and wherever a synchronisation breaks off?"""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from stt_chamber import Chamber, Conflict, Seed
from stt_chamber.rekey import rekey_data
from stt_chamber.sync import sync
from stt_chamber.upkeep import check, collect
from stt_core.defaults.memory_storage import MemoryStorage
from stt_core.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence

    from stt_core.interfaces import Version

SEED = Seed(bytes(range(32)))
CONFLICT = re.compile(r" \(conflict [0-9a-f]{16}\)$")

keys = st.sampled_from([f"{group}{number}" for group in ("a", "b/", "ä") for number in range(4)])
values = st.one_of(st.integers(-3, 3), st.sampled_from([0, 2049, 130_000]).map(bytes), st.binary(min_size=3000))
sides = st.sampled_from([0, 1])


class UnreliableStorage(MemoryStorage):
    """A store whose changes fail when they are told to: the first of them is made, though nobody learns of it."""

    def __init__(self) -> None:
        super().__init__()
        self.changes_left: int | None = None

    async def store(self, key: bytes, value: bytes) -> None:
        self.count()
        await super().store(key, value)
        self.lose_the_answer()

    async def store_if(self, key: bytes, value: bytes, expected_version: Version) -> Version | None:
        self.count()
        version = await super().store_if(key, value, expected_version)
        self.lose_the_answer()
        return version

    async def commit(self, puts: Mapping[bytes, bytes], deletes: Sequence[bytes] = ()) -> None:
        self.count()
        await super().commit(puts, deletes)
        self.lose_the_answer()

    def count(self) -> None:
        if self.changes_left is not None:
            self.changes_left -= 1
            if self.changes_left < 0:
                raise StorageError("as it was told")

    def lose_the_answer(self) -> None:
        if self.changes_left == 0:
            raise StorageError("as it was told, after the change")


@attrs.define
class Side:
    """What one replica must be, and what was changed there since both were last the same."""

    values: dict[str, Any] = attrs.field(factory=dict)
    changed: set[str] = attrs.field(factory=set)


def merged(first: Side, second: Side, found: dict[str, Any]) -> dict[str, Any]:
    """Return what both must have; of two values that both have changed, the one that was found."""
    result = {}
    for key in {*first.values, *second.values}:
        has = [key in side.values for side in (first, second)]
        if all(has):
            own, other = first.values[key], second.values[key]
            if own == other or key not in second.changed:
                result[key] = own
            elif key not in first.changed:
                result[key] = other
            else:
                assert found[key] in (own, other)
                lost = other if found[key] == own else own
                copies = [each for each in found if CONFLICT.sub("", each) == key != each and found[each] == lost]
                assert copies, f"{lost!r}, which was under {key}, is lost"
                result[key] = found[key]
                result.update((copy, lost) for copy in copies)
        elif key in (first if has[0] else second).changed:
            result[key] = (first if has[0] else second).values[key]
    return result


class SyncModel(RuleBasedStateMachine):
    """Two stores, a chamber that stays open on each, and what both must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.now = 1_800_000_000.0
        self.sides = (Side(), Side())
        self.stores = (UnreliableStorage(), UnreliableStorage())
        self.chambers: list[Chamber] = []
        self.rekeyed: int | None = None

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(coroutine)

    @initialize(first=values)
    def make(self, first: Any) -> None:
        async def make() -> None:
            async with await Chamber.create(self.stores[0], SEED, clock=self.clock) as chamber:
                await chamber.store("first", first)
            await sync(*self.stores, SEED, clock=self.clock)
            self.chambers = [await Chamber.open(store, SEED, clock=self.clock) for store in self.stores]

        self.run(make())
        for side in self.sides:
            side.values["first"] = first

    @rule(side=sides, key=keys, value=values)
    def store(self, side: int, key: str, value: Any) -> None:
        self.run(self.chambers[side].store(key, value))
        self.sides[side].values[key] = value
        self.sides[side].changed.add(key)

    @rule(side=sides, puts=st.dictionaries(keys, values, min_size=4))
    def store_many(self, side: int, puts: dict[str, Any]) -> None:
        for key, value in puts.items():
            self.store(side, key, value)

    @rule(side=sides, key=keys)
    def delete(self, side: int, key: str) -> None:
        self.run(self.chambers[side].delete(key))
        self.sides[side].values.pop(key, None)
        self.sides[side].changed.add(key)

    @rule(seconds=st.sampled_from([0.001, 5.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(side=sides)
    def merge_the_index(self, side: int) -> None:
        self.run(self.chambers[side].ledger.merge())

    @rule(side=sides)
    def collect(self, side: int) -> None:
        with contextlib.suppress(Conflict):  # a synchronisation that was broken off counts as under way for a time
            self.run(collect(self.chambers[side]))

    @rule(side=sides)
    def change_the_data_key(self, side: int) -> None:
        if self.rekeyed in (None, side):
            self.rekeyed = side
            self.run(rekey_data(self.chambers[side]))

    @rule(turned=st.booleans())
    def synchronise(self, turned: bool) -> None:  # noqa: FBT001  what hypothesis draws
        self.run(self.sync(turned=turned))
        self.take_over(must_be_done=True)

    @rule(turned=st.booleans(), side=sides, changes=st.integers(1, 12))
    def break_a_synchronisation_off(self, turned: bool, side: int, changes: int) -> None:  # noqa: FBT001  as above
        self.stores[side].changes_left = changes
        try:
            self.run(self.sync(turned=turned))
            is_done = True
        except StorageError:
            is_done = False
        self.stores[side].changes_left = None
        self.take_over(must_be_done=is_done)

    @invariant()
    def both_are_whole_and_as_they_must_be(self) -> None:
        for side, chamber in zip(self.sides, self.chambers, strict=False):
            assert self.run(contents(chamber)) == side.values

    def teardown(self) -> None:
        for chamber in self.chambers:
            assert self.run(check(chamber)).damaged == ()
            self.run(chamber.close())
        self.runner.close()

    def clock(self) -> float:
        return self.now

    async def sync(self, *, turned: bool) -> None:
        order = (1, 0) if turned else (0, 1)
        first, second = (self.stores[number] for number in order)
        positions = (self.chambers[order[0]].position, self.chambers[order[1]].position)
        await sync(first, second, SEED, expected=positions, clock=self.clock)

    def take_over(self, *, must_be_done: bool) -> None:
        """Look whether each replica is as it was, or merged."""
        found = [self.run(contents(chamber)) for chamber in self.chambers]
        is_old = [got == side.values for got, side in zip(found, self.sides, strict=True)]
        if must_be_done or self.chambers[0].position == self.chambers[1].position:
            assert found[0] == found[1] == merged(*self.sides, found[0])
            self.sides = (Side(found[0]), Side(found[1]))
            if must_be_done:
                self.rekeyed = None
        elif not all(is_old):
            done = is_old.index(False)
            before = self.sides[done].values
            assert found[done] == merged(*self.sides, found[done])
            taken = {key for key in {*before, *found[done]} if before.get(key) != found[done].get(key)}
            self.sides[done].values = found[done]
            self.sides[done].changed |= taken


async def contents(chamber: Chamber) -> dict[str, Any]:
    return {key: await chamber.retrieve(key) for key in await chamber.list()}


@pytest.mark.parametrize("examples", [60])
def test_replicas_become_the_same_and_lose_nothing(examples: int) -> None:
    run_state_machine_as_test(
        SyncModel, settings=settings(deadline=None, max_examples=examples, stateful_step_count=25)
    )
