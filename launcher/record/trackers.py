"""TensorBoard, MLflow and W&B as writers of rows, and the journal of all that `loggers=` names.

Each package is imported only when it is named.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Protocol

from ...replay.ranks import ranks
from ..settings.plan import Plan
from .csv_file import CSV, Row
from .log import Journal, Writer, is_number
from .patience import at_most
from .signals import Signals
from .supervised import Supervised

_NEEDS = {
    "tensorboard": "torch.utils.tensorboard",
    "mlflow": "mlflow",
    "wandb": "wandb",
}
_OPEN_SECONDS, _WRITE_SECONDS, _CLOSE_SECONDS = 100.0, 30.0, 300.0  # wandb gives up opening at 90.
_SHARE = 0.05  # Of a run's time, at most, that a tracker that fails may cost.
_MOST_WAITING = 1000  # Rows.


def missing(names: list[str]) -> dict[str, str]:
    """Those of `loggers=` that are not installed, each with the command that installs it."""
    found = {}
    for name in names:
        try:
            import_module(_NEEDS.get(name, "csv"))
        except Exception as error:  # A broken installation may raise anything.
            found[name] = (
                f"loggers=[{name}] needs a package that is not installed ({error}), and the run goes on "
                f"without it. Install it with: pip install 'antelope-ml[{name}]'"
            )
    return found


def build_journal(plan: Plan, session: Supervised, signals: Signals) -> Journal:
    """A journal with the writers that `loggers=` names; each opens its file at its first row."""
    path, tasks = session.path, session.num_tasks
    lacking = missing(plan.loggers)

    def interrupted() -> bool:
        return signals.arrived() is not None

    writers: list[Writer] = []
    for name in plan.loggers if ranks().rank == 0 else ():
        if name == "csv":
            writers += [CSV(path / f"{m}.csv", mode=m, tasks=tasks) for m in ("train", "eval")]
        elif name not in lacking:
            writers.append(Tracker(name, path, dict(plan.values), interrupted=interrupted))
    return Journal(writers, session.console.problem)


class Tracker:
    """Writes rows to a tracker, which is opened at the first row.

    Rows that it refuses are sent again with a later one. A tracker that does not answer is left alone for
    so long that waiting for it costs a twentieth of the run's time.

    Args:
        name: "tensorboard", "mlflow" or "wandb".
        path: The run directory.
        settings: Those of the run, by name, for the tracker to show.
        interrupted: Whether a signal asks the run to stop.

    Attributes:
        waiting: Rows that it has not received yet, the oldest first; at most a thousand.
        lost: Number of rows that it will not receive.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        settings: dict[str, Any],
        *,
        interrupted: Callable[[], bool] = lambda: False,
    ):
        targets: dict[str, Callable[..., Target]]
        targets = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB}
        self._open = targets[name]
        self.name, self.mode = name, None
        self._path, self._settings = path, settings
        self._interrupted = interrupted
        self._target: Target | None = None
        self.waiting: deque[Row] = deque(maxlen=_MOST_WAITING)
        self.lost = 0
        self._error: Exception | None = None
        self._next_try = 0.0  # By the monotonic clock.

    def write(self, row: Row) -> None:
        """Send a row, after those that are still waiting.

        Raises:
            Exception: Whatever the tracker raises, or TimeoutError; the row waits.
        """
        self.lost += len(self.waiting) == _MOST_WAITING
        self.waiting.append(row)
        if self._error is not None and time.monotonic() < self._next_try:
            raise self._error.with_traceback(None)  # Which would grow with every row.
        self._send()

    def close(self) -> None:
        """Send what is waiting, and close the tracker.

        Raises:
            Exception: If it cannot be closed, or rows were lost.
        """
        if self.waiting and not self._interrupted():
            with contextlib.suppress(Exception):  # Said already, when the row was written.
                self._send()
        target, self._target = self._target, None
        if target is not None:
            with at_most(_CLOSE_SECONDS, interrupted=self._interrupted):
                target.close()
        if missed := self.lost + len(self.waiting):
            self.lost = 0
            self.waiting.clear()
            rows = "1 row was" if missed == 1 else f"{missed} rows were"
            raise RuntimeError(f"{rows} not logged")

    def _send(self) -> None:
        began = time.monotonic()
        try:
            if self._target is None:
                with at_most(_OPEN_SECONDS, interrupted=self._interrupted):
                    first = self.waiting[0]["step"]
                    self._target = self._open(self._path, self._settings, first_step=first)
            with at_most(_WRITE_SECONDS, interrupted=self._interrupted):
                while self.waiting:
                    self._send_first()
        except Exception as error:
            self._error = error
            now = time.monotonic()
            self._next_try = now + (now - began) / _SHARE
            if self._target is not None and self._target.reopens:
                self._target = None
            raise
        self._error = None

    def _send_first(self) -> None:
        """Send the row that has waited longest; one that alone is refused is lost."""
        assert self._target is not None
        try:
            self._target.write(_scalars(self.waiting[0]), step=self.waiting[0]["step"])
        except Exception:
            if len(self.waiting) == 1 or self._target.reopens:
                raise
            self._target.write(_scalars(self.waiting[-1]), step=self.waiting[-1]["step"])
            self.waiting.pop()
            self.lost += 1
        self.waiting.popleft()


class Target(Protocol):
    """What a tracker opens.

    Attributes:
        reopens: Whether it may be opened again in the same run, as it must after an error.
    """

    reopens: ClassVar[bool]

    def write(self, scalars: dict[str, float], *, step: int) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in `<run>/tensorboard`."""

    reopens: ClassVar[bool] = True  # Its thread ends with its first error.

    def __init__(self, path: Path, settings: dict[str, Any], *, first_step: int):
        from torch.utils.tensorboard import SummaryWriter

        # A resumed run writes the rows after its checkpoint again: discard the old ones.
        self._writer = SummaryWriter(str(path / "tensorboard"), purge_step=first_step)

    def write(self, scalars: dict[str, float], *, step: int) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class MLflow:
    """A run of MLflow's current tracking server (`MLFLOW_TRACKING_URI`)."""

    reopens: ClassVar[bool] = False

    def __init__(self, path: Path, settings: dict[str, Any], *, first_step: int):
        import mlflow

        self._mlflow = mlflow
        mlflow.set_experiment(settings["experiment"])
        mlflow.start_run(run_name=str(path))
        mlflow.log_params({k: str(v)[:500] for k, v in settings.items() if v is not None})

    def write(self, scalars: dict[str, float], *, step: int) -> None:
        self._mlflow.log_metrics(scalars, step=step)

    def close(self) -> None:
        self._mlflow.end_run()


class WandB:
    """A Weights & Biases run; `WANDB_MODE=offline` keeps it on this machine."""

    reopens: ClassVar[bool] = False

    def __init__(self, path: Path, settings: dict[str, Any], *, first_step: int):
        import wandb

        self._run = wandb.init(
            project=settings["experiment"], name=path.name, dir=str(path), config=settings
        )

    def write(self, scalars: dict[str, float], *, step: int) -> None:
        self._run.log({**scalars, "step": step})

    def close(self) -> None:
        self._run.finish()


def _scalars(row: Row) -> dict[str, float]:
    mode = row["mode"]
    return {
        f"{mode}/{name}": float(value)
        for name, value in row.items()
        if is_number(value) and name != "step"
    }
