from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from benchmarks.flood import insider_init, measure, noise, stranger_init, unasked_response, unknown_session

if TYPE_CHECKING:
    from collections.abc import Callable

COUNT = 128


@pytest.mark.parametrize("make", [noise, unknown_session, unasked_response, stranger_init])
def test_an_outsider_gets_no_answer_and_leaves_nothing(make: Callable[[int], bytes]) -> None:
    cpu, kept, answers = measure(make, COUNT)

    assert cpu > 0
    assert answers == 0
    assert kept < 100


def test_who_has_the_seed_is_answered() -> None:
    _, kept, answers = measure(insider_init, COUNT)

    assert answers == COUNT
    assert kept > 1000
