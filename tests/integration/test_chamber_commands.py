"""Does ``stt chamber`` keep values, tell the truth of it, and end as it should if it cannot?"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Run = Any


@pytest.fixture
def run(stt: Any, tmp_path: Path) -> Callable[..., Any]:
    """Return what runs a sub-command on a chamber in a SQLite file."""
    stt.variables["STT_CHAMBER_STORE"] = f"sqlite://{tmp_path}/chamber.db"
    stt.variables["STT_SEED_FILE"] = str(stt.seed)

    def run(*words: str | Path) -> Any:
        return stt.run("chamber", *words)

    return run


def events(done: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_value_is_put_listed_got_and_deleted(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(300_000))
    target = tmp_path / "target"

    assert run("init").returncode == 0
    [stored] = events(run("put", "a/large", source, "--json"))
    assert (stored["event"], stored["key"], stored["size"]) == ("value", "a/large", 300_000)
    assert run("put", "b", source, "--ttl", "0").returncode == 0
    assert run("list", "a").stdout == "a/large\n"
    assert run("list").stdout == "a/large\n"  # the other one's time is over

    assert run("get", "a/large", "--out", target).returncode == 0
    assert target.read_bytes() == source.read_bytes()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600

    assert run("delete", "a/large").returncode == 0
    assert run("delete", "a/large").returncode == 1
    missing = run("get", "a/large", "--out", target)
    assert missing.returncode == 1
    assert "nothing is stored under 'a/large'" in missing.stderr
    assert target.read_bytes() == source.read_bytes()
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith(".target")} == set()


def test_standard_input_and_output_are_used_without_a_file(stt: Any, run: Run, tmp_path: Path) -> None:
    run("init")
    with (tmp_path / "in").open("w+b") as source:
        source.write(b"some text\n" * 1000)
        source.seek(0)
        assert stt.start("chamber", "put", "text", stdin=source).wait(30) == 0

    assert run("get", "text").stdout == "some text\n" * 1000


def test_a_reader_that_goes_away_ends_the_command(stt: Any, run: Run, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(3_000_000))
    run("init")
    run("put", "large", source)

    process = stt.start("chamber", "get", "large")
    process.stdout.close()

    assert process.wait(30) != 0
    assert "Traceback" not in process.stderr.read()


def test_what_does_not_open_it_is_told(run: Run, stt: Any, tmp_path: Path) -> None:
    assert "stt chamber init" in run("list").stderr
    run("init")
    assert run("init").returncode == 1
    other = tmp_path / "other.seed"
    stt.run("keygen", "--out", other)

    done = run("list", "--seed", other)

    assert done.returncode == 1
    assert "no seed or passphrase that was given opens this chamber" in done.stderr


def test_a_rekey_changes_what_opens_it(run: Run, tmp_path: Path) -> None:
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("correct horse\n")
    run("init")
    run("put", "key", passphrase)

    assert run("rekey").returncode == 2
    [rekeyed] = events(run("rekey", "--new-passphrase-file", passphrase, "--data", "--json"))

    assert (rekeyed["recipients"], rekeyed["epoch"]) == (1, 2)
    assert run("get", "key").returncode == 1
    assert run("get", "key", "--passphrase-file", passphrase).stdout == "correct horse\n"


def test_a_store_that_was_put_back_is_refused_until_that_is_accepted(run: Run, stt: Any, tmp_path: Path) -> None:
    run("init")
    shutil.copy(tmp_path / "chamber.db", tmp_path / "backup")
    run("put", "key", stt.seed)
    shutil.copy(tmp_path / "backup", tmp_path / "chamber.db")

    refused = run("list")

    assert refused.returncode == 1
    assert "earlier state" in refused.stderr
    assert run("info", "--accept-rollback").returncode == 0
    assert run("list").returncode == 0


def test_another_chamber_in_its_place_is_refused_until_that_is_accepted(run: Run, tmp_path: Path) -> None:
    run("init")
    (tmp_path / "chamber.db").rename(tmp_path / "first")
    run("init")
    assert run("list").returncode == 0
    (tmp_path / "first").replace(tmp_path / "chamber.db")

    refused = run("list")

    assert refused.returncode == 1
    assert "another chamber" in refused.stderr
    assert run("repair").returncode == 1
    assert run("info", "--accept-rollback").returncode == 0
    assert run("list").returncode == 0


def test_a_repair_goes_back_only_where_that_is_accepted(run: Run, stt: Any, tmp_path: Path) -> None:
    run("init")
    shutil.copy(tmp_path / "chamber.db", tmp_path / "backup")
    run("put", "key", stt.seed)
    shutil.copy(tmp_path / "backup", tmp_path / "chamber.db")

    refused = run("repair")

    assert refused.returncode == 1
    assert "was seen" in refused.stderr
    assert run("list").returncode == 1
    assert run("repair", "--accept-rollback").returncode == 0
    assert run("list").stdout == ""


def test_damage_is_found_and_repaired(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(100_000))
    run("init")
    run("put", "large", source)
    run("put", "small", tmp_path / "our.seed")
    assert run("check").returncode == 0
    with sqlite3.connect(tmp_path / "chamber.db") as database:
        database.execute("update entries set value = x'00' where length(value) = 61456")
    database.close()

    checked = run("check", "--json")
    assert checked.returncode == 1
    assert [(event["event"], event.get("what")) for event in events(checked)] == [
        ("damage", "large"),
        ("checked", None),
    ]
    repaired = run("repair", "--json")
    assert repaired.returncode == 1
    assert [(event["event"], event.get("what")) for event in events(repaired)] == [
        ("lost", "large"),
        ("repaired", None),
    ]

    assert run("check").returncode == 0
    assert run("list").stdout == "small\n"


def test_an_export_is_the_chamber_in_another_store(run: Run, stt: Any, tmp_path: Path) -> None:
    run("init", "--quota", "1M")
    run("put", "key", stt.seed)
    exported = tmp_path / "exported"

    assert run("export", exported).returncode == 0
    assert run("export", exported).returncode == 1  # it is kept
    store = f"file://{tmp_path}/folder"
    assert run("import", exported, "--store", store).returncode == 0

    assert run("get", "key", "--store", store).stdout == stt.seed.read_text()
    [info] = events(run("info", "--store", store, "--json"))
    assert (info["values"], info["quota"]) == (1, 1_000_000)
    for size in ("much", "1k", "Gi", "-1"):
        assert run("init", "--quota", size).returncode == 2
