"""Are plugins found, kept out, checked and explained, so that a broken one costs nobody but itself?"""

from __future__ import annotations

import asyncio
import logging
import secrets
import sys
from typing import TYPE_CHECKING, Any

import pluggy
import pytest

from stt_core import (
    ConfigError,
    ConnectError,
    PluginError,
    PluginInfo,
    PluginState,
    Registries,
    STTNode,
    hookimpl,
    hookspecs,
    load_plugins,
)
from stt_core.defaults import plugin as core_plugin
from stt_core.defaults.memory_storage import MemoryStorage
from stt_core.defaults.memory_transport import MemoryTransport
from stt_core.defaults.suites import SUITES
from stt_core.interfaces import CryptoSuite
from stt_core.interfaces.frame import FrameType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from stt_core.interfaces import FrameCipher

OFFERS_A_TRANSPORT = """
from stt_core import hookimpl
from stt_core.defaults.memory_transport import MemoryTransport

@hookimpl
def stt_register_transports(register):
    register("{scheme}", MemoryTransport)
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Installs real distributions with an entry point each; returns the name of the module."""
    modules: list[str] = []
    monkeypatch.syspath_prepend(tmp_path)

    def install(name: str, source: str, *, target: str = "{module}", distribution: str = "") -> str:
        module = f"toy_{name}_{secrets.token_hex(4)}"
        modules.append(module)
        (tmp_path / f"{module}.py").write_text(source)
        metadata = tmp_path / f"{distribution or module}-1.2.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution or module}\nVersion: 1.2\n")
        (metadata / "entry_points.txt").write_text(f"[stt.v1]\n{name} = {target.format(module=module)}\n")
        return module

    yield install
    for module in modules:
        sys.modules.pop(module, None)


def find(registries: Registries, name: str) -> PluginInfo:
    (info,) = [info for info in registries.plugins if info.name == name]
    return info


def load(*plugins: object, **options: Any) -> Registries:
    """Load the core's own and these plugins, and none that happens to be installed."""
    return load_plugins(core=[core_plugin], extra=plugins, discover=False, **options)


def reason_of(plugin: object) -> str:
    """Return why a plugin failed; it must have left nothing behind."""
    untouched = load()

    registries = load(plugin)

    info = registries.plugins[-1]
    assert info.state is PluginState.FAILED
    assert info.offers == []
    assert registries.transports == untouched.transports
    assert registries.suites == untouched.suites
    assert registries.observers == {}
    return info.reason


class Toy:
    """A plugin that does no harm."""

    @hookimpl
    def stt_register_transports(self, register: Callable[..., None]) -> None:
        register("toy", MemoryTransport)


# Finding


def test_an_installed_plugin_is_found_by_its_entry_point(install: Callable[..., str]) -> None:
    module = install("tin", OFFERS_A_TRANSPORT.format(scheme="tin"), distribution="stt-tin")

    registries = load_plugins(core=[core_plugin])

    info = find(registries, "tin")
    assert registries.transport("tin://name") is MemoryTransport
    assert (info.source, info.distribution) == (module, "stt-tin 1.2")
    assert (info.state, info.reason) == (PluginState.ACTIVE, "")
    assert (info.hooks, info.offers) == (("stt_register_transports",), ["transport tin"])


def test_an_entry_point_may_name_an_object_in_a_module(install: Callable[..., str]) -> None:
    source = OFFERS_A_TRANSPORT.format(scheme="tin")
    install("tin", f"{source}\nimport types\nplugin = types.SimpleNamespace(**globals())\n", target="{module}:plugin")

    assert "tin" in load_plugins().transports


def test_objects_and_modules_are_plugins_as_well() -> None:
    registries = load(Toy())

    assert registries.transport("toy://name") is MemoryTransport
    assert find(registries, "Toy").distribution is None


def test_nothing_is_looked_for_unless_wanted(install: Callable[..., str]) -> None:
    module = install("tin", OFFERS_A_TRANSPORT.format(scheme="tin"))

    assert load_plugins(discover=False).plugins == []
    assert module not in sys.modules


def test_plugins_are_loaded_in_the_order_of_their_names_behind_the_core(install: Callable[..., str]) -> None:
    for name in ("zinc", "aluminium"):
        install(name, OFFERS_A_TRANSPORT.format(scheme=name))

    names = [info.name for info in load_plugins(core=[core_plugin], extra=[Toy()]).plugins]

    assert names[0] == "core"
    assert names[-1] == "Toy"
    assert names[1:-1] == sorted(names[1:-1])


# Keeping out


@pytest.mark.parametrize("names", ["tin", "*", " other , tin ", "*,other"])
def test_a_plugin_disabled_in_the_environment_is_not_imported(
    install: Callable[..., str], monkeypatch: pytest.MonkeyPatch, names: str
) -> None:
    module = install("tin", "raise RuntimeError('imported')")
    monkeypatch.setenv("STT_DISABLE_PLUGINS", names)

    info = find(load_plugins(), "tin")

    assert (info.state, info.reason) == (PluginState.BLOCKED, "disabled by STT_DISABLE_PLUGINS")
    assert module not in sys.modules


@pytest.mark.parametrize("names", [["tin"], ["*"]])
def test_a_plugin_disabled_by_the_program_is_not_imported(install: Callable[..., str], names: list[str]) -> None:
    module = install("tin", "raise RuntimeError('imported')")

    info = find(load_plugins(disabled=names), "tin")

    assert (info.state, info.reason) == (PluginState.BLOCKED, "disabled by this program")
    assert module not in sys.modules


def test_other_plugins_are_not_disabled(install: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    install("tin", OFFERS_A_TRANSPORT.format(scheme="tin"))
    monkeypatch.setenv("STT_DISABLE_PLUGINS", "ti,tin2,,")

    assert find(load_plugins(), "tin").state is PluginState.ACTIVE


def test_an_object_is_disabled_by_its_name() -> None:
    registries = load(Toy(), disabled=["Toy"])

    assert find(registries, "Toy").state is PluginState.BLOCKED
    assert "toy" not in registries.transports


def test_a_star_leaves_the_objects_that_the_program_itself_gives() -> None:
    assert find(load(Toy(), disabled=["*"]), "Toy").state is PluginState.ACTIVE


def test_a_node_is_given_what_to_disable(install: Callable[..., str]) -> None:
    module = install("tin", "raise RuntimeError('imported')")

    node = make_node(disable_plugins=["tin"])

    assert {info.name: info.state for info in node.plugins}["tin"] is PluginState.BLOCKED
    assert module not in sys.modules


# Leaving out


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import a_library_that_is_missing", "ModuleNotFoundError: No module named 'a_library_that_is_missing'"),
        ("def stt(:", "SyntaxError"),
        ("raise SystemExit('this platform is not supported')", "SystemExit: this platform is not supported"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_plugin_that_fails_to_import_is_left_out(install: Callable[..., str], source: str, reason: str) -> None:
    module = install("tin", source)
    install("zinc", OFFERS_A_TRANSPORT.format(scheme="zinc"))

    registries = load_plugins()

    info = find(registries, "tin")
    assert info.state is PluginState.FAILED
    assert reason in info.reason
    assert f"{module}.py" in info.traceback
    assert find(registries, "zinc").state is PluginState.ACTIVE


@pytest.mark.parametrize("target", ["{module}:absent", "{module}_absent", "{module}:", "not a target"])
def test_an_entry_point_that_leads_nowhere_is_left_out(install: Callable[..., str], target: str) -> None:
    install("tin", OFFERS_A_TRANSPORT.format(scheme="tin"), target=target)

    info = find(load_plugins(), "tin")

    assert info.state is PluginState.FAILED
    assert info.reason


def test_of_a_plugin_that_fails_to_register_nothing_stays() -> None:
    class Half:
        @hookimpl
        def stt_register_storage(self, register: Callable[..., None]) -> None:
            register("half", MemoryStorage)

        @hookimpl
        def stt_register_transports(self, register: Callable[..., None]) -> None:
            register("half", MemoryTransport)
            raise OSError("no such device")

        @hookimpl
        def stt_authorize(self, peer: object) -> bool:
            return bool(peer)

    registries = load(Half(), Toy())

    info = find(registries, "Half")
    assert (info.state, info.reason, info.offers) == (PluginState.FAILED, "OSError: no such device", [])
    assert "no such device" in info.traceback
    assert "half" not in registries.transports
    assert "half" not in registries.storage
    assert registries.observers == {}
    assert "toy" in registries.transports


def test_it_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Toy):
        @hookimpl
        def stt_register_storage(self, register: Callable[..., None]) -> None:
            raise OSError("no such device")

    with caplog.at_level(logging.WARNING):
        load(Broken())

    assert "plugin Broken is left out: OSError: no such device" in caplog.text


def test_a_cancellation_that_nobody_asked_for_is_a_failure_like_any() -> None:
    class Cancelled:
        @hookimpl
        def stt_register_storage(self, register: Callable[..., None]) -> None:
            raise asyncio.CancelledError

    assert "CancelledError" in reason_of(Cancelled())


def test_an_exception_that_cannot_be_shown_is_no_matter() -> None:
    class UnspeakableError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("unspeakable")

    class Broken:
        @hookimpl
        def stt_register_storage(self, register: Callable[..., None]) -> None:
            raise UnspeakableError

    assert "UnspeakableError" in reason_of(Broken())


def test_attributes_that_fail_are_no_matter() -> None:
    class Shy(Toy):
        @property
        def device(self) -> str:
            raise OSError("no such device")

    assert find(load(Shy()), "Shy").state is PluginState.ACTIVE


@pytest.mark.asyncio
async def test_a_node_runs_on_without_the_broken_ones(install: Callable[..., str]) -> None:
    class Broken:
        @hookimpl
        def stt_register_transports(self, register: Callable[..., None]) -> None:
            raise OSError("no such device")

    install("tin", "1 / 0")

    async with make_node(plugins=[Broken(), Toy()]) as node:
        states = {info.name: info.state for info in node.plugins}
        await node.listen(f"memory://{secrets.token_hex(8)}")

    assert states["tin"] is PluginState.FAILED
    assert states["Broken"] is PluginState.FAILED
    assert states["Toy"] is PluginState.ACTIVE


def plugin_with(hook: str, body: Callable[[], None]) -> object:
    """Return a plugin that implements one hook."""

    def registers(self: object, register: Callable[..., None]) -> None:  # noqa: ARG001  the hook has them
        body()

    def observes(self: object) -> None:  # noqa: ARG001  it is a method
        body()

    function = registers if hook.startswith("stt_register_") else observes
    return type("Toy", (), {hook: hookimpl(function)})()


HOOKS = [name for name in vars(hookspecs) if name.startswith("stt_")]


@pytest.mark.asyncio
@pytest.mark.parametrize("hook", HOOKS)
async def test_a_node_runs_on_with_a_plugin_that_raises_in_any_hook(hook: str) -> None:
    def fail() -> None:
        raise RuntimeError(f"a nuisance in {hook}")

    plugin = plugin_with(hook, fail)

    async with make_node(plugins=[plugin]) as node, make_node() as peer:
        urls = [f"memory://{secrets.token_hex(8)}" for _ in range(2)]
        await node.listen(urls[0])
        await peer.listen(urls[1])
        for _ in range(2):
            session = await node.connect(urls[1])
            await session.ping()
            session.close()
            await session.wait_closed()
        if hook == "stt_authorize":  # who cannot tell lets nobody in
            with pytest.raises(ConnectError, match="not allowed in"):
                await peer.connect(urls[0])
        else:
            await (await peer.connect(urls[0])).ping()

    (info,) = [info for info in node.plugins if info.name == "Toy"]
    if hook != "stt_authorize":
        assert info.state is PluginState.FAILED
        assert f"a nuisance in {hook}" in info.reason
        assert "in fail" in info.traceback


@pytest.mark.asyncio
@pytest.mark.parametrize("hook", [hook for hook in HOOKS if hook.startswith("stt_register_")])
async def test_what_plugins_offer_is_asked_for_once_when_a_node_is_made(hook: str) -> None:
    calls: list[str] = []
    plugin = plugin_with(hook, lambda: calls.append(hook))

    node = make_node(plugins=[plugin])
    assert calls == [hook]
    async with node, make_node() as peer:
        url = f"memory://{secrets.token_hex(8)}"
        await node.listen(url)
        session = await peer.connect(url)
        stream = await session.open_stream()
        await stream.send(b"data")
        await session.ping()

    assert calls == [hook]


@pytest.mark.asyncio
async def test_a_node_whose_transport_is_missing_says_which_plugin_failed(install: Callable[..., str]) -> None:
    install("tin", "1 / 0")

    async with make_node() as node:
        with pytest.raises(ConfigError, match="plugin tin is failed: ZeroDivisionError: division by zero"):
            await node.listen("tin://name")


# Checking hooks


def test_a_misspelt_hook_is_named_with_the_one_that_is_meant() -> None:
    class Typo:
        @hookimpl
        def stt_register_transprots(self, register: Callable[..., None]) -> None: ...

    reason = reason_of(Typo())

    assert "plugin Typo" in reason
    assert "there is no hook stt_register_transprots" in reason
    assert "stt_register_transports(register: Callable[[str, TransportFactory], None])" in reason


def test_a_hook_that_is_like_no_other_gets_all_their_names() -> None:
    class Typo:
        @hookimpl
        def stt_xyzzy(self) -> None: ...

    reason = reason_of(Typo())

    assert "there is no hook stt_xyzzy" in reason
    assert "stt_authorize" in reason
    assert "stt_register_transports" in reason


def test_a_hook_renamed_to_none_is_an_error() -> None:
    class Typo(Toy):
        @hookimpl(specname="stt_register_transprots")
        def offer(self, register: Callable[..., None]) -> None: ...

    assert "stt_register_transprots" in reason_of(Typo())


def test_a_hook_of_a_later_version_may_be_optional() -> None:
    class Modern(Toy):
        @hookimpl(optionalhook=True)
        def stt_register_of_a_later_version(self, register: Callable[..., None]) -> None: ...

    assert find(load(Modern()), "Modern").state is PluginState.ACTIVE


def test_a_hook_that_is_not_marked_is_an_error() -> None:
    class Forgetful:
        def stt_register_transports(self, register: Callable[..., None]) -> None: ...

    reason = reason_of(Forgetful())

    assert "plugin Forgetful" in reason
    assert "stt_register_transports(register: " in reason
    assert "@hookimpl" in reason


def test_a_hook_marked_for_another_project_is_not_marked() -> None:
    class Foreign:
        @pluggy.HookimplMarker("another")
        def stt_register_transports(self, register: Callable[..., None]) -> None: ...

    assert "@hookimpl" in reason_of(Foreign())


def test_a_parameter_too_many_is_an_error() -> None:
    class Wrong:
        @hookimpl
        def stt_register_storage(self, register: Callable[..., None], config: object) -> None: ...

    reason = reason_of(Wrong())

    assert "plugin Wrong" in reason
    assert "stt_register_storage(register: Callable[[str, StorageFactory], None])" in reason
    assert "config" in reason


def test_a_parameter_too_few_is_an_error() -> None:
    class Wrong:
        @hookimpl
        def stt_register_storage(self) -> None: ...

    reason = reason_of(Wrong())

    assert "plugin Wrong" in reason
    assert "stt_register_storage(register: Callable[[str, StorageFactory], None])" in reason


def test_a_register_hook_that_is_async_is_an_error() -> None:
    class Async:
        @hookimpl
        async def stt_register_storage(self, register: Callable[..., None]) -> None:
            register("late", MemoryStorage)

    reason = reason_of(Async())

    assert "plugin Async" in reason
    assert "stt_register_storage(register: " in reason
    assert "plain function" in reason


def test_a_register_hook_that_yields_is_an_error() -> None:
    class Lazy:
        @hookimpl
        def stt_register_storage(self, register: Callable[..., None]) -> Iterator[None]:
            register("late", MemoryStorage)
            yield

    assert "plain function" in reason_of(Lazy())


def test_a_wrapper_is_an_error() -> None:
    class Wrapper:
        @hookimpl(wrapper=True)
        def stt_authorize(self, peer: object) -> Iterator[None]:
            return (yield)

    reason = reason_of(Wrapper())

    assert "plugin Wrapper" in reason
    assert "stt_authorize" in reason
    assert "wrapper" in reason


def test_a_class_is_no_plugin() -> None:
    assert "is a class" in reason_of(Toy)


def test_who_implements_no_hook_is_no_plugin() -> None:
    reason = reason_of(object())

    assert "implements no hook" in reason
    assert "stt_register_transports" in reason


def test_an_observer_may_take_a_part_of_what_it_is_told() -> None:
    told = []

    class Curious:
        @hookimpl
        def stt_session_closed(self, reason: str) -> None:
            told.append(reason)

    ((info, observer),) = load(Curious()).observers["stt_session_closed"]
    observer(session=object(), code=0, reason="enough")

    assert info.name == "Curious"
    assert told == ["enough"]


class Sealed(CryptoSuite):
    name = "toy"
    authenticated = True
    max_frames = max_forgeries = 1 << 20

    def cipher(self, key: bytes) -> FrameCipher:
        return SUITES[1].cipher(key)


class Unsealed(Sealed):
    authenticated = False


async def handle(_: object) -> None: ...


class Offering:
    """A plugin that registers one thing with one hook."""

    def __init__(self, hook: str, *arguments: object, **named: object) -> None:
        def offer(register: Callable[..., None]) -> None:
            register(*arguments, **named)

        offer.__name__ = offer.__qualname__ = hook
        setattr(self, hook, hookimpl(offer))


class First(Offering):
    pass


class Second(Offering):
    pass


FRAME_TYPE = FrameType("toy.frames", 0x90, handle)

GOOD = [
    ("stt_register_transports", ("toy", MemoryTransport), "transports", "toy", "transport toy"),
    ("stt_register_crypto_suites", (0x8001, Sealed()), "suites", 0x8001, "suite 0x8001"),
    ("stt_register_storage", ("toy", MemoryStorage), "storage", "toy", "storage toy"),
    ("stt_register_congestion_controllers", ("toy", Toy), "controllers", "toy", "controller toy"),
    ("stt_register_frame_types", (FRAME_TYPE,), "frame_types", "toy.frames", "frame type toy.frames"),
    ("stt_register_endpoints", ("toy.echo", handle), "endpoints", "toy.echo", "endpoint toy.echo"),
    ("stt_register_commands", ("toy", "Plays.", "toy.commands:play"), "commands", "toy", "command toy"),
]


# Registering


@pytest.mark.parametrize(("hook", "arguments", "table", "key", "offer"), GOOD)
def test_what_is_registered_is_offered(
    hook: str, arguments: tuple[Any, ...], table: str, key: object, offer: str
) -> None:
    registries = load(Offering(hook, *arguments))

    info = find(registries, "Offering")
    assert (info.state, info.hooks, info.offers) == (PluginState.ACTIVE, (hook,), [offer])
    assert key in getattr(registries, table)


@pytest.mark.parametrize(("hook", "arguments", "offer"), [(each[0], each[1], each[4]) for each in GOOD])
def test_two_claims_to_one_name_are_an_error_that_names_both_plugins_and_the_hook(
    hook: str, arguments: tuple[Any, ...], offer: str
) -> None:
    first, second = First(hook, *arguments), Second(hook, *arguments)

    registries = load(first, second)

    assert find(registries, "First").state is PluginState.ACTIVE
    info = find(registries, "Second")
    assert info.state is PluginState.FAILED
    assert f"{offer} is claimed by plugin First and by plugin Second" in info.reason
    assert f"{hook}(register: " in info.reason


def test_a_name_of_the_core_cannot_be_claimed() -> None:
    reason = reason_of(Offering("stt_register_transports", "memory", MemoryTransport))

    assert "transport memory is claimed by plugin core and by plugin Offering" in reason


def test_a_plugin_cannot_claim_a_name_twice() -> None:
    class Twice:
        @hookimpl
        def stt_register_transports(self, register: Callable[..., None]) -> None:
            register("toy", MemoryTransport)
            register("toy", MemoryTransport)

    assert "transport toy is claimed by plugin Twice and by plugin Twice" in reason_of(Twice())


def test_what_a_failed_plugin_claimed_is_free_for_others() -> None:
    class Failing(Toy):
        @hookimpl
        def stt_register_storage(self, register: Callable[..., None]) -> None:
            raise OSError("no such device")

    assert "toy" in load(Failing(), Toy()).transports


def test_two_plugins_of_one_name_are_an_error_that_says_where_they_are_from(install: Callable[..., str]) -> None:
    modules = [install("tin", OFFERS_A_TRANSPORT.format(scheme=scheme)) for scheme in ("tin", "zinc")]

    plugins = [info for info in load_plugins().plugins if info.name == "tin"]

    assert [info.state for info in plugins] == [PluginState.ACTIVE, PluginState.FAILED]
    assert all(module in plugins[1].reason for module in modules)


@pytest.mark.parametrize(
    ("hook", "arguments", "reason"),
    [
        ("stt_register_transports", ("toy",), "called wrongly"),
        ("stt_register_transports", ("toy", MemoryTransport, 1), "called wrongly"),
        ("stt_register_transports", ("toy", "memory"), "a transport factory is called"),
        ("stt_register_transports", ("", MemoryTransport), "a scheme is text"),
        ("stt_register_transports", (7, MemoryTransport), "a scheme is text"),
        ("stt_register_storage", ("toy", None), "a storage factory is called"),
        ("stt_register_congestion_controllers", ("toy", None), "a controller factory is called"),
        ("stt_register_endpoints", ("toy", None), "an endpoint's handler is called"),
        ("stt_register_frame_types", ("toy.frames",), "registered as a FrameType"),
        ("stt_register_crypto_suites", (0x8001, Unsealed()), "not authenticated"),
        ("stt_register_crypto_suites", (0x8001, object()), "authenticated"),
        ("stt_register_crypto_suites", (0x0005, Sealed()), "from 0x8000 to 0xffff"),
        ("stt_register_crypto_suites", (0x0001, Sealed()), "from 0x8000 to 0xffff"),
        ("stt_register_crypto_suites", (0x10000, Sealed()), "from 0x8000 to 0xffff"),
        ("stt_register_crypto_suites", ("0x8001", Sealed()), "from 0x8000 to 0xffff"),
        ("stt_register_commands", ("toy", "Plays.", "toy.commands"), "module:object"),
        ("stt_register_commands", ("toy", "Plays.", ":play"), "module:object"),
    ],
)
def test_what_cannot_be_registered_is_an_error_that_says_why(
    hook: str, arguments: tuple[object, ...], reason: str
) -> None:
    text = reason_of(Offering(hook, *arguments))

    assert reason in text


def test_a_wrong_call_of_register_shows_how_it_is_called() -> None:
    reason = reason_of(Offering("stt_register_transports", "toy"))

    assert "plugin Offering" in reason
    assert "stt_register_transports" in reason
    assert "scheme: 'str', factory: 'TransportFactory'" in reason


def test_arguments_may_be_named() -> None:
    named = {"name": "toy", "help_text": "Plays.", "target": "toy.commands:play"}

    registries = load(Offering("stt_register_commands", **named))

    assert registries.commands["toy"].target == "toy.commands:play"


# Requiring


def test_a_required_plugin_that_works_is_no_matter() -> None:
    load(Toy(), required=["Toy", "core"])


def test_a_required_plugin_that_is_missing_is_fatal() -> None:
    with pytest.raises(PluginError, match=r"plugin tin is required, but not installed \(there are: Toy, core\)"):
        load(Toy(), required=["tin"])


def test_a_required_plugin_that_is_blocked_is_fatal(
    install: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    install("tin", OFFERS_A_TRANSPORT.format(scheme="tin"))
    monkeypatch.setenv("STT_DISABLE_PLUGINS", "tin")

    with pytest.raises(PluginError, match="plugin tin is required, but blocked: disabled by STT_DISABLE_PLUGINS"):
        make_node(require_plugins=["tin"])


def test_a_required_plugin_that_failed_is_fatal_and_says_where(install: Callable[..., str]) -> None:
    module = install("tin", "1 / 0")

    with pytest.raises(PluginError, match="plugin tin is required, but failed: ZeroDivisionError") as caught:
        make_node(require_plugins=["tin"])

    assert any(f"{module}.py" in note for note in caught.value.__notes__)


def test_the_second_of_a_name_does_not_stand_for_the_first() -> None:
    class Broken:
        @hookimpl
        def stt_register_storage(self, register: Callable[..., None]) -> None:
            raise OSError("no such device")

    Broken.__name__ = "Toy"

    load(Toy(), Broken(), required=["Toy"])
    with pytest.raises(PluginError, match="no such device"):
        load(Broken(), Toy(), required=["Toy"])


# Looking up


def test_a_scheme_may_be_written_in_capitals() -> None:
    assert load(Toy()).transport("TOY://name") is MemoryTransport


@pytest.mark.parametrize("url", ["", "name", "udp:127.0.0.1:4433", "127.0.0.1:4433"])
def test_what_has_no_scheme_is_no_url(url: str) -> None:
    with pytest.raises(ConfigError, match="is no URL: it needs a scheme"):
        load().transport(url)


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("udp://127.0.0.1:1", "it comes with stt-udp"),
        ("ws://127.0.0.1:1", "it comes with stt-websocket"),
        ("wss://127.0.0.1:1", "it comes with stt-websocket"),
        ("carrier-pigeon://loft", "its plugin may be missing"),
    ],
)
def test_an_unknown_scheme_is_told_with_the_known_ones_and_what_may_be_missing(url: str, hint: str) -> None:
    scheme = url.partition(":")[0]

    with pytest.raises(ConfigError, match=rf"no transport for {scheme}://.*there are: memory, toy.*{hint}"):
        load(Toy()).transport(url)


def test_a_plugin_that_is_blocked_is_told_of() -> None:
    with pytest.raises(ConfigError, match="plugin Toy is blocked: disabled by this program"):
        load(Toy(), disabled=["Toy"]).transport("toy://name")


def test_without_any_plugin_there_is_nothing() -> None:
    with pytest.raises(ConfigError, match=r"there are: none"):
        load_plugins(discover=False).store("memory://")


class Nuisance:
    """A plugin that raises wherever it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def _fail(self, hook: str) -> None:
        self.asked.append(hook)
        raise RuntimeError(f"a nuisance in {hook}")

    @hookimpl
    def stt_node_started(self) -> None:
        self._fail("stt_node_started")

    @hookimpl
    async def stt_session_opened(self) -> None:
        self._fail("stt_session_opened")

    @hookimpl
    def stt_session_closed(self) -> None:
        self._fail("stt_session_closed")

    @hookimpl
    async def stt_node_stopped(self) -> None:
        self._fail("stt_node_stopped")


@pytest.mark.asyncio
@pytest.mark.parametrize("hook", ["stt_node_started", "stt_session_opened", "stt_session_closed", "stt_node_stopped"])
async def test_a_plugin_that_raises_in_an_observer_is_asked_no_more_and_the_node_runs_on(hook: str) -> None:
    nuisance = Nuisance()
    for other in ("stt_node_started", "stt_session_opened", "stt_session_closed", "stt_node_stopped"):
        if other != hook:
            setattr(nuisance, other, None)

    async with make_node(plugins=[nuisance]) as node, make_node() as peer:
        url = f"memory://{secrets.token_hex(8)}"
        await peer.listen(url)
        for _ in range(2):
            session = await node.connect(url)
            session.close()
            await session.wait_closed()
            await asyncio.sleep(0)

    (info,) = [info for info in node.plugins if info.name == "Nuisance"]
    assert nuisance.asked == [hook]
    assert info.state is PluginState.FAILED
    assert info.reason == f"{hook}: RuntimeError: a nuisance in {hook}"
    assert "Nuisance" in info.traceback or "_fail" in info.traceback


def make_node(**settings: Any) -> STTNode:
    return STTNode(node_seed=secrets.token_bytes(32), shared_seed=bytes(range(32)), **settings)
