from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from stt_websocket.logs import LINES_PER_SECOND, LimitedLog

if TYPE_CHECKING:
    import pytest


def test_a_flood_of_lines_is_cut_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    now = 5.0
    log = LimitedLog(logging.getLogger("flood"), lambda: now)
    with caplog.at_level(logging.INFO):
        for number in range(100):
            log.info("line %d", number)
        now = 6.1
        log.info("later")

    lines = [record.getMessage() for record in caplog.records]
    assert lines[:LINES_PER_SECOND] == [f"line {number}" for number in range(LINES_PER_SECOND)]
    assert lines[LINES_PER_SECOND:] == ["90 more such lines were kept back", "later"]
