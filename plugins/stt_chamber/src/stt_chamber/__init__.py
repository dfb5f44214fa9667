"""An encrypted key-value store for what a program keeps, over SQLite, files or any storage of STT."""

from stt_chamber._version import __version__
from stt_chamber.chamber import Batch, Chamber, ChamberInfo, Metadata, ValueReader, ValueWriter
from stt_chamber.errors import (
    Conflict,
    DamagedError,
    KeyMissing,
    NoChamber,
    QuotaExceeded,
    RollbackDetected,
    WrongSecret,
)
from stt_chamber.keys import Passphrase, Seed
from stt_chamber.root import Position

__all__ = (
    "Batch",
    "Chamber",
    "ChamberInfo",
    "Conflict",
    "DamagedError",
    "KeyMissing",
    "Metadata",
    "NoChamber",
    "Passphrase",
    "Position",
    "QuotaExceeded",
    "RollbackDetected",
    "Seed",
    "ValueReader",
    "ValueWriter",
    "WrongSecret",
    "__version__",
)
