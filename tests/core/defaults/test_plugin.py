"""Does the core offer its own parts through the same hooks as any plugin?"""

from __future__ import annotations

import pytest

from stt_core.defaults import plugin
from stt_core.defaults.controllers import CONTROLLERS
from stt_core.defaults.memory_storage import MemoryStorage
from stt_core.defaults.memory_transport import MemoryTransport
from stt_core.defaults.suites import SUITES
from stt_core.plugins import PluginState, Registries, load_plugins


@pytest.fixture
def registries() -> Registries:
    return load_plugins(core=[plugin], discover=False)


def test_the_core_is_a_plugin_that_registers_whole(registries: Registries) -> None:
    (info,) = registries.plugins

    assert (info.name, info.state, info.reason) == ("core", PluginState.ACTIVE, "")
    assert info.distribution is not None
    assert info.distribution.startswith("stt-core ")


def test_memory_is_a_transport_and_a_store(registries: Registries) -> None:
    assert registries.transport("memory://name") is MemoryTransport
    assert registries.store("memory://") is MemoryStorage


def test_the_four_suites_have_their_numbers(registries: Registries) -> None:
    assert registries.suites == SUITES
    assert set(SUITES) == {1, 2, 3, 4}


def test_every_controller_has_its_name(registries: Registries) -> None:
    assert registries.controllers == CONTROLLERS
    assert {"newreno", "cubic"} <= set(CONTROLLERS)


def test_it_cannot_be_disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STT_DISABLE_PLUGINS", "*,core")

    registries = load_plugins(core=[plugin], disabled=["core", "*"])

    assert "memory" in registries.transports
