"""Row 37: a seed decides a run; how often it is logged, evaluated, saved and drawn does not."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antelope import ml


class Noisy(nn.Module):
    """Draws from every random stream that a model may draw from."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(in_features, 8), nn.Dropout(0.3), nn.Linear(8, out_features)
        )

    def forward(self, obs: Tensor) -> Tensor:
        return self.layers(obs)

    def learn(self, replay: Any) -> Tensor:
        batch = next(replay)
        return F.cross_entropy(self(batch.obs + 0.1 * torch.randn_like(batch.obs)), batch.label)


RUNS: dict[str, dict[str, Any]] = {
    "data": {
        **{"model": Noisy, "dataset": "Digits", "train_steps": 30, "batch_size": 16},
        **{"aug": "RandomCrop", "aug.padding": 1, "eval_every": 10},
    },
    "environment": {
        **{"model": "DQN", "env": "CartPole-v1", "train_steps": 120, "seed_steps": 20},
        **{"batch_size": 8, "eval_every": 50, "eval_episodes": 2},
    },
}


def weights(kind: str, path: Path, **settings: Any) -> str:
    settings = {"plot": False, "progress": False, "seed": 1, **RUNS[kind], **settings}
    state = ml(path=str(path), **settings).agent.state_dict()
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(state[name].detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


@pytest.mark.row(37)
@pytest.mark.parametrize("kind", RUNS)
def test_a_seed_decides_a_run_and_what_is_recorded_does_not(kind: str, tmp_path: Path) -> None:
    first = weights(kind, tmp_path / "first")
    assert weights(kind, tmp_path / "again") == first
    assert weights(kind, tmp_path / "other", seed=2) != first
    for number, recorded in enumerate(
        (
            {"log_every": 1},
            {"eval_every": 7},
            {"save_every": 3},
            {"eval_episodes": 1} if kind == "environment" else {"eval_rows": 9},
            {"plot": kind == "data", "render_model": kind == "data", "loggers": []},
        )
    ):
        assert weights(kind, tmp_path / str(number), **recorded) == first, recorded


@pytest.mark.row(37)
def test_what_is_shown_draws_no_random_number() -> None:
    # In a process of its own: rich draws one when it is imported.
    code = (
        "import random; from antelope.launcher.record.console import Console\n"
        "before = random.getstate(); Console(enabled=True)\n"
        "assert 'rich.style' in __import__('sys').modules\n"
        "assert random.getstate() == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
