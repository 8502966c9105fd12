"""The spec of data: what a model receives, and what it is to give."""

from __future__ import annotations

import torch
from torch import Tensor

from ..replay import DataError, LazyColumn, Space, Spec
from .datasets import Arrays
from .statistics import statistics


def describe(train: list[Arrays], test: list[Arrays | None], *, num_tasks: int) -> Spec:
    """The spec of data: shapes, classes, and statistics of the training inputs.

    Raises:
        DataError: If the parts do not fit together, or held-out labels are out of range.
    """
    first = train[0]
    for arrays in [*train[1:], *(t for t in test if t is not None)]:
        if arrays.inputs.shape[1:] != first.inputs.shape[1:]:
            raise DataError(
                f"{first.name} has inputs of shape {list(first.inputs.shape[1:])}, {arrays.name} of "
                f"{list(arrays.inputs.shape[1:])}. Parts of one run must have one shape "
                "(folders of images: set image_size)."
            )
        if arrays.inputs.dtype != first.inputs.dtype:
            raise DataError(
                f"{first.name} has inputs of {_word(first.inputs.dtype)}, {arrays.name} of "
                f"{_word(arrays.inputs.dtype)}: one standardisation cannot serve both."
            )
        if arrays.discrete != first.discrete:
            raise DataError(
                f"{first.name} has {'classes' if first.discrete else 'values'} as targets, "
                f"{arrays.name} has {'classes' if arrays.discrete else 'values'}."
            )
        if not first.discrete and arrays.targets.shape[1:] != first.targets.shape[1:]:
            raise DataError(
                f"{first.name} has targets of shape {list(first.targets.shape[1:])}, {arrays.name} "
                f"of {list(arrays.targets.shape[1:])}."
            )
    if first.discrete:
        declared = max(arrays.num_classes or 0 for arrays in train)
        n = max(declared, *(int(arrays.targets.max()) + 1 for arrays in train))
        for held_out in test:
            if held_out is not None and int(held_out.targets.max()) >= n:
                raise DataError(
                    f"Labels out of range: {held_out.name} holds label "
                    f"{int(held_out.targets.max())}, but the training data has classes 0 to {n - 1}."
                )
        names = train[
            -1
        ].names  # In a sequence with outputs of its own for each part, of all of them.
        if names is not None and len(names) != n:
            names = None
        action = Space((n,), torch.int64, low=0, high=n - 1, discrete=True, names=names)
    else:
        targets = torch.cat([arrays.targets for arrays in train])
        action = Space(
            tuple(targets.shape[1:]),
            torch.float32,
            low=float(targets.min()),
            high=float(targets.max()),
            mean=targets.mean(0),
            stddev=targets.std(0, correction=0),
        )
    return Spec(_observation([a.inputs for a in train], first.high), action, num_tasks)


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _observation(columns: list[Tensor | LazyColumn], high: float | None) -> Space:
    mean, stddev, low, top = statistics(columns)
    dtype = columns[0].dtype
    if dtype == torch.uint8:
        low, top = 0.0, float(high or 255)
    elif low >= 0 and top <= 1:
        low, top = 0.0, 1.0  # Already scaled, as torchvision's ToTensor does.
    return Space(tuple(columns[0].shape[1:]), dtype, low, top, mean, stddev)
