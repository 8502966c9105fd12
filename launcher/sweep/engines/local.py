"""`jobs=N`: the cores of this machine, by workers that stay, so that each imports torch only once."""

from __future__ import annotations

import atexit
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

from ....replay.errors import ConfigError
from ..trial import DIED_OFTEN, Outcome, Trial, died, run_trial

# Several workers with all cores each would only wait for each other. What the user sets stays.
_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_NOT_A_LINK = vars(os).get("O_NOFOLLOW", 0)
_HANGUP = vars(signal).get("SIGHUP", signal.SIGTERM)  # Windows has none.
_WARNS = "PYTHONWARNINGS"
_SAFE, _OURS = "PYTHONSAFEPATH", "antelope"  # Any value works; this one says that we have set it.
_PARENT_S = 0.5  # How often a worker looks whether its driver is still there, in seconds.


class Local:
    """Runs trials in kept workers of this machine: one pool of one process each, so that one that dies
    costs its own trial only.

    Args:
        jobs: Number of workers; None: one for each core that this process may use.
    """

    def __init__(self, jobs: int | None):
        from loky import cpu_count  # What a container is allowed to use.

        self.slots: int = jobs or cpu_count()
        self._made = 0
        self._queue: deque[Trial] = deque()
        self._idle: list[Any] = []
        self._running: dict[Future[Outcome], tuple[Trial, Any]] = {}
        self._deaths: Counter[str] = Counter()

    def call(self, work: Callable[..., None], *arguments: object) -> None:
        """Do something in a worker, which has to import torch anyway, and raise what it raises."""
        worker = self._worker()
        try:
            worker.submit(work, *arguments).result()
        except BrokenProcessPool as error:
            raise ConfigError(
                f"The process that looked up the names of this sweep died ({_killer(error)})."
            ) from error
        finally:
            self._idle.append(worker)

    def start(self, trial: Trial) -> None:
        """Run a trial as soon as there is a worker for it."""
        self._queue.append(trial)
        self._fill()

    def _fill(self) -> None:
        while self._queue and len(self._running) < self.slots:
            trial = self._queue.popleft()
            worker = self._idle.pop() if self._idle else self._worker()
            try:
                self._running[worker.submit(_run, trial)] = trial, worker
            except BrokenProcessPool:  # It was killed while it had nothing to do.
                self._queue.appendleft(trial)

    def _worker(self) -> Any:
        self._made += 1
        return _worker(self._made - 1)

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
            return Outcome("interrupted", {}, _killer(error), 1)
        except Exception as error:  # Its objects do not arrive there.
            outcome = Outcome(
                "failed", {}, f"{type(error).__name__}: {error}".partition("\n")[0], 1
            )
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


def _worker(number: int) -> Any:
    from multiprocessing import resource_tracker

    from loky.backend.resource_tracker import ensure_running
    from loky.process_executor import ProcessPoolExecutor

    # A terminal that is closed ends all of its processes; this one of loky's must see the others end.
    before = signal.signal(_HANGUP, signal.SIG_IGN) if _in_main() else None
    # Python itself would import its modules from the working directory, where anybody's may lie.
    safe = {} if _SAFE in os.environ else {_SAFE: _OURS}
    # What a driver that is killed leaves, the trackers remove: that is no leak to warn of.
    quiet = ",".join(filter(None, (os.environ.get(_WARNS), "ignore:resource_tracker")))
    with _environment(safe | {_WARNS: quiet}):
        ensure_running()
        resource_tracker.ensure_running()
    if before is not None:
        signal.signal(_HANGUP, before)
    env = safe | {name: "1" for name in _ONE_THREAD if name not in os.environ}
    return ProcessPoolExecutor(1, initializer=_begin, initargs=(os.getpid(), number), env=env)


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Run the block with these variables of the environment."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _in_main() -> bool:
    return threading.current_thread() is threading.main_thread()


def _killer(error: BrokenProcessPool) -> str:
    killed = re.search(r"(SIG\w+)\(", str(error))
    return f"killed by {killed[1]}" if killed else "it exited"


def _begin(driver: int, number: int) -> None:
    """Prepare a worker: Ctrl-C reaches the driver alone, and a worker does not outlive its driver."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(_HANGUP, signal.SIG_IGN)
    if os.environ.get(_SAFE) == _OURS:  # Not for programs that a run starts.
        del os.environ[_SAFE]
    gpus = len(list(Path("/dev").glob("nvidia[0-9]*")))
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        gpus = len(visible.split(","))
    if gpus > 1:  # One after another, as workers are made.
        os.environ.setdefault("ANTELOPE_DEVICE", f"cuda:{number % gpus}")
    threading.Thread(target=_follow, args=(driver,), daemon=True).start()
    atexit.register(_leave)


def _leave() -> None:
    """End at once: taking an interpreter with torch apart costs as much as a short run."""
    _flush()
    os._exit(0)


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
    log = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND | _NOT_A_LINK, 0o644)
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
