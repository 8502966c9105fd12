"""Row 11: runs that wrote earlier formats are continued, and those that wrote a later one are refused.

The golden run directories were written by the versions they are named after, running this very file:
`python tests/faults/test_older_checkpoints.py FOLDER`. A new format adds a folder.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antelope import CheckpointError, load, ml
from antelope.launcher.learn.learner import Learner

HERE = Path(__file__).parent
WRITTEN = ("written_by_0_4_0", "written_in_format_2")  # Formats 1 and 2.
_CUT = 33  # The learning step that the old run did not reach.


class Small(nn.Module):
    """Holds a bit of everything."""

    late: Tensor | None

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)
        self.register_buffer("late", None)
        self.past = torch.zeros(out_features)
        self.labels: list[Tensor] = []
        self.generator = torch.Generator().manual_seed(3)

    def forward(self, obs: Tensor) -> Tensor:
        return self.layer(obs.flatten(1))

    def learn(self, replay: Any) -> Tensor:
        batch = next(replay)
        obs = batch.obs + 0.1 * torch.rand(batch.obs.shape, generator=self.generator)
        output = self(obs)
        self.late = output.detach().mean(0) if self.late is None else self.late * 0.9
        self.past = 0.5 * self.past + output.detach().mean(0)
        self.labels = [*self.labels[-1:], batch.label[:2]]
        return F.cross_entropy(output + 0.1 * self.past, batch.label)


CASES: dict[str, dict[str, Any]] = {
    "sequence": {
        **{"model": Small, "dataset": "Digits", "tasks": 2, "train_steps": 25, "ema": 0.9},
        **{"strategy": ["er", "ewc"], "strategy.er.capacity": 10, "batch_size": 8},
    },
    "transitions": {
        **{"env": "CartPole-v1", "model": "DQN", "model.hidden": [4], "num_envs": 2},
        **{"frame_stack": 2, "nstep": 3, "replay.prioritized": True, "capacity": 60},
        **{"train_steps": 90, "seed_steps": 20, "batch_size": 8, "learn_every": 2},
        **{"eval_episodes": 1, "normalize_obs": True, "time_limit": 20},
        "model.explore_steps": 10_000,  # The default of 0.4.0, where it was no argument.
    },
}


def learn(case: str, path: Path, **more: Any) -> Any:
    quiet = {"progress": False, "plot": False, "save_every": 8, "seed": 2}
    return ml(**{**CASES[case], **quiet, **more}, path=str(path))


@pytest.mark.row(11)
@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("case", CASES)
def test_a_run_that_an_earlier_version_began_ends_as_one_that_began_now(
    case: str, written: str, tmp_path: Path
) -> None:
    shutil.copytree(HERE / written / case, tmp_path / "begun")
    named = {"override": "model.explore_steps"}
    begun = learn(case, tmp_path / "begun", resume=True, **named)
    whole = learn(case, tmp_path / "whole")
    # To the bit with the torch that wrote it (2.14.1); another one may round otherwise.
    torch.testing.assert_close(begun.agent.state_dict(), whole.agent.state_dict())
    ends = {row["step"] for row in begun.history}
    assert ends == {row["step"] for row in whole.history}


@pytest.mark.row(11)
def test_a_checkpoint_of_a_later_format_is_not_passed_over(tmp_path: Path) -> None:
    shutil.copytree(HERE / WRITTEN[-1] / "sequence", tmp_path / "run")
    (older,) = (tmp_path / "run" / "checkpoints").iterdir()
    newer = older.with_name("1000000")
    shutil.copytree(older, newer)
    text = (newer / "manifest.json").read_text()
    (newer / "manifest.json").write_text(text.replace("checkpoint-2", "checkpoint-99"))
    with pytest.raises(
        CheckpointError, match=r"1000000 was written by a newer version .* 99; .* -U"
    ):
        learn("sequence", tmp_path / "run", resume=True)
    with pytest.raises(CheckpointError, match="newer version"):
        load(tmp_path / "run", model=Small)
    assert older.exists()


def write(case: str, folder: Path) -> None:
    """Begin a run and leave its newest checkpoint, and what belongs to it, in a folder."""
    step = Learner.step

    def cut(self: Learner, *args: Any) -> None:
        if self.steps == _CUT:
            raise KeyError("cut")
        step(self, *args)

    with mock.patch.object(Learner, "step", cut), pytest.raises(KeyError):
        learn(case, folder / case)
    *older, _ = sorted((folder / case / "checkpoints").iterdir())
    for checkpoint in older:
        shutil.rmtree(checkpoint)


if __name__ == "__main__":
    for name in CASES:
        write(name, Path(sys.argv[1]))
