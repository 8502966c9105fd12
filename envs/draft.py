"""Turns data sets into tables and tasks, step by step: the making of a `DataWorld`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..replay import ConfigError, Space, Spec
from ..replay.storage import changes
from .alterations import TaskTransform, alterations_of
from .arrays import Arrays
from .description import describe, in_parts
from .inputs import stored
from .joining import exact_targets, notes_on_labels, numbered_in_turn, single_class, with_held_out
from .later import Outputs
from .lengths import alike_in_length, note_on_lengths
from .numbering import share
from .reading import Reading
from .scenarios import divide
from .task_rows import DataTask, in_turn, split


@dataclass
class Draft:
    """Data sets on their way to tables and tasks: `read`, `exact`, `store`, then what makes the tasks.

    Attributes:
        counted: Number of classes in the data, without outputs for later ones.
        single_class: The name of the only class; None: there are several, or values.
        spec: The spec of the rows as tables hold them.
        outputs: The labels of the model's outputs.
        reading: How raw inputs became rows.
    """

    name: str
    kind: str
    scenario: str
    train: list[Arrays] = field(default_factory=list)
    held_out: list[Arrays] = field(default_factory=list)
    tasks: list[DataTask] = field(default_factory=list)
    task_transform: TaskTransform | None = None
    counted: int = field(init=False)
    single_class: str | None = field(init=False)
    spec: Spec = field(init=False)
    outputs: Outputs = field(init=False)
    reading: Reading = field(init=False)

    def read(
        self,
        train: list[Arrays],
        test: list[Arrays | None],
        *,
        num_classes: int | None,
        standardize: bool | None,
    ) -> None:
        """Set the training and held-out parts, with the classes of a list of data sets numbered together."""
        pairs = [with_held_out(*pair) for pair in zip(train, test, strict=True)]
        if self.kind == "list":
            pairs = numbered_in_turn(pairs) if self.scenario != "domain" else share(pairs)
        if self.kind == "altered":
            _refuse_dicts(self.name, pairs[0][0])
        parts = alike_in_length([part for pair in pairs for part in pair])
        self.train, self.held_out = parts[::2], parts[1::2]
        self.single_class = single_class([*self.train, *self.held_out])
        self.spec = describe(
            self.train,
            list(self.held_out),
            num_tasks=1,
            standardize=standardize,
            altered=self.kind == "altered",
        )
        self.counted = self.spec.action.n
        self.outputs = _known_outputs(
            self.kind, self.scenario, self.spec, self.train[-1], num_classes
        )

    @property
    def notes(self) -> list[str]:
        """Remarks on the data for the run's header, followed there by those on how it was read."""
        notes, only = notes_on_labels(self.train), self.single_class
        if only is not None:
            what = "pixels" if self.spec.action.kind == "pixels" else "rows"
            notes.append(
                f"all {what} have the same class ({only}): an accuracy of 1.0 means nothing"
            )
        if (note := note_on_lengths(self.train)) is not None:
            notes.append(note)
        if any(changes(part.inputs) for part in self.held_out):
            notes.append(
                "held-out inputs, too, are sampled at every reading (give test_dataset= without random "
                "transforms)"
            )
        return notes

    def exact(self) -> list[Tensor | None]:
        """Targets of training and held-out rows, float64 `[N, ...]`; None if storing them does not round."""
        return [exact_targets(part, self.spec) for part in (self.train, self.held_out)]

    def store(self, num_classes: int | None) -> None:
        """Convert inputs and targets to what tables hold, and add outputs for `num_classes` in all."""
        if num_classes is not None:
            self.spec = _with_outputs(self.spec, num_classes, self.outputs.names)
        self.train, self.held_out = (
            [stored(arrays, self.spec) for arrays in part] for part in (self.train, self.held_out)
        )

    def divide(
        self,
        tasks: int | None,
        classes_per_task: int | list[int] | None,
        class_order: str | list[int] | None,
        *,
        grows: bool,
        seed: int,
    ) -> None:
        """Make the tasks.

        Args:
            grows: Whether there are outputs for later classes.
        """
        if self.kind == "split":
            self.split(tasks, classes_per_task, class_order, seed=seed)
        else:
            self.in_turn(grows=grows)
        if self.kind == "altered":
            self.make_tasks(tasks, seed=seed)

    def split(
        self,
        tasks: int | None,
        classes_per_task: int | list[int] | None,
        class_order: str | list[int] | None,
        *,
        seed: int,
    ) -> None:
        """Make tasks of a few classes each."""
        groups = divide(
            self.counted,
            self.name,
            tasks=tasks,
            classes_per_task=classes_per_task,
            class_order=class_order,
            seed=seed,
            names=self.spec.action.names,
        )
        self.tasks = split(groups, self.train[0].targets, self.held_out[0].targets)
        if self.scenario == "domain":
            self.outputs = _shared_outputs(groups, self.outputs)
            self.spec, self.tasks = _sharing(self.spec, self.tasks, self.outputs.n)
            self.train = [_numbered_by_task(self.train[0], groups)]
            self.held_out = [_numbered_by_task(self.held_out[0], groups)]

    def in_turn(self, *, grows: bool) -> None:
        """Make a task for each data set.

        Args:
            grows: Whether there are outputs for later classes.
        """
        self.tasks = in_turn(self.train, self.held_out, self.spec.action.n, self.scenario)
        if self.kind == "one" and grows and self.scenario != "domain":
            # The other outputs are for tasks that are added later.
            self.tasks = [replace(self.tasks[0], classes=self.train[0].targets.unique())]

    def make_tasks(self, tasks: int | None, *, seed: int) -> None:
        """Make a task for each function by which the data set alters its rows."""
        first = self.train[0]
        assert first.alterations is not None
        self.task_transform, count = alterations_of(first.alterations, tasks, seed, name=first.name)
        self.tasks = [replace(self.tasks[0], name=f"task {k}") for k in range(count)]


def _refuse_dicts(name: str, first: Arrays) -> None:
    """Raise ConfigError for data that alters its rows for each task, and whose inputs are dicts."""
    if isinstance(first.inputs, dict):
        raise ConfigError(
            f"{name} has alterations, which change one array of inputs; its items have "
            f"{in_parts(first.inputs)}. Alter them in its __getitem__, and give a list of data sets, one for "
            "each task."
        )


def _known_outputs(
    kind: str, scenario: str, spec: Spec, last: Arrays, num_classes: int | None
) -> Outputs:
    """The labels of the outputs, from the first data.

    Args:
        last: The last data set of the sequence.
    """
    if not spec.has_classes:
        return Outputs(0)
    n = num_classes or spec.action.n
    if kind == "list" and scenario != "domain":
        return Outputs(n, last.names, taken=spec.action.n)
    if kind == "split" and scenario == "domain":
        return Outputs(n)
    if last.values is not None:
        return Outputs(n, last.values)
    named = last.names is not None
    return Outputs(n, last.names, listed=named, chosen=named and last.chosen)


def _with_outputs(spec: Spec, n: int, names: tuple[str, ...] | None) -> Spec:
    """The spec with `n` outputs, some of which later classes will use."""
    return replace(spec, action=replace(spec.action, shape=(n,), high=n - 1, names=names))


def _shared_outputs(groups: list[list[int]], outputs: Outputs) -> Outputs:
    """The outputs that the tasks of a split share.

    Raises:
        ConfigError: If tasks differ in size, or outputs are reserved for later classes.
    """
    size = len(groups[0])
    if any(len(group) != size for group in groups):
        raise ConfigError(
            "scenario=domain needs equally many classes in every task, since tasks share outputs; "
            f"classes_per_task={[len(group) for group in groups]}."
        )
    if outputs.n != size * len(groups):
        raise ConfigError(
            f"num_classes={outputs.n} reserves outputs for later classes, but with "
            f"scenario=domain the tasks of a split share {size} outputs. Leave it out."
        )
    return Outputs(size)


def _sharing(spec: Spec, tasks: list[DataTask], n: int) -> tuple[Spec, list[DataTask]]:
    """The spec and the tasks of a split whose tasks share `n` outputs."""
    action = Space((n,), torch.int64, 0, n - 1, discrete=True)
    return replace(spec, action=action), [replace(task, classes=torch.arange(n)) for task in tasks]


def _numbered_by_task(part: Arrays, groups: list[list[int]]) -> Arrays:
    """The rows with the classes of every task numbered from 0."""
    size = len(groups[0])
    place = torch.empty(size * len(groups), dtype=torch.int64)
    place[torch.tensor(groups)] = torch.arange(size)
    return replace(part, targets=place[part.targets])
