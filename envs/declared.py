"""What a data set says of itself, beside its items: the few attributes that mean something.

A user's data set may have any attribute for its own ends. `classes` counts where it lists names, and
`alterations` where it is the method that makes a sequence of tasks; all others are left alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch.utils.data import ConcatDataset, Subset

from ..replay import DataError
from .embedded import Digits


def class_names(source: Any) -> tuple[str, ...] | None:
    """The names in `classes`, also of what a `Subset` is of, or None."""
    if isinstance(source, ConcatDataset):
        found = {class_names(part) for part in source.datasets}
        return found.pop() if len(found) == 1 else None
    classes = _attribute(source, "classes")
    if isinstance(classes, (list, tuple)) and classes:
        names = [_name(entry) for entry in classes]
        if None not in names:
            return tuple(map(str, names))
    return class_names(source.dataset) if isinstance(source, Subset) else None


def alterations(source: Any, name: str) -> Callable[..., Any] | None:
    """The method `alterations(tasks, seed)` that makes the data set a sequence (`sequences`), or None.

    Raises:
        DataError: If there is a method that takes `tasks` but no `seed`.
    """
    if type(source) is Subset:
        return alterations(source.dataset, name)
    method = _attribute(source, "alterations")
    try:
        parameters = inspect.signature(method).parameters if callable(method) else {}
    except (TypeError, ValueError):
        parameters = {}
    if {"tasks", "seed"} <= set(parameters):
        return method
    if "tasks" in parameters:
        raise DataError(
            f"{name}.alterations({', '.join(parameters)}) has no parameter `seed`. Antelope calls "
            "alterations(tasks=..., seed=0) to make a sequence of tasks; give a method for "
            "another purpose another name."
        )
    return None


def largest_value(source: Any) -> float | None:
    """The largest value that integer inputs can take, where the data set is one of ours that says so."""
    if type(source) is Subset:
        return largest_value(source.dataset)
    # A subclass that reads its items in its own way may do anything to them.
    own = isinstance(source, Digits) and type(source).__getitem__ is Digits.__getitem__
    return Digits.high if own else None


def _name(entry: Any) -> str | None:
    """A name, or several for one class, as ImageNet has them; None for anything else."""
    if isinstance(entry, tuple) and entry and all(isinstance(word, str) for word in entry):
        return ", ".join(entry)
    return str(entry) if isinstance(entry, str) else None


def _attribute(source: Any, name: str) -> Any:
    try:
        return getattr(source, name, None)
    except Exception:  # A property of the user's may raise anything, and need not concern us.
        return None
