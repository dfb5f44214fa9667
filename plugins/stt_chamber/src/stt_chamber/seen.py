"""Which state of each chamber this user's commands have seen last, so that an earlier one is noticed."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
from typing import TYPE_CHECKING, Any

import platformdirs

from stt_chamber.files import create_private
from stt_chamber.root import Position
from stt_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class SeenPosition:
    """The position of one chamber, in a file of its own under the user's data folder.

    A replica that was synchronised has a file of its own besides, as it may be behind the others. A store that is not
    known as a replica is to show what was seen last, wherever it was.

    Args:
        chamber_id: 16 bytes.
        store: The URL of the store.
    """

    def __init__(self, chamber_id: bytes, store: str = "") -> None:
        self._chamber_id = chamber_id
        folder: Path = platformdirs.user_data_path("stt") / "chambers"
        # Hashed, as the URL may have a password.
        digest = hashlib.sha3_256(_absolute(store).encode(errors="surrogateescape")).hexdigest()[:32]
        self._path = folder / f"{chamber_id.hex()}.json"
        self._replica_path = folder / f"{chamber_id.hex()}.{digest}.json"

    def load(self) -> Position | None:
        """Return the position; None where none was kept.

        Raises:
            ConfigError: The file cannot be read.
        """
        return self._load(self._replica_path) or self._load(self._path)

    def save(self, position: Position) -> None:
        """Keep a position, unless another command has seen a later one meanwhile.

        Raises:
            ConfigError: It cannot be kept.
        """
        with _locked(self._path.parent):
            if self._load(self._replica_path) is not None:
                self._advance(self._replica_path, position)
            self._advance(self._path, position)

    def save_replica(self, position: Position) -> None:
        """Keep the position of a store that is a replica from now on, likewise.

        Raises:
            ConfigError: It cannot be kept.
        """
        with _locked(self._path.parent):
            self._advance(self._replica_path, position)
            self._advance(self._path, position)

    def forget(self) -> None:
        """Trust whatever the store shows next.

        Raises:
            ConfigError: A file cannot be removed.
        """
        for path in (self._replica_path, self._path):
            _remove(path)

    # Internals

    def _load(self, path: Path) -> Position | None:
        content = _read(path)
        if content is None:
            return None
        try:
            return Position(self._chamber_id, int(content["sequence"]), bytes.fromhex(content["digest"]))
        except (ValueError, KeyError, TypeError) as error:
            raise _unreadable(path, error) from None

    def _advance(self, path: Path, position: Position) -> None:
        last = self._load(path)
        if last is None or last.sequence < position.sequence:
            _write(path, {"sequence": position.sequence, "digest": position.digest.hex()})


class SeenPlace:
    """Which chamber lies at a place, in a file of its own, so that another one of the same owner there is noticed.

    Args:
        store: The URL of the store.
        name: The name of the chamber.
    """

    def __init__(self, store: str, name: str) -> None:
        # Hashed, as the URL may have a password; no URL has a zero byte.
        text = f"{_absolute(store)}\0{name}".encode(errors="surrogateescape")
        folder: Path = platformdirs.user_data_path("stt") / "chambers"
        self._path = folder / f"place.{hashlib.sha3_256(text).hexdigest()[:32]}.json"

    def load(self) -> bytes | None:
        """Return the id of the chamber that was seen last; None where there was none.

        Raises:
            ConfigError: The file cannot be read.
        """
        content = _read(self._path)
        try:
            return None if content is None else bytes.fromhex(content["chamber"])
        except (ValueError, KeyError, TypeError) as error:
            raise _unreadable(self._path, error) from None

    def save(self, chamber_id: bytes) -> None:
        """Keep which chamber it is.

        Raises:
            ConfigError: It cannot be kept.
        """
        if self.load() != chamber_id:
            _write(self._path, {"chamber": chamber_id.hex()})

    def forget(self) -> None:
        """Trust whatever chamber the store has next.

        Raises:
            ConfigError: The file cannot be removed.
        """
        _remove(self._path)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let no other command change what is kept, until the context ends."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (folder / "lock").open("ab") as file:  # to write, without which network file systems lock nothing
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise ConfigError(f"the state of the chamber cannot be kept in {folder}: {error.strerror}") from None


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> ConfigError:
    return ConfigError(f"{path} cannot be read ({error}): delete it to trust the store as it is")


def _write(path: Path, content: Any) -> None:
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = create_private(temporary)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise ConfigError(f"the state of the chamber cannot be kept as {path}: {error.strerror}") from None


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"{path} cannot be removed: {error.strerror}") from None


def _absolute(store: str) -> str:
    """Return a URL that tells the same store from wherever it is used."""
    scheme, _, path = store.partition("://")
    return f"{scheme}://{os.path.abspath(path)}" if scheme in ("sqlite", "file") else store  # noqa: PTH100  a text
