"""Where the seeds of a command come from: files, the environment, and the folder that keeps the node's own."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

import platformdirs

from stt_core import decode_seed, encode_seed, generate_seed
from stt_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

MAX_SEED_FILE_SIZE: Final = 64 * 1024
"""Bytes that are read of a seed file, so that a wrong path does no harm."""


def load_seeds(
    files: Sequence[Path], variable: str, environment: Mapping[str, str], warn: Callable[[str], None]
) -> tuple[bytes, ...]:
    """Return seeds: those of the files if there are any, else of the environment; none where it has none either.

    Args:
        files: As given on the command line.
        variable: The name of the environment variable that holds a seed's text; with ``_FILE`` behind, a path.
        environment: Where the variables are.
        warn: Told of a file that others can read.

    Raises:
        ConfigError: A file cannot be read, a text is no seed, or the environment says two things.
    """
    path_variable = f"{variable}_FILE"
    if files:
        return tuple(seed for path in files for seed in read_seed_file(path, warn))
    if environment.get(variable) and environment.get(path_variable):
        raise ConfigError(f"{variable} and {path_variable} are both set: which one is meant?")
    if text := environment.get(variable):
        return _decode_lines(text, variable)
    if path := environment.get(path_variable):
        return read_seed_file(Path(path), warn)
    return ()


def read_seed_file(path: Path, warn: Callable[[str], None]) -> tuple[bytes, ...]:
    """Return the seeds of a file: one a line; empty lines and those that begin with ``#`` do not count.

    Raises:
        ConfigError: It cannot be read, has no seed, or a line of it is none.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            content = file.read(MAX_SEED_FILE_SIZE + 1)
    except OSError as error:
        raise ConfigError(f"the seed file {path} cannot be read: {error.strerror}") from None
    if len(content) > MAX_SEED_FILE_SIZE:
        raise ConfigError(f"{path} is too large to be a seed file")
    if stat.S_ISREG(status.st_mode) and status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        warn(f"warning: others on this machine can read the seed file {path}: chmod 600 {path}")
    try:
        text = content.decode("ascii")
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is no seed file: 'stt keygen --out FILE' makes one") from None
    return _decode_lines(text, str(path))


def write_seed_file(path: Path, seed: bytes) -> None:
    """Write a seed to a new file that only its owner can read; it is there whole or not at all.

    Raises:
        FileExistsError: There is a file of that name; it is kept.
        OSError: It cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            os.write(descriptor, f"{encode_seed(seed)}\n".encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        # A hard link never replaces what is there: of two processes, one gets the name.
        os.link(temporary, path, follow_symlinks=False)
    finally:
        temporary.unlink()


def own_node_seed(warn: Callable[[str], None]) -> bytes:
    """Return the node seed that is kept under the user's data folder; made at first use.

    Processes that start at the same time get the same one.

    Raises:
        ConfigError: It cannot be read or kept.
    """
    path = platformdirs.user_data_path("stt") / "node.seed"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            # Should another process be faster, its seed is this node's, too.
            with contextlib.suppress(FileExistsError):
                write_seed_file(path, generate_seed())
    except OSError as error:
        raise ConfigError(
            f"the node's seed cannot be kept as {path} ({error.strerror}): give one with --node-seed FILE"
        ) from None
    return read_seed_file(path, warn)[0]


def _decode_lines(text: str, origin: str) -> tuple[bytes, ...]:
    lines = [line.strip() for line in text.splitlines()]
    try:
        seeds = tuple(decode_seed(line) for line in lines if line and not line.startswith("#"))
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from None
    if not seeds:
        raise ConfigError(f"{origin} has no seed: 'stt keygen --out FILE' makes one")
    return seeds
