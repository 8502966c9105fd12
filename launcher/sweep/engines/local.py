"""`jobs=N`: the cores of this machine, by workers that stay, so that each imports torch only once."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future
from concurrent.futures import wait as wait_for
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from ..trial import DIED_OFTEN, Outcome, Trial, died, run_trial

# Several workers with all cores each would only wait for each other. What the user sets stays.
_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_PARENT_S = 0.5  # How often a worker looks whether its driver is still there, in seconds.


class Local:
    """Runs trials in kept workers of this machine: one pool of one process each, so that one that dies
    costs its own trial only.

    Args:
        jobs: Number of workers; None: one for each core that this process may use.
    """

    def __init__(self, jobs: int | None):
        self.slots = jobs or len(os.sched_getaffinity(0))
        self._queue: deque[Trial] = deque()
        self._idle: list[Any] = []
        self._running: dict[Future[Outcome], tuple[Trial, Any]] = {}
        self._deaths: Counter[str] = Counter()

    def call(self, work: Callable[..., None], *arguments: object) -> None:
        """Do something in a worker, which has to import torch anyway, and raise what it raises."""
        worker = self._idle.pop() if self._idle else _worker()
        self._idle.append(worker)
        worker.submit(work, *arguments).result()

    def start(self, trial: Trial) -> None:
        """Run a trial as soon as there is a worker for it."""
        self._queue.append(trial)
        self._fill()

    def _fill(self) -> None:
        while self._queue and len(self._running) < self.slots:
            trial = self._queue.popleft()
            worker = self._idle.pop() if self._idle else _worker()
            self._running[worker.submit(_run, trial)] = trial, worker

    def wait(self) -> tuple[Trial, Outcome]:
        """Wait for a trial to end. Those whose worker died, or was asked to stop, start again."""
        while True:
            self._fill()
            done, _ = wait_for(self._running, return_when=FIRST_COMPLETED)
            future = done.pop()
            trial, worker = self._running.pop(future)
            outcome = self._outcome(future, worker)
            if outcome.status != "interrupted":
                return trial, outcome
            self._deaths[str(trial.path)] += 1
            if self._deaths[str(trial.path)] == DIED_OFTEN:
                return trial, died(outcome.reason)
            self._queue.appendleft(trial)

    def _outcome(self, future: Future[Outcome], worker: Any) -> Outcome:
        """How a trial ended; "interrupted" if its worker died, which is replaced then."""
        try:
            outcome = future.result()
        except BrokenProcessPool as error:
            worker.shutdown(wait=False, kill_workers=True)
            killed = re.search(r"(SIG\w+)\(", str(error))
            reason = f"killed by {killed[1]}" if killed else "it exited"
            return Outcome("interrupted", {}, reason, 1)
        self._idle.append(worker)
        return outcome

    def close(self, *, cancel: bool) -> None:
        """End the workers, those with a trial after it was saved."""
        self._queue.clear()
        try:
            for _, worker in self._running.values():
                for pid in list(worker._processes):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGTERM)
            wait_for(self._running)
        finally:  # A second Ctrl-C does not wait for them.
            for worker in [*self._idle, *(worker for _, worker in self._running.values())]:
                worker.shutdown(wait=True, kill_workers=cancel)
            self._idle, self._running = [], {}


def _worker() -> Any:
    from loky.process_executor import ProcessPoolExecutor

    env = {name: "1" for name in _ONE_THREAD if name not in os.environ}
    return ProcessPoolExecutor(1, initializer=_begin, initargs=(os.getpid(),), env=env)


def _begin(driver: int) -> None:
    """Prepare a worker: Ctrl-C reaches the driver alone, and a worker does not outlive its driver."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, args=(driver,), daemon=True).start()


def _follow(driver: int) -> None:
    while os.getppid() == driver:
        time.sleep(_PARENT_S)
    os.kill(os.getpid(), signal.SIGTERM)  # Ends an idle worker; a run saves first.
    while _RUNNING:
        time.sleep(_PARENT_S)
    os._exit(128 + signal.SIGTERM)


_RUNNING: list[Trial] = []


def _run(trial: Trial) -> Outcome:
    """Run a trial whose output goes to `output.log` in its directory."""
    _RUNNING.append(trial)
    try:
        with output_to(trial):
            return run_trial(trial)
    finally:
        _RUNNING.clear()


@contextlib.contextmanager
def output_to(trial: Trial) -> Iterator[None]:
    _flush()
    # Not through links, which are refused where they lead a run's files elsewhere.
    place = Path(os.devnull) if trial.path.is_symlink() else trial.path / "output.log"
    place.parent.mkdir(parents=True, exist_ok=True)
    kept = os.dup(1), os.dup(2)
    log = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
    try:
        os.dup2(log, 1)
        os.dup2(log, 2)
        yield
    finally:
        _flush()
        os.dup2(kept[0], 1)
        os.dup2(kept[1], 2)
        for descriptor in (*kept, log):
            os.close(descriptor)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
