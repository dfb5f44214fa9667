"""Which state of each chamber this user's commands have seen last, so that an earlier one is noticed."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from typing import TYPE_CHECKING

import platformdirs

from stt_chamber.root import Position
from stt_core.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


class SeenPosition:
    """The position of one chamber, in a file of its own under the user's data folder.

    Args:
        chamber_id: 16 bytes.
    """

    def __init__(self, chamber_id: bytes) -> None:
        self._chamber_id = chamber_id
        self._path: Path = platformdirs.user_data_path("stt") / "chambers" / f"{chamber_id.hex()}.json"

    def load(self) -> Position | None:
        """Return the position; None where none was kept.

        Raises:
            ConfigError: The file cannot be read.
        """
        try:
            content = json.loads(self._path.read_bytes())
            return Position(self._chamber_id, int(content["sequence"]), bytes.fromhex(content["digest"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{self._path} cannot be read ({error}): delete it to trust the store as it is") from None

    def save(self, position: Position) -> None:
        """Keep a position.

        Raises:
            ConfigError: It cannot be kept.
        """
        temporary = self._path.with_name(f"{self._path.name}.{secrets.token_hex(8)}")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(descriptor, "w", encoding="ascii") as file:  # noqa: PTH123  of a descriptor, for its permissions
                json.dump({"sequence": position.sequence, "digest": position.digest.hex()}, file)
                file.flush()
                os.fsync(descriptor)
            temporary.replace(self._path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise ConfigError(f"the state of the chamber cannot be kept as {self._path}: {error.strerror}") from None

    def forget(self) -> None:
        """Trust whatever the store shows next.

        Raises:
            ConfigError: The file cannot be removed.
        """
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(f"{self._path} cannot be removed: {error.strerror}") from None
