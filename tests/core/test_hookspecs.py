"""Can everything that a plugin may add be read in one file?"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import pluggy
import pytest

from stt_core import hookspecs
from stt_core.hookspecs import ENTRY_POINT_GROUP, PROJECT_NAME, hookimpl
from stt_core.plugins import load_plugins

if TYPE_CHECKING:
    from collections.abc import Callable

HOOKS = {name: function for name, function in vars(hookspecs).items() if name.startswith("stt_")}

REGISTER = {
    "stt_register_transports",
    "stt_register_crypto_suites",
    "stt_register_storage",
    "stt_register_frame_types",
    "stt_register_endpoints",
    "stt_register_congestion_controllers",
    "stt_register_commands",
}
OBSERVE = {"stt_session_opened", "stt_session_closed", "stt_node_started", "stt_node_stopped"}


def test_there_are_these_hooks_and_no_others() -> None:
    assert set(HOOKS) == REGISTER | OBSERVE | {"stt_authorize"}


def test_the_names_that_plugins_build_on_do_not_change() -> None:
    assert (PROJECT_NAME, ENTRY_POINT_GROUP) == ("stt", "stt.v1")


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_is_specified_typed_and_documented(name: str) -> None:
    function = HOOKS[name]
    signature = inspect.signature(function)

    manager = pluggy.PluginManager(PROJECT_NAME)
    manager.add_hookspecs(hookspecs)

    assert getattr(manager.hook, name).spec is not None
    assert inspect.getdoc(function)
    assert signature.return_annotation is not inspect.Signature.empty
    assert signature.parameters
    assert all(each.annotation is not inspect.Parameter.empty for each in signature.parameters.values())


@pytest.mark.parametrize("name", sorted(REGISTER))
def test_every_register_hook_gives_one_function_and_takes_nothing_back(name: str) -> None:
    signature = inspect.signature(HOOKS[name])

    assert list(signature.parameters) == ["register"]
    assert signature.return_annotation == "None"


@pytest.mark.parametrize("name", sorted(REGISTER))
def test_every_register_hook_is_called_when_plugins_are_loaded(name: str) -> None:
    called = []

    class Plugin:
        pass

    def implementation(register: Callable[..., None]) -> None:
        called.append(register)

    plugin = Plugin()
    setattr(plugin, name, hookimpl(specname=name)(implementation))
    load_plugins(extra=[plugin], discover=False)

    assert len(called) == 1
    assert callable(called[0])


@pytest.mark.parametrize("name", sorted(OBSERVE | {"stt_authorize"}))
def test_every_other_hook_is_kept_for_the_node(name: str) -> None:
    class Plugin:
        pass

    def implementation() -> str:
        return name

    plugin = Plugin()
    setattr(plugin, name, hookimpl(specname=name)(implementation))
    registries = load_plugins(extra=[plugin], discover=False)

    ((info, observer),) = registries.observers[name]
    assert info.name == "Plugin"
    assert observer() == name
