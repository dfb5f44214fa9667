"""Is what gets installed whole: files, metadata, dependencies, entry points?"""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from importlib.metadata import Distribution

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = [ROOT / "stt_core", *sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))]

every_distribution = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


def installed(folder: Path) -> Distribution:
    """Return the installed distribution of a folder of the tree; it must have come from a wheel."""
    name = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"]
    distribution = metadata.distribution(name)
    if '"editable": true' in (distribution.read_text("direct_url.json") or ""):
        if "TOX_ENV_NAME" in os.environ:
            pytest.fail(f"{name} is installed editable")
        pytest.skip(f"{name} is installed editable; tox installs wheels")
    return distribution


def package_files(folder: Path) -> dict[str, Path]:
    source = folder / "src"
    return {
        str(path.relative_to(source)): path
        for path in source.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@every_distribution
def test_the_installed_files_are_those_of_the_tree_and_no_others(folder: Path) -> None:
    distribution = installed(folder)
    sources = package_files(folder)

    files = {
        str(file): file
        for file in distribution.files or ()
        if not file.parts[0].endswith(".dist-info") and "__pycache__" not in file.parts and ".." not in file.parts
    }

    assert files.keys() == sources.keys()
    assert [
        name for name, file in files.items() if Path(file.locate()).read_bytes() != sources[name].read_bytes()
    ] == []


@every_distribution
def test_every_folder_with_python_files_is_a_package(folder: Path) -> None:
    folders = {path.parent for path in package_files(folder).values() if path.suffix == ".py"}

    assert [str(path) for path in folders if not (path / "__init__.py").is_file()] == []


@every_distribution
def test_it_is_typed_and_licensed(folder: Path) -> None:
    distribution = installed(folder)
    files = {str(file): file for file in distribution.files or ()}

    assert f"{folder.name}/py.typed" in files
    (licence,) = (file for name, file in files.items() if name.endswith(".dist-info/licenses/LICENSE"))
    assert licence.read_text(encoding="utf-8") == (ROOT / "LICENSE").read_text(encoding="utf-8")


@every_distribution
def test_its_metadata_is_whole(folder: Path) -> None:
    distribution = installed(folder)
    fields = distribution.metadata

    assert fields["License-Expression"] == "LicenseRef-ACSL-1.4"
    assert fields["Requires-Python"] == ">=3.11"
    assert "Typing :: Typed" in fields.get_all("Classifier", [])
    assert fields["Summary"]
    assert distribution.version == importlib.import_module(f"{folder.name}._version").__version__


@every_distribution
def test_its_changelog_names_its_version(folder: Path) -> None:
    version = importlib.import_module(f"{folder.name}._version").__version__

    assert f"\n## {version}" in (folder / "CHANGELOG.md").read_text(encoding="utf-8")


@every_distribution
def test_its_entry_points_resolve(folder: Path) -> None:
    for entry_point in installed(folder).entry_points:
        assert entry_point.load() is not None


@every_distribution
def test_each_requirement_has_a_lower_bound_and_the_core_an_upper_one(folder: Path) -> None:
    for requirement in installed(folder).requires or ():
        assert ">=" in requirement, requirement
        if requirement.startswith("stt-core"):
            assert "<" in requirement, requirement


@every_distribution
def test_what_it_imports_is_what_it_requires(folder: Path) -> None:
    providers = metadata.packages_distributions()
    required = {
        normalized(re.split(r"[^\w.-]", requirement, maxsplit=1)[0]) for requirement in installed(folder).requires or ()
    }
    imported = {
        module.partition(".")[0]
        for path in package_files(folder).values()
        if path.suffix == ".py"
        for module in absolute_imports(path)
    }

    foreign = imported - sys.stdlib_module_names - {folder.name}
    undeclared = {name for name in foreign if not required & {normalized(found) for found in providers.get(name, ())}}

    assert undeclared == set()


def absolute_imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            assert node.module is not None
            names.add(node.module)
    return names


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@every_distribution
def test_every_module_can_be_imported_and_has_what_it_exports(folder: Path) -> None:
    package = importlib.import_module(folder.name)
    names = [folder.name, *(module.name for module in pkgutil.walk_packages(package.__path__, f"{folder.name}."))]

    for name in names:
        if not name.endswith("__main__"):
            module = importlib.import_module(name)
            assert [export for export in getattr(module, "__all__", ()) if not hasattr(module, export)] == []


@every_distribution
def test_its_exceptions_are_in_the_one_tree(folder: Path) -> None:
    errors = importlib.import_module("stt_core.errors")
    package = importlib.import_module(folder.name)
    for module in pkgutil.walk_packages(package.__path__, f"{folder.name}."):
        if module.name.endswith("__main__"):
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, type) and issubclass(value, Exception) and value.__module__ == module.name:
                assert issubclass(value, errors.STTError), f"{module.name}.{name}"


def test_the_core_needs_nothing_of_its_extras_and_loads_no_plugin_when_imported() -> None:
    script = "import sys, stt_core; print(*sys.modules)"

    modules = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()

    assert "stt_core.node" in modules
    assert not {"pytest", "hypothesis", "stt_udp", "stt_websocket", "stt_streaming", "stt_chamber", "stt_cli"} & set(
        modules
    )
