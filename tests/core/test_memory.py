"""Is memory kept once a node runs?"""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
from stt_core.memory import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def burst():
    frames = [bytearray(100_000) for _ in range(40)]
    for frame in frames:
        frame[::4096] = bytes(len(range(0, 100_000, 4096)))
burst()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    burst()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", SCRIPT, how], check=True, capture_output=True, text=True, timeout=60)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is the allocator of glibc that gives memory back")
def test_bursts_do_not_begin_with_page_faults() -> None:
    assert faults("kept") < faults("given back") / 10
