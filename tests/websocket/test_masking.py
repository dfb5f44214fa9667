from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_websocket import masking
from stt_websocket.masking import mask_into, mask_short

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = b"\x37\xfa\x21\x3d"  # of the examples in RFC 6455 section 5.7
keys = st.binary(min_size=4, max_size=4)


def by_bytes(data: bytes, key: bytes) -> bytes:
    return bytes(byte ^ key[position % 4] for position, byte in enumerate(data))


@pytest.fixture
def forgetful() -> Iterator[None]:
    masking.fastest_mask.cache_clear()
    yield
    masking.fastest_mask.cache_clear()


def test_masking_gives_the_bytes_of_the_rfc() -> None:
    assert mask_short(b"Hello", KEY).hex() == "7f9f4d5158"


@given(data=st.binary(max_size=200), key=keys)
def test_short_data_are_masked_byte_by_byte(data: bytes, key: bytes) -> None:
    assert mask_short(data, key) == by_bytes(data, key)


@pytest.mark.parametrize("size", [0, 1, 7, 8, 8191, 8192, 8193, 20_003, 65_536])
@pytest.mark.parametrize("is_in_place", [False, True])
def test_long_data_are_masked_byte_by_byte(size: int, is_in_place: bool) -> None:  # noqa: FBT001
    data = bytes(range(256)) * (size // 256 + 1)
    target = bytearray(data[:size] if is_in_place else size)

    mask_into(memoryview(target), target if is_in_place else data[:size], KEY)

    assert target == by_bytes(data[:size], KEY)


@pytest.mark.usefixtures("forgetful")
def test_pure_python_masks_where_numpy_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)

    assert masking.fastest_mask() is mask_into


@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize("size", [0, 1, 7, 8, 8193, 65_536])
@pytest.mark.parametrize("is_in_place", [False, True])
def test_numpy_masks_the_same_bytes(size: int, is_in_place: bool) -> None:  # noqa: FBT001
    pytest.importorskip("numpy")
    importlib.invalidate_caches()
    data = bytes(range(256)) * (size // 256 + 1)
    target = bytearray(data[:size] if is_in_place else size)
    mask_by_numpy = masking.fastest_mask()

    mask_by_numpy(memoryview(target), memoryview(target) if is_in_place else data[:size], KEY)

    assert mask_by_numpy is not mask_into
    assert target == by_bytes(data[:size], KEY)
