"""Finds plugins, keeps the blocked ones out, checks what they offer, and explains what became of each.

What plugins register ends in plain tables (:class:`Registries`) when a node is built; no ``stt_register_*`` hook is
called after that.
"""

from __future__ import annotations

import asyncio
import difflib
import functools
import inspect
import itertools
import logging
import os
import traceback
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import attrs
import pluggy

from stt_core import hookspecs
from stt_core._version import __version__
from stt_core.defaults.suites import FIRST_PLUGIN_SUITE, SUITES
from stt_core.errors import ConfigError, PluginError
from stt_core.interfaces.frame import FrameType

if TYPE_CHECKING:
    import importlib.metadata
    from collections.abc import Callable, Iterable, Mapping
    from types import ModuleType

    from stt_core.interfaces.congestion import ControllerFactory
    from stt_core.interfaces.crypto import CryptoSuite
    from stt_core.interfaces.endpoint import EndpointHandler
    from stt_core.interfaces.storage import StorageFactory
    from stt_core.interfaces.transport import TransportFactory

_LOG = logging.getLogger("stt.plugins")

DISABLE_VARIABLE: Final = "STT_DISABLE_PLUGINS"
"""Environment variable: names of plugins not to use, separated by commas; ``*`` for all that are installed."""

CORE_NAME: Final = "core"
"""The name of the core's own plugin."""

AUTHORIZE: Final = "stt_authorize"
"""The hook without whose plugin nobody may be let in."""

T = TypeVar("T")


class PluginState(Enum):
    """What became of a plugin."""

    ACTIVE = "active"  #: it registered what it offers
    BLOCKED = "blocked"  #: it was not imported, as asked
    FAILED = "failed"  #: it failed to import or to register, and is left out


@attrs.define(eq=False)
class PluginInfo:
    """One plugin, and what became of it."""

    name: str
    source: str
    """The entry point's value, or the object's description."""
    distribution: str | None
    """The distribution that it came with, and its version; None for objects."""
    state: PluginState = PluginState.ACTIVE
    reason: str = ""
    """Why it is blocked or failed."""
    traceback: str = attrs.field(default="", repr=False)
    """Where it failed."""
    hooks: tuple[str, ...] = ()
    """The hooks that it implements."""
    offers: list[str] = attrs.field(factory=list)
    """What it registered, such as ``transport udp``."""


@attrs.frozen
class Command:
    """A sub-command of ``stt``."""

    name: str
    help_text: str
    target: str
    """``module:object``, imported when the command runs."""


@attrs.define(eq=False)
class Registries:
    """What the plugins of a node offer."""

    transports: dict[str, TransportFactory] = attrs.field(factory=dict)
    suites: dict[int, CryptoSuite] = attrs.field(factory=dict)
    storage: dict[str, StorageFactory] = attrs.field(factory=dict)
    controllers: dict[str, ControllerFactory] = attrs.field(factory=dict)
    frame_types: dict[str, FrameType] = attrs.field(factory=dict)
    endpoints: dict[str, EndpointHandler] = attrs.field(factory=dict)
    commands: dict[str, Command] = attrs.field(factory=dict)
    observers: dict[str, list[tuple[PluginInfo, Callable[..., Any]]]] = attrs.field(factory=dict)
    """By hook, ``stt_authorize`` and those that only learn: whose each is, and what to call by keyword."""
    plugins: list[PluginInfo] = attrs.field(factory=list)
    """All that were found, in the order in which they were loaded."""
    lost_guards: list[PluginInfo] = attrs.field(factory=list)
    """Those that failed and implement ``stt_authorize``, or seem to mean it: nobody knows whom they would refuse."""
    not_loaded: list[PluginInfo] = attrs.field(factory=list)
    """Those that failed before it could be seen what they implement."""

    def transport(self, url: str) -> TransportFactory:
        """Return the factory for a URL.

        Raises:
            ConfigError: No installed plugin serves its scheme; the text names those there are, and what may be missing.
        """
        return self._by_scheme(self.transports, "transport", url)

    def store(self, url: str) -> StorageFactory:
        """Return the factory for the URL of a store.

        Raises:
            ConfigError: As :meth:`transport`.
        """
        return self._by_scheme(self.storage, "storage", url)

    def _by_scheme(self, table: Mapping[str, T], noun: str, url: str) -> T:
        scheme, separator, _ = url.partition("://")
        scheme = scheme.lower()  # RFC 3986 section 3.1
        if not separator:
            raise ConfigError(f"{url!r} is no URL: it needs a scheme, as in udp://127.0.0.1:4433")
        if scheme in table:
            return table[scheme]
        text = f"no {noun} for {scheme}:// is installed (there are: {', '.join(sorted(table)) or 'none'})"
        hint = _DISTRIBUTIONS.get(scheme)
        text += f"; it comes with {hint}" if hint else "; its plugin may be missing"
        for info in self.plugins:
            if info.state is not PluginState.ACTIVE:
                text += f"; plugin {info.name} is {info.state.value}: {info.reason}"
        raise ConfigError(text)


_DISTRIBUTIONS: Final = {"udp": "stt-udp", "ws": "stt-websocket", "wss": "stt-websocket"}


def blocked_by_environment() -> frozenset[str]:
    """Return the names in ``STT_DISABLE_PLUGINS``."""
    return frozenset(name.strip() for name in os.environ.get(DISABLE_VARIABLE, "").split(",") if name.strip())


def load_plugins(
    *,
    extra: Iterable[object] = (),
    core: Iterable[ModuleType] = (),
    discover: bool = True,
    disabled: Iterable[str] = (),
    required: Iterable[str] = (),
) -> Registries:
    """Return what plugins offer; one that fails is left out, with its reason kept.

    Args:
        extra: Plugin objects or modules, registered behind those that are found.
        core: The core's own plugin, which cannot be blocked.
        discover: Whether to look for installed ones, by the entry-point group ``stt.v1``.
        disabled: Names of plugins not to use, besides those of ``STT_DISABLE_PLUGINS``; ``*`` for all that are
            installed. What is installed and disabled is not imported.
        required: Names whose absence or failure is an error.

    Raises:
        PluginError: A required plugin is missing, blocked or failed.
    """
    blocks = dict.fromkeys(disabled, "disabled by this program")
    blocks.update((name, f"disabled by {DISABLE_VARIABLE}") for name in blocked_by_environment())
    loader = _Loader()
    for module in core:
        info = PluginInfo(CORE_NAME, module.__name__, f"stt-core {__version__}")
        loader.take(info, functools.partial(_itself, module), blocked_by="")
    if discover:
        import importlib.metadata  # noqa: PLC0415  a sixth of the time that importing the core took, and only for this

        found = importlib.metadata.entry_points(group=hookspecs.ENTRY_POINT_GROUP)
        for entry_point in sorted(found, key=lambda point: (point.name, point.value)):
            info = PluginInfo(entry_point.name, entry_point.value, _distribution_of(entry_point))
            loader.take(info, entry_point.load, blocked_by=blocks.get(info.name, blocks.get("*", "")))
    for plugin in extra:
        name = getattr(plugin, "__name__", type(plugin).__name__)
        info = PluginInfo(loader.free_name(name), repr(plugin), None)
        loader.take(info, functools.partial(_itself, plugin), blocked_by=blocks.get(name, ""))
    _check_required(loader.registries, required)
    return loader.registries


class _Loader:
    """Fills registries, plugin by plugin."""

    def __init__(self) -> None:
        self.registries = Registries()
        self._names: dict[str, str] = {}
        self._owners: dict[tuple[str, Any], str] = {}

    def free_name(self, name: str) -> str:
        """Return a name that no plugin has yet: two objects of one class are two plugins, not one by mistake."""
        numbered = (f"{name}-{number}" for number in itertools.count(2))
        return name if name not in self._names else next(each for each in numbered if each not in self._names)

    def take(self, info: PluginInfo, load: Callable[[], object], *, blocked_by: str) -> None:
        """Load a plugin and take over what it offers: all of it, or nothing when any of it fails."""
        self.registries.plugins.append(info)
        if blocked_by:
            info.state, info.reason = PluginState.BLOCKED, blocked_by
            return
        plugin: object = None
        try:
            self._check_name(info)
            plugin = load()
            implementations = _implementations(info.name, plugin)
            info.hooks = tuple(sorted(implementations))
            claims = self._claims(info, implementations)
        except (Exception, SystemExit, asyncio.CancelledError) as error:  # noqa: BLE001  others go on
            info.state = PluginState.FAILED
            info.reason = _reason(error)
            info.traceback = "".join(traceback.format_exception(error))
            _LOG.warning("plugin %s is left out: %s", info.name, info.reason)
            if plugin is None:
                self.registries.not_loaded.append(info)
            elif AUTHORIZE in info.hooks or _means_to_authorize(plugin):
                self.registries.lost_guards.append(info)
            return
        for (table, key), value in claims.items():
            getattr(self.registries, table)[key] = value
            self._owners[table, key] = info.name
            info.offers.append(f"{_KINDS[table].noun} {_label(key)}")
        for hook in info.hooks:
            if hook not in _TABLES:
                observers = self.registries.observers.setdefault(hook, [])
                observers += [(info, _by_name(implementation)) for implementation in implementations[hook]]

    def _check_name(self, info: PluginInfo) -> None:
        other = self._names.setdefault(info.name, info.source)
        if info.source is not other:
            raise PluginError(f"two plugins have the name {info.name}: {other} and {info.source}")

    def _claims(self, info: PluginInfo, implementations: Mapping[str, list[pluggy.HookImpl]]) -> dict[Any, Any]:
        claims: dict[tuple[str, Any], Any] = {}
        for hook, table in _TABLES.items():
            for implementation in implementations.get(hook, ()):
                claim = functools.partial(self._claim, info, hook, table, claims)
                result = implementation.function(register=claim)
                if result is not None:
                    if inspect.iscoroutine(result):
                        result.close()  # else Python warns that it was never awaited
                    raise PluginError(f"plugin {info.name}: {_written(hook)} is a plain function that returns None")
        return claims

    def _claim(
        self, info: PluginInfo, hook: str, table: str, claims: dict[Any, Any], /, *arguments: Any, **named: Any
    ) -> None:
        """Be the ``register`` that a plugin is given."""
        kind = _KINDS[table]
        try:
            arguments = inspect.signature(kind.check).bind(*arguments, **named).args
        except TypeError as error:
            expected = inspect.signature(kind.check)
            raise PluginError(
                f"plugin {info.name}: register{expected}, in {hook}, was called wrongly: {error}"
            ) from error
        try:
            key, value = kind.check(*arguments)
        except PluginError as error:
            raise PluginError(f"plugin {info.name}: {hook}: {error}") from error
        owner = info.name if (table, key) in claims else self._owners.get((table, key))
        if owner is not None:
            claim = f"{kind.noun} {_label(key)}"
            raise PluginError(f"{claim} is claimed by plugin {owner} and by plugin {info.name}, in {_written(hook)}")
        claims[table, key] = value


# What a plugin implements

_HOOKS: Final = {
    name: function for name, function in vars(hookspecs).items() if name.startswith("stt_") and callable(function)
}


def _implementations(name: str, plugin: object) -> dict[str, list[pluggy.HookImpl]]:
    """Return what a plugin implements, by hook.

    Raises:
        PluginError: It implements a hook that there is not, one in another way, or none.
    """
    if inspect.isclass(plugin):
        raise PluginError(f"plugin {name} is a class, but has to be an object or a module")
    # A manager for each plugin: one that fails is left out alone, and whose fault it is needs no guessing.
    manager = pluggy.PluginManager(hookspecs.PROJECT_NAME)
    manager.add_hookspecs(hookspecs)
    _check_names(name, plugin)
    try:
        manager.register(plugin, name=name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginError(f"plugin {name}: {_fault(error)}") from error
    implemented = {caller.name: caller.get_hookimpls() for caller in manager.get_hookcallers(plugin) or ()}
    if not implemented:
        raise PluginError(f"plugin {name} implements no hook; the hooks are {', '.join(sorted(_HOOKS))}")
    for hook, implementations in implemented.items():
        for each in implementations:
            if hook in _TABLES and "register" not in each.argnames:
                raise PluginError(f"plugin {name}: {hook} does not take what {_written(hook)} gives")
            if each.wrapper or each.hookwrapper:
                raise PluginError(f"plugin {name}: {hook} is a wrapper, which STT has no use for")
    return implemented


def _check_names(name: str, plugin: object) -> None:
    """Refuse functions that look like hooks and are none, by the signature of the hook that is meant."""
    for attribute in dir(plugin):
        if not attribute.startswith("stt_"):
            continue
        function = getattr(plugin, attribute, None)
        if not inspect.isroutine(function):
            continue
        marks = getattr(function, f"{hookspecs.PROJECT_NAME}_impl", None)
        if attribute in _HOOKS and marks is None:
            raise PluginError(f"plugin {name}: {_written(attribute)} is not marked with @hookimpl")
        if attribute not in _HOOKS and not (marks is not None and marks["optionalhook"]):
            near = _nearest(attribute)
            meant = f"is {_written(near)} meant?" if near else f"the hooks are {', '.join(sorted(_HOOKS))}"
            raise PluginError(f"plugin {name}: there is no hook {attribute}; {meant}")


def _means_to_authorize(plugin: object) -> bool:
    """Return whether a plugin that failed has a function that decides who is let in, or one that is misspelt."""
    try:
        hooks = [_hook_of(plugin, attribute) for attribute in dir(plugin)]
    except Exception:  # noqa: BLE001  somebody else's code; what it would do, nobody can tell
        return True
    return any(_nearest(hook) == AUTHORIZE for hook in hooks if hook)


def _hook_of(plugin: object, attribute: str) -> str:
    """Return the hook that an attribute of a plugin seems to be for, by its mark or by its name; "" if for none."""
    function = getattr(plugin, attribute, None)
    marks = getattr(function, f"{hookspecs.PROJECT_NAME}_impl", None) if inspect.isroutine(function) else None
    hook: str = (marks and marks["specname"]) or attribute
    return hook if hook.startswith("stt_") else ""


def _nearest(attribute: str) -> str:
    """Return the hook that a name is most like; "" if it is like none."""
    return next(iter(difflib.get_close_matches(attribute, _HOOKS, n=1)), "")


def _fault(error: pluggy.PluginValidationError) -> str:
    text = " ".join(str(error).split())
    named = [hook for hook in _HOOKS if f"hook {hook!r}" in text]
    return f"it does not fit {_written(named[0])}: {text}" if named else text


def _written(hook: str) -> str:
    """Return a hook as it is written in ``hookspecs.py``."""
    parameters = inspect.signature(_HOOKS[hook]).parameters.values()
    return f"{hook}({', '.join(f'{each.name}: {each.annotation}' for each in parameters)})"


def _by_name(implementation: pluggy.HookImpl) -> Callable[..., Any]:
    """Return an implementation to be called by keyword; it may take fewer arguments than the hook has."""

    def call(**arguments: object) -> Any:
        return implementation.function(*(arguments[name] for name in implementation.argnames))

    return call


# What a plugin may register: each check returns the key and the value for its table


def _check_transport(scheme: str, factory: TransportFactory) -> tuple[str, TransportFactory]:
    return _require_text("scheme", scheme), _require_callable("a transport factory", factory)


def _check_storage(scheme: str, factory: StorageFactory) -> tuple[str, StorageFactory]:
    return _require_text("scheme", scheme), _require_callable("a storage factory", factory)


def _check_controller(name: str, factory: ControllerFactory) -> tuple[str, ControllerFactory]:
    return _require_text("name", name), _require_callable("a controller factory", factory)


def _check_endpoint(name: str, handler: EndpointHandler) -> tuple[str, EndpointHandler]:
    return _require_text("name", name), _require_callable("an endpoint's handler", handler)


def _check_suite(number: int, suite: CryptoSuite) -> tuple[int, CryptoSuite]:
    if number not in range(FIRST_PLUGIN_SUITE, 1 << 16) and SUITES.get(number) is not suite:
        raise PluginError(
            f"the number of a plugin's suite is from {FIRST_PLUGIN_SUITE:#06x} to 0xffff, unlike {number!r}"
        )
    if suite.authenticated is not True:
        raise PluginError(f"suite {number:#06x} ({suite.name}) is not authenticated: it cannot seal frames")
    return number, suite


def _check_frame_type(frame_type: FrameType) -> tuple[str, FrameType]:
    if not isinstance(frame_type, FrameType):
        raise PluginError(f"a frame type is registered as a FrameType, not as {frame_type!r}")
    return frame_type.name, frame_type


def _check_command(name: str, help_text: str, target: str) -> tuple[str, Command]:
    module, _, function = _require_text("target", target).partition(":")
    if not module or not function:
        raise PluginError(f"the target of a command is written module:object, unlike {target!r}")
    return _require_text("name", name), Command(name, help_text, target)


def _require_text(what: str, value: str) -> str:
    if not isinstance(value, str) or not value:
        raise PluginError(f"a {what} is text, unlike {value!r}")
    return value


def _require_callable(what: str, value: T) -> T:
    if not callable(value):
        raise PluginError(f"{what} is called, which {value!r} cannot be")
    return value


class _Kind(NamedTuple):
    hook: str
    noun: str
    check: Callable[..., tuple[Any, Any]]


_KINDS: Final = {
    "transports": _Kind("stt_register_transports", "transport", _check_transport),
    "suites": _Kind("stt_register_crypto_suites", "suite", _check_suite),
    "storage": _Kind("stt_register_storage", "storage", _check_storage),
    "controllers": _Kind("stt_register_congestion_controllers", "controller", _check_controller),
    "frame_types": _Kind("stt_register_frame_types", "frame type", _check_frame_type),
    "endpoints": _Kind("stt_register_endpoints", "endpoint", _check_endpoint),
    "commands": _Kind("stt_register_commands", "command", _check_command),
}
"""By the table of :class:`Registries` that it fills."""

_TABLES: Final = {kind.hook: table for table, kind in _KINDS.items()}


# The rest


def _itself(plugin: object) -> object:
    return plugin


def _label(key: object) -> str:
    return f"{key:#06x}" if isinstance(key, int) else str(key)


def _reason(error: BaseException) -> str:
    if isinstance(error, PluginError):
        return str(error)
    # Not str(error): that of somebody else's exception may fail as well.
    return "".join(traceback.format_exception_only(error)).strip()


def _distribution_of(entry_point: importlib.metadata.EntryPoint) -> str | None:
    distribution = entry_point.dist
    return f"{distribution.name} {distribution.version}" if distribution is not None else None


def _check_required(registries: Registries, required: Iterable[str]) -> None:
    found = {info.name: info for info in reversed(registries.plugins)}  # the first of a name counts
    for name in required:
        info = found.get(name)
        if info is None:
            raise PluginError(f"plugin {name} is required, but not installed (there are: {', '.join(sorted(found))})")
        if info.state is not PluginState.ACTIVE:
            error = PluginError(f"plugin {name} is required, but {info.state.value}: {info.reason}")
            if info.traceback:
                error.add_note(info.traceback)
            raise error
