"""Nested dicts of arrays and numbers, saved to a folder without pickle: JSON, and one file per array.

`manifest.json` holds the SHA-256 of each file, so that damaged files are not loaded.
"""

from __future__ import annotations

import io
import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .blocks import SavedColumn, SavedColumns, parts_of
from .errors import CheckpointError
from .files import new_folder
from .manifest import (
    LARGEST_JSON,
    Manifest,
    Written,
    open_checked,
    parse_json,
    read_manifest,
    write_file,
    write_manifest,
)

_NAME = "replay.json"
_FORMAT = "antelope-replay-1"


def save(state: dict[str, Any], folder: Path) -> None:
    """Write to a temporary folder, then rename it: an earlier archive stays until the new one is complete.

    Arrays are hashed and written where they are, a few megabytes at a time.

    Raises:
        CheckpointError: If the folder holds something else.
        OSError: From the system, such as a full disk. Nothing is left behind.
    """
    if os.path.lexists(folder) and (folder.is_symlink() or not (folder / _NAME).is_file()):
        raise CheckpointError(f"{folder} already exists and is not a saved replay.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with new_folder(folder) as beside:
        archive = _Archive(beside)
        tree = json.dumps(archive.write(state), allow_nan=False).encode()
        archive.files[_NAME] = write_file(beside / _NAME, [tree])
        write_manifest(beside, format=_FORMAT, files=archive.files, rest={})
        if folder.exists():
            shutil.rmtree(folder)


def load(folder: Path) -> dict[str, Any]:
    """The state that `save` wrote; arrays are memory-mapped, not read.

    Raises:
        CheckpointError: If it does not exist, or is damaged.
    """
    try:
        manifest = read_manifest(folder, formats=[_FORMAT])
        with open_checked(folder, _NAME, manifest, largest=LARGEST_JSON) as file:
            tree = parse_json(file.read())
        state: dict[str, Any] = _read(tree, folder, manifest)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder} is not a readable saved replay: {error}") from error
    return state


class _Archive:
    """An archive that is being written.

    Attributes:
        files: What was written, by the files' names.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self.files: dict[str, Written] = {}

    def write(self, value: object) -> Any:
        """JSON for a value; its arrays are files."""
        if isinstance(value, (dict, SavedColumns)):
            return {"dict": [[key, self.write(item)] for key, item in value.items()]}
        if isinstance(value, torch.Tensor):
            return {"tensor": self._array(value.cpu().numpy())}
        if isinstance(value, (np.ndarray, SavedColumn)):
            return {"array": self._array(value)}
        if isinstance(value, float) and not math.isfinite(value):
            return {"float": repr(value)}  # JSON has no NaN and no infinity.
        return {"value": value}

    def _array(self, array: np.ndarray | SavedColumn) -> str:
        name = f"{len(self.files)}.npy"
        self.files[name] = write_file(self._folder / name, _npy(array))
        return name


def _npy(array: np.ndarray | SavedColumn) -> Iterator[bytes | memoryview]:
    """The bytes of a `.npy` file, in row-major order."""
    if array.dtype.hasobject:
        raise CheckpointError("Cannot save an array of Python objects.")
    header = io.BytesIO()
    about = np.lib.format.header_data_from_array_1_0(np.empty(0, array.dtype))
    np.lib.format.write_array_header_1_0(
        header, about | {"fortran_order": False, "shape": tuple(array.shape)}
    )
    yield header.getvalue()
    if array.ndim == 0:
        yield np.asarray(array).tobytes()
        return
    for _, part in parts_of(array):
        yield np.ascontiguousarray(part).reshape(-1).view(np.uint8).data


def _read(node: dict[str, Any], folder: Path, manifest: Manifest) -> Any:
    kind, value = next(iter(node.items()))
    if kind == "dict":
        return {key: _read(item, folder, manifest) for key, item in value}
    if kind == "value":
        return value
    if kind == "float":
        return float(value)
    # Before NumPy opens it by name. It is only mapped, and may be larger than the memory.
    open_checked(folder, value, manifest, largest=2**62).close()
    array = np.load(folder / value, mmap_mode="r", allow_pickle=False)
    return torch.from_numpy(np.array(array)) if kind == "tensor" else array
