"""Folders with a manifest in JSON: the size and the SHA-256 of every file.

What is read may come from anyone. A manifest names regular files of its own folder and nothing else; links
are not followed, devices and pipes are not opened, and no more is read than the manifest and this machine's
memory allow. Error messages name the file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn

from . import files

MANIFEST = "manifest.json"
LARGEST_JSON = 2**30  # Bytes. A writer that exceeds it would write what no reader accepts.
_LARGEST_MANIFEST = 2**26
_SHA256 = re.compile(r"[0-9a-f]{64}")
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")  # Devices, on Windows.


@dataclass(frozen=True)
class Manifest:
    """What a folder says it contains.

    Attributes:
        format: The format's name.
        sha256: The hash of each file, by the file's name.
        size: The size of each file in bytes; empty in formats without sizes.
        rest: All other entries, unchecked.
    """

    format: str
    sha256: Mapping[str, str]
    size: Mapping[str, int]
    rest: Mapping[str, Any]


@dataclass(frozen=True)
class Written:
    """What a manifest says about a file."""

    size: int  # Bytes.
    sha256: str


def write_file(path: Path, parts: Iterable[bytes | memoryview]) -> Written:
    """Write a new file, hashed as it is written, and sync it to the disk."""
    digest, size = hashlib.sha256(), 0
    with open(path, "xb") as file:
        for part in parts:
            digest.update(part)
            file.write(part)
            size += len(part)
        file.flush()
        os.fsync(file.fileno())
    return Written(size, digest.hexdigest())


def write_manifest(
    folder: Path, *, format: str, files: Mapping[str, Written], rest: Mapping[str, Any]
) -> None:
    """Write the manifest of a folder, after its files."""
    manifest = {
        "format": format,
        "sha256": {name: written.sha256 for name, written in files.items()},
        "size": {name: written.size for name, written in files.items()},
        **rest,
    }
    write_file(folder / MANIFEST, [json.dumps(manifest, indent=1).encode()])


def read_manifest(
    folder: Path, *, formats: Collection[str], sized: Collection[str] = ()
) -> Manifest:
    """The manifest of a folder.

    Args:
        formats: Names of the formats that are known.
        sized: Those that give the size of every file.

    Raises:
        OSError: The file is missing, or not a regular one.
        ValueError: It is not a manifest, its format is unknown, or it names something other than a file of
            its own folder.
    """
    found = read_json(folder / MANIFEST, largest=_LARGEST_MANIFEST)
    if not isinstance(found, dict) or not isinstance(found.get("format"), str):
        raise ValueError("manifest.json is not a manifest")
    name = found["format"]
    if name not in formats:
        raise ValueError(f"its format is {name[:60]!r}, which is unknown here")
    hashes, sizes = found.get("sha256"), found.get("size", {})
    if not isinstance(hashes, dict) or not isinstance(sizes, dict):
        raise ValueError("manifest.json does not list the files")
    for file, digest in hashes.items():
        check_name(file)
        if not (isinstance(digest, str) and _SHA256.fullmatch(digest)):
            raise ValueError(f"manifest.json has no SHA-256 of {file!r}")
    if sizes.keys() - hashes.keys() or (name in sized and hashes.keys() - sizes.keys()):
        raise ValueError("manifest.json does not list the size of every file")
    if any(type(size) is not int or size < 0 for size in sizes.values()):
        raise ValueError("manifest.json lists a size that is not a number of bytes")
    rest = {key: value for key, value in found.items() if key not in ("format", "sha256", "size")}
    return Manifest(name, hashes, sizes, rest)


def check_name(name: Any) -> None:
    """Refuse whatever is not the plain name of a file directly in a folder, on any system.

    Raises:
        ValueError: With the name.
    """
    plain = isinstance(name, str) and 0 < len(name) <= 200 and name.isprintable()
    if not plain or re.search(r'[/\\:*?"<>|]|[. ]$', str(name)) or _RESERVED.fullmatch(str(name)):
        raise ValueError(f"{str(name)[:100]!r} is not the name of a file in the folder")


def open_sized(
    path: Path, *, size: int | None = None, largest: int | None = None
) -> BufferedReader:
    """Open a regular file of a certain size to read it, never through a link.

    Args:
        size: In bytes; None: any.
        largest: The largest size in bytes; None: the machine's memory.

    Raises:
        OSError: It is missing, a link, or not a regular file.
        ValueError: It has another size, or is too large.
    """
    file = files.open_regular(path)
    try:
        found = os.fstat(file.fileno()).st_size
        if size is not None and found != size:
            raise ValueError(f"{path.name} has {found:,} bytes, the manifest says {size:,}")
        bound = memory_size() if largest is None else largest
        if found > bound:
            raise ValueError(f"{path.name} has {found:,} bytes; at most {bound:,} can be read here")
    except BaseException:
        file.close()
        raise
    return file


def open_checked(
    folder: Path, name: str, manifest: Manifest, *, largest: int | None = None
) -> BufferedReader:
    """Open a file that the manifest names, after a check that it is as it was written.

    Args:
        largest: As for `open_sized`.

    Raises:
        OSError: It cannot be read, or is not a regular file.
        ValueError: It differs from what the manifest says, or the manifest does not name it.
    """
    if name not in manifest.sha256:
        raise ValueError(f"{name} is not in the manifest")
    file = open_sized(folder / name, size=manifest.size.get(name), largest=largest)
    try:
        if hashlib.file_digest(file, "sha256").hexdigest() != manifest.sha256[name]:
            raise ValueError(f"{name} does not match its SHA-256")
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def read_json(path: Path, *, largest: int = LARGEST_JSON) -> Any:
    """The contents of a JSON file; NaN and infinity, which are not JSON, are refused.

    Args:
        largest: Its largest size in bytes.

    Raises:
        OSError: It cannot be read, or is not a regular file.
        ValueError: It is too large, nested too deeply, or not JSON.
    """
    with open_sized(path, largest=largest) as file:
        data = file.read(largest + 1)
    try:
        return parse_json(data)
    except ValueError as error:
        raise ValueError(f"{path.name} {error}") from None


def parse_json(data: bytes) -> Any:
    """What `read_json` returns, from bytes; the message of an error continues the name of their file."""
    try:
        return json.loads(data, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"is not JSON ({error})") from None


def memory_size() -> int:
    """The machine's memory in bytes; a very large number if the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 2**62


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"it holds {word}")
