"""The names under which received files may be stored, and where a received symbolic link may lead.

Any text becomes one harmless file name; the same text gives the same name on every platform, since folders are shared,
copied and carried between them.
"""

from __future__ import annotations

import unicodedata
from typing import Final

MAX_NAME_SIZE: Final = 200
"""Bytes of UTF-8 that a cleaned name has at most: file systems take 255, and a number may have to be put in."""

MAX_NUMBERED_SIZE: Final = 255
"""Bytes that it has at most with its number."""

UNNAMED: Final = "unnamed"
"""The name of a file whose own name has nothing that could be kept."""

_REPLACEMENT: Final = "_"
_MAX_SUFFIX_SIZE: Final = 32

# Cc control characters, Cf invisible ones that change how text is shown (bidirectional overrides), Cs lone surrogates,
# Zl and Zp line ends. The joiners are Cf too, but Persian, the Indic scripts and emoji are misspelt without them.
_UNSHOWN_CATEGORIES: Final = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
_JOINERS: Final = "\u200c\u200d"
_DROPPED_IN_FRONT: Final = " " + _JOINERS
_DROPPED_AT_THE_END: Final = ". " + _JOINERS

# Refused by Windows; the colon also begins a stream of NTFS and ends a drive letter.
_WINDOWS_RESERVED: Final = frozenset('<>:"|?*')

# https://learn.microsoft.com/windows/win32/fileio/naming-a-file: with any extension, in any case.
_DEVICE_NAMES: Final = frozenset(
    ["CON", "PRN", "AUX", "NUL", "CLOCK$", "CONIN$", "CONOUT$"]
    + [f"{device}{number}" for device in ("COM", "LPT") for number in "0123456789\u00b9\u00b2\u00b3"]
)


def clean_name(name: str, *, hidden: bool = False, max_size: int = MAX_NAME_SIZE) -> str:
    r"""Return a file name made from what a peer calls its file.

    What precedes the last ``/`` or ``\`` is dropped; unprintable characters and those that Windows reserves become
    ``_``; so do leading dots and hyphens, since a hidden file could configure a shell and a hyphen begins an option.
    Every kind of space becomes a plain one; spaces and joiners around the name go, and trailing dots. Names of Windows
    devices get a ``_`` in front. The result is in Unicode's NFC and at most ``max_size`` bytes long, its extension
    kept.

    Args:
        name: Any text.
        hidden: Whether leading dots stay, as is right for what lies inside a received folder.
        max_size: Bytes of UTF-8; more than those of an extension.

    Returns:
        The name, never empty; cleaning it again changes nothing.
    """
    name = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    name = unicodedata.normalize("NFC", name)
    name = "".join(_plain(character) for character in name)
    name = _without_edges(name, "-" if hidden else ".-")
    name = _beside_devices(name)
    # Cutting can bring out a device: "con", many blanks, then more.
    name = _beside_devices(_shortened(name, max_size))
    return name or UNNAMED


def numbered_name(name: str, number: int) -> str:
    """Return a cleaned name with a number before its extension: ``report.pdf`` and 1 give ``report (1).pdf``."""
    stem, suffix = _split(name)
    return f"{stem} ({number}){suffix}"


class FolderNames:
    """The names that entries of one item have in the folders of the receiver.

    What differs only in case, or in the way that Unicode writes it, is one name on some file systems: all but the first
    get a number, so that the same manifest gives the same names everywhere.
    """

    def __init__(self) -> None:
        self._next_numbers: dict[tuple[int, str], int] = {}

    def claim(self, folder: int, name: str) -> str:
        """Return the cleaned name for an entry of a folder, which no other entry there has.

        Args:
            folder: The index of the folder.
            name: As the sender calls the entry.
        """
        cleaned = clean_name(name, hidden=True)
        base = (folder, _folded(cleaned))
        number = self._next_numbers.get(base, 0)
        chosen, key = cleaned, base
        # A number is tried once for each base, so that many equal names take no more than linear time.
        while key in self._next_numbers:
            chosen = numbered_name(cleaned, number)
            key = (folder, _folded(chosen))
            number += 1
        self._next_numbers[base] = max(number, 1)
        self._next_numbers.setdefault(key, 1)
        return chosen


def is_inside(target: str, depth: int) -> bool:
    """Return whether a symbolic link leads nowhere out of the folder that was received.

    It may climb first and then descend, but not climb again: what it descends through may be another link, from which
    ``..`` leads elsewhere than the text says.

    Args:
        target: Where the link points.
        depth: Folders between the received one and the one with the link; 0 if the link lies in the received folder.
    """
    if not target or any(unicodedata.category(character) in _UNSHOWN_CATEGORIES for character in target):
        return False
    parts = target.replace("\\", "/").split("/")
    climbed = 0
    while climbed < len(parts) and parts[climbed] == "..":
        climbed += 1
    # An empty part begins an absolute path, a colon ends a drive letter.
    return climbed <= depth and not any(part in ("", ".", "..") or ":" in part for part in parts[climbed:])


def _folded(name: str) -> str:
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


def _plain(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Zs":
        return " "
    if character in _WINDOWS_RESERVED or (category in _UNSHOWN_CATEGORIES and character not in _JOINERS):
        return _REPLACEMENT
    return character


def _without_edges(name: str, replaced: str) -> str:
    # Windows drops trailing dots and blanks by itself, and would so make one name of two.
    name = name.lstrip(_DROPPED_IN_FRONT).rstrip(_DROPPED_AT_THE_END)
    kept = name.lstrip(replaced)
    return _REPLACEMENT * (len(name) - len(kept)) + kept


def _beside_devices(name: str) -> str:
    return _REPLACEMENT + name if name.partition(".")[0].rstrip(" ").upper() in _DEVICE_NAMES else name


def _shortened(name: str, max_size: int) -> str:
    if len(name.encode()) <= max_size:
        return name
    stem, suffix = _split(name)
    room = max_size - len(suffix.encode())
    return stem.encode()[:room].decode(errors="ignore").rstrip(_DROPPED_AT_THE_END) + suffix


def _split(name: str) -> tuple[str, str]:
    stem, dot, suffix = name.rpartition(".")
    if not stem or len(suffix.encode()) >= _MAX_SUFFIX_SIZE:
        return name, ""
    return stem, dot + suffix
