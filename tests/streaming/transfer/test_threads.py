"""Does a call in a thread keep the loop free, and its caller until it ends?"""

from __future__ import annotations

import asyncio
import threading

import pytest

from stt_streaming.transfer.threads import in_thread


@pytest.mark.asyncio
async def test_the_result_or_the_error_of_the_function_comes_back() -> None:
    assert await in_thread(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await in_thread(divmod, 1, 0)


@pytest.mark.asyncio
async def test_a_cancelled_caller_waits_for_the_end_of_the_function() -> None:
    began, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        may_end.wait(10)
        ended.set()

    task = asyncio.create_task(in_thread(work))
    await asyncio.to_thread(began.wait, 10)
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()

    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
