"""A progress bar on standard error: size, rate, time left; gone when done."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress_bar(name: str, size: int) -> Iterator[Callable[[int], None]]:
    """Show a bar while the context lasts; the function is told of each step's bytes."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        # A file without bytes is not endless.
        task = progress.add_task(name, total=max(size, 1))
        yield lambda step: progress.advance(task, step)
