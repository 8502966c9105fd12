"""Turns whatever holds numbers into a dense tensor; errors say how to encode anything else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..replay import DataError

_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)  # Few torch functions support them.


def as_tensor(value: Any, name: str) -> Tensor:
    """An array, a data frame, a tensor or a (nested) list of numbers as a tensor.

    Unsigned integers wider than a byte become int64; everything else keeps its dtype.

    Args:
        name: What errors call it.

    Raises:
        DataError: If it holds something else, is sparse, or its rows differ in length.
    """
    if isinstance(value, Tensor):
        # Detached: stored data must not keep the graph it was computed by.
        return _dense(value.detach() if value.requires_grad else value, name)
    if isinstance(value, (list, tuple)) and _holds_tensors(value):
        return stacked([as_tensor(part, name) for part in value], name)
    return _from_array(as_array(value, name), name)


def as_array(value: Any, name: str) -> np.ndarray:
    """Any array-like as a NumPy array; objects that are plain numbers or words get their dtype.

    Raises:
        DataError: If it is not an array, or its rows differ in length.
    """
    if value is None:
        raise DataError(f"{name} is missing (None). Give one for each row.")
    if hasattr(value, "toarray"):
        raise DataError(f"{name} is sparse ({type(value).__name__}). Give value.toarray().")
    if isinstance(value, dict):
        keys = ", ".join(map(str, list(value)[:8]))
        raise DataError(
            f"{name} is a dict ({keys}). Give one array; join its parts with numpy.concatenate."
        )
    if hasattr(value, "columns") and (words := _columns_of_words(value)):
        raise DataError(
            f"{name} is a {type(value).__name__} whose columns {', '.join(words)} are not numbers. Give "
            "one table with the target in it, dataset=table and target=NAME: words are then categories."
        )
    if np.ma.isMaskedArray(value) and np.ma.getmaskarray(value).any():
        raise DataError(f"{name} has masked values. Fill them in (value.filled(...)) or drop them.")
    try:
        array = value.to_numpy() if hasattr(value, "to_numpy") else np.asarray(value)
        if array.dtype == object:  # Data frames mix dtypes so; all may still be numbers.
            array = np.asarray(array.tolist())
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{name} is not an array of numbers: its rows differ in length or kind ({error}). Pad "
            "or encode them."
        ) from error
    return array


def stacked(rows: list[Tensor], name: str) -> Tensor:
    """Rows `[*shape]` as `[N, *shape]`, in a dtype that holds the numbers of all.

    Raises:
        DataError: If they differ in shape.
    """
    for i, row in enumerate(rows):
        if row.shape != rows[0].shape:
            raise DataError(
                f"{name} holds rows of different shapes: {list(rows[0].shape)} at 0, "
                f"{list(row.shape)} at {i}. Pad or crop them to one shape."
            )
    dtype = rows[0].dtype
    for other in {row.dtype for row in rows}:
        dtype = wider(dtype, other)
    return torch.stack([row.to(dtype) for row in rows])


def wider(one: torch.dtype, other: torch.dtype) -> torch.dtype:
    """The dtype that holds the numbers of both: float64 where torch would round integers.

    For the parts of one item, which may have any dtypes; for whole items see `common_type`.
    """
    both = torch.promote_types(one, other)
    whole = [d for d in (one, other) if not d.is_floating_point]
    if both.is_floating_point and any(
        d not in (torch.bool, torch.uint8, torch.int8) for d in whole
    ):
        return torch.float64
    return torch.promote_types(both, torch.float32) if whole and both.is_floating_point else both


def kept_type(dtype: torch.dtype) -> torch.dtype:
    """The dtype to store: bytes, booleans, float32 and float64 stay; others become int64 or float32."""
    if dtype in (torch.uint8, torch.bool, torch.float64):
        return dtype
    return torch.float32 if dtype.is_floating_point else torch.int64


def common_type(one: torch.dtype, other: torch.dtype) -> torch.dtype | None:
    """A dtype that holds both of two stored dtypes.

    None for bytes or booleans mixed with numbers, which are standardised in other ways.
    """
    if torch.uint8 in (one, other) or torch.bool in (one, other):
        return one if one == other else None
    return one if one == other else torch.float64


def _dense(value: Tensor, name: str) -> Tensor:
    if value.is_nested:
        raise DataError(f"{name} is a nested tensor. Pad its rows to one length.")
    if value.layout != torch.strided:
        kind = str(value.layout).removeprefix("torch.")
        raise DataError(f"{name} is sparse ({kind}). Give tensor.to_dense().")
    if value.is_meta:
        raise DataError(f"{name} is on the meta device: it holds no numbers.")
    if value.is_quantized:
        return value.dequantize()
    if value.is_complex():
        raise DataError(f"{name} holds {_word(value)}, not real numbers. {_COMPLEX}")
    if value.dtype in _UNSIGNED:
        return _signed(value.cpu().numpy(), name)
    # float8, in which torch can compute next to nothing.
    if value.is_floating_point() and value.itemsize == 1:
        return value.to(torch.float32)
    return value


_COMPLEX = (
    "Give their real and imaginary parts (torch.view_as_real), or magnitude and phase (abs, angle)."
)


def _from_array(array: np.ndarray, name: str) -> Tensor:
    kind = array.dtype.kind
    if kind == "c":
        raise DataError(f"{name} holds {array.dtype}, not real numbers. {_COMPLEX}")
    if kind == "V":
        fields = ", ".join(array.dtype.names or ())
        raise DataError(
            f"{name} is an array of records ({fields}). Give one number per column: "
            "numpy.lib.recfunctions.structured_to_unstructured."
        )
    if kind in "Mm":
        raise DataError(
            f"{name} holds {array.dtype}, not numbers. Give seconds, for example: "
            "value.astype('datetime64[s]').astype('int64')."
        )
    if kind not in "biuf":
        raise DataError(f"{name} {_advice(array)}")
    if array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    if kind == "u" and array.dtype.itemsize > 1:
        return _signed(array, name)
    # torch accepts only the machine's byte order, and warns of read-only memory.
    array = array.astype(array.dtype.newbyteorder("="), copy=not array.flags.writeable)
    return torch.from_numpy(np.ascontiguousarray(array))


def _signed(array: np.ndarray, name: str) -> Tensor:
    if array.size and array.max() > np.iinfo(np.int64).max:
        raise DataError(f"{name} holds {array.max()}, too large for int64. Give floats.")
    return torch.from_numpy(array.astype(np.int64))


def _columns_of_words(frame: Any) -> list[str]:
    """The columns of a data frame that are not all numbers; none if it has a single column."""
    columns = list(frame.columns)
    if len(columns) < 2:  # A single column may be a target, which may have words.
        return []
    kinds = {str(name): np.asarray(frame[name].to_numpy().tolist()).dtype.kind for name in columns}
    return [name for name, kind in kinds.items() if kind not in "biuf"]


def _holds_tensors(value: Any) -> bool:
    while isinstance(value, (list, tuple)) and len(value):
        value = value[0]
    return isinstance(value, Tensor)


def _advice(array: np.ndarray) -> str:
    """What is wrong with values that are not numbers, and what to do about it."""
    if array.size and all(isinstance(item, Mapping) for item in array.flat):
        keys = ", ".join(f"{str(key)!r}: ..." for key in array.flat[0])
        return (
            f"is a list of dicts. Several inputs are one dict of columns, {{{keys}}}, each with a row per "
            "item, or a list of pairs (dict, target); a target is a class or floats."
        )
    return (
        f"holds {_content(array)}, not numbers. Encode words and objects as numbers first: an index into a "
        "vocabulary, a one-hot row, or an embedding."
    )


def _content(array: np.ndarray) -> str:
    """What an array holds, in words: `words ('cat', ...)`, or the types of its objects."""
    if array.dtype.kind in "US":
        return f"words ({str(array.flat[0])!r:.30}, ...)" if array.size else "words"
    kinds = sorted({type(item).__name__ for item in array.flat})
    return f"objects ({', '.join(kinds[:4])})"


def _word(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")
