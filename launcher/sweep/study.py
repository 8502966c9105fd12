"""A search's trials in Optuna's journal, and what a run of a search reports there while it learns."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ...replay.errors import ConfigError
from ..settings.warn import warn_caller

if TYPE_CHECKING:
    import optuna
    from optuna.storages.journal import BaseJournalBackend

    from ..live_run import LiveRun

NAME = "search"
"""Of the study in its journal."""

_CALLBACK = "antelope.search"  # In errors.

PRUNED, ENOUGH, REFUSED = "pruned", "enough", "refused"
"""Attributes of a trial: stopped early because others are better; stopped after `search_tasks`; the message
of an error that every trial would raise."""

VALIDATION = "validation_"


@dataclass(frozen=True)
class Study:
    """Where a trial of a search reports its evaluations.

    Attributes:
        journal: The search's journal file, absolute.
        number: The trial's number in it.
        metric: Which metric is optimised, as `run.metrics` names it, or with `validation_` in front.
        more: Whether more of it is better.
        pruner: Which of Optuna's pruners may stop the trial: "median" or "halving"; "": none.
        tasks: Tasks of a sequence after which the trial has seen enough; None: all.
    """

    journal: Path
    number: int
    metric: str
    more: bool
    pruner: str = ""
    tasks: int | None = None

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Runs begun inside the block report their evaluations, and stop where the search says so."""
        from ..learn.callbacks import also_called

        with also_called({_CALLBACK: Reporter(self)}):
            yield

    def trial(self) -> optuna.Trial:
        """This trial in its journal, which many processes may read and write at once."""
        import optuna

        study = open_study(self.journal, more=self.more, pruner=self.pruner)
        return optuna.Trial(study, study.get_trials()[self.number]._trial_id)


def open_study(journal: Path, *, more: bool, pruner: str = "") -> optuna.Study:
    """Open a search's journal, or begin one.

    Args:
        journal: The file.
        more: Whether more of the metric is better.
        pruner: "median", "halving", or "" for none.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.JournalStorage(_backend(journal))
    if NAME not in [study.study_name for study in storage.get_all_studies()]:
        directions = optuna.study.StudyDirection
        direction = directions.MAXIMIZE if more else directions.MINIMIZE
        optuna.create_study(storage=storage, study_name=NAME, direction=direction)
    pruners = {
        # With fewer trials to compare with, the median says little.
        "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=5),
        "halving": lambda: optuna.pruners.SuccessiveHalvingPruner(min_resource=1),
        "": optuna.pruners.NopPruner,
    }
    sampler = optuna.samplers.RandomSampler()  # The driver sets its own for each trial.
    return optuna.load_study(
        study_name=NAME, storage=storage, sampler=sampler, pruner=pruners[pruner]()
    )


def _backend(journal: Path) -> BaseJournalBackend:
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    class Backend(JournalFileBackend):
        """Removes a line that a full disk or a power cut has left unfinished: Optuna would append to it."""

        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            _end_last_line(journal)
            super().append_logs(logs)

    # A lock that is a plain file, not a link: no run is written to folders with links.
    return Backend(str(journal), lock_obj=JournalFileOpenLock(str(journal)))


def _end_last_line(journal: Path) -> None:
    from optuna.storages.journal import JournalFileOpenLock
    from optuna.storages.journal._file import get_lock_file

    with journal.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0 or not _unfinished(file, size):
            return
        # Only now: another process may be in the middle of a line that it will finish.
        with get_lock_file(JournalFileOpenLock(str(journal))):
            size = file.seek(0, os.SEEK_END)
            if _unfinished(file, size):
                file.seek(0)
                file.truncate(file.read(size).rfind(b"\n") + 1)


def _unfinished(file: BinaryIO, size: int) -> bool:
    file.seek(size - 1)
    return file.read(1) != b"\n"


class Reporter:
    """A callback that reports each evaluation to the study, and stops the run where that says so.

    It leaves the run's results and checkpoints as they are without it.
    """

    def __init__(self, study: Study):
        self._study = study
        self._trial: Any = None
        self._count = 0  # Evaluations of the run so far, those before a resume included.
        self._known: dict[int, float] = {}
        self._over = False  # Whether the search knows the trial's result already.

    def on_begin(self, run: LiveRun) -> str | None:
        """Open the journal."""
        self._trial = self._study.trial()
        found = self._trial.study.get_trials()[self._study.number]
        self._known, self._over = found.intermediate_values, found.state.is_finished()
        self._count = sum(row["mode"] == "eval" for row in run.history)
        # Resumed after its last checkpoint, which was that of the stop.
        if PRUNED in self._trial.user_attrs:
            return self._stop(PRUNED)
        return self._stop(ENOUGH) if self._seen(run.tasks_learnt) else None

    def on_evaluation(self, run: LiveRun) -> str | None:
        """Report the metric, if this evaluation has it."""
        self._count += 1
        metrics, name = run.metrics, self._study.metric
        if name in metrics:
            return self._report(metrics[name])
        if self._count == 1:
            self._check(metrics)
        return None

    def on_task(self, run: LiveRun) -> str | None:
        """Report the metric on held-out rows, which an evaluation after a task leaves out; count tasks."""
        found, name = None, self._study.metric
        if name.startswith(VALIDATION):
            metrics = {f"{VALIDATION}{key}": value for key, value in run.validate().items()}
            if name not in metrics:
                raise self._refused(metrics)
            found = self._report(metrics[name])
        return self._stop(ENOUGH) if self._seen(run.tasks_learnt) else found

    def _seen(self, learnt: int) -> bool:
        return self._study.tasks is not None and learnt >= self._study.tasks

    def _report(self, value: float) -> str | None:
        """Report one value; returns "stop" if the trial is not worth going on with."""
        step = self._count
        # A run that was resumed evaluates again what it had reported since its checkpoint.
        if step not in self._known:
            self._write(lambda: self._trial.report(value, step))
        pruned = bool(self._study.pruner) and self._write(self._trial.should_prune)
        return self._stop(PRUNED) if pruned else None

    def _stop(self, why: str) -> str:
        from ..learn.callbacks import Stop

        self._write(lambda: self._trial.set_user_attr(why, self._count))
        return Stop("the search (pruned)" if why == PRUNED else "the search (enough tasks)")

    def _write(self, work: Callable[[], Any]) -> Any:
        """The result of reading or writing the journal; None if that is impossible: no run ends by it."""
        if self._over:
            return None
        try:
            return work()
        except (OSError, ValueError) as error:
            warn_caller(f"{self._study.journal} could not be read or written ({error}).")
            return None

    def _check(self, metrics: Mapping[str, float]) -> None:
        """Refuse a metric that the run will not have, at its first evaluation.

        Raises:
            ConfigError: Naming those that it has.
        """
        from ..metrics import metrics_of

        name = self._study.metric.removeprefix(VALIDATION)
        later = {metric.name for metric in metrics_of("tasks")}
        held_out = any(key.startswith(VALIDATION) for key in metrics)
        plain = {key.removeprefix(VALIDATION) for key in metrics}
        if name not in plain | later or (held_out and name in later):
            raise self._refused(metrics)

    def _refused(self, metrics: Mapping[str, float]) -> ConfigError:
        message = missing(self._study.metric, metrics)
        self._trial.set_user_attr(REFUSED, message)
        return ConfigError(message)


def missing(name: str, metrics: Mapping[str, float]) -> str:
    """The message on a metric that the runs of a search do not have."""
    known = [key for key in metrics if "/" not in key]
    if name.startswith(VALIDATION) and not any(key.startswith(VALIDATION) for key in known):
        more = "Hold rows out of the training data with validation=0.1, say."
    else:
        more = "Name another with maximize= or minimize=."
    has = f"they have {', '.join(known)}" if known else "they evaluate nothing"
    return f"The runs of this search have no metric `{name}`; {has}. {more}"
