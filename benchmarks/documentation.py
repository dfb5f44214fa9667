"""Puts generated text between the markers of a page: ``<!-- benchmarks: NAME -->`` and ``<!-- end -->``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def fill_in(page: str, sections: Mapping[str, str]) -> str:
    """Return the page with the text of each section between its markers.

    Raises:
        ValueError: A section has no markers, or markers no section.
    """
    found = set()

    def replace(match: re.Match[str]) -> str:
        name = match[1]
        found.add(name)
        if name not in sections:
            raise ValueError(f"there is no section {name!r}")
        return f"<!-- benchmarks: {name} -->\n\n{sections[name]}\n\n<!-- end -->"

    filled = re.sub(r"<!-- benchmarks: (\S+) -->.*?<!-- end -->", replace, page, flags=re.DOTALL)
    if left_out := sections.keys() - found:
        raise ValueError(f"the page has no markers for {', '.join(sorted(left_out))}")
    return filled
