"""What models say while they work on something of their own."""

from __future__ import annotations

import warnings

_said: set[str] = set()


def warn_once(*words: object) -> None:
    """Warn of something the first time that it is said in this process."""
    text = " ".join(map(str, words))
    if text not in _said:
        _said.add(text)
        warnings.warn(text, stacklevel=2)


def progress_bar(
    i: int, max_iter: int | None, epoch: int | str, task_number: int | str, loss: float
) -> None:
    """Accepts how far a model's own loop is, and shows nothing: the run's bar is the only one."""
