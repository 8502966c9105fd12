"""The endless iterator of batches that `learn` receives."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from . import archive
from .ahead import Ahead
from .batch import Batch
from .errors import CheckpointError, ConfigError
from .ranks import Ranks, ranks
from .samplers import Epochs, Prioritized, Uniform
from .storage import Table
from .transfer import Parcel, upload
from .transform import Observations, Standardize
from .transitions import Transitions


class Replay:
    """An endless iterator of batches, from a data set's current task or from environment steps.

    `next(replay)` gathers `batch_size` rows from the storage by index, moves them to `device` and converts
    them to floats. Nothing is done sample by sample.

    Args:
        storage: A `Table` (data sets) or `Transitions` (environments).
        transform: Converts stored fields `[B, ...]` to a model's input; called on whole batches.
        batch_size: Rows per batch, B. The last batch of a pass over a data set may be smaller.
        device: The device of batches.
        seed: Seed (int64) of the rows' order, which has a random stream of its own.
        sequence: Steps per row of a batch of transitions, `[B, sequence, ...]`; None: single steps.
        priorities: Arguments of `Prioritized`; None: transitions are drawn uniformly.
        tasks: The rows of each task of a data set, int64; None: one task, all rows.
        task_transform: `(obs, task) -> obs`, from stored rows `[B, *shape]` to a task's (permuted pixels).
        borders: Whether learning knows its task; otherwise everything is task 0.
        before: Turns a batch into the one that `next` returns, as rehearsal does; None: unchanged.
        window: Rows in a window within which a data set's rows are shuffled; 0: all of them are.
        in_turn: Whether these windows come in the order of the rows.

    Attributes:
        task: Number of the current task, from 0.
        given: The tasks that batches are drawn from.
        batch: The last batch that `next` or `rollout` returned.
        before: Turns a batch into the one that `next` returns, or None.
        seen_by: Called with every batch that is drawn, or None.
        whole: The last batch as `before` returned it, with the rows of all devices.
        epoch: Number of the pass over the task's data that the last batch belongs to, from 0.
        step: Number of batches returned since the run began.
    """

    antelope_state: ClassVar[bool] = False  # Left out of what its holder saves.

    def __init__(
        self,
        storage: Table | Transitions,
        transform: Standardize | Observations | Callable[[dict[str, Any]], dict[str, Any]],
        *,
        batch_size: int,
        device: torch.device | str = "cpu",
        seed: int = 0,
        sequence: int | None = None,
        priorities: dict[str, Any] | None = None,
        tasks: Sequence[Tensor] | None = None,
        task_transform: Callable[[Tensor, int | Tensor], Tensor] | None = None,
        borders: bool = True,
        before: Callable[[Batch], Batch] | None = None,
        window: int = 0,
        in_turn: bool = False,
    ):
        self.storage, self.transform = storage, transform
        self._whole = storage  # The data set, even while other rows replace it.
        self.task_transform, self.borders = task_transform, borders
        self._windows: dict[str, Any] = {"window": window, "in_turn": in_turn}
        self.batch: Batch | None = None
        self.before = before
        self.whole: Batch | None = None
        self.seen_by: Callable[[Batch], None] | None = None
        self.batch_size, self.device, self.sequence = batch_size, torch.device(device), sequence
        self._moves = self.device.type != "cpu"
        self._nbytes = 0  # Bytes of the largest batch sent to the device so far.
        self._rows: tuple[Tensor, Any] | None = (
            None  # The last batch's `index`, on the device and on the host.
        )
        # The next batch's index, and the part of it that this rank gathers.
        self._following: tuple[Tensor, Tensor] | None = None
        self._ahead: Ahead | None = None
        if self._moves and isinstance(storage, Table) and storage.device.type == "cpu":
            self._ahead = Ahead(storage, self.device)
        self._lock: Any = storage.lock if isinstance(storage, Transitions) else nullcontext()
        self.task = 0
        self.given: list[int] = [0]
        self.step = 0
        self._orders = torch.Generator().manual_seed(seed)
        # `sample` must not change which rows `next` returns.
        self._draws = torch.Generator().manual_seed(seed + 1)
        self.sampler: Epochs | Uniform
        options: dict[str, Any] = {"batch_size": batch_size, "generator": self._orders}
        if isinstance(storage, Table):
            self._tasks = [torch.arange(len(storage))] if tasks is None else list(tasks)
            self._tasks = [rows.to(storage.device) for rows in self._tasks]
            self.begin(0)
        elif priorities is not None:
            self.sampler = Prioritized(storage, **options, **priorities)
        else:
            self.sampler = Uniform(storage, **options)

    def begin(self, task: int) -> None:
        """Move on to a task."""
        self.task = task if self.borders else 0
        if isinstance(self.storage, Table):
            self._restore()
            self.use_tasks([task])

    def begin_stream(self) -> None:
        """Assign steps from now on to the current task, and draw only from them."""
        self._transitions("replay.begin_stream()").begin_task(self.task)
        self.use_tasks([self.task])

    def set_task(self, task: int, rows: Tensor) -> None:
        """Set the rows of a task, int64 `[n]`: of the next new task, or of one without rows so far."""
        assert isinstance(self.storage, Table)
        self._tasks[task : task + 1] = [rows.to(self.storage.device)]

    def use_tasks(self, tasks: Iterable[int]) -> None:
        """Draw batches from all these tasks together from now on; none: there is nothing to learn.

        In environments these can only be the current task, or it and those directly before it.

        Raises:
            ConfigError: If other tasks are named in an environment.
        """
        given = list(tasks)
        if isinstance(self.storage, Transitions):
            if given != list(range(min(given, default=0), self.task + 1)):
                raise ConfigError(
                    f"replay.use_tasks({given}) in task {self.task}: environments can only use the "
                    f"current task, or it and those directly before it, such as range({self.task + 1})."
                )
            self.given = given
            self.storage.draw_from(given[0])
            return
        self.given = given
        rows = [self._tasks[task] for task in self.given] or [self._tasks[0][:0]]
        task: int | Tensor = self.given[0] if self.given else 0
        if len(rows) > 1:
            task = torch.cat([torch.full_like(r, t) for r, t in zip(rows, self.given, strict=True)])
        index = rows[0] if len(rows) == 1 else torch.cat(rows)
        options: dict[str, Any] = {"batch_size": self.batch_size, "generator": self._orders}
        self.sampler = Epochs(index, task=task, **options, **self._windows)

    def replace(self, table: Table) -> None:
        """Replace the current task's rows until the next task begins.

        Args:
            table: Rows stored like the data set's own, with the task's transform applied; it may have
                further fields.
        """
        self._keep_rows_in(table)
        index = torch.arange(len(table), device=table.device)
        self.sampler = Epochs(
            index, batch_size=self.batch_size, generator=self._orders, task=self.given[0]
        )

    def _restore(self) -> None:
        """Return to the data set's own rows."""
        if self.storage is not self._whole and isinstance(self._whole, Table):
            self._keep_rows_in(self._whole)

    def _keep_rows_in(self, table: Table) -> None:
        self.storage = table
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None
        if self._moves and table.device.type == "cpu":
            self._ahead = Ahead(table, self.device)

    @property
    def environments(self) -> bool:
        """Whether it holds environment steps, not a data set's rows."""
        return isinstance(self.storage, Transitions)

    @property
    def offline(self) -> bool:
        """Whether its steps were taken before this run, and none are added."""
        return isinstance(self.storage, Transitions) and self.storage.origin is not None

    @property
    def num_tasks(self) -> int:
        """Number of tasks of a data set."""
        return len(self._tasks)

    @property
    def _on_device(self) -> bool:
        """Whether its rows are stored on the device of batches."""
        if isinstance(self.storage, Transitions):
            return self.storage.on_device
        return self.storage.device.type != "cpu"

    @property
    def epoch(self) -> int:
        return self.sampler.epoch

    @property
    def passes(self) -> int:
        """Complete passes over the current task's data."""
        return self.sampler.passes

    @property
    def rows(self) -> int:
        """Rows of the last batch, counted over all devices."""
        place = ranks()
        if place.split and not place.own:
            return place.last
        return 0 if self.batch is None else len(self.batch)

    @property
    def batches_per_epoch(self) -> int:
        """Batches in one pass over the current task's data."""
        if not isinstance(self.sampler, Epochs):
            raise ConfigError("Environments have no epochs: count steps instead (`train_steps`).")
        return len(self.sampler)

    @property
    def prioritized(self) -> bool:
        """Whether batches have `weight`, and `update_priorities` should be called."""
        return isinstance(self.sampler, Prioritized)

    @property
    def new_steps(self) -> int:
        """Time steps of all environments since the last `rollout()`."""
        return self._transitions("replay.new_steps").new_steps

    @property
    def fresh(self) -> int:
        """The former name of `new_steps`."""
        _renamed("fresh", "new_steps")
        return self.new_steps

    def give(self, tasks: Iterable[int]) -> None:
        """The former name of `use_tasks`."""
        _renamed("give", "use_tasks")
        self.use_tasks(tasks)

    def __iter__(self) -> Replay:
        return self

    def __next__(self) -> Batch:
        place = ranks()
        if place.split and not place.own:
            self.batch = batch = self._part(place)
            return batch
        self.batch = self.whole = batch = self._draw()
        return batch

    def _part(self, place: Ranks) -> Batch:
        """The rows of the next batch that this rank learns from."""
        if self.before is None and isinstance(self.storage, Table):
            return self._draw(place)
        # With the shared streams and all rows: strategies then do the same on every rank.
        with place.together():
            self.whole = whole = self._draw()
        place.drawn(len(whole))
        part = whole.map(lambda field: place.rows(field).contiguous())
        self._rows = None  # The index is no longer the one that was drawn.
        return part

    def _draw(self, place: Ranks | None = None) -> Batch:
        """The next batch; given a rank of several, only its rows."""
        self.step += 1
        sampler, storage = self.sampler, self.storage
        if isinstance(sampler, Epochs):
            assert isinstance(storage, Table)
            index, tasks, following = sampler.next(), sampler.tasks(), sampler.peek()
            if place is not None:
                place.drawn(len(index))
                index, tasks, following = self._rows_of(place, index, tasks, following)
            if (ahead := self._ahead) is None:
                batch = self._finish(storage.gather(index), index, tasks)
            else:
                taken, fields = ahead.take(index, following, self._nbytes)
                batch = self._finish(fields, index, tasks, parcel=taken)
        else:
            assert isinstance(storage, Transitions)
            parcel = self._parcel()
            with storage.lock:  # Rows must not be overwritten between drawing and reading them.
                rows = sampler.next()
                fields = self._gather(storage, rows, parcel)
            if isinstance(sampler, Prioritized):
                fields["weight"] = sampler.weights
            batch = self._finish(fields, parcel=parcel)
            self._rows = batch.index, rows
        if self.before is not None:
            batch = self.before(batch)
            if self.seen_by is not None:
                self.seen_by(batch)
        return batch

    def _rows_of(
        self, place: Ranks, index: Tensor, tasks: Tensor, following: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The rows of one rank: of a batch's index and tasks, and of the index that follows."""
        known, self._following = self._following, None
        # The same object as in the last call: by it, rows that were gathered ahead are known.
        mine = known[1] if known is not None and known[0] is index else place.rows(index)
        after = None
        if following is not None and self._ahead is not None:
            after = place.rows(following)
            self._following = following, after
        return mine, place.rows(tasks), after

    def __len__(self) -> int:
        """The number of rows, or of drawable transitions, of the current task."""
        if isinstance(self.sampler, Epochs):
            return len(self.sampler.index)
        return len(self.storage)

    def sample(self, n: int) -> Batch:
        """`n` rows of the tasks in `given`, with replacement, without advancing the epoch.

        Transitions are drawn uniformly, whatever their priorities.
        """
        storage, sampler = self.storage, self.sampler
        if isinstance(sampler, Epochs):
            assert isinstance(storage, Table)
            index, tasks = sampler.sample(n, self._draws)
            return self._finish(storage.gather(index), index, tasks)
        assert isinstance(storage, Transitions)
        with storage.lock:
            rows = sampler.sample(n, self._draws)
            return self._finish(self._gather(storage, rows, None))

    def once(self, batch_size: int = 256, *, order: Tensor | None = None) -> Iterator[Batch]:
        """Iterate once over every row of the current task's data, unaugmented; `next` is not affected.

        In environments, every transition of the current task that the replay holds, oldest first.

        Args:
            batch_size: Largest number of rows per batch.
            order: Positions of the rows to visit, int64 `[n]`, from 0 to `len(replay) - 1`; None: all, in
                stored order.
        """
        if not isinstance(self.sampler, Epochs):
            yield from self._transitions_once(batch_size, order)
            return
        storage, index, task = self.storage, self.sampler.index, self.sampler.task
        assert isinstance(storage, Table)
        if order is not None:
            order = order.to(index.device)
            index = index.index_select(0, order)
            task = task.index_select(0, order) if isinstance(task, Tensor) else task
        for start in range(0, len(index), batch_size):
            rows = index[start : start + batch_size]
            if isinstance(task, Tensor):
                tasks = task[start : start + batch_size]
            else:
                tasks = torch.full_like(rows, task)
            yield self._finish(storage.gather(rows), rows, tasks, augment=False)

    def _transitions_once(self, batch_size: int, order: Tensor | None) -> Iterator[Batch]:
        storage = self._transitions("replay.once()")
        with storage.lock:
            index = storage.drawable_rows()
        if order is not None:
            index = index[order.cpu().numpy()]
        for start in range(0, len(index), batch_size):
            with storage.lock:
                fields = storage.gather(index[start : start + batch_size])
            yield self._finish(fields, augment=False)

    def rollout(self) -> Batch:
        """Every step since the last call, `[T, N, ...]`: for on-policy learning.

        Holds the fields of a batch, `is_first`, and `mask`, bool `[T, N]`: False where an environment has no
        step. That happens only at the end of its column, in vector environments that reset in a separate
        step.

        Raises:
            ConfigError: On a data set, without new steps, or if they did not fit into the replay.
        """
        storage = self._transitions("replay.rollout()")
        with storage.lock:
            fields = storage.rollout()
        self.batch = batch = self._finish(fields)
        return batch

    def update_priorities(self, index: Tensor, priority: Tensor) -> None:
        """Set transitions' priorities, usually `|TD error|`.

        Args:
            index: `batch.index`, int64 `[B]`; for sequences `[B, T]`, each with a single priority.
            priority: Float `[B]`; its absolute value counts.

        Raises:
            ConfigError: Without `replay.prioritized=true`, or with another number of priorities.
        """
        if not isinstance(self.sampler, Prioritized):
            raise ConfigError(
                "update_priorities needs a prioritised replay: replay.prioritized=true."
            )
        rows = index[:, 0] if index.dim() == 2 else index
        if priority.shape != rows.shape:
            raise ConfigError(
                f"update_priorities: the priority has the shape {list(priority.shape)}; this batch needs "
                f"{list(rows.shape)}, one per row."
            )
        place = ranks()
        if place.split and not place.own:  # Every rank's, so that all draw the same rows next.
            rows, priority = place.collect(rows), place.collect(priority)
        drawn = self._rows
        # The host drew the last batch's index: reading it from the device would synchronise.
        known = drawn is not None and drawn[0] is index
        numbers = drawn[1] if known else rows.cpu().numpy()  # type: ignore[index]
        with self._lock:
            self.sampler.update(numbers, priority.detach().cpu().double().numpy())

    def sum_gradients(self, optimizer: Any) -> None:
        """Sum an optimiser's gradients over the devices of a run; on one device nothing happens.

        For a `learn` that steps the optimiser itself, and clips or changes gradients before that.
        Otherwise they are summed at the step.
        """
        ranks().settle(optimizer)

    def _transitions(self, what: str) -> Transitions:
        if not isinstance(self.storage, Transitions):
            raise ConfigError(
                f"{what} is only available in environments; this run learns from a data set."
            )
        return self.storage

    def _parcel(self) -> Parcel | None:
        """Memory to gather transitions into, if they are on the host and batches are on a device."""
        return Parcel(self.device, self._nbytes) if self._moves and not self._on_device else None

    def _gather(self, storage: Transitions, rows: Any, parcel: Parcel | None) -> dict[str, Any]:
        empty = None if parcel is None else parcel.empty
        if self.sequence is None:
            return storage.gather(rows, empty=empty)
        return storage.sequences(rows, self.sequence, empty=empty)

    def _finish(
        self,
        fields: dict[str, Any],
        index: Tensor | None = None,
        tasks: Tensor | None = None,
        *,
        augment: bool = True,
        parcel: Parcel | None = None,
    ) -> Batch:
        if tasks is not None:  # Transitions store their own task.
            fields["task"], fields["index"] = tasks, index
        transform = self.transform
        if self._moves:
            fields, transform = self._moved(fields, parcel)
        if self.task_transform is not None and self.storage is self._whole:
            fields["obs"] = self._altered(fields["obs"], fields["task"])
        if not self.borders:
            fields["task"] = torch.zeros_like(fields["task"])
        # A transform without the method `without_augmentation` never augments.
        make = transform if augment else getattr(transform, "without_augmentation", transform)
        batch = Batch(**make(fields))
        if self.seen_by is not None:
            self.seen_by(batch)
        return batch

    def _moved(
        self, fields: dict[str, Any], parcel: Parcel | None
    ) -> tuple[dict[str, Any], Callable[..., dict[str, Any]]]:
        """The fields on the device, sent in one copy, and the part of the transform still to be applied."""
        transform: Callable[..., dict[str, Any]] = self.transform
        if isinstance(self.transform, Observations) and not self._on_device:
            # Statistics change at every step, and would otherwise have to be sent as well.
            fields, transform = self.transform.normalize(fields), self.transform.convert
        if parcel is None:
            return upload(fields, self.device), transform
        fields = parcel.send(fields)
        self._nbytes = max(self._nbytes, parcel.wanted)
        return fields, transform

    def _altered(self, obs: Tensor, tasks: Tensor) -> Tensor:
        assert self.task_transform is not None
        given = self.given
        return self.task_transform(obs, given[0] if len(given) == 1 else tasks)

    def close(self) -> None:
        """End background threads; batches can still be drawn."""
        if self._ahead is not None:
            self._ahead.close()

    def state_dict(self, *, whole: bool = False) -> dict[str, Any]:
        """The state without rows that can be read again: those of a data set, or of an offline replay.

        Arrays are the replay's own, not copies.

        Args:
            whole: Whether to include an offline replay's rows.
        """
        with self._lock:
            state = {
                "task": self.task,
                "step": self.step,
                "sampler": self.sampler.state_dict(),
                "orders": self._orders.get_state(),
                "draws": self._draws.get_state(),
            }
            if self.offline and not whole:
                state["transitions"] = {"origin": self._transitions("replay").origin}
            elif isinstance(self.storage, Transitions):
                state["transitions"] = self.storage.state_dict()
            state["given"] = self.given
            if isinstance(self.storage, Table) and self.storage is not self._whole:
                state["rows"] = self.storage.saved()
            return state

    def load_state_dict(self, state: dict[str, Any], *, in_task: bool = True) -> None:
        """Continue exactly where the state was saved: after `begin` with its task, or between tasks.

        Raises:
            CheckpointError: If the state belongs to another kind or size of replay, or to one that came
                from elsewhere.
        """
        if ("transitions" in state) != isinstance(self.storage, Transitions):
            kinds = ("environment steps", "a data set")[:: 1 if "transitions" in state else -1]
            raise CheckpointError(f"The saved replay holds {kinds[0]}, this one {kinds[1]}.")
        if ("leaves" in state["sampler"]) != self.prioritized:
            raise CheckpointError("Resume with the replay.prioritized that the run was saved with.")
        if isinstance(self.storage, Transitions):
            if (origin := state["transitions"].get("origin")) != self.storage.origin:
                raise CheckpointError(_OTHER_ORIGIN[origin is not None, self.offline])
            if origin is None:
                self.storage.load_state_dict(state["transitions"])
            self.given = list(state.get("given", (0,)))  # Since 0.5.0.
        elif in_task:
            self.use_tasks(state["given"])
            if (rows := state.get("rows")) is not None:
                assert isinstance(self._whole, Table)
                self.replace(self._whole.restored(rows).to(self._whole.device))
        self.task, self.step = state["task"], state["step"]
        if in_task:
            self.sampler.load_state_dict(state["sampler"])
        self._orders.set_state(state["orders"])
        self._draws.set_state(state["draws"])

    def save(self, path: str | Path) -> None:
        """Save the replay to a folder: JSON, and a NumPy file for each column; nothing is pickled."""
        with self._lock:
            archive.save(self.state_dict(whole=True), Path(path))

    def load(self, path: str | Path) -> None:
        """Continue from a folder that `save` wrote; the replay must have the same sizes.

        Raises:
            CheckpointError: If it cannot be read or does not fit.
        """
        with self._lock:
            self.load_state_dict(archive.load(Path(path)))


# Why a state cannot be loaded, by whether it and this replay are offline ones.
_GROWING = "The checkpoint's replay was still growing; an offline replay is fixed."
_OFFLINE = (
    "The checkpoint's replay was an offline one; this one is not. Set the same offline= again."
)
_ANOTHER = "The checkpoint's replay came from another offline replay. Set the same offline= again."
_OTHER_ORIGIN = {(False, True): _GROWING, (True, False): _OFFLINE, (True, True): _ANOTHER}


def _renamed(before: str, now: str) -> None:
    """Warn about a name that will be removed in the next version."""
    warnings.warn(
        f"replay.{before} is now replay.{now}; the old name will be removed in the next version.",
        DeprecationWarning,
        stacklevel=3,
    )
