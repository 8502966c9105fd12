"""`engine=here`: one trial after another, in this process."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from ..checks import own_copy
from ..trial import Outcome, Trial, run_trial


class Here:
    """Runs trials in this process, in order."""

    slots = 1

    def __init__(self) -> None:
        self._queue: deque[Trial] = deque()

    def start(self, trial: Trial) -> None:
        """Queue a trial."""
        self._queue.append(trial)

    def wait(self) -> tuple[Trial, Outcome]:
        """Run the next trial, with objects of its own: one run must not go on with another's weights."""
        trial = self._queue.popleft()
        objects = {key: own_copy(key, value) for key, value in trial.settings.items()}
        return trial, run_trial(replace(trial, settings=objects))

    def close(self, *, cancel: bool) -> None:
        """Nothing is left to release: a signal ends the trial that is running."""
        self._queue.clear()
