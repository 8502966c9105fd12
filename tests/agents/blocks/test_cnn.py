"""The convolutional networks: how much they look at, and how they grow."""

from __future__ import annotations

import torch
from torch import nn

from antelope.agents.blocks import CNN, ResidualCNN
from antelope.agents.blocks.residual import Residual


def size(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


def test_every_convolution_halves_the_resolution() -> None:
    model, seen = CNN((1, 28, 20), 3, channels=(4, 8)), []
    for module in model:
        if isinstance(module, nn.Flatten):
            module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    model(torch.zeros(2, 1, 28, 20))
    assert seen == [(2, 8, 7, 5)]


def test_weights_do_not_grow_with_large_images() -> None:
    assert size(CNN((3, 200, 90), 4)) == size(CNN((3, 32, 32), 4))
    assert size(CNN((3, 16, 16), 4)) < size(CNN((3, 32, 32), 4))


def test_a_residual_block_of_silent_convolutions_passes_its_input() -> None:
    block = Residual(2, 2, stride=1).eval()
    for parameter in block.body.parameters():
        nn.init.zeros_(parameter)
    x = torch.tensor([-1.0, 2.0]).view(1, 2, 1, 1)
    assert block(x).flatten().tolist() == [0, 2]
    assert Residual(2, 6, stride=2)(torch.rand(2, 2, 7, 8)).shape == (2, 6, 4, 4)


def test_the_narrowest_residual_network_runs() -> None:
    assert ResidualCNN((1, 8, 8), 5, channels=1)(torch.zeros(2, 1, 8, 8)).shape == (2, 5)
