"""Packages and files that register environments, and ids that their source shows; none is imported."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path

_REGISTERS = re.compile(r"\bregister\(\s*(id\s*=\s*)?[\"']([\w./:-]+)[\"']")
_LARGEST_FILE = 1_000_000  # Bytes of source; longer files are data.


@dataclass(frozen=True)
class Package:
    """A package or file that registers environments when it is imported.

    Attributes:
        name: Name of the distribution, or of a file in the working directory.
        module: What to import.
        source: Its folder, or file.
        ids: Ids that its source spells out; a loop may register more.
    """

    name: str
    module: str
    source: Path
    ids: tuple[str, ...]


@functools.cache
def installed() -> tuple[Package, ...]:
    """The installed packages that need gymnasium and are known to register environments."""
    found: dict[str, Package] = {}
    for distribution in importlib.metadata.distributions():
        needed = distribution.requires or ()
        name = distribution.metadata["Name"]
        # Packages that list gymnasium only for an extra, such as their tests, do not count.
        plain = (line for line in needed if "extra ==" not in line)
        if name != "ale-py" and not any(re.match(r"gymnasium\b", line) for line in plain):
            continue
        for module in _top_level(distribution):
            source = Path(str(distribution.locate_file(module)))
            ids = _ids_below(source) if source.is_dir() else ()
            if ids or name == "ale-py":  # Which registers its games in a loop.
                found.setdefault(module, Package(name, module, source, ids))
    return tuple(sorted(found.values(), key=lambda package: package.name.lower()))


def here() -> list[Package]:
    """The .py files of the working directory that register environments."""
    found = []
    for path in sorted(Path.cwd().glob("*.py")):
        if path.stem.isidentifier() and (ids := _ids_in(path)):
            found.append(Package(path.name, path.stem, path, ids))
    return found


def find_top(module: str) -> ModuleSpec | None:
    """Where a module's top-level package lies, without importing it; None if there is none."""
    importlib.invalidate_caches()
    try:
        return importlib.util.find_spec(module.partition(".")[0])
    except (ImportError, ValueError):
        return None


def _top_level(distribution: importlib.metadata.Distribution) -> Iterator[str]:
    """The modules that a distribution installs."""
    listed = (distribution.read_text("top_level.txt") or "").split()
    if not listed:
        files = distribution.files or ()
        listed = sorted({f.parts[0] for f in files if f.suffix == ".py" and len(f.parts) > 1})
    yield from (name for name in listed if name.isidentifier())


def _ids_below(folder: Path) -> tuple[str, ...]:
    return tuple(sorted({i for path in folder.rglob("*.py") for i in _ids_in(path)}))


def _ids_in(path: Path) -> tuple[str, ...]:
    """The ids that a file registers, as spelled out in its text."""
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST_FILE:
            return ()
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ()
    if "register(" not in text or "gym" not in text:
        return ()
    found = _REGISTERS.findall(text)
    # Without `id=`, calls of other registries look the same, except for the version.
    return tuple(name for keyword, name in found if keyword or re.search(r"-v\d+$", name))
