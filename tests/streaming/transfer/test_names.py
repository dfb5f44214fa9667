"""Does any text become one harmless file name, a harmless one stay as it is, and a link stay inside its folder?"""

from __future__ import annotations

import ntpath
import posixpath
import re
import unicodedata
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stt_streaming.transfer.names import (
    MAX_NAME_SIZE,
    UNNAMED,
    FolderNames,
    clean_name,
    is_inside,
    numbered_name,
)

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

HOSTILE_PARTS = (
    *("..", ".", "/", "\\", ":", "C:", "~", "-rf", "con", "NUL", "com1", "LPT\u00b9", "$", " ", "\u00a0", "\t", "\n"),
    *("\x00", "\x1b[2J", "\x7f", "\x9b", "\u202e", "\u2066", "\u200d", "\u200c", "\u2028", "\ud800", "\u0301", "e"),
    *("a" * 199, "\u00e9" * 100, "\U0001f468", ".txt", ".tar.gz", "x" * 40, "*", "?", '"', "<", ">", "|", "\uff0f"),
)
DEVICE = re.compile(
    r"(con|prn|aux|nul|clock\$|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3])\s*(\..*)?", re.IGNORECASE
)

hostile_names: SearchStrategy[str] = st.one_of(
    st.text(st.characters(), max_size=300),
    st.lists(st.sampled_from(HOSTILE_PARTS), max_size=20).map("".join),
)


@given(hostile_names)
@example("con" + " " * 300 + "x.txt")
@example("." * 300)
@example("\u200d")
def test_a_cleaned_name_is_one_part_of_a_path_on_every_platform(name: str) -> None:
    cleaned = clean_name(name)

    assert posixpath.basename(posixpath.normpath(cleaned)) == cleaned
    assert ntpath.basename(ntpath.normpath(cleaned)) == cleaned
    assert Path("/inbox", cleaned).parent == Path("/inbox")
    assert PureWindowsPath("D:/inbox", cleaned).parent == PureWindowsPath("D:/inbox")
    assert not DEVICE.fullmatch(cleaned)


@given(hostile_names)
def test_a_cleaned_name_is_short_normal_and_printable(name: str) -> None:
    cleaned = clean_name(name)

    assert 0 < len(cleaned.encode()) <= MAX_NAME_SIZE
    assert unicodedata.is_normalized("NFC", cleaned)
    assert not {unicodedata.category(character) for character in cleaned if character not in "\u200c\u200d"} & {
        "Cc",
        "Cf",
        "Cs",
        "Zl",
        "Zp",
    }
    assert cleaned == cleaned.strip()
    assert not cleaned.startswith((".", "-"))
    assert not cleaned.endswith(".")


@given(hostile_names)
def test_cleaning_a_cleaned_name_changes_nothing(name: str) -> None:
    cleaned = clean_name(name)

    assert clean_name(cleaned) == cleaned


@given(hostile_names, st.integers(1, 999))
def test_a_numbered_name_is_as_harmless_and_fits_any_file_system(name: str, number: int) -> None:
    numbered = numbered_name(clean_name(name), number)

    assert posixpath.basename(ntpath.basename(numbered)) == numbered
    assert not numbered.startswith((".", "-"))
    assert not DEVICE.fullmatch(numbered)
    assert len(numbered.encode()) <= 255
    assert f"({number})" in numbered


@pytest.mark.parametrize(
    "name",
    [
        "report.pdf",
        "two words and more.txt",
        "archive.tar.gz",
        "Überweisung für März.ods",
        "写真 2026.jpg",
        "\u0633\u0644\u0627\u0645\u200c\u0647\u0627.txt",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467.png",
        "no extension",
        "a",
        "console.log",
        "x" * MAX_NAME_SIZE,
    ],
)
def test_a_harmless_name_stays_as_it_is(name: str) -> None:
    assert clean_name(name) == name


@pytest.mark.parametrize(
    ("name", "cleaned"),
    [
        ("", UNNAMED),
        ("/", UNNAMED),
        ("..", UNNAMED),
        ("../../etc/passwd", "passwd"),
        ("/etc/shadow", "shadow"),
        ("..\\..\\windows\\system.ini", "system.ini"),
        ("C:\\autoexec.bat", "autoexec.bat"),
        ("C:evil.exe", "C_evil.exe"),
        ("notes.txt:hidden", "notes.txt_hidden"),
        ("folder/", "folder"),
        (".bashrc", "_bashrc"),
        ("...x", "___x"),
        ("-rf", "_rf"),
        ("CON", "_CON"),
        ("nul.txt", "_nul.txt"),
        ("com1 .log", "_com1 .log"),
        ("LPT\u00b9.txt", "_LPT\u00b9.txt"),
        ("trailing. . ", "trailing"),
        ("a\x00b", "a_b"),
        ("\x1b]0;owned\x07.txt", "_]0;owned_.txt"),
        ("photo\u202egpj.exe", "photo_gpj.exe"),
        ("two\nlines", "two_lines"),
        ("wide\u00a0space", "wide space"),
        ("e\u0301.txt", "\u00e9.txt"),
        ("\ud800.txt", "_.txt"),
        ("x" * 300 + ".pdf", "x" * 196 + ".pdf"),
        ("\u00e9" * 300 + ".pdf", "\u00e9" * 98 + ".pdf"),
        ("x." + "y" * 300, "x." + "y" * 198),
        ("con" + " " * 300 + "x.txt", "_con.txt"),
    ],
)
def test_a_hostile_name_is_cleaned(name: str, cleaned: str) -> None:
    assert clean_name(name) == cleaned


@pytest.mark.parametrize(
    ("name", "numbered"),
    [("report.pdf", "report (1).pdf"), ("plain", "plain (1)"), ("archive.tar.gz", "archive.tar (1).gz")],
)
def test_the_number_goes_before_the_extension(name: str, numbered: str) -> None:
    assert numbered_name(name, 1) == numbered


# Names inside a folder


@given(hostile_names)
def test_a_name_inside_a_folder_may_be_hidden_and_is_harmless_otherwise(name: str) -> None:
    cleaned = clean_name(name, hidden=True)

    assert clean_name(cleaned, hidden=True) == cleaned
    assert cleaned not in (".", "..")
    assert posixpath.basename(ntpath.basename(cleaned)) == cleaned
    assert not cleaned.startswith("-")
    assert 0 < len(cleaned.encode()) <= MAX_NAME_SIZE
    assert not DEVICE.fullmatch(cleaned)


def test_hidden_names_stay_only_inside_a_folder() -> None:
    assert clean_name(".gitignore", hidden=True) == ".gitignore"
    assert clean_name(".gitignore") == "_gitignore"


@given(st.lists(hostile_names, max_size=30))
def test_names_in_one_folder_are_told_apart_on_every_file_system(names: list[str]) -> None:
    folder_names = FolderNames()

    claimed = [folder_names.claim(0, name) for name in names]

    assert len({unicodedata.normalize("NFD", name).casefold() for name in claimed}) == len(names)
    for name in claimed:
        assert posixpath.basename(ntpath.basename(name)) == name
        assert not DEVICE.fullmatch(name)


def test_the_same_name_may_be_in_two_folders_and_the_same_names_are_numbered_alike_again() -> None:
    names = ["a.txt", "A.TXT", "a (1).txt", "e\u0301", "\u00c9", "stra\u00dfe", "STRASSE"]
    first, second = FolderNames(), FolderNames()

    assert [first.claim(1, name) for name in names] == [
        "a.txt",
        "A (1).TXT",
        "a (1) (1).txt",
        "\u00e9",
        "\u00c9 (1)",
        "stra\u00dfe",
        "STRASSE (1)",
    ]
    assert first.claim(2, "a.txt") == "a.txt"
    assert [second.claim(1, name) for name in names[:2]] == ["a.txt", "A (1).TXT"]


def test_very_many_equal_names_take_no_more_than_linear_time() -> None:
    folder_names = FolderNames()

    claimed = [folder_names.claim(0, "..") for _ in range(20_000)]

    assert len(set(claimed)) == 20_000


# Where links lead

target_parts = st.sampled_from(["..", ".", "", "a", "b", "c", "link", "a:b", "C:"])


@given(st.lists(target_parts, min_size=1, max_size=8).map("/".join), st.integers(0, 4))
def test_a_link_that_is_inside_stays_so_whatever_it_passes_through(target: str, depth: int) -> None:
    if not is_inside(target, depth):
        return

    place = depth
    for part in target.split("/"):
        place += -1 if part == ".." else 1
        assert place >= 0
    assert ".." not in target.lstrip("./").split("/")
    assert not target.startswith("/")


@pytest.mark.parametrize(
    ("target", "depth", "inside"),
    [
        ("a", 0, True),
        ("a/b", 0, True),
        ("../a", 1, True),
        ("..", 1, True),
        ("../..", 2, True),
        ("../a", 0, False),
        ("a/../b", 3, False),
        ("/etc/passwd", 5, False),
        ("C:/x", 5, False),
        ("..\\..\\x", 1, False),
        ("", 5, False),
        (".", 5, False),
        ("a//b", 5, False),
        ("a\nb", 5, False),
        ("a\x00", 5, False),
    ],
)
def test_a_link_may_climb_and_then_descend_but_not_out(target: str, depth: int, *, inside: bool) -> None:
    assert is_inside(target, depth) is inside
