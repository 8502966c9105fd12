"""A data set, or several, as a sequence of tasks."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..replay import ConfigError, DataError, LazyColumn, Space, Spec
from .alterations import TaskTransform, alterations_of, altered
from .arrays import Arrays
from .description import describe
from .inputs import stored
from .joining import (
    exact_targets,
    joined,
    notes_on_labels,
    numbered_in_turn,
    single_class,
    with_held_out,
)
from .later import Outputs, check_later, check_numbers, digest, first_row
from .numbering import share
from .scenarios import divide
from .sequence_kind import scenario_of, sequence_kind
from .table_world import TableWorld
from .task_rows import DataTask, in_turn, split, validation_rows, with_validation
from .world import Growing


class DataWorld(TableWorld):
    """Data sets as a sequence of tasks, to which later data can be added.

    A sequence is one of three:

    - The classes of one data set, a few in each task (`tasks`, `classes_per_task`).
    - A list of data sets.
    - One data set that is altered for each task (`PermutedMNIST`, or one's own: see there).

    Args:
        train: One `Arrays` per part of the sequence, inputs `[N, *shape]`.
        test: Held-out data for each; None: a fixed fifth of its rows.
        tasks: Number of tasks to divide the classes of a single data set into, or to alter its rows for.
        classes_per_task: The size of every task of a split, or a list with the size of each.
        class_order: Every class once, in the order of a split; None: 0, 1, 2, ...; "shuffled": drawn
            from `seed`.
        num_classes: Number of outputs, if more classes come later; None: as many as classes.
        scenario: What an output means. "class" and "task": a class has an output of its own, whatever
            its task (in a list of data sets, those of the second come after those of the first).
            "domain": all tasks share the outputs; in a split, a label is the place of a class in its
            task. None: "class" for one data set, "domain" where it is altered or there are several.
        validation: Share of every class's training rows to hold out, 0 to 0.5, whatever the order.
        seed: Seeds the order of classes, and alterations.
        standardize: Whether inputs are to be numbers (True) or stay as they are (False); None: integers
            are ids that stay as they are.
        notes: What else a person should know of how the data was read.
        decoded: Whether its parts are pictures (True), or arrays (False).

    Raises:
        ConfigError, DataError: If the parts do not fit together, or cannot be split like this.
    """

    def __init__(
        self,
        train: list[Arrays],
        test: list[Arrays | None],
        *,
        tasks: int | None = None,
        classes_per_task: int | list[int] | None = None,
        class_order: str | list[int] | None = None,
        num_classes: int | None = None,
        scenario: str | None = None,
        validation: float | None = None,
        seed: int = 0,
        standardize: bool | None = None,
        notes: Sequence[str] = (),
        decoded: Collection[bool] = (),
    ):
        asked = {"tasks": tasks, "classes_per_task": classes_per_task, "class_order": class_order}
        kind = sequence_kind(
            train, {key: value for key, value in asked.items() if value is not None}
        )
        if num_classes is not None:
            check_numbers(train, num_classes)
        scenario = scenario_of(scenario, kind, train, grows=num_classes is not None)
        draft = _Draft("-".join(arrays.name for arrays in train), kind, scenario)
        draft.read(train, test, num_classes=num_classes, standardize=standardize)
        source_dtype, like = draft.train[0].inputs.dtype, first_row(draft.train[0])
        notes, exact = [*draft.notes, *notes], draft.exact()
        draft.store(num_classes)
        # Drawn before labels may be numbered by task.
        chosen = validation_rows(draft.train, validation)
        if kind == "split":
            draft.split(tasks, classes_per_task, class_order, seed=seed)
        else:
            draft.in_turn(grows=num_classes is not None)
        if kind == "altered":
            draft.make_tasks(tasks, seed=seed)
        if chosen is not None:
            draft.tasks = [with_validation(task, chosen) for task in draft.tasks]
        super().__init__(
            draft.name,
            replace(draft.spec, num_tasks=len(draft.tasks)),
            joined(draft.train),
            joined(draft.held_out),
            draft.tasks,
            scenario=scenario,
            source_dtype=source_dtype,
            task_transform=draft.task_transform,
            notes=notes,
            decoded=decoded,
            single_class=draft.single_class,
        )
        self.train.exact, self.test.exact = exact
        self._kind, self._validation, self._like = kind, validation, like
        self._outputs = draft.outputs
        self._known_tasks = len(self.tasks)  # Those whose rows are loaded.
        if self.task_transform is not None:
            altered(
                self.task_transform, self.name, self.train.gather(self.tasks[0].train[:2])["obs"]
            )

    def growing(self) -> Growing:
        if self._kind == "altered":
            raise ConfigError(f"{self.name} makes its own tasks, so no task can be added.")
        if self._like is None:
            raise ConfigError(
                f"{self.name} is read from its source at each use, so no task can be added."
            )
        return self

    def add(self, train: Arrays, test: Arrays | None, *, name: str | None = None) -> DataTask:
        """Add a task, or the rows of the next expected one.

        Inputs are standardised like the sequence's first data; labels are matched with the known ones.

        Args:
            test: Held-out data; None: a fixed fifth of the rows.
            name: Name of the task; None: that of the data.

        Raises:
            ConfigError: If the sequence cannot grow, or there are more classes than outputs.
            DataError: If the data does not fit, or is not what was expected.
        """
        self.growing()
        assert self._like is not None
        train, test = with_held_out(train, test)
        for part in (train, test):
            check_later(self._like, part, self.spec)
        outputs = self._outputs
        if self.spec.discrete:
            outputs, train, test = outputs.number(train, test)
        exact = [exact_targets([part], self.spec) for part in (train, test)]
        chosen = validation_rows([train], self._validation)
        train, test = stored(train, self.spec), stored(test, self.spec)
        task = self._behind_the_others(name or train.name, train, test, chosen)
        known = {
            "name": task.name,
            "rows": len(task.train),
            "classes": task.classes,
            "digest": digest(train, test),
        }
        if self.expecting:
            expected = self.later[self._known_tasks - len(self.tasks)]
            if any(known[key] != expected[key] for key in ("name", "rows", "digest")):
                raise DataError(
                    f"{task.name} ({len(task.train):,} training rows) is not the data that this run "
                    f"learnt next: {expected['name']}, {expected['rows']:,} rows. Give the same data, "
                    "under the same name."
                )
            self.tasks[self._known_tasks] = task
        else:
            self.later.append(known)
            self.tasks.append(task)
            self.spec = replace(self.spec, num_tasks=len(self.tasks))
        self._outputs, self._known_tasks = outputs, self._known_tasks + 1
        if self.spec.discrete and outputs.names is not None:
            self.spec = replace(self.spec, action=replace(self.spec.action, names=outputs.names))
        for table, part, values in ((self.train, train, exact[0]), (self.test, test, exact[1])):
            more = part.table()
            more.exact = values
            table.append(more)
        return task

    def _behind_the_others(
        self, name: str, train: Arrays, test: Arrays, chosen: Tensor | None
    ) -> DataTask:
        """A task whose rows come after all rows that the tables have.

        Args:
            chosen: Which of its rows to learn from are set aside, bool `[N]`; None: none.
        """
        own = self.scenario != "domain" and self.spec.discrete
        classes = train.targets.unique() if own else self.tasks[0].classes
        task = DataTask(name, torch.arange(len(train)), torch.arange(len(test)), classes)
        if chosen is not None:
            task = with_validation(task, chosen)
        rows, held_out = len(self.train), len(self.test)
        validation = None if task.validation is None else task.validation + rows
        return replace(
            task, train=task.train + rows, test=task.test + held_out, validation=validation
        )

    def expect(self, known: dict[str, Any]) -> None:
        """Expect a task that was added before the run was resumed, whose rows are still to be given."""
        none = torch.arange(0)
        self.later.append(known)
        self.tasks.append(DataTask(known["name"], none, none, known["classes"]))
        self.spec = replace(self.spec, num_tasks=len(self.tasks))

    def outputs_of(self, train: Arrays) -> Tensor:
        """The outputs of later data's classes, int64; raises as `add` does."""
        if not self.spec.discrete:
            return torch.arange(0)
        return self._outputs.number(train, train)[1].targets.unique()

    def rows(self, task: int) -> Tensor:
        return self.tasks[task].train

    @property
    def filled(self) -> int:
        """Number of tasks whose rows are loaded."""
        return self._known_tasks

    @property
    def expecting(self) -> bool:
        """Whether rows of an expected task are missing."""
        return self._known_tasks < len(self.tasks)


@dataclass
class _Draft:
    """Data sets on their way to tables and tasks; methods are called in the order they are written.

    Attributes:
        counted: Number of classes of the data so far.
        single_class: The only class of all rows, where there is only one.
        spec: Of the rows as tables hold them.
        outputs: The labels of the model's outputs.
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

    def read(
        self,
        train: list[Arrays],
        test: list[Arrays | None],
        *,
        num_classes: int | None,
        standardize: bool | None,
    ) -> None:
        """Training and held-out parts, with the classes of a list of data sets numbered together."""
        pairs = [with_held_out(*pair) for pair in zip(train, test, strict=True)]
        if self.kind == "list":
            pairs = numbered_in_turn(pairs) if self.scenario != "domain" else share(pairs)
        self.train, self.held_out = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
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
        """What a person should know of the data, before the notes on how it was read."""
        notes, only = notes_on_labels(self.train), self.single_class
        if only is not None:
            notes.append(f"all rows have the same class ({only}): an accuracy of 1.0 means nothing")
        if any(isinstance(p.inputs, LazyColumn) and p.inputs.changes for p in self.held_out):
            notes.append(
                "held-out inputs, too, are sampled at every reading (give test_dataset= without random "
                "transforms)"
            )
        return notes

    def exact(self) -> list[Tensor | None]:
        """The targets of the training and of the held-out rows, where storing them would round."""
        return [exact_targets(part, self.spec) for part in (self.train, self.held_out)]

    def store(self, num_classes: int | None) -> None:
        """Inputs and targets as tables hold them, and outputs for classes that come later."""
        if num_classes is not None:
            self.spec = _with_outputs(self.spec, num_classes, self.outputs.names)
        self.train, self.held_out = (
            [stored(arrays, self.spec) for arrays in part] for part in (self.train, self.held_out)
        )

    def split(
        self,
        tasks: int | None,
        classes_per_task: int | list[int] | None,
        class_order: str | list[int] | None,
        *,
        seed: int,
    ) -> None:
        """Tasks of a few classes each."""
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
        """A task per data set.

        Args:
            grows: Whether there are outputs for classes that come later.
        """
        self.tasks = in_turn(self.train, self.held_out, self.spec.action.n, self.scenario)
        if self.kind == "one" and grows and self.scenario != "domain":
            self.tasks = [replace(self.tasks[0], classes=self.train[0].targets.unique())]

    def make_tasks(self, tasks: int | None, *, seed: int) -> None:
        """A task for each way in which the data set alters its rows."""
        first = self.train[0]
        assert first.alterations is not None
        self.task_transform, count = alterations_of(first.alterations, tasks, seed, name=first.name)
        self.tasks = [replace(self.tasks[0], name=f"task {k}") for k in range(count)]


def _known_outputs(
    kind: str, scenario: str, spec: Spec, last: Arrays, num_classes: int | None
) -> Outputs:
    """The labels of the outputs, from the first data.

    Args:
        last: The last data set of the sequence.
    """
    if not spec.discrete:
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
    """The spec with outputs for classes that come later."""
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
    """The spec and the tasks of a split, where all tasks have the same `n` outputs."""
    action = Space((n,), torch.int64, 0, n - 1, discrete=True)
    return replace(spec, action=action), [replace(task, classes=torch.arange(n)) for task in tasks]


def _numbered_by_task(part: Arrays, groups: list[list[int]]) -> Arrays:
    """The rows with the classes of every task numbered from 0."""
    size = len(groups[0])
    place = torch.empty(size * len(groups), dtype=torch.int64)
    place[torch.tensor(groups)] = torch.arange(size)
    return replace(part, targets=place[part.targets])
