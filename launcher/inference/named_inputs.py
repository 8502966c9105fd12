"""Inputs given by name, or in a loader: what they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...envs.huggingface import names_data
from ...replay import DataError
from ..assembly.data import source_to_predict
from ..settings.compose import compose
from ..settings.loaders import unwrapped
from ..settings.object_names import makes_objects
from ..settings.plan import Plan, make_plan

_ARRAYS = (".npy", ".npz")
_FIRST = ("inputs", "x", "X", "x_test", "arr_0")  # Names of the inputs among several arrays.


def opened(inputs: object, plan: Plan) -> Any:
    """Inputs with names and loaders replaced by what they stand for; everything else unchanged.

    Args:
        inputs: Also the path of a `.npy` or `.npz` file; or the name or class of a data set, of which
            the test part is used.
        plan: The run's plan, which says where data sets are.

    Raises:
        ConfigError: If a name is unknown.
        DataError: If a file holds no array of numbers.
    """
    if names_data(inputs):
        pass  # A data set of Hugging Face's, which may be a folder too.
    elif isinstance(inputs, (str, Path)):
        path = Path(inputs).expanduser()
        if path.suffix.lower() in _ARRAYS and path.is_file():
            return _array(path)
        # A word without a slash or a suffix is a name, unless there is such a file.
        if path.exists() or path.suffix or len(path.parts) > 1 or isinstance(inputs, Path):
            return path
    elif not makes_objects(inputs):
        return unwrapped(inputs)
    named = (make_plan(compose((), {"dataset": inputs}), of_run=plan).dataset or ())[0]
    return source_to_predict(named, plan)


def _array(path: Path) -> np.ndarray:
    """The inputs in a file of NumPy's, mapped into memory if it holds nothing else.

    Raises:
        DataError: If it cannot be read without executing code, or it is unclear which array is meant.
    """
    try:
        found: Any = np.load(path, mmap_mode="r", allow_pickle=False)
        if path.suffix.lower() == ".npy":
            array: np.ndarray = found
            return array
        names = list(found)
        name = names[0] if len(names) == 1 else next((n for n in _FIRST if n in names), None)
        if name is None:
            raise DataError(
                f"{path} holds {', '.join(names)}: name the inputs `inputs`, or save them alone as .npy."
            )
        chosen: np.ndarray = found[name]
        return chosen
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read as an array of numbers: {error}") from error
