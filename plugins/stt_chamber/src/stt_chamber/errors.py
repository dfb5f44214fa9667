"""What a chamber raises, as branches of STT's one tree of exceptions.

::

    STTError
    |-- LocalError
    |   |-- KeyMissing             nothing is stored under the key
    |   |-- Conflict               another change came first
    |   |-- NotAReplica            two stores hold different chambers
    |   `-- QuotaExceeded          the chamber would hold more than it may
    |-- CryptoError
    |   `-- WrongSecret            the seed or passphrase opens nothing here
    `-- StorageError               the backend failed: full, read-only, locked or gone
        |-- NoChamber              there is none in this store
        |-- StoreRefused           the peer that has the store does not allow it
        |-- StoreFull              the store of the peer has no room
        `-- DamagedError           something is missing, changed or no chamber's
            `-- RollbackDetected   it is genuine, but older than what was seen before

Whoever catches :class:`~stt_core.errors.StorageError` has all that is wrong with a store.
"""

from __future__ import annotations

from stt_core.errors import CryptoError, LocalError, StorageError


class KeyMissing(LocalError):
    """Nothing is stored under a key, or what was stored has expired.

    Attributes:
        key: The key.
    """

    def __init__(self, key: str) -> None:
        super().__init__(f"nothing is stored under {key!r}")
        self.key = key


class Conflict(LocalError):
    """Another change came first; look again and decide anew."""


class NotAReplica(LocalError):
    """Two stores that were to be synchronised hold different chambers."""


class QuotaExceeded(LocalError):
    """The values would take more bytes than the chamber may hold; nothing was changed."""


class WrongSecret(CryptoError):
    """None of the given seeds and passphrases opens the chamber."""


class NoChamber(StorageError):
    """The store has no chamber of that name."""


class StoreRefused(StorageError):
    """The peer that serves the store does not let this node do what it asks for."""


class StoreFull(StorageError):
    """The store would hold more than the peer that serves it allows; nothing was changed."""


class DamagedError(StorageError):
    """Something that the chamber needs is missing from the store, was changed there, or was never a chamber's."""


class RollbackDetected(DamagedError):
    """The store shows an earlier state of the chamber than one that was seen before, or another history."""
