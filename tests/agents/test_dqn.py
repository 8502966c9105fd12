"""DQN: its targets by hand, its exploration, and what it does with a batch."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antelope.agents.dqn import DQN, q_network
from antelope.replay import Batch, ConfigError, Space

OBS = Space((2,))
CHOICE = Space((3,), torch.int64, discrete=True)


class Table(nn.Module):
    """Q-values of numbered states, `obs` `[B, 1]`."""

    def __init__(self, *values: list[float]):
        super().__init__()
        self.values = nn.Parameter(torch.tensor(values))

    def forward(self, obs: Tensor) -> Tensor:
        return self.values[obs[:, 0].long()]


class FakeReplay:
    """The same batch at each step."""

    def __init__(self, batch: Batch, *, prioritized: bool = False):
        self.batch, self.prioritized = batch, prioritized
        self.given: list[tuple[Tensor, Tensor]] = []

    def __next__(self) -> Batch:
        return self.batch

    def update_priorities(self, index: Tensor, priority: Tensor) -> None:
        self.given.append((index, priority))


class Log(dict[str, Any]):
    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


def by_hand(**arguments: Any) -> DQN:
    """State 1 follows state 0; the network prefers action 1 there, the target action 2."""
    agent = DQN(OBS, CHOICE, **arguments)
    agent.network = Table([1.0, 2.0, 3.0], [0.0, 9.0, 5.0])
    agent.target = Table([0.0, 0.0, 0.0], [1.0, 4.0, 6.0]).requires_grad_(False)
    agent.learning_steps = 1  # The target is not due.
    return agent


# Three times the step from 0 to 1: an ordinary one, one that terminated, one that was truncated.
BATCH = Batch(
    obs=torch.zeros(3, 1),
    action=torch.tensor([0, 1, 2]),
    reward=torch.tensor([1.0, 1.0, -1.0]),
    discount=torch.tensor([0.5, 0.0, 0.5]),
    next_obs=torch.ones(3, 1),
    index=torch.tensor([5, 6, 7]),
    weight=torch.tensor([1.0, 0.5, 0.25]),
)


def huber(error: float) -> float:
    return error**2 / 2 if abs(error) < 1 else abs(error) - 0.5


def test_the_target_is_the_target_networks_best() -> None:
    # y = 1 + 6 / 2 = 4, then 1, then -1 + 6 / 2 = 2; Q = 1, 2, 3.
    loss = by_hand(double=False).learn(FakeReplay(BATCH), Log())
    assert loss.item() == pytest.approx((huber(3) + huber(1) + huber(1)) / 3)


def test_double_takes_the_networks_choice_and_the_targets_value_of_it() -> None:
    # y = 1 + 4 / 2 = 3, then 1, then -1 + 4 / 2 = 1.
    agent = by_hand(double=True)
    loss = agent.learn(FakeReplay(BATCH), Log())
    assert loss.item() == pytest.approx((huber(2) + huber(1) + huber(2)) / 3)
    loss.backward()
    # Each error's gradient is clipped to 1, over three rows; none flows through the target.
    assert agent.network.values.grad.flatten().tolist() == pytest.approx(
        [-1 / 3, 1 / 3, 1 / 3, 0, 0, 0]
    )


def test_a_prioritised_row_counts_by_its_weight_and_gets_its_error_as_priority() -> None:
    replay = FakeReplay(BATCH, prioritized=True)
    loss = by_hand().learn(replay, Log())
    assert loss.item() == pytest.approx((huber(2) + 0.5 * huber(1) + 0.25 * huber(2)) / 3)
    ((index, priority),) = replay.given
    assert index.tolist() == [5, 6, 7]
    assert priority.tolist() == [2, 1, 2]
    assert not priority.requires_grad


def test_the_conservative_term_is_what_is_expected_less_what_was_done() -> None:
    # Q = (1, 2, 3), of which each was done once; without the term the loss is as above.
    log = Log()
    agent = by_hand(conservative=0.5)
    loss = agent.learn(FakeReplay(BATCH), log)
    gap = math.log(math.e + math.e**2 + math.e**3) - 2
    assert loss.item() == pytest.approx((huber(2) + huber(1) + huber(2)) / 3 + 0.5 * gap)
    assert log["gap"].item() == pytest.approx(gap)
    loss.backward()
    # softmax(1, 2, 3) less the shares of 1/3 that were done.
    softmax = [math.e**q / (math.e + math.e**2 + math.e**3) for q in (1, 2, 3)]
    expected = [
        0.5 * (p - 1 / 3) + td for p, td in zip(softmax, [-1 / 3, 1 / 3, 1 / 3], strict=True)
    ]
    assert agent.network.values.grad[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_without_the_conservative_term_a_step_is_what_it_was() -> None:
    losses = []
    for arguments in ({}, {"conservative": 0.0}, {"conservative": 1e-3}):
        log = Log()
        losses.append(by_hand(**arguments).learn(FakeReplay(BATCH), log).item())
        assert ("gap" in log) is ("conservative" in arguments and arguments["conservative"] > 0)
    assert losses[0] == losses[1] != losses[2]
    assert (
        losses[0] == F.smooth_l1_loss(torch.tensor([1.0, 2, 3]), torch.tensor([3.0, 1, 1])).item()
    )


def test_dueling_adds_the_value_to_advantages_of_zero_mean() -> None:
    network = q_network(OBS, 3, (), dueling=True)
    with torch.no_grad():
        network[0].weight.zero_()
        network[0].bias.copy_(torch.tensor([10.0, 1.0, 2.0, 6.0]))
    # 10 + (1, 2, 6) - 3
    assert network(torch.zeros(1, 2)).tolist() == [[8.0, 9.0, 13.0]]


def test_the_target_moves_every_so_many_learning_steps() -> None:
    agent = DQN(OBS, CHOICE, hidden=(4,), target_every=3, tau=0.5)
    batch = Batch(**{**BATCH, "obs": torch.zeros(3, 2), "next_obs": torch.zeros(3, 2)})
    moved = []
    for step in range(7):
        with torch.no_grad():
            agent.network[-1].bias.fill_(step + 1)
        before = agent.target[-1].bias.clone()
        agent.learn(FakeReplay(batch), Log())
        after = agent.target[-1].bias
        if not torch.equal(before, after):
            moved.append(step)
            torch.testing.assert_close(after, (before + step + 1) / 2)
    assert moved == [0, 3, 6]


def test_only_the_network_is_trained() -> None:
    agent = DQN(OBS, CHOICE, hidden=(4,))
    trained = {name.split(".")[0] for name, p in agent.named_parameters() if p.requires_grad}
    assert trained == {"network"}


def shares(agent: DQN, *, steps: int, num_envs: int) -> float:
    """The share of actions that are not the greedy one."""
    obs = torch.zeros(num_envs, 1)
    greedy = agent.network(obs).argmax(1)
    other = [(agent.act(obs) != greedy).float().mean().item() for _ in range(steps)]
    return sum(other) / steps


@pytest.mark.parametrize("num_envs", [1, 20])
def test_random_actions_become_rarer_with_the_environments_steps(num_envs: int) -> None:
    random.seed(0)
    torch.manual_seed(0)
    agent = by_hand(epsilon=(0.9, 0.3), explore_steps=60_000)
    # From 0.9 to 0.85 and at 0.3, of which a third is the greedy action by chance. The share of
    # 5000 has a deviation of sqrt(0.25 / 5000) = 0.007.
    assert shares(agent, steps=5000 // num_envs, num_envs=num_envs) == pytest.approx(
        0.875 * 2 / 3, abs=0.03
    )
    assert agent.epsilon.taken == 5000
    agent.epsilon.taken = 60_000
    assert shares(agent, steps=5000 // num_envs, num_envs=num_envs) == pytest.approx(
        0.3 * 2 / 3, abs=0.03
    )


def test_evaluation_is_greedy_and_neither_counts_nor_draws() -> None:
    agent = by_hand(epsilon=(1.0, 1.0)).eval()
    state, torch_state = random.getstate(), torch.get_rng_state()
    assert agent.act(torch.tensor([[0.0], [1.0]])).tolist() == [2, 1]
    assert agent.epsilon.taken == 0
    assert random.getstate() == state
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_dict_observations() -> None:
    spaces = {"a": Space((2,)), "b": Space(())}
    agent = DQN(spaces, CHOICE, hidden=(4,))
    obs = {"a": torch.zeros(3, 2), "b": torch.zeros(3)}
    assert agent(obs).shape == (3, 3)
    assert agent.act(obs).shape == (3,)
    assert agent.epsilon.taken == 3
    agent.learn(FakeReplay(Batch(**{**BATCH, "obs": obs, "next_obs": obs})), Log()).backward()


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (Space((2,)), "DQN takes one choice.* is float32 2. Take SAC, .* or set discrete=true"),
        (Space((5,), torch.int64, discrete=True, nvec=(2, 3)), "one of 2 and one of 3. Take PPO"),
        (Space((5,), torch.int64, discrete=True, binary=True), "5 of yes or no. Take PPO"),
        ({"a": CHOICE}, "a dict of a. Take PPO"),
    ],
)
def test_another_action_space_is_an_error_that_says_what_to_take(space: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DQN(OBS, space)
