"""The user's modules in the place of an agent's own networks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, Normal

from antelope import ConfigError
from antelope.agents import A2C, DQN, PPO, SAC, TD3, AC2Agent
from antelope.agents.policy.composition import Composition
from antelope.replay import Batch, Space, Spec

OBS = Space((3,))
CHOICE = Space((4,), torch.int64, discrete=True)
BITS = Space((16,), torch.int64, discrete=True, binary=True)
BOX = Space((2,), low=-1.0, high=3.0)
DICTS = {"move": CHOICE, "use": BITS}


class Heads(nn.Module):
    """Logits of every action, from linear layers."""

    def __init__(self, **widths: int):
        super().__init__()
        self.heads = nn.ModuleDict({name: nn.Linear(3, n) for name, n in widths.items()})

    def forward(self, obs: Tensor) -> dict[str, Tensor]:
        return {name: head(obs) for name, head in self.heads.items()}


class Gives(nn.Module):
    """Whatever a function makes of the observation, with a layer before it."""

    def __init__(self, function: Any, width: int = 4):
        super().__init__()
        self.layer, self.function = nn.Linear(3, width), function

    def forward(self, obs: Tensor) -> Any:
        return self.function(self.layer(obs))


class Recurrent(nn.Module):
    """A GRU over sequences, with a head."""

    def __init__(self, obs_shapes: dict[str, Any], width: int, key: str):
        super().__init__()
        self.gru, self.head, self.key = nn.GRU(3, 5, batch_first=True), nn.Linear(5, width), key

    def forward(self, obs: dict[str, Tensor], state: Any = None) -> Any:
        features, state = self.gru(obs["obs"], state)
        return {self.key: self.head(features)}, state


def test_a_head_of_the_wrong_width_is_named_with_its_module() -> None:
    with pytest.raises(ConfigError) as error:
        PPO(OBS, DICTS, policy=Heads(move=4, use=4))
    assert str(error.value) == (
        "Heads: head 'use': expected (B, 16) for MultiBinary(16), got (2, 4) from heads.use: Linear."
    )


def test_all_wrong_heads_are_told_at_once() -> None:
    with pytest.raises(ConfigError, match=r"(?s)'move'.*Discrete\(4\).*'use'.*MultiBinary\(16\)"):
        PPO(OBS, DICTS, policy=Heads(move=3, use=4))


def test_a_missing_head_is_told_with_the_nearest_that_came() -> None:
    with pytest.raises(ConfigError, match=r"no 'move', only moves, use\..*`move`.*`moves`"):
        PPO(OBS, DICTS, policy=Heads(moves=4, use=16))


def test_logits_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"not finite"):
        PPO(OBS, CHOICE, policy=Gives(lambda x: x / 0))


def test_an_error_inside_names_the_module_and_what_it_was_given() -> None:
    broken = nn.Sequential(nn.Linear(3, 4), nn.Linear(5, 4))
    with pytest.raises(ConfigError, match=r"Sequential.forward raised.* in 1: Linear.*\(2, 3\)"):
        PPO(OBS, CHOICE, policy=broken)


def test_values_of_the_wrong_shape_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"'value': expected \(B,\) or \(B, 1\), got \(2, 4\)"):
        PPO(OBS, CHOICE, critic=Gives(lambda x: {"value": x}))
    with pytest.raises(ConfigError, match=r"no 'value', only worth"):
        PPO(OBS, CHOICE, critic=Gives(lambda x: {"worth": x}))


@pytest.mark.parametrize(
    ("space", "function", "width"),
    [
        (CHOICE, lambda x: Categorical(logits=x), 4),
        (BOX, lambda x: Normal(x, 1.0), 2),
        (BOX, lambda x: Independent(Normal(x, 1.0), 1), 2),
    ],
)
def test_a_policy_may_give_distributions(space: Space, function: Any, width: int) -> None:
    agent = PPO(OBS, space, policy=Gives(function, width))
    action, extras = agent.act(torch.randn(5, 3))
    assert action.shape == (5, *space.value_shape)
    assert extras["log_prob"].shape == extras["value"].shape == (5,)
    if not space.discrete:
        assert bool(((action >= -1) & (action <= 3)).all())
    assert agent(torch.randn(5, 3)).shape == (5, *space.shape)


def test_a_distribution_of_another_space_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"MultiBinary\(16\)"):
        PPO(OBS, BITS, policy=Gives(lambda x: Categorical(logits=x)))


def test_a_value_among_the_policys_output_is_the_critic() -> None:
    def both(x: Tensor) -> dict[str, Tensor]:
        return {"action": x[:, :4], "value": x[:, 4]}

    policy = Gives(both, 5)
    agent = PPO(OBS, CHOICE, policy=policy)
    obs = torch.randn(5, 3)
    assert torch.equal(agent.value(obs), policy.layer(obs)[:, 4])
    # No critic of our own beside it.
    assert sum(p.numel() for p in agent.parameters()) == 4 * 5


def test_what_a_policy_gives_beside_the_logits_is_handed_to_a_critic_that_meets_dicts() -> None:
    class Critic(nn.Module):
        def __init__(self, obs_shapes: Any):
            super().__init__()
            self.layer = nn.Linear(7, 1)

        def forward(self, obs: dict[str, Tensor]) -> Tensor:
            return self.layer(obs["features"])

    policy = Gives(lambda x: {"action": x[:, :4], "features": x}, 7)
    runs: list[int] = []
    policy.layer.register_forward_hook(lambda *_: runs.append(1))
    agent = PPO(OBS, CHOICE, policy=policy, critic=Critic({}))
    runs.clear()
    _, value, _ = agent.both(torch.randn(5, 3))
    assert len(runs) == 1
    value.sum().backward()
    assert policy.layer.weight.grad is not None


def test_a_single_observation_and_action_have_names_for_modules_that_want_dicts() -> None:
    class Named(nn.Module):
        def __init__(self, obs_shapes: Any, action_logits_shapes: Any):
            super().__init__()
            assert (obs_shapes, action_logits_shapes) == ({"obs": (3,)}, {"action": (4,)})
            self.layer = nn.Linear(3, 4)

        def forward(self, obs: dict[str, Tensor]) -> dict[str, Tensor]:
            return {"action": self.layer(obs["obs"])}

    agent = A2C(OBS, CHOICE, policy=Named({"obs": (3,)}, {"action": (4,)}))
    assert agent(torch.randn(5, 3)).shape == (5, 4)


def test_an_encoder_is_run_once_for_both() -> None:
    encoder = nn.Linear(3, 6)
    runs: list[int] = []
    encoder.register_forward_hook(lambda *_: runs.append(1))
    agent = PPO(OBS, CHOICE, encoder=encoder)
    runs.clear()
    agent.both(torch.randn(5, 3))
    assert len(runs) == 1


def test_probing_leaves_modes_buffers_and_random_numbers_alone() -> None:
    policy = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 4))
    policy[2].eval()
    before = {name: buffer.clone() for name, buffer in policy.named_buffers()}
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    critic = nn.Linear(3, 1)
    torch.manual_seed(3)
    Composition(OBS, CHOICE, (), policy=policy, critic=critic)
    assert torch.equal(torch.rand(2), expected)
    assert (policy.training, policy[2].training) == (True, False)
    assert all(torch.equal(b, before[name]) for name, b in policy.named_buffers())
    assert not policy[0]._forward_hooks


@pytest.mark.parametrize("only", ["policy", "critic", "both"])
def test_acting_step_by_step_is_the_forward_over_the_sequence(only: str) -> None:
    torch.manual_seed(0)
    shapes = {"obs": (3,)}
    policy = Recurrent(shapes, 4, "action") if only != "critic" else None
    critic = Recurrent(shapes, 1, "value") if only != "policy" else None
    agent = PPO(OBS, CHOICE, policy=policy, critic=critic)
    assert agent.antelope_traits.recurrent
    obs = torch.randn(2, 6, 3)
    whole, values, _ = agent.both(obs)
    state, log_p, value = None, [], []
    for t in range(6):
        action, extras, state = agent.act(obs[:, t], state)
        log_p.append(extras["log_prob"] - whole.log_p[:, t].gather(1, action[:, None]).squeeze(1))
        value.append(extras["value"])
    assert torch.stack(log_p).abs().max() < 1e-5
    assert torch.allclose(torch.stack(value, 1), values, atol=1e-5)


def test_the_advantages_of_a_recurrent_agent_are_those_of_its_episodes() -> None:
    """The value after an episode's last step is that of the state it was in, not of the next episode's."""
    torch.manual_seed(0)
    critic = Recurrent({"obs": (3,)}, 1, "value")
    agent = PPO(OBS, CHOICE, critic=critic)
    obs, last = torch.randn(4, 1, 3), torch.randn(4, 1, 3)
    first = torch.tensor([[True], [False], [True], [False]])
    truncated = torch.tensor([[False], [True], [False], [False]])
    rollout = Batch(
        obs=obs,
        next_obs=torch.where(truncated[..., None], last, obs.roll(-1, 0)),
        action=torch.zeros(4, 1, dtype=torch.int64),
        reward=torch.ones(4, 1),
        discount=torch.full((4, 1), 0.9),
        terminated=torch.zeros(4, 1, dtype=torch.bool),
        truncated=truncated,
        mask=torch.ones(4, 1, dtype=torch.bool),
        is_first=first,
        state={"critic": torch.zeros(1, 1, 5)},
        log_prob=torch.zeros(4, 1),
    )
    data = agent.with_advantages(rollout, gae_lambda=0.0)
    for start, rows in ((0, 0), (2, 1)):  # Two episodes of two steps.
        ends = rollout.next_obs[start + 1]
        sequence = torch.cat((obs[start : start + 2, 0], ends))[None]
        value = critic({"obs": sequence})[0]["value"].squeeze().detach()
        expected = 1 + 0.9 * value[1:] - value[:-1]
        assert torch.allclose(data.advantage[rows], expected, atol=1e-5)


def test_a_critic_may_be_of_q_values_in_dqn_and_its_target_is_a_copy() -> None:
    agent = DQN(OBS, CHOICE, critic=nn.Linear(3, 4))
    assert agent(torch.zeros(2, 3)).shape == (2, 4)
    assert sum(p.numel() for p in agent.parameters()) == 2 * 16
    with pytest.raises(ConfigError, match=r"expected \(B, 4\) for Discrete\(4\), got \(2, 5\)"):
        DQN(OBS, CHOICE, critic=nn.Linear(3, 5))


def test_td3_learns_a_policy_in_the_environments_units_and_keeps_it_inside() -> None:
    torch.manual_seed(0)
    policy = Gives(lambda x: 10 + x, 2)
    agent = TD3(OBS, BOX, policy=policy).eval()
    assert torch.equal(agent.act(torch.randn(4, 3)), torch.full((4, 2), 3.0))
    batch = Batch(
        obs=torch.randn(8, 3),
        action=torch.rand(8, 2),
        reward=torch.zeros(8),
        discount=torch.full((8,), 0.9),
        next_obs=torch.randn(8, 3),
    )

    class Once:
        prioritized = False

        def __next__(self) -> Batch:
            return batch

    agent = TD3(OBS, BOX, policy=policy, delay=1)
    agent.learn(Once(), Batch()).backward()  # type: ignore[arg-type]
    # What lies beyond the bounds is pulled back, though the critic sees it clipped.
    assert policy.layer.bias.grad is not None
    assert bool((policy.layer.bias.grad > 0).all())


def test_an_encoder_is_trained_by_the_critics_of_sac_alone() -> None:
    encoder = nn.Linear(3, 6)
    agent = SAC(OBS, BOX, encoder=encoder)
    agent.actor(torch.randn(4, 3)).sum().backward()
    assert encoder.weight.grad is None
    agent.critics(torch.randn(4, 3), torch.rand(4, 2)).sum().backward()
    assert encoder.weight.grad is not None


@pytest.mark.parametrize(
    ("action", "model", "chosen"),
    [
        (CHOICE, None, "DQN"),
        (BOX, None, "SAC"),
        (BITS, None, "PPO"),
        (DICTS, None, "PPO"),
        (Space((2,)), None, "PPO"),
        (CHOICE, nn.Linear(3, 4), "DQN"),
        (BOX, nn.Linear(3, 2), "TD3"),
        (BOX, nn.Linear(3, 4), "PPO"),
        (CHOICE, Gives(lambda x: Categorical(logits=x)), "PPO"),
        (CHOICE, Recurrent({}, 4, "action"), "PPO"),
        (DICTS, Heads(move=4, use=16), "PPO"),
    ],
)
def test_the_default_agent_takes_a_model_for_what_it_gives(
    action: Any, model: nn.Module | None, chosen: str
) -> None:
    agent = AC2Agent(Spec(OBS, action), environment=True, model=model)
    assert type(agent.way).__name__ == chosen
    assert chosen in agent.decision


def test_a_policy_of_choices_gives_logits_and_not_values() -> None:
    spec = Spec(OBS, CHOICE)
    assert type(AC2Agent(spec, environment=True, policy=nn.Linear(3, 4)).way) is PPO
    spec = Spec(OBS, BOX)
    assert type(AC2Agent(spec, environment=True, policy=nn.Linear(3, 2)).way) is TD3


def test_a_module_that_divides_by_the_deviation_is_not_refused() -> None:
    class Normalises(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 4)

        def forward(self, obs: Tensor) -> Tensor:
            return self.layer(obs / obs.std(1, keepdim=True))

    PPO(OBS, CHOICE, policy=Normalises())
