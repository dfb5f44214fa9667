"""What all commands share: seeds, output, progress, running; see :class:`stt_core.interfaces.CommandContext`."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import attrs
import click

from stt_cli.reach import advice_on_reach
from stt_cli.running import run_until_signal, status_of
from stt_cli.seed_files import load_seeds, own_node_seed
from stt_cli.text import printable
from stt_core.errors import ConfigError, STTError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from stt_core.interfaces import ExitStatus


@attrs.define
class Context:
    """The surroundings of one running command; the shared options are written into it while they are parsed."""

    seed_files: tuple[Path, ...] = ()
    node_seed_file: Path | None = None
    json: bool = False

    def shared_seeds(self) -> tuple[bytes, ...]:
        """Return the shared seeds of ``--seed``, else of the environment."""
        seeds = load_seeds(self.seed_files, "STT_SEED", os.environ, self.note)
        if not seeds:
            raise ConfigError(
                "no shared seed is given: with --seed FILE, or the environment variable STT_SEED or STT_SEED_FILE; "
                "'stt keygen --out FILE' makes one"
            )
        return seeds

    def node_seed(self) -> bytes:
        """Return the node seed of ``--node-seed``, else of the environment, else the one that is kept."""
        files = () if self.node_seed_file is None else (self.node_seed_file,)
        seeds = load_seeds(files, "STT_NODE_SEED", os.environ, self.note)
        if len(seeds) > 1:
            raise ConfigError("a node has one seed of its own, but several are given")
        return seeds[0] if seeds else own_node_seed(self.note)

    def report(self, event: str, text: str, /, **fields: str | float | Sequence[str]) -> None:
        """Write a result to standard output; when nobody reads that any more, end as if told to."""
        try:
            click.echo(json.dumps({"event": event, **fields}) if self.json else printable(text))
            sys.stdout.flush()
        except BrokenPipeError:
            # What is still buffered must not fail once more when the process ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            signal.raise_signal(signal.SIGTERM)

    def note(self, text: str) -> None:
        """Write a line to standard error."""
        click.echo(printable(text), err=True)

    def listening(self, url: str) -> None:
        """Tell of a URL that is listened on, and how other machines reach it."""
        self.report("listening", f"listening on {url}", url=url)
        if advice := advice_on_reach(url):
            self.note(advice)

    def progress(self, name: str, size: int) -> AbstractContextManager[Callable[[int], None]]:
        """Show a bar on a terminal."""
        if not sys.stderr.isatty():
            return contextlib.nullcontext(_show_nothing)
        # Imported only now: rich takes longer than the rest of the command line.
        bar: AbstractContextManager[Callable[[int], None]] = importlib.import_module("stt_cli.progress").progress_bar(
            printable(name), size
        )
        return bar

    def run(self, main: Coroutine[Any, Any, ExitStatus]) -> None:
        """Run a command to its end, and leave with its status unless that is DONE."""
        try:
            status = run_until_signal(main)
        except STTError as error:
            self.note(f"stt: {error}")
            status = status_of(error)
        if status:
            raise SystemExit(int(status))


class ErrorStreamHandler(logging.Handler):
    """Writes log records to what standard error is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, each of its lines made printable."""
        for line in self.format(record).splitlines():
            click.echo(printable(line), err=True)


def log_to_stderr(verbosity: int) -> None:
    """Let the log of all of STT go to standard error: warnings, with 1 what happens, with 2 every detail."""
    handler = ErrorStreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    levels = (logging.WARNING, logging.INFO, logging.DEBUG)
    logging.basicConfig(handlers=(handler,), level=levels[min(verbosity, 2)], force=True)


def _show_nothing(_: int) -> None:
    pass
