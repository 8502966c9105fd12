"""Warnings and progress of models' own work."""

from __future__ import annotations

import warnings

_said: set[str] = set()


def warn_once(*words: object) -> None:
    """Warn once per process."""
    text = " ".join(map(str, words))
    if text not in _said:
        _said.add(text)
        warnings.warn(text, stacklevel=2)


def progress_bar(
    i: int, max_iter: int | None, epoch: int | str, task_number: int | str, loss: float
) -> None:
    """Accepts a model's own progress and shows nothing: the run's bar is the only one."""
