"""An encrypted key-value store for what a program keeps, over SQLite, files or any storage of STT."""

from stt_chamber._version import __version__
from stt_chamber.batch import Batch
from stt_chamber.chamber import Chamber, ChamberInfo, Metadata
from stt_chamber.errors import (
    Conflict,
    DamagedError,
    KeyMissing,
    NoChamber,
    NotAReplica,
    QuotaExceeded,
    RollbackDetected,
    StoreFull,
    StoreRefused,
    WrongSecret,
)
from stt_chamber.keys import Passphrase, Seed
from stt_chamber.reader import ValueReader
from stt_chamber.root import Position
from stt_chamber.writer import ValueWriter

__all__ = (
    "Batch",
    "Chamber",
    "ChamberInfo",
    "Conflict",
    "DamagedError",
    "KeyMissing",
    "Metadata",
    "NoChamber",
    "NotAReplica",
    "Passphrase",
    "Position",
    "QuotaExceeded",
    "RollbackDetected",
    "Seed",
    "StoreFull",
    "StoreRefused",
    "ValueReader",
    "ValueWriter",
    "WrongSecret",
    "__version__",
)
