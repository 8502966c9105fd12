"""The tasks of a data set, for a custom training loop: `antelope.tasks("MNIST", tasks=5)`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, cast, overload

import torch
from torch import Tensor

from ...envs.task_rows import DataTask
from ...envs.tasks import DataWorld
from ...replay import Batch, ConfigError, Replay, Spec, Table
from ...replay.randomness import kept_randomness, seed_everything
from ...replay.samplers import Epochs, batch_sizes
from ...replay.suggestions import did_you_mean
from ...replay.transfer import upload
from ..assembly.device import build_device
from ..assembly.replay import build_replay
from ..assembly.strategies import classes_of_tasks
from ..assembly.transforms import build_transforms
from ..assembly.world import build_world
from ..process import taking_turns
from ..settings.compose import compose
from ..settings.foreign import answer
from ..settings.plan import make_plan
from ..settings.schema import schema
from ..settings.unread import without_effect

_ROWS = (
    1000  # Rows of a held-out batch: as many as the launcher evaluates at once, to the same bits.
)
_SETTINGS = (
    *("dataset", "test_dataset", "tasks", "classes_per_task", "class_order", "scenario"),
    *("validation", "seed", "device", "data"),
)


def tasks(dataset: object = None, **settings: object) -> Tasks:
    """The tasks of a data set, or of a list of them, as `ml(dataset=...)` makes them.

    >>> for task in tasks("Digits", tasks=5):
    ...     rows = sum(len(batch) for batch in task.train)
    >>> task.number, task.classes
    (4, [8, 9])

    Args:
        dataset: Whatever `ml` accepts: a name, a folder, a `Dataset`, `(inputs, targets)`, a list of them.
        **settings: The data settings of `ml`: `tasks`, `classes_per_task`, `class_order`,
            `scenario`, `test_dataset`, `validation`, `batch_size` (32), `seed` (0), `standardize`, `aug`,
            `image_size`, `channels`, `data_dir`; and `device` (cpu), where batches are.

    Raises:
        ConfigError, DataError: If the data cannot be read, or not be divided as requested.
    """
    allowed = {*_SETTINGS, *(k for k, s in schema().items() if s.section == "Data sets")}
    mistakes = [_not_of_data(key, allowed) for key in settings if key.split(".")[0] not in allowed]
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    given = {"device": "cpu", **settings} | ({} if dataset is None else {"dataset": dataset})
    composed = compose([], given)
    plan = make_plan(composed)
    device = build_device(plan.device)
    with taking_turns(), kept_randomness():  # The caller's random streams stay as they were.
        seed_everything(plan.seed)
        world = cast(DataWorld, build_world(plan))  # `env` is not among the settings allowed above.
        for key, reason in without_effect(plan, world).items():
            warnings.warn(f"`{key}` has no effect here: {reason}.", stacklevel=2)
        world.place(device, plan.data)
        transform, plain = build_transforms(plan, world, device)
        replay = build_replay(plan, world, transform, device)
    return Tasks(world, replay, plain, seed=plan.seed)


def _not_of_data(key: str, allowed: set[str]) -> str:
    if key in schema():
        return (
            f"tasks() only provides data and has no setting `{key}`: model, optimiser and length of "
            "training belong in your loop, strategies in antelope.Strategies."
        )
    if (said := answer(key)) is not None:
        return f"tasks() has no setting `{key}`. {said}"
    return f"tasks() has no setting `{key}`.{did_you_mean(key, allowed)}"


@dataclass(frozen=True)
class TasksSpec(Spec):
    """What a model and strategies need to know of a sequence of tasks.

    Attributes:
        scenario: `class`, `task` or `domain`.
        classes: The outputs that belong to each task; none where targets are values.
        seed: Seeds the order of rows and the strategies' random streams.
    """

    scenario: str = "class"
    classes: tuple[tuple[int, ...], ...] = ()
    seed: int = 0


class Listener(Protocol):
    """Notified of the batches of a task: `antelope.Strategies`."""

    def pass_begins(self) -> None: ...
    def batch_given(self, batch: Batch) -> None: ...
    def batch_dropped(self) -> None: ...
    def pass_ends(self) -> None: ...


class Tasks:
    """A sequence of tasks: iterable, indexable, with a length.

    All tasks share one random stream for shuffling, as in a run of `ml` with the same `seed`: learnt in
    order, they yield exactly the batches of that run.

    Attributes:
        spec: What goes in and what comes out: `spec.obs.shape`, `spec.action.n` classes.
        scenario: `class`, `task` or `domain`.
        replay: What `task.train` draws from.
    """

    def __init__(
        self, world: DataWorld, replay: Replay, plain: Callable[..., dict[str, Any]], *, seed: int
    ):
        self.world, self.replay, self._plain = world, replay, plain
        assert world.scenario is not None
        outputs = classes_of_tasks(world, told=True)
        self.spec = TasksSpec(
            world.spec.obs,
            world.spec.action,
            len(world.tasks),
            scenario=world.scenario,
            classes=tuple(tuple(own.tolist()) for own in outputs),
            seed=seed,
        )
        self.scenario: str = world.scenario
        self.listener: Listener | None = None
        self._tasks = [Task(self, number) for number in range(len(world.tasks))]
        self._begun: int | None = None  # The task whose rows the replay draws.
        self._in_pass = False
        self._goes_on = False  # Whether a state was loaded in the middle of a pass.
        self._iterations = 0

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[Task]:
        return iter(self._tasks)

    @overload
    def __getitem__(self, key: int) -> Task: ...
    @overload
    def __getitem__(self, key: slice) -> list[Task]: ...
    def __getitem__(self, key: int | slice) -> Task | list[Task]:
        return self._tasks[key]

    def __repr__(self) -> str:
        return f"Tasks({self.world.describe()}; scenario={self.scenario}; {self.spec})"

    def begin(self, number: int) -> None:
        """Switch the replay to a task's rows, in a new order."""
        self.replay.begin(number)
        self._begun, self._in_pass, self._goes_on = number, False, False

    def one_pass(self, number: int) -> Iterator[Batch]:
        """Iterate once over a task's rows in a new order, or over the rest of a restored pass.

        Raises:
            ConfigError: If strategies are learning another task, or another pass has begun meanwhile.
        """
        if self._begun != number:
            if self.listener is not None:
                raise ConfigError(
                    f"Strategies are learning task {self._begun}, but training batches of task {number} "
                    "were requested. Call begin_task first; to look at its rows, use task.train.once()."
                )
            self.begin(number)
        sampler = self.replay.sampler
        assert isinstance(sampler, Epochs)
        size = len(sampler) if len(self.replay) else 0
        left = size - sampler.position if self._goes_on else size
        if not self._goes_on and sampler.position > 0:
            sampler.position = len(sampler)  # The next batch is the first of a new order.
        self._goes_on, self._iterations = False, self._iterations + 1
        mine, listener = self._iterations, self.listener
        if size == 0:  # A strategy has emptied the task: `joint`, after the first one.
            return
        self._in_pass = True
        if listener is not None:
            listener.pass_begins()
        for _ in range(left):
            if mine != self._iterations or sampler is not self.replay.sampler:
                raise ConfigError(
                    "task.train was iterated again before the previous pass over it ended. Finish one "
                    "pass before the next; to look at the rows meanwhile, use task.train.once()."
                )
            batch = next(self.replay)
            if listener is not None:
                listener.batch_given(batch)
            try:
                yield batch
            except GeneratorExit:  # The loop was left: `break`.
                if listener is not None and listener is self.listener:
                    listener.batch_dropped()
                raise
        self._in_pass = False
        if listener is not None:
            listener.pass_ends()

    def in_order(
        self, table: Table, index: Tensor, number: int, size: int = _ROWS
    ) -> Iterator[Batch]:
        """Rows in stored order, without augmentation or effect on the order of `task.train`.

        Args:
            table: Holds the rows.
            index: `[n]` int64, the rows to read.
            number: Their task.
            size: Rows per batch; the last batch may be smaller.
        """
        device = self.replay.device
        if table.device.type != "cpu":
            index = upload(index, table.device)
        for rows in index.split(size):
            fields: dict[str, Any] = upload(table.gather(rows), device)
            if self.world.task_transform is not None:
                fields["obs"] = self.world.task_transform(fields["obs"], number)
            place = torch.full_like(rows, number, device=device)
            yield Batch(**self._plain({**fields, "task": place, "index": rows.to(device)}))

    def state_dict(self) -> dict[str, Any]:
        """The position in the data, and the state of the random stream."""
        return {"task": self._begun, "in_pass": self._in_pass, "replay": self.replay.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly: `task.train` of that task goes on in the middle of its pass."""
        self.world.resume(state["task"], self.replay, state["replay"])
        self._begun = state["task"]
        self._in_pass = self._goes_on = state["in_pass"]


class Task:
    """One task of a sequence.

    Attributes:
        number: From 0.
        name: `classes 0-1`, or the data set's.
        classes: The labels that belong to it, in the order of `class_order`; all of them where tasks
            share their outputs, none where targets are values.
        train: Its training rows; each iteration is a pass in a new order.
        test: Its held-out rows, always in the same order.
        validation: The rows held out by `validation=`; None without it.
    """

    def __init__(self, sequence: Tasks, number: int):
        self.sequence, self.number = sequence, number
        rows: DataTask = sequence.world.tasks[number]
        self.name, self.classes = rows.name, list(sequence.spec.classes[number])
        world = sequence.world
        self.train = Train(sequence, number)
        self.test = HeldOut(sequence, number, world.test, rows.test)
        self.validation = None
        if rows.validation is not None:
            self.validation = HeldOut(sequence, number, world.train, rows.validation)

    def __repr__(self) -> str:
        return (
            f"Task({self.number}, {self.name!r}, {self.train.rows:,} training rows, {self.test.rows:,} "
            "held out)"
        )


class Train:
    """A task's training data: an iterable of `Batch`, each iteration a pass in a new order.

    Between `begin_task` and `end_task` of `Strategies`, batches include what they add: rows of a memory, or
    of other tasks.
    """

    def __init__(self, sequence: Tasks, number: int):
        self._sequence, self._number = sequence, number
        self._rows: Tensor = sequence.world.tasks[number].train

    def __iter__(self) -> Iterator[Batch]:
        return self._sequence.one_pass(self._number)

    def __len__(self) -> int:
        """Batches of a pass."""
        replay = self._sequence.replay
        if self._sequence._begun == self._number:
            return replay.batches_per_epoch if len(replay) else 0
        return len(batch_sizes(len(self._rows), replay.batch_size))

    @property
    def task(self) -> Task:
        """The task that the data belongs to."""
        return self._sequence[self._number]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self._rows)

    def once(self, batch_size: int = _ROWS) -> Iterator[Batch]:
        """The task's own rows in order, without augmentation; usable at any time, for measurements."""
        sequence = self._sequence
        return sequence.in_order(sequence.world.train, self._rows, self._number, batch_size)


class HeldOut:
    """Rows to evaluate on: an iterable of `Batch`, in the same order each time."""

    def __init__(self, sequence: Tasks, number: int, table: Table, rows: Tensor):
        self._sequence, self._number, self._table, self._rows = sequence, number, table, rows

    def __iter__(self) -> Iterator[Batch]:
        return self._sequence.in_order(self._table, self._rows, self._number)

    def __len__(self) -> int:
        """Batches."""
        return -(-len(self._rows) // _ROWS)

    @property
    def rows(self) -> int:
        return len(self._rows)
