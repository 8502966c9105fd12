"""A data set, or several, as a sequence of tasks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..replay import ConfigError, DataError, LazyColumn, Replay, Space, Spec, Table
from ..replay.transfer import upload
from .alterations import EachTask
from .datasets import Arrays, held_out_fifth, take_rows
from .description import check_alike, describe
from .inputs import stored
from .later import Outputs, check_numbers, digest
from .numbering import note, same_label, share
from .scenarios import SCENARIOS, divide, held_out_share, listed

Alter = Callable[[Tensor, int | Tensor], Tensor]


@dataclass(frozen=True)
class DataTask:
    """Which rows of the world's tables belong to one task.

    Attributes:
        train, test: int64 row numbers.
        classes: int64, the outputs that are the task's, in the order of `class_order`; all of them
            where tasks share them.
        validation: int64 row numbers of the training table, none of them in `train`; or None.
    """

    name: str
    train: Tensor
    test: Tensor
    classes: Tensor
    validation: Tensor | None = None


class DataWorld:
    """Training and held-out tables, and the sequence of tasks over them.

    `on_data` tells it from a world of environments. Tasks are index sets over one storage: nothing is
    copied. A sequence is one of three:

    - The classes of one data set, a few in each task (`tasks`, `classes_per_task`).
    - A list of data sets.
    - One data set that is altered for each task (`PermutedMNIST`, or one's own: see there).

    Args:
        train: One `Arrays` per part of the sequence.
        test: Held-out data for each, or None: a fixed fifth of it.
        tasks: How many tasks to split the classes of a single data set into, or to alter it for.
        classes_per_task: The size of every task of a split, or a list: of each.
        class_order: Every class once, in the order of a split; None: 0, 1, 2, ...; "shuffled": drawn
            from `seed`.
        scenario: What an output means. "class" and "task": a class has an output of its own, whatever
            its task (in a list of data sets, those of the second come after those of the first).
            "domain": all tasks share the outputs; in a split, a label is the place of a class in its
            task. None: "class" for one data set, "domain" where it is altered or there are several.
        validation: Share of every class's training rows to hold out, 0 to 0.5, whatever the order.
        num_classes: Number of outputs, if more classes come later; None: as many as classes.
        seed: Of the order of classes, and of alterations.
        standardize: Whether inputs are to be numbers (True) or as they are, as the user said it; None:
            integers are as they are.
        notes: What else a person should know of how the data was read.
        decoded: Whether its parts are pictures (True), or arrays.

    Attributes:
        spec: Of inputs and labels as the tables hold them.
        train, test: `obs` and `label`.
        tasks: The sequence.
        scenario: As above.
        source_dtype: The type that inputs were read in.
        notes: What a person should know of how the data was read, and of its labels.
        decoded: As above.
        later: For each added task, a digest of its data.
        single_class: The only class of all rows, where there is only one.
        alter: Makes of stored rows `[B, *shape]` those of a task (a number, or int64 `[B]`), of the
            same shape and dtype, before they are standardised; None: they are as stored.
        transforms: How batches are made to learn from, and to evaluate with; None: as the settings say.

    Raises:
        ConfigError, DataError: If the parts do not fit together, or cannot be split so.
    """

    on_data = True
    transforms: tuple[Any, Any] | None = None

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
        self.name = "-".join(arrays.name for arrays in train)
        self.decoded = set(decoded)
        asked = {"tasks": tasks, "classes_per_task": classes_per_task, "class_order": class_order}
        kind = _kind(train, {key: value for key, value in asked.items() if value is not None})
        if num_classes is not None:
            check_numbers(train, num_classes)
        self.scenario = _scenario(scenario, kind, train, grows=num_classes is not None)
        parts = [_with_test(*pair) for pair in zip(train, test, strict=True)]
        train, held_out = [part[0] for part in parts], [part[1] for part in parts]
        if kind == "list":
            pairs = list(zip(train, held_out, strict=True))
            pairs = _apart(pairs) if self.scenario != "domain" else share(pairs)
            train, held_out = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        self.notes = _notes(train)
        self.single_class = _single_class([*train, *held_out])
        if self.single_class is not None:
            self.notes.append(
                f"all rows have the same class ({self.single_class}): an accuracy of 1.0 means nothing"
            )
        if any(isinstance(x, LazyColumn) and x.changes for x in (part.inputs for part in held_out)):
            self.notes.append(
                "held-out inputs are drawn at every reading too (give test_dataset= without random "
                "transforms)"
            )
        self.notes += notes
        self.spec: Spec = describe(
            train,
            list(held_out),
            num_tasks=1,
            standardize=standardize,
            altered=kind == "altered",
        )
        self._kind, self._validation = kind, validation
        self._like = _one_row(train[0])
        self._outputs = self._known_outputs(train, num_classes)
        classes = self.spec.action.n  # Of the data so far.
        if num_classes is not None:
            action = replace(
                self.spec.action,
                shape=(num_classes,),
                high=num_classes - 1,
                names=self._outputs.names,
            )
            self.spec = replace(self.spec, action=action)
        self.source_dtype = train[0].inputs.dtype
        exact = [_exact(part, self.spec) for part in (train, held_out)]
        train, held_out = ([stored(arrays, self.spec) for arrays in p] for p in (train, held_out))
        chosen = _validation(train, validation)
        self.alter: Alter | None = None
        if kind == "split":
            groups = divide(
                classes,
                self.name,
                tasks=tasks,
                classes_per_task=classes_per_task,
                class_order=class_order,
                seed=seed,
                names=self.spec.action.names,
            )
            self.tasks = _split(groups, train[0].targets, held_out[0].targets)
            if self.scenario == "domain":
                train, held_out = self._share_outputs(groups, train[0], held_out[0])
        else:
            self.tasks = _in_turn(train, held_out, self.spec.action.n, self.scenario)
            if kind == "one" and num_classes is not None and self.scenario != "domain":
                self.tasks = [replace(self.tasks[0], classes=train[0].targets.unique())]
        if kind == "altered":
            self.alter, num_tasks = _alterations(train[0], tasks, seed)
            self.tasks = [replace(self.tasks[0], name=f"task {k}") for k in range(num_tasks)]
        if chosen is not None:
            self.tasks = [_with_validation(task, chosen) for task in self.tasks]
        self.spec = replace(self.spec, num_tasks=len(self.tasks))
        self.later: list[dict[str, Any]] = []
        self._known_tasks = len(self.tasks)  # Those whose rows are loaded.
        self.train, self.test = _join(train), _join(held_out)
        self.train.exact, self.test.exact = exact
        if self.alter is not None:
            _altered(self.alter, self.name, self.train.gather(self.tasks[0].train[:2])["obs"])

    def add(self, train: Arrays, test: Arrays | None, *, name: str | None = None) -> DataTask:
        """Add a task, or the rows of the next expected one.

        Inputs are standardised like the sequence's first data; labels are matched with the known ones.

        Args:
            test: Held-out data; None: a fixed fifth.
            name: Name of the task; None: that of the data.

        Raises:
            ConfigError: If the sequence cannot grow, or there are more classes than outputs.
            DataError: If the data does not fit, or is not what was expected.
        """
        if self._kind == "altered" or self._like is None:
            why = (
                "makes its own tasks"
                if self._kind == "altered"
                else "is read from its source at each use"
            )
            raise ConfigError(f"{self.name} {why}, so no task can be added.")
        train, test = _with_test(train, test)
        for part in (train, test):
            _check_later(self._like, part, self.spec)
        outputs = self._outputs
        if self.spec.discrete:
            outputs, train, test = outputs.number(train, test)
        exact = [_exact([part], self.spec) for part in (train, test)]
        chosen = _validation([train], self._validation)
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
            task = _with_validation(task, chosen)
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

    @property
    def filled(self) -> int:
        """Number of tasks whose rows are loaded."""
        return self._known_tasks

    @property
    def expecting(self) -> bool:
        """Whether rows of an expected task are missing."""
        return self._known_tasks < len(self.tasks)

    def _known_outputs(self, train: list[Arrays], num_classes: int | None) -> Outputs:
        """The labels of the outputs, from the first data."""
        if not self.spec.discrete:
            return Outputs(0)
        n, last = num_classes or self.spec.action.n, train[-1]
        if self._kind == "list" and self.scenario != "domain":
            return Outputs(n, last.names, taken=self.spec.action.n)
        if self._kind == "split" and self.scenario == "domain":
            return Outputs(n)
        if last.values is not None:
            return Outputs(n, last.values)
        named = last.names is not None
        return Outputs(n, last.names, listed=named, chosen=named and last.chosen)

    def example(self, device: torch.device) -> dict[str, Any]:
        """The `obs` of two rows on a device, as a batch of the first task begins: stored, and altered.

        Of integers, the rows that hold the largest and the smallest there is, held out or not: what an
        embedding has no row for is found out before training.

        Raises:
            ConfigError: If they cannot be altered there.
        """
        rows = self.tasks[0].train
        ends = rows[torch.tensor([0, len(rows) - 1])].to(self.train.device)
        found = self.train.gather(ends)["obs"]
        if self.spec.obs.ids is not None and self.train.in_memory and self.test.in_memory:
            found = torch.stack([self._row_with(largest=end) for end in (True, False)])
        obs: Tensor = upload(found, device)
        if self.alter is not None:
            obs = _altered(self.alter, self.name, obs)
        return {"obs": obs}

    def _row_with(self, *, largest: bool) -> Tensor:
        """The row of integers that holds the largest or the smallest."""
        rows = []
        for table in (self.train, self.test):
            column = table.columns["obs"]
            assert isinstance(column, Tensor)
            by_row = column.flatten(1) if column.dim() > 1 else column[:, None]
            ends = by_row.amax(1) if largest else -by_row.amin(1)
            place = int(ends.argmax())
            rows.append((int(ends[place]), column[place]))
        return max(rows, key=lambda row: row[0])[1]

    def begin(self, task: int, replay: Replay) -> None:
        """Let the replay give this task's rows."""
        replay.begin(task)

    def resume(
        self, task: int | None, replay: Replay, state: dict[str, Any], *, anew: bool = True
    ) -> None:
        """Put the replay back to where it was, in the middle of `task` or (None) between tasks."""
        if task is not None:
            replay.begin(task)
        replay.load_state_dict(state, in_task=task is not None)

    def describe(self) -> str:
        """One line for a person."""
        tasks = f", {len(self.tasks)} tasks" if len(self.tasks) > 1 else ""
        train, test = (
            sum(len(getattr(task, part)) for task in self.tasks) for part in ("train", "test")
        )
        kept = [len(task.validation) for task in self.tasks if task.validation is not None]
        validation = f"{sum(kept):,} to validate with, " if kept else ""
        counted = f"{self.name}, {train:,} to learn from, {validation}{test:,} held out{tasks}"
        return "; ".join([counted, *self.notes])

    def collect(self, task: int, actor: Any, replay: Replay) -> int:
        """Data is there already: one step, nothing to do."""
        return 1

    def episode_metrics(self, task: int) -> dict[str, float]:
        return {}

    def close(self) -> None:
        pass

    def _share_outputs(
        self, groups: list[list[int]], train: Arrays, held_out: Arrays
    ) -> tuple[list[Arrays], list[Arrays]]:
        """Number the classes of every task from 0."""
        size = len(groups[0])
        if any(len(group) != size for group in groups):
            raise ConfigError(
                "scenario=domain needs as many classes in every task, which share their outputs; "
                f"classes_per_task={[len(group) for group in groups]}."
            )
        if self._outputs.n != size * len(groups):
            raise ConfigError(
                f"num_classes={self._outputs.n} reserves outputs for later classes, but with "
                f"scenario=domain the tasks of a split share {size} outputs. Leave it out."
            )
        self._outputs = Outputs(size)
        place = torch.empty(size * len(groups), dtype=torch.int64)
        place[torch.tensor(groups)] = torch.arange(size)
        self.spec = replace(
            self.spec, action=Space((size,), torch.int64, 0, size - 1, discrete=True)
        )
        self.tasks = [replace(task, classes=torch.arange(size)) for task in self.tasks]
        parts = [replace(part, targets=place[part.targets]) for part in (train, held_out)]
        return parts[:1], parts[1:]


def _kind(train: list[Arrays], asked: dict[str, Any]) -> str:
    """What makes the sequence: `one` (it is none), `list`, `altered` or `split`.

    Raises:
        ConfigError: For settings that this kind has no use for.
    """
    first, keys = train[0], " and ".join(f"{key}=" for key in asked)
    if len(train) > 1:
        if altered := [arrays.name for arrays in train if arrays.alterations is not None]:
            raise ConfigError(
                f"{altered[0]} is a sequence of tasks by itself, and no part of another. Give it alone."
            )
        if asked:
            raise ConfigError(
                f"{keys} splits one data set; a list of data sets is a sequence already."
            )
        return "list"
    if first.alterations is not None:
        if wrong := [key for key in asked if key != "tasks"]:
            raise ConfigError(
                f"{wrong[0]}= splits classes; every task of {first.name} has all of them. Leave it out "
                "(tasks= says how many tasks there are)."
            )
        return "altered"
    if not asked:
        return "one"
    if not first.discrete:
        key, value = next(iter(asked.items()))
        raise ConfigError(
            f"{key}={value} splits classes, and the targets of {first.name} are values."
        )
    if list(asked) == ["class_order"]:
        raise ConfigError(
            "class_order= orders the classes of a split. Say how many tasks there are, with tasks= or "
            "classes_per_task=."
        )
    return "split"


def _scenario(given: str | None, kind: str, train: list[Arrays], *, grows: bool) -> str:
    """The scenario asked for, if it can be, or the usual one of this kind."""
    first = train[0]
    if given is None:
        return "class" if kind in ("one", "split") and first.discrete else "domain"
    if given not in SCENARIOS:
        raise ConfigError(f"scenario={given} is none of {', '.join(SCENARIOS)}.")
    if kind == "one" and not grows:
        raise ConfigError(
            f"scenario={given} needs a sequence of tasks; {first.name} is a single one. Give tasks= or "
            "classes_per_task= to split its classes."
        )
    if given == "domain":
        return given
    if not first.discrete:
        raise ConfigError(
            f"scenario={given} needs classes, but the targets of {first.name} are values. Leave it out, "
            "or set scenario=domain."
        )
    if kind == "altered":
        raise ConfigError(
            f"scenario={given} needs tasks with disjoint classes; all tasks of {first.name} have the same "
            "rows and labels. Leave it out, or set scenario=domain."
        )
    return given


def _with_test(train: Arrays, test: Arrays | None) -> tuple[Arrays, Arrays]:
    if test is not None:
        return train, test
    if train.discrete:
        # A class that happens to be held out only is a class all the same.
        train.num_classes = _num_classes(train)
    kept, held_out = held_out_fifth(train)
    return take_rows(train, kept), replace(take_rows(train, held_out), note=None)


def _num_classes(arrays: Arrays) -> int:
    return max(arrays.num_classes or 0, int(arrays.targets.max()) + 1)


def _apart(pairs: list[tuple[Arrays, Arrays]]) -> list[tuple[Arrays, Arrays]]:
    """The classes of each data set numbered after those of the ones before it."""
    parts, first, names = [], 0, ()
    named = any(train.names is not None for train, _ in pairs)
    for pair in pairs:
        n = _num_classes(pair[0])
        if (highest := int(pair[1].targets.max())) >= n:
            raise DataError(
                f"Labels out of range: {pair[1].name} holds label {highest}, but the training data has "
                f"classes 0 to {n - 1}."
            )
        names = (*names, *(pair[0].names or map(str, range(n)))) if named else ()
        train, test = (
            replace(
                part,
                targets=part.targets + first,
                num_classes=first + n,
                names=names or None,
                note=_numbered_from(first, part),
            )
            for part in pair
        )
        parts.append((train, test))
        first += n
    return parts


def _numbered_from(first: int, part: Arrays) -> str | None:
    """What to say of labels that are numbered, and moved behind those of the data sets before."""
    n = 0 if part.values is None else len(part.values)
    if part.values is None or part.values == tuple(range(first, first + n)):
        return part.note if n == 0 else None
    return note(part.values, len(part), first=first)


def _notes(train: list[Arrays]) -> list[str]:
    """What to say of the labels: how they are numbered."""
    said = [(f"task {i}: ", part.note) for i, part in enumerate(train) if part.note is not None]
    if len({text for _, text in said}) == 1 and len(said) == len(train):
        said = [("", said[0][1])]  # Of a single data set, or of tasks that share their outputs.
    return [f"{task}{text}" for task, text in said]


def _single_class(parts: list[Arrays]) -> str | None:
    if not parts[0].discrete or not same_label([part.targets for part in parts]):
        return None
    label = int(parts[0].targets[0])
    return parts[0].names[label] if parts[0].names else str(label)


def _split(groups: list[list[int]], train: Tensor, held_out: Tensor) -> list[DataTask]:
    """Tasks of these classes each, from the labels of all rows."""
    task_of = torch.empty(sum(map(len, groups)), dtype=torch.int64)
    for task, classes in enumerate(groups):
        task_of[torch.tensor(classes)] = task
    parts = {"training": task_of[train], "held-out": task_of[held_out]}
    tasks = []
    for task, classes in enumerate(groups):
        rows = {part: (theirs == task).nonzero().flatten() for part, theirs in parts.items()}
        if empty := [part for part, index in rows.items() if len(index) == 0]:
            raise DataError(f"Task {task} (classes {listed(classes)}) has no {empty[0]} data.")
        name = f"classes {listed(classes)}"
        tasks.append(DataTask(name, rows["training"], rows["held-out"], torch.tensor(classes)))
    return tasks


def _in_turn(train: list[Arrays], held_out: list[Arrays], n: int, scenario: str) -> list[DataTask]:
    """A task per data set."""
    tasks, first = [], 0
    for arrays, rows, test in zip(train, _ranges(train), _ranges(held_out), strict=True):
        classes = torch.arange(n)
        if len(train) > 1 and scenario != "domain":
            classes = torch.arange(first, first := _num_classes(arrays))
        tasks.append(DataTask(arrays.name, rows, test, classes))
    return tasks


def _validation(train: list[Arrays], share: float | None) -> Tensor | None:
    """Which rows of the training table are to be held out, bool `[N]`."""
    if not share:
        return None
    if not 0 < share <= 0.5:
        raise ConfigError(f"validation={share} is no share from 0 to 0.5.")
    chosen = []
    for part in train:
        labels = part.targets if part.discrete else torch.zeros(len(part), dtype=torch.int64)
        chosen.append(held_out_share(labels, share))
    return torch.cat(chosen)


def _with_validation(task: DataTask, chosen: Tensor) -> DataTask:
    held = chosen[task.train]
    if not held.any():
        raise DataError(
            f"Task {task.name} has one row of a class: too few for validation=, which holds some out."
        )
    return replace(task, train=task.train[~held], validation=task.train[held])


def _alterations(arrays: Arrays, tasks: int | None, seed: int) -> tuple[Alter, int]:
    """The data set's own way to alter a batch, and how many tasks it makes."""
    make, name = arrays.alterations, arrays.name
    assert make is not None
    parameters = inspect.signature(make).parameters
    if (
        tasks is None
        and "tasks" in parameters
        and parameters["tasks"].default is inspect.Parameter.empty
    ):
        raise ConfigError(f"{name} does not say how many tasks it makes. Give tasks=.")
    made = make(seed=seed) if tasks is None else make(tasks, seed=seed)
    if len(made) != (tasks or max(1, len(made))):
        raise ConfigError(
            f"{name}.alterations made {len(made)} tasks, not {tasks or 'one or more'}."
        )
    return (made if callable(made) else EachTask(made)), len(made)


def _altered(alter: Alter, name: str, obs: Tensor) -> Tensor:
    """The rows `[B, *shape]` of the first task.

    Raises:
        ConfigError: If they cannot be altered, or do not keep their shape and type.
    """
    try:
        altered = alter(obs, 0)
    except Exception as error:
        raise ConfigError(
            f"{name}.alterations raised {type(error).__name__} on stored inputs of shape "
            f"{list(obs.shape)} on {obs.device}: {error}"
        ) from error
    if altered.shape != obs.shape or altered.dtype != obs.dtype:
        raise ConfigError(
            f"{name}.alterations turn stored inputs {_in_words(obs)} into {_in_words(altered)}; they must "
            "keep their shape and type."
        )
    return altered


def _in_words(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _join(parts: list[Arrays]) -> Table:
    if len(parts) == 1:
        return parts[0].table()
    if not all(isinstance(part.inputs, Tensor) for part in parts):
        raise DataError("A sequence of data sets needs each of them in memory.")
    inputs: list[Any] = [part.inputs for part in parts]
    return Table(obs=torch.cat(inputs), label=torch.cat([part.targets for part in parts]))


def _one_row(arrays: Arrays) -> Arrays | None:
    """The data set's first row, to compare later data with; None if it is not in memory."""
    if not isinstance(arrays.inputs, Tensor):
        return None
    return replace(arrays, inputs=arrays.inputs[:1].clone(), targets=arrays.targets[:1].clone())


def _check_later(first: Arrays, part: Arrays, spec: Spec) -> None:
    """Raise DataError for data that a model of this spec cannot learn after the first."""
    if not isinstance(part.inputs, Tensor):
        raise DataError(
            f"{part.name} is read from its source at each use, but a later task must be held in memory: "
            "replace random transforms by aug=, or give fewer rows at a time."
        )
    check_alike(first, part)
    if spec.obs.ids is not None and not (
        spec.obs.low <= int(part.inputs.min()) and int(part.inputs.max()) < spec.obs.ids
    ):
        raise DataError(
            f"{part.name} holds integers from {int(part.inputs.min())} to {int(part.inputs.max())}, but "
            f"this run's model was built for {spec.obs.low} to {spec.obs.ids - 1}."
        )


def _exact(parts: list[Arrays], spec: Spec) -> Tensor | None:
    """Values to be predicted as their source has them, if they are rounded as they are kept."""
    values = [part.targets for part in parts if not part.discrete]
    if spec.discrete or all(part.dtype == spec.action.dtype for part in values):
        return None
    return torch.cat(values).to(torch.float64)


def _ranges(parts: list[Arrays]) -> list[Tensor]:
    ends = torch.tensor([len(part) for part in parts]).cumsum(0).tolist()
    return [torch.arange(end - len(part), end) for part, end in zip(parts, ends, strict=True)]
