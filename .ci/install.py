"""Installs distributions of this tree into the running environment, as the wheels that a user would get.

    python .ci/install.py [--lowest] stt_core[testing] plugins/stt_udp ...

A wheel is kept under the hash of the files that it was built from. So it is built once for all environments, and one
that is older than its sources is never tested, whatever was built before.
"""

from __future__ import annotations

import argparse
import email
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WHEELS = ROOT / ".tox" / "wheels"
PIP = (sys.executable, "-m", "pip", "-qq", "--disable-pip-version-check")


def main() -> None:
    parser = argparse.ArgumentParser(description="Install distributions of this tree as wheels.")
    parser.add_argument("distributions", nargs="+", metavar="FOLDER[EXTRA]")
    parser.add_argument("--lowest", action="store_true", help="with the lowest dependencies that they declare")
    arguments = parser.parse_args()
    try:
        install(arguments.distributions, lowest=arguments.lowest)
    except subprocess.CalledProcessError as error:
        sys.exit(f"install.py: failed, see above: {' '.join(map(str, error.cmd))}")


def install(distributions: list[str], *, lowest: bool) -> None:
    """Replace whatever of STT is installed by wheels of the given folders, with their dependencies."""
    wheels = {}
    for distribution in distributions:
        folder, _, extras = distribution.partition("[")
        wheels[wheel(ROOT / folder)] = f"[{extras}" if extras else ""

    present = [name for name in all_names() if is_installed(name)]
    if present:
        subprocess.run([*PIP, "uninstall", "--yes", *present], check=True)
    with tempfile.TemporaryDirectory() as scratch:
        constraints = Path(scratch) / "constraints.txt"
        constraints.write_text("\n".join(pin for path in wheels for pin in lowest_pins(path)) if lowest else "")
        # The files are named, so that pip takes them and nothing of that name from an index.
        targets = [f"{path}{extras}" for path, extras in wheels.items()]
        subprocess.run([*PIP, "install", "--constraint", str(constraints), *targets], check=True)
    subprocess.run([*PIP, "check"], check=True)


def wheel(folder: Path) -> Path:
    """Return the wheel of a distribution as its sources are now, built if there is none yet."""
    home = WHEELS / f"{folder.name}-{fingerprint(folder)}"
    if not home.is_dir():
        WHEELS.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=WHEELS, prefix=".building-") as scratch:
            built = Path(scratch) / "wheel"
            subprocess.run([*PIP, "wheel", "--no-deps", "--wheel-dir", str(built), str(folder)], check=True)
            try:
                built.rename(home)
            except OSError:  # another environment, built at the same time, was first with the same files
                if not home.is_dir():
                    raise
        for older in WHEELS.glob(f"{folder.name}-*"):
            if older != home:
                shutil.rmtree(older, ignore_errors=True)
    (path,) = home.glob("*.whl")
    return path


def fingerprint(folder: Path) -> str:
    """Return a hash of the names and contents of all files of a distribution."""
    digest = hashlib.sha256()
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != "__pycache__" and not name.startswith("."))
        for name in sorted(files):
            path = Path(parent, name)
            content = path.read_bytes()
            digest.update(f"{path.relative_to(folder)}\0{len(content)}\0".encode())
            digest.update(content)
    return digest.hexdigest()[:16]


def lowest_pins(path: Path) -> list[str]:
    """Return a pin to the lower bound of each dependency of a wheel, those of its extras too."""
    with zipfile.ZipFile(path) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        fields = email.message_from_bytes(archive.read(name))
    pins = []
    for requirement in fields.get_all("Requires-Dist", []):
        if requirement.startswith("stt-"):
            continue
        match = re.match(r"([\w.-]+)[^;]*>=\s*([\w.]+)", requirement)
        if match is None:
            sys.exit(f"install.py: {path.name} declares no lower bound of {requirement!r}")
        pins.append(f"{match[1]}=={match[2]}")
    return pins


def all_names() -> list[str]:
    return [
        tomllib.loads(path.read_text(encoding="utf-8"))["project"]["name"]
        for pattern in ("stt_core", "plugins/*", "docs/examples/*")
        for path in sorted(ROOT.glob(f"{pattern}/pyproject.toml"))
    ]


def is_installed(name: str) -> bool:
    return any(metadata.distributions(name=name))


if __name__ == "__main__":
    main()
