"""An ensemble in one product equals its members one by one."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from antelope.agents.blocks import CNN
from antelope.agents.blocks.encoder import encoder
from antelope.agents.blocks.ensemble import Critics, Ensemble, EnsembleLinear, td_loss
from antelope.replay import Batch, ConfigError, Space


def separate(ensemble: nn.Sequential, member: int) -> nn.Sequential:
    """One member, as layers of torch's own."""
    layers: list[nn.Module] = []
    for layer in ensemble:
        if isinstance(layer, EnsembleLinear):
            in_features, out_features = layer.weight[member].shape
            linear = nn.Linear(in_features, out_features)
            linear.load_state_dict(
                {"weight": layer.weight[member].T, "bias": layer.bias[member, 0]}
            )
            layers.append(linear)
        else:
            layers.append(layer)
    return nn.Sequential(*layers)


def test_values_and_gradients_are_those_of_separate_networks() -> None:
    torch.manual_seed(0)
    critics = Critics(encoder(Space((3,)), ()), 2, (16, 8), members=3)
    obs, action = torch.randn(5, 3), torch.randn(5, 2)
    target = torch.randn(3, 5)
    q = critics(obs, action)
    (q - target).square().sum().backward()
    for i in range(3):
        member = separate(critics.members, i)
        alone = member(torch.cat([obs, action], 1)).squeeze(1)
        torch.testing.assert_close(q[i], alone)
        (alone - target[i]).square().sum().backward()
        pairs = zip(critics.members[::2], member[::2], strict=True)
        for together, apart in pairs:
            torch.testing.assert_close(together.weight.grad[i].T, apart.weight.grad)
            torch.testing.assert_close(together.bias.grad[i, 0], apart.bias.grad)


def test_members_begin_apart_and_within_the_bounds_of_a_linear_layer() -> None:
    layer = EnsembleLinear(2, 16, 400)
    assert not torch.equal(layer.weight[0], layer.weight[1])
    for values in (layer.weight, layer.bias):  # nn.Linear: uniform within 1 / sqrt(16).
        assert 0.24 < float(values.detach().abs().max()) <= 0.25
    assert repr(layer) == "EnsembleLinear(members=2, in_features=16, out_features=400)"


def test_critics_of_choices_need_no_action() -> None:
    critics = Critics(encoder(Space((3,)), ()), 4, (8,), discrete=True)
    assert critics(torch.zeros(5, 3)).shape == (2, 5, 4)


def test_td_loss_sums_the_members_mean_squares() -> None:
    q, target = torch.tensor([[0.0, 2.0], [1.0, 1.0]]), torch.tensor([1.0, 4.0])
    replay = SimpleNamespace(prioritized=False)
    # (1 + 4) / 2 + (0 + 9) / 2
    assert td_loss(q, target, Batch(), replay).item() == 7.0


def test_td_loss_weighs_rows_and_gives_priorities_back() -> None:
    given: list[tuple[Tensor, Tensor]] = []
    replay = SimpleNamespace(prioritized=True, update_priorities=lambda *x: given.append(x))
    q = torch.tensor([[0.0, 2.0], [1.0, 1.0]], requires_grad=True)
    batch = Batch(index=torch.tensor([7, 3]), weight=torch.tensor([1.0, 0.5]))
    # (1 + 4 / 2) / 2 + (0 + 9 / 2) / 2
    assert td_loss(q, torch.tensor([1.0, 4.0]), batch, replay).item() == 3.75
    ((index, priority),) = given
    assert index.tolist() == [7, 3]
    assert priority.tolist() == [0.5, 2.5]  # Mean of |1|, |0| and of |2|, |3|.
    assert not priority.requires_grad


def test_an_ensemble_is_the_mean_of_its_members_and_knows_their_spread() -> None:
    def constant(*values: float) -> nn.Linear:
        member = nn.Linear(1, len(values))
        nn.init.zeros_(member.weight)
        member.bias.data = torch.tensor(values)
        return member

    ensemble = Ensemble([constant(1.0, 5.0), constant(3.0, 5.0)])
    obs = torch.zeros(1, 1)
    assert ensemble(obs).tolist() == [[2, 5]]
    assert ensemble.spread(obs).tolist() == [[1, 0]]
    assert ensemble.outputs(obs).shape == (2, 1, 2)
    assert Ensemble([constant(1.0)]).spread(obs).tolist() == [[0]]


def test_members_are_made_from_a_block_and_begin_apart() -> None:
    torch.manual_seed(0)
    for members in (CNN, "CNN"):
        ensemble = Ensemble(members, 3, in_shape=(1, 8, 8), out_features=4)
        assert [type(member) for member in ensemble.members] == [CNN] * 3
        assert ensemble.spread(torch.randn(2, 1, 8, 8)).min() > 0
    linear = Ensemble(nn.Linear, 2, in_shape=(2,), out_features=4)
    assert linear(torch.zeros(3, 2)).shape == (3, 4)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"members": "CNNN"}, "no block `CNNN`. Members can be MLP, CNN"),
        ({"members": "Ensemble"}, "no block `Ensemble`"),
        ({"members": CNN, "out_features": 3}, "cannot construct its members without in_shape"),
        ({"members": []}, "no members"),
        ({"count": 0, "in_shape": (2,), "out_features": 1}, "no members"),
    ],
)
def test_an_ensemble_that_cannot_be_made_says_why(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        Ensemble(**arguments)
