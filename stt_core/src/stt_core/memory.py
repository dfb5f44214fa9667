"""Does memory of the size of frames come back from the C library, or each time anew from the kernel?"""

from __future__ import annotations

from typing import Final

_KEPT: Final = 4 * 1024 * 1024  # bytes


def keep_freed_memory() -> None:
    """Make the C library keep some megabytes that were freed, instead of giving them back at once.

    The frames and trains of a burst are some hundred kilobytes that are freed together. The allocator of glibc gives
    the top of its heap back once 128 KiB of it are free, so that each burst would begin with page faults: half of the
    time of a large transfer. It raises that limit to twice the largest block that was mapped for itself and freed
    again (mallopt(3), M_MMAP_THRESHOLD), which is what this does; the block is never touched. Elsewhere it does
    nothing.
    """
    bytes(_KEPT)
