"""How Sphinx builds the documentation: `tox -e docs`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stt_core._version import __version__

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "STT"
project_copyright = "2026, the STT contributors"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["examples"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4

# A name of the core that is written in full must be on some page; the engine's are nobody's to rely on.
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(?!stt_core\.).*"),
    ("py:.*", r"stt_core\.engine\..*"),
    # Type variables, which have no entry of their own.
    ("py:class", r"stt_core\.(testing\.\w+\.(Place|_Storage)|subscriptions\.EventT)"),
]

# Only this: a short name that two modules have, such as FrameType, in a signature; the text beside it tells which.
suppress_warnings = ["ref.python"]

html_theme = "furo"
html_title = f"STT {__version__}"

autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False

attribute_texts: dict[str, list[str]] = {}


def keep_attribute(_app: Sphinx, what: str, name: str, _obj: object, _options: object, lines: list[str]) -> None:
    """Keep the text of an attribute: napoleon would take what is before its first colon for a type."""
    if what in {"attribute", "data", "property"} and "Raises:" not in lines:
        attribute_texts[name] = lines[:]


def restore_attribute(_app: Sphinx, _what: str, name: str, _obj: object, _options: object, lines: list[str]) -> None:
    lines[:] = attribute_texts.pop(name, lines)


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", keep_attribute, priority=100)
    app.connect("autodoc-process-docstring", restore_attribute, priority=900)
