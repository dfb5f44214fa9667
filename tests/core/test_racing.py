"""Does the first attempt that succeeds win, and does nothing stay of the others?"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from stt_core.racing import race

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.asyncio

NEVER = 3600.0


class Attempt:
    """Begins, waits for the test to let it go on, and then succeeds or fails."""

    def __init__(self, outcome: str | BaseException, *, waits: bool = True) -> None:
        self.begun = asyncio.Event()
        self.may_end = asyncio.Event()
        self.cancelled = asyncio.Event()
        self._outcome = outcome
        if not waits:
            self.may_end.set()

    async def __call__(self) -> str:
        self.begun.set()
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self._outcome


class Stubborn(Attempt):
    """Succeeds although it is cancelled."""

    async def __call__(self) -> str:
        try:
            return await super().__call__()
        except asyncio.CancelledError:
            return "too late"


def fail(result: str) -> None:
    raise AssertionError(f"{result} was discarded")


async def test_the_first_success_wins_and_the_others_are_cancelled() -> None:
    slow, fast = Attempt("slow"), Attempt("fast", waits=False)

    assert await race([slow, fast], 0.0, fail) == "fast"

    assert slow.cancelled.is_set()


async def test_a_lone_attempt_is_enough() -> None:
    assert await race([Attempt("alone", waits=False)], NEVER, fail) == "alone"


async def test_the_next_attempt_begins_as_soon_as_one_has_failed() -> None:
    attempts = [Attempt(ValueError(), waits=False), Attempt("second", waits=False), Attempt("third")]

    assert await race(attempts, NEVER, fail) == "second"

    assert not attempts[2].begun.is_set()


async def test_an_attempt_that_was_slow_may_still_win() -> None:
    first, second = Attempt("first"), Attempt(ValueError())
    racing = asyncio.create_task(race([first, second], 0.0, fail))

    await second.begun.wait()
    second.may_end.set()
    first.may_end.set()

    assert await racing == "first"


async def test_when_all_fail_their_errors_come_in_the_order_of_the_attempts() -> None:
    first, second = ValueError("first"), KeyError("second")
    attempts = [Attempt(first), Attempt(second)]
    racing = asyncio.create_task(race(attempts, 0.0, fail))

    await attempts[1].begun.wait()
    attempts[1].may_end.set()
    await asyncio.sleep(0)
    attempts[0].may_end.set()

    with pytest.raises(ExceptionGroup) as caught:
        await racing
    assert caught.value.exceptions == (first, second)


async def test_an_attempt_that_cancels_itself_has_failed() -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        await race([Attempt(asyncio.CancelledError(), waits=False)], NEVER, fail)

    assert isinstance(caught.value.exceptions[0], asyncio.CancelledError)


async def test_of_two_that_succeed_at_once_the_first_wins_and_the_other_is_discarded() -> None:
    attempts = [Attempt("first"), Attempt("second")]
    discarded: list[str] = []
    racing = asyncio.create_task(race(attempts, 0.0, discarded.append))

    await attempts[1].begun.wait()
    for attempt in attempts:
        attempt.may_end.set()

    assert await racing == "first"
    await asyncio.sleep(0)
    assert discarded == ["second"]


async def test_what_succeeds_in_spite_of_being_cancelled_is_discarded() -> None:
    discarded: list[str] = []

    assert await race([Stubborn("slow"), Attempt("fast", waits=False)], 0.0, discarded.append) == "fast"

    await asyncio.sleep(0)
    assert discarded == ["too late"]


@pytest.mark.parametrize("make", [Attempt, Stubborn])
async def test_a_cancelled_race_cancels_its_attempts(make: Callable[[str], Attempt]) -> None:
    attempts = [make("first"), make("second")]
    discarded: list[str] = []
    racing = asyncio.create_task(race(attempts, 0.0, discarded.append))

    await attempts[1].begun.wait()
    racing.cancel()
    await asyncio.wait([racing])
    await asyncio.sleep(0)

    assert racing.cancelled()
    await asyncio.sleep(0)
    assert all(attempt.cancelled.is_set() for attempt in attempts)
    assert discarded == ([] if make is Attempt else ["too late", "too late"])


async def test_a_race_that_is_cancelled_once_it_was_won_discards_the_winner() -> None:
    class Slow(Attempt):
        async def __call__(self) -> str:
            try:
                return await super().__call__()
            finally:
                await asyncio.sleep(0)

    winner, loser = Attempt("winner"), Slow("loser")
    discarded: list[str] = []
    racing = asyncio.create_task(race([loser, winner], 0.0, discarded.append))
    await winner.begun.wait()

    winner.may_end.set()
    await loser.cancelled.wait()
    racing.cancel()
    await asyncio.wait([racing])
    await asyncio.sleep(0)

    assert racing.cancelled()
    assert discarded == ["winner"]
