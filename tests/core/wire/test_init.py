from __future__ import annotations

import inspect

import pytest

import stt_core.wire
from stt_core.wire import frame, messages, serialization, varint


@pytest.mark.parametrize("name", stt_core.wire.__all__)
def test_each_exported_name_exists(name: str) -> None:
    assert hasattr(stt_core.wire, name)


@pytest.mark.parametrize("module", [varint, frame, messages, serialization])
def test_each_public_class_and_function_is_exported(module: object) -> None:
    own = {
        name
        for name, member in vars(module).items()
        if (inspect.isclass(member) or inspect.isfunction(member))
        and member.__module__ == getattr(module, "__name__", None)
        and not name.startswith("_")
    }

    assert own <= set(stt_core.wire.__all__)
