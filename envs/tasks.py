"""The world of one data set or several: their sequence of tasks, which may grow."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..replay import ConfigError, DataError
from .alterations import altered
from .arrays import Arrays
from .draft import Draft
from .images import Pictures
from .inputs import stored
from .joining import exact_targets, joined, with_held_out
from .later import check_later, check_numbers, digest, first_row
from .lengths import alike_in_length
from .reading import later_classes, reading_of
from .sequence_kind import scenario_of, sequence_kind
from .table_columns import Columns
from .table_world import TableWorld
from .task_rows import DataTask, validation_rows, with_validation
from .world import Growing


class DataWorld(TableWorld):
    """Data sets as a sequence of tasks, to which later data can be added.

    There are three kinds of sequence:

    - The classes of one data set, a few in each task (`tasks`, `classes_per_task`).
    - A list of data sets.
    - One data set that is altered for each task (`PermutedMNIST`, which explains how to write one).

    Args:
        train: One `Arrays` per part of the sequence, inputs `[N, *shape]`.
        test: Held-out data for each; None: a fixed fifth of its rows.
        tasks: Number of tasks to divide the classes of a single data set into, or to alter its rows for.
        classes_per_task: The size of every task of a split, or a list with the size of each.
        class_order: Every class once, in the order of a split; None: 0, 1, 2, ...; "shuffled": drawn
            from `seed`.
        num_classes: Number of outputs, if later data adds classes; None: one for each class.
        scenario: What an output means. "class" and "task": each class has its own output, whatever its
            task (in a list of data sets, those of the second come after those of the first).
            "domain": all tasks share the outputs; in a split, a label is the place of a class in its
            task. None: "class" for one data set, "domain" where it is altered or there are several.
        validation: Share of every class's training rows to hold out, in (0, 0.5]; None: none.
        seed: Seeds the order of classes, and the alterations.
        standardize: Whether integers are treated as numbers (True) or left unchanged (False); None: they
            are ids, left unchanged, unless they are too large.
        notes: Further remarks on how the data was read.
        decoded: Whether its parts are pictures (True), or arrays (False).
        pictures: What decoded the training pictures, if there are any.
        channels: Where images in arrays have their channels, as the user set it.

    Raises:
        ConfigError, DataError: If the parts do not fit together, or cannot be divided as asked for.
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
        pictures: Pictures | None = None,
        channels: str | None = None,
    ):
        files = " ".join(part.files for part in (*train, *test) if part and part.files) or None
        asked = {"tasks": tasks, "classes_per_task": classes_per_task, "class_order": class_order}
        kind = sequence_kind(
            train, {key: value for key, value in asked.items() if value is not None}
        )
        if num_classes is not None:
            check_numbers(train, num_classes)
        scenario = scenario_of(scenario, kind, train, grows=num_classes is not None)
        draft = Draft("-".join(arrays.name for arrays in train), kind, scenario)
        draft.read(train, test, num_classes=num_classes, standardize=standardize)
        draft.reading = reading_of(
            kind, scenario, draft.train, channels=channels, pictures=pictures
        )
        like = first_row(draft.train[0])
        notes, exact = [*draft.notes, *notes], draft.exact()
        draft.store(num_classes)
        # Before labels may be renumbered by task: the share is one of each class.
        chosen = validation_rows(draft.train, validation)
        draft.divide(tasks, classes_per_task, class_order, grows=num_classes is not None, seed=seed)
        if chosen is not None:
            draft.tasks = [with_validation(task, chosen) for task in draft.tasks]
        super().__init__(
            draft.name,
            replace(draft.spec, num_tasks=len(draft.tasks)),
            joined(draft.train),
            joined(draft.held_out),
            draft.tasks,
            scenario=scenario,
            source_dtype=draft.reading.dtype,
            task_transform=draft.task_transform,
            notes=notes,
            decoded=decoded,
            single_class=draft.single_class,
            reading=draft.reading,
            files=files,
        )
        self.train.exact, self.test.exact = exact
        self._kind, self._validation, self._like = kind, validation, like
        self._outputs, self._known_tasks = draft.outputs, len(self.tasks)  # Their rows are loaded.
        self._try_alterations()

    def _try_alterations(self) -> None:
        """Alter two rows, so that an error comes before training."""
        if self.task_transform is not None:
            rows = self.train.gather(self.tasks[0].train[:2])["obs"]
            altered(self.task_transform, self.name, rows)

    @property
    def columns(self) -> Columns | None:
        """How the columns of its tables become inputs; None: it holds none."""
        return self.reading.columns

    def growing(self) -> Growing:
        if self._kind == "altered":
            raise ConfigError(f"{self.name} makes its own tasks, so no task can be added.")
        for table, what in ((self.train, self.name), (self.test, f"Held-out data of {self.name}")):
            if not table.in_memory:
                raise ConfigError(
                    f"{what} is read from its source at each use, so no task can be added: all rows must be "
                    "held in memory. Replace random transforms with aug=, or give fewer rows."
                )
        return self

    def add(self, train: Arrays, test: Arrays | None, *, name: str | None = None) -> DataTask:
        """Add a task, or the rows of the next expected one.

        Inputs are standardised like the sequence's first data, and labels are matched with the known ones.

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
        _, train, test = alike_in_length([self._like, train, test])
        for part in (train, test):
            check_later(self._like, part, self.spec)
        outputs = self._outputs
        if self.spec.has_classes:
            outputs, train, test = outputs.number(train, test)
        # Before `stored`, which rounds them.
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
        if self.spec.has_classes and outputs.names is not None:
            self.spec = replace(self.spec, action=replace(self.spec.action, names=outputs.names))
            self.reading = self.reading.with_classes(later_classes(self.reading, outputs, train))
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
            chosen: Which of its training rows are held out for validation, bool `[N]`; None: none.
        """
        own = self.scenario != "domain" and self.spec.has_classes
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
        """Expect a task that was added before the run was resumed; its rows have yet to be given again."""
        none = torch.arange(0)
        self.later.append(known)
        self.tasks.append(DataTask(known["name"], none, none, known["classes"]))
        self.spec = replace(self.spec, num_tasks=len(self.tasks))

    def outputs_of(self, train: Arrays) -> Tensor:
        """The outputs of later data's classes, int64; raises as `add` does."""
        if not self.spec.has_classes:
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
