"""What a task of a Slurm array runs: one trial. Its last words are a file that says how it ended."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path

from ....replay.files import open_regular, read_text, replacing
from ..trial import Outcome, Trial, run_trial
from . import slurm_queue as queue
from .slurm_script import OBJECTS


def main(argv: list[str]) -> int:
    """Run the trial of this task, and write its outcome.

    Args:
        argv: The submission's folder, the run directory, and the run's words.

    Returns:
        The exit code, as `ml` has it for the run alone.
    """
    from ...settings.import_path import begin_command

    begin_command()
    files, path, *words = argv
    index = int(os.environ["SLURM_ARRAY_TASK_ID"])
    ended = _outcome_file(Path(files), index)
    ended.unlink(missing_ok=True)  # Of a task that was queued again.
    if words == [OBJECTS]:
        trial = _read_trial(Path(files), index)
    else:
        trial = Trial(tuple(words), Path(path), {}, Path.cwd())
    before = _step(trial.path)
    outcome = run_trial(trial)
    if outcome.exit_code == 128 + signal.SIGHUP:
        if _step(trial.path) == before:
            outcome = Outcome("failed", outcome.metrics, _TOO_SHORT, 1)
        elif _queued_again():
            return outcome.exit_code
    with replacing(ended) as file:
        json.dump(dataclasses.asdict(outcome), file)
    return outcome.exit_code


_TOO_SHORT = "Not one step was learnt before the job's time limit. Set a longer slurm.time."


def read_outcome(files: Path, index: int) -> Outcome | None:
    """How a task ended; None: it has not ended, or could not say."""
    try:
        return Outcome(**json.loads(read_text(_outcome_file(files, index))))
    except (OSError, ValueError, TypeError):
        return None


def write_trial(files: Path, index: int, trial: Trial) -> None:
    """Keep a trial with Python objects for its task."""
    import cloudpickle

    with replacing(_trial_file(files, index), "wb") as file:
        cloudpickle.dump(trial, file)


def _read_trial(files: Path, index: int) -> Trial:
    """The trial that the sweep's own driver wrote for this task."""
    import pickle

    with open_regular(_trial_file(files, index)) as file:
        trial: Trial = pickle.load(file)
    return trial


def _outcome_file(files: Path, index: int) -> Path:
    return files / f"{index}.json"


def _trial_file(files: Path, index: int) -> Path:
    return files / f"{index}.pickle"


def _step(path: Path) -> int | None:
    """How far a run has come; None if it has not begun."""
    try:
        return int(json.loads(read_text(path / "status.json"))["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _queued_again() -> bool:
    """Queue this task again, since its time limit is near; Slurm then sends us SIGTERM."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        queue.requeue(os.environ["SLURM_JOB_ID"])
    except (OSError, queue.NoAnswer) as error:
        print(f"Slurm did not queue the run again: {error}", file=sys.stderr)
        signal.signal(signal.SIGTERM, before)
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
