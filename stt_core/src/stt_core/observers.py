"""Plugins that watch: asks their observer hooks, and goes on without one that raises."""

from __future__ import annotations

import asyncio
import inspect
import logging
import traceback
from typing import TYPE_CHECKING, Any

from stt_core.foreign import ends_the_task
from stt_core.plugins import AUTHORIZE, PluginState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from stt_core.plugins import PluginInfo, Registries

_LOG = logging.getLogger("stt.node")


class Observers:
    """The observer hooks of a node's plugins.

    Args:
        registries: What the plugins offer.
        timeout: Seconds that an async one has to end.
        failed: Told of each plugin that is asked no more.
    """

    def __init__(self, registries: Registries, timeout: float, failed: Callable[[PluginInfo], None]) -> None:
        self._by_hook = registries.observers
        self._timeout = timeout
        self._failed = failed

    def ask(self, hook: str, **arguments: object) -> list[Coroutine[Any, Any, None]]:
        """Call the observers of a hook; return what is to be awaited of those that are async."""
        pending = []
        for info, observer in list(self._by_hook.get(hook, ())):
            try:
                result = observer(**arguments)
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  a plugin may fail in any way
                self._quarantine(info, hook, error)
            else:
                if inspect.isawaitable(result):
                    pending.append(self._await(info, hook, result))
        return pending

    async def _await(self, info: PluginInfo, hook: str, result: Awaitable[object]) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await result
        except BaseException as error:
            if ends_the_task(error):
                raise
            self._quarantine(info, hook, error)

    def _quarantine(self, info: PluginInfo, hook: str, error: BaseException) -> None:
        """Ask a plugin that raised in an observer hook no more; what it registered stays."""
        for kind, observers in self._by_hook.items():
            if kind != AUTHORIZE:  # else whom it would refuse would get in
                observers[:] = [each for each in observers if each[0] is not info]
        info.state = PluginState.FAILED
        info.reason = f"{hook}: {type(error).__name__}: {error}"
        info.traceback = "".join(traceback.format_exception(error))
        _LOG.error("plugin %s raised in %s and is asked no more", info.name, hook, exc_info=error)
        self._failed(info)
