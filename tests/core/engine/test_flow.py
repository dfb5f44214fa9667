from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stt_core.engine.flow import ReceiveCredit, SendCredit


def test_credit_is_what_is_left_below_the_limit() -> None:
    credit = SendCredit(100)

    credit.used += 30

    assert credit.left == 70


def test_a_limit_only_rises() -> None:
    credit = SendCredit(100)

    assert not credit.raise_to(99)
    assert not credit.raise_to(100)
    assert credit.limit == 100
    assert credit.raise_to(101)
    assert credit.left == 101


def test_the_peer_is_told_once_a_quarter_of_the_window_was_read() -> None:
    credit = ReceiveCredit(1000)

    credit.consume(249)
    assert not credit.update_due
    credit.consume(1)
    assert credit.update_due

    assert credit.renew() == 1250
    assert credit.limit == 1250
    assert not credit.update_due


@given(st.integers(1, 3))
def test_the_smallest_windows_are_renewed_by_the_byte_and_not_before(window: int) -> None:
    credit = ReceiveCredit(window)

    assert not credit.update_due
    credit.consume(1)
    assert credit.update_due
    credit.renew()
    assert not credit.update_due


@given(st.integers(1, 1 << 20), st.lists(st.integers(0, 1 << 18)))
def test_the_peer_is_never_further_ahead_of_the_reader_than_the_window(window: int, reads: list[int]) -> None:
    credit = ReceiveCredit(window)

    for size in reads:
        before = credit.limit
        credit.consume(min(size, credit.limit - credit.consumed))
        if credit.update_due:
            credit.renew()
        assert before <= credit.limit <= credit.consumed + window
        assert credit.limit > credit.consumed
