"""One item of a user's data set, `(input, target)`: read and checked; what to say if it is something else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.utils.data import Dataset, Subset

from ..replay import DataError
from ..replay.tree import Path, walk
from .forms import is_scalar
from .inputs import called

AN_ITEM = "An item is (input, target)"
_AN_INPUT = (
    "An input is one array or picture, or a dict of several: {'image': ..., 'meta': ...}. Encode words as "
    "numbers."
)


class ItemSource:
    """The items of a data set, each checked to be `(input, target)`, with inputs of the same parts."""

    def __init__(self, source: Any, name: str):
        self.source, self.name = source, name
        self.in_turn = isinstance(source, Dataset) and bool(getattr(source, "in_turn", False))
        self._parts: list[Path] | None = None  # Of the first item read; `[()]` where it is no dict.

    def __len__(self) -> int:
        try:
            return len(self.source)
        except Exception as error:
            raise DataError(
                f"The length of {self.name} raised {type(error).__name__}: {error}"
            ) from error

    def __getitem__(self, i: int) -> Any:
        item = read_item(self.source, i, self.name)
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise DataError(f"Item {i} of {self.name} is {_described(item)}. {_instead(item)}")
        if item[0] is None or item[1] is None:
            part = "input" if item[0] is None else "target"
            raise DataError(f"Item {i} of {self.name} has no {part} (None). {AN_ITEM}.")
        if isinstance(item[0], Mapping):
            return self._checked_dict(plain_dict(item[0], self._input(i)), i), item[1]
        if isinstance(item[0], (tuple, str, bytes)) and not _numbers(item[0]):
            raise DataError(f"{self._input(i)} {_described(item[0])}. {AN_ITEM}. {_AN_INPUT}")
        return self._checked_dict(item[0], i), item[1]

    def _input(self, i: int) -> str:
        return f"The input of item {i} of {self.name} is"

    def _checked_dict(self, value: Any, i: int) -> Any:
        """The input of item i, if it has the parts of the others."""
        parts = []
        for path, part in walk(value):
            parts.append(path)
            if path and part is None:
                raise DataError(f"{self._input(i)} a dict without a value in{called(path)} (None).")
            if path and isinstance(part, (str, bytes)):
                raise DataError(
                    f"{self._input(i)} a dict with text in{called(path)} ({part!r:.30}). Encode words as "
                    "numbers."
                )
        if self._parts is None:
            self._parts = parts
        elif set(self._parts) != set(parts):
            raise DataError(
                f"{self._input(i)} {_in_parts(parts)}, and that of others {_in_parts(self._parts)}. Give "
                "every item the same parts."
            )
        return value


def read_item(source: Any, i: int, name: str) -> Any:
    """Item i of a data set as it is; what reading it raises becomes a DataError that names the item."""
    try:
        return _raw_item(source, i)
    except DataError:
        raise  # Its message names the broken file.
    except Exception as error:
        raise DataError(f"Item {i} of {name} raised {type(error).__name__}: {error}") from error


def _raw_item(source: Any, i: int) -> Any:
    """An item as a DataLoader reads it: by the more derived of `__getitem__` and `__getitems__`."""
    if type(source) is Subset:
        # torch's Subset defines both methods, whatever its data set has: only the latter decides.
        return _raw_item(source.dataset, source.indices[i])
    for kind in type(source).__mro__:
        if "__getitem__" in vars(kind) and kind is not Dataset:
            return source[i]
        if "__getitems__" in vars(kind):
            return source.__getitems__([i])[0]
    return source[i]


def _numbers(value: Any) -> bool:
    """Whether a value is a tuple of numbers, perhaps nested: a row, as a list of them would be."""
    return isinstance(value, tuple) and all(
        is_scalar(v) if not isinstance(v, tuple) else _numbers(v) for v in value
    )


def _described(item: Any) -> str:
    """`a tuple of 3 (Tensor, Tensor, int)`, `a dict (image, label)`, `a Tensor`."""
    if isinstance(item, Mapping):
        return f"a dict ({', '.join(map(str, list(item)[:8]))})"
    if isinstance(item, (tuple, list)):
        kinds = ", ".join(type(part).__name__ for part in item[:6])
        return f"a {type(item).__name__} of {len(item)} ({kinds})"
    return f"a {type(item).__name__}"


def _in_parts(parts: list[Path]) -> str:
    """What the input of an item is: `a dict of a, b.c`, or `no dict`."""
    names = [".".join(path) for path in parts]
    return f"a dict of {', '.join(sorted(names))}" if names != [""] else "no dict"


def _instead(item: Any) -> str:
    if isinstance(item, (tuple, list)) and len(item) > 2:
        return (
            f"{AN_ITEM}, two parts: return two of them from __getitem__. Several inputs are a dict with "
            "names of your choice: return {'first': item[0], 'second': item[1]}, item[2]."
        )
    if isinstance(item, Mapping) and len(item) >= 2:
        *inputs, last = list(item)[:4]
        one = f"item[{inputs[0]!r}]"
        if len(inputs) > 1:
            one = "{" + ", ".join(f"{key!r}: item[{key!r}]" for key in inputs) + "}"
        return f"{AN_ITEM}: return {one}, item[{last!r}] from __getitem__, say."
    return f"{AN_ITEM}: return both from __getitem__."


def plain_dict(value: Any, what: str) -> Any:
    """Inputs with mappings of any kind, nested too, as dicts; whatever else they are is unchanged.

    Args:
        what: How errors begin: "The inputs of MNIST are".

    Raises:
        DataError: If one is empty, or a key is not a string.
    """
    if not isinstance(value, Mapping):
        return value
    if not value:
        raise DataError(f"{what} an empty dict. {_AN_INPUT}")
    if wrong := [key for key in value if not isinstance(key, str)]:
        raise DataError(
            f"{what} a dict with the key {wrong[0]!r}. Name its parts with strings: models receive them by "
            "these names."
        )
    return {key: plain_dict(part, what) for key, part in value.items()}
