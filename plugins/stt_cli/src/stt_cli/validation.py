"""Whether a plugin would work, as far as that can be told without a network: what ``stt plugins validate`` checks."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import inspect
import os
import sys
import tomllib
import traceback
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import attrs
import click
from cryptography.exceptions import InvalidTag

from stt_cli.command_cache import DISABLE_VARIABLE, ENTRY_POINT_GROUP
from stt_core import PluginState, STTNode, generate_seed, load_plugins
from stt_core.errors import ConfigError, PluginError
from stt_core.interfaces import CongestionController, StorageCapabilities, TransportCapabilities
from stt_core.interfaces.crypto import KEY_SIZE, NONCE_SIZE, TAG_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from stt_core import Registries
    from stt_core.interfaces import CryptoSuite

_HANDSHAKE_SIZE: Final = 1200  # bytes of a datagram of the handshake
_MAX_MESSAGE_SIZE: Final = 64 * 1024 * 1024  # bytes
_MAX_METADATA_SIZE: Final = 256  # bytes
_MAX_ENDPOINT_NAME_SIZE: Final = 256  # bytes
_SCHEME_CHARACTERS: Final = frozenset(
    "abcdefghijklmnopqrstuvwxyz0123456789+-."
)  # RFC 3986 section 3.1, in small letters

T = TypeVar("T")


class CheckState(Enum):
    """How a check ended."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"  #: it can only be told by running the plugin: its kit does


@attrs.frozen
class Check:
    """One check of one plugin."""

    plugin: str
    name: str
    state: CheckState
    detail: str = ""
    """What is wrong, or why it was skipped."""
    traceback: str = attrs.field(default="", repr=False)


def validate(target: str) -> list[Check]:
    """Load a plugin alone and check it.

    Args:
        target: The name of an installed plugin's entry point, the folder of a distribution with a ``pyproject.toml``,
            or the file of a plugin module.
    """
    found = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP, name=target)
    path = Path(target)
    is_path = os.sep in target or path.suffix == ".py" or target in {".", ".."} or (not found and path.exists())
    if not is_path:
        if not found:
            installed = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP).names
            detail = f"no entry point of {ENTRY_POINT_GROUP} has this name (there are: {', '.join(sorted(installed))})"
            return [Check(target, "is found", CheckState.FAILED, detail)]
        return [check for point in sorted(found) for check in _check_plugin(point.name, point.load)]
    try:
        if path.is_dir():
            return _check_distribution(path.resolve())
    except ConfigError as error:
        return [Check(target, "is found", CheckState.FAILED, str(error))]
    if not path.is_file():
        return [Check(target, "is found", CheckState.FAILED, "no such file or folder")]
    with _importable(path.resolve().parent):
        return list(_check_plugin(path.stem, lambda: _load_file(path)))


def _check_distribution(folder: Path) -> list[Check]:
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        points = dict(project["entry-points"][ENTRY_POINT_GROUP])
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder / 'pyproject.toml'} cannot be read: {error}") from error
    except (KeyError, TypeError):
        points = {}
    if not points:
        raise ConfigError(f'pyproject.toml has no entry point in [project.entry-points."{ENTRY_POINT_GROUP}"]')
    source = folder / "src"
    checks: list[Check] = []
    with _importable(source if source.is_dir() else folder):
        for name, value in sorted(points.items()):
            point = importlib.metadata.EntryPoint(name, str(value), ENTRY_POINT_GROUP)
            checks += _check_plugin(name, point.load)
    return checks


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder))


def _load_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is no Python module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _check_plugin(name: str, load: Callable[[], object]) -> Iterator[Check]:
    disabled = {each.strip() for each in os.environ.get(DISABLE_VARIABLE, "").split(",")}
    if disabled & {name, "*"}:
        yield Check(name, "imports", CheckState.FAILED, f"it is disabled by {DISABLE_VARIABLE} or --disable-plugin")
        return
    try:
        plugin = load()
    except (Exception, SystemExit) as error:  # noqa: BLE001  a plugin may fail in any way
        yield _failed(name, "imports", error)
        return
    yield Check(name, "imports", CheckState.OK)
    registries = load_plugins(extra=[plugin], discover=False)
    (info,) = registries.plugins
    registers = "registers, with hooks that there are and signatures that fit"
    if info.state is not PluginState.ACTIVE:
        yield Check(name, registers, CheckState.FAILED, info.reason, info.traceback)
        return
    yield Check(name, registers, CheckState.OK, ", ".join(info.hooks))
    yield _run(name, "claims nothing that the core has", lambda: _check_claims(plugin))
    for label, check in _checks_of_offers(registries):
        yield _run(name, label, check)


def _check_claims(plugin: object) -> None:
    node = STTNode(
        node_seed=generate_seed(), shared_seed=generate_seed(), plugins=[plugin], disable_plugins=["*"]
    )  # never started: it opens nothing
    for info in node.plugins:
        _require(info.state is not PluginState.FAILED, info.reason)


def _checks_of_offers(registries: Registries) -> Iterator[tuple[str, Callable[[], None]]]:
    def bind(check: Callable[..., None], *arguments: object) -> Callable[[], None]:
        return lambda: check(*arguments)

    for scheme, transport in registries.transports.items():
        yield f"transport {scheme}: its scheme", bind(_check_scheme, scheme)
        yield f"transport {scheme}: its capabilities", bind(_check_transport, transport)
    for scheme, storage in registries.storage.items():
        yield f"storage {scheme}: its scheme", bind(_check_scheme, scheme)
        yield f"storage {scheme}: its capabilities", bind(_check_storage, storage)
    for number, suite in registries.suites.items():
        yield f"suite {number:#06x}: its declarations", bind(_check_suite, suite)
        yield f"suite {number:#06x}: it opens what it sealed, and nothing else", bind(_check_sealing, suite)
    for name, controller in registries.controllers.items():
        yield f"controller {name}: its name and first window", bind(_check_controller, controller)
    for name, frame_type in registries.frame_types.items():
        yield f"frame type {name}: its name", bind(_check_owned_name, name)
        yield f"frame type {name}: its handler is async", bind(_check_handler, frame_type.handler)
    for name, handler in registries.endpoints.items():
        yield f"endpoint {name}: its name", bind(_check_owned_name, name)
        yield f"endpoint {name}: its handler is async", bind(_check_handler, handler)
    for name, command in registries.commands.items():
        yield f"command {name}: its target", bind(_check_command, command.target)


# What the kits of stt_core.testing say that can be seen without running anything


def _check_scheme(scheme: str) -> None:
    _require(
        scheme[0].isalpha() and set(scheme) <= _SCHEME_CHARACTERS,
        f"{scheme!r} is not a URL scheme in small letters (RFC 3986 section 3.1)",
    )


def _check_transport(factory: object) -> None:
    capabilities = _declared(factory, TransportCapabilities)
    initial = capabilities.initial_message_size or capabilities.max_message_size
    _require(
        _HANDSHAKE_SIZE <= initial <= capabilities.max_message_size <= _MAX_MESSAGE_SIZE,
        f"messages have {initial} bytes at first and {capabilities.max_message_size} at most, "
        f"but a handshake needs {_HANDSHAKE_SIZE}, and {_MAX_MESSAGE_SIZE} are the most",
    )


def _check_storage(factory: object) -> None:
    _declared(factory, StorageCapabilities)


def _declared(factory: object, kind: type[T]) -> T:
    capabilities = getattr(factory, "capabilities", None)
    if capabilities is None and not inspect.isclass(factory):
        raise _Skipped("the factory is no class, so that only the kit sees them")
    if not isinstance(capabilities, kind):
        raise _Broken(f"`capabilities` is {capabilities!r}")
    return capabilities


def _check_suite(suite: CryptoSuite) -> None:
    _require(isinstance(suite.name, str) and suite.name.strip() != "" and suite.name.isprintable(), "it has no name")
    _require(suite.post_quantum is True, "`post_quantum` is not True: the hybrid key exchange is the core's")
    for limit in ("max_frames", "max_forgeries"):
        value = getattr(suite, limit, None)
        _require(isinstance(value, int) and value > 0, f"`{limit}` is {value!r}, not a positive number")
    _require(
        isinstance(suite.metadata_size, int) and 0 <= suite.metadata_size <= _MAX_METADATA_SIZE,
        f"`metadata_size` is {suite.metadata_size!r}, not from 0 to {_MAX_METADATA_SIZE}",
    )


def _check_sealing(suite: CryptoSuite) -> None:
    cipher = suite.cipher(bytes(range(KEY_SIZE)))
    nonce, header = bytes(NONCE_SIZE), bytes(24)
    for plaintext in (b"", b"plaintext", bytes(1428)):
        sealed = cipher.encrypt(nonce, plaintext, header)
        size = len(plaintext) + TAG_SIZE + suite.metadata_size
        _require(len(sealed) == size, f"{len(plaintext)} bytes become {len(sealed)}, not {size}")
        _require(cipher.decrypt(nonce, sealed, header) == plaintext, "it does not open what it sealed")
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        _require(not _opens(cipher, nonce, bytes(changed), header), f"it opens although byte {position} is changed")
    _require(not _opens(cipher, nonce, sealed, b"other"), "it opens although the associated data is changed")


def _opens(cipher: Any, *arguments: bytes) -> bool:
    try:
        cipher.decrypt(*arguments)
    except InvalidTag:
        return False
    return True


def _check_controller(factory: Callable[[int], object]) -> None:
    controller = factory(_HANDSHAKE_SIZE)
    if not isinstance(controller, CongestionController):
        raise _Broken(f"the factory returns {controller!r}, which is no CongestionController")
    name = getattr(controller, "name", None)
    _require(isinstance(name, str) and name.isidentifier(), f"`name` is {name!r}, not a word")
    _require(controller.datagram_size == _HANDSHAKE_SIZE, "`datagram_size` is not what it was made with")
    # RFC 9002 section 7.2
    _require(0 < controller.window <= 10 * _HANDSHAKE_SIZE, f"its first window is {controller.window} bytes")


def _check_owned_name(name: str) -> None:
    owner, _, rest = name.partition(".")
    _require(bool(owner and rest and name.isprintable()), "it needs its owner in front, as in acme.clock")
    _require(owner != "stt", "the owner stt is the core")
    _require(len(name.encode()) <= _MAX_ENDPOINT_NAME_SIZE, f"it is longer than {_MAX_ENDPOINT_NAME_SIZE} bytes")


def _check_handler(handler: Any) -> None:
    if not (inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(type(handler).__call__)):
        raise _Skipped("it is no async function; what it returns, only the kit sees")


def _check_command(target: str) -> None:
    module, _, name = target.partition(":")
    command = getattr(importlib.import_module(module), name)
    _require(isinstance(command, click.Command), f"{target} is {command!r}, not a click.Command")
    _require(bool(command.help), f"{target} has no help text")


# How a check is run


class _Broken(PluginError):
    pass


class _Skipped(PluginError):
    pass


def _require(condition: bool, text: str) -> None:  # noqa: FBT001  as with assert
    if not condition:
        raise _Broken(text)


def _run(plugin: str, name: str, check: Callable[[], None]) -> Check:
    try:
        check()
    except _Skipped as error:
        return Check(plugin, name, CheckState.SKIPPED, str(error))
    except _Broken as error:
        return Check(plugin, name, CheckState.FAILED, str(error))
    except (Exception, SystemExit) as error:  # noqa: BLE001  a plugin may fail in any way
        return _failed(plugin, name, error)
    return Check(plugin, name, CheckState.OK)


def _failed(plugin: str, name: str, error: BaseException) -> Check:
    # Not str(error): that of somebody else's exception may fail as well.
    reason = "".join(traceback.format_exception_only(error)).strip()
    return Check(plugin, name, CheckState.FAILED, reason, "".join(traceback.format_exception(error)))
