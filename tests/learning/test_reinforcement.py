"""Agents learn what their presets say, on fixed seeds; the median over seeds is the benchmarks'."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from antelope import ml

ROOT = Path(__file__).parents[2]
SMALL = ["model.hidden=[64,64]"]  # As good here, and several times faster.


def best(*words: str, **settings: Any) -> float:
    """The best evaluation of a run: a policy that has solved a task may be lost again."""
    shared: dict[str, Any] = {"eval_every": 1000, "plot": False, "progress": False}
    run = ml(*words, **shared | settings)
    return max(row["return"] for row in run.history if row["mode"] == "eval")


@pytest.mark.slow
@pytest.mark.usefixtures("workdir")
class TestLearns:
    def test_dqn_cartpole(self) -> None:
        assert best("task=rl/cartpole_dqn", train_steps=10_000) > 150

    def test_rainbow_cartpole(self) -> None:
        assert best("task=rl/rainbow", train_steps=6000) > 100

    def test_ppo_cartpole(self) -> None:
        assert best("task=rl/cartpole_ppo", train_steps=14_000) > 450

    def test_dqn_cartpole_on_two_devices(self) -> None:
        assert best("task=rl/cartpole_dqn", train_steps=10_000, devices=2) > 150

    def test_ppo_cartpole_on_two_devices(self) -> None:
        assert best("task=rl/cartpole_ppo", train_steps=14_000, devices=2) > 450

    def test_a2c_cartpole(self) -> None:
        assert best("task=rl/cartpole_a2c", train_steps=16_000) > 300

    def test_sac_pendulum(self) -> None:
        assert best("task=rl/pendulum_sac", *SMALL, train_steps=3000) > -300  # At random: -1,200.

    def test_ddpg_pendulum(self) -> None:
        assert best("task=rl/pendulum_ddpg", *SMALL, train_steps=4000) > -700

    def test_td3_pendulum(self) -> None:
        assert best("task=rl/pendulum_td3", *SMALL, train_steps=5000) > -700

    def test_sac_with_choices(self) -> None:
        words = "env=CartPole-v1", "agent=SAC", "model.hidden=[64,64]", "model.entropy=0.2"
        assert best(*words, train_steps=6000, learn_every=4, lr=1e-3) > 80  # At random: 22.

    def test_dqn_on_bins_of_a_continuous_action(self) -> None:
        words = (
            "env=Pendulum-v1",
            "agent=DQN",
            "discrete=true",
            "bins=5",
            "model.explore_steps=2000",
        )
        settings: dict[str, Any] = {"lr": 1e-3, "batch_size": 128, "discount": 0.98}
        assert best(*words, train_steps=6000, learn_every=2, **settings) > -500

    def test_a_memory_solves_what_nothing_else_can(self) -> None:
        assert best("task=rl/recall_drqn", train_steps=6000, eval_episodes=20) == 1

    def test_without_a_memory_it_is_chance(self) -> None:
        words = "env=Recall", "agent=DQN", "model.hidden=[32]"
        run = ml(*words, train_steps=3000, learn_every=4, eval_episodes=40, progress=False)
        assert abs(run.metrics["return"]) < 0.6

    def test_a_model_of_ones_own(self) -> None:
        model = runpy.run_path(str(ROOT / "examples" / "dqn.py"))["MyDQN"]
        settings: dict[str, Any] = {"batch_size": 64, "lr": 1e-3, "learn_every": 2, "seed": 0}
        assert best(model=model, env="CartPole-v1", train_steps=8000, **settings) > 150
