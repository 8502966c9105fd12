"""The declarations of a user's own `ContinualDataset`: its tasks, its data, and the folder of the data."""

from __future__ import annotations

import copy
import inspect
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import accumulate
from typing import Any, Protocol

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from ....envs.sources import default_data_dir
from ....replay import ConfigError, DataError
from ....replay.suggestions import did_you_mean
from ..methods import class_name
from .loaders import TaskData
from .own_rows import rows_of

_SETTINGS = ("class-il", "task-il", "domain-il")
_BELOW: ContextVar[str | None] = ContextVar("data folder", default=None)


class Declared(Protocol):
    """A `ContinualDataset` with data of its own; the user's class defines the names in capitals."""

    SETTING: str
    N_TASKS: int
    N_CLASSES: int
    N_CLASSES_PER_TASK: int | list[int]
    args: Any  # A `Namespace`; None until the constructor has set it.
    c_task: int
    tasks_apart: bool
    class_ends: list[int]

    def get_offsets(self, task: int | None = None) -> tuple[int, int]: ...


class _ToTensor:
    """torchvision's `to_tensor`, imported at the first call: importing torchvision takes 0.2 s."""

    def __call__(self, picture: object) -> Tensor:
        from torchvision.transforms.functional import to_tensor

        made: Tensor = to_tensor(picture)
        return made


class MammothDataset(Dataset[Any]):
    """The base class for the data of a `ContinualDataset`: items are `(input, label, unaugmented input)`.

    Attributes:
        data, targets: Arrays `[N, ...]` and `[N]`; each task has some of the rows.
        not_aug_transform: Turns a picture into the third part of an item, a tensor in [0, 1].
    """

    data: Any
    targets: Any
    not_aug_transform: Callable[[Any], Tensor] = _ToTensor()


def base_path() -> str:
    """The folder of data sets, ending in a slash: `base_path() + "CIFAR10"`.

    It is the `base_path` argument of `load_runner` while its data set is read.
    """
    return str(_BELOW.get() or default_data_dir()).rstrip("/") + "/"


@contextmanager
def data_below(folder: str | None) -> Iterator[None]:
    """Makes `base_path()` return this folder inside the block."""
    token = _BELOW.set(folder)
    try:
        yield
    finally:
        _BELOW.reset(token)


def declare(sequence: Declared, args: Namespace) -> None:
    """Check and complete the attributes in which a class declares its tasks.

    Args:
        sequence: Receives `args`, `c_task`, `N_CLASSES`, `tasks_apart` and `class_ends`.
        args: Read for `joint`, `permute_classes` and `seed`.

    Raises:
        ConfigError: If an attribute is missing or invalid.
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
    sizes = list(sizes) if isinstance(sizes, (list, tuple)) else [int(sizes)] * sequence.N_TASKS
    if len(sizes) != sequence.N_TASKS:
        raise ConfigError(
            f"{name}.N_CLASSES_PER_TASK has {len(sizes)} entries, but N_TASKS is {sequence.N_TASKS}."
        )
    sequence.N_CLASSES = total = sum(sizes) if apart else max(sizes)
    said = vars(args)
    if said.get("joint"):
        if not apart:
            raise ConfigError(
                f"joint=1 needs tasks with disjoint classes; those of {name} share theirs (domain-il)."
            )
        sequence.N_TASKS, sequence.N_CLASSES_PER_TASK, sizes = 1, total, [total]
    sequence.tasks_apart, sequence.class_ends = apart, [0, *accumulate(sizes)]
    if said.get("permute_classes") and "class_order" not in said:
        args.class_order = permutation(total, args.seed)


def permutation(n: int, seed: int | None) -> np.ndarray[Any, Any]:
    """The new number of each class, int64 `[n]`, drawn as Mammoth draws it."""
    # NumPy's legacy generator, for Mammoth's order: `default_rng` draws another one from the same seed.
    return np.random.RandomState(seed).permutation(n)


def store_masked_loaders(
    train: Dataset[Any], test: Dataset[Any], setting: Declared
) -> tuple[TaskData, TaskData]:
    """Loaders of the next task's rows, selected from data sets that hold the rows of all tasks.

    Args:
        train, test: Data sets with `data` and `targets` `[N]`; they are not changed.
        setting: The `ContinualDataset`, whose `c_task` advances unless all tasks share their classes.
    """
    if setting.tasks_apart:
        setting.c_task += 1
    options = {"batch_size": setting.args.batch_size}
    parts = [_rows_of_task(part, setting) for part in (train, test)]
    return TaskData(parts[0], shuffle=True, **options), TaskData(parts[1], **options)


def _rows_of_task(part: Any, setting: Declared) -> Any:
    """A copy of a data set with the rows of the current task only."""
    name = type(part).__name__
    if lacking := [key for key in ("data", "targets") if not hasattr(part, key)]:
        raise DataError(
            f"{name} has no attribute {' and '.join(lacking)}, needed to select each task's rows."
        )
    targets = np.asarray(part.targets)
    if len(part.data) != len(targets):
        raise DataError(f"{name} has {len(part.data)} rows of data but {len(targets)} targets.")
    if vars(setting.args).get("permute_classes"):
        targets = setting.args.class_order[targets]
    chosen = np.ones(len(targets), dtype=bool)
    if setting.tasks_apart:
        first, end = setting.get_offsets(setting.c_task)
        chosen = (targets >= first) & (targets < end)
    # A shallow copy: users' data sets hold more than rows, such as transforms, all of which stay shared.
    rows = copy.copy(part)
    rows.targets, rows.data = targets[chosen], rows_of(part.data, chosen)
    return rows


def make_sequence(make: Callable[..., Any], args: Namespace, options: dict[str, Any]) -> Any:
    """The sequence that a class or a function makes from the run's arguments and its own options.

    Raises:
        ConfigError: If an option is missing or unknown.
    """
    name = class_name(make)
    own = sequence_options(make)
    if unknown := [key for key in options if key not in own]:
        there = f" It has: {', '.join(own)}." if own else ""
        raise ConfigError(
            f"{name} has no argument `{unknown[0]}`.{did_you_mean(unknown[0], own)}{there}"
        )
    lacking = [k for k, default in own.items() if default is inspect.Parameter.empty]
    if lacking := [key for key in lacking if key not in options]:
        raise ConfigError(f"{name} needs {', '.join(lacking)}, which was not given.")
    with data_below(args.base_path):
        return make(args, **options)


def sequence_options(make: Callable[..., Any]) -> dict[str, Any]:
    """The arguments that a class accepts by name after `args`, and their defaults."""
    parameters = list(inspect.signature(make).parameters.values())
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return {p.name: p.default for p in named[1:]}  # The first one is `args`.
