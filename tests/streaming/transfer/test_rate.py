"""Is a rate kept, by all who share it together?"""

from __future__ import annotations

import asyncio

import pytest

from stt_streaming.transfer.rate import BURSTS_PER_SECOND, RateLimit

pytestmark = pytest.mark.asyncio


async def test_bytes_go_at_the_rate_whoever_sends_them() -> None:
    clock = asyncio.get_running_loop().time
    limit = RateLimit(10_000)
    began_at = clock()

    # 2,000 bytes in all, of which the first burst goes at once.
    await asyncio.gather(*(limit.take(500) for _ in range(4)))

    assert clock() - began_at >= 0.14


async def test_what_was_not_used_is_not_made_up_for() -> None:
    clock = asyncio.get_running_loop().time
    limit = RateLimit(10_000)
    await limit.take(100)
    await asyncio.sleep(0.05)
    began_at = clock()

    for _ in range(3):
        await limit.take(500)

    assert clock() - began_at >= 0.09


async def test_a_burst_is_a_part_of_a_second_and_never_nothing() -> None:
    assert RateLimit(1000).burst_size == 1000 // BURSTS_PER_SECOND
    assert RateLimit(1).burst_size == 1
