"""Reads and checks targets: classes, several labels per row, and values to be predicted."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..replay import DataError
from ..replay.spec import TargetKind
from .numbers import as_array, as_tensor
from .pixel_masks import as_masks

Values = tuple[Any, ...]

KINDS: dict[torch.dtype, TargetKind] = {
    torch.int64: "classes",
    torch.bool: "labels",
    torch.uint8: "pixels",
}
"""What targets are, by the dtype in which they are kept; any other holds values."""

_IN_CLASSES = (
    "in its attribute `classes`, a list of names. Count labels from 0, or leave `classes` out."
)
IN_WORDS: dict[TargetKind, str] = {
    "classes": "classes",
    "values": "values",
    "labels": "several labels per row",
    "pixels": "a class for each pixel",
}


def read_targets(targets: Any, name: str) -> tuple[Tensor, Values | None]:
    """Targets as a tensor, and what each number stands for if they were words or booleans.

    Args:
        targets: An array `[N, ...]` of any library, or a list with one target per row.
        name: What errors call the data set.

    Returns:
        The numbers as given, and None; or int64 `[N]`, places in the sorted words, and these words.

    Raises:
        DataError: If they are neither numbers nor words, or both.
    """
    what = f"The target of {name}"
    if hasattr(targets, "to_numpy"):
        targets = targets.to_numpy()
    # pandas stores words as objects.
    if isinstance(targets, np.ndarray) and targets.dtype == object and targets.size == len(targets):
        targets = targets.reshape(-1).tolist()
    if isinstance(targets, list):
        targets = _plain(targets, f"The targets of {name}")
    if not isinstance(targets, Tensor):
        targets = as_array(targets, what)
        if targets.dtype.kind in "US":
            return _words(targets, f"The targets of {name}")
    targets = as_tensor(targets, what)
    if targets.dtype != torch.bool or targets.dim() != 1:
        return targets, None
    return targets.to(torch.int64), (False, True)


def as_targets(
    targets: Tensor,
    name: str,
    wanted: TargetKind | None = None,
    size: tuple[int, ...] | None = None,
) -> Tensor:
    """Targets in a dtype that says what they are (`KINDS`).

    Args:
        targets: Numbers `[N, ...]`, as `read_targets` returns them.
        wanted: What the run's loss compares, or what the training part holds: 0 and 1 are several labels,
            unless values are wanted. None: not known.
        size: Height and width of the inputs, if they are images: integers of that size are classes of pixels.

    Returns:
        int64 `[N]` for classes, bool `[N, K]` for several labels, uint8 `[N, H, W]` for classes of pixels,
        float32 or float64 `[N, *shape]` for values.
    """
    check_finite(targets, f"targets of {name}")
    if (masks := as_masks(targets, size, name)) is not None:
        return masks
    column = targets[:, None] if targets.dim() == 1 else targets
    single = column.dim() == 2 and column.shape[1] == 1
    if column.dim() == 2 and (not single or wanted == "labels") and zeros_and_ones(column):
        if wanted == "values":
            return column.to(torch.float32)
        if wanted is None:
            _refuse_one_hot(column, name)
        return column.to(torch.bool)
    if targets.dtype.is_floating_point:
        # float64 is kept until the mean is subtracted: its digits may matter.
        return column if targets.dtype == torch.float64 else column.to(torch.float32)
    if not single:
        raise DataError(
            f"The integer targets of {name} have shape {list(targets.shape)}; a class is one "
            "number per row, several labels are 0 or 1 in K columns, and classes of pixels have the shape of "
            "the images, [N, H, W]. Give several values per row as floats (regression)."
        )
    return column[:, 0].to(torch.int64)


def label_names(listed: Any, columns: Any, n: int) -> tuple[str, ...] | None:
    """Names of n labels per row: those that the data set lists, or a data frame's columns; else None."""
    for names in (listed, columns):
        if names is not None and len(names) == n and all(isinstance(each, str) for each in names):
            return tuple(names)
    return None


def check_labels(
    targets: Tensor,
    num_classes: int,
    name: str,
    *,
    whose: str = "",
    where: str = _IN_CLASSES,
) -> None:
    """Raise DataError for classes that are not among those declared, 0 to n - 1.

    Args:
        whose: The data set that declares them, if another one does.
        where: Where it declares them, and what to do.
    """
    for label in (int(targets.min()), int(targets.max())):
        if not 0 <= label < num_classes:
            declares = f"{whose} declares" if whose else "declares"
            raise DataError(
                f"Labels out of range: {name} holds label {label}, but {declares} {num_classes} classes "
                f"(0 to {num_classes - 1}) {where}"
            )


def in_class_label(target: str) -> str:
    """For `check_labels`: that a column of a Hugging Face data set declares the classes."""
    return (
        f"in the ClassLabel of its column `{target}`. If a label of -1 stands for none, leave such rows out: "
        f"data.filter(lambda row: row['{target}'] >= 0)."
    )


def check_finite(values: Tensor, what: str, *, first: int = 0) -> None:
    """Raise DataError for NaN or infinity, with the first row that holds one.

    Args:
        first: The number of the first row.
    """
    if not values.dtype.is_floating_point:
        return
    # A sum is finite only if all numbers are, and takes a tenth of the time of testing each.
    if torch.isfinite(values.sum(dtype=torch.float64)):
        return
    bad = (
        (~torch.isfinite(values)).flatten(1).any(1) if values.dim() > 1 else ~torch.isfinite(values)
    )
    if bad.any():
        raise DataError(
            f"The {what} hold NaN or infinite numbers in {int(bad.sum())} of {len(values)} rows "
            f"(first: row {first + int(bad.nonzero()[0])}). Fill or drop them."
        )


def zeros_and_ones(values: Tensor) -> bool:
    """Whether all numbers are 0 or 1; a thousand rows are tested first, which mostly settles it."""
    return all(bool(((part == 0) | (part == 1)).all()) for part in (values[:1000], values))


def _refuse_one_hot(targets: Tensor, name: str) -> None:
    """Refuse one-hot rows of 0 and 1, as of Keras's `to_categorical`: classes, not several labels."""
    if bool((targets.sum(1) == 1).all()):
        raise DataError(
            f"The targets of {name} are one-hot rows {list(targets.shape)}. Give the number of each row's "
            "class instead: targets.argmax(1). (loss=BCEWithLogitsLoss would learn each column on its own.)"
        )


def _plain(targets: list[Any], what: str) -> Any:
    """A list of targets without the tensors around them: numbers, words, or arrays of the same shape."""
    plain = [_value(target) for target in targets]
    kinds = {type(target) for target in plain}
    if any(map(_several_words, plain)):
        raise DataError(
            f"{what} are several words per row. Give 0 or 1 in a column for each word instead: "
            "sklearn.preprocessing.MultiLabelBinarizer().fit_transform(targets)."
        )
    words = not kinds.isdisjoint((str, bytes))
    if none := [i for i, target in enumerate(plain) if _is_missing(target, words)]:
        raise DataError(
            f"{what} are incomplete: item {none[0]} has {plain[none[0]]}. Fill or drop such rows."
        )
    if dict in kinds:
        raise DataError(
            f"{what} are dicts ({', '.join(map(str, plain[0]))}). From __getitem__, return only "
            "the part to be learnt: a class, or floats."
        )
    if words and kinds - {str, bytes}:
        raise DataError(
            f"{what} are words in some rows and numbers in others. Give one of the two."
        )
    if kinds == {int} and not -(2**63) <= min(plain) <= max(plain) < 2**63:
        raise DataError(f"{what} hold a number that is too large for int64. Give floats.")
    return plain


def _is_missing(target: Any, among_words: bool) -> bool:
    """Whether a target is None or pandas's NA; NaN among numbers is found later, with infinities."""
    if target is None or type(target).__name__ == "NAType":
        return True
    return among_words and isinstance(target, float) and target != target


def _several_words(target: Any) -> bool:
    if not isinstance(target, (list, tuple, set, frozenset)) or len(target) < 2:
        return False
    return all(isinstance(word, str) for word in target)


def _value(target: Any) -> Any:
    if isinstance(target, Tensor):
        if target.dtype == torch.bfloat16:  # NumPy has no such dtype.
            target = target.float()
        target = target.detach().cpu().numpy()
    if isinstance(target, (np.ndarray, np.generic)):
        return target.item() if target.shape == () else target
    return target


def _words(array: np.ndarray, what: str) -> tuple[Tensor, Values]:
    """Words as int64 `[N]`, numbered in sorted order."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(
            f"{what} are words of shape {list(array.shape)}; a class is one word per row."
        )
    found, numbers = np.unique(array.astype(str), return_inverse=True)
    return torch.from_numpy(numbers.astype(np.int64)), tuple(map(str, found))
