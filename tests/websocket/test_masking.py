from __future__ import annotations

import importlib
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_websocket import masking
from stt_websocket.masking import Mask, mask_by_integers, mask_by_numpy, mask_by_openssl, mask_short

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY = b"\x37\xfa\x21\x3d"  # of the examples in RFC 6455 section 5.7
keys = st.binary(min_size=4, max_size=4)


def by_bytes(data: bytes, key: bytes) -> bytes:
    return bytes(byte ^ key[position % 4] for position, byte in enumerate(data))


@pytest.fixture
def forgetful() -> Iterator[None]:
    masking.fastest_mask.cache_clear()
    yield
    masking.fastest_mask.cache_clear()


@pytest.fixture(params=[lambda: mask_by_integers, mask_by_openssl, mask_by_numpy], ids=["integers", "openssl", "numpy"])
def mask(request: pytest.FixtureRequest) -> Mask:
    importlib.invalidate_caches()
    made: Mask | None = request.param()
    if made is None:
        pytest.skip("not to be had in this installation")
    return made


def test_masking_gives_the_bytes_of_the_rfc() -> None:
    assert mask_short(b"Hello", KEY).hex() == "7f9f4d5158"


@given(data=st.binary(max_size=200), key=keys)
def test_short_data_are_masked_byte_by_byte(data: bytes, key: bytes) -> None:
    assert mask_short(data, key) == by_bytes(data, key)


@pytest.mark.parametrize("size", [1, 3, 7, 8, 15, 16, 17, 8191, 8192, 8193, 20_003, 65_536])
def test_each_way_masks_a_buffer_byte_by_byte(mask: Mask, size: int) -> None:
    data = (bytes(range(256)) * (size // 256 + 1))[:size]
    buffer = bytearray(data)

    mask(buffer, KEY)

    assert buffer == by_bytes(data, KEY)


def test_each_way_masks_a_part_of_a_buffer_and_leaves_the_rest(mask: Mask) -> None:
    data = bytes(range(256)) * 100
    buffer = bytearray(data)

    mask(memoryview(buffer)[3:20_002], KEY)

    assert buffer == data[:3] + by_bytes(data[3:20_002], KEY) + data[20_002:]
    buffer += b"x"  # nothing holds it any more


@pytest.mark.usefixtures("forgetful")
def test_integers_mask_where_there_is_nothing_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "_ssl", None)
    monkeypatch.setitem(sys.modules, "numpy", None)

    assert masking.fastest_mask() is mask_by_integers


@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize("library", [SimpleNamespace(), SimpleNamespace(__file__="/nowhere/_ssl.so")])
def test_an_openssl_that_is_linked_into_python_is_done_without(
    library: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "_ssl", library)

    assert mask_by_openssl() is None


@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize("broken", [lambda: None, lambda: lambda _buffer, _key: None])
def test_a_way_that_does_not_mask_is_not_taken(
    broken: Callable[[], Mask | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masking, "mask_by_openssl", broken)
    monkeypatch.setattr(masking, "mask_by_numpy", broken)

    assert masking.fastest_mask() is mask_by_integers
