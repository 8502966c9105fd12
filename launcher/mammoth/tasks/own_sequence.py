"""What a `ContinualDataset` of the user's own says: its tasks, its data, and where that lies."""

from __future__ import annotations

import copy
import inspect
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import accumulate
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from ....envs.sources import default_data_dir
from ....replay import ConfigError, DataError
from ....replay.suggestions import did_you_mean
from .loaders import TaskData
from .own_rows import rows_of

_SETTINGS = ("class-il", "task-il", "domain-il")
_BELOW: ContextVar[str | None] = ContextVar("data folder", default=None)


class _ToTensor:
    """Makes of a picture a tensor in [0, 1], as torchvision does, which is imported when it is called."""

    def __call__(self, picture: Any) -> Tensor:
        from torchvision.transforms.functional import to_tensor

        made: Tensor = to_tensor(picture)
        return made


class MammothDataset(Dataset[Any]):
    """The base of the data of a `ContinualDataset`: items are `(input, label, input not augmented)`.

    Attributes:
        data, targets: Arrays of one length, of which each task has some rows.
        not_aug_transform: Makes the third part of an item, a tensor in [0, 1], of a picture.
    """

    data: Any
    targets: Any
    not_aug_transform: Callable[[Any], Tensor] = _ToTensor()


def base_path() -> str:
    """The folder of data sets, with a slash at its end: `base_path() + "CIFAR10"`.

    While a data set of `load_runner` is read, the `base_path` of its arguments.
    """
    return str(_BELOW.get() or default_data_dir()).rstrip("/") + "/"


@contextmanager
def data_below(folder: str | None) -> Iterator[None]:
    """What `base_path()` is in the block."""
    token = _BELOW.set(folder)
    try:
        yield
    finally:
        _BELOW.reset(token)


def declare(sequence: Any, args: Namespace) -> None:
    """Begin with what a class says of its tasks.

    Raises:
        ConfigError: If it says too little, or what is not served.
    """
    name = type(sequence).__name__
    needed = ("SETTING", "N_CLASSES_PER_TASK", "N_TASKS")
    if missing := [key for key in needed if not hasattr(sequence, key)]:
        raise ConfigError(f"{name} lacks the class attributes {', '.join(missing)}.")
    if sequence.SETTING not in _SETTINGS:
        near = did_you_mean(sequence.SETTING, _SETTINGS)
        raise ConfigError(
            f"{name}.SETTING is {sequence.SETTING!r}.{near} There are: {', '.join(_SETTINGS)}."
        )
    sequence.args, sequence.c_task = args, -1
    apart, sizes = sequence.SETTING != "domain-il", sequence.N_CLASSES_PER_TASK
    listed = isinstance(sizes, (list, tuple))
    if listed and len(sizes) != sequence.N_TASKS:
        raise ConfigError(
            f"{name}.N_CLASSES_PER_TASK has {len(sizes)} entries, but N_TASKS is {sequence.N_TASKS}."
        )
    sizes = list(sizes) if listed else [int(sizes)] * sequence.N_TASKS
    sequence.N_CLASSES = total = sum(sizes) if apart else max(sizes)
    if getattr(args, "joint", 0):
        if not apart:
            raise ConfigError(
                f"joint=1 needs tasks with disjoint classes; those of {name} share theirs (domain-il)."
            )
        sequence.N_TASKS, sequence.N_CLASSES_PER_TASK, sizes = 1, total, [total]
    sequence.tasks_apart, sequence.class_ends = apart, [0, *accumulate(sizes)]
    if getattr(args, "permute_classes", 0) and not hasattr(args, "class_order"):
        args.class_order = permutation(total, args.seed)


def permutation(n: int, seed: int | None) -> np.ndarray[Any, Any]:
    """The new number of each class, as Mammoth draws it."""
    return np.random.RandomState(seed).permutation(n)


def store_masked_loaders(train: Any, test: Any, setting: Any) -> tuple[TaskData, TaskData]:
    """The rows of the next task of a sequence, of data that holds all of them.

    Args:
        train, test: With `data` and `targets`; they stay as they are.
        setting: The `ContinualDataset`.
    """
    if setting.tasks_apart:
        setting.c_task += 1
    options = {"batch_size": setting.args.batch_size}
    parts = [_rows_of_task(part, setting) for part in (train, test)]
    return TaskData(parts[0], shuffle=True, **options), TaskData(parts[1], **options)


def _rows_of_task(part: Any, setting: Any) -> Any:
    name = type(part).__name__
    if lacking := [key for key in ("data", "targets") if not hasattr(part, key)]:
        raise DataError(
            f"{name} has no attribute {' and '.join(lacking)}, needed to select each task's rows."
        )
    targets = np.asarray(part.targets)
    if len(part.data) != len(targets):
        raise DataError(f"{name} has {len(part.data)} rows of data but {len(targets)} targets.")
    if getattr(setting.args, "permute_classes", 0):
        targets = setting.args.class_order[targets]
    chosen = np.ones(len(targets), dtype=bool)
    if setting.tasks_apart:
        first, end = setting.get_offsets(setting.c_task)
        chosen = (targets >= first) & (targets < end)
    rows = copy.copy(part)
    rows.targets, rows.data = targets[chosen], rows_of(part.data, chosen)
    return rows


def make_sequence(make: Callable[..., Any], args: Namespace, options: dict[str, Any]) -> Any:
    """What a class, or a function, makes of the run's arguments and of its own options.

    Raises:
        ConfigError: If an option is missing, or is none of its.
    """
    name = getattr(make, "__name__", str(make))
    own = sequence_options(make)
    if unknown := [key for key in options if key not in own]:
        there = f" It has: {', '.join(own)}." if own else ""
        raise ConfigError(
            f"{name} has no argument `{unknown[0]}`.{did_you_mean(unknown[0], own)}{there}"
        )
    lacking = [k for k, default in own.items() if default is inspect.Parameter.empty]
    if lacking := [key for key in lacking if key not in options]:
        raise ConfigError(f"{name} needs {', '.join(lacking)}, not given.")
    with data_below(args.base_path):
        return make(args, **options)


def sequence_options(make: Callable[..., Any]) -> dict[str, Any]:
    """The arguments beside `args` that a class can be given by name, and their defaults."""
    parameters = list(inspect.signature(make).parameters.values())
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return {p.name: p.default for p in named[1:]}  # The first one is `args`.
