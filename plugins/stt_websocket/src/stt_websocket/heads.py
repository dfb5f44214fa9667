"""The head of one HTTP/1.1 message, as far as an opening handshake needs it: within limits, and strictly."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import attrs

from stt_websocket.errors import UpgradeRefused

if TYPE_CHECKING:
    from stt_core.interfaces.transport import Buffer

MAX_HEAD_SIZE: Final = 16 * 1024
"""Bytes of a start line and all fields; nginx takes 32 KiB of a client, most servers 8 to 16."""

MAX_FIELDS: Final = 100
"""Fields in a head; Apache takes as many."""

# RFC 9110 sections 5.1 and 5.5, RFC 9112 section 5: no space before the colon, no folding, no control characters.
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*?)[ \t]*")
_START_LINE = re.compile(rb"[\x21-\x7e][\x20-\x7e\x80-\xff]*")


@attrs.frozen
class Head:
    """A start line, and fields with their names in lower case."""

    start_line: str
    fields: tuple[tuple[str, str], ...] = attrs.field(repr=False)

    def values(self, name: str) -> list[str]:
        """Return the values of all fields of that name."""
        return [value for field, value in self.fields if field == name]

    def tokens(self, name: str) -> list[str]:
        """Return the members of a field that is a comma-separated list, from all its lines."""
        members = ",".join(self.values(name)).split(",")
        return [member.strip(" \t") for member in members if member.strip(" \t")]


class HeadReader:
    """Collects the bytes of one head.

    Args:
        max_size: Bytes that it may have.
        max_fields: Fields that it may have.
    """

    def __init__(self, *, max_size: int = MAX_HEAD_SIZE, max_fields: int = MAX_FIELDS) -> None:
        self._max_size = max_size
        self._max_fields = max_fields
        self._data = bytearray()
        self.rest = b""
        """What came behind the head."""

    def receive_data(self, data: Buffer) -> Head | None:
        """Take bytes, cut anywhere; None while the head is not complete.

        Raises:
            UpgradeRefused: 400 for what is no HTTP/1.1 head, 431 for one beyond a limit.
        """
        searched = max(0, len(self._data) - 3)
        self._data += data
        end = self._data.find(b"\r\n\r\n", searched)
        if (end if end >= 0 else len(self._data)) > self._max_size:
            raise UpgradeRefused(431, f"a head above {self._max_size} bytes")
        if end < 0:
            return None
        self.rest = bytes(self._data[end + 4 :])
        lines = bytes(self._data[:end]).split(b"\r\n")
        self._data.clear()
        if len(lines) - 1 > self._max_fields:
            raise UpgradeRefused(431, f"more than {self._max_fields} header fields")
        if not _START_LINE.fullmatch(lines[0]):
            raise UpgradeRefused(400, "a malformed start line")
        return Head(lines[0].decode("latin-1"), tuple(_parse_field(line) for line in lines[1:]))


def _parse_field(line: bytes) -> tuple[str, str]:
    match = _FIELD.fullmatch(line)
    if match is None:
        raise UpgradeRefused(400, "a malformed header field")
    return match[1].decode("ascii").lower(), match[2].decode("latin-1")
