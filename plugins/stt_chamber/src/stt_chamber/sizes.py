"""Sizes as people write them: ``500M``, ``2Gi``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from collections.abc import Mapping

_UNITS: Final[Mapping[str, int]] = {"": 1} | {
    letter + suffix: base**exponent
    for exponent, letter in enumerate("KMGT", 1)
    for suffix, base in (("", 1000), ("i", 1024))
}


def parse_size(_: click.Context, __: click.Parameter, text: str | None) -> int | None:
    """Return the bytes that an option asks for; a callback of click.

    Raises:
        BadParameter: It is no size.
    """
    if text is None:
        return None
    number = text.rstrip("KMGTi")
    unit = text[len(number) :]
    if not number.isdecimal() or unit not in _UNITS:
        raise click.BadParameter(f"{text!r} is no size, such as 500M or 2G")
    return int(number) * _UNITS[unit]
