"""What a plugin's sub-command of ``stt`` is given: seeds, output, progress and an event loop that signals end.

A plugin offers a sub-command with the hook ``stt_register_commands``: a ``click.Command``. The tool adds the shared
options (``--seed``, ``--node-seed``, ``--json``, ``-v``) to it and sets ``obj`` of its click context to a
:class:`CommandContext`. So the plugin neither imports the tool nor declares these options, and all commands behave
alike.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from contextlib import AbstractContextManager


class ExitStatus(IntEnum):
    """What a command's end tells the shell. SIGINT gives 130 and SIGTERM 143, as shells have it."""

    DONE = 0  #: all that was asked for was done
    FAILED = 1  #: something of it was not
    USAGE = 2  #: options, seeds or URLs that cannot work
    REFUSED = 3  #: the peer refused, is another than expected, or kept silent until the time-out
    UNREACHABLE = 4  #: the host says that nobody listens there


class CommandContext(Protocol):
    """The surroundings of one running sub-command."""

    @property
    def json(self) -> bool:
        """Whether standard output carries one JSON object a line, for programs."""

    def shared_seeds(self) -> tuple[bytes, ...]:
        """Return the seeds shared with peers, from ``--seed``, ``STT_SEED`` or ``STT_SEED_FILE``; the first initiates.

        Raises:
            ConfigError: There is none, or it cannot be used.
        """

    def node_seed(self) -> bytes:
        """Return the seed of this node's identity; made and kept under the user's data folder at first use.

        Raises:
            ConfigError: It cannot be used, or not be kept.
        """

    def report(self, event: str, text: str, /, **fields: str | float | Sequence[str]) -> None:
        """Write a result to standard output: ``text``, or a JSON object of ``event`` and ``fields``.

        Characters that could steer a terminal are made visible, so that names and reasons of peers may be in the text.
        """

    def note(self, text: str) -> None:
        """Write a line for people to standard error, cleaned as in :meth:`report`."""

    def listening(self, url: str) -> None:
        """Report that a URL is listened on, as the event ``listening``, and note how other machines reach it."""

    def progress(self, name: str, size: int) -> AbstractContextManager[Callable[[int], None]]:
        """Show how far ``size`` bytes are, while the context lasts; the function is told of each step's bytes.

        Shows nothing where standard error is no terminal.
        """

    def run(self, main: Coroutine[Any, Any, ExitStatus]) -> None:
        """Run a coroutine in a new event loop and end the command with its status.

        SIGINT and SIGTERM cancel the coroutine, which so has the time to tell its peers. An
        :class:`~stt_core.errors.STTError` that it raises is told on standard error and sets the status.

        Raises:
            SystemExit: The status is not ``DONE``.
        """
