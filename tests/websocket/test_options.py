from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Any

import attrs
import pytest

from stt_core.errors import ConfigError
from stt_websocket import CloseCode, WebSocketOptions
from stt_websocket.heads import MAX_FIELDS, MAX_HEAD_SIZE

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "websocket.md").read_text(encoding="utf-8")
FIELDS = {field.name: field for field in attrs.fields(WebSocketOptions)}


def rows(heading: str) -> dict[str, str]:
    """Return the first two cells of each row of the first table of a section."""
    section = PAGE[PAGE.index(f"## {heading}") :]
    table = section[section.index("\n| --- ") :].split("\n\n")[0]
    return {row[1].strip(" `"): row[2].strip() for line in table.splitlines()[2:] if (row := line.split("|"))}


def shown(value: object) -> str:
    if value == frozenset():
        return "empty"
    if isinstance(value, int) and value % 1024 == 0 and value >= 1024 * 1024:
        return f"{value // 1024 // 1024} MiB"
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def test_every_option_is_on_the_page_with_its_default() -> None:
    documented = rows("Options")

    assert documented == {name: shown(field.default) for name, field in FIELDS.items()}


@pytest.mark.parametrize("name", [name for name, field in FIELDS.items() if isinstance(field.default, int | float)])
def test_an_option_out_of_its_range_is_refused(name: str) -> None:
    values: tuple[Any, ...] = (0, -1, float("nan"))
    for value in values:
        with pytest.raises(ConfigError, match=name):
            WebSocketOptions(**{name: value})


def test_close_codes_of_the_page_are_the_ones_that_are_sent() -> None:
    assert set(rows("Close codes")) <= {str(code.value) for code in CloseCode}


def test_limits_of_the_page_are_those_of_the_code() -> None:
    assert rows("Limits")["request or response before the WebSocket"] == "16 KiB, 100 fields"
    assert (MAX_HEAD_SIZE, MAX_FIELDS) == (16 * 1024, 100)


def test_variables_of_the_page_are_those_of_the_code() -> None:
    sources = Path(__file__).parents[2] / "plugins" / "stt_websocket" / "src" / "stt_websocket"
    used = {name for path in sources.glob("*.py") for name in re.findall(r"STT_WEBSOCKET_[A-Z]+", path.read_text())}

    assert {name for name in rows_of_variables() if name.startswith("STT_")} == used


def rows_of_variables() -> list[str]:
    return re.findall(r"^\| `([A-Za-z_]+)`", PAGE, re.MULTILINE)


def test_lists_of_the_environment_are_read() -> None:
    options = WebSocketOptions.from_environment(
        {"STT_WEBSOCKET_HOSTS": "Example.org, [::1]:8080", "STT_WEBSOCKET_ORIGINS": "https://Example.org"}
    )

    assert options.allowed_hosts == frozenset({"example.org", "[::1]:8080"})
    assert options.allowed_origins == frozenset({"https://example.org"})


def test_an_asterisk_in_the_environment_allows_all() -> None:
    options = WebSocketOptions.from_environment({"STT_WEBSOCKET_ORIGINS": "*", "STT_WEBSOCKET_HOSTS": "a,*"})

    assert options.allowed_origins is None
    assert options.allowed_hosts is None


def test_an_empty_environment_gives_the_defaults() -> None:
    assert WebSocketOptions.from_environment({}) == WebSocketOptions()


def test_tls_contexts_do_not_show_in_the_repr() -> None:
    assert "SSLContext" not in repr(WebSocketOptions(client_tls=ssl.create_default_context()))
