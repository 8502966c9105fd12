"""`engine=ray`: Ray's tasks, on the cluster that RAY_ADDRESS names, or on a Ray of this machine alone."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future
from concurrent.futures import wait as wait_for
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from ....replay.errors import ConfigError
from ...pictures.status import is_held
from ...settings.compose import compose
from ..trial import DIED_OFTEN, Outcome, Trial, died, run_trial
from .local import output_to

# Variables that the nodes of a cluster do not have.
_FROM_HERE = ("ANTELOPE_DATA", "ANTELOPE_DEVICE")
_REACH_S = 10.0  # How long a cluster may take to answer, in seconds.
_LOOK_S = 10.0  # How often it is looked whether Ray itself is alive, in seconds.
# A process that its node has lost ends a moment after the trial was given to another.
_PATIENCE_S, _HELD_S = 60.0, 0.5


class Ray:
    """Runs trials as tasks of Ray, which starts one again elsewhere if its process or node died.

    Args:
        jobs: How many trials may run at once; None: as many as the CPUs, or GPUs, of Ray's nodes allow.
        folder: The sweep's folder, which all nodes must see; absolute.

    Raises:
        ConfigError: If Ray is not installed, cannot be reached, or has a node that does not see the folder.
    """

    def __init__(self, jobs: int | None, folder: Path) -> None:
        self._jobs, self._deaths = jobs, 0
        self._queue: deque[Trial] = deque()
        self._running: dict[Future[Outcome], tuple[Trial, Any]] = {}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Read when Ray is imported.
        try:
            import ray
        except ImportError as error:
            raise ConfigError("engine=ray needs Ray: pip install 'antelope-ml[ray]'.") from error
        self._ray: Any = ray
        self._address = "" if ray.is_initialized() else os.environ.get("RAY_ADDRESS") or "local"
        if self._address:  # Otherwise Ray is the caller's, and stays.
            _connect(ray, self._address, jobs)
        try:
            if self._address != "local":
                _check_nodes(ray, folder)
        except BaseException:
            self.close(cancel=False)
            raise

    @property
    def slots(self) -> int:
        """How many trials may run at once; nodes may come and go."""
        there = self._ray.cluster_resources()
        return self._jobs or max(1, int(there.get("GPU") or there.get("CPU", 1)))

    def start(self, trial: Trial) -> None:
        """Hand a trial to Ray, or queue it while as many as asked for are running."""
        self._queue.append(trial)
        self._fill()

    def _fill(self) -> None:
        while self._queue and (self._jobs is None or len(self._running) < self._jobs):
            trial = self._queue[0]
            work = self._ray.remote(
                max_retries=DIED_OFTEN - 1, retry_exceptions=[Stopped], **self._share(trial)
            )(_work)
            task = work.remote(trial)
            self._running[task.future()] = trial, task
            self._queue.popleft()

    def wait(self) -> tuple[Trial, Outcome]:
        """Wait until one of the trials has ended."""
        lost = self._ray.exceptions.LocalRayletDiedError
        while True:
            self._fill()
            # Not `ray.wait`, which turns the exception of a signal's handler into one of its own.
            done, _ = wait_for(self._running, timeout=_LOOK_S, return_when=FIRST_COMPLETED)
            try:
                for task in done:
                    outcome = self._outcome(task)
                    trial, _ = self._running.pop(task)
                    return trial, outcome
                if self._address == "local" and not self._nodes():
                    raise lost
            except lost:
                self._restart()

    def _outcome(self, task: Future[Outcome]) -> Outcome:
        errors = self._ray.exceptions
        try:
            return task.result()
        except errors.LocalRayletDiedError:
            raise
        except errors.RayTaskError as error:
            if isinstance(error.cause, Stopped):
                return died(error.cause.outcome.reason)
            return Outcome("failed", {}, _first_line(error.cause), 1)
        except errors.RayError as error:
            return died(_first_line(error))

    def close(self, *, cancel: bool) -> None:
        """Leave Ray, and end it if it was started for this sweep."""
        self._queue.clear()
        try:
            if cancel:
                for _, task in self._running.values():
                    self._ray.cancel(task)
                wait_for(self._running)
        finally:  # A second Ctrl-C does not wait for them.
            self._running.clear()
            if self._address:
                self._ray.shutdown()

    def _nodes(self) -> list[dict[str, float]]:
        """What each node that is alive has."""
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]

    def _restart(self) -> None:
        """Begin again after Ray has died on this machine; elsewhere, it replaces its nodes itself."""
        self._deaths += 1
        if self._deaths == DIED_OFTEN or not self._address:
            raise RuntimeError(f"Ray died {self._deaths} times on this machine.")
        self._queue.extendleft(trial for trial, _ in reversed(self._running.values()))
        self._running.clear()
        self._ray.shutdown()
        _connect(self._ray, self._address, self._jobs)

    def _share(self, trial: Trial) -> dict[str, float]:
        """The part of a node that a trial needs: its threads, and a GPU where there are some."""
        settings = compose(trial.words, trial.settings)
        nodes = self._nodes()
        most = max((node.get("CPU", 0) for node in nodes), default=1)
        share: dict[str, float] = {"num_cpus": min(settings.threads or 1, most)}
        if (gpus := sum(node.get("GPU", 0) for node in nodes)) and settings.device != "cpu":
            # More jobs than GPUs share them.
            share["num_gpus"] = 1 if self._jobs is None else min(1, gpus / self._jobs)
        return share


class Stopped(Exception):
    """A trial was asked to stop, by a node that is taken away for example; it continues elsewhere."""

    def __init__(self, trial: Trial, outcome: Outcome) -> None:
        super().__init__(trial, outcome)
        self.trial, self.outcome = trial, outcome

    def __str__(self) -> str:
        return f"{self.trial.name} was stopped by {self.outcome.reason}"


def _work(trial: Trial) -> Outcome:
    end = time.monotonic() + _PATIENCE_S
    while is_held(trial.path) and time.monotonic() < end:
        time.sleep(_HELD_S)
    with output_to(trial):
        outcome = run_trial(trial)
    if outcome.status == "interrupted":
        raise Stopped(trial, outcome)
    return outcome


def _first_line(error: object) -> str:
    return str(error).strip().partition("\n")[0]


def _connect(ray: Any, address: str, jobs: int | None) -> None:
    """Join a cluster, or start a Ray whose every port is on loopback."""
    if "://" in address:
        raise ConfigError(
            f"RAY_ADDRESS={address}: a sweep cannot use Ray Client. Start it on a node of the cluster, with "
            "RAY_ADDRESS=host:port."
        )
    options: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": "ERROR"}
    if env := {name: os.environ[name] for name in _FROM_HERE if name in os.environ}:
        options["runtime_env"] = {"env_vars": env}
    if address == "local":
        options |= {"include_dashboard": False, "num_cpus": jobs, "_node_ip_address": "127.0.0.1"}
    with _own_signals(), _on_loopback(ray, address):
        try:
            if (port := address.rpartition(":")[2]).isdecimal():  # Ray itself asks for minutes.
                place = address.rpartition(":")[0], int(port)
                socket.create_connection(place, timeout=_REACH_S).close()
            ray.init(**options)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            why = _first_line(error)
            if "InvalidAuthToken" in str(error.__cause__):
                why = (
                    "it needs a token: set RAY_AUTH_MODE=token, and see `ray get-auth-token --help`"
                )
            raise ConfigError(f"engine=ray: cannot use Ray at {address} ({why}).") from error


@contextmanager
def _on_loopback(ray: Any, address: str) -> Iterator[None]:
    """Runs the block so that a Ray on 127.0.0.1 listens there only.

    Ray replaces that address by the machine's own, and listens on all, unless told that there are no other
    machines; this is how it does so on Windows and macOS (Ray 2.60).
    """
    constants = ray._private.ray_constants
    before = constants.ENABLE_RAY_CLUSTER
    if address == "local" or address.startswith(("127.0.0.1:", "localhost:")):
        constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _own_signals() -> Iterator[None]:
    """Runs the block, and then restores the handler of SIGTERM, which Ray replaces."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        with suppress(ValueError):  # Not in the main thread, where Ray replaces none either.
            signal.signal(signal.SIGTERM, before)


def _check_nodes(ray: Any, folder: Path) -> None:
    """Raise ConfigError if trials on some node could not write where this process reads."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / f".{uuid4().hex}"
    mark.touch()
    try:
        for node in ray.nodes():
            if not node["Alive"] or not node["Resources"].get("CPU"):
                continue
            where = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            look = ray.remote(num_cpus=0, scheduling_strategy=where)(_sees)
            try:
                seen = ray.get(look.remote(str(mark)))
            except ray.exceptions.RayError as error:
                raise ConfigError(
                    f"engine=ray: Ray's node {node['NodeManagerHostname']} cannot run Antelope: "
                    f"{_first_line(error)}"
                ) from error
            if not seen:
                raise ConfigError(
                    f"engine=ray: Ray's node {node['NodeManagerHostname']} does not see {folder}. Start the "
                    "sweep in a folder that all nodes share."
                )
    finally:
        mark.unlink()


def _sees(mark: str) -> bool:
    return os.path.exists(mark)
