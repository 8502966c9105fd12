"""The default agent reaches its floors on one seed; benchmarks/default_agent.py has all seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from antelope import ml
from antelope.agents.bandit import Bandit
from antelope.agents.dqn import DQN
from antelope.agents.sac import SAC

QUIET: dict[str, Any] = {"plot": False, "progress": False}


def best(run: Any) -> float:
    """The best evaluation of a run: a policy that has solved a task may be lost again."""
    return max(row["return"] for row in run.history if row["mode"] == "eval")


@pytest.mark.usefixtures("workdir")
class TestReaches:
    def test_digits(self) -> None:
        assert ml(**QUIET).metrics["accuracy"] >= 0.97

    def test_digits_by_reward_alone(self) -> None:
        run = ml("rl=true", **QUIET)
        assert isinstance(run.agent.way, Bandit)
        assert run.metrics["accuracy"] >= 0.95

    def test_diabetes(self) -> None:
        # Ridge regression has 0.476, on the same rows with the best penalty of a cross-validation.
        assert ml(dataset="Diabetes", **QUIET).metrics["r2"] >= 0.95 * 0.476

    @pytest.mark.slow
    def test_mnist(self, mnist_dir: Path) -> None:
        # 98.5 % is to be there after five epochs; these are 160 batches.
        run = ml(dataset="MNIST", data_dir=mnist_dir, train_steps=160, **QUIET)
        assert run.metrics["accuracy"] >= 0.85

    @pytest.mark.slow
    def test_cartpole(self) -> None:
        # 475 is to be there after 40,000 steps.
        run = ml(env="CartPole-v1", seed=2, train_steps=10_000, eval_every=1000, **QUIET)
        assert isinstance(run.agent.way, DQN)
        assert best(run) > 150  # At random: 22.

    @pytest.mark.slow
    def test_pendulum(self) -> None:
        run = ml(env="Pendulum-v1", train_steps=3000, eval_every=1000, **QUIET)
        assert isinstance(run.agent.way, SAC)
        assert best(run) >= -600  # At random: -1,200.
