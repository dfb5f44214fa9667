"""What do all kits do for the author of a plugin, and against one who cheats?"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from stt_core import testing
from stt_core.testing import Contract, StorageContract, TransportContract
from stt_core.testing.contract import Leftovers, rule

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PUBLIC = [getattr(testing, name) for name in testing.__all__]
KITS = [getattr(testing, name) for name in testing.__all__ if name.endswith("Contract") and name != "Contract"]


def test_each_kind_of_plugin_has_a_kit() -> None:
    assert [kit.__name__ for kit in KITS] == [
        "CongestionControllerContract",
        "CryptoSuiteContract",
        "EndpointContract",
        "FrameTypeContract",
        "StorageContract",
        "TransportContract",
    ]


@pytest.mark.parametrize("kit", KITS)
def test_every_test_of_a_kit_is_a_rule_that_says_what_it_asks_for(kit: type[Contract]) -> None:
    tests = {name for name in dir(kit) if name.startswith("test_")}

    assert set(kit.rules()) == tests
    for name in tests:
        assert getattr(kit, name).__doc__, name


def test_overriding_a_rule_is_an_error_that_names_what_to_declare() -> None:
    said = r"Cheat\.test_all_messages_come_once_and_in_order overrides a rule .*: declare reliable=False instead"

    with pytest.raises(TypeError, match=said):
        type("Cheat", (TransportContract,), {"test_all_messages_come_once_and_in_order": lambda _: None})


def test_overriding_a_rule_that_everybody_keeps_is_an_error_that_says_so() -> None:
    with pytest.raises(TypeError, match="no declaration frees a plugin of it"):
        type("Cheat", (StorageContract,), {"test_what_is_stored_is_retrieved": None})


def test_a_rule_is_not_overridden_by_another_base_class_either() -> None:
    mixin = type("Mixin", (), {"test_closing_twice_is_allowed": lambda _: None})

    with pytest.raises(TypeError, match="overrides a rule"):
        type("Cheat", (mixin, StorageContract), {})


def test_tests_of_ones_own_and_further_subclasses_are_welcome() -> None:
    class Own(StorageContract):
        def test_something_else(self) -> None:
            pass

    class Sub(Own):
        def test_something_else(self) -> None:
            pass

    assert set(Sub.rules()) == set(StorageContract.rules())


def test_a_class_without_its_fixtures_is_told_which_to_give(tmp_path: Path) -> None:
    path = tmp_path / "test_mine.py"
    path.write_text(
        "from stt_core.testing import StorageContract\n\nclass TestMine(StorageContract):\n    pass\n", encoding="utf-8"
    )

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-pno:cacheprovider", f"--rootdir={tmp_path}", path],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )

    assert done.returncode == 1, done.stdout
    assert "TestMine has to give the fixture `factory`: what makes the providers" in done.stdout
    assert "site-packages" not in done.stdout


class Impatient(Contract):
    patience = 0.05

    @rule()
    async def test_something_that_never_ends(self) -> None:
        """It waits for nothing."""
        await asyncio.Event().wait()

    @rule()
    async def test_something_with_a_limit_of_its_own(self) -> None:
        """It fails by that."""
        async with asyncio.timeout(0.001):
            await asyncio.Event().wait()


def test_a_rule_that_waits_too_long_fails_and_shows_where() -> None:
    with pytest.raises(pytest.fail.Exception, match=r"still waits after 0.05 s(.|\n)*await asyncio.Event\(\).wait\(\)"):
        Impatient().test_something_that_never_ends()


def test_another_time_out_is_not_taken_for_the_limit_of_a_rule() -> None:
    with pytest.raises(TimeoutError):
        Impatient().test_something_with_a_limit_of_its_own()


def left_behind(leave: Callable[[], object]) -> str:
    """Return what is said of something left behind."""

    async def look() -> None:
        async with Leftovers():
            leave()

    with pytest.raises(AssertionError) as caught:
        asyncio.run(look())
    return str(caught.value)


def test_a_task_that_goes_on_is_found() -> None:
    assert "tasks go on" in left_behind(lambda: asyncio.ensure_future(asyncio.Event().wait()))


def test_a_thread_that_goes_on_is_found() -> None:
    end = threading.Event()
    try:
        assert "threads go on: ['left']" in left_behind(threading.Thread(target=end.wait, name="left").start)
    finally:
        end.set()


def test_a_file_that_stays_open_is_found(tmp_path: Path) -> None:
    assert 'not closed: ["unclosed file' in left_behind(lambda: (tmp_path / "left").open("wb").fileno())


def test_an_exception_that_nobody_has_heard_of_is_found() -> None:
    async def fail() -> None:
        raise ValueError

    def leave() -> None:
        asyncio.ensure_future(fail())  # noqa: RUF006  it is to be forgotten

    assert "never retrieved" in left_behind(leave)


def test_nothing_is_found_where_nothing_is_left() -> None:
    async def look() -> None:
        async with Leftovers():
            await asyncio.to_thread(int)
            await asyncio.ensure_future(asyncio.sleep(0))

    asyncio.run(look())
