"""What a run with one of our agents is set to, where nothing else is said."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import yaml

from antelope import ml
from antelope.agents import A2C, DQN, PPO
from antelope.launcher.settings.compose import compose
from antelope.launcher.settings.plan import make_plan

QUIET: dict[str, Any] = {"eval_episodes": 1, "plot": False, "progress": False, "seed": 0}
ON_POLICY = {"normalize_obs": True, "normalize_reward": True, "seed_steps": 0, "learn_every": 1}
PLAIN = {"normalize_obs": False, "normalize_reward": False, "seed_steps": 1000, "learn_every": 1}


class OfAUser(DQN):
    """Settings come with the class that it is made of."""


def completed(*words: str, **code: Any) -> dict[str, Any]:
    settings = compose(words, code)
    return dict(make_plan(settings).values)


@pytest.mark.parametrize(
    ("agent", "expected"),
    [
        ("PPO", ON_POLICY | {"batch_size": 128}),
        (A2C, ON_POLICY),
        ("DQN", PLAIN | {"learn_every": 4, "batch_size": 128}),
        (OfAUser, PLAIN | {"learn_every": 4}),
        ("SAC", PLAIN | {"batch_size": 256}),
        ("TD3", PLAIN | {"batch_size": 128}),
        ("AC2Agent", PLAIN | {"batch_size": 128}),
    ],
)
def test_each_agent_comes_with_settings(agent: Any, expected: dict[str, Any]) -> None:
    values = completed(env="CartPole-v1", agent=agent)
    assert {key: values[key] for key in expected} == expected


def test_what_is_said_counts_even_where_it_says_the_general_default() -> None:
    words = "learn_every=1", "normalize_obs=false"
    assert completed(*words, env="CartPole-v1", agent="DQN")["learn_every"] == 1
    assert completed(*words, env="CartPole-v1", agent="PPO")["normalize_obs"] is False


@pytest.mark.parametrize("agent", ["dqn", "ppo", "a2c"])
def test_presets_say_all_that_they_were_tuned_with(agent: str) -> None:
    values = completed(f"task=rl/cartpole_{agent}")
    assert not values["normalize_obs"]
    assert not values["normalize_reward"]
    assert agent != "dqn" or values["learn_every"] == 1


def test_an_agent_that_does_not_act_needs_none(tmp_path: Any) -> None:
    values = completed(env="CartPole-v1", agent="DQN", offline=str(tmp_path))
    assert values["learn_every"] == 1


@pytest.mark.usefixtures("workdir")
def test_a_run_keeps_them_and_tells_its_agent_how_long_it_is() -> None:
    run = ml(env="CartPole-v1", agent="DQN", train_steps=1500, **QUIET)
    assert run.agent.epsilon.steps == 300
    assert yaml.safe_load((run.path / "config.yaml").read_text())["learn_every"] == 4
    again = ml(env="CartPole-v1", agent="DQN", train_steps=1500, resume=True, **QUIET)
    for name, weight in run.agent.state_dict().items():
        assert torch.equal(again.agent.state_dict()[name], weight)


@pytest.mark.usefixtures("workdir")
@pytest.mark.parametrize(("num_envs", "steps"), [(1, 256), (4, 64)])
def test_the_environments_of_a_run_share_a_rollout(num_envs: int, steps: int) -> None:
    run = ml(env="CartPole-v1", agent="PPO", train_steps=512, num_envs=num_envs, **QUIET)
    assert run.agent.steps == steps
    assert run.replay.new_steps == 0  # Two rollouts, both learnt from.


def test_rollouts_by_the_length_of_the_run() -> None:
    box, choice = _spaces()
    assert PPO(box, choice, train_steps=5000).steps == 500
    assert PPO(box, choice, num_envs=8, train_steps=10**6).steps == 256
    assert A2C(box, choice, num_envs=8).steps == 8
    assert PPO(box, choice, steps=5, num_envs=8).steps == 5
    assert A2C(box, choice, num_envs=100).steps == 1


def _spaces() -> tuple[Any, Any]:
    from antelope.replay import Space

    return Space((4,)), Space((2,), torch.int64, discrete=True)


@pytest.mark.usefixtures("workdir")
@pytest.mark.parametrize("normalize", [False, True])
def test_weights_of_another_run_keep_what_they_learnt_from(normalize: bool) -> None:
    words: dict[str, Any] = {"env": "CartPole-v1", "agent": "PPO", "train_steps": 260, **QUIET}
    ml(**words, normalize_obs=normalize, path="first")
    run = ml(**words, load="first", path="second")
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    assert config["normalize_obs"] is normalize
