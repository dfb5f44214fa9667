"""Text that is safe to show: what peers say cannot steer a terminal."""

from __future__ import annotations

from typing import Final

# Not printable to Python, but part of how Persian, the Indic scripts and emoji are written.
_JOINERS: Final = "\u200c\u200d"


def printable(text: str) -> str:
    r"""Return text with every control character, bidirectional override and the like written as an escape: ``\x1b``."""
    return "".join(
        character
        if character.isprintable() or character in _JOINERS
        else character.encode("unicode_escape", "surrogatepass").decode("ascii")
        for character in text
    )
