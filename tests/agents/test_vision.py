"""Networks for photographs, made to fit the images at hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision import models

from antelope.agents.vision import fit_to_images
from antelope.replay import Space


def resnet(shape: tuple[int, ...]) -> nn.Module:
    return fit_to_images(models.resnet18(num_classes=4), Space(shape))


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (4, 8, 12)])
def test_small_images_keep_their_resolution(shape: tuple[int, ...]) -> None:
    network = resnet(shape)
    stem = network.conv1
    assert isinstance(stem, nn.Conv2d)
    assert (stem.in_channels, stem.stride, stem.kernel_size) == (shape[0], (1, 1), (3, 3))
    assert isinstance(network.maxpool, nn.Identity)
    before_blocks = network.relu(network.bn1(stem(torch.zeros(2, *shape))))
    assert network.maxpool(before_blocks).shape[-2:] == shape[1:]
    assert network.eval()(torch.zeros(2, *shape)).shape == (2, 4)


def test_large_images_only_change_the_channels() -> None:
    network = resnet((1, 64, 80))
    stem = network.conv1
    assert isinstance(stem, nn.Conv2d)
    assert (stem.in_channels, stem.stride, stem.kernel_size) == (1, (2, 2), (7, 7))
    assert isinstance(network.maxpool, nn.MaxPool2d)


def test_photographs_change_nothing() -> None:
    original = models.resnet18(num_classes=4)
    stem = original.conv1
    assert fit_to_images(original, Space((3, 64, 64))).conv1 is stem


def test_other_networks_get_the_channels_of_the_images() -> None:
    network = fit_to_images(models.mobilenet_v3_small(num_classes=4), Space((1, 32, 32)))
    assert network.eval()(torch.zeros(2, 1, 32, 32)).shape == (2, 4)


def test_what_meets_no_images_is_left_alone() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 1))
    assert fit_to_images(network, Space((7,)))[0].in_channels == 3  # type: ignore[index]
    linear = nn.Linear(2, 2)
    assert fit_to_images(linear, Space((1, 8, 8))) is linear
