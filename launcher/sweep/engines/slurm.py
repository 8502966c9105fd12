"""`engine=slurm`: one array of Slurm's, whose tasks are the runs."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import shlex
import signal
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ....replay.errors import ConfigError
from ....replay.files import read_text, replacing
from ...pictures.status import read_status
from ...record.output import write_error
from ..trial import DIED_OFTEN, Outcome, Trial, died
from . import slurm_queue as queue
from .slurm_job import read_outcome, write_trial
from .slurm_script import has_objects, sbatch_options, script

_UNBOUNDED = 1_000_000  # Slurm itself starts as many at once as `jobs` lets it.
_LOOK_S = 0.5  # How often the files of the runs are looked at,
_ASK_S = (2.0, 30.0)  # and Slurm is asked: soon after something happened, then ever less often.
# What a node wrote may be seen later here, on a network file system: only the second look counts.
_LOOKS = 2
# What ends a job without being the fault of its run.
_OF_THE_CLUSTER = ("PREEMPTED", "NODE_FAIL", "BOOT_FAIL")


class _Place(NamedTuple):
    """A task of a submission."""

    submission: str
    index: int


class Slurm:
    """Submits trials as the tasks of an array, and waits for them.

    Everything that matters is in Slurm's queue and in files, so that a driver that is started again finds
    the tasks of the previous one, and does not submit them twice. Below the sweep's folder, `slurm/0`,
    `slurm/1`, ... hold a submission each: its script, what its tasks printed, and how they ended.

    Args:
        jobs: How many tasks may run at once; None: as many as Slurm lets.
        folder: The sweep's folder, absolute.
        options: Of `sbatch`, as typed.

    Raises:
        ConfigError: If there is no Slurm here, or it does not know an option.
    """

    slots = _UNBOUNDED

    def __init__(self, *, jobs: int | None, folder: Path, options: Mapping[str, str]):
        try:
            self._options = sbatch_options(options, queue.known_options())
            self._largest = queue.largest_array()
        except FileNotFoundError as error:
            raise ConfigError(
                "engine=slurm needs Slurm's sbatch, which this machine does not have. Start the sweep where "
                "you submit jobs, or add slurm.print=true to only print the script."
            ) from error
        except queue.NoAnswer as error:
            raise ConfigError(f"engine=slurm: Slurm does not answer ({error}).") from error
        self._jobs, self._files = jobs, folder / "slurm"
        self._name = _job_name(self._options, folder)
        # Before anything else is touched: would it take such a job?
        alone = Trial((), folder, {}, Path.cwd())
        queue.check(script([alone], files=self._files, jobs=jobs, options=self._options))
        self._queued: list[Trial] = []
        self._at: dict[_Place, Trial] = {}
        self._submitted: set[str] = set()
        self._deaths: Counter[Path] = Counter()
        self._missed: Counter[_Place] = Counter()
        self._told: set[str] = set()
        self._pause, self._asked = _ASK_S[0], time.monotonic()

    def start(self, trial: Trial) -> None:
        """Queue a trial for the next submission."""
        self._queued.append(trial)

    def wait(self) -> tuple[Trial, Outcome]:
        """Submit what is queued as one array, and wait until a trial has ended."""
        while True:
            if self._queued:
                self._submit_queued()
            for place in self._at:
                outcome = read_outcome(self._files / place.submission, place.index)
                # One that was stopped may be in the queue again: only Slurm knows.
                if outcome is not None and outcome.status != "interrupted":
                    return self._ended(place, outcome)
            if time.monotonic() - self._asked >= self._pause:
                for place, task in self._left():
                    if outcome := self._again(place, task):
                        return self._ended(place, outcome)
            time.sleep(_LOOK_S)

    def close(self, *, cancel: bool) -> None:
        """Cancel the trials that have not ended, if asked to; they save first."""
        self._queued.clear()
        if not cancel:
            return
        try:
            queue.cancel([task.job for task in self._ours().values()])
            while self._ours():
                time.sleep(_LOOK_S)
        except queue.NoAnswer as error:
            write_error(f"The jobs may still be running: {error}. squeue --me lists them.")

    def _ended(self, place: _Place, outcome: Outcome) -> tuple[Trial, Outcome]:
        self._pause = _ASK_S[0]
        return self._at.pop(place), outcome

    def _left(self) -> list[tuple[_Place, queue.Task | None]]:
        """The trials whose tasks have left the queue, each with its task if Slurm still remembers it."""
        self._pause = min(2 * self._pause, _ASK_S[1])
        try:
            found = self._tasks()
        except queue.NoAnswer as error:
            # It says nothing about the jobs, which go on without it.
            self._tell(f"Slurm does not answer ({error}). The sweep keeps waiting.")
            return []
        finally:
            self._asked = time.monotonic()
        left: list[tuple[_Place, queue.Task | None]] = []
        for place, trial in self._at.items():
            task = found.get(place)
            if task is not None and task.alive:
                self._missed.pop(place, None)
                if task.held:
                    self._tell(f"Slurm holds {trial.name} (job {task.job}): {task.why}.")
                continue
            self._missed[place] += 1
            self._pause = _ASK_S[0]
            if self._missed[place] >= _LOOKS:
                left.append((place, task))
        return left

    def _again(self, place: _Place, task: queue.Task | None) -> Outcome | None:
        """Queue a trial again whose task ended before its run did; its outcome if it is not to be."""
        trial, state = self._at[place], task.state if task else "job gone"
        outcome = read_outcome(self._files / place.submission, place.index)
        if outcome is not None and (outcome.status != "interrupted" or task is None):
            return outcome
        if state == "CANCELLED":  # By somebody; the other runs go on.
            found = read_status(trial.path)
            metrics = {} if found is None else found.metrics
            return Outcome("failed", metrics, "its Slurm job was cancelled", 128 + signal.SIGTERM)
        out_of_time = outcome is not None and outcome.exit_code == 128 + signal.SIGHUP
        if not out_of_time and state not in _OF_THE_CLUSTER:
            self._deaths[trial.path] += 1
        if self._deaths[trial.path] >= DIED_OFTEN:
            printed = self._files / place.submission / f"{place.index}.out"
            return died(f"{state.lower().replace('_', ' ')}; see {printed}")
        self._missed.pop(place, None)
        try:
            if task is None:
                raise queue.NoAnswer(state)
            queue.requeue(task.job)  # As a task of the same array, whose limit counts it.
        except queue.NoAnswer:
            self._queued.append(self._at.pop(place))
        return None

    def _submit_queued(self) -> None:
        first = not self._at
        try:
            self._adopt()
            after = ""
            while self._queued:
                job = self._submit(self._queued[: self._largest], after)
                # Arrays have a limit each, so that the next one waits if there is one.
                after = job if self._jobs else ""
        except (queue.NoAnswer, ConfigError) as error:
            if first:
                raise ConfigError(str(error)) from error
            self._tell(f"{error} The sweep tries again.")
            time.sleep(self._pause)

    def _adopt(self) -> None:
        """Wait for the tasks that an earlier driver submitted, instead of submitting them again."""
        queued = {trial.path: trial for trial in self._queued}
        for place, task in self._tasks().items():
            if place in self._at or not task.alive:
                continue
            path, words = _words_at(self._files / place.submission, place.index)
            trial = queued.get(path)
            if trial is None:
                continue
            if words != list(trial.words):
                raise ConfigError(
                    f"Job {task.job} of an earlier sweep still writes to {trial.path}, with other words: "
                    f"{' '.join(words)}. Wait for it, or end it with scancel {task.job}."
                )
            self._at[place] = trial
            self._queued.remove(trial)
            self._tell(f"{trial.name} is in Slurm's queue already (job {task.job}).")

    def _submit(self, trials: Sequence[Trial], after: str) -> str:
        """Submit trials as one array, which starts when the job `after` has ended; the job's number."""
        files = _new_folder(self._files)
        options = self._options | {"job-name": f"{self._name}-{files.name}"}
        if after:
            earlier = options.get("dependency")
            options["dependency"] = (
                f"{earlier},afterany:{after}" if earlier else f"afterany:{after}"
            )
        text = script(trials, files=files, jobs=self._jobs, options=options)
        _write(files, trials, text)
        self._submitted.add(files.name)
        job = self._job_of(files.name, text)
        self._at |= {_Place(files.name, index): trial for index, trial in enumerate(trials)}
        del self._queued[: len(trials)]
        self._asked = time.monotonic()
        write_error(f"Job {job}: {len(trials)} runs, with what they print in {files}")
        return job

    def _job_of(self, submission: str, text: str) -> str:
        try:
            return queue.submit(text)
        except ConfigError:
            # A busy controller may have taken the job, and been too late to say so.
            for place, task in self._tasks().items():
                if place.submission == submission:
                    return task.job.partition("_")[0]
            raise

    def _tasks(self) -> dict[_Place, queue.Task]:
        """The tasks of all sweeps in this folder, those that ended minutes ago too."""
        found = queue.tasks(self._name)
        return {_Place(task.name.rpartition("-")[2], task.index): task for task in found}

    def _ours(self) -> dict[_Place, queue.Task]:
        """The tasks of this sweep that run, or will."""
        return {
            place: task
            for place, task in self._tasks().items()
            if task.alive and (place in self._at or place.submission in self._submitted)
        }

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            write_error(text)


def print_script(
    trials: Sequence[Trial], *, jobs: int | None, folder: Path, options: Mapping[str, str]
) -> None:
    """Print the script that `engine=slurm` would submit for these trials; nothing is written or submitted.

    Raises:
        ConfigError: If an option is unknown, or the trials need more than words.
    """
    if any(has_objects(trial) for trial in trials):
        raise ConfigError(
            "slurm.print=true prints words: it needs a console sweep without search=."
        )
    try:
        known = queue.known_options()
    except (FileNotFoundError, queue.NoAnswer):
        known = None  # To be submitted elsewhere.
    chosen = sbatch_options(options, known)
    files = folder / "slurm" / "printed"
    chosen["job-name"] = f"{_job_name(chosen, folder)}-printed"
    print(script(trials, files=files, jobs=jobs, options=chosen), end="")
    write_error(f"Before you submit it: mkdir -p {shlex.quote(str(files))}")


def _job_name(options: Mapping[str, str | None], folder: Path) -> str:
    """What the jobs of this folder's sweeps are called, without the number of the submission."""
    place = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]
    return f"{options.get('job-name') or 'antelope'}-{place}"


def _new_folder(parent: Path) -> Path:
    """An empty folder called by the lowest number that is free; another driver gets another one."""
    parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count():
        with contextlib.suppress(FileExistsError):
            (parent / str(number)).mkdir()
            return parent / str(number)
    raise AssertionError("There is always another number.")


def _write(files: Path, trials: Sequence[Trial], text: str) -> None:
    """Keep what was submitted: for the tasks, for the next driver, and for readers."""
    with replacing(files / "job.sh") as file:
        file.write(text)
    with replacing(files / "trials.json") as file:
        json.dump([[str(trial.path), *trial.words] for trial in trials], file, indent=1)
    for index, trial in enumerate(trials):
        if has_objects(trial):
            write_trial(files, index, trial)


def _words_at(files: Path, index: int) -> tuple[Path | None, list[str]]:
    """The run directory and the words of a task that was submitted; (None, []) if they cannot be read."""
    try:
        path, *words = json.loads(read_text(files / "trials.json"))[index]
    except (OSError, ValueError, LookupError, TypeError):
        return None, []
    return Path(path), words
