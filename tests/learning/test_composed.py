"""Policies and critics of one's own learn; the three seeds of each are benchmarks/composed.py's."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from antelope import ml

EXAMPLES = Path(__file__).parents[2] / "examples"
QUIET: dict[str, Any] = {"plot": False, "progress": False}


@pytest.mark.slow
@pytest.mark.usefixtures("workdir")
@pytest.mark.parametrize(
    ("example", "policy"), [("composed_cartpole", "Policy"), ("composed_plain", "Actor")]
)
def test_two_small_modules_learn_cartpole(example: str, policy: str) -> None:
    parts = runpy.run_path(str(EXAMPLES / f"{example}.py"))
    settings = {"policy": parts[policy], "critic": parts["Critic"], "train_steps": 8000}
    run = ml("task=rl/cartpole_ppo", seed=2, eval_every=1000, **settings, **QUIET)
    assert max(row["return"] for row in run.history if row["mode"] == "eval") > 400


def errand(policy: type[nn.Module], critic: type[nn.Module]) -> float:
    """The share of right moves after the cue is gone."""
    words = "task=rl/workshop_ppo", "env=Errand", "env.size=16", "model.steps=18", "model.lr=2e-3"
    settings = {"learn_every": 576, "train_steps": 3456, "eval_episodes": 100, "eval_every": 10_000}
    return ml(*words, policy=policy, critic=critic, **settings, **QUIET).metrics["return"]


class Now(nn.Module):
    """In the place of a memory: what is seen now."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(128, 32)

    def forward(self, x: Tensor, state: Any) -> tuple[Tensor, None]:
        return self.layer(x).tanh(), None


@pytest.mark.slow
@pytest.mark.usefixtures("workdir")
def test_a_cue_is_remembered_with_a_recurrent_layer_and_not_without() -> None:
    parts = runpy.run_path(str(EXAMPLES / "composed_dict.py"))
    assert errand(parts["Trunk"], parts["Critic"]) > 0.9

    class Forgetful(parts["Trunk"]):  # type: ignore[misc]
        def __init__(self, obs_shapes: Any, action_logits_shapes: Any):
            super().__init__(obs_shapes, action_logits_shapes)
            self.memory = Now()

        def forward(self, obs: dict[str, Tensor]) -> dict[str, Tensor]:  # Of steps, [B, ...].
            out, _ = super().forward({name: x[:, None] for name, x in obs.items()})
            return {name: x[:, 0] for name, x in out.items()}

    class Critic(Forgetful):
        def __init__(self, obs_shapes: Any):
            super().__init__(obs_shapes, {"value": (1,)})

    # A quarter at random, give or take three times 0.043.
    assert 0.12 < errand(Forgetful, Critic) < 0.38
