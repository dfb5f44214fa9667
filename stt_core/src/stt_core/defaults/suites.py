"""The four crypto suites that the core brings, which of them a node uses, and which this processor does faster."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from stt_core.errors import ConfigError
from stt_core.interfaces.crypto import KEY_SIZE, NONCE_SIZE, CryptoSuite

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stt_core.config import STTConfig
    from stt_core.interfaces.crypto import FrameCipher

FIRST_PLUGIN_SUITE: Final = 0x8000
"""The lowest number of a plugin's suite."""

_TRIAL_SIZE: Final = 16 * 1024  # bytes
_TRIALS: Final = 5


class _AES256GCMSuite(CryptoSuite):
    authenticated = True
    # RFC 9001 appendix B.1, for an advantage of 2^-57: frames * blocks <= 2^35, forgeries * blocks <= 2^64. It counts
    # packets of 2^16 bytes; a frame of 2 MiB with its header is more than 2^17 blocks, here taken as 2^18.
    max_frames = 1 << 17
    max_forgeries = 1 << 46

    def cipher(self, key: bytes) -> FrameCipher:
        return AESGCM(key)


class _ChaCha20Poly1305Suite(CryptoSuite):
    authenticated = True
    # RFC 9001 section 6.6: no bound on frames that their number would not reach first. Forgeries * blocks <= 2^46,
    # of which it has 2^36 at 2^10 blocks; blocks as above.
    max_frames = 1 << 62
    max_forgeries = 1 << 28

    def cipher(self, key: bytes) -> FrameCipher:
        return ChaCha20Poly1305(key)


class HybridAES256GCM(_AES256GCMSuite):
    """Suite 0x0001."""

    name = "X25519MLKEM768 + AES-256-GCM"


class HybridChaCha20Poly1305(_ChaCha20Poly1305Suite):
    """Suite 0x0002."""

    name = "X25519MLKEM768 + ChaCha20-Poly1305"


class ClassicAES256GCM(_AES256GCMSuite):
    """Suite 0x0003: a quantum computer could open what was recorded, if the seed has leaked too."""

    name = "X25519 + AES-256-GCM"
    post_quantum = False


class ClassicChaCha20Poly1305(_ChaCha20Poly1305Suite):
    """Suite 0x0004: as 0x0003."""

    name = "X25519 + ChaCha20-Poly1305"
    post_quantum = False


SUITES: Final[dict[int, CryptoSuite]] = {
    0x0001: HybridAES256GCM(),
    0x0002: HybridChaCha20Poly1305(),
    0x0003: ClassicAES256GCM(),
    0x0004: ClassicChaCha20Poly1305(),
}
"""Suite number to suite."""


def select_suites(registered: Mapping[int, CryptoSuite], config: STTConfig) -> dict[int, CryptoSuite]:
    """Return the suites that a node offers and accepts, by preference.

    Args:
        registered: The suites of the core and of all plugins.
        config: ``suites`` and ``require_post_quantum`` are read.

    Raises:
        ConfigError: ``config.suites`` names a suite that is unknown, not authenticated, or forbidden by
            ``require_post_quantum``; or a plugin's that does without the hybrid key exchange.
    """
    numbers = config.suites if config.suites is not None else faster_first()
    selected: dict[int, CryptoSuite] = {}
    for number in numbers:
        suite = registered.get(number)
        if suite is None:
            raise ConfigError(f"suite {number:#06x} is not installed")
        if suite.authenticated is not True:
            raise ConfigError(f"suite {number:#06x} ({suite.name}) is not authenticated")
        if number >= FIRST_PLUGIN_SUITE and not suite.post_quantum:
            raise ConfigError(f"suite {number:#06x} ({suite.name}) is a plugin's, and so has to be post-quantum")
        if config.require_post_quantum and not suite.post_quantum:
            raise ConfigError(f"suite {number:#06x} ({suite.name}) is not post-quantum, which the settings require")
        selected[number] = suite
    return selected


@functools.cache
def faster_first() -> tuple[int, ...]:
    """Return 0x0001 and 0x0002, the one that this processor seals with faster first; measured once, in 0.3 ms."""
    return tuple(sorted((0x0001, 0x0002), key=_seconds_to_seal))


def _seconds_to_seal(number: int) -> float:
    cipher = SUITES[number].cipher(bytes(KEY_SIZE))
    data = bytes(_TRIAL_SIZE)
    best = float("inf")
    for trial in range(_TRIALS):
        nonce = trial.to_bytes(NONCE_SIZE, "big")
        started_at = time.perf_counter()
        cipher.encrypt(nonce, data, None)
        best = min(best, time.perf_counter() - started_at)
    return best
