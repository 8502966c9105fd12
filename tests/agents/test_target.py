"""Targets follow, and frozen networks pass gradients on."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from antelope.agents.blocks.target import follow, frozen, target_of


def test_a_target_is_a_copy_that_nobody_trains() -> None:
    network = nn.Linear(2, 2)
    target = target_of(network)
    assert torch.equal(target.weight, network.weight)
    assert target.weight is not network.weight
    assert not target.weight.requires_grad
    assert network.weight.requires_grad


def test_a_target_moves_a_share_of_the_way() -> None:
    network, target = nn.Linear(1, 1), target_of(nn.Linear(1, 1))
    nn.init.constant_(network.weight, 5.0)
    nn.init.constant_(target.weight, 1.0)
    follow(target, network, 0.25)
    assert target.weight.item() == 2.0
    assert not target.weight.requires_grad
    follow(target, network, 1.0)
    assert target.weight.item() == 5.0
    assert torch.equal(target.bias, network.bias)


def test_gradients_pass_a_frozen_network_and_do_not_stay() -> None:
    network, x = nn.Linear(2, 1), torch.ones(1, 2, requires_grad=True)
    with frozen(network):
        y = network(x)
    y.sum().backward()
    assert network.weight.grad is None
    assert torch.equal(x.grad, network.weight)
    network(x).sum().backward()
    assert network.weight.grad is not None


def test_what_was_frozen_before_stays_so() -> None:
    network = nn.Linear(2, 1)
    network.bias.requires_grad_(False)
    with pytest.raises(RuntimeError, match="inside"), frozen(network):
        raise RuntimeError("inside")
    assert network.weight.requires_grad
    assert not network.bias.requires_grad
