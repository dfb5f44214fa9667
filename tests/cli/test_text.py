"""Can what a peer says steer a terminal?"""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_cli.text import printable


@given(st.text(st.characters()))
def test_nothing_unprintable_is_left(text: str) -> None:
    shown = printable(text)

    assert not {unicodedata.category(character) for character in shown if character not in "\u200c\u200d"} & {
        "Cc",
        "Cf",
        "Cs",
        "Zl",
        "Zp",
    }
    shown.encode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, Überweisung", "plain text, Überweisung"),
        ("\x1b[2Jgone\r\n", "\\x1b[2Jgone\\r\\n"),
        ("photo\u202egpj", "photo\\u202egpj"),
        ("\ud800", "\\ud800"),
        ("\U0001f468\u200d\U0001f469", "\U0001f468\u200d\U0001f469"),
    ],
)
def test_text_is_shown_as_it_is_and_the_rest_as_escapes(text: str, shown: str) -> None:
    assert printable(text) == shown
