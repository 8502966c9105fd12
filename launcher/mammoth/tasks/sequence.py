"""The sequence of tasks as Mammoth's models see it."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakValueDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....envs.table_world import TableWorld
from ....replay import ConfigError, Replay, Spec, Table
from ..methods import ObservingModel, compatibility
from ..schedulers import SCHEDULERS
from .loaders import TaskLoader
from .own_rows import OwnRows
from .own_sequence import declare
from .rows import TaskRows
from .transform import Denormalise, Normalise, Rows, Transform


class OwnData(Protocol):
    """The rows of a subclass with data of its own; see `own_data`."""

    train: Table
    test: Table
    ends: tuple[list[tuple[int, int]], list[tuple[int, int]]]
    rows: Rows
    spec: Spec

    def part_of(self, table: Table, index: Tensor, task: int) -> tuple[Any, Tensor]: ...


class ContinualDataset:
    """The sequence of tasks, as a model with `observe` can read it.

    Attributes:
        NAME: Name of the data.
        SETTING: `class-il`, `task-il`, `domain-il`, or `general-continual` without task boundaries (online).
        N_TASKS, N_CLASSES: Number of tasks, and of all outputs.
        N_CLASSES_PER_TASK: A number, or a list where tasks differ.
        SIZE: Height and width of images; the shape of one row of other data.
        MEAN, STD: Mean and standard deviation by which rows in [0, 1] are standardised, per channel.
        TRANSFORM, TEST_TRANSFORM: Convert rows in [0, 1] to the model's inputs, in training and elsewhere.
        c_task: The current task, -1 before the first.
        args: The run's arguments; None before a run.
        settings: What `load_runner` was asked for, to train with; None elsewhere.
        alter: Transforms stored rows to those of a task, such as rotated ones; None: no change.
        tasks_apart: Whether each task has its own outputs.
        class_ends: int `[N_TASKS + 1]`: 0, and the number of classes up to the end of each task.
        parts: The rows of a subclass with data of its own; None where the run's tables hold them.
        evaluates: With `inference_only`, where the model was loaded from.
        saver: With `savecheck`, the object that writes checkpoints.
        when_ended: Called after a task with the model and the task's number.
    """

    settings: dict[str, Any] | None = None
    args: Namespace | None = None
    AVAIL_SCHEDS = SCHEDULERS
    parts: OwnData | None = None
    evaluates: Path | None = None
    saver: Any = None
    when_ended: Callable[[Any, int], None] | None = None

    def __init__(
        self,
        world: TableWorld | Namespace,
        transform: Transform | None = None,
        *,
        online: bool = False,
    ):
        if isinstance(world, Namespace):  # The arguments of a run, as Mammoth calls a subclass.
            declare(self, world)
            return
        assert transform is not None
        self.describe(world, transform, online=online)

    def describe(self, world: TableWorld, transform: Transform, *, online: bool) -> None:
        """Set the attributes from the tasks of a run.

        Args:
            world: The run's data.
            transform: Converts its rows to the model's inputs.
            online: Whether task boundaries are hidden, so that all tasks are one.
        """
        classes, n = [task.classes for task in world.tasks], world.spec.action.n
        self.NAME, self.N_CLASSES = world.name, n
        shape = tuple(world.spec.obs.shape)
        if self.parts is None:  # A subclass with data of its own says these itself.
            self.SIZE = shape[1:] if len(shape) == 3 else shape
            self.TRANSFORM, self.TEST_TRANSFORM = transform, transform.normalise
            self.MEAN, self.STD = transform.normalise.mean, transform.normalise.std
        self.SETTING = "general-continual" if online else f"{world.scenario}-il"
        self.N_TASKS = 1 if online else len(classes)
        self.tasks_apart = self.SETTING in ("class-il", "task-il")
        sizes = [len(task) for task in classes] if self.tasks_apart else [n] * self.N_TASKS
        alike = len(set(sizes)) == 1
        self.N_CLASSES_PER_TASK: int | list[int] = sizes[0] if alike else sizes
        self.class_ends = [0, *accumulate(sizes)]
        # Mammoth's models rely on each task's classes following those of the previous task.
        order = torch.cat(classes) if self.tasks_apart and world.spec.discrete else torch.arange(n)
        moved = len(order) == n and not torch.equal(order, torch.arange(n))
        self._order = order
        self.place = order.argsort() if moved else None
        self.spec, self.transform, self.alter = world.spec, transform, world.task_transform
        self.device = transform.device
        self._world, self._online = world, online
        self._current: TaskLoader | None = None
        # Weak: the loader of an earlier task lives only as long as a model holds it.
        self._loaders: WeakValueDictionary[tuple[int, ...], TaskLoader] = WeakValueDictionary()
        self._test_loaders: list[TaskLoader] = []
        self.c_task = -1
        self.replay: Replay | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> ContinualDataset:
        return self  # A copied model shares the sequence: copying the rows would cost memory for nothing.

    def get_offsets(self, task: int | None = None) -> tuple[int, int]:
        """The first class of a task, and the one after its last; all where tasks share them.

        A task beyond the last has no classes: both are the total number of classes.
        """
        task = self.c_task if task is None else task
        if not self.tasks_apart:
            return 0, self.N_CLASSES
        first, end = (self.class_ends[min(max(at, 0), self.N_TASKS)] for at in (task, task + 1))
        return first, end

    def counters(self, task: int) -> dict[str, Any]:
        """The task counters, under Mammoth's names."""
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
        """Labels, int64 `[B]`, in the order in which classes come."""
        return label if self.place is None else self._moved(label.device)[label]

    def own_labels(self, label: Tensor) -> Tensor:
        """The inverse of `labels`: labels in the order of the data's classes."""
        return label if self.place is None else self._order.to(label.device)[label]

    def outputs(self, output: Tensor) -> Tensor:
        """Outputs `[B, n]` in the order of the data's classes, from the order in which classes come."""
        return output if self.place is None else output.index_select(1, self._moved(output.device))

    def _moved(self, device: torch.device) -> Tensor:
        assert self.place is not None
        # Kept on the device: a copy in every step would cost more than the lookup.
        if self.place.device != device:
            self.place = self.place.to(device)
        return self.place

    @property
    def train_loader(self) -> TaskLoader:
        """Loader of the current task's rows, which a model may replace before they are learnt."""
        if self.replay is None:
            raise ConfigError("The data's rows are not available before training begins.")
        # Online, boundaries are hidden: the current rows are all those that the replay draws from.
        tasks = tuple(self.replay.given) if self._online else (max(self.c_task, 0),)
        self._current = self._loader(tasks)
        return self._current

    def _loader(self, tasks: tuple[int, ...]) -> TaskLoader:
        """The loader of a task, the same object as long as a model holds it: it may have replaced rows."""
        assert self.replay is not None
        if (loader := self._loaders.get(tasks)) is None:
            parts = [self._world.tasks[task].train for task in tasks]
            index = parts[0] if len(parts) == 1 else torch.cat(parts)
            rows = self._rows(self._world.train, index, tasks[0], train=True)
            loader = self._loaders[tasks] = TaskLoader(rows, self.replay.batch_size)
        return loader

    def parts_referred_to(self) -> dict[str, Any]:
        """The loaders of all tasks, by name: a model that holds one finds it again after a resume."""
        # Online, the rows of a loader change as tasks begin.
        if self.replay is None or self._online:
            return {}
        loaders = {f"train_loader {task}": self._loader((task,)) for task in range(self.N_TASKS)}
        return loaders | {f"{name} rows": loader.dataset for name, loader in loaders.items()}

    def state_dict(self) -> dict[str, Any]:
        """What the data cannot restore: the task, and its rows if a model replaced them."""
        rows = self.rows_read
        kept = None
        if isinstance(rows, TaskRows) and not self._online:
            kept = rows.state_dict() if rows.transform_is_usual and rows.changed else None
        return {"c_task": self.c_task, "rows": kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        # Resuming begins the tasks again, in which the model may have replaced rows once more.
        for loader in self._loaders.values():
            loader.dataset.reset()
        self.c_task, self._current = state["c_task"], None
        if state["rows"] is not None and self.replay is not None:  # Without one, it only evaluates.
            self.train_loader.dataset.load_state_dict(state["rows"])

    @property
    def rows_read(self) -> TaskRows | OwnRows | None:
        """The current task's rows if anything has read, and so may have changed, them; else None."""
        return None if self._current is None else self.train_loader.dataset

    @property
    def test_loaders(self) -> list[TaskLoader]:
        """Loaders of the held-out rows of each task so far, or of its validation rows, if any."""
        there = self._test_loaders
        for number in range(len(there), self.c_task + 1):
            task, table = self._world.tasks[number], self._world.test
            index = task.test
            if task.validation is not None:
                table, index = self._world.train, task.validation
            size = self.replay.batch_size if self.replay is not None else 256
            there.append(TaskLoader(self._rows(table, index, number, train=False), size))
        return there[: self.c_task + 1]

    def _rows(self, table: Table, index: Tensor, task: int, *, train: bool) -> TaskRows | OwnRows:
        if self.parts is None:
            return TaskRows(self, table, index, task, train=train)
        part, chosen = self.parts.part_of(table, index, task)
        drawn = self.parts.rows.augment is not None
        return OwnRows(self, part, chosen, task, train=train, drawn=drawn)

    def evaluate(
        self,
        model: ObservingModel,
        dataset: ContinualDataset | None = None,
        *,
        last: bool = False,
        return_loss: bool = False,
    ) -> tuple[Any, ...]:
        """Accuracies of the tasks so far, in percent: among the classes seen, and among each task's own.

        Args:
            dataset: Has no effect: it is always this sequence. Mammoth's models pass it.
            last: Only evaluate the current task.
            return_loss: Whether to return the mean loss as a third value.
        """
        return evaluate(model, self, last=last, return_loss=return_loss)

    def get_transform(self) -> Transform:
        return self.transform

    def get_normalization_transform(self) -> Normalise:
        """Converts rows in [0, 1] to the model's inputs in evaluation."""
        return self.transform.normalise

    def get_denormalization_transform(self) -> Denormalise:
        """The inverse of `get_normalization_transform()`."""
        return Denormalise(self.MEAN, self.STD)

    def get_loss(self) -> nn.Module:
        """The loss function of outputs and labels; accepts options such as `reduction="none"`."""
        return CrossEntropy() if self.spec.discrete else SquaredError()

    def get_epochs(self) -> int:
        """Passes over each task."""
        return int(self._of_run("n_epochs"))

    def get_batch_size(self) -> int:
        return int(self._of_run("batch_size"))

    def get_minibatch_size(self) -> int:
        """Rows of a batch from a memory."""
        return int(self._of_run("minibatch_size"))

    def get_backbone(self) -> Any:
        """The name of the run's network, or its class."""
        return self._of_run("backbone")

    def get_class_names(self) -> list[str]:
        """Names of the classes in the order in which they come; numbers where they have none."""
        names = self.spec.action.names
        own = list(range(self.N_CLASSES)) if names is None else list(names)
        return [str(own[place]) for place in self._order.tolist()]

    class_names = property(get_class_names)

    def _of_run(self, name: str) -> Any:
        if self.args is None or (value := vars(self.args).get(name)) is None:
            raise ConfigError(f"This run has no `{name}`.")
        return value


class CrossEntropy(nn.CrossEntropyLoss):
    """`F.cross_entropy`, which Mammoth's models call with arguments of its own, as a module."""

    def forward(self, input: Tensor, target: Tensor, **arguments: Any) -> Tensor:
        if not arguments:
            return super().forward(input, target)
        return F.cross_entropy(input, target, **arguments)


class SquaredError(nn.MSELoss):
    """`F.mse_loss` as a module, with the arguments that `CrossEntropy` accepts."""

    def forward(self, input: Tensor, target: Tensor, **arguments: Any) -> Tensor:
        return F.mse_loss(input, target, **arguments)


@torch.no_grad()
def evaluate(
    model: ObservingModel, sequence: ContinualDataset, *, last: bool, return_loss: bool
) -> tuple[Any, ...]:
    """See `ContinualDataset.evaluate`."""
    # Models call this in the middle of `end_task`, and go on in the mode that they were in.
    training = model.net.training
    model.net.eval()
    fits = compatibility(model) or ("class-il",)
    # Mammoth's rule: a model for neither of these is called as `forward(x, task)`.
    told = "class-il" not in fits and "general-continual" not in fits
    predict: Any = model  # Any object that can be called; the protocol does not say so.
    loss_of, total_loss, rows = sequence.get_loss(), 0.0, 0
    seen, within = [], []
    _, end = sequence.get_offsets()
    for task, loader in enumerate(sequence.test_loaders):
        if last and task != sequence.c_task:
            continue
        first, after = sequence.get_offsets(task)
        right = right_within = 0
        for inputs, labels in loader:
            outputs = predict(inputs, task) if told else predict(inputs)
            if return_loss:
                total_loss += float(loss_of(outputs, labels)) * len(labels)
            # Outputs of classes that were never seen must not win: they are untrained.
            right += int((outputs[:, :end].argmax(1) == labels).sum())
            right_within += int((outputs[:, first:after].argmax(1) + first == labels).sum())
        rows += len(loader.dataset)
        # Mammoth has no class-IL accuracy for a model that is told the task, and reports 0.
        seen.append(0.0 if told else 100 * right / len(loader.dataset))
        within.append(100 * right_within / len(loader.dataset))
    model.net.train(training)
    return (seen, within, total_loss / rows) if return_loss else (seen, within)
