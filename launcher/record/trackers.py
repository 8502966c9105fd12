"""TensorBoard, MLflow and W&B as writers of rows. Each is imported only when `loggers=` names it."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from ...replay import ConfigError
from .log import Row, is_number

_NEEDS = {
    "tensorboard": "torch.utils.tensorboard",
    "mlflow": "mlflow",
    "wandb": "wandb",
}


def check_installed(names: list[str]) -> None:
    """Check before anything starts that the trackers are installed.

    Args:
        names: Those of `loggers=`.

    Raises:
        ConfigError: With the command that installs it.
    """
    for name in names:
        if name not in _NEEDS:
            continue
        try:
            import_module(_NEEDS[name])
        except ImportError as error:
            raise ConfigError(
                f"loggers=[{name}] needs a package that is not installed ({error}). "
                f"Install it with: pip install 'antelope-ml[{name}]'"
            ) from error


class Tracker:
    """Writes rows to a tracker, which is opened at the first row.

    Args:
        name: "tensorboard", "mlflow" or "wandb".
        path: The run directory.
        settings: Those of the run, by name, for the tracker to show.
    """

    def __init__(self, name: str, path: Path, settings: dict[str, Any]):
        self._open = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB}[name]
        self.name, self._path, self._settings = name, path, settings
        self._target: Any = None

    def write(self, row: Row) -> None:
        if self._target is None:
            self._target = self._open(self._path, self._settings, first_step=row["step"])
        self._target.write(_scalars(row), step=row["step"])

    def close(self) -> None:
        if self._target is not None:
            self._target.close()
            self._target = None


class TensorBoard:
    """Event files in `<run>/tensorboard`."""

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
