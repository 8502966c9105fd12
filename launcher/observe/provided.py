"""What a model that observes is given: a network, an optimiser, and word of its sequence of tasks."""

from __future__ import annotations

import inspect
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from ...agents.continual.context import HIDDEN
from ...replay import ConfigError, Replay, Spec
from ..config import Settings, did_you_mean
from ..naming import makes_objects, named_object
from .options import MORE
from .own_sequence import declare

_LEARNING_RATE = 0.03  # Buzzega et al. (2020, arXiv 2004.07211), for SGD on Split-MNIST.


class Transform:
    """Makes of rows in [0, 1] what the model meets in training: augmented, then standardised.

    For rows of a memory, which keeps them as `not_aug_inputs` are. A single row will do as well.

    Args:
        spec: Of the data.
        plain: Makes `obs` of stored rows, without augmentation.
        augment: Maps rows in [0, 1] to the same, or None.
    """

    takes_batches = True

    def __init__(self, spec: Spec, plain: Any, augment: Any, device: torch.device):
        self.augment, self.dims = augment, len(spec.obs.shape)
        self.as_they_are = spec.obs.ids is not None  # Integers have no [0, 1].
        # Where the ends of [0, 1] come to lie, which is all there is to an affine map.
        # On the host, in float64, which not every device has.
        low, high = (end.cpu().double() for end in plain.ends())
        width = torch.where(high > low, high - low, 1.0)
        self.shift, self.scale, self.scale_back = (
            _one_if_alike(values, device) for values in (low, width, 1 / width)
        )

    def __call__(self, rows: Tensor) -> Tensor:
        if self.augment is not None:
            single = rows.dim() == self.dims
            rows = self.augment(rows[None])[0] if single else self.augment(rows)
        return self.normalise(rows)

    def normalise(self, rows: Tensor) -> Tensor:
        """Standardised only."""
        if self.as_they_are:
            return rows
        return rows * self.scale + self.shift

    def undone(self, obs: Tensor) -> Tensor:
        """Rows in [0, 1] of those as the model meets them un-augmented."""
        if self.as_they_are:
            return obs
        # In this order black is exactly 0.
        return (obs - self.shift).mul_(self.scale_back).clamp_(0, 1)


def _one_if_alike(values: Tensor, device: torch.device) -> float | Tensor:
    """A number, where it is the same for all places: twice as fast as a tensor."""
    if bool((values == values.flatten()[0]).all()):
        return float(values.flatten()[0])
    return values.float().to(device)


class ContinualDataset:
    """What a model that observes may know of its sequence of tasks.

    Attributes:
        NAME: Of the data.
        SETTING: `class-il`, `task-il`, `domain-il`, or `general-continual` where no task is told.
        N_TASKS, N_CLASSES: Tasks, and outputs in all.
        N_CLASSES_PER_TASK: A number; a list where they differ.
        SIZE: One row's shape.
        c_task: The current task, -1 before the first.
        settings: What `load_runner` was asked for, to train with; None elsewhere.
    """

    settings: dict[str, Any] | None = None
    parts: Any = None  # What was read of a subclass with data of its own.
    evaluates: Path | None = None  # With `inference_only`, where the model was loaded from.
    saver: Any = None  # With `savecheck`, what writes checkpoints.
    when_ended: Callable[[Any, int], None] | None = None  # Given a model that has learnt a task.

    def __init__(self, world: Any, transform: Transform | None = None, *, online: bool = False):
        if isinstance(world, Namespace):  # The arguments of a run, as Mammoth calls a subclass.
            declare(self, world)
            return
        assert transform is not None
        self.describe(world, transform, online=online)

    def describe(self, world: Any, transform: Transform, *, online: bool) -> None:
        """Begin with a sequence."""
        classes, n = [task.classes for task in world.tasks], world.spec.action.n
        self.NAME, self.N_CLASSES = world.name, n
        if not hasattr(type(self), "SIZE"):
            self.SIZE = tuple(world.spec.obs.shape)
        self.SETTING = "general-continual" if online else f"{world.scenario}-il"
        self.N_TASKS = 1 if online else len(classes)
        self._apart = self.SETTING in (
            "class-il",
            "task-il",
        )  # Whether tasks have their own outputs.
        sizes = [len(task) for task in classes] if self._apart else [n] * self.N_TASKS
        alike = len(set(sizes)) == 1
        self.N_CLASSES_PER_TASK: int | list[int] = sizes[0] if alike else sizes
        self._ends = [0, *accumulate(sizes)]
        # Such models take it that the classes of a task follow on those of the one before.
        order = torch.cat(classes) if self._apart and world.spec.discrete else torch.arange(n)
        moved = len(order) == n and not torch.equal(order, torch.arange(n))
        self.place = order.argsort() if moved else None
        self._transform, self._discrete = transform, world.spec.discrete
        self.c_task = -1
        self.replay: Replay | None = None

    def __deepcopy__(self, memo: Any) -> ContinualDataset:
        return self  # A copy of a model is of the same sequence; the rows are not to be copied.

    def get_offsets(self, task: int | None = None) -> tuple[int, int]:
        """The first class of a task, and the one after its last; all where tasks share them."""
        task = self.c_task if task is None else task
        if not self._apart:
            return 0, self.N_CLASSES
        return self._ends[task], self._ends[task + 1]

    def counters(self, task: int) -> dict[str, Any]:
        """What a model is told of where it is, in the names that such models use."""
        past, seen = self.get_offsets(task)
        return {
            "current_task": task,
            "n_classes_current_task": seen - past,
            "n_past_classes": past,
            "n_seen_classes": seen,
            "n_remaining_classes": self.N_CLASSES - seen,
            "cpt": self.N_CLASSES_PER_TASK,
            **dict.fromkeys(("n_tasks", "N_TASKS"), self.N_TASKS),
            **dict.fromkeys(("num_classes", "N_CLASSES"), self.N_CLASSES),
        }

    def labels(self, label: Tensor) -> Tensor:
        """Labels in the order in which classes come."""
        return label if self.place is None else self._moved(label.device)[label]

    def outputs(self, output: Tensor) -> Tensor:
        """Outputs in the order of the data's classes, of those in which classes come."""
        return output if self.place is None else output.index_select(1, self._moved(output.device))

    def _moved(self, device: torch.device) -> Tensor:
        assert self.place is not None
        if self.place.device != device:
            self.place = self.place.to(device)
        return self.place

    @property
    def train_loader(self) -> Loader:
        """The current task's data, to go through once more."""
        if self.replay is None:
            raise ConfigError("The data's rows are there when training has begun.")
        return Loader(self.replay, self, self._transform)

    def get_transform(self) -> Transform:
        return self._transform

    def get_normalization_transform(self) -> Any:
        """Makes of rows in [0, 1] what the model meets when it is evaluated."""
        return self._transform.normalise

    def get_loss(self) -> nn.Module:
        return nn.CrossEntropyLoss() if self._discrete else nn.MSELoss()


class Loader:
    """`(inputs, labels, not_aug_inputs)` of a task's rows, once, in random order."""

    def __init__(self, replay: Replay, dataset: ContinualDataset, transform: Transform):
        self._replay, self._dataset, self._transform = replay, dataset, transform
        self.batch_size = replay.batch_size

    def __len__(self) -> int:
        """Batches."""
        return -(-len(self._replay) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        order, transform = torch.randperm(len(self._replay)), self._transform
        for batch in self._replay.once(self.batch_size, order=order):
            rows = transform.undone(batch.obs)
            inputs = batch.obs if transform.augment is None else transform(rows)
            yield inputs, self._dataset.labels(batch.label), rows

    @property
    def dataset(self) -> Any:
        raise ConfigError(
            "The rows of a task are given, and cannot be replaced by a model. Learn rows of a memory "
            "in `observe`, beside those of the task."
        )


def run_arguments(
    settings: Settings, dataset: ContinualDataset, *, epochs: int | None, device: torch.device
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `args` holds of the run: what a model may have other values for, and what is decided."""
    usual = {"optimizer": "sgd", "lr": _LEARNING_RATE, "minibatch_size": settings.batch_size}
    usual |= {"optim_wd": 0.0, "optim_mom": 0.0, "optim_nesterov": False, "optim": {}}
    usual |= MORE.get()
    return usual, {
        **_optimizer_asked(settings),
        "batch_size": settings.batch_size,
        "n_epochs": epochs,
        "seed": settings.seed,
        "device": str(device),
        "dataset": dataset.NAME,
        "num_classes": dataset.N_CLASSES,
    }


# What such models call an optimiser's arguments.
_OPTIM = {"lr": "lr", "weight_decay": "optim_wd", "momentum": "optim_mom"}
_OPTIM |= {"nesterov": "optim_nesterov"}


def _optimizer_asked(settings: Settings) -> dict[str, Any]:
    """What the settings say of the optimiser."""
    shorthands = {key: settings.values[key] for key in ("lr", "weight_decay")}
    given = {_OPTIM[key]: value for key, value in shorthands.items() if value is not None}
    if "optim" not in settings.given:
        return given
    target, arguments = named_object(settings, "optim")
    if not makes_objects(target):
        return given  # An instance, which is given as it is.
    own = {p.name: p.default for p in inspect.signature(target).parameters.values()}
    values = {new: own[key] for key, new in _OPTIM.items() if key in own}
    values |= {_OPTIM[key]: value for key, value in arguments.items() if key in _OPTIM} | given
    rest = {key: value for key, value in arguments.items() if key not in _OPTIM}
    known = getattr(torch.optim, target.__name__, None) is target
    return {"optimizer": target.__name__.lower() if known else target, **values, "optim": rest}


def make_optimizer(
    args: Namespace, parameters: Iterable[Tensor], lr: float | None = None
) -> Optimizer:
    """The optimiser that `args` describes: `optimizer`, `lr`, `optim_wd`, `optim_mom`, ...

    Raises:
        ConfigError: If torch has none of that name, or it refuses the arguments.
    """
    named = {
        name.lower(): kind
        for name, kind in vars(torch.optim).items()
        if inspect.isclass(kind) and issubclass(kind, Optimizer) and kind is not Optimizer
    }
    kind = getattr(args, "optimizer", "sgd")
    if isinstance(kind, str):
        if kind.lower() not in named:
            raise ConfigError(
                f"optimizer={kind}: torch.optim has none of that name.{did_you_mean(kind, named)}"
            )
        kind = named[kind.lower()]
    takes = inspect.signature(kind).parameters
    values = {
        key: getattr(args, name)
        for key, name in _OPTIM.items()
        if key in takes and hasattr(args, name)
    }
    values |= {"lr": args.lr if lr is None else lr, **getattr(args, "optim", {})}
    if "nesterov" in values:
        values["nesterov"] = bool(values["nesterov"])
    try:
        optimizer: Optimizer = kind(parameters, **values)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{kind.__name__} cannot be made of {values}: {error}") from error
    return optimizer


def fitted(output: Tensor, n: int) -> Tensor:
    """Outputs for all n classes, of a model that has some for those it has seen alone."""
    if output.dim() != 2 or output.shape[1] >= n:
        return output
    return F.pad(output, (0, n - output.shape[1]), value=HIDDEN)
