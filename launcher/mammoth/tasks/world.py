"""A user's own `ContinualDataset` as the world of a run: its data sets, with its own transforms.

What a model learns from is `train[i][0]`, what a memory keeps is `train[i][2]`, and what it is evaluated
on is `test[i][0]`, of the data sets that `get_data_loaders` gives for each task.
"""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import torch
from torch import Tensor

from ....envs.scenarios import held_out_share
from ....envs.tasks import DataTask, DataWorld
from ....replay import ConfigError
from ...settings.plan import Plan
from ..methods import class_name
from .own_data import read_data
from .own_sequence import make_sequence
from .sequence import ContinualDataset
from .transform import Plain

# Settings that a class already determines, and what they determine.
_DECIDED = {
    **dict.fromkeys(("tasks", "classes_per_task", "class_order", "scenario"), "tasks"),
    **dict.fromkeys(("aug", "standardize", "channels", "image_size"), "transforms"),
    "test_dataset": "held-out data",
    "num_classes": "outputs",
}


class SequenceWorld(DataWorld):
    """The tables and tasks of a `ContinualDataset`.

    Args:
        sequence: The class, or an instance.
        plan: The run's plan.
        arguments: Arguments of the class's constructor.

    Attributes:
        sequence: The instance, which models see as their `dataset`.
        rows: Turns its rows into batches.

    Raises:
        ConfigError: If a setting conflicts with it, or it lacks required attributes.
        DataError: If its data cannot be read or learnt from.
    """

    def __init__(
        self,
        sequence: type[ContinualDataset] | ContinualDataset,
        plan: Plan,
        arguments: dict[str, Any],
    ):
        kind = class_name(sequence)
        for key, what in _DECIDED.items():
            if key in plan.given and plan.values[key] is not None:
                raise ConfigError(
                    f"{key}={plan.values[key]} conflicts with dataset={kind}: a ContinualDataset "
                    f"defines its own {what}. Leave {key}= out, or change the class."
                )
        made: ContinualDataset
        if isinstance(sequence, type):
            made = make_sequence(sequence, _arguments(plan), arguments)
        elif arguments:
            raise ConfigError(f"dataset={kind} is already constructed and takes no arguments.")
        else:
            made = sequence
        if made.args is None:
            raise ConfigError(f"{kind}.__init__ does not call super().__init__(args).")
        self.sequence = made
        self.name = str(made.NAME if hasattr(made, "NAME") and made.NAME else kind)
        self.scenario = made.SETTING.removesuffix("-il")
        if made.parts is None:  # Read once, however often it is learnt.
            made.parts = read_data(made, self.name)
        parts = made.parts
        self.train, self.test, self.rows = parts.train, parts.test, parts.rows
        self.rows.layout = None  # An earlier run of the same object may have set it.
        self.transforms = self.rows, Plain(self.rows)
        held = None
        if plan.validation:
            labels = self.train.columns["label"]
            assert isinstance(labels, Tensor)
            held = held_out_share(labels, plan.validation)
        self.tasks = [
            _task(made, t, *rows, held) for t, rows in enumerate(zip(*parts.ends, strict=True))
        ]
        self.spec = parts.spec
        self.notes = ["transformed by its class"]
        self.source_dtype, self.decoded = torch.float32, {True}
        self.single_class = self.alter = None
        self.later, self._known_tasks = [], len(self.tasks)
        self._kind, self._like = "own", None  # No other task can follow.


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
    sequence: ContinualDataset,
    t: int,
    train: tuple[int, int],
    test: tuple[int, int],
    held: Tensor | None,
) -> DataTask:
    first, end = sequence.get_offsets(t)
    rows, validation = torch.arange(*train), None
    if held is not None:
        chosen = held[rows]
        rows, validation = rows[~chosen], rows[chosen]
    name = f"classes {first} to {end - 1}" if sequence.tasks_apart else f"task {t}"
    return DataTask(name, rows, torch.arange(*test), torch.arange(first, end), validation)
