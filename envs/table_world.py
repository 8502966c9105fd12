"""A world of data: tables of rows, in memory or read at each use, and a sequence of tasks over them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..replay import ConfigError, LazyColumn, Ragged, Replay, Space, Spec, Table
from ..replay.samplers import batch_sizes
from ..replay.spec import is_ragged
from ..replay.transfer import upload
from ..replay.tree import Path, at_path, leaves, map_paths, walk, zip_trees
from . import fingerprint
from .alterations import TaskTransform, altered
from .held_out import HeldOut, sample
from .inputs import LARGEST_ID, is_whole
from .kinds import OfData
from .placing import place_tables
from .reading import Reading
from .statistics import chunks
from .stored_labels import in_batches
from .task_rows import DataTask
from .transform import Transform
from .wishes import Evaluation, Lengths, ReplayWishes, TaskLength
from .world import Actor, Environments, Growing, Policy, Show


class TableWorld(OfData):
    """Training and held-out tables, and tasks that are index sets over them: nothing is copied.

    Args:
        name: What directories and errors call the data.
        spec: The spec of inputs and labels as the tables hold them.
        train, test: Tables with the columns `obs` `[N, *shape]`, or a dict of such, and `label`: int64 `[N]`
            classes, or float `[N, *shape]` values.
        tasks: The sequence of tasks.
        scenario: "class", "task" or "domain": what an output means.
        source_dtype: The dtype in which inputs were read, such as uint8 or float64; a dict of them for a
            dict of inputs.
        task_transform: Maps stored rows `[B, *shape]` to those of a task (a number, or int64 `[B]`), of the
            same shape and dtype, before standardisation; None: rows are used as stored.
        notes: Remarks on how the data was read and on its labels, for the run's header.
        decoded: Whether its parts are pictures (True), or arrays (False).
        single_class: The name of the only class; None: there are several, or values.
        reading: How raw inputs became rows; None: as the spec tells.
        files: Identifies the files that the rows were read from, as `fingerprint.of_files` does; None: there
            are none, or they are the rows themselves.

    Attributes:
        later: For each added task, its name, size, classes and a digest of its data.
    """

    def __init__(
        self,
        name: str,
        spec: Spec,
        train: Table,
        test: Table,
        tasks: list[DataTask],
        *,
        scenario: str,
        source_dtype: Any,
        task_transform: TaskTransform | None = None,
        notes: Sequence[str] = (),
        decoded: Collection[bool] = (),
        single_class: str | None = None,
        reading: Reading | None = None,
        files: str | None = None,
    ):
        self.name, self.spec, self.scenario = name, spec, scenario
        self.train, self.test, self.tasks = train, test, tasks
        self.source_dtype, self.task_transform = source_dtype, task_transform
        self.notes, self.decoded, self.single_class = list(notes), set(decoded), single_class
        self.reading = reading or Reading.of(spec.obs, spec.action)
        self.later: list[dict[str, Any]] = []
        # Without what is added later.
        self._rows, self._num_tasks, self._files = (len(train), len(test)), len(tasks), files
        action = spec.action
        # Without later ones.
        self._class_names = action.names if isinstance(action, Space) else None
        # Sampled once, so that all evaluations of a run compare on the same rows.
        self._samples: dict[tuple[int, bool, int, int], Tensor] = {}

    @property
    def _in_turn(self) -> bool:
        """Whether rows can only be read one after the other."""
        columns = leaves(self.train.columns["obs"])
        return any(isinstance(c, LazyColumn) and c.in_turn for c in columns)

    # ---------------------------------------------------------------------------- before the run

    def unread(self, *, normalize_obs: bool, eval_episodes: int) -> dict[str, str]:
        reasons = {}
        if self.decoded == {True}:
            reasons["channels"] = "its inputs are not arrays of images"
        if self.decoded == {False}:
            reasons["image_size"] = "its inputs are arrays, and only pictures are resized"
        return reasons

    def wanted_threads(self) -> int | None:
        return None  # Batches of data are large enough for all cores.

    def place(self, device: torch.device, wanted: str) -> str | None:
        return place_tables((self.train, self.test), self.spec, device, wanted, name=self.name)

    def replay(self, transform: Transform, wishes: ReplayWishes) -> Replay:
        return Replay(
            self.train,
            transform,
            batch_size=wishes.batch_size,
            device=wishes.device,
            seed=wishes.seed,
            tasks=[task.train for task in self.tasks],
            task_transform=self.task_transform,
            borders=wishes.borders,
            before=wishes.before,
            window=wishes.window,
            in_turn=self._in_turn,
        )

    def example(self, n: int, device: torch.device) -> Any:
        """`n` rows of the first task on a device, `[n, *shape]`, as stored but altered for that task.

        With ids, the first two are the rows with the largest and the smallest one, held-out rows included:
        an embedding without a row for them fails before training, not in the middle.

        Raises:
            ConfigError: If they cannot be altered on that device.
        """
        rows = self.tasks[0].train
        # Spread over the data, which may be sorted by class; in float64, exact for any number of rows.
        places = torch.linspace(0, len(rows) - 1, n, dtype=torch.float64).long()
        chosen = rows[places].to(self.train.device)
        if is_ragged(self.spec.obs):
            return self._sequences(chosen, n, device)
        found = self.train.gather(chosen)["obs"]
        if self.train.in_memory and self.test.in_memory:
            found = map_paths(
                lambda path, space: self._with_ends(path, space, found, n), self.spec.obs
            )
        obs = upload(found, device)
        return obs if self.task_transform is None else altered(self.task_transform, self.name, obs)

    def example_labels(self, n: int, device: torch.device) -> Tensor:
        """`n` labels of the first task's training rows as batches hold them, `[n, ...]`, on a device."""
        rows = self.tasks[0].train
        places = torch.linspace(0, len(rows) - 1, n, dtype=torch.float64).long()
        label = self.train.columns["label"]
        assert isinstance(label, Tensor)
        return in_batches(upload(label[rows[places].to(label.device)], device), self.spec.action)

    def training_labels(self) -> Iterator[Tensor]:
        """The labels of each task's training rows as the table holds them, `[N, ...]`, in host memory."""
        label = self.train.columns["label"]
        assert isinstance(label, Tensor)
        for task in self.tasks:
            yield label[task.train.to(label.device)].cpu()

    def _with_ends(self, path: Path, space: Space, found: Any, n: int) -> Tensor:
        """The rows found of one part of the inputs, the first two replaced if they are ids."""
        rows: Tensor = at_path(found, path)
        if space.ids is None:
            return rows
        ends = torch.stack([self._row_with(path, largest=end) for end in (True, False)])
        return torch.cat([ends, rows[2:]])[:n]

    def _sequences(self, rows: Tensor, n: int, device: torch.device) -> Tensor:
        """These rows, padded; the first is the longest of all, and of ids the second has the most extreme."""
        columns: list[Ragged] = [table.columns["obs"] for table in (self.train, self.test)]
        longest = max(columns, key=lambda column: column.longest)
        chosen = [longest[int(longest.lengths.argmax())]]
        if self.spec.obs.ids is not None:
            sign = -1 if self.spec.obs.low < 0 else 1  # An embedding has no row for negative ones.
            extreme = max(columns, key=lambda column: int((sign * column.values).max()))
            step = int((sign * extreme.values).view(len(extreme.values), -1).amax(1).argmax())
            chosen.append(extreme[extreme.row_at(step)])
        chosen += [columns[0][row] for row in rows.tolist()]
        few = Ragged.of_rows([row.cpu() for row in chosen[:n]]).to(device)
        return few.take(torch.arange(n, device=device))

    def _row_with(self, path: Path, *, largest: bool) -> Tensor:
        """The row with the largest or the smallest integer of one part of the inputs, `[*shape]`."""
        rows = []
        for table in (self.train, self.test):
            for some in chunks([at_path(table.columns["obs"], path)]):
                by_row = some.flatten(1) if some.dim() > 1 else some[:, None]
                ends = by_row.amax(1) if largest else -by_row.amin(1)
                place = int(ends.argmax())
                rows.append((int(ends[place]), some[place]))
        return max(rows, key=lambda row: row[0])[1]

    def borders(self, *, online: bool) -> bool:
        return not online

    @property
    def validates(self) -> bool:
        return self.tasks[0].validation is not None

    def classes(self, task: int) -> Tensor:
        return self.tasks[task].classes if self.spec.has_classes else torch.arange(0)

    def task_lengths(self, lengths: Lengths, *, batch_size: int, offline: bool) -> list[TaskLength]:
        batches = [len(batch_sizes(len(task.train), batch_size)) for task in self.tasks]
        return [TaskLength(lengths.train_steps, lengths.epochs, count) for count in batches]

    def steps(self, lengths: Lengths, *, batch_size: int) -> int:
        total = 0
        for task in self.task_lengths(lengths, batch_size=batch_size, offline=False):
            bounds = [] if task.steps is None else [task.steps]
            if task.epochs is not None and task.batches is not None:
                bounds.append(task.epochs * task.batches)
            total += min(bounds)
        return total

    def describe(self) -> str:
        tasks = f", {len(self.tasks)} tasks" if len(self.tasks) > 1 else ""
        train, test = (
            sum(len(getattr(task, part)) for task in self.tasks) for part in ("train", "test")
        )
        kept = [len(task.validation) for task in self.tasks if task.validation is not None]
        validation = f"{sum(kept):,} to validate with, " if kept else ""
        counted = f"{self.name}, {train:,} to learn from, {validation}{test:,} held out{tasks}"
        return "; ".join([counted, *self.notes])

    def remarks(self, *, asked: bool, eval_episodes: int, eval_limit: int | None) -> dict[str, str]:
        """A line on how integers are treated, unless the user decided it."""
        said = zip_trees(
            lambda space, dtype: _on_integers(space, dtype, asked=asked),
            self.spec.obs,
            self.source_dtype,
        )
        lines = [
            (f"`{'.'.join(path)}` " if path else "") + words for path, words in walk(said) if words
        ]
        return {"inputs": "; ".join(lines)} if lines else {}

    # ---------------------------------------------------------------------------- during the run

    def begin(self, task: int, replay: Replay) -> None:
        replay.begin(task)

    def collect(self, task: int, actor: Actor | None, replay: Replay) -> int:
        """Nothing is collected, since the data is there; a step is a learning step."""
        return 1

    def go_on(self, task: int, replay: Replay) -> None:
        """Nothing to do: an evaluation leaves data unchanged."""

    def episode_metrics(self, task: int) -> dict[str, float]:
        return {}

    def evaluates(self, episodes: int) -> bool:
        return True

    def evaluated(
        self, task: int, how: Evaluation, *, validation: bool = False, whole: bool = False
    ) -> int:
        return len(self._index(task, how, validation=validation, whole=whole))

    def evaluate(
        self,
        task: int,
        policy: Policy,
        how: Evaluation,
        *,
        step: int,
        validation: bool = False,
        whole: bool = False,
        show: Show,
    ) -> dict[str, float]:
        rows = self.held_out(task, how, validation=validation, whole=whole)

        def began(done: int) -> None:
            how.poll()
            show(done, "rows")

        return policy.score_rows(replace(rows, show=began))

    def held_out(
        self, task: int, how: Evaluation, *, validation: bool = False, whole: bool = False
    ) -> HeldOut:
        """The rows of one task that are evaluated; arguments as for `evaluate`."""
        # Knowing the task narrows predictions down only if tasks have their own classes.
        apart = len(self.tasks) > 1 and self.spec.has_classes
        return HeldOut(
            task,
            self.train if validation else self.test,
            self._index(task, how, validation=validation, whole=whole),
            classes=self.tasks[task].classes if apart else None,
            transform=how.transform,
            device=how.device,
            shapes=[part.shape for part in leaves(self.spec.obs)],
            task_transform=self.task_transform,
        )

    def _index(self, number: int, how: Evaluation, *, validation: bool, whole: bool) -> Tensor:
        """The rows that are evaluated, int64 `[N]`, in the data's order."""
        task = self.tasks[number]
        index = task.validation if validation else task.test
        assert index is not None
        if whole or how.rows is None or how.rows >= len(index):
            return index
        key = (number, validation, how.rows, how.seed)
        if key not in self._samples:
            self._samples[key] = sample(index, how.rows, seed=how.seed, task=number)
        return self._samples[key]

    # ---------------------------------------------------------------------------- after the run

    def growing(self) -> Growing:
        raise ConfigError(f"{self.name} defines all of its tasks, so no task can be added.")

    def environments(self) -> Environments:
        raise ConfigError(f"{self.name} is a data set: there is nothing to act in.")

    def of_task(self, rows: Tensor, task: int | Tensor) -> Tensor:
        """Stored rows `[B, *shape]` as a task has them, altered if it alters them."""
        return rows if self.task_transform is None else self.task_transform(rows, task)

    # -------------------------------------------------------------------------------- its state

    def state_dict(self, task: int | None, *, pack: Callable[[Any], Any]) -> dict[str, Any]:
        return {
            "environment": None,
            "environments": None,
            "normalizer": None,
            "interfaces": [],
            "info_layout": None,
            "later": self.later,
            "reading": self.reading.state(),
            "scenario": self.scenario,
            "tasks": [{"name": task.name, "classes": task.classes} for task in self.tasks],
            "altered": self.task_transform is not None,
            "data": self.fingerprint,
        }

    @cached_property
    def fingerprint(self) -> fingerprint.Fingerprint:
        reading, parts = self.reading, []
        for task in self.tasks[: self._num_tasks]:
            parts += [task.train, task.test, task.validation, task.classes]
        columns = reading.headings if reading.columns is None else reading.columns.names
        # What another version decodes to slightly different pixels.
        decoder = fingerprint.decoder() if True in self.decoded else None
        train, test = (
            fingerprint.of_rows(table, rows, decoder=decoder)
            for table, rows in zip((self.train, self.test), self._rows, strict=True)
        )
        return {
            "kind": "data",
            "columns": fingerprint.as_lists(columns),
            "targets": fingerprint.as_lists(reading.target_headings),
            "classes": fingerprint.as_lists(self._class_names),
            "files": self._files,
            "tasks": fingerprint.of_index(parts),
            "train": train,
            "test": test,
        }

    def load_state_dict(
        self,
        state: Mapping[str, Any],
        task: int | None,
        replay: Replay,
        *,
        unpack: Callable[[Any, Any], None],
        problem: Callable[[str], None],
    ) -> bool:
        self.resume(task, replay, state["replay"])
        return False

    def resume(self, task: int | None, replay: Replay, state: dict[str, Any]) -> None:
        if task is not None:
            replay.begin(task)
        replay.load_state_dict(state, in_task=task is not None)

    def close(self) -> None:
        """There is nothing to close."""


def _on_integers(space: Space, source: torch.dtype, *, asked: bool) -> str:
    """How a part's integers are treated; empty if it has none, or the user decided it."""
    if space.ids is not None and space.nvec:
        return ""  # A table's categories, which its own remarks tell of.
    if space.ids is not None:
        return (
            f"integers from {space.low:,} to {space.high:,}, unchanged (standardize=true treats them as "
            "numbers)"
        )
    if asked or not is_whole(source):
        return ""
    return (
        f"integers up to {space.high:,.0f}: treated as numbers, since ids end at {LARGEST_ID:,}; "
        "standardize=false leaves them unchanged"
    )
