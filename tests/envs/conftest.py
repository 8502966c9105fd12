"""Runs of a second, in a directory of the test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from antelope import Run, ml

from .toys import SHORT


@pytest.fixture
def quick(tmp_path: Path) -> Any:
    """`ml` with few steps, that shows nothing."""

    def run(*words: str, **settings: Any) -> Run:
        return ml(*words, **{"path": tmp_path / "run", "train_steps": 60, **SHORT, **settings})

    return run


class Linear(nn.Module):
    """The smallest network that learns classes or values."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Flatten(), nn.Linear(in_features, out_features))

    def forward(self, obs: Tensor) -> Tensor:
        return self.layer(obs)  # type: ignore[no-any-return]


@pytest.fixture
def learn(tmp_path: Path) -> Any:
    """A learning step of a linear model on data."""

    def run(*words: str, **settings: Any) -> Run:
        usual = {"model": Linear, "train_steps": 1, "plot": False, "progress": False}
        return ml(*words, **{**usual, "path": tmp_path / "run", **settings})

    return run
