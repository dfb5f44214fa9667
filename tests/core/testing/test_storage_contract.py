"""Does each rule of the kit of stores find a store that breaks it, and only that one?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stt_core.testing import StorageContract

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Outcomes = Mapping[str, Mapping[str, str]]

# What stands in the toy, and what is put there instead.
CLOSED = "        self.closed = True\n"
COMMIT = "        with self.content() as content:\n            for key, value in puts.items():\n"
LOAD = "                content = self.load(file.read())\n"
NOT_SHARED = ("shared=True", "shared=False")
SAVE = (
    "                new = pickle.dumps(content)\n                file.truncate(0)\n                file.write(new)\n"
)
STORE = "        with self.content() as content:\n            content.put(key, value)\n"
STORE_IF = "            if content.version(key) != expected_version:\n                return None\n"

BREACHES: dict[str, tuple[tuple[str, str], ...]] = {
    "test_capabilities_are_declared": (
        ("import attrs\n", "import types\n\nimport attrs\n"),
        ("= StorageCapabilities(", "= types.SimpleNamespace("),
    ),
    "test_what_is_stored_is_retrieved": (
        ("return content.values[key][0] if", "return bytearray(content.values[key][0]) if"),
    ),
    "test_any_bytes_are_a_key": (
        (STORE, f"        key = key[:255]\n{STORE}"),
        (
            "            return content.values[key][0]",
            "            key = key[:255]\n            return content.values[key][0]",
        ),
    ),
    "test_storing_again_replaces": (
        (STORE, f"        if not value and await self.exists(key):\n            return\n{STORE}"),
    ),
    "test_an_absent_key_is_told_from_an_empty_value": (
        (
            "            return key in content.values\n",
            "            return key in content.values and content.values[key][0] != b''\n",
        ),
    ),
    "test_deleting_removes_and_says_whether_there_was_something": (
        ("return content.values.pop(key, None) is not None", "content.values.pop(key, None)\n        return True"),
    ),
    "test_keys_are_listed_ascending": (
        ("        for key in keys:\n", "        for key in keys if prefix else sorted(keys, key=bytes.lower):\n"),
    ),
    "test_keys_are_listed_by_prefix": (("if key.startswith(prefix))", "if key.lower().startswith(prefix))"),),
    "test_keys_may_change_while_they_are_listed": (
        (
            "        for key in keys:\n            yield key\n",
            (
                "        for number in range(len(keys)):\n            with self.content() as content:\n"
                "                keys = sorted(key for key in content.values if key.startswith(prefix))\n"
                "            yield keys[number]\n"
            ),
        ),
    ),
    "test_each_change_gives_a_version_that_the_key_never_had": (
        ("        self.last_version += 1\n", "        self.last_version = self.version(key) + 1\n"),
    ),
    "test_store_if_needs_the_right_version": (
        NOT_SHARED,
        (STORE_IF, STORE_IF.replace("if content", "if expected_version and content")),
    ),
    "test_one_of_many_wins_store_if": (
        NOT_SHARED,
        (
            f"        with self.content() as content:\n{STORE_IF}",
            (
                "        if await self.version(key) != expected_version:\n            return None\n"
                "        await asyncio.sleep(0)\n        with self.content() as content:\n"
            ),
        ),
    ),
    "test_a_commit_applies_all_its_changes": (
        ("            for key in deletes:\n", "            for key in () if len(deletes) == 2 else deletes:\n"),
    ),
    "test_a_commit_that_fails_changes_nothing": (
        (
            "                yield content\n",
            "                try:\n                    yield content\n                finally:\n",
        ),
        (SAVE, SAVE.replace("    new", "        new").replace("    file", "        file")),
    ),
    "test_a_cancelled_commit_is_whole_or_not_at_all": (
        (
            COMMIT,
            (
                "        for key, value in {key: bytes(value) for key, value in puts.items()}.items():\n"
                "            await self.store(key, value)\n            await asyncio.sleep(0)\n"
                "        with self.content() as content:\n            for key, value in ():\n"
            ),
        ),
    ),
    "test_many_tasks_may_use_it_at_a_time": (
        (
            STORE,
            (
                f"{STORE}        await asyncio.sleep(0)\n        with self.content() as changed:\n"
                "            changed.values = content.values\n"
            ),
        ),
    ),
    "test_a_cancelled_store_leaves_the_old_value_or_the_new_one": (
        (STORE, f"{STORE.replace('value)', 'value[:1000])')}        await asyncio.sleep(0)\n{STORE}"),
    ),
    "test_closing_twice_is_allowed": ((CLOSED, f"        assert not self.closed\n{CLOSED}"),),
    "test_a_closed_store_raises_storage_error": (
        (
            '            raise StorageError(f"{self.path} is closed")\n',
            "            yield Content()\n            return\n",
        ),
    ),
    "test_closing_leaves_nothing_behind": (
        (CLOSED, f"{CLOSED}        self.task = asyncio.create_task(asyncio.Event().wait())\n"),
    ),
    "test_failures_are_storage_errors": (("except OSError", "except FileNotFoundError"),),
    "test_a_durable_store_outlives_its_provider": (
        NOT_SHARED,
        (CLOSED, f"{CLOSED}        if self.path.is_file():\n            self.path.unlink()\n"),
    ),
    "test_a_durable_store_outlives_its_process": (
        NOT_SHARED,
        ("        self.closed = False\n", "        self.closed = False\n        self.data: bytes | None = None\n"),
        (
            LOAD,
            (
                "                self.data = file.read() if self.data is None else self.data\n"
                "                content = self.load(self.data)\n"
            ),
        ),
        (SAVE, "                self.data = pickle.dumps(content)\n"),
        (
            CLOSED,
            f"{CLOSED}        if self.data and self.path.is_file():\n            self.path.write_bytes(self.data)\n",
        ),
    ),
    "test_processes_that_share_a_store_lose_no_change": (
        ("        self.closed = False\n", "        self.closed = False\n        self.data: bytes | None = None\n"),
        (
            LOAD,
            (
                "                self.data = file.read() if self.data is None else self.data\n"
                "                content = self.load(self.data)\n"
            ),
        ),
        (SAVE, f"{SAVE}                self.data = new\n"),
    ),
}


# No breach: it keeps every rule, as long as nobody forks.
NOT_FORK_SAFE = {
    "not_fork_safe": (
        ("import fcntl\n", "import fcntl\nimport os\n"),
        ("class ToyStorage(", "PROCESS = os.getpid()\n\n\nclass ToyStorage("),
        ("        self.closed = False\n", "        assert os.getpid() == PROCESS\n        self.closed = False\n"),
        ("(StorageContract):\n", "(StorageContract):\n    is_fork_safe = False\n\n"),
    )
}


@pytest.fixture(scope="module")
def outcomes(outcomes_of: Callable[..., Outcomes]) -> Outcomes:
    return outcomes_of("storage", BREACHES | NOT_FORK_SAFE)


def test_each_rule_has_a_breach() -> None:
    assert set(BREACHES) == set(StorageContract.rules())


def test_an_honest_store_keeps_every_rule(outcomes: Outcomes) -> None:
    assert outcomes["honest"] == dict.fromkeys(StorageContract.rules(), "passed")


def test_a_store_that_is_not_fork_safe_is_used_by_processes_that_begin_from_scratch(outcomes: Outcomes) -> None:
    assert outcomes["not_fork_safe"] == dict.fromkeys(StorageContract.rules(), "passed")


@pytest.mark.parametrize("rule", BREACHES)
def test_a_breach_is_found_by_its_rule_alone(rule: str, outcomes: Outcomes) -> None:
    assert broken(outcomes[rule]) == [rule], outcomes[rule]


def broken(outcomes: Mapping[str, str]) -> list[str]:
    return [rule for rule, outcome in outcomes.items() if outcome not in {"passed", "skipped"}]
