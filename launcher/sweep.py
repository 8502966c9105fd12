"""`ml -m seed=1,2,3 lr=1e-3,1e-2`: one run for each combination."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from .settings.compose import compose
from .settings.multirun import run_multirun, said
from .settings.settings import Settings

if TYPE_CHECKING:
    from .run import Run

_FLAGS = ("-m", "--multirun")


def asks_for_sweep(words: list[str]) -> bool:
    """Whether the console words hold `-m`, wherever it stands."""
    return any(word in _FLAGS for word in words)


def sweep(words: list[str], train: Callable[..., Run]) -> None:
    """Train every combination of the values that are separated by commas.

    Args:
        words: Console words, `-m` included.
        train: Called with the words of one run.

    Raises:
        ConfigError: For words that no run accepts.
        Exception: The first that a run raised, after all other combinations have been trained.
    """

    from .metrics.scores import objective  # Imports NumPy, which help and typos must not wait for.

    def run(words: list[str], swept: list[str]) -> float | None:
        settings = compose(words, {})
        finished = train(*_with_folder(words, swept, settings))
        return objective(finished.metrics, told=settings.scenario == "task")

    run_multirun([word for word in words if word not in _FLAGS], run)


def _with_folder(words: list[str], swept: list[str], settings: Settings) -> list[str]:
    """The words, with an experiment named after what is swept, so that its seeds share a folder."""
    plain = [said(word).replace("'", "") for word in swept]
    varied = sorted(word for word in plain if not word.startswith(("seed=", "path=")))
    if not varied or settings.path is not None:
        return words
    folder = ",".join(re.sub(r"\\?[/:]", "-", word) for word in varied)
    others = [word for word in words if not word.lstrip("+").startswith("experiment=")]
    return [*others, f"experiment='{settings.experiment}/{folder}'"]
