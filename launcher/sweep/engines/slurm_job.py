"""What a task of a Slurm array runs: one trial. Its last words are a file that says how it ended."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import signal
import sys
from pathlib import Path

from ....replay.files import open_regular, read_text, replacing
from ...pictures.status import read_status
from ...record.output import write_error
from ...settings.import_path import begin_command
from ..trial import Outcome, Trial, run_trial
from .slurm_queue import NoAnswer, ask
from .slurm_script import OBJECTS

OUT_OF_TIME = 128 + signal.SIGHUP
"""Exit code of a run that was told that its time limit is near."""


def main(argv: list[str]) -> int:
    """Run the trial of this task, and write its outcome; the exit code is that of `ml` for the run alone.

    Args:
        argv: The submission's folder, the run directory, and the run's words.
    """
    begin_command()
    files, path, *words = argv
    ended = Path(files, os.environ["SLURM_ARRAY_TASK_ID"] + ".json")
    ended.unlink(missing_ok=True)  # Of a task that was queued again.
    trial = Trial(tuple(words), Path(path), {}, Path.cwd())
    if words == [OBJECTS]:
        with open_regular(ended.with_suffix(".pickle")) as file:
            trial = pickle.load(file)
    before = _step(trial)
    outcome = run_trial(trial)
    if outcome.exit_code == OUT_OF_TIME:
        if _step(trial) == before:
            why = "Not one step was learnt before the job's time limit. Set a longer slurm.time."
            outcome = Outcome("failed", outcome.metrics, why, 1)
        elif _queued_again():
            return OUT_OF_TIME
    with replacing(ended) as file:
        json.dump(dataclasses.asdict(outcome), file)
    return outcome.exit_code


def read_outcome(files: Path, index: int) -> Outcome | None:
    """How a task ended; None: it has not ended, or could not say."""
    try:
        return Outcome(**json.loads(read_text(files / f"{index}.json")))
    except (OSError, ValueError, TypeError):
        return None


def _step(trial: Trial) -> int:
    found = read_status(trial.path)
    return 0 if found is None else found.step


def _queued_again() -> bool:
    """Queue this task again. Slurm then sends us SIGTERM, which must not cut the exit short."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        ask("scontrol", "requeue", os.environ["SLURM_JOB_ID"])
    except (OSError, NoAnswer) as error:
        write_error(f"Slurm did not queue the run again: {error}")
        signal.signal(signal.SIGTERM, before)
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
