"""Who is let in: the lists of the node, its limits, and the plugins that decide."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import Counter
from typing import TYPE_CHECKING, Final

from stt_core.errors import ConfigError
from stt_core.foreign import ends_the_task
from stt_core.plugins import AUTHORIZE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stt_core.config import STTConfig
    from stt_core.interfaces.endpoint import PeerOffer
    from stt_core.plugins import Registries

_LOG = logging.getLogger("stt.node")

_NODE_ID_SIZE: Final = 32


class Admission:
    """Decides on peers that have proven a shared seed and who they are. Every answer is a reason to refuse, or "".

    Args:
        registries: What the plugins offer.
        config: The settings.
        allow: Node ids that are let in; None for all.
        deny: Node ids that are not.

    Raises:
        ConfigError: A node id is none.
    """

    def __init__(
        self, registries: Registries, config: STTConfig, *, allow: Iterable[bytes] | None, deny: Iterable[bytes]
    ) -> None:
        self._allow = _node_ids("allow", allow) if allow is not None else None
        self._deny = _node_ids("deny", deny)
        self._config = config
        self._guards = registries.observers.get(AUTHORIZE, [])
        self._lost_guards = registries.lost_guards
        self._not_loaded = registries.not_loaded
        self._sessions = 0
        self._sessions_by_peer: Counter[bytes] = Counter()

    def warn(self) -> None:
        """Log what the operator of a node that accepts sessions has to know of its plugins."""
        for info in self._lost_guards:
            _LOG.error("nobody is let in: plugin %s decides who is, and failed: %s", info.name, info.reason)
        if self._allow is None and not self._lost_guards:
            for info in self._not_loaded:
                _LOG.error(
                    "everybody who has a shared seed is let in, although plugin %s could not be loaded; if it is to "
                    "decide who is, name it in require_plugins",
                    info.name,
                )

    # Sessions come and go

    def opened(self, peer: bytes) -> None:
        """Count a session with a peer, whoever began it."""
        self._sessions += 1
        self._sessions_by_peer[peer] += 1

    def closed(self, peer: bytes) -> None:
        """Count one less."""
        self._sessions -= 1
        self._sessions_by_peer[peer] -= 1
        if not self._sessions_by_peer[peer]:
            del self._sessions_by_peer[peer]

    # Answers

    def refusal(self, peer: bytes) -> str:
        """Return why a node id is refused without asking any plugin."""
        if peer in self._deny or (self._allow is not None and peer not in self._allow):
            return "this node is not allowed in"
        if self._lost_guards:
            return f"plugin {self._lost_guards[0].name} decides who is let in, and failed"
        return ""

    @property
    def asks_plugins(self) -> bool:
        """Whether :meth:`ask` has anybody to ask."""
        return bool(self._guards)

    async def ask(self, peer: PeerOffer) -> str:
        """Return why a plugin refuses a peer: all of them have to let it in."""
        for info, allows in self._guards:
            try:
                async with asyncio.timeout(self._config.authorize_timeout):
                    answer = allows(peer=peer)
                    is_allowed = (await answer) if inspect.isawaitable(answer) else answer
            except BaseException as error:
                if ends_the_task(error):
                    raise
                # Somebody else's code: one that cannot tell must not let anybody in.
                _LOG.error("plugin %s failed to authorize a peer, which is refused", info.name, exc_info=error)
                is_allowed = False
            if is_allowed is not True:
                return f"refused by plugin {info.name}"
        return ""

    def limit(self, peer: bytes) -> str:
        """Return which limit another session with a peer would break."""
        if self._sessions >= self._config.max_sessions:
            return "too many sessions"
        if self._sessions_by_peer[peer] >= self._config.max_sessions_per_peer:
            return "too many sessions of this node"
        return ""


def _node_ids(name: str, ids: Iterable[bytes]) -> frozenset[bytes]:
    known = frozenset(ids)
    for each in known:
        if not isinstance(each, bytes) or len(each) != _NODE_ID_SIZE:
            raise ConfigError(f"{name} holds node ids, bytes of 32 each, not {each!r}")
    return known
