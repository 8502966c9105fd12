"""`engine=here`: one trial after another, in this process."""

from __future__ import annotations

from collections import deque

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
        """Run the next trial."""
        trial = self._queue.popleft()
        return trial, run_trial(trial)

    def close(self, *, cancel: bool) -> None:
        """Nothing is left to release: a signal ends the trial that is running."""
        self._queue.clear()
