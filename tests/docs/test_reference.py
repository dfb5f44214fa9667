"""Is every setting, error and code on its page, as it is in the code?"""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path
from typing import Any

import attrs
import pytest

import stt_core
from stt_core import errors
from stt_core.config import STTConfig
from stt_core.errors import ConfigError, ConnectReason, ErrorCode

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"


def page(name: str) -> str:
    return (REFERENCE / f"{name}.md").read_text(encoding="utf-8")


def rows(text: str) -> list[list[str]]:
    """Return the cells of all rows of the tables of a page that begin with a `code` or a number."""
    lines = [line for line in text.splitlines() if re.match(r"\| [`\d]", line)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def number(text: str) -> float:
    if text.endswith(" MiB"):
        return int(text.removesuffix(" MiB")) * 1024 * 1024
    value = ast.literal_eval(text.replace(",", ""))
    assert isinstance(value, int | float)
    return value


SETTINGS = {row[0].strip("`"): row[1:] for row in rows(page("configuration"))}
FIELDS = {field.name: field for field in attrs.fields(STTConfig)}


def test_every_setting_is_on_the_page_and_no_other() -> None:
    assert list(SETTINGS) == list(FIELDS)


@pytest.mark.parametrize("name", FIELDS)
def test_the_default_of_a_setting_is_the_one_on_the_page(name: str) -> None:
    default = FIELDS[name].default
    documented = SETTINGS[name][0]

    if isinstance(default, bool) or default is None:
        assert documented == str(default)
    elif isinstance(default, int | float):
        assert number(documented) == default
    else:
        assert documented == (default or "empty")


RANGES = {
    name: (number(match[2]), number(match[3]) if match[3] else None)
    for name, cells in SETTINGS.items()
    if (match := re.fullmatch(r"(at least )?([\d.,]+)(?: to ([\d.,]+(?: MiB)?))?", cells[2]))
}


@pytest.mark.parametrize("name", [name for name, field in FIELDS.items() if type(field.default) in {int, float}])
def test_the_range_of_a_setting_is_the_one_on_the_page(name: str) -> None:
    lowest, highest = RANGES[name]

    def configure(value: Any) -> None:
        STTConfig(**{name: value})

    configure(lowest)
    with pytest.raises(ConfigError, match=name):
        configure(lowest - 0.001)
    if highest is not None:
        configure(highest)
        with pytest.raises(ConfigError, match=name):
            configure(highest + 0.001)


def test_the_tree_of_errors_on_the_page_is_the_one_of_the_module() -> None:
    (tree,) = re.findall(r"^```text\n(STTError.*?)^```$", page("errors"), re.DOTALL | re.MULTILINE)

    assert textwrap.indent(tree, "    ") in (errors.__doc__ or "")


def test_the_tree_of_errors_is_that_of_the_classes() -> None:
    tree: list[tuple[str, str]] = []
    parents = ["Exception"]
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ((?:[|` ] {3}|\|   )*)(?:[|`]-- )?([A-Z]\w+)(?:  |$)", line)
        if match:
            depth = (line.index(match[2]) - 4) // 4 + 1
            parents[depth:] = [match[2]]
            tree.append((match[2], parents[depth - 1]))

    classes = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert tree == [(value.__name__, value.__bases__[0].__name__) for value in classes]


def test_every_exception_is_described_on_the_page() -> None:
    described = re.findall(r"^\.\. autoexception:: stt_core\.errors\.(\w+)$", page("errors"), re.MULTILINE)

    classes = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert described == [value.__name__ for value in classes]


def test_every_code_is_on_the_page() -> None:
    codes = {int(row[0]): row[1].strip("`") for row in rows(page("errors")) if row[0].isdigit()}

    assert codes == {code.value: code.name for code in ErrorCode}


def test_every_reason_is_on_the_page() -> None:
    reasons = {row[0].strip("`"): row[1].strip("`") for row in rows(page("errors")) if row[0].startswith("`")}

    assert reasons == {reason.name: reason.value for reason in ConnectReason}


def test_every_public_name_of_the_core_is_described() -> None:
    described = set(
        re.findall(r"^\.\. auto\w+:: stt_core(?:\.errors)?\.(\w+)", page("api") + page("errors"), re.MULTILINE)
    )

    assert set(stt_core.__all__) - described == {"__version__", "hookimpl"}
