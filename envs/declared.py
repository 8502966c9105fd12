"""What a data set declares beside its items: the few attributes that are read.

A user's data set may have any attributes for its own purposes. Only two are read: `classes`, if it
lists names, and `alterations`, if it is the method that makes a sequence of tasks. For torchvision's
data sets `target_transform` matters too: `classes` does not describe labels that it changes.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

from torch.utils.data import ConcatDataset, Subset

from ..replay import DataError
from .embedded import Digits


def class_names(source: Any) -> tuple[str, ...] | None:
    """The names in `classes`, also of the data set behind a `Subset`; None: there are none."""
    if isinstance(source, ConcatDataset):
        found = {class_names(part) for part in source.datasets}
        return found.pop() if len(found) == 1 else None
    classes = _attribute(source, "classes")
    if isinstance(classes, (list, tuple)) and classes:
        names = [_name(entry) for entry in classes]
        if None not in names:
            return tuple(map(str, names)) if _keeps_labels(source, names) else None
    return class_names(source.dataset) if isinstance(source, Subset) else None


def pixel_names(source: Any) -> tuple[str, ...] | None:
    """The names in `classes` of a data set of masks; None: there are none.

    torchvision's data sets list the classes of whole pictures, even where targets are masks.
    """
    inner = source
    while isinstance(inner, Subset):
        inner = inner.dataset
    if type(inner).__module__.startswith("torchvision."):
        return None
    return class_names(source)


def alterations(source: Any, name: str) -> Callable[..., Any] | None:
    """The method `alterations(tasks, seed)` that makes the data set a sequence of tasks, or None.

    Raises:
        DataError: If the method has a parameter `tasks` but no `seed`.
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
    """The largest value that integer inputs can take, if the data set is one of ours; else None."""
    if type(source) is Subset:
        return largest_value(source.dataset)
    # A subclass with its own `__getitem__` may have rescaled them.
    own = isinstance(source, Digits) and type(source).__getitem__ is Digits.__getitem__
    return Digits.high if own else None


def _keeps_labels(source: Any, names: list[str | None]) -> bool:
    """Whether items have the class numbers 0 to n - 1, or the names, as labels: nothing changes them."""
    # Not imported: it takes a second, and without it no source can be one of its data sets.
    module = sys.modules.get("torchvision.datasets")
    if module is None or not isinstance(source, module.VisionDataset):
        return True
    if (transform := source.target_transform) is None:
        return True
    try:
        labels = [transform(number) for number in range(len(names))]
        return labels == names or [int(label) for label in labels] == list(range(len(names)))
    except Exception:  # It may expect something other than numbers; then items' own labels count.
        return False


def _name(entry: Any) -> str | None:
    """A name, or several for one class, as ImageNet has them; None for anything else."""
    if isinstance(entry, tuple) and entry and all(isinstance(word, str) for word in entry):
        return ", ".join(entry)
    return str(entry) if isinstance(entry, str) else None


def _attribute(source: Any, name: str) -> Any:
    try:
        return getattr(source, name, None)
    except Exception:  # A property of the user's may raise anything, and is then not for us.
        return None
