"""What the figures were measured on."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import re
import ssl
from importlib import metadata
from pathlib import Path


def describe_machine() -> dict[str, str]:
    """Return the machine, the kernel, Python and its TLS, for a line of text."""
    processor = re.search(r"model name\s*: (.*)", _read("/proc/cpuinfo"))
    memory = re.search(r"MemTotal:\s*(\d+)", _read("/proc/meminfo"))
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "processor": processor[1].strip() if processor else platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": f"{int(memory[1]) / 2**20:.0f} GiB" if memory else "unknown",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "tls": ssl.OPENSSL_VERSION,
        "receive buffer": f"{int(_read('/proc/sys/net/core/rmem_max') or 0) // 1024} KiB at most",
    }


def describe_load() -> str:
    """Return how busy the machine is: other work disturbs what is measured."""
    return ", ".join(f"{each:.2f}" for each in os.getloadavg())


def versions(distributions: set[str]) -> dict[str, str]:
    """Return the version of each distribution that is installed."""
    installed = {}
    for name in sorted(distributions):
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return installed


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""
