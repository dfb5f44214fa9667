"""What the contract kits share: rules that cannot be overridden, fixtures that have to be given, a time limit."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import threading
import traceback
import warnings
from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, Final, NoReturn, ParamSpec, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType
    from typing import Self

Kit = TypeVar("Kit", bound="Contract")
Fixtures = ParamSpec("Fixtures")

_RELAXATIONS: Final[dict[Callable[..., Any], str]] = {}
"""Each rule, and what an author does to be free of it, in words; empty where every plugin keeps it."""


class Contract:
    """The base of all kits: subclass one of them, give its fixtures, and run pytest.

    A rule is a test of a kit. It cannot be overridden: a plugin that promises less declares so, where it may.

    Raises:
        TypeError: A subclass overrides a rule.
    """

    patience: ClassVar[float] = 10.0
    """Seconds after which a rule fails because something still waits; more where a backend is slow."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for base in cls.__mro__[1:]:
            for name, rule in vars(base).items():
                if _is_rule(rule) and inspect.getattr_static(cls, name) is not rule:
                    relaxation = _RELAXATIONS[rule]
                    advice = f"{relaxation} instead" if relaxation else "no declaration frees a plugin of it"
                    raise TypeError(f"{cls.__name__}.{name} overrides a rule of {base.__name__}: {advice}")

    @classmethod
    def rules(cls) -> dict[str, str]:
        """Return the names of the rules, each with what frees a plugin of it: "declare durable=False", or ""."""
        return {name: _RELAXATIONS[rule] for base in cls.__mro__ for name, rule in vars(base).items() if _is_rule(rule)}

    def to_be_given(self, fixture: str, what: str) -> NoReturn:
        """Fail a test because its class lacks a fixture."""
        pytest.fail(f"{type(self).__name__} has to give the fixture `{fixture}`: {what}", pytrace=False)


def rule(
    *, relaxed_by: str = ""
) -> Callable[
    [Callable[Concatenate[Kit, Fixtures], Coroutine[Any, Any, None] | None]], Callable[Concatenate[Kit, Fixtures], None]
]:
    """Make a method of a kit a rule; a coroutine is run in an event loop of its own, within the kit's patience.

    Args:
        relaxed_by: What an author does to be free of the rule, such as "declare durable=False".
    """

    def mark(
        function: Callable[Concatenate[Kit, Fixtures], Coroutine[Any, Any, None] | None],
    ) -> Callable[Concatenate[Kit, Fixtures], None]:
        @functools.wraps(function)
        def run(kit: Kit, /, *arguments: Fixtures.args, **fixtures: Fixtures.kwargs) -> None:
            __tracebackhide__ = True
            outcome = function(kit, *arguments, **fixtures)
            if outcome is not None:
                still_waiting = asyncio.run(_limited(outcome, kit.patience))
                if still_waiting:
                    pytest.fail(f"something still waits after {kit.patience:g} s:\n{still_waiting}", pytrace=False)

        _RELAXATIONS[run] = relaxed_by
        return run

    return mark


def _is_rule(value: object) -> bool:
    return inspect.isfunction(value) and value in _RELAXATIONS


async def _limited(scenario: Coroutine[Any, Any, None], patience: float) -> str:
    """Return where a scenario waits when its time is over; "" when it has ended by itself."""
    __tracebackhide__ = True
    try:
        async with asyncio.timeout(patience) as limit:
            await scenario
    except TimeoutError as error:
        if not limit.expired():
            raise
        cancelled = error.__cause__ or error
        return "".join(traceback.format_tb(cancelled.__traceback__)[1:])
    return ""


def assert_same(found: object, wanted: object, text: str) -> None:
    """Fail with a text alone where large values differ: where CI is set, pytest draws up the difference for minutes."""
    __tracebackhide__ = True
    if found != wanted:
        pytest.fail(text)


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds; the rule's time limit ends the wait."""
    while not condition():  # noqa: ASYNC110  a plugin has no event to wait for
        await asyncio.sleep(0.002)


class Leftovers:
    """Finds what a plugin leaves behind: use it as an asynchronous context around all that is to be released."""

    def __init__(self) -> None:
        self._reports: list[str] = []

    async def __aenter__(self) -> Self:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()  # what was left before is not this plugin's
        self._threads = set(threading.enumerate())
        self._tasks = asyncio.all_tasks()
        self._warnings = warnings.catch_warnings(record=True)
        self._warned = self._warnings.__enter__()
        warnings.simplefilter("always", ResourceWarning)
        asyncio.get_running_loop().set_exception_handler(self._note)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        loop = asyncio.get_running_loop()
        if error is None:
            # What was cancelled may take a moment to end.
            until = loop.time() + 0.5
            while self._tasks_left() and loop.time() < until:  # noqa: ASYNC110  as above
                await asyncio.sleep(0.01)
        tasks = [repr(task) for task in self._tasks_left()]
        await loop.shutdown_default_executor()  # its threads are the loop's
        gc.collect()
        await asyncio.sleep(0)
        self._warnings.__exit__(None, None, None)
        loop.set_exception_handler(None)
        if error is not None:
            return
        assert not tasks, f"tasks go on: {tasks}"
        threads = [thread.name for thread in threading.enumerate() if thread not in self._threads]
        assert not threads, f"threads go on: {threads}"
        assert not self._reports, f"the event loop was told of {self._reports}"
        unclosed = [str(warned.message) for warned in self._warned if warned.category is ResourceWarning]
        assert not unclosed, f"not closed: {unclosed}"

    def _tasks_left(self) -> set[asyncio.Task[Any]]:
        return asyncio.all_tasks() - self._tasks

    def _note(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._reports.append(f"{context['message']}: {context.get('exception')!r}")
