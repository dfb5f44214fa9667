"""Log lines that strangers cause: at a limited rate, so that a flood of them does not fill a disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

LINES_PER_SECOND: Final = 10


class LimitedLog:
    """Passes on so many lines a second, and says how many it kept back.

    Args:
        logger: Where the lines go.
        clock: Returns seconds.
    """

    def __init__(self, logger: logging.Logger, clock: Callable[[], float]) -> None:
        self._logger = logger
        self._clock = clock
        self._second = 0
        self._lines = 0

    def info(self, message: str, *arguments: object) -> None:
        """Log a line, or only count it."""
        second = int(self._clock())
        if second != self._second:
            kept_back = self._lines - LINES_PER_SECOND
            self._second, self._lines = second, 0
            if kept_back > 0:
                self._logger.info("%d more such lines were kept back", kept_back)
        self._lines += 1
        if self._lines <= LINES_PER_SECOND:
            self._logger.info(message, *arguments)
