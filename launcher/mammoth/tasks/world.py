"""A user's own `ContinualDataset` as the world of a run: its data sets, with its own transforms.

`get_data_loaders` returns two data sets for each task: a model learns from `train[i][0]`, a memory stores
`train[i][2]`, and the model is evaluated on `test[i][0]`.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ....envs.scenarios import held_out_share
from ....envs.table_world import TableWorld
from ....envs.task_rows import DataTask
from ....envs.transform import Augment, Transform
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


class SequenceWorld(TableWorld):
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
        name = str(made.NAME if hasattr(made, "NAME") and made.NAME else kind)
        if made.parts is None:  # Read once, however often it is learnt.
            made.parts = read_data(made, name)
        parts = made.parts
        self.rows = parts.rows
        self.rows.layout = None  # An earlier run of the same object may have set it.
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
            [_task(made, t, *r, held) for t, r in enumerate(zip(*parts.ends, strict=True))],
            scenario=made.SETTING.removesuffix("-il"),
            source_dtype=torch.float32,
            notes=["transformed by its class"],
            decoded={True},
        )

    def transforms(
        self, *, standardize: bool, device: torch.device, augment: Callable[[], Augment] | None
    ) -> tuple[Transform, Transform]:
        """The transforms of its class, whatever else is asked for."""
        return self.rows, Plain(self.rows)


def _arguments(plan: Plan) -> Namespace:
    """Mammoth's `args` for a class that was not passed to `load_runner`."""
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
