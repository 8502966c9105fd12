"""Recognises what `dataset=` is: one data set, a pair of arrays, a list of items, or a sequence.

Only its structure is looked at, without torch: the settings are read before torch is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def form(value: Any) -> str:
    """The form of a value.

    Returns:
        `pair`: inputs and targets, each an array or a (nested) list of numbers; the inputs may also be a
        dict of these. `items`: a list of `(input, target)`, the target a single number or word.
        `sequence`: a list of data sets, one per task. `unclear`: a pair of pairs, which may be a
        sequence, or training and held-out data. `vectors`: three or more pairs of vectors of one length,
        which may be items or data sets. `arrays`: a list of arrays, but not of two. `one`: anything else.

    >>> form(([[0.5, 1.0], [0.1, 0.2], [0.3, 0.4]], [0, 1, 1]))
    'pair'
    >>> form([([0.5, 1.0], 0), ([0.1, 0.2], 1)])
    'items'
    >>> form(({"size": [0.5, 1.0], "kind": [2, 0]}, ["cat", "dog"]))
    'pair'
    >>> form(["MNIST", "FashionMNIST"])
    'sequence'
    """
    if not isinstance(value, (list, tuple)):
        return "one"
    if _are_alike_tables(value):
        return "sequence"
    if value and all(_is_item(part, alone=len(value) == 2) for part in value):
        return "items"
    if len(value) != 2:
        if value and all(map(is_array, value)):
            return "arrays"
        return "vectors" if value[1:] and _are_pairs_of_vectors(value) else "sequence"
    if all(_could_be_pair(part) for part in value):
        return _pair_of_pairs(value)
    # One array or list of numbers is enough: reading it says what is wrong with the other part.
    solid = [part for part in value if _holds_inputs(part)]
    return "pair" if solid and not any(map(_may_be_data, value)) else "sequence"


def is_array(value: Any) -> bool:
    """Whether a value is an array with one or more dimensions, from any library.

    A `shape` alone does not make one: a data set of the user's may have that attribute too.
    """
    if not (hasattr(type(value), "__array__") or _is_sparse(value)):
        return False
    if getattr(value, "is_nested", False):  # torch's nested tensors have no shape.
        return True
    shape = getattr(value, "shape", None)
    return bool(len(shape) if isinstance(shape, tuple) else getattr(value, "ndim", 0))


def is_table(value: Any) -> bool:
    """Whether a value is a data frame of pandas or polars, or an Arrow table; none is imported to ask."""
    kind = type(value)
    library = kind.__module__.partition(".")[0]
    return (library, kind.__name__) in _TABLES or any(
        (base.__module__.partition(".")[0], base.__name__) in _TABLES for base in kind.__mro__[1:-1]
    )


_TABLES = {
    ("pandas", "DataFrame"),
    ("polars", "DataFrame"),
    ("polars", "LazyFrame"),
    ("pyarrow", "Table"),
}


def is_scalar(value: Any) -> bool:
    """Whether a value is one number or word."""
    if isinstance(value, (bool, int, float, complex, str, bytes)):
        return True
    return hasattr(type(value), "__array__") and getattr(value, "ndim", None) == 0


def is_image(value: Any) -> bool:
    """Whether a value is a PIL image; neither torch nor PIL is imported to ask."""
    return hasattr(value, "getbands")


def _are_alike_tables(value: list[Any] | tuple[Any, ...]) -> bool:
    """Whether all are tables with the same columns: inputs and targets never have the same ones."""
    if not value or not all(map(is_table, value)):
        return False
    names = [set(map(str, _column_names(table))) for table in value]
    return all(some == names[0] for some in names)


def _column_names(table: Any) -> Any:
    if hasattr(table, "collect_schema"):  # polars, whose lazy frames compute `columns`.
        return table.collect_schema().names()
    return table.column_names if hasattr(table, "column_names") else table.columns


def _pair_of_pairs(value: list[Any] | tuple[Any, ...]) -> str:
    """Decides between two data sets, Keras's `(train, test)`, and two rows of two columns."""
    if any(is_array(part) for pair in value for part in pair):
        return "sequence" if isinstance(value, list) else "unclear"
    if isinstance(value, tuple):
        return "pair"
    return "sequence" if all(isinstance(part, tuple) for part in value) else "unclear"


def _is_sparse(value: Any) -> bool:
    return hasattr(type(value), "toarray")  # SciPy's.


def _are_pairs_of_vectors(value: list[Any] | tuple[Any, ...]) -> bool:
    """Whether all are pairs of vectors of numbers, and all vectors have the same length."""
    lengths: set[int] = set()
    for pair in value:
        if not (isinstance(pair, (list, tuple)) and len(pair) == 2 and all(map(_is_vector, pair))):
            return False
        lengths |= {len(part) for part in pair}
        if len(lengths) > 1:
            return False
    return True


def _is_vector(value: Any) -> bool:
    if is_array(value):
        return bool(getattr(value, "ndim", 0) == 1)
    return _holds_numbers(value) and len(value) > 0 and is_scalar(value[0])


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple, range))


def _holds_numbers(value: Any) -> bool:
    if not _is_list(value):
        return is_array(value)
    if not len(value):
        return True
    first = value[0]
    return _holds_numbers(first) or (is_scalar(first) and not isinstance(first, (str, bytes)))


def _holds_inputs(value: Any) -> bool:
    """Whether a value can be the inputs of a pair, or its targets: numbers, pictures, or a dict of them."""
    if _is_dict(value):
        return all(map(_holds_inputs, value.values())) and len(value) > 0
    return _holds_numbers(value) or _holds_images(value)


def _is_dict(value: Any) -> bool:
    return isinstance(value, Mapping)


def _holds_images(value: Any) -> bool:
    return _is_list(value) and len(value) > 0 and is_image(value[0])


def _holds_words(value: Any) -> bool:
    return _is_list(value) and all(isinstance(word, (str, bytes)) for word in value)


def _is_item(value: Any, *, alone: bool) -> bool:
    """Whether a value is `(input, target)`, the target a single number or word.

    Args:
        alone: Whether the list has two values: with numbers as inputs, these are rather two columns.
    """
    if not (isinstance(value, (list, tuple)) and len(value) == 2 and is_scalar(value[1])):
        return False
    numbers = isinstance(value, tuple) and not alone and isinstance(value[0], (int, float))
    return numbers or _holds_numbers(value[0]) or is_image(value[0]) or _is_dict(value[0])


def _could_be_pair(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and _holds_numbers(value[0])
        and (_holds_numbers(value[1]) or _holds_words(value[1]))
    )


def _may_be_data(value: Any) -> bool:
    """Whether a value is a name, a folder or a class, or has numbered items as a data set."""
    if isinstance(value, (str, Path, type)):
        return True
    if isinstance(value, (list, tuple, range, dict)) or is_array(value) or is_scalar(value):
        return False
    return hasattr(type(value), "__getitem__")
