"""Runs that end too early, and are resumed: they must end as if nothing had happened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antelope import ml


class Crash(Exception):
    """What ends a run."""


class Crashing(nn.Module):
    """To be put before a model: counts its steps, and ends the run at one of them."""

    at: int | None = None
    steps = 0

    def learn(self, replay: Any) -> Tensor:
        kind = type(self)
        kind.steps += 1
        if kind.steps == kind.at:
            raise Crash
        batch = next(replay)
        return F.cross_entropy(self(batch.obs), batch.label)


def resumed(learnt: Callable[..., Any], model: type[Crashing], at: int, path: Path) -> Any:
    """The run `learnt(path, ...)` of `model`, stopped at a step and resumed.

    `model.steps` is then the number of steps since.
    """
    model.at, model.steps = at, 0
    try:
        with pytest.raises(Crash):
            learnt(path)
    finally:
        model.at, model.steps = None, 0
    return learnt(path, resume=True)


def check_same_end(run: Any, reference: Any) -> None:
    """Both have the same weights, and the same accuracies after every task."""
    weights, expected = run.agent.state_dict(), reference.agent.state_dict()
    assert weights.keys() == expected.keys()
    for name, weight in weights.items():
        assert torch.equal(weight, expected[name]), name
    for matrix in ("accuracy_matrix", "task_il_matrix"):
        np.testing.assert_array_equal(getattr(run, matrix), getattr(reference, matrix))


def check_resuming(words: list[str], model: type[Crashing], folder: Path) -> None:
    """A run that crashes in its second task, and is resumed, ends as one that does not."""
    words = [*words, "classes_per_task=[3,3,4]", "batch_size=32", "epochs=1", "save_every=5"]
    words += ["optim=SGD", "lr=0.1", "plot=false", "progress=false"]

    def learnt(path: Path, **settings: Any) -> Any:
        return ml(*words, model=model, path=path, **settings)

    model.steps = 0
    reference = learnt(folder / "reference")
    steps = model.steps
    run = resumed(learnt, model, steps * 9 // 20, folder / "run")
    assert model.steps < steps * 3 // 4  # It did not start afresh.
    check_same_end(run, reference)
