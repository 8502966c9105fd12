"""Where a sweep's runs are: in this process, on this machine's cores, on Ray, or in a Slurm array."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from ..trial import Outcome, Trial


class Engine(Protocol):
    """Runs trials by `run_trial`. It keeps no state that matters: the run directories do.

    A trial whose process died is started again, and continues; the third death is its end.
    """

    @property
    def slots(self) -> int:
        """How many trials may run at once."""

    def start(self, trial: Trial) -> None:
        """Queue a trial. Those that are queued between two calls of `wait` may start together."""

    def wait(self) -> tuple[Trial, Outcome]:
        """Wait until one of the trials has ended, whichever is first.

        Raises:
            KeyboardInterrupt, SystemExit: For a signal to this process; `close` is called next.
        """

    def close(self, *, cancel: bool) -> None:
        """Release everything.

        Args:
            cancel: Whether trials are still running. They are asked to save and to stop (SIGTERM), and
                have ended when this returns.
        """


def engine_named(
    name: str, *, jobs: int | None, folder: Path, options: Mapping[str, str]
) -> Engine:
    """The engine that `engine=NAME jobs=N` asks for.

    Args:
        name: One of `words.ENGINES`.
        jobs: How many trials may run at once; None: as many as the engine decides.
        folder: The sweep's folder, absolute: beside the runs.
        options: Words for the engine, without its name: `{"partition": "gpu"}` of `slurm.partition=gpu`.

    Raises:
        ConfigError: If its package is missing, or it cannot do what is asked.
    """
    if name == "here":
        from .here import Here

        return Here()
    if name == "local":
        from .local import Local

        return Local(jobs)
    if name == "ray":
        from .ray import Ray

        return Ray(jobs, folder)
    from .slurm import Slurm

    return Slurm(jobs=jobs, folder=folder, options=options)
