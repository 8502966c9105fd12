"""One run of a sweep, and how it ended. Every engine calls the same function, `run_trial`."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...replay.errors import ConfigError, Diverged, NotSaved, RanksDiffer
from ...replay.shown import shown
from ..pictures.status import read_status

if TYPE_CHECKING:
    from ..run import Run
    from .study import Study

DIED_OFTEN = 3
"""How often a trial's process may die before the trial is given up."""


@dataclass(frozen=True)
class Trial:
    """One run of a sweep.

    Attributes:
        words: The run's console words, without `-m` and the words of `-m`, and without `path` and `resume`.
        path: Its directory, absolute.
        swept: What differs between the runs, as typed: `{"lr": "1e-3", "seed": "0"}`.
        settings: Keywords of `antelope.sweep`, whose values may be Python objects; empty from a console.
        folder: The working directory, in which names are looked up; absolute.
        study: The search that it belongs to, if any.
    """

    words: tuple[str, ...]
    path: Path
    swept: Mapping[str, str]
    folder: Path
    settings: Mapping[str, object] = field(default_factory=dict)
    study: Study | None = None

    @property
    def name(self) -> str:
        """`lr=1e-3 seed=0`: what tells it from the other runs."""
        return " ".join(f"{key}={value}" for key, value in self.swept.items())


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        status: "finished", "stopped", "failed", "diverged" or "interrupted".
        metrics: The last evaluation, by metric.
        reason: The first line of the error; empty if there is none.
        exit_code: As a console command for this run alone would end.
    """

    status: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    exit_code: int = 0


def died(reason: str = "out of memory?") -> Outcome:
    """The outcome of a trial whose process died too often."""
    return Outcome("failed", {}, f"Its process died {DIED_OFTEN} times ({reason})", 1)


def run_trial(trial: Trial) -> Outcome:
    """Train one run, or what is left of it; every engine calls this, wherever the run is.

    It never raises: what the run raised, signals too, becomes the outcome.
    """
    before = os.getcwd()
    try:
        os.chdir(trial.folder)
        run = _train(trial)
    except BaseException as error:
        return _failed(trial, error)
    finally:
        with contextlib.suppress(OSError):  # It has been removed.
            os.chdir(before)
    found = read_status(trial.path)
    stopped = found is not None and found.status == "stopped"
    return Outcome("stopped" if stopped else "finished", dict(run.metrics))


def _train(trial: Trial) -> Run:
    from ..plainly import plainly
    from ..settings.compose import compose
    from ..train import train

    # What an engine starts again continues. A sweep that starts over has moved earlier runs aside.
    begun = any((trial.path / name).exists() for name in ("config.yaml", "checkpoints"))
    resume: dict[str, Any] = {"resume": trial.settings.get("resume") or True} if begun else {}
    settings = {**trial.settings, **resume, "path": str(trial.path)}
    composed = compose(trial.words, settings)
    with trial.study.watching() if trial.study is not None else contextlib.nullcontext():
        return plainly(composed, lambda: train(composed), advise=False)


def _failed(trial: Trial, error: BaseException) -> Outcome:
    """The outcome of a run that raised. What it raised is printed, as a run on its own does."""
    from ..record.output import write_error
    from ..record.signals import SignalExit
    from ..settings.frames import user_traceback

    found = read_status(trial.path)
    metrics = {} if found is None else found.metrics
    if isinstance(error, KeyboardInterrupt):
        return Outcome("interrupted", metrics, "SIGINT", 128 + signal.SIGINT)
    if isinstance(error, SignalExit):
        code = int(error.code or 0)
        return Outcome("interrupted", metrics, signal.Signals(code - 128).name, code)
    if isinstance(error, (ConfigError, Diverged, NotSaved, RanksDiffer)):
        text, code = str(error), error.exit_code
        write_error(text)
    else:
        text, code = f"{type(error).__name__}: {error}", 1
        whole = "debug=true" in trial.words or trial.settings.get("debug") is True
        write_error(user_traceback(error, whole=whole))
    status = "diverged" if isinstance(error, Diverged) else "failed"
    return Outcome(status, metrics, first_line(text), code)


def first_line(text: str) -> str:
    """The first line of an error's message, with the next one where it only introduces that."""
    first, _, rest = text.partition("\n")
    if first.endswith(":"):
        first = f"{first} {rest.partition(chr(10))[0].strip()}"
    return shown(first, line=True)
