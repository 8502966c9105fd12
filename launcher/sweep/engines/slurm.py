"""`engine=slurm`: one array of Slurm's, whose tasks are the runs."""

from __future__ import annotations

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
from ...settings.values import is_true
from ..trial import DIED_OFTEN, Outcome, Trial, died
from . import slurm_queue as queue
from .slurm_job import OUT_OF_TIME, read_outcome
from .slurm_script import has_objects, sbatch_options, script

_LOOK_S = 0.5  # How often the files of the runs are looked at,
_ASK_S = (2.0, 30.0)  # and Slurm is asked: soon after something happened, then ever less often.


class _Place(NamedTuple):
    """A task of a submission."""

    files: Path
    number: int


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
        ConfigError: If there is no Slurm here, or it refuses such jobs.
    """

    slots = 1_000_000  # Slurm itself starts as many at once as `jobs` lets it.

    def __init__(self, *, jobs: int | None, folder: Path, options: Mapping[str, str]):
        self._jobs, self._folder = jobs, folder / "slurm"
        self._name, self._options = _named(options, folder)
        self._queued: list[Trial] = []
        self._at: dict[_Place, Trial] = {}
        self._deaths: Counter[Path] = Counter()
        self._told: set[str] = set()
        self._pause, self._asked = _ASK_S[0], time.monotonic()
        if is_true(options.get("print", "false")):
            raise ConfigError(
                "slurm.print=true belongs to `ml -m`, which prints the script and ends."
            )
        alone = Trial((), folder, {}, Path.cwd())
        text = script([alone], files=self._folder, jobs=jobs, options=self._options)
        try:
            queue.ask("sbatch", "--test-only", script=text)
        except FileNotFoundError as error:
            raise ConfigError(
                "engine=slurm needs Slurm's sbatch, which this machine does not have. Start the sweep where "
                "you submit jobs, or add slurm.print=true to only print the script."
            ) from error
        except queue.NoAnswer as error:
            raise ConfigError(f"sbatch refuses such jobs: {error}.") from error

    def start(self, trial: Trial) -> None:
        """Queue a trial for the next submission."""
        self._queued.append(trial)

    def wait(self) -> tuple[Trial, Outcome]:
        """Submit what is queued as one array, and wait until a trial has ended."""
        while True:
            if self._queued:
                self._submit()
            for place in self._at:
                outcome = read_outcome(*place)
                # One that was stopped may be in the queue again: only Slurm knows.
                if outcome is not None and outcome.status != "interrupted":
                    return self._ended(place, outcome)
            if time.monotonic() - self._asked >= self._pause:
                for place, task in self._left():
                    if outcome := self._again(place, task):
                        return self._ended(place, outcome)
            time.sleep(_LOOK_S)

    def close(self, *, cancel: bool) -> None:
        """Cancel the trials that have not ended, if asked to; they save first. Else they go on."""
        if self._at and not cancel:
            write_error(f"Still in Slurm's queue: {_runs(len(self._at))}.")
        try:
            while cancel and (left := [t.job for p, t in self._alive().items() if p in self._at]):
                queue.ask("scancel", *left)
                time.sleep(_LOOK_S)
        except queue.NoAnswer as error:
            write_error(f"Jobs may still be running ({error}). squeue --me lists them.")

    def _ended(self, place: _Place, outcome: Outcome) -> tuple[Trial, Outcome]:
        self._pause = _ASK_S[0]
        return self._at.pop(place), outcome

    def _left(self) -> list[tuple[_Place, queue.Task | None]]:
        """The trials whose tasks have ended, each with its task if Slurm still remembers it."""
        self._pause, self._asked = min(2 * self._pause, _ASK_S[1]), time.monotonic()
        try:
            found = self._tasks()
        except queue.NoAnswer as error:  # The jobs go on without it.
            self._tell(f"Slurm does not answer ({error}). The sweep keeps waiting.")
            return []
        for place, trial in self._at.items():
            if (task := found.get(place)) and "held" in task.why.lower():
                self._tell(f"Slurm holds {trial.name} (job {task.job}): {task.why}.")
        left = [(place, found.get(place)) for place in self._at]
        return [(place, task) for place, task in left if task is None or not task.alive]

    def _again(self, place: _Place, task: queue.Task | None) -> Outcome | None:
        """Queue a trial again whose task ended before its run did; its outcome if it is not to be."""
        trial, state = self._at[place], task.state if task else "job gone"
        outcome = read_outcome(*place)
        if outcome is not None and outcome.status != "interrupted":
            return outcome
        if state == "CANCELLED":  # By somebody; the other runs go on.
            found = read_status(trial.path)
            metrics = {} if found is None else found.metrics
            return Outcome("failed", metrics, "its Slurm job was cancelled", 128 + signal.SIGTERM)
        out_of_time = outcome is not None and outcome.exit_code == OUT_OF_TIME
        if not out_of_time and state not in ("PREEMPTED", "NODE_FAIL", "BOOT_FAIL"):
            self._deaths[trial.path] += 1
        if self._deaths[trial.path] >= DIED_OFTEN:
            said = place.files / f"{place.number}.out"
            return died(f"{state.lower().replace('_', ' ')}; see {said}")
        try:
            if task is None:
                raise queue.NoAnswer(state)
            queue.ask("scontrol", "requeue", task.job)  # In its array, whose limit counts it.
        except queue.NoAnswer:
            self._queued.append(self._at.pop(place))
        return None

    def _submit(self) -> None:
        first = not self._at
        try:
            self._adopt()
            if self._queued:
                self._submit_array()
        except queue.NoAnswer as error:
            if first:
                raise ConfigError(f"sbatch refuses the sweep: {error}.") from error
            self._tell(f"sbatch refuses runs that died: {error}. The sweep tries again.")
            time.sleep(self._pause)

    def _submit_array(self) -> None:
        files = _new_folder(self._folder)
        options = self._options | {"job-name": f"{self._name}-{files.name}"}
        text = script(self._queued, files=files, jobs=self._jobs, options=options)
        with replacing(files / "job.sh") as file:
            file.write(text)
        with replacing(files / "trials.json") as file:
            json.dump([[str(trial.path), *trial.words] for trial in self._queued], file, indent=1)
        for index, trial in enumerate(self._queued):
            if has_objects(trial):
                import cloudpickle

                with replacing(files / f"{index}.pickle", "wb") as file:
                    cloudpickle.dump(trial, file)
        job = queue.ask("sbatch", "--parsable", script=text).strip()
        self._at |= {_Place(files, index): trial for index, trial in enumerate(self._queued)}
        write_error(f"Job {job}: {_runs(len(self._queued))}, with output in {files}")
        self._queued, self._asked = [], time.monotonic()

    def _adopt(self) -> None:
        """Wait for the tasks that an earlier driver submitted, instead of submitting them again."""
        for place, task in self._alive().items():
            try:
                path, *words = json.loads(read_text(place.files / "trials.json"))[place.number]
            except (OSError, ValueError, LookupError, TypeError):
                continue
            found = [trial for trial in self._queued if str(trial.path) == path]
            if place in self._at or not found:
                continue
            if words != list(found[0].words):
                raise ConfigError(
                    f"Job {task.job} of an earlier sweep still writes to {path}, with other words: "
                    f"{' '.join(words)}. Wait for it, or end it with scancel {task.job}."
                )
            self._at[place] = found[0]
            self._queued.remove(found[0])
            self._tell(f"{found[0].name} is in Slurm's queue already (job {task.job}).")

    def _alive(self) -> dict[_Place, queue.Task]:
        return {place: task for place, task in self._tasks().items() if task.alive}

    def _tasks(self) -> dict[_Place, queue.Task]:
        """The tasks of all sweeps in this folder, those that ended minutes ago too."""
        found = queue.tasks(self._name)
        return {_Place(self._folder / t.name.rpartition("-")[2], t.number): t for t in found}

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            write_error(text)


def print_script(
    trials: Sequence[Trial], *, jobs: int | None, folder: Path, options: Mapping[str, str]
) -> None:
    """Print the script that `engine=slurm` would submit; nothing is written, submitted or checked by Slurm.

    Raises:
        ConfigError: If an option is the sweep's own.
    """
    name, chosen = _named(options, folder)
    files = folder / "slurm" / "printed"
    chosen["job-name"] = f"{name}-printed"
    print(script(trials, files=files, jobs=jobs, options=chosen), end="")
    write_error(f"Before you submit it: mkdir -p {shlex.quote(str(files))}")


def _named(options: Mapping[str, str], folder: Path) -> tuple[str, dict[str, str | None]]:
    """What the jobs of this folder are called, without the submission's number; and sbatch's options."""
    chosen = sbatch_options({key: value for key, value in options.items() if key != "print"})
    place = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]
    return f"{chosen.get('job-name') or 'antelope'}-{place}", chosen


def _runs(count: int) -> str:
    return f"{count} run{'s' * (count != 1)}"


def _new_folder(parent: Path) -> Path:
    """An empty folder called by the lowest number that is free; another driver gets another one."""
    parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count():
        try:
            (parent / str(number)).mkdir()
        except FileExistsError:
            continue
        return parent / str(number)
    raise AssertionError("There is always another number.")
