"""No action that an environment rules out is ever taken: in training, at random, and in evaluation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor, nn
from torch.distributions import Categorical

from antelope import ConfigError, DataError, Run, ml
from tests.envs.toys import Ruled

pytestmark = pytest.mark.usefixtures("workdir")

AGENTS: dict[str, list[str]] = {
    "DQN": ["model.epsilon=[0.5,0.5]"],
    "DRQN": [],
    "PPO": ["model.steps=16", "model.entropy_coef=0.01"],
    "A2C": ["model.entropy_coef=0.01"],
    "Random": [],
    "AC2Agent": [],
}
KINDS = {
    "one": list(AGENTS),
    **{kind: ["PPO", "A2C", "Random", "AC2Agent"] for kind in ("several", "yes", "many", "tuple")},
}


def run(*words: str, **settings: Any) -> Run:
    """Whose environment raises on an action that is ruled out, which would end it."""
    shared: dict[str, Any] = {
        **{"env": Ruled, "env_info": ["action_mask"], "train_steps": 100, "seed_steps": 30},
        **{
            "eval_episodes": 6,
            "batch_size": 16,
            "eval_every": 50,
            "plot": False,
            "progress": False,
        },
    }
    return ml(*words, **shared | settings)


@pytest.mark.parametrize(("kind", "agent"), [(k, a) for k in KINDS for a in KINDS[k]])
def test_every_agent_keeps_to_the_mask_of_every_kind_of_action(kind: str, agent: str) -> None:
    run(*AGENTS[agent], f"env.kind={kind}", agent=agent, num_envs=2)


@pytest.mark.parametrize("agent", ["DQN", "DRQN", "PPO"])
@pytest.mark.parametrize("mode", AutoresetMode)
def test_in_vector_environments_however_they_reset(mode: AutoresetMode, agent: str) -> None:
    run(*AGENTS[agent], agent=agent, env=lambda: SyncVectorEnv([Ruled] * 3, autoreset_mode=mode))


def test_in_processes_of_their_own() -> None:
    run("env.kind=many", agent="A2C", num_envs=2, vectorization="async")


class Strict(nn.Module):
    """Acts by torch's own Categorical, which raises where a mask allows nothing."""

    def __init__(self, action_spec: Any) -> None:
        super().__init__()
        self.sizes = [*action_spec.nvec] or [action_spec.n]

    def act(self, obs: Tensor, info: dict[str, Tensor]) -> Tensor:
        parts = info["action_mask"].bool().split(self.sizes, -1)
        drawn = [Categorical(probs=part.float()).sample() for part in parts]
        return torch.stack(drawn, -1) if len(drawn) > 1 else drawn[0]

    def learn(self, replay: Any) -> None:
        batch = next(replay)
        assert not batch.next_action_mask[batch.terminated].any() or len(self.sizes) > 1


@pytest.mark.parametrize(
    "how",
    [
        {"num_envs": 2},
        {"num_envs": 2, "env.kind": "several"},
        {"num_envs": 2, "vectorization": "async"},
        {"env": lambda: SyncVectorEnv([Ruled] * 3, autoreset_mode=AutoresetMode.NEXT_STEP)},
    ],
    ids=["copies", "several", "async", "next-step"],
)
def test_an_act_of_ones_own_never_meets_a_mask_that_allows_nothing(how: dict[str, Any]) -> None:
    words = [f"{name}={value}" for name, value in how.items() if "." in name]
    run(*words, agent=Strict, **{name: how[name] for name in how if "." not in name})


@pytest.mark.parametrize("kind", KINDS)
def test_not_even_the_step_that_tells_the_fields_takes_what_is_ruled_out(kind: str) -> None:
    refused = []

    class Watched(Ruled):
        def step(self, action: Any) -> Any:
            try:
                return super().step(action)
            except AssertionError as error:
                refused.append(error)
                raise

    run(agent="Random", env=lambda: Watched(kind), train_steps=8, seed_steps=4, eval_every=8)
    assert not refused


class Policy(nn.Module):
    """Wants what is ruled out most of all."""

    def __init__(self, action_spec: Any) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.arange(float(action_spec.n)))

    def forward(self, obs: Tensor) -> Tensor:
        return self.bias.expand(len(obs), -1)


class Learns(Policy):
    def learn(self, replay: Any) -> Tensor:
        batch = next(replay)
        taken = batch.action_mask.gather(1, batch.action[:, None])
        assert taken.all()
        return self(batch.obs).square().mean()


class Draws(Policy):
    def forward(self, obs: Tensor) -> Any:
        return torch.distributions.Categorical(logits=super().forward(obs))


class Remembers(nn.Module):
    def __init__(self, action_spec: Any) -> None:
        super().__init__()
        self.memory, self.head = nn.GRU(2, 8, batch_first=True), nn.Linear(8, action_spec.n)

    def forward(self, obs: Tensor, state: Any = None) -> Any:
        features, state = self.memory(obs, state)
        return self.head(features), state


@pytest.mark.parametrize("model", [Policy, Learns, Draws, Remembers])
def test_models_without_an_act_of_their_own_keep_to_it(model: Any) -> None:
    run(agent=model, num_envs=2)


@pytest.mark.parametrize("policy", [Draws, Remembers])
def test_policies_of_ones_own_keep_to_it(policy: Any) -> None:
    run("model.steps=16", agent="PPO", policy=policy, num_envs=2)


def test_without_env_info_the_mask_is_not_known() -> None:
    with pytest.raises(DataError, match="rules out"):
        run(agent="Random", env_info=None)


def test_ppo_is_on_policy_in_its_first_epoch() -> None:
    """Ratios are 1 before the first update: the policy that learns is masked as the one that acted."""
    log = run(
        "model.steps=20", "model.epochs=1", "model.minibatch_size=1000", agent="PPO", log_every=1
    )
    rows = [row for row in log.history if "approx_kl" in row]
    assert rows
    assert all(abs(row["approx_kl"]) < 1e-6 for row in rows)


def test_what_is_of_numbers_is_refused() -> None:
    with pytest.raises(ConfigError, match="the action is continuous"):
        run(agent="TD3", env="Pendulum-v1")


@pytest.mark.parametrize("agent", ["SAC"])
def test_an_agent_that_would_ignore_it_is_refused(agent: str) -> None:
    with pytest.raises(ConfigError, match="Use DQN, PPO or A2C"):
        run(agent=agent)


def test_a_model_that_acts_itself_may_do_with_it_what_it_likes() -> None:
    class Own(Policy):
        def act(self, obs: Tensor, info: Any) -> Tensor:
            return info["action_mask"].int().argmax(1)

        def learn(self, replay: Any) -> None:
            pass

    run(agent=Own)
