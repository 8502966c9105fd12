"""Offline agents do better than what they learn from."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from antelope import ml

SHARED: dict[str, Any] = {"plot": False, "progress": False, "save_every": 10**9}


class Wavering(nn.Module):
    """Balances a pole, but for the half of its actions that are random: some 50 steps."""

    def act(self, obs: Tensor) -> Tensor:
        balancing = (obs[:, 2] + obs[:, 3] > 0).long()
        return torch.where(torch.rand(len(obs)) < 0.5, torch.randint(2, (len(obs),)), balancing)

    def learn(self, replay: Any) -> None:
        pass


def best(env: str, behaviour: Any, *words: str, **settings: Any) -> float:
    """The best evaluation of what is learnt from 8,000 steps of somebody else's."""
    made = ml(env=env, agent=behaviour, train_steps=8000, eval_episodes=1, path="made", **SHARED)
    made.replay.save("replay")
    options = {"lr": 1e-3, "batch_size": 128, "offline": "replay", **SHARED, **settings}
    run = ml("model.hidden=[64,64]", *words, env=env, eval_every=1000, **options)
    return max(row["return"] for row in run.history if row["mode"] == "eval")


@pytest.mark.slow
@pytest.mark.usefixtures("workdir")
class TestLearnsOffline:
    def test_conservative_dqn_cartpole(self) -> None:
        words = "agent=DQN", "model.conservative=1", "model.target_every=20"
        assert best("CartPole-v1", Wavering, *words, train_steps=4000) > 250

    def test_td3_pendulum_from_random_actions(self) -> None:
        # All that random actions show is what they lead to: there is little to imitate.
        words = "agent=TD3", "model.imitation=0.02", "model.tau=0.02"
        # At random: -1,200.
        assert best("Pendulum-v1", "Random", *words, train_steps=4000) > -400
