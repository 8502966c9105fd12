"""Masks of choices: what is left of a distribution, of Q-values and of chance, by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch import distributions as torchs

from antelope.agents.dqn import DQN
from antelope.agents.drqn import DRQN
from antelope.agents.policy.heads import distribution
from antelope.agents.policy.masks import allowed, draw_allowed, masked, restricted
from antelope.agents.random import draw
from antelope.replay import Batch, ConfigError, Space

ONE = Space((3,), torch.int64, discrete=True)
SEVERAL = Space((5,), torch.int64, discrete=True, nvec=(2, 3))
YES = Space((3,), torch.int64, discrete=True, binary=True)


def test_a_masked_choice_is_the_choice_among_the_others() -> None:
    logits = torch.tensor([[1.0, 5.0, 2.0]], requires_grad=True)
    policy = restricted(distribution(ONE, logits), torch.tensor([[1, 0, 1]], dtype=torch.int8))
    among = torchs.Categorical(logits=torch.tensor([[1.0, 2.0]]))
    torch.testing.assert_close(
        policy.log_prob(torch.tensor([2])), among.log_prob(torch.tensor([1]))
    )
    torch.testing.assert_close(policy.entropy(), among.entropy())
    assert policy.mode.tolist() == [2]
    assert set(policy.sample((200,)).flatten().tolist()) == {0, 2}
    assert policy.log_prob(torch.tensor([1])).item() == -math.inf
    (policy.log_prob(torch.tensor([0])) + policy.entropy()).sum().backward()
    assert logits.grad is not None
    assert logits.grad[0, 1] == 0
    assert logits.grad.isfinite().all()


def test_masks_of_several_choices_lie_in_a_row() -> None:
    mask = torch.tensor([[0, 1, 1, 0, 1]])
    policy = restricted(distribution(SEVERAL, torch.tensor([[9.0, 0, 0, 9, 1]])), mask)
    assert policy.mode.tolist() == [[1, 2]]
    drawn = policy.sample((300,)).reshape(-1, 2)
    assert set(map(tuple, drawn.tolist())) == {(1, 0), (1, 2)}
    p = 1 / (1 + math.e)
    entropy = -p * math.log(p) - (1 - p) * math.log(1 - p)
    assert policy.entropy().item() == pytest.approx(entropy, abs=1e-5)


def test_masks_of_yes_and_no_are_pairs() -> None:
    logits = torch.tensor([[5.0, -5.0, 0.0]], requires_grad=True)
    policy = restricted(distribution(YES, logits), torch.tensor([[1, 0, 0, 1, 1, 1]]))
    assert policy.mode.tolist()[0][:2] == [0, 1]
    assert policy.log_prob(torch.tensor([[0, 1, 0]])).item() == pytest.approx(math.log(0.5))
    assert policy.entropy().item() == pytest.approx(math.log(2))
    policy.entropy().sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_each_action_of_a_dict_has_its_own_mask_or_none() -> None:
    space = {"a": ONE, "b": {"c": SEVERAL}, "d": ONE}
    output = {"a": torch.ones(1, 3), "b": {"c": torch.ones(1, 5)}, "d": torch.tensor([[0.0, 1, 0]])}
    mask = {"a": torch.tensor([[0, 0, 1]]), "b": {"c": torch.tensor([[1, 0, 0, 1, 0]])}}
    policy = restricted(distribution(space, output), mask)
    mode = policy.mode
    assert (mode["a"].tolist(), mode["b"]["c"].tolist(), mode["d"].tolist()) == ([2], [[0, 1]], [1])


def test_torchs_own_categorical_is_masked_and_others_are_refused() -> None:
    mask = torch.tensor([[0, 1, 1]])
    given = torchs.Categorical(logits=torch.tensor([[3.0, 1.0, 2.0]]))
    assert restricted(distribution(ONE, given), mask).mode.tolist() == [2]
    with pytest.raises(ConfigError, match="return logits"):
        restricted(torchs.Normal(torch.zeros(1), torch.ones(1)), mask)


def test_where_nothing_is_allowed_everything_is() -> None:
    assert allowed(torch.tensor([[0, 0], [0, 1]])).tolist() == [[True, True], [False, True]]
    assert allowed(torch.tensor([0, 0, 1, 0, 1]), (2, 3)).tolist() == [
        True,
        True,
        True,
        False,
        True,
    ]
    assert masked(torch.zeros(2), torch.zeros(2)).isfinite().all()


@pytest.mark.parametrize("space", [ONE, SEVERAL, YES], ids=["one", "several", "yes"])
def test_chance_is_uniform_over_what_is_allowed(space: Space) -> None:
    torch.manual_seed(0)
    mask = {"one": [1, 0, 1], "several": [1, 1, 0, 1, 1], "yes": [1, 0, 1, 1, 0, 1]}
    name = "yes" if space.binary else "several" if space.nvec else "one"
    drawn = draw_allowed(space, torch.tensor([mask[name]] * 4000))
    values, counts = torch.unique(drawn, dim=0, return_counts=True)
    wanted: dict[str, Any] = {"one": [0, 2], "several": [[0, 1], [0, 2], [1, 1], [1, 2]]}
    wanted["yes"] = [[0, 0, 1], [0, 1, 1]]
    assert values.tolist() == wanted[name]
    assert (counts / 4000 - 1 / len(counts)).abs().max() < 0.03


def test_chance_of_a_dict_heeds_the_masks_that_there_are() -> None:
    drawn = draw({"a": ONE, "b": ONE}, 200, {"a": torch.tensor([[0, 1, 0]] * 200)})
    assert set(drawn["a"].tolist()) == {1}
    assert set(drawn["b"].tolist()) == {0, 1, 2}


class Table(nn.Module):
    """Q-values of numbered states, `obs` `[..., 1]`."""

    def __init__(self, *values: list[float]):
        super().__init__()
        self.values = nn.Parameter(torch.tensor(values))

    def forward(self, obs: Tensor, state: Any = None) -> Any:
        q = self.values[obs[..., 0].long()]
        return q if state is None else (q, state)


class FakeReplay:
    prioritized = False

    def __init__(self, batch: Batch):
        self.batch = batch

    def __next__(self) -> Batch:
        return self.batch


class Log(dict[str, Any]):
    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


NETWORK, TARGET = ([1.0, 2.0, 3.0], [0.0, 9.0, 5.0]), ([0.0, 0.0, 0.0], [1.0, 6.0, 4.0])
# From state 0 to 1, where action 1 is ruled out; once the episode ended there, with no action left.
BATCH = Batch(
    obs=torch.zeros(2, 1),
    action=torch.tensor([0, 0]),
    reward=torch.tensor([1.0, 1.0]),
    discount=torch.tensor([0.5, 0.0]),
    next_obs=torch.ones(2, 1),
    action_mask=torch.tensor([[1, 1, 0]] * 2),
    next_action_mask=torch.tensor([[1, 0, 1], [0, 0, 0]]),
)


def huber(error: float) -> float:
    return error**2 / 2 if abs(error) < 1 else abs(error) - 0.5


@pytest.mark.parametrize("double", [False, True])
def test_dqn_continues_with_the_best_action_that_is_allowed(double: bool) -> None:
    agent = DQN(Space((1,)), ONE, double=double)
    agent.network, agent.target = Table(*NETWORK), Table(*TARGET)
    agent.learning_steps = 1
    # Q' of action 2, which the target and the network prefer of the two: 4. Unmasked it is 6.
    loss = agent.learn(FakeReplay(BATCH), Log())  # type: ignore[arg-type]
    assert loss.item() == pytest.approx((huber(1 + 0.5 * 4 - 1) + huber(0)) / 2)


def test_double_dqn_asks_the_network_which_of_the_allowed_is_best() -> None:
    agent = DQN(Space((1,)), ONE, double=True)
    agent.network, agent.target = Table([0.0, 9, 5]), Table([7.0, 6, 4])
    best = agent.next_value(torch.zeros(1, 1), torch.tensor([[1, 0, 1]]))
    assert best.item() == 4
    agent.choose_by_network = False
    assert agent.next_value(torch.zeros(1, 1), torch.tensor([[0, 1, 1]])).item() == 6


def test_conservative_q_learning_sums_over_what_is_allowed() -> None:
    agent, log = DQN(Space((1,)), ONE, conservative=0.5), Log()
    agent.network, agent.target = Table(*NETWORK), Table(*TARGET)
    agent.learning_steps = 1
    agent.learn(FakeReplay(BATCH), log).backward()  # type: ignore[arg-type]
    assert log["gap"].item() == pytest.approx(math.log(math.exp(1) + math.exp(2)) - 1)
    assert isinstance(agent.network, Table)
    grad = agent.network.values.grad
    assert grad is not None
    assert grad.isfinite().all()
    assert grad[0, 2] == 0


def test_dqn_explores_among_what_is_allowed() -> None:
    agent = DQN(Space((1,)), ONE, epsilon=(0.5, 0.5))
    agent.network = Table([0.0, 9.0, 5.0])
    info = {"action_mask": torch.tensor([[1, 0, 1]] * 400)}
    chosen = agent.act(torch.zeros(400, 1), info=info).tolist()
    assert set(chosen) == {0, 2}
    assert chosen.count(0) == pytest.approx(100, abs=40)
    assert set(agent.eval().act(torch.zeros(400, 1), info=info).tolist()) == {2}


def test_drqn_continues_with_the_best_action_that_is_allowed() -> None:
    agent = DRQN(Space((1,)), ONE, tau=0.0)
    agent.network, agent.target = Table(*NETWORK), Table(*TARGET)  # type: ignore[assignment]
    steps = {n: BATCH[n][:1, None] for n in BATCH}
    batch = Batch(**steps, mask=torch.ones(1, 1), state=torch.zeros(1, 1, 1))
    loss = agent.learn(FakeReplay(batch), Log())  # type: ignore[arg-type]
    assert loss.item() == pytest.approx(huber(1 + 0.5 * 4 - 1))
