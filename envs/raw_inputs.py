"""Recognises inputs without targets in any form: an array, pictures, files, a data set's items."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from ..replay import DataError
from .folders import is_picture, pictures_in
from .forms import form, is_array, is_image, is_scalar
from .images import load
from .in_memory import columns
from .item import read_item
from .numbers import as_array, as_tensor


class StoredRows(Protocol):
    """Raw inputs as stored rows, read and checked a part at a time."""

    @property
    def files(self) -> Sequence[Path] | None:
        """The path of each input; None: they come from no files."""

    def __len__(self) -> int: ...
    def parts(self, size: int) -> Iterator[Any]:
        """Stored rows `[n, *shape]`, or dicts of them, at most `size` at a time, in order.

        If there are no rows, one empty part.

        Raises:
            DataError: If a part holds something other than the training inputs did.
        """


class Items:
    """Inputs that are read one by one.

    Args:
        count: Number of inputs.
        read: Returns input i: a picture, or anything that holds numbers.
        files: The path of each, if they come from files.
    """

    def __init__(self, count: int, read: Callable[[int], Any], files: Sequence[Path] | None = None):
        self._count, self._read, self.files = count, read, files

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i: int) -> Any:
        return self._read(i)


def raw_inputs(inputs: Any, name: str, *, features: int | None) -> Tensor | np.ndarray | Items:
    """Inputs as one array, or as items that are read one by one.

    Args:
        inputs: An array, a tensor, a data frame or a (nested) list of numbers; a PIL image or a list of
            them; the path of a picture, of a folder with pictures, or a list, an array or a column of paths;
            a data set, of `(input, target)` or of inputs alone.
        name: What errors call them.
        features: The number of features of one input, if it is a single row of them.

    Raises:
        DataError: If they are none of these.
    """
    if is_image(inputs):
        return Items(1, lambda _: inputs)
    if isinstance(inputs, (str, Path)):
        return _files(_found(Path(inputs).expanduser(), name))
    if isinstance(inputs, (list, tuple)):
        return _listed(inputs, name, features)
    if (paths := _paths(inputs)) is not None:
        return _files([_picture(Path(path).expanduser(), name) for path in paths])
    if is_scalar(inputs) or is_array(inputs) or hasattr(inputs, "toarray"):
        return _array(inputs, name)
    if (held := columns(inputs)) is not None:
        return held.inputs
    if hasattr(type(inputs), "__getitem__") and hasattr(type(inputs), "__len__"):
        return of_dataset(inputs, name, features)
    raise DataError(
        f"{name[0].upper()}{name[1:]} are a {type(inputs).__name__}. Give an array, a picture or a list of "
        "them, a file, a folder of pictures, or a data set with __len__ and __getitem__."
    )


def is_pair(inputs: Any) -> bool:
    """Whether inputs are `(inputs, targets)`, two arrays."""
    return isinstance(inputs, tuple) and len(inputs) == 2 and all(map(is_array, inputs))


def unturned(raw: Tensor | np.ndarray | Items) -> Tensor | np.ndarray | Items:
    """The same, pictures from files not rotated by their EXIF data."""
    if not isinstance(raw, Items) or (files := raw.files) is None:
        return raw
    return Items(len(files), lambda i: load(files[i], turned=False), files)


def _array(inputs: Any, name: str) -> Tensor | np.ndarray:
    if isinstance(inputs, np.ndarray):
        # Converted a part at a time: a file mapped into memory may be larger than it.
        return inputs
    if isinstance(inputs, Tensor):
        return as_tensor(inputs, f"Part of {name}")
    array = as_array(inputs, f"Part of {name}")
    return array if array.dtype.kind in "biuf" else as_tensor(inputs, f"Part of {name}")


def _listed(inputs: Any, name: str, features: int | None) -> Tensor | np.ndarray | Items:
    """The form of a list or a tuple."""
    if len(inputs) and all(isinstance(part, (str, Path)) for part in inputs):
        return _files([_picture(Path(part).expanduser(), name) for part in inputs])
    if len(inputs) and all(map(is_image, inputs)):
        return Items(len(inputs), inputs.__getitem__)
    if is_pair(inputs):
        return _array(inputs[0], name)
    if form(inputs) == "items" or (len(inputs) and is_image(_first(inputs[0]))):
        return of_dataset(inputs, name, features)
    return as_tensor(inputs, f"Part of {name}")


def _paths(inputs: Any) -> list[str | Path] | None:
    """The paths in a one-dimensional array, or in a column of a data frame; None: it holds something else."""
    if isinstance(inputs, Tensor) or not is_array(inputs) or len(inputs.shape) != 1:
        return None
    words = np.asarray(inputs[:1]).dtype.kind in "UO"
    found = list(inputs) if words and len(inputs) else []
    return found if found and all(isinstance(part, (str, Path)) for part in found) else None


def _first(item: Any) -> Any:
    return item[0] if isinstance(item, (list, tuple)) and len(item) else item


def of_dataset(source: Any, name: str, features: int | None) -> Items:
    """The inputs of a data set's items, which are `(input, target)` or inputs alone."""

    def read(i: int) -> Any:
        item = read_item(source, i, name)
        if isinstance(item, tuple) and len(item) in (1, 2):
            return item[0]
        numbers = isinstance(item, list) and len(item) == 2 and is_scalar(item[0])
        if isinstance(item, list) and len(item) == 2 and not (numbers and features == 2):
            return item[0]
        return item

    return Items(len(source), read)


def _found(path: Path, name: str) -> list[Path]:
    """The pictures that a path means.

    Raises:
        DataError: If there are none.
    """
    if not path.is_dir():
        return [_picture(path, name)]
    if not (files := pictures_in(path)):
        raise DataError(f"{path} holds no pictures.")
    return files


def _picture(path: Path, name: str) -> Path:
    if not path.is_file():
        raise DataError(f"{path} does not exist: {name} are to be read from it.")
    if not is_picture(path):
        raise DataError(
            f"{path} is not a picture, judging by its suffix. Arrays are read from .npy and .npz files, and "
            "tables only for runs that learnt from one."
        )
    return path


def _files(files: list[Path]) -> Items:
    return Items(len(files), lambda i: load(files[i]), files)
