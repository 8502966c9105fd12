"""A user's own `ContinualDataset` as the world of a run: its data sets, with its own transforms.

What a model learns from is `train[i][0]`, what a memory keeps is `train[i][2]`, and what it is evaluated
on is `test[i][0]`, of the data sets that `get_data_loaders` gives for each task.
"""

from __future__ import annotations

import inspect
import warnings
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ....envs.scenarios import held_out_share
from ....envs.table_world import TableWorld
from ....envs.task_rows import DataTask
from ....envs.transform import Augment, Transform
from ....replay import ConfigError, DataError, Space, Spec, Table
from ....replay.randomness import forked_randomness
from ...settings.plan import Plan
from .loaders import TaskData
from .own_rows import Drawn, Items, read_all
from .own_sequence import data_below, make_sequence, store_masked_loaders
from .sequence import ContinualDataset
from .transform import Plain, Rows

_READ_TWICE = 60  # Items: a transform that draws in one of ten is missed once in 500 times.
_SAMPLED = 300  # Rows that statistics are computed from.
# Settings that a class already determines, and what they determine.
_DECIDED = {
    **dict.fromkeys(("tasks", "classes_per_task", "class_order", "scenario"), "tasks"),
    **dict.fromkeys(("aug", "standardize", "channels", "image_size"), "transforms"),
    "test_dataset": "held-out data",
    "num_classes": "outputs",
}


class SequenceWorld(TableWorld):
    """The tables and tasks of a `ContinualDataset`.

    Args:
        sequence: The class, or an instance.
        plan: Of the run.
        arguments: Of its constructor.

    Attributes:
        sequence: The instance, which models see as their `dataset`.
        rows: Makes batches of its rows.

    Raises:
        ConfigError: If a setting conflicts with it, or it lacks required attributes.
        DataError: If its data cannot be read or learnt from.
    """

    def __init__(self, sequence: Any, plan: Plan, arguments: dict[str, Any]):
        kind = getattr(sequence, "__name__", type(sequence).__name__)
        for key, what in _DECIDED.items():
            if key in plan.given and plan.values[key] is not None:
                raise ConfigError(
                    f"{key}={plan.values[key]} conflicts with dataset={kind}: a ContinualDataset "
                    f"defines its own {what}. Leave {key}= out, or change the class."
                )
        if inspect.isclass(sequence):
            sequence = make_sequence(sequence, _arguments(plan), arguments)
        elif arguments:
            raise ConfigError(f"dataset={kind} is already constructed and takes no arguments.")
        if sequence.args is None:
            raise ConfigError(f"{kind}.__init__ does not call super().__init__(args).")
        self.sequence: ContinualDataset = sequence
        name = str(getattr(sequence, "NAME", None) or kind)
        if sequence.parts is None:  # Read once, however often it is learnt.
            sequence.parts = _read(sequence, name)
        parts: _Parts = sequence.parts
        self.rows = parts.rows
        self.rows.layout = None  # What an earlier run decided.
        held = None
        if plan.validation:
            labels = parts.train.columns["label"]
            assert isinstance(labels, Tensor)
            held = held_out_share(labels, plan.validation)
        super().__init__(
            name,
            parts.spec,
            parts.train,
            parts.test,
            [_task(sequence, t, *r, held) for t, r in enumerate(zip(*parts.ends, strict=True))],
            scenario=sequence.SETTING.removesuffix("-il"),
            source_dtype=torch.float32,
            notes=["transformed by its class"],
            decoded={True},
        )

    def transforms(
        self, *, standardize: bool, device: torch.device, augment: Callable[[], Augment] | None
    ) -> tuple[Transform, Transform]:
        """The transforms of its class, whatever else is asked for."""
        return self.rows, Plain(self.rows)


@dataclass
class _Parts:
    """What was read: tables, where in them each task's rows end, and what is known of all."""

    train: Table
    test: Table
    ends: tuple[list[tuple[int, int]], list[tuple[int, int]]]
    rows: Rows
    spec: Spec
    sets: tuple[list[Any], list[Any]]

    def part_of(self, table: Table, index: Tensor, task: int) -> tuple[Any, Tensor]:
        """The data set of a task that rows of a table come from, and which of its rows they are."""
        which = 0 if table is self.train else 1
        first, end = self.ends[which][task]
        chosen = torch.zeros(end - first, dtype=torch.bool)
        chosen[index.cpu() - first] = True
        return self.sets[which][task], chosen


def _arguments(plan: Plan) -> Namespace:
    """What Mammoth's `args` says of the run, to a class that was not made by `load_runner`."""
    return Namespace(
        batch_size=plan.batch_size,
        n_epochs=plan.epochs,
        seed=plan.seed,
        base_path=plan.data_dir,
        joint=0,
        permute_classes=0,
        num_workers=0,
    )


def _task(
    sequence: Any, t: int, train: tuple[int, int], test: tuple[int, int], held: Tensor | None
) -> DataTask:
    first, end = sequence.get_offsets(t)
    rows, validation = torch.arange(*train), None
    if held is not None:
        chosen = held[rows]
        rows, validation = rows[~chosen], rows[chosen]
    name = f"classes {first} to {end - 1}" if sequence.tasks_apart else f"task {t}"
    return DataTask(name, rows, torch.arange(*test), torch.arange(first, end), validation)


def _read(sequence: Any, name: str) -> _Parts:
    """The data sets of all tasks, and the transforms of their class."""
    train: list[Any] = []
    test: list[Any] = []
    seed = sequence.args.seed or 0
    with data_below(sequence.args.base_path), forked_randomness(seed):
        for task in range(sequence.N_TASKS):
            sequence.c_task = task - 1
            for parts, part in zip((train, test), _loaded(sequence, name), strict=True):
                parts.append(part)
        sequence.c_task = -1
        items = Items(train, name, parts_of_item=3)
        held_out = Items(test, f"held-out {name}", parts_of_item=2)
        changes = any(
            not torch.equal(items[i][0], items[i][0])
            for i in np.linspace(0, len(items) - 1, _READ_TWICE).astype(int).tolist()
        )
        sample = [items[i] for i in np.linspace(0, len(items) - 1, _SAMPLED).astype(int).tolist()]
        obs, raw = (torch.stack([item[k] for item in sample]) for k in (0, 2))
        if obs.shape != raw.shape:
            raise DataError(
                f"Items of {name} are {list(obs.shape[1:])} with augmentation and {list(raw.shape[1:])} "
                "without. TRANSFORM and not_aug_transform must return the same size."
            )
        ends = _ends(sequence, raw)
        bytes_only = bool(torch.equal((raw * 255).round() / 255, raw))
        rows = Rows(_transform(sequence), ends, augments=changes, bytes_only=bytes_only)
        n = sequence.N_CLASSES
        if changes:
            labels = _labels(items)
            table: Table = Drawn(items, tuple(obs.shape[1:]), labels)
        else:
            columns = read_all(items, obs.shape[1:])
            labels = columns["label"]
            # Where it is all the same, rows that are not augmented are found from those that are.
            if torch.allclose(rows.normalise(columns["raw"]), columns["obs"], atol=1e-5):
                del columns["raw"]
            table = Table(**columns)
        held = read_all(held_out, obs.shape[1:])
    for part, found in ((items, labels), (held_out, held["label"])):
        _check_labels(sequence, part, found)
    space = _space(obs, ends)
    names = getattr(sequence, "class_names", None)
    if type(sequence).get_class_names is not ContinualDataset.get_class_names:
        names = sequence.get_class_names()
    names = tuple(map(str, names)) if names is not None and len(names) == n else None
    spec = Spec(space, Space((n,), torch.int64, 0, n - 1, discrete=True, names=names), len(train))
    ends_of = tuple(
        list(zip(part.first[:-1].tolist(), part.first[1:].tolist(), strict=True))
        for part in (items, held_out)
    )
    sets = (train, test)
    return _Parts(table, Table(**held), (ends_of[0], ends_of[1]), rows, spec, sets)


def _loaded(sequence: Any, name: str) -> Sequence[Any]:
    """The current task's data sets, as `get_data_loaders` gives them, of both kinds that there are."""
    try:
        pair = sequence.get_data_loaders()
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"{name}.get_data_loaders raised {type(error).__name__}: {error} (base_path: "
            f"{sequence.args.base_path or 'the default'})"
        ) from error
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise DataError(
            f"{name}.get_data_loaders must return two data sets, for training and for testing."
        )
    if not isinstance(pair[0], DataLoader):
        pair = store_masked_loaders(pair[0], pair[1], sequence)
    elif not isinstance(pair[0], TaskData):
        warnings.warn(
            f"{name}: only the data sets of its own DataLoaders are used; their samplers have no effect.",
            stacklevel=2,
        )
    return [loader.dataset for loader in pair]


def _transform(sequence: Any) -> Callable[[Tensor], Tensor]:
    """What makes of a row in [0, 1] what a model learns from."""
    if type(sequence).get_transform is not ContinualDataset.get_transform:
        own: Callable[[Tensor], Tensor] | None = sequence.get_transform()
        return own or _as_it_is
    from torchvision.transforms import Compose, ToPILImage

    if not hasattr(sequence, "TRANSFORM"):
        raise ConfigError(f"{type(sequence).__name__} has no TRANSFORM, and no get_transform().")
    made: Callable[[Tensor], Tensor] = Compose([ToPILImage(), sequence.TRANSFORM])
    return made


def _as_it_is(row: Tensor) -> Tensor:
    return row


def _ends(sequence: Any, raw: Tensor) -> tuple[Tensor, Tensor]:
    """What its normalisation makes of rows of 0 and of 1."""
    kind = type(sequence)
    if kind.get_normalization_transform is not ContinualDataset.get_normalization_transform:
        normalise = sequence.get_normalization_transform()
    elif hasattr(sequence, "MEAN") and hasattr(sequence, "STD"):
        from torchvision.transforms import Normalize

        normalise = Normalize(sequence.MEAN, sequence.STD)
    else:
        raise ConfigError(
            f"{kind.__name__} has no MEAN and STD, and no get_normalization_transform() (which may "
            "return None)."
        )
    if normalise is None:
        return torch.zeros(raw.shape[1:]), torch.ones(raw.shape[1:])
    row = raw[0]
    low, high, found = (normalise(x) for x in (torch.zeros_like(row), torch.ones_like(row), row))
    if not torch.allclose(row * (high - low) + low, found, atol=1e-4):
        raise ConfigError(
            f"{kind.__name__}.get_normalization_transform() must only shift and scale each value, so that "
            "it can be undone. Move everything else to TRANSFORM and TEST_TRANSFORM."
        )
    return low, high


def _space(obs: Tensor, ends: tuple[Tensor, Tensor]) -> Space:
    spread = (2, 3) if obs.dim() == 4 else ()
    return Space(
        tuple(obs.shape[1:]),
        torch.float32,
        float(ends[0].min()),
        float(ends[1].max()),
        obs.mean((0, *spread)),
        obs.std((0, *spread)),
    )


def _labels(items: Items) -> Tensor:
    """Of all items without reading them, where `targets` say the same as some that are read."""
    if all(hasattr(part, "targets") for part in items.parts):
        listed = np.concatenate([np.asarray(part.targets) for part in items.parts])
        places = np.linspace(0, len(items) - 1, _SAMPLED).astype(int).tolist()
        if all(items[i][1] == int(listed[i]) for i in places):
            return torch.from_numpy(listed.astype(np.int64))
    return torch.tensor([items[i][1] for i in range(len(items))])


def _check_labels(sequence: Any, items: Items, labels: Tensor) -> None:
    for task in range(len(items.parts)):
        first, end = sequence.get_offsets(task)
        rows = labels[int(items.first[task]) : int(items.first[task + 1])]
        if bool(((rows < first) | (rows >= end)).any()):
            wrong = int(rows[(rows < first) | (rows >= end)][0])
            raise DataError(
                f"Task {task} of {items.name} should have classes {first} to {end - 1} "
                f"(N_CLASSES_PER_TASK), but holds a row of class {wrong}. __getitem__ must read "
                "`data[index]` and `targets[index]`, which hold the task's own rows."
            )
